"""The report's page: HTML with its style and plots inside, so that one file can be kept, sent and printed."""

import base64
import io
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from statistics import fmean

import jinja2
import matplotlib
from matplotlib.figure import Figure

from ..card import LEVELS
from .rows import NO_SUBMISSION, NOT_GRADED, NOT_SCORED, Exercise, Question, Row
from .standing import Standing, course_mark

WEAK_PERCENT = 50  # below this mean an exercise stands out
SHOWN_NAMES = 30  # of the candidates that share what needs a look
MESSAGE_CHARACTERS = 1_000_000  # of all messages of the page together; each is cut to its share
MIN_MESSAGE_CHARACTERS = 80
MAX_REASONS = 20_000  # lines of reasons on the page; report.csv has them all
_INK, _GRID, _BAR, _WEAK = "#1f2933", "#d9dee4", "#4477aa", "#cc6644"
_CELL = {NO_SUBMISSION: "none", NOT_GRADED: "alarm", NOT_SCORED: "open", "-": "plain"}  # style of what is no level


@dataclass(frozen=True)
class _Summary:
    """One question over the class."""

    question: Question
    graded: int
    mean: float | None  # percent of the code points
    levels: str
    image: str

    @property
    def marks(self) -> str:
        passes = self.question.card.passes if self.question.card else {}
        return ", ".join(f"{name}: {mark.rubric:g} and {mark.autograded:g} %" for name, mark in passes.items())


def render_page(candidates: Sequence[Standing], course_name: str) -> str:
    """Return the report as one self-contained HTML page; everything that candidates wrote is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("course.results"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["points"] = "{:.4g}".format
    rows = [row for standing in candidates for row in standing.rows]
    questions = sorted({row.question.name: row.question for row in rows}.values(), key=_order)
    with_reasons = _with_reasons(candidates)
    return environment.get_template("report.html").render(
        course_name=course_name,
        day=date.today().isoformat(),
        candidates=candidates,
        questions=questions,
        summaries=[_summary(question, rows) for question in questions],
        course_marks=_course_marks(questions),
        course_levels=_counted(standing.level for standing in candidates),
        weak_percent=WEAK_PERCENT,
        facts=_facts(candidates, rows),
        looks=list(_looks(rows)),
        missing=with_reasons,
        left_out=sum(any(map(_lacks, standing.rows)) for standing in candidates) - len(with_reasons),
        cell_style=_cell_style,
        short=_short,
        by_question=lambda standing: {row.question.name: row for row in standing.rows},
        reasons=reasons,
        characters=_share(candidates),
        lacks=_lacks,
    )


def reasons(row: Row) -> list[tuple[str, float, float, str]]:
    """Return names, points, maximum and message of the exercises with missing points; one entry for each message."""
    entries = {}
    for exercise in row.exercises:
        if exercise.points < exercise.max_points:
            entries.setdefault(exercise.message, []).append(exercise)
    return [(_names(group), _sum(group, "points"), _sum(group, "max_points"), text) for text, group in entries.items()]


def exercise_means(rows: Sequence[Row]) -> list[tuple[str, float, int]]:
    """Return for each exercise of a question: its name, the mean in percent, and how many have no point in it.

    `rows` are the graded rows of one question, so they have the same exercises.
    """
    columns = zip(*(row.exercises for row in rows), strict=True)
    scored = [column for column in columns if column[0].max_points > 0]
    return [
        (
            column[0].name,
            fmean(100 * exercise.points / exercise.max_points for exercise in column),
            sum(exercise.points <= 0 for exercise in column),
        )
        for column in scored
    ]


def plot(rows: Sequence[Row]) -> str:
    """Return a bar for each exercise's mean over the class, as a data URI of an SVG; empty without an exercise."""
    means = exercise_means(rows)
    if not means:
        return ""
    style = {"svg.hashsalt": "report", "svg.fonttype": "none"}  # letters stay letters, which is a tenth of the size
    with warnings.catch_warnings(action="ignore"), matplotlib.rc_context(style):  # missing glyphs
        figure = Figure(figsize=(8.5, 0.5 + 0.36 * len(means)), layout="constrained")
        _draw(figure.subplots(), means, len(rows))
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(out.getvalue()).decode()}"


