import csv
import io
import json
import re
import shutil
from html.parser import HTMLParser

import nbformat
import pytest
from nbformat.v4 import new_notebook
from nbgrader.api import Gradebook
from rich.console import Console

from course.report import NOT_SCORED, ReportError, csv_text, report
from course.report_page import exercise_means, plot

NAME = "q90_sample"
SCRIPT = "<script>alert(1)</script>"
IMAGE = "<img src=x onerror=alert(1)>"  # as the id of a candidate, which is the name of a folder
FORMULA = '=HYPERLINK("x")'
POINTS = ("test-width", "test-ones", "test-ones-hidden")
RUBRIC = ("rubric-depth", "rubric-clarity")

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # nbgrader's own add_submission


def add(course, student, points=None, rubric=None, messages=None):
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
        write_autograded(course, student, new_notebook(metadata={"course": {"examination": {"exercises": exercises}}}))


def write_autograded(course, student, notebook):
    folder = course / "autograded" / student / NAME
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / f"{NAME}.ipynb")


@pytest.fixture(scope="module")
def classroom(built_once, tmp_path_factory):
    """A course directory with a graded class in every state that a submission can be in."""
    course = tmp_path_factory.mktemp("class") / "class"
    shutil.copytree(built_once, course)
    add(course, "ada", (4, 1, 1), (7, 6), {})
    add(course, "bob", (0, 1, 1), (5, 2), {"test-width": f"5 is 101,\nnot {SCRIPT}"})
    add(course, "cyd", (4, 1, 0), None, {"test-ones-hidden": "=1+1"})
    add(course, FORMULA, (0, 0, 0), (1,))
    add(course, IMAGE, (4, 1, 1), (4, 2))
    add(course, "[red]eve\x1b[31m")
    add(course, "fay")
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        gradebook.add_student("zoe")
    (course / "autograded/ungraded.json").write_text(json.dumps({f"fay/{NAME}": f"the notebook is not JSON: {SCRIPT}"}))
    return course


@pytest.fixture(scope="module")
def rows(classroom):
    return {row.student: row for row in report(classroom)}


def test_points_and_levels(rows):
    ada, bob, cyd = rows["ada"], rows["bob"], rows["cyd"]
    assert (ada.code, ada.max_code, ada.rubric, ada.max_rubric, ada.level) == (6, 6, 13, 14, "senior")
    assert (bob.code, bob.rubric, bob.level) == (2, 7, "below mid")  # 33 percent of the code
    assert (cyd.code, cyd.rubric, cyd.rubric_text, cyd.level) == (5, None, NOT_SCORED, NOT_SCORED)
    assert rows[IMAGE].level == "mid"
    assert ada.title == "90. Counting bits: a sample"


def test_one_rubric_cell_without_a_score_leaves_the_rubric_open(rows):
    assert rows[FORMULA].rubric is None and rows[FORMULA].level == NOT_SCORED


def test_exercises_come_in_the_order_of_the_notebook_with_their_reasons(rows):
    assert tuple(exercise.name for exercise in rows["ada"].exercises) == POINTS
    assert [exercise.message for exercise in rows["bob"].exercises] == [f"5 is 101,\nnot {SCRIPT}", "", ""]
    assert all(exercise.message == "" for exercise in rows[FORMULA].exercises)  # no autograded notebook


def test_what_is_not_graded_is_named_and_never_a_zero(rows):
    fay, eve, zoe = rows["fay"], rows["[red]eve\ufffd[31m"], rows["zoe"]
    assert (fay.status, fay.reason) == ("not graded", f"the notebook is not JSON: {SCRIPT}")
    assert (eve.status, eve.reason) == ("not graded", "grading has not reached it yet")
    assert (zoe.status, zoe.reason) == ("no submission", "")
    assert not any(row.is_graded or row.exercises for row in (fay, eve, zoe))


def test_failed_regrading_hides_the_old_points(classroom, tmp_path):
    course = shutil.copytree(classroom, tmp_path / "class")
    (course / "autograded/ungraded.json").write_text(json.dumps({f"ada/{NAME}": "it never ends"}))
    (ada,) = (row for row in report(course) if row.student == "ada")
    assert (ada.status, ada.reason) == ("not graded", "it never ends")


