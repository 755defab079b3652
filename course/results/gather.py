"""Gathers the results of a course directory: from the gradebook, autograded/, submitted/, release/ and the team file.

The points are the gradebook's, the levels those of the questions' cards; reasons and notes are what the examiner left
in autograded/. Any nbgrader course directory has results; without cards no levels, without examiner no reasons.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbgrader import api
from nbgrader.coursedir import CourseDirectory
from sqlalchemy import select

from ..card import Card, CardError, read_card
from ..directory import open_gradebook, step_folder
from ..grading.submissions import GradeError, find_submissions
from ..plain_text import clean
from .rows import NO_SUBMISSION, NOT_GRADED, Exercise, Question, Row
from .teams import TEAM_FILE, Teams, TeamsError, read_teams

NOT_REACHED = "grading has not reached it yet"
BY_HAND = "an instructor gave these points"
NO_MESSAGE = "no message was kept: grade it again (course grade --force)"
MAX_NOTES = 20
_METADATA = b'\n "metadata": '  # where nbformat begins the metadata of a notebook; no text in it has a line end


class ReportError(Exception):
    """There is nothing to report on; the message says why."""


class _Score(NamedTuple):
    """A line of the gradebook's tables."""

    student: str
    assignment: str
    notebook: str | None
    penalty: float | None
    cell: str | None
    score: float | None
    auto_score: float | None
    manual_score: float | None
    needs_manual_grade: bool | None

    @property
    def is_empty(self) -> bool:
        return self.auto_score is None and self.manual_score is None


def check_gradebook(course: CourseDirectory) -> None:
    """Raise ReportError where the gradebook would be a file that is not there."""
    path = course.db_url.removeprefix("sqlite:///")
    if path != course.db_url and not Path(path).is_file():
        raise ReportError(f"there is no gradebook at {path}; `course build` and `course grade` write one")


def read_rows(course: CourseDirectory) -> list[Row]:
    """Return a row for each candidate and question that anybody handed in, sorted; a team has a row for each member.

    Raises ReportError where the course directory has no gradebook, TeamsError for a team file that is wrong.
    """
    check_gradebook(course)
    with open_gradebook(course) as gradebook:
        students = {student.id for student in gradebook.students}
        questions = {entry.name: _question(course, entry) for entry in gradebook.assignments}
        scores = read_scores(gradebook)
        teams = read_course_teams(course, gradebook)
    entries = {key: _entry(course, questions[key[1]], key[0], lines) for key, lines in scores.items()}
    ungraded = read_ungraded(course)
    for key in _handed_in(course) | ungraded.keys():
        if key in ungraded or key not in entries or not entries[key].is_graded:
            question = questions.get(key[1]) or Question(key[1])
            entries[key] = Row(key[0], question, status=NOT_GRADED, reason=ungraded.get(key, NOT_REACHED))
    rows = _spread(entries, questions, teams, students)
    return sorted(rows, key=lambda row: (row.student, row.question.name))


def read_course_teams(course: CourseDirectory, gradebook: api.Gradebook) -> Teams:
    """Return the teams of a course; raises TeamsError also for a team with the id of a student with a name."""
    teams = read_teams(Path(course.root), [entry.name for entry in gradebook.assignments])
    for student in gradebook.students:
        if student.id in teams.names and (student.first_name or student.last_name or student.email):
            raise TeamsError(
                f"{TEAM_FILE}: team {student.id!r} has the id of a student in the gradebook; rename the team"
            )
    return teams