def _draw(axes: matplotlib.axes.Axes, means: list[tuple[str, float, int]], size: int) -> None:
    names, percents, empty = zip(*means, strict=True)
    places = range(len(means))
    axes.barh(places, [100] * len(means), height=0.62, color="#eef1f4")
    axes.barh(places, percents, height=0.62, color=[_WEAK if value < WEAK_PERCENT else _BAR for value in percents])
    for place, percent, none in zip(places, percents, empty, strict=True):
        axes.text(102, place, f"{percent:.0f} %", va="center", color=_INK, fontsize=9, weight="bold")
        axes.text(113, place, f"{none} of {size} without a point", va="center", color="#5b6775", fontsize=8.5)
    axes.set_yticks(places, names, parse_math=False, color=_INK, fontsize=9)
    axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"], color="#5b6775", fontsize=8.5)
    axes.invert_yaxis()
    axes.set_xlim(0, 145)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.vlines([25, 50, 75], -0.5, len(means) - 0.5, color=_GRID, linewidth=0.6, zorder=0)


def _order(question: Question) -> tuple[float, str]:
    return (question.card.number if question.card else float("inf")), question.name


def _summary(question: Question, rows: Iterable[Row]) -> _Summary:
    graded = [row for row in rows if row.question.name == question.name and row.is_graded]
    mean = fmean(100 * row.code / question.max_code for row in graded) if graded and question.max_code else None
    return _Summary(question, len(graded), mean, _counted(row.level for row in graded), plot(graded))


def _counted(levels: Iterable[str]) -> str:
    """Return how often each level occurs, the highest first: "3 senior, 5 mid"."""
    counts = Counter(level for level in levels if level != "-")
    rank = {level: place for place, level in enumerate(LEVELS)}
    ordered = sorted(counts, key=lambda level: rank.get(level.removesuffix(" so far"), -1), reverse=True)
    return ", ".join(f"{counts[level]} {level}" for level in ordered)


def _course_marks(questions: Sequence[Question]) -> list[tuple[str, float, float]]:
    """Return each level with the rubric and code points that it asks for over the course."""
    known = {level for question in questions if question.card for level in question.card.passes}
    marks = {level: course_mark(questions, level) for level in sorted(known, key=LEVELS.index)}
    return [(level, mark.rubric, mark.autograded) for level, mark in marks.items()]


def _short(level: str) -> str:
    return "open" if level == NOT_SCORED else level.split()[0]


def _cell_style(row: Row) -> str:
    """Return the class of a cell in the table of all questions."""
    shown = row.level if row.is_graded else row.status
    style = _CELL.get(shown) or ("below" if shown.startswith("below") else f"l{LEVELS.index(shown)}")
    return f"{style} look" if row.looks else style


def _looks(rows: Sequence[Row]) -> Iterator[tuple[str, str, str]]:
    """Yield question, what needs a look, and at whom; what is the same is said once."""
    entries = [(_order(row.question), row.question.title, look, row.candidate) for row in rows for look in row.looks]
    for (_, title, look), group in groupby(sorted(entries), key=lambda entry: entry[:3]):
        names = [name for *_, name in group]
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        yield title, look, ", ".join(names[:SHOWN_NAMES]) + more


def _lacks(row: Row) -> bool:
    return any(exercise.points < exercise.max_points for exercise in row.exercises)


def _with_reasons(candidates: Sequence[Standing]) -> set[str]:
    """Return the ids of the candidates whose missing points are explained on the page, as many as fit."""
    shown, lines = set(), 0
    for standing in candidates:
        own = sum(len(reasons(row)) for row in standing.rows)
        if own and lines + own <= MAX_REASONS:
            shown.add(standing.student)
            lines += own
    return shown


def _share(candidates: Sequence[Standing]) -> int:
    messages = sum(len(reasons(row)) for standing in candidates for row in standing.rows)
    return max(MIN_MESSAGE_CHARACTERS, MESSAGE_CHARACTERS // max(messages, 1))


def _names(group: Sequence[Exercise]) -> str:
    return ", ".join(exercise.name for exercise in group)


def _sum(group: Sequence[Exercise], key: str) -> float:
    return sum(getattr(exercise, key) for exercise in group)


def _facts(candidates: Sequence[Standing], rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return the numbers at the top of the page, each with what it counts."""
    graded = [row for row in rows if row.is_graded]
    percents = [100 * row.code / row.question.max_code for row in graded if row.question.max_code]
    return [
        (str(len(candidates)), "candidates"),
        (str(len(graded)), "graded results"),
        (str(sum(row.status == NOT_GRADED for row in rows)), "not graded"),
        (str(sum(row.rubric is None for row in graded)), "wait for rubric points"),
        (str(sum(bool(row.looks) for row in rows)), "need a look"),
        (f"{fmean(percents):.0f} %" if percents else "-", "mean of the code points"),
    ]
