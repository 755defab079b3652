"""A graded class of the sample question, in every state that a submission can be in."""

import json

import nbformat
from nbformat.v4 import new_notebook
from nbgrader.api import Gradebook

NAME = "q90_sample"
SCRIPT = "<script>alert(1)</script>"
IMAGE = "<img src=x onerror=alert(1)>"  # as the id of a candidate, which is the name of a folder
FORMULA = '=HYPERLINK("x")'
POINTS = ("test-width", "test-ones", "test-ones-hidden")
RUBRIC = ("rubric-depth", "rubric-clarity")


def add(course, student, points=None, rubric=None, messages=None, notes=()):
    """Hand in and, where points are given, grade a submission as the tools of nbgrader do."""
    folder = course / "submitted" / student / NAME
    folder.mkdir(parents=True)
    (folder / f"{NAME}.ipynb").write_text("{}")
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        gradebook.update_or_create_student(student)
        gradebook.add_submission(NAME, student)
        for name, value in zip(POINTS, points or (), strict=False):
            grade = gradebook.find_grade(name, NAME, NAME, student)
            grade.auto_score, grade.needs_manual_grade = value, False
        for name, value in zip(RUBRIC, rubric or (), strict=False):
            grade = gradebook.find_grade(name, NAME, NAME, student)
            grade.manual_score, grade.needs_manual_grade = value, False
        gradebook.db.commit()
    if messages is not None:
        exercises = [{"grade_id": name, "points": 0, "max_points": 1, "message": messages.get(name)} for name in POINTS]
        examination = {"exercises": exercises, "notes": list(notes)}
        write_autograded(course, student, new_notebook(metadata={"course": {"examination": examination}}))


def write_autograded(course, student, notebook):
    folder = course / "autograded" / student / NAME
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / f"{NAME}.ipynb")


def make_classroom(course):
    """Hand in and grade a class in a course directory with the sample question."""
    add(course, "ada", (4, 1, 1), (7, 6), {})
    add(course, "bob", (0, 1, 1), (5, 2), {"test-width": f"5 is 101,\nnot {SCRIPT}"})
    add(
        course,
        "cyd",
        (4, 1, 0),
        None,
        {"test-ones-hidden": "=1+1"},
        ["a cell was copied; the first one counts", SCRIPT],
    )
    add(course, FORMULA, (0, 0, 0), (1,))
    add(course, IMAGE, (4, 1, 1), (4, 2))
    add(course, "[red]eve\x1b[31m")
    add(course, "fay")
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        gradebook.add_student("zoe")
    (course / "autograded/ungraded.json").write_text(json.dumps({f"fay/{NAME}": f"the notebook is not JSON: {SCRIPT}"}))
