"""`course rubric`: scores and comments of rubric cells through CSV, for those who grade in a spreadsheet.

A row stands for one rubric cell of one submission: a manually graded cell, or a task cell with points. Its column
`exported` remembers score and comment as they were: a row that nobody touched changes nothing, and one that somebody
else scored meanwhile is not overwritten.
Scores are written as the formgrader writes them: Grade.manual_score, Grade.needs_manual_grade, Comment.manual_comment.
"""

import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from nbgrader import api
from nbgrader.coursedir import CourseDirectory
from rich.table import Table
from rich.text import Text
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from ..build import full_name
from ..directory import open_course, open_gradebook, step_folder, write_atomically
from ..plain_text import clean, harmless, harmless_inside, restore
from .gather import cell_order, check_gradebook, manual_cells, read_course_teams, read_ungraded
from .spreadsheet import Line, SpreadsheetError, csv_text, read_lines, read_number
from .teams import Teams
from .written import written_answers

COLUMNS = ("candidate", "question", "cell", "category", "maximum", "score", "comment", "answer", "exported")
REQUIRED = ("candidate", "question", "cell", "score")
BYTE_ORDER_MARK = "\ufeff"  # by it Excel knows UTF-8


class RubricError(Exception):
    """A sheet cannot be written or taken over; the message lists why, row by row."""


@dataclass(frozen=True)
class RubricCell:
    """A rubric cell of one submission, as the gradebook has it."""

    candidate: str  # or the team
    question: str
    notebook: str
    name: str  # the grade id
    cell: str  # what the sheet calls it: the grade id, after the notebook's name where there are several
    category: str
    maximum: float
    grade: str  # id of the Grade
    auto_score: float | None
    score: float | None
    note: str | None  # id of the Comment
    comment: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.candidate, self.question, self.cell

    @property
    def state(self) -> str:
        """What the column `exported` remembers."""
        return _state(self.score, self.comment)

    @property
    def is_empty(self) -> bool:
        return self.score is None and not self.comment


@dataclass(frozen=True)
class Change:
    """What an import changes in one cell."""

    cell: RubricCell
    score: float | None
    comment: str


def export_rubric(course_dir: Path, path: Path, questions: list[str] | None = None) -> tuple[int, list[str]]:
    """Write the rubric cells of the named questions (None: all) to a CSV file that is not there yet.

    Returns the number of rows, and what was left out with the reason. Raises RubricError, ReportError, TeamsError, and
    BuildError for an unknown question.
    """
    if path.exists():
        raise RubricError(f"{path} is there already, and may hold scores: import it first, or name another file")
    course = open_course(course_dir)
    cells, teams = _read_cells(course)
    known = sorted({cell.question for cell in cells})
    names = {full_name(given, known) for given in questions} if questions else set(known)
    ungraded = read_ungraded(course)
    submissions = _by_submission(cell for cell in cells if cell.question in names)
    rows, left_out = [], []
    for (candidate, question), group in submissions.items():
        team = _team_of(teams, candidate, question, submissions.keys() | ungraded.keys())
        reason = ungraded.get((candidate, question)) or (f"{candidate} hands in with team {team}" if team else "")
        try:
            rows += [] if reason else _rows(course, group)
        except (OSError, ValueError, KeyError, RecursionError):
            reason = "there is no autograded notebook"
        if reason:
            left_out.append(f"{candidate}, {question}: {reason}")
    rows.sort(key=lambda row: row[0])
    text = csv_text(COLUMNS, [row for _, row in rows], line_end="\r\n")
    write_atomically(path, BYTE_ORDER_MARK + text)
    return len(rows), left_out


def import_rubric(course_dir: Path, path: Path, *, overwrite: bool = False, dry_run: bool = False) -> list[Change]:
    """Take over scores and comments from a CSV file: all of them, or none.

    An empty score leaves its cell unscored; a sheet without the column `comment` leaves the comments. `overwrite` also
    changes what was scored since the export. Returns the changes, in the order of the sheet; `dry_run` only returns
    them. Raises RubricError with every row that is wrong.
    """
    course = open_course(course_dir)
    try:
        lines = read_lines(path, REQUIRED)
    except SpreadsheetError as error:
        raise RubricError(str(error)) from None
    cells, teams = _read_cells(course)
    changes, problems = _compare(lines, {cell.key: cell for cell in cells}, teams, overwrite)
    if problems:
        listed = "\n".join(problems)
        raise RubricError(f"nothing was taken over from {path}; {len(problems)} rows are wrong:\n{listed}")
    if changes and not dry_run:
        _write(course, changes)
    return changes


