"""Examining again after a test was mended: whose score changes is told first, and only then anything is written."""

import json
import shutil
import subprocess

import pytest
from nbgrader.api import Gradebook

from course import cli
from course.directory import DirectoryError, only_writer, open_course
from course.grading import regrade
from course.grading.grade import grade
from course.question import BuildError

from ..handing_in import HALF, NAME, give_points, hand_in, mend, scores

LENIENT = '    assert width(2**exponent) == exponent + 1, f"2**{exponent} needs {exponent + 1} digits"\n'
TESTS = {"test-width": 4, "test-ones": 1, "test-ones-hidden": 1}


@pytest.fixture(scope="module")
def mended_once(built_once, tmp_path_factory):
    """ann has all points, bea and cem fail a test that is mended then, cem has points by hand, dan hands in late."""
    course = shutil.copytree(built_once, tmp_path_factory.mktemp("mended") / "course")
    hand_in(course, "ann")
    hand_in(course, "bea", width="def width(n): return 3 if n == 5 else 0 if n == 0 else 10")
    hand_in(course, "cem", width="def width(n): return 3 if n == 5 else 0 if n == 0 else 10")
    grade(course, workers=2)
    give_points(course, "bea", "rubric-depth", 5)
    give_points(course, "cem", "test-width", 3)
    mend(course, LENIENT, "    pass\n")
    hand_in(course, "dan", **HALF)
    return course


@pytest.fixture
def mended(mended_once, tmp_path):
    return shutil.copytree(mended_once, tmp_path / "course")


def run(course, *arguments: str) -> int:
    return cli.main(["regrade", "q90", "--course-dir", str(course), "--workers", "2", *arguments])


def files(course) -> dict:
    return {path: path.read_bytes() for path in (course / "autograded").rglob("*.ipynb")}


def test_what_changes_is_told_and_nothing_is_written_until_it_is_agreed_to(mended, monkeypatch, capsys):
    before = files(mended), scores(mended)
    asked = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append((files(mended), scores(mended))) or "n")
    assert run(mended) == 1
    told = capsys.readouterr()
    (row,) = (line for line in told.out.splitlines() if "bea" in line)
    assert [part.strip() for part in row.strip("│").split("│")] == [
        "bea",
        NAME,
        "test-width",
        "0 / 4",
        "4 / 4",
        "passes now; it failed before: 2**1 needs 2 digits",
    ]
    assert "the 3 points given by hand stay" in told.out and "ann" not in told.out
    assert "3 examined again, 1 with another score" in told.err
    assert "1 wait for `course grade`" in told.err and "nothing was recorded" in told.err
    assert asked == [before] and (files(mended), scores(mended)) == before


def test_what_was_examined_is_recorded_without_a_second_examination(mended, monkeypatch):
    from course.grading import cluster

    examinations = []
    examine = cluster.examine
    monkeypatch.setattr(cluster, "examine", lambda *args, **given: examinations.append(1) or examine(*args, **given))
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert run(mended) == 0
    assert len(examinations) == 3
    assert scores(mended) == {"ann": 6, "bea": 6 + 5, "cem": 3 + 2}
    with Gradebook(f"sqlite:///{mended}/gradebook.db") as gradebook:
        assert not gradebook.find_grade("rubric-depth", NAME, NAME, "bea").needs_manual_grade
        assert not gradebook.find_grade("test-width", NAME, NAME, "cem").needs_manual_grade
    assert run(mended) == 0
    assert len(examinations) == 3  # nothing is left that older tests graded
    outcomes = {outcome.student: outcome.status for outcome in grade(mended, workers=1)}
    assert outcomes == {"ann": "unchanged", "bea": "unchanged", "cem": "unchanged", "dan": "graded"}


def test_json_records_nothing_without_yes(mended, monkeypatch, capsys):
    monkeypatch.setattr("builtins.input", lambda question: pytest.fail("nobody is asked"))
    before = files(mended), scores(mended)
    assert run(mended, "--json", "--student", "bea") == 1
    told = capsys.readouterr()
    (change,) = json.loads(told.out)
    assert (change["student"], change["grade_id"], change["old"], change["new"]) == ("bea", "test-width", 0, 4)
    assert "nothing was recorded; --yes records" in told.err
    assert (files(mended), scores(mended)) == before
    assert run(mended, "--json", "--student", "bea", "--yes") == 0
    assert scores(mended)["bea"] == 11 and scores(mended)["ann"] == 6


def test_nobody_to_ask_means_no(mended):
    command = ["course", "regrade", "--course-dir", str(mended), "--student", "bea", "--workers", "1"]
    script = f"import sys; from course.cli import main; sys.exit(main({command[1:]}))"
    import sys

    done = subprocess.run([sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1 and "nothing was recorded" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_was_handed_in_again_is_left_to_grade(mended):
    hand_in(mended, "bea")
    with regrade.regrade(mended, student="bea") as regrading:
        assert (regrading.left, regrading.examined, regrading.changes) == (1, [], [])
        assert regrading.summary == (
            "nothing was graded by older tests; 0 were graded by the tests of now; 1 wait for `course grade`"
        )


def test_one_that_cannot_be_examined_keeps_its_score(mended, monkeypatch, capsys):
    from course.grading import cluster

    monkeypatch.setattr(cluster, "RETRIES", 0)
    monkeypatch.setattr(cluster, "examine", lambda *_, **__: 1 / 0)
    before = files(mended), scores(mended)
    assert run(mended, "--yes", "--student", "bea") == 1
    assert "bea, q90_sample: keeps its score: the examination failed: division by zero" in capsys.readouterr().err
    assert (files(mended), scores(mended)) == before


def test_the_course_directory_is_held_while_somebody_decides(mended):
    with (
        regrade.regrade(mended, student="bea"),
        pytest.raises(DirectoryError, match="is held by process"),
        only_writer(open_course(mended)),
    ):
        pass


def test_other_points_for_a_test_change_the_score_that_they_give(mended_once, tmp_path):
    course = shutil.copytree(mended_once, tmp_path / "course")
    mend(course, '"points": 4', '"points": 8')
    assert scores(course)["ann"] == 6  # building changes no score
    with regrade.regrade(course, student="ann") as regrading:
        (change,) = regrading.changes
        assert (change.old, change.new, change.old_max, change.new_max) == (4, 8, 4, 8)
        assert change.reason == "its points changed"
        regrading.record()
    assert scores(course)["ann"] == 10


def test_building_anew_keeps_the_points_of_all(mended):
    with Gradebook(f"sqlite:///{mended}/gradebook.db") as gradebook:
        grades = gradebook.find_submission(NAME, "bea").notebooks[0].grades
        assert {entry.name for entry in grades} >= TESTS.keys()
        source = gradebook.find_source_cell("test-width", NAME, NAME).source
        assert "needs {exponent + 1}" not in source and "### BEGIN HIDDEN TESTS" in source
    assert scores(mended) == {"ann": 6, "bea": 2 + 5, "cem": 3 + 2}


def test_a_new_test_cell_is_refused_while_there_are_scores(mended):
    with pytest.raises(BuildError, match=r"were graded on other cells \(new: test-more; gone: test-ones\)"):
        mend(mended, '"grade_id": "test-ones",', '"grade_id": "test-more",')
    assert scores(mended) == {"ann": 6, "bea": 2 + 5, "cem": 3 + 2}
