"""The report of a course: points, levels and reasons per candidate and question, and where the class fails.

The points are the gradebook's, the levels those of the questions' cards, the reasons those that the examiner left in
autograded/. Any nbgrader course directory has a report; without cards it has no levels, without examiner no reasons.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbgrader import api
from nbgrader.coursedir import CourseDirectory
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .card import Card, CardError, read_card
from .directory import open_course, open_gradebook, step_folder, write_atomically
from .report_page import render_page
from .submissions import GradeError, find_submissions

GRADED, NOT_GRADED, NO_SUBMISSION = "graded", "not graded", "no submission"
NOT_SCORED = "not scored yet"
NOT_REACHED = "grading has not reached it yet"
MESSAGE_CHARACTERS = 1000


class ReportError(Exception):
    """There is nothing to report on; the message says why."""


@dataclass(frozen=True)
class Exercise:
    """The points of one test cell, and why some are missing (empty where unknown)."""

    name: str
    points: float
    max_points: float
    message: str = ""


@dataclass(frozen=True)
class Row:
    """One candidate's result for one question; `rubric` is None while a rubric cell is not scored yet."""

    student: str
    assignment: str
    title: str
    status: str = GRADED
    reason: str = ""  # why it is not graded
    exercises: tuple[Exercise, ...] = ()
    rubric: float | None = None
    max_rubric: float = 0.0
    level: str = "-"

    @property
    def is_graded(self) -> bool:
        """Whether the points say anything."""
        return self.status == GRADED

    @property
    def code(self) -> float:
        """Code points reached."""
        return sum(exercise.points for exercise in self.exercises)

    @property
    def max_code(self) -> float:
        """Code points that the question gives."""
        return sum(exercise.max_points for exercise in self.exercises)

    @property
    def rubric_text(self) -> str:
        """Rubric points as they are printed."""
        if not self.is_graded or not self.max_rubric:
            return "-"
        return NOT_SCORED if self.rubric is None else f"{self.rubric:g} / {self.max_rubric:g}"


@dataclass
class _Question:
    """What the gradebook and the release say about an assignment."""

    name: str
    card: Card | None
    auto: dict[str, tuple[str, str, float]] = field(default_factory=dict)  # cell id -> notebook, grade_id, points
    manual: dict[str, float] = field(default_factory=dict)  # cell id -> points

    @property
    def title(self) -> str:
        return f"{self.card.number}. {self.card.title}" if self.card else self.name


def report(
    course_dir: Path,
    *,
    csv_path: Path | None = None,
    html_path: Path | None = None,
    console: Console | None = None,
) -> list[Row]:
    """Report on a course directory: a table on `console`, a CSV file, and a page of HTML that needs no other file.

    Returns the rows. Raises ReportError where the course directory has no gradebook.
    """
    course = open_course(course_dir)
    rows = read_rows(course)
    if csv_path:
        write_atomically(Path(csv_path), csv_text(rows))
    if html_path:
        write_atomically(Path(html_path), render_page(rows, Path(course.root).name))
    if console:
        print_rows(rows, console)
    return rows


def read_rows(course: CourseDirectory) -> list[Row]:
    """Return a row for each submission, graded or not, and for each known candidate who handed nothing in."""
    path = course.db_url.removeprefix("sqlite:///")
    if path != course.db_url and not Path(path).is_file():
        raise ReportError(f"there is no gradebook at {path}; `course build` and `course grade` write one")
    ungraded = _read_json(Path(course.root, course.autograded_directory, "ungraded.json"))
    handed_in = _handed_in(course)
    with open_gradebook(course) as gradebook:
        students = {student.id for student in gradebook.students}
        questions = {entry.name: _question(course, entry) for entry in gradebook.assignments}
        rows = {}
        for name, question in questions.items():
            for submission in gradebook.assignment_submissions(name):
                rows[submission.student_id, name] = _row(course, question, submission)
    for key in handed_in | {tuple(key.rsplit("/", 1)) for key in ungraded if "/" in key}:
        reason = ungraded.get("/".join(key))
        if reason is not None or key not in rows or not rows[key].is_graded:
            rows[key] = _empty_row(*key, questions, NOT_GRADED, reason or NOT_REACHED)
    for name in {name for _, name in rows} & questions.keys():
        for student in students:
            rows.setdefault((student, name), _empty_row(student, name, questions, NO_SUBMISSION, ""))
    return sorted(rows.values(), key=lambda row: (row.student, row.assignment))


