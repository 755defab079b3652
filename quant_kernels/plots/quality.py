"""Pictures of what bits buy: the error of formats, and the perplexity of mixes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes

from .labels import label_points
from .style import COLOURS, GREY, MARKERS, Row, dress, legend, new_axes, plain_ticks, records

Point = tuple[float, float]


def error_against_bits(rows: Sequence[Row], ax: Axes | None = None, *, title: str = "") -> Axes:
    """Draws the error of formats against the bits that they take, and what no format can undercut.

    rows: with `name`, `bits_per_weight`, `error` (relative RMSE, 0.07 is 7 %) and, for the colour, `family` if any.
    The line is the rate-distortion bound of independent normal weights, a relative RMSE of 2 ** -bits (Shannon 1959).
    Raises ValueError for no rows, and for a number that is missing or not above 0.
    """
    points = records(rows, "bits_per_weight", "error")
    ax = new_axes(ax, height=4.8)
    families = dict.fromkeys(point.get("family", "") for point in points)
    for family, colour, marker in zip(families, cycle(COLOURS), cycle(MARKERS), strict=False):
        chosen = [point for point in points if point.get("family", "") == family]
        x, y = [p["bits_per_weight"] for p in chosen], [100 * p["error"] for p in chosen]
        ax.plot(x, y, marker, color=colour, label=family or None)
    bits = [point["bits_per_weight"] for point in points]
    span = np.linspace(min(bits) - 0.2, max(bits) + 0.2, 50)
    least = (span, 100 * 2.0**-span)
    ax.plot(*least, "--", color=GREY, linewidth=1, label="least for normal weights")
    ax.set_yscale("log")
    plain_ticks(ax.yaxis)
    dress(ax, title or f"Error of {len(points)} formats against their size", "bits per weight", "relative RMSE (%)")
    legend(ax, "upper right")
    label_points(ax, [(p["name"], p["bits_per_weight"], 100 * p["error"]) for p in points], [least])
    return ax


def perplexity_against_size(
    rows: Sequence[Row], ax: Axes | None = None, *, base: str = "F16", highest: float = 1.6, title: str = ""
) -> Axes:
    """Draws the perplexity of a model's mixes against their size, and the front of those that no smaller one matches.

    rows: with `name`, `bytes`, `perplexity`, `standard_error` if known, and `bits_per_weight`, which all have or none.
    base: the row that is drawn as a line. highest: rows above so many times its perplexity stand at the upper edge.
    Raises ValueError for no rows, no base or nothing beside it, and a number that is missing or not above 0.
    """
    points = records(rows, "bytes", "perplexity")
    line = next((point for point in points if point["name"] == base), None)
    mixes = [point for point in points if point is not line]
    if line is None or not mixes:
        raise ValueError(f"the rows need one named {base!r}, the base, and others beside it")
    unit, prefix = (1e9, "GB") if line["bytes"] >= 1e9 else (1e6, "MB")
    ceiling = line["perplexity"] * highest
    places = [(mix["bytes"] / unit, min(mix["perplexity"], ceiling)) for mix in mixes]
    ax = new_axes(ax, height=5.0)
    _draw_base(ax, line, f"{base} {line['perplexity']:.4g}, {line['bytes'] / unit:.3g} {prefix}")
    front = pareto_front([(mix["bytes"], mix["perplexity"]) for mix in mixes])
    stairs = _stairs(places[i] for i in front)
    ax.plot(*stairs, color=COLOURS[0], linewidth=1)
    _draw_mixes(ax, mixes, places, front)
    ax.set_yscale("log")
    ax.margins(y=0.08)
    plain_ticks(ax.yaxis)
    size = f"size of the file ({prefix})"
    dress(ax, title or f"Perplexity of {len(mixes)} mixes against their size", size, "perplexity")
    if all("bits_per_weight" in point for point in points):
        _bits_on_top(ax, line["bits_per_weight"] * unit / line["bytes"])
    legend(ax, "upper right")
    texts = [mix["name"] + (f" {mix['perplexity']:.3g}" if mix["perplexity"] > ceiling else "") for mix in mixes]
    bars = [((x, x), (y - _error(mix), y + _error(mix))) for mix, (x, y) in zip(mixes, places, strict=True)]
    lines = [(ax.get_xlim(), [line["perplexity"]] * 2), stairs, *bars]
    label_points(ax, [(text, *place) for text, place in zip(texts, places, strict=True)], lines)
    return ax


def pareto_front(points: Sequence[Point]) -> list[int]:
    """The indices of the points that no other one equals or undercuts in both numbers, from the smallest first number.

    >>> pareto_front([(2.0, 9.0), (3.0, 7.0), (3.5, 8.0), (4.0, 6.5)])
    [0, 1, 3]
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=points.__getitem__):
        if not front or points[index][1] < points[front[-1]][1]:
            front.append(index)
    return front


def _error(row: Mapping) -> float:
    return row.get("standard_error", 0)


def _draw_base(ax: Axes, line: Mapping, label: str) -> None:
    ax.axhspan(
        line["perplexity"] - _error(line), line["perplexity"] + _error(line), color=GREY, alpha=0.15, linewidth=0
    )
    ax.axhline(line["perplexity"], color=GREY, linewidth=1.2, linestyle="--", label=label)


def _stairs(points: Iterable[Point]) -> tuple[list[float], list[float]]:
    """The corners of the least y that is reached up to each x, for points from the left down to the right."""
    x, y = [], []
    for right, lower in points:
        x += [right, right] if x else [right]
        y += [y[-1], lower] if y else [lower]
    return x, y


def _draw_mixes(ax: Axes, mixes: Sequence[Mapping], places: Sequence[Point], front: Sequence[int]) -> None:
    """The markers with their standard errors, by whether they are on the front; other ones for what is too high."""
    looks = {
        "none smaller is as good": (COLOURS[0], "o"),
        "one smaller is as good": (COLOURS[1], "s"),
        "beyond the picture": (COLOURS[3], "^"),
    }
    for kind, (label, (colour, marker)) in enumerate(looks.items()):
        chosen = [
            (*place, _error(mix))
            for i, (mix, place) in enumerate(zip(mixes, places, strict=True))
            if kind == (2 if mix["perplexity"] > place[1] else int(i not in front))
        ]
        if chosen:
            x, y, errors = zip(*chosen, strict=True)
            look = {"color": colour, "markersize": 5, "elinewidth": 1, "capsize": 2, "label": label}
            ax.errorbar(x, y, None if kind == 2 else errors, fmt=marker, **look)


def _bits_on_top(ax: Axes, bits_per_size: float) -> None:
    top = ax.secondary_xaxis("top", functions=(lambda x: x * bits_per_size, lambda x: x / bits_per_size))
    top.set_xlabel("bits per weight", color=GREY, fontsize=10)
    top.tick_params(colors=GREY, labelsize=9)
    top.spines["top"].set_color(GREY)
