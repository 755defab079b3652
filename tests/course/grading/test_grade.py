"""Grading a course directory: scores, reasons, what is written, what is left alone."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.coursedir import CourseDirectory

from course.directory import DirectoryError, load_config, only_writer, open_course, open_gradebook
from course.grading.grade import grade
from course.grading.submissions import GradeError

from ..handing_in import HALF, NAME, give_points, hand_in, mend, model, recorded, scores


def test_a_class_with_one_broken_file(sample_course):
    hand_in(sample_course, "ann")
    hand_in(sample_course, "bea [2]", width="def width(n): return 3")
    hand_in(sample_course, "cem", "not a notebook")
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

    hand_in(sample_course, "bea [2]")
    hand_in(sample_course, "cem", ones="def ones(n): return 2")
    third = {outcome.student: (outcome.status, outcome.points) for outcome in grade(sample_course, workers=1)}
    assert third == {"ann": ("unchanged", 6), "bea [2]": ("graded", 6), "cem": ("graded", 5)}
    assert json.loads((sample_course / "autograded" / "ungraded.json").read_text()) == {}

    (only,) = grade(sample_course, [NAME], student="cem", force=True)
    assert (only.student, only.status, only.points) == ("cem", "graded", 5)


def test_a_half_written_result_is_not_taken_for_a_score(sample_course):
    hand_in(sample_course, "ann")
    grade(sample_course, workers=1)
    path = sample_course / "autograded" / "ann" / NAME / f"{NAME}.ipynb"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:1000])
    (outcome,) = grade(sample_course, workers=1)
    assert (outcome.status, outcome.points) == ("graded", 6)


def test_manual_points_survive_grading_again_and_need_no_second_look(sample_course):
    hand_in(sample_course, "ann")
    grade(sample_course, workers=1)
    give_points(sample_course, "ann", "rubric-depth", 5)
    give_points(sample_course, "ann", "test-width", 3)
    grade(sample_course, workers=1, force=True)
    assert scores(sample_course) == {"ann": 3 + 2 + 5}
    assert needing_a_look(sample_course) == {"rubric-clarity", "model-answer"}

    hand_in(sample_course, "ann", **HALF)
    grade(sample_course, workers=1)
    assert scores(sample_course) == {"ann": 3 + 2 + 5}
    assert "test-width" in needing_a_look(sample_course)  # the points were given for what is not there any more


def needing_a_look(course) -> set[str]:
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        grades = gradebook.find_submission(NAME, "ann").notebooks[0].grades
        return {entry.name for entry in grades if entry.needs_manual_grade}


def test_recording_twice_gives_the_same_gradebook(sample_course):
    hand_in(sample_course, "ann", **HALF)
    grade(sample_course, workers=1)
    once = rows(sample_course)
    grade(sample_course, workers=1, force=True)
    assert rows(sample_course) == once


def rows(course) -> dict[str, list]:
    """All of the gradebook but the times."""
    with contextlib.closing(sqlite3.connect(course / "gradebook.db")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: sorted(map(repr, database.execute(f'SELECT * FROM "{name}"'))) for name in tables}


def test_what_older_tests_graded_is_left_to_regrade(sample_course):
    hand_in(sample_course, "ann", **HALF)
    hand_in(sample_course, "bea", **HALF)
    grade(sample_course, workers=1)
    before = recorded(sample_course, "ann").read_bytes()
    mend(sample_course, "assert ones(5) == 2", "assert ones(5) == 3")
    hand_in(sample_course, "bea")  # again: graded by the tests of now
    hand_in(sample_course, "cem")
    outcomes = {outcome.student: (outcome.status, outcome.points) for outcome in grade(sample_course, workers=1)}
    assert outcomes == {"ann": ("graded by older tests", 2), "bea": ("graded", 5), "cem": ("graded", 5)}
    assert recorded(sample_course, "ann").read_bytes() == before
    (forced,) = grade(sample_course, workers=1, student="ann", force=True)
    assert (forced.status, forced.points) == ("graded", 1)


def test_notes_are_told_again_when_nothing_changed(sample_course):
    hand_in(sample_course, "ann", b"\xef\xbb\xbf" + model(sample_course).encode())
    (sample_course / "submitted" / "ann" / NAME / f"{NAME}.ipynb").rename(
        sample_course / "submitted" / "ann" / NAME / "renamed (1).ipynb"
    )
    (first,) = grade(sample_course, workers=1)
    (second,) = grade(sample_course, workers=1)
    assert "renamed (1).ipynb" in first.notes[0]
    assert (second.status, second.notes) == ("unchanged", first.notes)


def test_two_gradings_at_a_time_are_refused(sample_course):
    hand_in(sample_course, "ann")
    with (
        only_writer(open_course(sample_course)),
        pytest.raises(DirectoryError, match=f"is held by process {os.getpid()}"),
    ):
        grade(sample_course, workers=1)


@pytest.mark.parametrize("flags", [{"grade": False}, {"solution": True}, {"locked": False}, {"points": 400}])
def test_flags_of_a_submission_change_no_score(sample_course, flags):
    notebook = nbformat.reads(model(sample_course, ones="def ones(n): return 2"), as_version=4)
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id", "").startswith("test-"):
            cell.metadata.nbgrader.update(flags)
    hand_in(sample_course, "ann", nbformat.writes(notebook))
    (outcome,) = grade(sample_course, workers=1)
    assert outcome.points == 5 and scores(sample_course) == {"ann": 5}


def test_lost_copied_and_foreign_metadata_cost_nothing(sample_course):
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
        hand_in(sample_course, student, nbformat.writes(notebook))
    outcomes = grade(sample_course, workers=2)
    assert [(outcome.points, outcome.reason) for outcome in outcomes] == [(6, "")] * 3
    assert scores(sample_course) == {"lost": 6, "copied": 6, "foreign": 6}


def test_nothing_to_grade_and_unknown_assignments_are_errors(sample_course):
    with pytest.raises(GradeError, match="there is no submission at"):
        grade(sample_course, workers=1)
    folder = sample_course / "submitted" / "ann" / "ps1"
    folder.mkdir(parents=True)
    with pytest.raises(GradeError, match=r"the gradebook has no assignment 'ps1' \(known: q90_sample\)"):
        grade(sample_course, workers=1)


def test_a_course_sets_limits_and_absent_modules(sample_course):
    (sample_course / "nbgrader_config.py").write_text(
        "from course.examiner.nbgrader_plugin import configure\nc = get_config()\nconfigure(c)\n"
        "c.Examine.limits = {'cell_seconds': 1}\nc.Examine.absent = ['colorsys']\n"
    )
    endless = "def width(n):\n    while True: pass"
    importing = "import colorsys\ndef ones(n): return colorsys.rgb_to_hls(n)"
    hand_in(sample_course, "ann", width=endless, ones=importing)
    (outcome,) = grade(sample_course, workers=1)
    messages = [exercise["message"] for exercise in outcome.exercises]
    assert "longer than the limit of 1 s" in messages[0]
    assert "`colorsys` is not available while a submission is graded" in messages[1]


@pytest.mark.filterwarnings("ignore:Object of type <Submitted")
def test_nbgraders_own_autograde_uses_the_examiner(sample_course):
    from nbgrader.apps import NbGraderAPI

    hand_in(sample_course, "eve", width="import math\nmath.floor = lambda x: x\ndef width(n): return 3")
    hand_in(sample_course, "ann")
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


@pytest.mark.grader
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
