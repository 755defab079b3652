"""nbgrader's own autograde, as the command and the formgrader's button run it, on unlucky and hostile hand-ins."""

import logging

import nbformat
import nbformat.v4 as nbf
import pytest
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory

from course.directory import load_config

NAME = "q90_sample"
ANSWERS = {
    "width": "def width(n):\n    assert isinstance(n, int)\n    return n.bit_length()",
    "ones": "def ones(n):\n    return bin(n).count('1')",
}
pytestmark = pytest.mark.filterwarnings("ignore:Object of type <Submitted")


@pytest.fixture
def handed_in(sample_course):
    """Right answers in the release."""
    notebook = nbformat.read(sample_course / "release" / NAME / f"{NAME}.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = ANSWERS.get(cell.metadata.get("nbgrader", {}).get("grade_id"), cell.source)
    return notebook


@pytest.fixture
def autograde(sample_course):
    """A function that hands in and runs nbgrader's autograde: its result, the score, and the notebook it wrote."""
    folder = sample_course / "submitted" / "ann" / NAME
    folder.mkdir(parents=True)

    def autograde(content):
        if content is not None:
            (folder / f"{NAME}.ipynb").write_bytes(
                content if isinstance(content, bytes) else nbformat.writes(content).encode()
            )
        config = load_config(sample_course)
        result = NbGraderAPI(CourseDirectory(config=config), config=config).autograde(NAME, "ann")
        path = sample_course / "autograded" / "ann" / NAME / f"{NAME}.ipynb"
        with Gradebook(f"sqlite:///{sample_course}/gradebook.db") as gradebook:
            score = gradebook.find_submission(NAME, "ann").score
        return result, score, nbformat.read(path, as_version=4) if path.is_file() else None

    autograde.folder = folder
    return autograde


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_other_encodings(autograde, handed_in, encoding):
    handed_in.cells[0].source = "Zählen"
    result, score, written = autograde(nbformat.writes(handed_in).encode(encoding))
    assert result["success"] and score == 6
    assert written.cells[0].source == "Zählen"
    notes = written.metadata.course.examination.notes
    assert notes == ([] if encoding != "latin-1" else [notes[0]])


def test_an_old_format_without_any_mark(autograde, handed_in):
    for cell in handed_in.cells:
        cell.metadata = {}
    result, score, written = autograde(nbformat.writes(nbformat.convert(handed_in, 3), version=3).encode())
    assert result["success"] and score == 6
    marked = [cell.metadata.nbgrader.grade_id for cell in written.cells if "nbgrader" in cell.metadata]
    tests = ["test-width", "test-ones", "test-ones-hidden"]
    assert marked == [*tests, "rubric-depth", "rubric-clarity", "model-answer"]


def test_notes_of_restoring_and_examining_are_written(autograde, handed_in):
    for index, cell in enumerate(handed_in.cells):
        if cell.metadata.get("nbgrader", {}).get("grade_id") == "width":
            handed_in.cells[index] = nbf.new_markdown_cell(cell.source, metadata=cell.metadata)
    handed_in.cells = [cell for cell in handed_in.cells if "def ones" not in cell.source]
    handed_in.metadata["course"] = {"notes": ["forged"], "examination": {"notes": ["forged"]}}
    result, score, written = autograde(handed_in)
    assert result["success"] and score == 4
    assert written.metadata.course.examination.notes == [
        "`width` was turned into markdown: it was run as code all the same",
        "`test-ones` needs `ones`: the cell `ones` is missing",
        "`test-ones-hidden` needs `ones`: the cell `ones` is missing",
    ]
    assert set(written.metadata.course) == {"examination"}


@pytest.mark.parametrize(
    "change", [{"grade": False}, {"solution": True, "locked": False}, {"points": 400, "task": True}]
)
def test_claimed_marks_gain_nothing(autograde, handed_in, change):
    for cell in handed_in.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        if grade_id.startswith("test-"):
            cell.metadata.nbgrader.update(change)
            cell.metadata["tags"] = ["skip-execution", "experiment"]
            cell.source = "pass"
        if grade_id == "ones":
            cell.source = "def ones(n): return 2"
    result, score, written = autograde(handed_in)
    assert result["success"] and score == 5
    tests = [cell for cell in written.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    assert [cell.metadata.nbgrader.points for cell in tests] == [4, 1, 1]
    assert "BEGIN HIDDEN TESTS" in tests[0].source and "tags" not in tests[0].metadata


def test_a_damaged_notebook_is_refused_with_its_reason_and_leaves_nothing(autograde, caplog):
    with caplog.at_level(logging.ERROR):
        result, _, written = autograde(b'{"cells": [')
    assert not result["success"] and written is None
    assert f"`{NAME}.ipynb` is not JSON, or only a part of it was saved" in result["log"]


def test_links_are_refused_and_their_targets_are_nowhere(autograde, handed_in, sample_course):
    (autograde.folder / "stolen.db").symlink_to(sample_course / "gradebook.db")
    result, _, written = autograde(handed_in)
    assert not result["success"] and written is None
    assert "`stolen.db` is a symbolic link; hand in the file itself" in result["log"]
    assert not (sample_course / "autograded" / "ann" / NAME).exists()


def test_a_link_in_the_notebooks_place_is_refused(autograde, sample_course):
    (autograde.folder / f"{NAME}.ipynb").symlink_to(sample_course / "source" / NAME / f"{NAME}.ipynb")
    result, score, written = autograde(None)
    assert not result["success"] and written is None and score == 0
    assert "is a symbolic link" in result["log"]
