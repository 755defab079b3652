"""What the pictures share: palette, size, the dress of the axes, and the check of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from numbers import Real
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

GREY = "#797979"  # text and lines: 4.3 : 1 on white and on #111111; no grey has more on both
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#646464")  # above 3 : 1 on both
MARKERS = ("o", "s", "^", "D", "v")
INK = "#111111"  # on cells, which keep their colour on every page
WIDTH = 7.0  # inches, of 100 pixels
LABEL_SIZE = 8  # points

Row = Mapping[str, Any] | Any  # a mapping or a dataclass


def records(rows: Sequence[Row], *numbers: str) -> list[dict[str, Any]]:
    """The rows as dictionaries. Raises ValueError for none, and for numbers that are missing or not above 0."""
    if not len(rows):
        raise ValueError("there are no rows to draw")
    return [_record(row, numbers) for row in rows]


def _record(row: Row, numbers: Sequence[str]) -> dict[str, Any]:
    record = {field.name: getattr(row, field.name) for field in fields(row)} if is_dataclass(row) else dict(row)
    for field in ("name", *numbers):
        if field not in record:
            raise ValueError(f"row {record.get('name', record)!r} has no {field}")
    for field in numbers:
        if not isinstance(record[field], Real) or not 0 < record[field] < math.inf:
            raise ValueError(f"{field} of {record['name']} is {record[field]}, not a number above 0")
    return record


def new_axes(ax: Axes | None, height: float) -> Axes:
    """The given Axes, or those of a new figure without a background, as wide as a notebook and `height` inches high."""
    if ax is None:
        figure, ax = plt.subplots(figsize=(WIDTH, height), dpi=100, layout="constrained")
        figure.patch.set_alpha(0)
    ax.patch.set_alpha(0)
    return ax


def dress(ax: Axes, title: str, x: str, y: str, grid: bool = True, frame: bool = True) -> None:
    """Title, units, and everything grey that is not data."""
    ax.set_title(title, loc="left", color=GREY, fontsize=11, fontweight="bold", pad=12)
    ax.set_xlabel(x, color=GREY, fontsize=10)
    ax.set_ylabel(y, color=GREY, fontsize=10)
    ax.tick_params(which="both", colors=GREY, labelsize=9)
    for side, spine in ax.spines.items():
        spine.set_color(GREY)
        spine.set_visible(frame and side in ("left", "bottom"))
    if grid:
        ax.grid(color=GREY, alpha=0.25, linewidth=0.6)
        ax.set_axisbelow(True)


def legend(ax: Axes, place: str, title: str = "") -> None:
    """The legend, where anything has a label."""
    if ax.get_legend_handles_labels()[0]:
        box = ax.legend(frameon=False, labelcolor=GREY, fontsize=9, loc=place, title=title, title_fontsize=9)
        box.get_title().set_color(GREY)


def plain_ticks(axis: Axis) -> None:
    """Numbers as they are spoken on a logarithmic axis: 0.5, 20, 3,000."""
    low, high = sorted(axis.get_view_interval())
    subs = (1,) if high / low > 2000 else (1, 2, 5) if high / low > 5 else range(1, 10)
    axis.set_major_locator(LogLocator(subs=subs, numticks=15))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.15g}"))
    axis.set_minor_formatter(NullFormatter())


def tint(colour: str, share: float) -> tuple[float, ...]:
    """The colour mixed with white: 1 is the colour itself."""
    return tuple(share * part + 1 - share for part in to_rgb(colour))
