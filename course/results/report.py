"""The report of a course: points, levels and reasons per candidate and question, and over the course."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..directory import open_course, write_atomically
from ..plain_text import clean, harmless_inside
from .gather import read_rows
from .report_page import render_page
from .rows import Row
from .spreadsheet import csv_text
from .standing import Standing, standings

MAX_PRINTED_ROWS = 100
ROW_COLUMNS = ("candidate", "question", "team", "status", "code", "max_code", "rubric", "max_rubric", "penalty")
ROW_COLUMNS += ("level", "notes", "reasons")
COURSE_COLUMNS = ("candidate", "code", "max_code", "rubric", "max_rubric", "passed", "open", "level", "missing")


def report(
    course_dir: Path,
    *,
    csv_path: Path | None = None,
    html_path: Path | None = None,
    console: Console | None = None,
) -> list[Row]:
    """Report on a course directory: tables on `console`, CSV files, and a page of HTML that needs no other file.

    `csv_path` has a line for each candidate and question; the file beside it, `course_csv(csv_path)`, one for each
    candidate. Returns the rows. Raises ReportError where the course directory has no gradebook, TeamsError for a team
    file that is wrong.
    """
    course = open_course(course_dir)
    rows = read_rows(course)
    candidates = standings(rows)
    if csv_path:
        write_atomically(Path(csv_path), csv_text(ROW_COLUMNS, map(_row_cells, rows)))
        write_atomically(course_csv(csv_path), csv_text(COURSE_COLUMNS, map(_course_cells, candidates)))
    if html_path:
        write_atomically(Path(html_path), render_page(candidates, Path(course.root).name))
    if console:
        print_report(candidates, console)
    return rows


def course_csv(csv_path: Path) -> Path:
    """Return the path of the CSV file over the course: report.csv -> report-course.csv."""
    return Path(csv_path).with_stem(f"{Path(csv_path).stem}-course")


def print_report(candidates: list[Standing], console: Console) -> None:
    """Print a table of the questions if there are few rows, and one of the course if there are several questions.

    What candidates wrote is printed as it is, never taken for markup.
    """
    rows = [row for standing in candidates for row in standing.rows]
    several = any(len(standing.rows) > 1 for standing in candidates)
    if len(rows) <= MAX_PRINTED_ROWS or not several:
        console.print(_row_table(rows))
    if several:
        console.print(_course_table(candidates))
    looks = [f"{row.candidate}, {row.question.title}: {look}" for row in rows for look in row.looks]
    for look in looks[:MAX_PRINTED_ROWS]:
        console.print(Text(look, style="yellow"))
    if len(looks) > MAX_PRINTED_ROWS:
        console.print(Text(f"{len(looks) - MAX_PRINTED_ROWS} more need a look; the page lists them", style="yellow"))


def _row_table(rows: list[Row]) -> Table:
    table = Table(title="Course report", title_justify="left")
    for name in ("Candidate", "Question"):
        table.add_column(name, overflow="fold")
    for name in ("Code", "Rubric"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Level")
    for row in rows:
        code = f"{row.code:g} / {row.question.max_code:g}" if row.is_graded else row.status
        name = f"{row.candidate} ({row.team})" if row.team else row.candidate
        cells = (name, row.question.title, code, row.rubric_text, row.level)
        table.add_row(*(Text(cell, style="" if row.is_graded else "yellow") for cell in cells))
    return table


def _course_table(candidates: list[Standing]) -> Table:
    table = Table(title="Over the course", title_justify="left")
    table.add_column("Candidate", overflow="fold")
    for name in ("Code", "Rubric"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("Questions passed", "Open", "Level", "Missing"):
        table.add_column(name)
    for standing in candidates:
        code, rubric = (
            f"{points:g} / {limit:g}"
            for points, limit in ((standing.code, standing.max_code), (standing.rubric, standing.max_rubric))
        )
        cells = (standing.candidate, code, rubric, standing.passed_text, f"{standing.open}", standing.level)
        table.add_row(*map(Text, (*cells, standing.missing)))
    return table


def _row_cells(row: Row) -> list[str]:
    question = row.question
    points = [f"{row.code:g}", f"{question.max_code:g}", "" if row.rubric is None else f"{row.rubric:g}"]
    points += [f"{question.max_rubric:g}", f"{row.penalty:g}"]
    reasons = [f"{exercise.name}: {exercise.message}" for exercise in row.exercises if exercise.message]
    texts = [row.candidate, clean(question.name), row.team, row.status]
    after = [row.level, "; ".join(row.notes), row.reason or "; ".join(reasons)]
    return [*map(_cell, texts), *(points if row.is_graded else [""] * 5), *map(_cell, after)]


def _course_cells(standing: Standing) -> list[str]:
    points = [standing.code, standing.max_code, standing.rubric, standing.max_rubric]
    texts = [standing.passed_text, f"{standing.open}", standing.level, standing.missing]
    return [_cell(standing.candidate), *(f"{value:g}" for value in points), *map(_cell, texts)]


def _cell(text: str) -> str:
    return harmless_inside(" ".join(text.split()))
