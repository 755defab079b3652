"""Grading a course directory: scores, reasons, what is written, what is left alone."""

import contextlib
import json
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.coursedir import CourseDirectory

from course.directory import load_config, open_course, open_gradebook
from course.grade import _cluster, grade
from course.submissions import GradeError, Ungradable, find_submissions, read_notebook

NAME = "q90_sample"


@pytest.fixture(scope="module")
def client():
    with _cluster(1) as client:
        yield client


@pytest.fixture(autouse=True)
def shared_cluster(request, monkeypatch):
    """One cluster for all tests but those marked `own_cluster`: starting one takes longer than grading."""
    if "own_cluster" not in request.keywords:
        client = request.getfixturevalue("client")
        monkeypatch.setattr("course.grade._cluster", lambda workers: contextlib.nullcontext(client))


@pytest.fixture
def hand_in(sample_course):
    def hand_in(student: str, content: str | bytes) -> None:
        folder = sample_course / "submitted" / student / NAME
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{NAME}.ipynb").write_bytes(content if isinstance(content, bytes) else content.encode())

    return hand_in


def model(course, **changes: str) -> str:
    """The instructor's notebook, with the content of some solution cells replaced."""
    notebook = nbformat.read(course / "source" / NAME / f"{NAME}.ipynb", as_version=4)
    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = changes.get(grade_id, cell.source)
    return nbformat.writes(notebook)


def scores(course) -> dict[str, float]:
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        return {entry.student.id: entry.score for entry in gradebook.find_assignment(NAME).submissions}


@pytest.mark.own_cluster
def test_a_class_with_one_broken_file(sample_course, hand_in):
    hand_in("ann", model(sample_course))
    hand_in("bea [2]", model(sample_course, width="def width(n): return 3"))
    hand_in("cem", "not a notebook")
    outcomes = {outcome.student: outcome for outcome in grade(sample_course, workers=2)}
    assert (outcomes["ann"].status, outcomes["ann"].points, outcomes["ann"].max_points) == ("graded", 6, 6)
    assert outcomes["bea [2]"].points == 2
    assert outcomes["bea [2]"].exercises[0]["message"] == "2**1 needs 2 digits"
    assert outcomes["cem"].status == "not graded" and "not JSON" in outcomes["cem"].reason
    assert scores(sample_course) == {"ann": 6, "bea [2]": 2}
    ungraded = json.loads((sample_course / "autograded" / "ungraded.json").read_text())
    assert list(ungraded) == [f"cem/{NAME}"]
    assert not (sample_course / "autograded" / "cem").exists()
    written = nbformat.read(sample_course / "autograded" / "bea [2]" / NAME / f"{NAME}.ipynb", as_version=4)
    (test,) = (cell for cell in written.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == "test-width")
    assert test.outputs[0].evalue == "2**1 needs 2 digits"

    again = {outcome.student: outcome for outcome in grade(sample_course, workers=1)}
    assert again["ann"].status == "unchanged" and again["ann"].points == 6
    assert again["bea [2]"].exercises == outcomes["bea [2]"].exercises

    hand_in("bea [2]", model(sample_course))
    hand_in("cem", model(sample_course, ones="def ones(n): return 2"))
    third = {outcome.student: (outcome.status, outcome.points) for outcome in grade(sample_course, workers=1)}
    assert third == {"ann": ("unchanged", 6), "bea [2]": ("graded", 6), "cem": ("graded", 5)}
    assert json.loads((sample_course / "autograded" / "ungraded.json").read_text()) == {}

    (only,) = grade(sample_course, [NAME], student="cem", force=True)
    assert (only.student, only.status, only.points) == ("cem", "graded", 5)


def test_a_half_written_result_is_not_taken_for_a_score(sample_course, hand_in):
    hand_in("ann", model(sample_course))
    grade(sample_course, workers=1)
    path = sample_course / "autograded" / "ann" / NAME / f"{NAME}.ipynb"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:1000])
    (outcome,) = grade(sample_course, workers=1)
    assert (outcome.status, outcome.points) == ("graded", 6)


def test_manual_points_survive_grading_again(sample_course, hand_in):
    hand_in("ann", model(sample_course))
    grade(sample_course, workers=1)
    with Gradebook(f"sqlite:///{sample_course}/gradebook.db") as gradebook:
        gradebook.find_grade("rubric-depth", NAME, NAME, "ann").manual_score = 5
        gradebook.db.commit()
    grade(sample_course, workers=1, force=True)
    assert scores(sample_course) == {"ann": 11}


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "not JSON"),
        (b"{}", "not a valid notebook"),
        (b"[1, 2]", "not a valid notebook"),
        (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code"}]}', "not a valid"),
        (b'{"nbformat": 99, "nbformat_minor": 0, "metadata": {}, "cells": []}', "not a valid notebook"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b'{"cells": [', "not JSON"),
    ],
)
def test_what_is_no_notebook_is_told_with_its_reason(tmp_path, content, reason):
    path = tmp_path / "book.ipynb"
    path.write_bytes(content)
    with pytest.raises(Ungradable, match=reason):
        read_notebook(path)


def test_a_missing_notebook_names_what_was_handed_in(tmp_path):
    (tmp_path / "renamed (1).ipynb").write_text("{}")
    with pytest.raises(Ungradable, match=r"book.ipynb is missing; handed in: renamed \(1\).ipynb"):
        read_notebook(tmp_path / "book.ipynb")


@pytest.mark.parametrize("flags", [{"grade": False}, {"solution": True}, {"locked": False}, {"points": 400}])
def test_flags_of_a_submission_change_no_score(sample_course, hand_in, flags):
    notebook = nbformat.reads(model(sample_course, ones="def ones(n): return 2"), as_version=4)
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id", "").startswith("test-"):
            cell.metadata.nbgrader.update(flags)
    hand_in("ann", nbformat.writes(notebook))
    (outcome,) = grade(sample_course, workers=1)
    assert outcome.points == 5 and scores(sample_course) == {"ann": 5}