def read_scores(gradebook: api.Gradebook) -> dict[tuple[str, str], list[_Score]]:
    """Return the lines of the gradebook by student and assignment."""
    query = (
        select(
            api.SubmittedAssignment.student_id,
            api.Assignment.name,
            api.SubmittedNotebook.id,
            api.SubmittedNotebook.late_submission_penalty,
            api.Grade.cell_id,
            api.Grade.score,
            api.Grade.auto_score,
            api.Grade.manual_score,
            api.Grade.needs_manual_grade,
        )
        .select_from(api.SubmittedAssignment)
        .join(api.Assignment, api.Assignment.id == api.SubmittedAssignment.assignment_id)
        .outerjoin(api.SubmittedNotebook, api.SubmittedNotebook.assignment_id == api.SubmittedAssignment.id)
        .outerjoin(api.Grade, api.Grade.notebook_id == api.SubmittedNotebook.id)
    )
    scores = {}
    for line in map(_Score._make, gradebook.db.execute(query)):
        scores.setdefault((line.student, line.assignment), []).append(line)
    return scores


def read_ungraded(course: CourseDirectory) -> dict[tuple[str, str], str]:
    """Return why what could not be graded could not, by student and assignment."""
    reasons = _read_json(Path(course.root, course.autograded_directory, "ungraded.json"))
    return {tuple(key.rsplit("/", 1)): clean(reason) for key, reason in reasons.items() if "/" in key}


def manual_cells(notebook: api.Notebook) -> list[api.GradeCell | api.TaskCell]:
    """Return the cells of a notebook that an instructor scores: answers that are graded, and tasks with points."""
    answers = {cell.name for cell in notebook.solution_cells}
    graded = [cell for cell in notebook.grade_cells if cell.name in answers]
    return graded + [cell for cell in notebook.task_cells if cell.max_score]


def _question(course: CourseDirectory, entry: api.Assignment) -> Question:
    release = step_folder(course, "release", entry.name)
    auto, manual = {}, {}
    for notebook in entry.notebooks:
        manual.update({cell.id: cell.max_score for cell in manual_cells(notebook)})
        order = cell_order(release / f"{notebook.name}.ipynb")
        for cell in sorted(notebook.grade_cells, key=lambda cell: order.get(cell.name, len(order))):
            if cell.id not in manual:
                auto[cell.id] = (notebook.name, cell.name, cell.max_score)
    return Question(entry.name, _read_card(release / f"{entry.name}.ipynb"), auto, manual)


def _entry(course: CourseDirectory, question: Question, student: str, lines: list[_Score]) -> Row:
    """Return the result of whoever handed in: a candidate, or a team."""
    by_cell = {line.cell: line for line in lines if line.cell}
    auto = {cell: by_cell.get(cell) for cell in question.auto}
    if auto and all(line is None or line.is_empty for line in auto.values()):
        return Row(student, question, status=NOT_GRADED, reason=NOT_REACHED)
    folder = step_folder(course, "autograded", question.name, student)
    notebooks = sorted({notebook for notebook, _, _ in question.auto.values()})
    found = {notebook: read_examination(folder / f"{notebook}.ipynb") for notebook in notebooks}
    manual = [by_cell[cell] for cell in question.manual if cell in by_cell]
    waits = len(manual) < len(question.manual) or any(line.needs_manual_grade for line in manual)
    return Row(
        student,
        question,
        notes=tuple(_notes(question, found, auto))[:MAX_NOTES],
        exercises=tuple(_exercises(question, found, auto)),
        rubric=None if waits else sum(line.score for line in manual),
        penalty=sum({line.notebook: line.penalty or 0.0 for line in lines}.values()),
    )


def _exercises(question: Question, found: Mapping[str, dict], auto: Mapping[str, _Score | None]) -> Iterator[Exercise]:
    for cell, (notebook, name, max_points) in question.auto.items():
        line = auto[cell]
        points = line.score if line else 0.0
        message = "" if points >= max_points else _message(found[notebook], name, line)
        yield Exercise(name, points, max_points, message)


def _message(examination: dict, name: str, line: _Score | None) -> str:
    """Return why an exercise has less than full points: always a text."""
    entries = examination.get("exercises")
    entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    kept = next(
        (clean(entry["message"]) for entry in entries if entry.get("grade_id") == name and entry.get("message")), ""
    )
    if line and line.manual_score is not None:
        return f"{BY_HAND}; the tests say: {kept}" if kept else BY_HAND
    return kept or NO_MESSAGE


