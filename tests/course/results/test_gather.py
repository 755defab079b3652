"""Results of a course directory: points, reasons, notes, teams."""

import json
import os
import shutil

import pytest
from nbgrader.api import Gradebook

from course.directory import open_course
from course.results.export import export
from course.results.gather import BY_HAND, NO_MESSAGE, ReportError, read_rows
from course.results.report import report
from course.results.rows import NO_SUBMISSION, NOT_SCORED
from course.results.teams import TeamsError

from ..classroom import FORMULA, IMAGE, NAME, POINTS, SCRIPT, add

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # nbgrader's own add_submission


def course_rows(course):
    return read_rows(open_course(course))


@pytest.fixture(scope="module")
def rows(classroom):
    return {row.student: row for row in course_rows(classroom)}


def test_points_and_levels(rows):
    ada, bob, cyd = rows["ada"], rows["bob"], rows["cyd"]
    assert (ada.code, ada.question.max_code, ada.rubric, ada.question.max_rubric) == (6, 6, 13, 14)
    assert (ada.level, ada.total) == ("senior", 19)
    assert (bob.code, bob.rubric, bob.level) == (2, 7, "below mid")  # 33 percent of the code
    assert (cyd.code, cyd.rubric, cyd.total, cyd.rubric_text, cyd.level) == (5, None, None, NOT_SCORED, NOT_SCORED)
    assert rows[IMAGE].level == "mid"
    assert ada.question.title == "90. Counting bits: a sample"


def test_one_rubric_cell_without_a_score_leaves_the_rubric_open(rows):
    assert rows[FORMULA].rubric is None and rows[FORMULA].level == NOT_SCORED


def test_exercises_come_in_the_order_of_the_notebook_with_their_reasons(rows):
    assert tuple(exercise.name for exercise in rows["ada"].exercises) == POINTS
    assert [exercise.message for exercise in rows["bob"].exercises] == [f"5 is 101,\nnot {SCRIPT}", "", ""]
    assert all(exercise.message == NO_MESSAGE for exercise in rows[FORMULA].exercises)  # no autograded notebook


def test_every_missing_point_has_a_reason(classroom, tmp_path):
    course = shutil.copytree(classroom, tmp_path / "class")
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        for name, score in (("test-width", 1), ("test-ones", 0.5)):
            grade = gradebook.find_grade(name, NAME, NAME, "bob")
            grade.manual_score, grade.needs_manual_grade = score, name == "test-ones"
        gradebook.db.commit()
    (bob,) = (row for row in course_rows(course) if row.student == "bob")
    assert [exercise.points for exercise in bob.exercises] == [1, 0.5, 1]
    assert bob.exercises[0].message.startswith(f"{BY_HAND}; the tests say: 5 is 101")
    assert bob.exercises[1].message == BY_HAND and bob.exercises[2].message == ""
    assert bob.looks == (
        "test-ones was graded again after an instructor gave its points: look whether they still hold",
    )


def test_what_is_not_graded_is_named_and_never_a_zero(rows):
    fay, eve, zoe = rows["fay"], rows["[red]eve\x1b[31m"], rows["zoe"]
    assert eve.candidate == "[red]eve\ufffd[31m"
    assert (fay.status, fay.reason) == ("not graded", f"the notebook is not JSON: {SCRIPT}")
    assert (eve.status, eve.reason) == ("not graded", "grading has not reached it yet")
    assert (zoe.status, zoe.reason) == ("no submission", "")
    assert not any(row.is_graded or row.exercises for row in (fay, eve, zoe))


def test_failed_regrading_hides_the_old_points(classroom, tmp_path):
    course = shutil.copytree(classroom, tmp_path / "class")
    (course / "autograded/ungraded.json").write_text(json.dumps({f"ada/{NAME}": "it never ends"}))
    (ada,) = (row for row in course_rows(course) if row.student == "ada")
    assert (ada.status, ada.reason) == ("not graded", "it never ends")


def test_without_card_and_release_there_are_points_but_no_levels(classroom, tmp_path):
    course = shutil.copytree(classroom, tmp_path / "class")
    shutil.rmtree(course / "release")
    rows = {row.student: row for row in course_rows(course)}
    assert (rows["ada"].code, rows["ada"].rubric, rows["ada"].level, rows["ada"].question.title) == (6, 13, "-", NAME)