def test_lost_copied_and_foreign_metadata_cost_nothing(sample_course, hand_in):
    lost = nbformat.reads(model(sample_course), as_version=4)
    for cell in lost.cells:
        cell.metadata = nbformat.NotebookNode()
    copied = nbformat.reads(model(sample_course), as_version=4)
    for cell in [cell for cell in copied.cells if "nbgrader" in cell.metadata]:
        again = nbformat.v4.new_code_cell(cell.source, metadata=cell.metadata)
        copied.cells.append(
            again if cell.cell_type == "code" else nbformat.v4.new_markdown_cell("", metadata=cell.metadata)
        )
    foreign = nbformat.reads(model(sample_course), as_version=4)
    foreign.metadata["course"] = "a text"
    foreign.cells[0].metadata["nbgrader"] = {"grade_id": "unknown", "schema_version": 99}
    for cell, mark in zip(foreign.cells[1:], ({}, "text", {"grade_id": ["a", "list"]}, None), strict=False):
        if "nbgrader" not in cell.metadata:
            cell.metadata["nbgrader"] = mark
    for student, notebook in (("lost", lost), ("copied", copied), ("foreign", foreign)):
        hand_in(student, nbformat.writes(notebook))
    outcomes = grade(sample_course, workers=2)
    assert [(outcome.points, outcome.reason) for outcome in outcomes] == [(6, "")] * 3
    assert scores(sample_course) == {"lost": 6, "copied": 6, "foreign": 6}


def test_links_are_refused(sample_course, hand_in):
    hand_in("ann", model(sample_course))
    (sample_course / "submitted" / "ann" / NAME / "data.txt").symlink_to(sample_course / "gradebook.db")
    (outcome,) = grade(sample_course, workers=1)
    assert "data.txt is a symbolic link" in outcome.reason


def test_nothing_to_grade_and_unknown_assignments_are_errors(sample_course, hand_in):
    with pytest.raises(GradeError, match="there is no submission at"):
        grade(sample_course, workers=1)
    folder = sample_course / "submitted" / "ann" / "ps1"
    folder.mkdir(parents=True)
    with pytest.raises(GradeError, match=r"the gradebook has no assignment 'ps1' \(known: q90_sample\)"):
        grade(sample_course, workers=1)


def test_find_submissions_by_student_and_assignment(sample_course, hand_in):
    for student in ("ann", "bea"):
        hand_in(student, "")
    coursedir = open_course(sample_course)
    assert find_submissions(coursedir, [NAME], None) == [("ann", NAME), ("bea", NAME)]
    assert find_submissions(coursedir, None, "bea") == [("bea", NAME)]


def test_a_course_sets_limits_and_absent_modules(sample_course, hand_in):
    (sample_course / "nbgrader_config.py").write_text(
        "from course.examiner.nbgrader_plugin import configure\nc = get_config()\nconfigure(c)\n"
        "c.Examine.limits = {'cell_seconds': 1}\nc.Examine.absent = ['colorsys']\n"
    )
    endless = "def width(n):\n    while True: pass"
    importing = "import colorsys\ndef ones(n): return colorsys.rgb_to_hls(n)"
    hand_in("ann", model(sample_course, width=endless, ones=importing))
    (outcome,) = grade(sample_course, workers=1)
    messages = [exercise["message"] for exercise in outcome.exercises]
    assert "longer than the limit of 1 s" in messages[0]
    assert "`colorsys` is not available while a submission is graded" in messages[1]


@pytest.mark.filterwarnings("ignore:Object of type <Submitted")
def test_nbgraders_own_autograde_uses_the_examiner(sample_course, hand_in):
    from nbgrader.apps import NbGraderAPI

    hand_in("eve", model(sample_course, width="import math\nmath.floor = lambda x: x\ndef width(n): return 3"))
    hand_in("ann", model(sample_course))
    config = load_config(sample_course)
    api = NbGraderAPI(CourseDirectory(config=config), config=config)
    for student in ("ann", "eve"):
        assert api.autograde(NAME, student)["success"]
    assert scores(sample_course) == {"ann": 6, "eve": 2}
    assert api.generate_feedback(NAME, "eve")["success"]
    page = (sample_course / "feedback" / "eve" / NAME / f"{NAME}.html").read_text()
    assert "2**1 needs 2 digits" in page
    assert "floor(math.log2(1000))" not in page  # a hidden test
    assert "the width fixes the memory" not in page  # a mark scheme


@pytest.mark.filterwarnings("ignore")
def test_nbgraders_example_course_gets_the_scores_that_nbgrader_gives(tmp_path):
    """Two notebooks per assignment, manual cells, and a test that deletes a candidate's function to see it missed."""
    from nbgrader.apps import NbGraderAPI

    nbgrader = [sys.executable, "-m", "nbgrader", "quickstart", "example"]
    subprocess.run(nbgrader, cwd=tmp_path, check=True, capture_output=True)
    course = tmp_path / "example"
    config = load_config(course)
    open_gradebook(CourseDirectory(config=config)).close()
    api = NbGraderAPI(CourseDirectory(config=config), config=config)
    assert api.generate_assignment("ps1")["success"]
    for student, step in (("ann", "source"), ("bea", "release")):
        shutil.copytree(course / step / "ps1", course / "submitted" / student / "ps1")
    outcomes = grade(course, workers=1)
    assert [(outcome.points, outcome.max_points) for outcome in outcomes] == [(3, 3), (0, 3)]
