"""Handing in to a course directory that holds the sample question, mending its tests, reading what was recorded."""

from pathlib import Path

import nbformat
from nbgrader.api import Gradebook

from course.build import build

NAME = "q90_sample"
HALF = {"width": "def width(n): return 3"}  # gets 2 of 6 points


def model(course: Path, **changes: str) -> str:
    """The instructor's notebook, with the content of some solution cells replaced."""
    notebook = nbformat.read(course / "source" / NAME / f"{NAME}.ipynb", as_version=4)
    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = changes.get(grade_id, cell.source)
    return nbformat.writes(notebook)


def hand_in(course: Path, student: str, content: str | bytes | None = None, **changes: str) -> None:
    """Hand in a content, or else the instructor's notebook with changes."""
    folder = course / "submitted" / student / NAME
    folder.mkdir(parents=True, exist_ok=True)
    content = model(course, **changes) if content is None else content
    (folder / f"{NAME}.ipynb").write_bytes(content if isinstance(content, bytes) else content.encode())


def recorded(course: Path, student: str) -> Path:
    """The notebook that grading wrote."""
    return course / "autograded" / student / NAME / f"{NAME}.ipynb"


def mend(course: Path, old: str, new: str) -> None:
    """Change the text of the question, and build it."""
    text = course / "source" / NAME / f"{NAME}.py"
    assert old in text.read_text()
    text.write_text(text.read_text().replace(old, new))
    build([NAME], source_dir=course / "source", course_dir=course)


def scores(course: Path, db_url: str | None = None) -> dict[str, float]:
    """Student -> score in the gradebook."""
    with Gradebook(db_url or f"sqlite:///{course}/gradebook.db") as gradebook:
        return {entry.student.id: entry.score for entry in gradebook.find_assignment(NAME).submissions}


def give_points(course: Path, student: str, cell: str, points: float, db_url: str | None = None) -> None:
    """Score a cell by hand, as the formgrader does."""
    with Gradebook(db_url or f"sqlite:///{course}/gradebook.db") as gradebook:
        grade = gradebook.find_grade(cell, NAME, NAME, student)
        grade.manual_score, grade.needs_manual_grade = points, False
        gradebook.db.commit()