def change_table(changes: Collection[Change]) -> Table:
    """Return what an import changes, as a table."""
    table = Table("candidate", "question", "rubric cell", "score before", "after", "comment")
    for change in changes:
        cell = change.cell
        comment = "" if change.comment == cell.comment else change.comment or "(none)"
        before, after = score_text(cell.score), score_text(change.score)
        table.add_row(*(Text(clean(text)) for text in (*cell.key, before, after, comment)))
    return table


def _read_cells(course: CourseDirectory) -> tuple[list[RubricCell], Teams]:
    """Return the rubric cells of all submissions in the gradebook, in the order of the notebooks, and the teams."""
    check_gradebook(course)
    with open_gradebook(course) as gradebook:
        teams = read_course_teams(course, gradebook)
        comments = _read_comments(gradebook)
        found = []
        for entry in sorted(gradebook.assignments, key=lambda entry: entry.name):
            release = step_folder(course, "release", entry.name)
            for notebook in entry.notebooks:
                order = cell_order(release / f"{notebook.name}.ipynb")
                for cell in sorted(manual_cells(notebook), key=lambda cell: order.get(cell.name, len(order))):
                    found += _cells_of(gradebook, entry, notebook, cell, comments)
    return found, teams


def _cells_of(gradebook: api.Gradebook, entry, notebook, cell, comments) -> Iterator[RubricCell]:
    category = _category(notebook, cell.name)
    label = cell.name if len(entry.notebooks) == 1 else f"{notebook.name}/{cell.name}"
    grade = api.Grade
    query = (
        select(api.SubmittedAssignment.student_id, grade.notebook_id, grade.id, grade.auto_score, grade.manual_score)
        .join(api.SubmittedNotebook, api.SubmittedNotebook.id == grade.notebook_id)
        .join(api.SubmittedAssignment, api.SubmittedAssignment.id == api.SubmittedNotebook.assignment_id)
        .where(grade.cell_id == cell.id)
        .order_by(api.SubmittedAssignment.student_id)
    )
    for student, submitted, grade_id, auto_score, score in gradebook.db.execute(query):
        note, text = comments.get((submitted, cell.name), (None, ""))
        place = (student, entry.name, notebook.name, cell.name, label, category, cell.max_score)
        yield RubricCell(*place, grade_id, auto_score, score, note, text)


def _read_comments(gradebook: api.Gradebook) -> dict[tuple[str, str], tuple[str, str]]:
    """Return id and text of each comment by submitted notebook and name of the cell."""
    query = select(api.Comment.notebook_id, api.BaseCell.name, api.Comment.id, api.Comment.manual_comment).join(
        api.BaseCell, api.BaseCell.id == api.Comment.cell_id
    )
    rows = gradebook.db.execute(query)
    return {(notebook, name): (comment, _normal(text or "")) for notebook, name, comment, text in rows}


def _category(notebook: api.Notebook, name: str) -> str:
    """Return the title of a cell: its first heading or line, as the instructor wrote it."""
    source = next((cell.source for cell in notebook.source_cells if cell.name == name), "") or ""
    lines = [line.strip() for line in source.split("\n") if line.strip()]
    title = next((line for line in lines if line.startswith("#")), lines[0] if lines else name)
    return re.sub(r"^#+\s*", "", title)[:200]


def _by_submission(cells: Iterator[RubricCell]) -> dict[tuple[str, str], list[RubricCell]]:
    groups = {}
    for cell in cells:
        groups.setdefault((cell.candidate, cell.question), []).append(cell)
    return groups


def _team_of(teams: Teams, candidate: str, question: str, handed_in: Collection[tuple[str, str]]) -> str:
    """Return the team whose submission counts instead of the candidate's own, if there is one."""
    groups = teams.of(question).items()
    return next((team for team, members in groups if candidate in members and (team, question) in handed_in), "")


def _rows(course: CourseDirectory, group: list[RubricCell]) -> list[tuple[tuple, list[str]]]:
    """Return the rows of one submission, each after what the sheet is sorted by: cell by cell, not by candidate."""
    autograded = step_folder(course, "autograded", group[0].question, group[0].candidate)
    release = step_folder(course, "release", group[0].question)
    answers = {}
    for notebook in {cell.notebook for cell in group}:
        names = [cell.name for cell in group if cell.notebook == notebook]
        file = f"{notebook}.ipynb"
        for name, text in written_answers(autograded / file, release / file, names).items():
            answers[notebook, name] = text
    return [
        ((cell.question, place, cell.candidate), _row(cell, answers[cell.notebook, cell.name]))
        for place, cell in enumerate(group)
    ]