def _notes(question: Question, found: Mapping[str, dict], auto: Mapping[str, _Score | None]) -> Iterator[str]:
    for notebook, examination in found.items():
        notes = examination.get("notes")
        where = f"{notebook}: " if len(found) > 1 else ""
        yield from (clean(f"{where}{note}") for note in notes if note) if isinstance(notes, list) else ()
    for cell, (_, name, _) in question.auto.items():
        line = auto[cell]
        if line and line.manual_score is not None and line.needs_manual_grade:
            yield f"{name} was graded again after an instructor gave its points: look whether they still hold"


def _spread(
    entries: dict[tuple[str, str], Row], questions: Collection[str], teams: Teams, students: set[str]
) -> Iterator[Row]:
    """Yield the row of each candidate: the own one, the team's, or one that says that nothing was handed in."""
    people = (students | teams.members | {student for student, _ in entries}) - teams.names
    for name in {name for _, name in entries}:
        handed_in = {student: row for (student, assignment), row in entries.items() if assignment == name}
        question = next(iter(handed_in.values())).question
        groups = teams.of(name)
        team_of = {member: team for team, members in groups.items() for member in members}
        expected = people if name in questions else set()
        for student in expected | (handed_in.keys() - groups.keys()):
            team = team_of.get(student)
            if team:
                yield _in_team(student, team, groups[team], question, handed_in)
            else:
                yield _alone(student, question, handed_in.get(student), teams)


def _alone(student: str, question: Question, own: Row | None, teams: Teams) -> Row:
    row = own or Row(student, question, status=NO_SUBMISSION)
    if student in teams.names:
        return _noted(row, "is the name of a team, but not of one of this question")
    return _noted(row, f"is in no team of {TEAM_FILE}") if teams.of(question.name) else row


def _in_team(student: str, team: str, members: Iterable[str], question: Question, handed_in: Mapping[str, Row]) -> Row:
    """Return a member's row: the team's if it handed in, else what the member handed in alone."""
    shared, own = handed_in.get(team), handed_in.get(student)
    if shared:
        row = replace(shared, student=student, team=team)
        if own is None:
            return row
        points = f"{own.code:g} code points" if own.is_graded else own.status
        return _noted(row, f"also handed in alone ({points}); what team {team} handed in counts")
    others = [member for member in members if member in handed_in and member != student]
    if own:
        return _noted(replace(own, team=team), f"handed in alone; team {team} handed in nothing")
    alone = f"; alone did: {', '.join(map(clean, others))}" if others else ""
    row = Row(student, question, team, NO_SUBMISSION)
    return _noted(row, f"team {team} handed in nothing{alone}")


def _noted(row: Row, note: str) -> Row:
    return replace(row, notes=(*row.notes, note))


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


def cell_order(path: Path) -> dict[str, int]:
    """Return the place of each grade id in a notebook; the gradebook does not keep it."""
    cells = _read_json(path).get("cells", [])
    ids = [cell.get("metadata", {}).get("nbgrader", {}).get("grade_id") for cell in cells]
    return {name: place for place, name in enumerate(ids) if name}


def read_examination(path: Path) -> dict:
    """Return what the examiner kept in the metadata of an autograded notebook; empty where there is nothing.

    Only the metadata is parsed, which is a hundredth of a notebook.
    """
    try:
        data = path.read_bytes()
        place = data.rfind(_METADATA)
        if place < 0:
            metadata = json.loads(data)["metadata"]
        else:
            metadata, _ = json.JSONDecoder().raw_decode(data[place + len(_METADATA) :].decode())
        examination = metadata["course"]["examination"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return examination if isinstance(examination, dict) else {}


def _read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
