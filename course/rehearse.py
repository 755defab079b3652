"""`course rehearse`: examines the model answer, the untouched release and every sample answer of a question.

The first two sit the whole exam. A sample answer differs from the model answer in some exercises, and sits these.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from rich.markup import escape
from rich.table import Table

from .answers import Answer, fill_in, read_answers
from .examiner import Exam, Examination, examine
from .examiner.exam import support_files
from .question import find_exercises, is_test, read_source

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
    files = support_files(release_dir / name)
    tests = frozenset(grade_id_of(cell) for cell in original.cells if is_test(cell))
    exam = Exam.from_notebook(original, files)
    cases = [
        (Answer(MODEL, "the model answer", frozenset(), "", {}), exam, original),
        (Answer(UNTOUCHED, "the release as it is given out", tests, "", {}), exam, release),
    ]
    for answer in read_answers(answers_dir / name):
        concerned = with_tests(original, concerned_tests(original, answer))
        exam = Exam.from_notebook(concerned, files)  # not in the threads: Python 3.11's ast.parse is not safe in them
        cases.append((answer, exam, fill_in(concerned, answer.cells)))
    done = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        examined = pool.map(lambda case: examine(case[2], case[1], sandbox=sandbox), cases)
        for (answer, *_), examination in zip(cases, examined, strict=True):
            done.append(Rehearsed(answer, examination))
            on_progress(len(done), len(cases))
    return done


def concerned_tests(notebook: NotebookNode, answer: Answer) -> set[str]:
    """The grade ids of the tests of the exercises that an answer fills in, and of those that it must fail."""
    concerned = {
        grade_id_of(test)
        for exercise in find_exercises(notebook)
        if any(grade_id_of(blank) in answer.cells for blank in exercise.blanks)
        for test in exercise.tests
    }
    return concerned | answer.fails


def with_tests(notebook: NotebookNode, kept: set[str]) -> NotebookNode:
    """A notebook of the cells of another, without the test cells that are not kept."""
    cells = [cell for cell in notebook.cells if not is_test(cell) or grade_id_of(cell) in kept]
    return NotebookNode(notebook, cells=cells)


def grade_id_of(cell: NotebookNode) -> str:
    return cell.metadata.nbgrader.grade_id


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
