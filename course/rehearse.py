"""`course rehearse`: examines the model answer, the untouched release and every sample answer of a question."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nbformat
from rich.markup import escape
from rich.table import Table

from .answers import Answer, fill_in, read_answers
from .examiner import Exam, Examination, examine
from .examiner.exam import support_files
from .question import read_source

UNTOUCHED = "(release, untouched)"
MODEL = "(model answer)"


@dataclass(frozen=True)
class Rehearsed:
    """What became of one answer."""

    answer: Answer
    examination: Examination

    @property
    def failed(self) -> dict[str, str]:
        """grade id -> message of the test cells that gave less than full points."""
        verdicts = self.examination.verdicts
        return {verdict.grade_id: verdict.message for verdict in verdicts if verdict.points < verdict.max_points}

    @property
    def problem(self) -> str:
        """Why this is not what the answer deserves; empty if it is."""
        missed, unfair = self.answer.fails - set(self.failed), set(self.failed) - self.answer.fails
        if missed:
            return f"passes {', '.join(sorted(missed))}"
        if unfair:
            return "; ".join(f"fails {grade_id}: {self.failed[grade_id]}" for grade_id in sorted(unfair))
        if not any(self.answer.says in message for message in self.failed.values()) and self.failed:
            return f"no message says {self.answer.says!r}: {'; '.join(self.failed.values())}"
        return ""


def rehearse(
    name: str,
    *,
    source_dir: Path,
    release_dir: Path,
    answers_dir: Path,
    sandbox: str = "bubblewrap",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Rehearsed]:
    """Examine every answer to a question; each result says whether it is what the answer deserves."""
    original = read_source(source_dir / name / f"{name}.py")
    release = nbformat.read(release_dir / name / f"{name}.ipynb", as_version=4)
    exam = Exam.from_notebook(original, support_files(release_dir / name))
    tests = frozenset(cell.grade_id for cell in exam.cells if cell.is_test)
    cases = [
        (Answer(MODEL, "the model answer", frozenset(), "", {}), original),
        (Answer(UNTOUCHED, "the release as it is given out", tests, "", {}), release),
    ]
    cases += [(answer, fill_in(original, answer.cells)) for answer in read_answers(answers_dir / name)]
    done = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        examined = pool.map(lambda case: examine(case[1], exam, sandbox=sandbox), cases)
        for (answer, _), examination in zip(cases, examined, strict=True):
            done.append(Rehearsed(answer, examination))
            on_progress(len(done), len(cases))
    return done


def kill_table(name: str, results: list[Rehearsed]) -> Table:
    """A table of the answers: the points of each, whether that is as it must be, and how it fails."""
    table = Table(title=f"{name}: {len(results)} answers", title_justify="left")
    for column in ("answer", "points", ""):
        table.add_column(column, no_wrap=True)
    table.add_column("fails")
    for result in results:
        examination = result.examination
        points = f"{examination.points:g} / {examination.max_points:g}"
        verdict = "[red]WRONG" if result.problem else "[green]as it must"
        fails = "\n".join(f"{grade_id}: {shortened(message)}" for grade_id, message in result.failed.items())
        table.add_row(result.answer.name, points, verdict, escape(fails))
    return table


def shortened(message: str, width: int = 180) -> str:
    """The first line of a message, cut to a width."""
    line = message.strip().split("\n")[0]
    return line if len(line) <= width else line[: width - 1] + "…"
