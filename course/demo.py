"""`course demo`: a sample class, graded from end to end in a course directory of its own."""

import ast
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.converters import GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from rich.table import Table

from quant_kernels.commands.mixes import table
from quant_kernels.measures.mix_table import mix_table

from .answers import Answer, fill_in, model_cells, read_answers
from .build import build
from .directory import load_config
from .fetch import fetch
from .grading.grade import Outcome, grade
from .question import read_source
from .texts import evaluation_text

ASSIGNMENT = "q06_block_quantization"
CONFIG = """from course.examiner.nbgrader_plugin import configure

c = get_config()
configure(c)
c.Examine.limits = {"cell_seconds": 10}
"""
ENDLESS = """
def endless(*args, **kwargs):
    while True:
        pass
"""
CHATTY = """
def endless(*args, **kwargs):
    while True:
        print("still here" * 1000)
"""
PATCHED = """
import numpy.testing
import torch

torch.allclose = torch.equal = lambda *args, **kwargs: True
numpy.testing.assert_array_equal = numpy.testing.assert_allclose = lambda *args, **kwargs: None
def endless(*args, **kwargs):
    return torch.zeros(1)
"""
MIXES = ("F16", "Q8_0", "Q4_K_M", "Q2_K")  # that the course model is shown in
WINDOWS = 8
RUBRIC = {"ada-right": 0.9, "ben-another-way": 0.6, "cem-half-right": 0.45}  # share of the points an instructor gave


class DemoError(Exception):
    """The sample class was not graded as it must be; the message says where."""


@dataclass(frozen=True)
class Sample:
    """One candidate of the sample class."""

    student: str
    text: str  # of the notebook that is handed in
    deserves: Callable[[Outcome], bool]


def demo(
    course_dir: Path, *, source_dir: Path, answers_dir: Path, on_step: Callable[[str, int, int], None]
) -> list[Outcome]:
    """Build, hand in, grade and give feedback in a fresh `course_dir`, and return what became of each candidate.

    Raises DemoError if `course_dir` holds anything but an earlier demo, or if a score is not the one deserved.
    """
    _make_room(course_dir)
    on_step("building release/", 0, 1)
    (release,) = build([ASSIGNMENT], source_dir=source_dir, course_dir=course_dir)
    original = read_source(source_dir / ASSIGNMENT / f"{ASSIGNMENT}.py")
    samples = sample_class(original, release.read_text(), read_answers(answers_dir / ASSIGNMENT))
    for sample in samples:
        folder = course_dir / "submitted" / sample.student / ASSIGNMENT
        folder.mkdir(parents=True)
        (folder / release.name).write_text(sample.text)
    outcomes = grade(course_dir, on_progress=lambda done, total: on_step("grading", done, total))
    on_step("scoring rubric cells, writing feedback", 0, 1)
    _score_rubric(course_dir)
    _give_feedback(course_dir)
    _check(samples, outcomes)
    return outcomes


def _make_room(course_dir: Path) -> None:
    config = course_dir / "nbgrader_config.py"
    if course_dir.exists():
        if not config.is_file() or config.read_text() != CONFIG:
            raise DemoError(f"{course_dir} is there already, and no demo made it; name a folder that is not there")
        shutil.rmtree(course_dir)
    course_dir.mkdir(parents=True)
    config.write_text(CONFIG)


def sample_class(original: NotebookNode, release: str, answers: list[Answer]) -> list[Sample]:
    """Eight candidates: two right, one half right, one empty, three hostile, one whose file is broken."""
    model = model_cells(original)
    half = dict(list(model.items())[: len(model) // 2])
    first = next(iter(model))
    other_way = next(answer for answer in answers if answer.is_right)
    blank = nbformat.reads(release, as_version=4)

    def written(cells: dict[str, str]) -> str:
        return nbformat.writes(fill_in(blank, cells))

    return [
        Sample("ada-right", written(model), _has_all),
        Sample("ben-another-way", written({**model, **other_way.cells}), _has_all),
        Sample("cem-half-right", written(half), _has_some),
        Sample("dia-empty", release, _has_none),
        Sample(
            "eve-patches-checks", written({name: _replaced(code, PATCHED) for name, code in model.items()}), _has_none
        ),
        Sample("fin-never-ends", written({**model, first: _replaced(model[first], ENDLESS)}), _has_some),
        Sample("gil-prints-on", written({**model, first: _replaced(model[first], CHATTY)}), _has_some),
        Sample("hal-not-json", "I could not save my notebook, sorry", lambda outcome: not outcome.is_graded),
    ]


def _replaced(code: str, definition: str) -> str:
    """Code that binds the functions that `code` defines to `endless` of the definition."""
    names = [node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
    return definition + "\n" + " = ".join([*names, "endless"])


def _has_all(outcome: Outcome) -> bool:
    return outcome.is_graded and outcome.points == outcome.max_points


def _has_some(outcome: Outcome) -> bool:
    return outcome.is_graded and 0 < outcome.points < outcome.max_points


def _has_none(outcome: Outcome) -> bool:
    return outcome.is_graded and outcome.points == 0


def _check(samples: list[Sample], outcomes: list[Outcome]) -> None:
    found = {outcome.student: outcome for outcome in outcomes}
    for sample in samples:
        outcome = found[sample.student]
        if not sample.deserves(outcome):
            raise DemoError(f"{sample.student} was not graded as deserved: {outcome}")


def _score_rubric(course_dir: Path) -> None:
    """Score the rubric cells of some candidates, as an instructor does in the formgrader."""
    coursedir = CourseDirectory(config=load_config(course_dir))
    with Gradebook(coursedir.db_url) as gradebook:
        for student, share in RUBRIC.items():
            for grade_entry in gradebook.find_submission(ASSIGNMENT, student).notebooks[0].grades:
                if grade_entry.auto_score is None:
                    grade_entry.manual_score = round(share * grade_entry.max_score)
                    grade_entry.needs_manual_grade = False
        gradebook.db.commit()


def _give_feedback(course_dir: Path) -> None:
    config = load_config(course_dir)
    converter = GenerateFeedback(coursedir=CourseDirectory(config=config), config=config, force=True)
    converter.coursedir.assignment_id = ASSIGNMENT
    converter.start()


def quantize_course_model(progress: Callable[[int, int], None]) -> Table:
    """Returns a table of what some mixes leave of the course model."""
    rows = mix_table(fetch("course-model"), evaluation_text(), MIXES, max_windows=WINDOWS, workers=1, progress=progress)
    return table(rows, "The course model in four mixes of llama.cpp")
