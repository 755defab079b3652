"""Scores for Canvas and Moodle."""

import io
import shutil

import pandas
import pytest
from nbgrader.api import Gradebook

from course.cli import main
from course.results.export import ExportError, export

from ..classroom import FORMULA, IMAGE, NAME, SCRIPT

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # nbgrader's own add_submission


@pytest.fixture(scope="module")
def listed(classroom, tmp_path_factory):
    """The class with names and ids of a learning platform; 3.1 of cyd's rubric points make a fraction."""
    course = shutil.copytree(classroom, tmp_path_factory.mktemp("export") / "course")
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        gradebook.update_or_create_student(
            "ada", first_name="Ada", last_name='Lee, "Jr."', email="ada@x.org", lms_user_id="0042"
        )
        gradebook.update_or_create_student("bob", first_name="=Bob", email=" bob@x.org\n", lms_user_id="S-77")
        for name, points in (("rubric-depth", 3.1), ("rubric-clarity", 0.2)):
            grade = gradebook.find_grade(name, NAME, NAME, "cyd")
            grade.manual_score, grade.needs_manual_grade = points, False
        gradebook.find_submission_notebook(NAME, NAME, "bob").late_submission_penalty = 1.5
        gradebook.db.commit()
    return course


@pytest.fixture(scope="module")
def written(listed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    problems = export(listed, ["q90"], canvas=folder / "canvas.csv", moodle=folder / "moodle.csv")
    return problems, folder / "canvas.csv", folder / "moodle.csv"


def read(path):
    return pandas.read_csv(path, dtype=str, keep_default_na=False)


def test_canvas_has_its_columns_and_the_points_possible(written):
    table = read(written[1])
    assert list(table) == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", NAME]
    assert list(table.iloc[0]) == ["    Points Possible", "", "", "", "", "20"]


def test_canvas_finds_candidates_by_the_ids_of_the_gradebook(written):
    table = read(written[1]).set_index("SIS Login ID")
    assert list(table.loc["ada"]) == ['Lee, "Jr.", Ada', "0042", "", "", "19"]
    assert list(table.loc["bob"]) == ["'=Bob", "", "S-77", "", "7.5"]  # 1.5 points less for being late
    assert list(table.loc["cyd"]) == ["cyd", "", "", "", "8.3"]  # not 8.299999
    assert table.loc[IMAGE, "Student"] == IMAGE


def test_what_has_no_score_is_empty_never_0_and_listed(written):
    problems, canvas, moodle = written
    assert (read(canvas).set_index("SIS Login ID").loc[["fay", "zoe"], NAME] == "").all()
    assert (read(moodle).set_index("Username").loc[["fay", "zoe"], NAME] == "-").all()
    assert f"fay, {NAME}: no score, the notebook is not JSON: {SCRIPT}" in problems
    assert f"zoe, {NAME}: no score, no submission" in problems
    assert f"{FORMULA}, {NAME}: no score, the rubric is not scored yet" in problems
    assert not any(problem.startswith(("ada", "bob", "cyd")) for problem in problems)


def test_scores_read_as_numbers(written):
    scores = pandas.read_csv(written[2], na_values="-").set_index("Username")[NAME]
    assert scores["ada"] == 19 and scores["bob"] == 7.5 and pandas.isna(scores["fay"])


def test_moodle_has_a_score_and_feedback_for_each_question(written):
    table = read(written[2])
    assert list(table) == ["Username", NAME, f"{NAME} (feedback)"]
    feedback = table.set_index("Username")[f"{NAME} (feedback)"]
    assert feedback["ada"] == "Code: 6 of 6. Rubric: 13 / 14. Level: senior."
    assert "Handed in late: 1.5 points less." in feedback["bob"]
    assert "test-width, 0 of 4: 5 is 101,\nnot &lt;script&gt;alert(1)&lt;/script&gt;" in feedback["bob"]
    assert feedback["fay"] == ""


def test_moodle_columns_that_somebody_lacks_are_left_out(written, listed, tmp_path):
    """Moodle gives a row without the identifying value to the user of the row above."""
    assert any("no column 'Email address', since" in problem for problem in written[0])
    course = shutil.copytree(listed, tmp_path / "course")
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        for student in gradebook.students:
            student.email = student.email or f"{len(student.id)}@x.org"
        gradebook.db.commit()
    export(course, moodle=tmp_path / "m.csv")
    table = read(tmp_path / "m.csv")
    assert list(table)[:2] == ["Username", "Email address"] and (table["Email address"] != "").all()
    assert table.set_index("Username").loc["bob", "Email address"] == "bob@x.org"


def test_id_that_is_a_formula_is_left_out_and_named(written):
    problems, canvas, moodle = written
    for shown in (FORMULA, "[red]eve\ufffd[31m"):
        assert f"{shown}: left out: in a spreadsheet the id would be another, or a formula" in problems
    assert FORMULA not in canvas.read_text() and FORMULA not in moodle.read_text()


def test_each_member_of_a_team_has_its_score(listed, tmp_path):
    course = shutil.copytree(listed, tmp_path / "course")
    (course / "teams.yaml").write_text("cyd: [ann, ben]\n")
    export(course, canvas=tmp_path / "c.csv")
    table = read(tmp_path / "c.csv").set_index("SIS Login ID")
    assert (table.loc[["ann", "ben"], NAME] == "8.3").all() and "cyd" not in table.index


def test_course_without_submissions_has_only_the_header(built_once, tmp_path):
    assert export(built_once, canvas=tmp_path / "c.csv", moodle=tmp_path / "m.csv") == []
    assert read(tmp_path / "m.csv").empty and len(read(tmp_path / "c.csv")) == 1


def test_command_needs_a_file_and_lists_what_has_no_score(listed, tmp_path, capsys):
    with pytest.raises(ExportError, match="name a file: --canvas FILE"):
        export(listed)
    assert main(["export", "--course-dir", str(listed)]) == 2
    assert main(["export", "q77", "--canvas", str(tmp_path / "c.csv"), "--course-dir", str(listed)]) == 2
    assert "'q77' is not a question" in capsys.readouterr().err
    assert main(["export", "--canvas", str(tmp_path / "c.csv"), "--course-dir", str(listed)]) == 0
    captured = capsys.readouterr()
    assert f"zoe, {NAME}: no score, no submission" in captured.err and "zoe" not in captured.out
    assert len(pandas.read_csv(io.StringIO((tmp_path / "c.csv").read_text()))) == 7