def test_without_card_and_release_there_are_points_but_no_levels(classroom, tmp_path):
    course = shutil.copytree(classroom, tmp_path / "class")
    shutil.rmtree(course / "release")
    rows = {row.student: row for row in report(course)}
    assert (rows["ada"].code, rows["ada"].rubric, rows["ada"].level, rows["ada"].title) == (6, 13, "-", NAME)


def test_submission_of_an_unknown_assignment_is_named(classroom, tmp_path):
    course = shutil.copytree(classroom, tmp_path / "class")
    (course / "submitted/ada/q91_other").mkdir()
    rows = [row for row in report(course) if row.assignment == "q91_other"]
    assert [(row.student, row.status) for row in rows] == [("ada", "not graded")]


def test_damaged_autograded_notebook_costs_only_the_reasons(classroom, tmp_path):
    course = shutil.copytree(classroom, tmp_path / "class")
    for content in ("{", "[]", '{"metadata": {"course": 3}}'):
        (course / f"autograded/bob/{NAME}/{NAME}.ipynb").write_text(content)
        rows = {row.student: row for row in report(course)}
        assert rows["bob"].code == 2 and not any(exercise.message for exercise in rows["bob"].exercises)


def test_course_without_submissions(built_once, tmp_path):
    assert report(built_once, html_path=tmp_path / "r.html", csv_path=tmp_path / "r.csv", console=Console()) == []
    assert "No submission was handed in yet" in (tmp_path / "r.html").read_text()


def test_missing_gradebook_is_said_and_not_made(tmp_path):
    with pytest.raises(ReportError, match=r"no gradebook at .*gradebook\.db; `course build`"):
        report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_csv_has_a_line_for_each_row_and_no_formula(rows):
    lines = list(csv.DictReader(io.StringIO(csv_text(list(rows.values())))))
    by_name = {line["candidate"]: line for line in lines}
    assert len(lines) == len(rows) and f"'{FORMULA}" in by_name
    assert by_name["ada"] == {
        "candidate": "ada",
        "question": NAME,
        "status": "graded",
        "code": "6",
        "max_code": "6",
        "rubric": "13",
        "max_rubric": "14",
        "level": "senior",
        "reasons": "",
    }
    assert (by_name["cyd"]["rubric"], by_name["cyd"]["level"]) == ("", NOT_SCORED)
    assert (by_name["fay"]["code"], by_name["fay"]["reasons"]) == ("", f"the notebook is not JSON: {SCRIPT}")
    assert not any(cell.lstrip().startswith(("=", "+", "@", "-1")) for line in lines for cell in line.values())


class Page(HTMLParser):
    """Collects what a browser would load or run."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href")]
        assert not any(key.startswith("on") for key, _ in attrs)

    def handle_data(self, data):
        self.text.append(data)


def test_page_is_one_file_and_escapes_what_candidates_wrote(classroom, tmp_path):
    path = tmp_path / "out" / "report.html"
    report(classroom, html_path=path)
    content = path.read_text()
    page = Page(content)
    assert SCRIPT not in content and IMAGE not in content and "script" not in page.tags
    assert page.links and all(link.startswith("data:image/svg+xml;base64,") for link in page.links)
    assert not re.search(r"@import|url\(|https?://", content)
    text = "".join(page.text)
    for shown in (
        SCRIPT,
        IMAGE,
        FORMULA,
        "90. Counting bits: a sample",
        "senior",
        "5 is 101,",
        "no reason was recorded",
    ):
        assert shown in text


def test_means_say_where_the_class_fails(rows):
    graded = [row for row in rows.values() if row.is_graded]
    assert exercise_means(graded) == [("test-width", 60.0, 2), ("test-ones", 80.0, 1), ("test-ones-hidden", 60.0, 2)]
    assert plot(graded) == plot(graded) and plot([]) == ""


def test_table_shows_markup_and_control_characters_as_text(classroom):
    out = io.StringIO()
    report(classroom, console=Console(file=out, width=160, force_terminal=False))
    text = out.getvalue()
    assert "[red]eve" in text and "\x1b" not in text
    assert re.search(r"ada .* 6 / 6 .* 13 / 14 .* senior", text)
    assert "not graded: fay, 90. Counting bits: a sample: the notebook is not JSON" in text
