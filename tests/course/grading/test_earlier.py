"""What counts as graded: a whole record of what was handed in, by the tests of now; anything less is graded again."""

import json
import shutil

import pytest
from nbgrader.api import Gradebook

from course.directory import open_course
from course.grading.earlier import Pile
from course.grading.grade import grade

from ..handing_in import HALF, NAME, hand_in, mend, recorded


@pytest.fixture(scope="module")
def graded_once(built_once, tmp_path_factory):
    course = shutil.copytree(built_once, tmp_path_factory.mktemp("graded") / "course")
    hand_in(course, "ann", **HALF)
    (course / "submitted" / "ann" / NAME / "data.txt").write_text("1 2 3")
    grade(course, workers=1)
    return course


@pytest.fixture
def graded(graded_once, tmp_path):
    return shutil.copytree(graded_once, tmp_path / "course")


def earlier(course):
    pile = Pile(open_course(course))
    assert pile.found == [("ann", NAME)]
    return pile.earlier("ann", NAME)


def change(path, edit) -> None:
    """Edit a recorded notebook's examination."""
    notebook = json.loads(path.read_text())
    edit(notebook["metadata"]["course"]["examination"])
    path.chmod(0o644)
    path.write_text(json.dumps(notebook))


def test_a_whole_record_counts(graded):
    record = earlier(graded)
    assert [exercise["points"] for exercise in record.exercises] == [0, 1, 1]
    assert record.exercises[0]["message"] == "2**1 needs 2 digits"


@pytest.mark.parametrize(
    "edit",
    [
        lambda examination: examination.pop("handed_in"),  # killed before the record was complete
        lambda examination: examination.update(handed_in="0" * 64),
        lambda examination: examination.update(exercises=None),
        lambda examination: examination.pop("exam"),
        lambda examination: examination["exercises"][0].update(points=4.0),  # not what the gradebook says
        lambda examination: examination.clear(),
    ],
)
def test_a_part_of_a_record_does_not_count(graded, edit):
    change(recorded(graded, "ann"), edit)
    assert earlier(graded) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"metadata": {"course": {"examination": 3}}}', "null"])
def test_a_file_that_was_cut_off_does_not_count(graded, content):
    path = recorded(graded, "ann")
    path.chmod(0o644)
    path.write_text(content)
    assert earlier(graded) is None


def test_a_record_that_the_gradebook_lacks_does_not_count(graded):
    with Gradebook(f"sqlite:///{graded}/gradebook.db") as gradebook:
        gradebook.find_grade("test-ones", NAME, NAME, "ann").auto_score = None
        gradebook.db.commit()
    assert earlier(graded) is None
    (outcome,) = grade(graded, workers=1)
    assert (outcome.status, outcome.points) == ("graded", 2)
    assert earlier(graded) is not None


def test_another_gradebook_has_nothing_of_it(graded):
    with Gradebook(f"sqlite:///{graded}/gradebook.db") as gradebook:
        gradebook.remove_submission(NAME, "ann")
    assert earlier(graded) is None


@pytest.mark.parametrize("file", [f"{NAME}.ipynb", "data.txt", "new.txt", "deep/er/new.txt"])
def test_any_file_that_changed_makes_another_submission(graded, file):
    path = graded / "submitted" / "ann" / NAME / file
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        stream.write(" ")
    assert earlier(graded) is None


def test_what_programs_leave_behind_makes_no_other_submission(graded):
    left = graded / "submitted" / "ann" / NAME / ".ipynb_checkpoints" / f"{NAME}-checkpoint.ipynb"
    left.parent.mkdir()
    left.write_text("{}")
    assert earlier(graded) is not None


def test_a_folder_that_became_a_link_is_not_followed(graded):
    folder = graded / "submitted" / "ann" / NAME
    folder.rename(graded / "elsewhere")
    folder.symlink_to(graded / "elsewhere")
    assert earlier(graded) is None
    (outcome,) = grade(graded, workers=1)
    assert outcome.status == "not graded" and "symbolic link" in outcome.reason


def test_a_mended_test_makes_a_record_an_older_one(graded):
    mend(graded, "assert ones(5) == 2", "assert ones(7) == 3")
    pile = Pile(open_course(graded))
    assert pile.found
    assert not pile.is_current(NAME, pile.earlier("ann", NAME))
