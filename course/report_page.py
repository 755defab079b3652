"""The report's page: HTML with its style and plots inside, so that one file can be kept, sent and printed."""

import base64
import io
import warnings
from collections.abc import Sequence
from datetime import date
from itertools import groupby
from statistics import fmean
from typing import TYPE_CHECKING

import jinja2
import matplotlib
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from .report import Row

WEAK_PERCENT = 50  # below this mean an exercise stands out
_INK, _GRID, _BAR, _WEAK = "#1f2933", "#d9dee4", "#4477aa", "#cc6644"


def render_page(rows: Sequence["Row"], course_name: str) -> str:
    """Return the report as one self-contained HTML page; everything that candidates wrote is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("course"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    graded = [row for row in rows if row.is_graded]
    by_title = sorted(graded, key=lambda row: (row.assignment, row.title))
    plots = [(title, plot(list(group))) for title, group in groupby(by_title, key=lambda row: row.title)]
    return environment.get_template("report.html").render(
        course_name=course_name,
        day=date.today().isoformat(),
        rows=rows,
        plots=[(title, image) for title, image in plots if image],
        weak_percent=WEAK_PERCENT,
        facts=_facts(rows, graded),
        ungraded=[row for row in rows if row.status == "not graded"],
        incomplete=[row for row in graded if row.code < row.max_code],
    )


def exercise_means(rows: Sequence["Row"]) -> list[tuple[str, float, int]]:
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


def plot(rows: Sequence["Row"]) -> str:
    """Return a bar for each exercise's mean over the class, as a data URI of an SVG; empty without an exercise."""
    means = exercise_means(rows)
    if not means:
        return ""
    with warnings.catch_warnings(action="ignore"), matplotlib.rc_context({"svg.hashsalt": "report"}):  # missing glyphs
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


def _facts(rows: Sequence["Row"], graded: Sequence["Row"]) -> list[tuple[str, str]]:
    """Return the numbers at the top of the page, each with what it counts."""
    percents = [100 * row.code / row.max_code for row in graded if row.max_code]
    waiting = sum(row.rubric is None for row in graded)
    failed = sum(row.status == "not graded" for row in rows)
    return [
        (str(len({row.student for row in rows})), "candidates"),
        (str(len(graded)), "graded submissions"),
        (str(failed), "not graded"),
        (str(waiting), "wait for rubric points"),
        (f"{fmean(percents):.0f} %" if percents else "-", "mean of the code points"),
    ]