def test_submission_of_an_unknown_assignment_is_named(classroom, tmp_path):
    course = shutil.copytree(classroom, tmp_path / "class")
    (course / "submitted/ada/q91_other").mkdir()
    rows = [row for row in course_rows(course) if row.question.name == "q91_other"]
    assert [(row.student, row.status) for row in rows] == [("ada", "not graded")]


def test_names_of_folders_are_shown_in_one_line(classroom, tmp_path):
    course = shutil.copytree(classroom, tmp_path / "class")
    for name in (b"two\nlines", b"no-utf8-\xff"):
        os.makedirs(os.path.join(os.fsencode(course), b"submitted", name, b"q91_\xff"))
    shown = {row.candidate for row in course_rows(course)}
    assert {"two\ufffdlines", "no-utf8-\ufffd"} <= shown
    report(course, csv_path=tmp_path / "r.csv", html_path=tmp_path / "r.html")
    export(course, canvas=tmp_path / "c.csv", moodle=tmp_path / "m.csv")


def test_damaged_autograded_notebook_costs_only_the_reasons(classroom, tmp_path):
    course = shutil.copytree(classroom, tmp_path / "class")
    damaged = '{\n "metadata": {"course": {"examination": {"exercises": [7, {}], "notes": 3}}}\n}'
    for content in ("{", "[]", '{"metadata": {"course": 3}}', '{\n "metadata": ' + "[" * 99999, damaged):
        (course / f"autograded/bob/{NAME}/{NAME}.ipynb").write_text(content)
        rows = {row.student: row for row in course_rows(course)}
        assert rows["bob"].code == 2
        assert [exercise.message for exercise in rows["bob"].exercises] == [NO_MESSAGE, "", ""]


def test_missing_gradebook_is_said_and_not_made(tmp_path):
    with pytest.raises(ReportError, match=r"no gradebook at .*gradebook\.db; `course build`"):
        course_rows(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_team_has_a_row_for_each_member(classroom, tmp_path):
    course = shutil.copytree(classroom, tmp_path / "class")
    (course / "teams.yaml").write_text("ada: [ann, ben]\nfay: [fred]\nghost: [gus, hans]\nlone: [cyd, dora]\n")
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        gradebook.add_student("ann")
    add(course, "ben", (0, 0, 0), (0, 0))
    rows = {row.student: row for row in course_rows(course)}
    assert "ada" not in rows and "fay" not in rows and "lone" not in rows
    assert {(rows[name].team, rows[name].total, rows[name].level) for name in ("ann", "ben")} == {("ada", 19, "senior")}
    assert rows["ann"].looks == ()
    assert rows["ben"].looks == ("also handed in alone (0 code points); what team ada handed in counts",)
    assert rows["fred"].looks == (f"not graded: the notebook is not JSON: {SCRIPT}",)
    assert rows["gus"].status == NO_SUBMISSION and rows["gus"].looks == ("team ghost handed in nothing",)
    assert rows["cyd"].code == 5 and rows["cyd"].looks[-1] == "handed in alone; team lone handed in nothing"
    assert rows["dora"].looks == ("team lone handed in nothing; alone did: cyd",)
    assert rows["bob"].looks == rows["zoe"].looks == ("is in no team of teams.yaml",)
    assert rows["bob"].code == 2 and rows["zoe"].status == NO_SUBMISSION


def test_teams_of_another_question_say_so(classroom, tmp_path):
    course = shutil.copytree(classroom, tmp_path / "class")
    (course / "teams.yaml").write_text("ada: [ann]\nq90: {}\n")
    rows = {row.student: row for row in course_rows(course)}
    assert rows["ada"].total == 19 and rows["ada"].looks == ("is the name of a team, but not of one of this question",)
    assert rows["ann"].status == NO_SUBMISSION and rows["bob"].looks == ()


def test_team_with_the_id_of_a_student_is_refused(classroom, tmp_path):
    course = shutil.copytree(classroom, tmp_path / "class")
    (course / "teams.yaml").write_text("zoe: [ann]\n")
    assert {row.student for row in course_rows(course)} > {"ann", "ada"}
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        gradebook.update_or_create_student("zoe", first_name="Zoe")
    with pytest.raises(TeamsError, match="team 'zoe' has the id of a student"):
        course_rows(course)