def _row(cell: RubricCell, answer: str) -> list[str]:
    names = [harmless(text) for text in (cell.candidate, cell.question, cell.cell, cell.category)]
    comment, answer = harmless(cell.comment), harmless_inside(answer)
    return [*names, f"{cell.maximum:.10g}", score_text(cell.score, ""), comment, answer, cell.state]


def _state(score: float | None, comment: str) -> str:
    """Return what changes when score or comment do; no spreadsheet takes it for a number."""
    return "v" + hashlib.sha256(f"{score}\n{comment}".encode()).hexdigest()[:10]


def score_text(score: float | None, none: str = "not scored") -> str:
    """Return a score as it is printed."""
    return none if score is None else f"{score:.10g}"


def _normal(comment: str) -> str:
    return comment.replace("\r\n", "\n").strip()


def _compare(
    lines: list[Line], cells: dict[tuple[str, str, str], RubricCell], teams: Teams, overwrite: bool
) -> tuple[list[Change], list[str]]:
    """Return what the rows of a sheet change, and what is wrong with them."""
    changes, problems, seen = [], [], {}
    for line in lines:
        key = tuple(restore(line.cells[name].strip()) for name in REQUIRED[:3])
        try:
            if key in seen:
                raise ValueError(f"{', '.join(key)} stands in row {seen[key]} already")
            seen[key] = line.number
            change = _change(line, _find(key, cells, teams), overwrite)
        except ValueError as error:
            problems.append(f"row {line.number}: {error}")
        else:
            changes += [change] if change else []
    return changes, problems


def _find(key: tuple[str, str, str], cells: dict[tuple[str, str, str], RubricCell], teams: Teams) -> RubricCell:
    """Return the cell that a row names; raises ValueError that says which of the names is unknown."""
    candidate, question, cell = key
    team = _team_of(teams, candidate, question, {known[:2] for known in cells})
    if team:
        raise ValueError(f"{candidate} hands in {question} with team {team}; the row of {team} is scored")
    if key in cells:
        return cells[key]
    if all(question != known for _, known, _ in cells):
        raise ValueError(f"no submission of a question {question!r} has rubric cells")
    of_candidate = [known for who, what, known in cells if (who, what) == (candidate, question)]
    if not of_candidate:
        raise ValueError(f"{candidate!r} has no submission of {question}")
    raise ValueError(f"{question} has no rubric cell {cell!r}; it has {', '.join(of_candidate)}")


def _change(line: Line, cell: RubricCell, overwrite: bool) -> Change | None:
    """Return what a row changes, None if nothing; raises ValueError for a score that cannot be, or a conflict."""
    score = _score(line.cells["score"], cell)
    comment = _normal(restore(line.cells["comment"])) if "comment" in line.cells else cell.comment
    exported = line.cells.get("exported", "").strip()
    if (score, comment) == (cell.score, cell.comment) or exported == _state(score, comment):
        return None
    if comment != cell.comment and cell.note is None:
        raise ValueError("the gradebook has no place for its comment; grade the submission again")
    is_conflict = exported != cell.state if exported else not cell.is_empty
    if is_conflict and not overwrite:
        now = score_text(cell.score) + (" with another comment" if comment != cell.comment else "")
        raise ValueError(
            f"{', '.join(cell.key)} was changed since the export (now: {now}); export again, or import with --overwrite"
        )
    return Change(cell, score, comment)


def _score(text: str, cell: RubricCell) -> float | None:
    if not text.strip():
        return None
    score = read_number(text)
    if score < 0:
        raise ValueError(f"the score {score:g} is below 0")
    if score > cell.maximum:
        raise ValueError(f"the score {score:g} is above the maximum of {cell.cell}, {cell.maximum:g}")
    return score


def _write(course: CourseDirectory, changes: Collection[Change]) -> None:
    """Write all changes in one transaction."""
    grades = [
        {
            "id": change.cell.grade,
            "manual_score": change.score,
            "needs_manual_grade": change.score is None and change.cell.auto_score is None,
        }
        for change in changes
        if change.score != change.cell.score
    ]
    comments = [
        {"id": change.cell.note, "manual_comment": change.comment or None}
        for change in changes
        if change.comment != change.cell.comment
    ]
    with open_gradebook(course) as gradebook:
        try:
            for table, values in ((api.Grade, grades), (api.Comment, comments)):
                if values:
                    gradebook.db.execute(update(table), values)
            gradebook.db.commit()
        except SQLAlchemyError as error:
            gradebook.db.rollback()
            reason = str(error).split("\n")[0]
            raise RubricError(f"the gradebook could not be written, and is as it was: {reason}") from None