def csv_text(rows: list[Row]) -> str:
    """Return the rows as CSV; text that a spreadsheet would take for a formula is quoted with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["candidate", "question", "status", "code", "max_code", "rubric", "max_rubric", "level", "reasons"])
    for row in rows:
        points = [f"{row.code:g}", f"{row.max_code:g}", _rubric_cell(row), f"{row.max_rubric:g}"]
        reasons = [row.reason] if row.reason else [f"{e.name}: {e.message}" for e in row.exercises if e.message]
        texts = [row.student, row.assignment, row.status, row.level, "; ".join(reasons)]
        student, assignment, status, level, reason = (_harmless(" ".join(text.split())) for text in texts)
        writer.writerow([student, assignment, status, *(points if row.is_graded else [""] * 4), level, reason])
    return out.getvalue()


def print_rows(rows: list[Row], console: Console) -> None:
    """Print the rows as a table; what candidates wrote is printed as it is, never taken for markup."""
    table = Table(title="Course report", title_justify="left")
    for name in ("Candidate", "Question"):
        table.add_column(name, overflow="fold")
    for name in ("Code", "Rubric"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Level")
    for row in rows:
        code = f"{row.code:g} / {row.max_code:g}" if row.is_graded else row.status
        style = "" if row.is_graded else "yellow"
        cells = (row.student, row.title, code, row.rubric_text, row.level)
        table.add_row(*(Text(cell, style=style) for cell in cells))
    console.print(table)
    for row in rows:
        if row.status == NOT_GRADED:
            console.print(Text(f"not graded: {row.student}, {row.title}: {row.reason}", style="yellow"))


def _question(course: CourseDirectory, entry: api.Assignment) -> _Question:
    question = _Question(entry.name, _read_card(step_folder(course, "release", entry.name) / f"{entry.name}.ipynb"))
    for notebook in entry.notebooks:
        answers = {cell.name for cell in notebook.solution_cells}
        order = _order(step_folder(course, "release", entry.name) / f"{notebook.name}.ipynb")
        for cell in sorted(notebook.grade_cells, key=lambda cell: order.get(cell.name, len(order))):
            if cell.name in answers:
                question.manual[cell.id] = cell.max_score
            else:
                question.auto[cell.id] = (notebook.name, cell.name, cell.max_score)
        question.manual.update({cell.id: cell.max_score for cell in notebook.task_cells if cell.max_score})
    return question


def _row(course: CourseDirectory, question: _Question, submission: api.SubmittedAssignment) -> Row:
    grades = {grade.cell_id: grade for notebook in submission.notebooks for grade in notebook.grades}
    auto = {cell: grades.get(cell) for cell in question.auto}
    if auto and all(grade is None or _is_empty(grade) for grade in auto.values()):
        return _empty_row(submission.student_id, question.name, {question.name: question}, NOT_GRADED, NOT_REACHED)
    exercises = tuple(_exercises(course, question, submission.student_id, auto))
    manual = [grades[cell] for cell in question.manual if cell in grades]
    waits = len(manual) < len(question.manual) or any(grade.needs_manual_grade for grade in manual)
    rubric = None if waits else sum(grade.score for grade in manual)
    return Row(
        _clean(submission.student_id),
        question.name,
        question.title,
        exercises=exercises,
        rubric=rubric,
        max_rubric=sum(question.manual.values()),
        level=_level(question.card, rubric, exercises),
    )


def _exercises(course: CourseDirectory, question: _Question, student: str, auto: dict) -> Iterator[Exercise]:
    folder = step_folder(course, "autograded", question.name, student)
    messages = {name: _messages(folder / f"{name}.ipynb") for name, _, _ in question.auto.values()}
    for cell, (notebook, name, max_points) in question.auto.items():
        points = auto[cell].score if auto[cell] else 0.0
        message = messages[notebook].get(name, "") if points < max_points else ""
        yield Exercise(name, points, max_points, message)


def _empty_row(student: str, assignment: str, questions: dict[str, _Question], status: str, reason: str) -> Row:
    title = questions[assignment].title if assignment in questions else _clean(assignment)
    return Row(_clean(student), _clean(assignment), title, status, _clean(reason))


def _level(card: Card | None, rubric: float | None, exercises: tuple[Exercise, ...]) -> str:
    if card is None:
        return "-"
    if rubric is None:
        return NOT_SCORED
    points, max_points = (sum(getattr(e, key) for e in exercises) for key in ("points", "max_points"))
    return card.level(rubric, 100 * points / max_points if max_points else 100) or f"below {next(iter(card.passes))}"


def _is_empty(grade: api.Grade) -> bool:
    return grade.auto_score is None and grade.manual_score is None


def _handed_in(course: CourseDirectory) -> set[tuple[str, str]]:
    try:
        return set(find_submissions(course, None, None))
    except GradeError:
        return set()


def _read_card(path: Path) -> Card | None:
    try:
        return read_card(path)
    except (OSError, CardError, nbformat.reader.NotJSONError, nbformat.ValidationError):
        return None


def _order(path: Path) -> dict[str, int]:
    """Return the place of each grade id in a notebook; the gradebook does not keep it."""
    cells = _read_json(path).get("cells", [])
    ids = [cell.get("metadata", {}).get("nbgrader", {}).get("grade_id") for cell in cells]
    return {name: place for place, name in enumerate(ids) if name}


def _messages(path: Path) -> dict[str, str]:
    """Return the examiner's message for each grade id of an autograded notebook, as far as there is one."""
    try:
        exercises = _read_json(path)["metadata"]["course"]["examination"]["exercises"]
        return {entry["grade_id"]: _clean(entry["message"]) for entry in exercises if entry["message"]}
    except (KeyError, TypeError):
        return {}


def _read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _clean(text: str) -> str:
    """Return text that terminals and pages show as it is: no control characters, no reversed writing, not too long."""
    text = str(text).replace("\t", "    ").replace("\r\n", "\n")
    shown = "".join(
        letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
    return shown if len(shown) <= MESSAGE_CHARACTERS else shown[:MESSAGE_CHARACTERS] + " ..."


def _rubric_cell(row: Row) -> str:
    return "" if row.rubric is None else f"{row.rubric:g}"


def _harmless(text: str) -> str:
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") and text != "-" else text
