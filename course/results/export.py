"""`course export`: scores as CSV files that Canvas and Moodle import.

The score of a question is its code and rubric points without nbgrader's late penalty. Where it is not known (nothing
handed in, not graded, not scored yet) the file has no score, never a 0.

Canvas ("How do I import grades in the Gradebook?", Canvas Instructor Guide; lib/gradebook_importer.rb in canvas-lms):
columns Student, ID, SIS User ID, SIS Login ID, Section, then one for each assignment; a row "Points Possible". Canvas
finds a student by ID, else SIS User ID, else SIS Login ID, else name; an assignment by its title. An empty cell clears
the score that Canvas has; Canvas shows each change before it makes it.

Moodle ("Grade import", MoodleDocs; grade/import/csv in moodle): the columns are mapped by hand, one of them to
username, idnumber or email, the others to grade items and their feedback. Moodle takes "-" for no grade, but an empty
cell of a new grade item for 0; and it gives the scores of a row with an empty user to the user above it.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..build import full_name
from ..directory import open_course, open_gradebook, write_atomically
from ..plain_text import clean, harmless
from .gather import read_rows
from .rows import Question, Row
from .spreadsheet import csv_text
from .standing import Standing, standings

NO_GRADE = "-"  # Moodle's
MAX_FEEDBACK = 4000  # characters of one cell


class ExportError(Exception):
    """There is nothing to export to; the message says what is missing."""


@dataclass(frozen=True)
class Person:
    """A candidate as the gradebook's student list has it; what it does not have is empty."""

    id: str
    name: str  # "Last, First", or the id
    email: str
    lms_user_id: str


def export(
    course_dir: Path, questions: list[str] | None = None, *, canvas: Path | None = None, moodle: Path | None = None
) -> list[str]:
    """Write the scores of the named questions (None: all) for Canvas, for Moodle, or both.

    Returns what has no score, and what else an instructor must know, a line each. Raises ExportError without a file,
    ReportError, TeamsError, and BuildError for an unknown question.
    """
    if not (canvas or moodle):
        raise ExportError("name a file: --canvas FILE, --moodle FILE, or both")
    course = open_course(course_dir)
    rows = read_rows(course)
    known = {row.question.name: row.question for row in rows if _maximum(row.question)}
    chosen = {full_name(given, known) for given in questions} if questions else known.keys()
    columns = [known[name] for name in sorted(chosen)]
    with open_gradebook(course) as gradebook:
        people = {student.id: _person(student) for student in gradebook.students}
    candidates = standings(row for row in rows if row.question.name in chosen)
    problems = [_problem(row) for row in rows if row.question.name in chosen and row.total is None]
    everybody = [(people.get(standing.student) or _unknown(standing.student), standing) for standing in candidates]
    refused = [person for person, _ in everybody if harmless(clean(person.id)) != person.id]
    problems += [
        f"{clean(person.id)}: left out: in a spreadsheet the id would be another, or a formula" for person in refused
    ]
    everybody = [(person, standing) for person, standing in everybody if person not in refused]
    if canvas:
        write_atomically(canvas, canvas_text(everybody, columns))
    if moodle:
        text, lacking = moodle_text(everybody, columns)
        write_atomically(moodle, text)
        problems += lacking
    return problems


def canvas_text(everybody: Sequence[tuple[Person, Standing]], questions: Sequence[Question]) -> str:
    """Return Canvas's gradebook CSV; an lms_user_id of digits is Canvas's ID, any other the SIS User ID."""
    header = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *(question.name for question in questions)]
    possible = ["    Points Possible", "", "", "", "", *(_number(_maximum(question)) for question in questions)]
    rows = [possible]
    for person, standing in everybody:
        is_id = person.lms_user_id.isascii() and person.lms_user_id.isdigit()
        ids = [person.lms_user_id, ""] if is_id else ["", harmless(person.lms_user_id)]
        rows.append([harmless(person.name), *ids, person.id, "", *_scores(standing, questions, "")])
    return csv_text(header, rows)


def moodle_text(everybody: Sequence[tuple[Person, Standing]], questions: Sequence[Question]) -> tuple[str, list[str]]:
    """Return Moodle's grade CSV, and which identifying columns it has not because somebody lacks the value."""
    header, ids, lacking = ["Username"], [[person.id for person, _ in everybody]], []
    for column, key in (("ID number", "lms_user_id"), ("Email address", "email")):
        values = [getattr(person, key) for person, _ in everybody]
        empty = values.count("")
        if not empty:
            header.append(column)
            ids.append([harmless(value) for value in values])
        elif empty < len(values):
            lacking.append(f"Moodle: no column '{column}', since {empty} candidates have no {key} in the gradebook")
    for question in questions:
        header += [question.name, f"{question.name} (feedback)"]
    rows = []
    for place, (_, standing) in enumerate(everybody):
        scores, feedback = _scores(standing, questions, NO_GRADE), _feedback(standing, questions)
        pairs = [cell for pair in zip(scores, feedback, strict=True) for cell in pair]
        rows.append([*(values[place] for values in ids), *pairs])
    return csv_text(header, rows), lacking


def _person(student) -> Person:
    names = [name.strip() for name in (student.last_name, student.first_name) if name and name.strip()]
    texts = (" ".join((text or "").split()) for text in (student.email, student.lms_user_id))
    return Person(student.id, ", ".join(names) or student.id, *texts)


def _unknown(student: str) -> Person:
    return Person(student, student, "", "")


def _by_question(standing: Standing) -> Mapping[str, Row]:
    return {row.question.name: row for row in standing.rows}


def _scores(standing: Standing, questions: Sequence[Question], none: str) -> list[str]:
    own = _by_question(standing)
    totals = [own[question.name].total if question.name in own else None for question in questions]
    return [none if total is None else _number(total) for total in totals]


def _feedback(standing: Standing, questions: Sequence[Question]) -> list[str]:
    """Return what Moodle shows beside the scores, as HTML: level, penalty, and why points are missing."""
    own = _by_question(standing)
    return [_feedback_of(own[question.name]) if question.name in own else "" for question in questions]


def _feedback_of(row: Row) -> str:
    if row.total is None:
        return ""
    lines = [f"Code: {row.code:g} of {row.question.max_code:g}. Rubric: {row.rubric_text}. Level: {row.level}."]
    lines += [f"Handed in late: {row.penalty:g} points less."] if row.penalty else []
    for exercise in row.exercises:
        if exercise.message:
            points = f"{exercise.points:g} of {exercise.max_points:g}"
            lines.append(f"{exercise.name}, {points}: {exercise.message}")
    return harmless(html.escape("\n".join(lines)[:MAX_FEEDBACK], quote=False))


def _problem(row: Row) -> str:
    why = "the rubric is not scored yet" if row.is_graded else row.reason or row.status
    return f"{row.candidate}, {row.question.name}: no score, {why}"


def _maximum(question: Question) -> float:
    return question.max_code + question.max_rubric


def _number(value: float) -> str:
    """Return points with a decimal point and without what floats leave behind: 0.1 + 0.2 is 0.3."""
    return f"{round(value, 6):.10g}"
