"""The report: tables, CSV files, page."""

import csv
import html
import io
import re
import shutil
from html.parser import HTMLParser

import pytest
from nbgrader.api import Gradebook
from rich.console import Console

from course.card import Card, PassMark
from course.results import report_page
from course.results.gather import NO_MESSAGE
from course.results.report import course_csv, report
from course.results.report_page import exercise_means, plot, reasons, render_page
from course.results.rows import NOT_SCORED, Exercise, Question, Row
from course.results.standing import standings

from ..classroom import FORMULA, IMAGE, NAME, SCRIPT

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # nbgrader's own add_submission


@pytest.fixture(scope="module")
def rows(classroom):
    return {row.student: row for row in report(classroom)}


def read_csv(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def question(number):
    card = Card(number, "A title", "", "", ("mid",), (), {}, (), {"mid": PassMark(12, 60)})
    return Question(f"q{number:02}_x", card, {str(k): ("x", f"t{k}", 1) for k in range(6)}, {"r": 20})


def test_late_penalty_lowers_the_total_but_not_the_level(classroom, tmp_path):
    course = shutil.copytree(classroom, tmp_path / "class")
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        gradebook.find_submission_notebook(NAME, NAME, "ada").late_submission_penalty = 5
        gradebook.db.commit()
    (ada,) = (row for row in report(course, html_path=tmp_path / "r.html") if row.student == "ada")
    assert (ada.total, ada.level) == (14, "senior")
    assert "−5 late" in (tmp_path / "r.html").read_text()


def test_what_needs_a_look_is_in_row_csv_page_and_table(classroom, tmp_path, rows):
    out = io.StringIO()
    report(classroom, csv_path=tmp_path / "r.csv", html_path=tmp_path / "r.html", console=Console(file=out, width=160))
    note = "a cell was copied; the first one counts"
    assert rows["cyd"].notes == (note, SCRIPT)
    (line,) = (line for line in read_csv(tmp_path / "r.csv") if line["candidate"] == "cyd")
    assert line["notes"] == f"{note}; {SCRIPT}"
    assert note in (tmp_path / "r.html").read_text() and note in out.getvalue()


def test_course_without_submissions(built_once, tmp_path):
    assert report(built_once, html_path=tmp_path / "r.html", csv_path=tmp_path / "r.csv", console=Console()) == []
    assert "No submission was handed in yet" in (tmp_path / "r.html").read_text()


def test_csv_has_a_line_for_each_row_and_no_formula(classroom, rows, tmp_path):
    report(classroom, csv_path=tmp_path / "r.csv")
    lines = read_csv(tmp_path / "r.csv")
    by_name = {line["candidate"]: line for line in lines}
    assert len(lines) == len(rows) and f"'{FORMULA}" in by_name
    assert by_name["ada"] == {
        "candidate": "ada",
        "question": NAME,
        "team": "",
        "status": "graded",
        "code": "6",
        "max_code": "6",
        "rubric": "13",
        "max_rubric": "14",
        "penalty": "0",
        "level": "senior",
        "notes": "",
        "reasons": "",
    }
    assert (by_name["cyd"]["rubric"], by_name["cyd"]["level"]) == ("", NOT_SCORED)
    assert (by_name["fay"]["code"], by_name["fay"]["reasons"]) == ("", f"the notebook is not JSON: {SCRIPT}")
    assert not any(cell.lstrip().startswith(("=", "+", "@", "-1")) for line in lines for cell in line.values())
    (ada, *_) = (line for line in read_csv(course_csv(tmp_path / "r.csv")) if line["candidate"] == "ada")
    assert (ada["code"], ada["passed"], ada["level"], ada["missing"]) == (
        "6",
        "mid 1 of 1, senior 1 of 1",
        "senior",
        "",
    )


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
    assert page.links and all(link.startswith(("data:image/svg+xml;base64,", "#c")) for link in page.links)
    assert not re.search(r"@import|url\(|https?://", content)
    text = "".join(page.text)
    for shown in (
        SCRIPT,
        IMAGE,
        FORMULA,
        "90. Counting bits: a sample",
        "senior",
        "5 is 101,",
        NO_MESSAGE,
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
    assert "fay, 90. Counting bits: a sample: not graded: the notebook is not JSON" in text


def test_same_reasons_are_said_once():
    exercises = (
        Exercise("a", 0, 2, "not implemented"),
        Exercise("b", 1, 3, "odd"),
        Exercise("c", 0, 4, "not implemented"),
    )
    row = Row("ann", question(1), exercises=(*exercises, Exercise("d", 1, 1)), rubric=0.0)
    assert reasons(row) == [("a, c", 0, 6, "not implemented"), ("b", 1, 3, "odd")]


def test_page_of_several_questions_is_a_matrix_and_stays_bounded(monkeypatch):
    monkeypatch.setattr(report_page, "MAX_REASONS", 600)
    monkeypatch.setattr(report_page, "MESSAGE_CHARACTERS", 96_000)
    questions = [question(number) for number in range(1, 5)]
    rows = []
    for student in range(40):
        for of in questions:
            exercises = tuple(Exercise(f"t{k}", 0, 1, f"{student} {of.name} {k}: {'<b>' * 300}") for k in range(6))
            rows.append(Row(f"s{student:03}", of, exercises=exercises, rubric=3.0))
    page = render_page(standings(rows), "large")
    assert page.count('<td class="q below">') == 160 and "<b><b>" not in page
    assert page.count("<pre>") == 600 and "The reasons of 15 more candidates stand in report.csv" in page
    messages = re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)
    assert {len(html.unescape(message)) for message in messages} == {104}  # 96,000 / 960, and the mark of the cut
    assert Page(page).tags.count("details") == 4 + 25
