"""Texts beside points that keep out of each other's way. All boxes are (left, bottom, right, top) in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text

from .style import GREY, LABEL_SIZE

Line = tuple[Sequence[float], Sequence[float]]  # x and y of its corners

DISTANCES = (5, 10, 17, 26, 38, 52)  # points between a point and its text
ANGLES = np.deg2rad(np.arange(0, 360, 22.5))
ROUNDS = 3  # the first texts learn where the later ones went


def label_points(
    ax: Axes, points: Sequence[tuple[str, float, float]], lines: Sequence[Line] = (), sides: Sequence[float] = ()
) -> list[Annotation]:
    """Writes a text beside each point (text, x, y), at the cheapest place; a line leads to those further off.

    lines: those that no text should stand on, in data coordinates. sides: where each text should rather stand, in
    degrees from the right. Limits, scales and legend have to be set before.
    """
    if not points:
        return []
    ax.figure.draw_without_rendering()
    pixels = ax.transData.transform([point[1:] for point in points])  # (n, 2)
    unit = ax.figure.dpi / 72  # pixels of a point
    labels = [_unplaced(ax, *point) for point in points]
    sizes = np.array([Text.get_window_extent(label).size for label in labels])  # (n, 2), without the lines
    places = [_places(size, unit) for size in sizes]  # (k, 2) each
    boxes = [_boxes(pixel + around, size) for pixel, around, size in zip(pixels, places, sizes, strict=True)]  # (k, 4)
    costs = _fixed_costs(ax, pixels, places, boxes, _samples(ax, lines), 10 * unit)
    for side, around, cost, size in zip(sides, places, costs, sizes, strict=False):
        cost -= 10 * around @ (np.cos(np.deg2rad(side)), np.sin(np.deg2rad(side))) / size.max()
    chosen: list[int | None] = [None] * len(points)
    for _ in range(ROUNDS):
        for i in range(len(points)):
            others = [boxes[j][chosen[j]] for j in range(len(points)) if j != i and chosen[j] is not None]
            chosen[i] = np.argmin(costs[i] + _crowding(boxes[i], pixels[i], np.reshape(others, (-1, 4))))
    for label, around, choice, size in zip(labels, places, chosen, sizes, strict=True):
        label.set_position(around[choice] / unit)
        label.arrow_patch.set_visible(bool((np.abs(around[choice]) > size / 2 + 10 * unit).any()))
    return labels


def _unplaced(ax: Axes, text: str, x: float, y: float) -> Annotation:
    line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
    where = {"xytext": (0, 0), "textcoords": "offset points", "ha": "center", "va": "center"}
    label = ax.annotate(text, (x, y), color=GREY, fontsize=LABEL_SIZE, arrowprops=line, **where)
    label.set_in_layout(False)  # the axes have their place before the labels have theirs
    return label


def _places(size: np.ndarray, unit: float) -> np.ndarray:
    """Where the middle of a text may stand from its point: (k, 2)."""
    directions = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)  # (16, 2)
    return np.vstack([directions * (size / 2 + distance * unit) for distance in DISTANCES])


def _boxes(middles: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Boxes around middles (n, 2), with a pixel to spare: (n, 4)."""
    return np.hstack([middles - size / 2 - 1, middles + size / 2 + 1])


def _fixed_costs(
    ax: Axes, pixels: np.ndarray, places: list[np.ndarray], boxes: list[np.ndarray], dense: np.ndarray, dot: float
) -> list[np.ndarray]:
    """What each box of each text costs, whatever the other texts do, in pixels of distance: (k,) each.

    That is the distance, what reaches beyond the axes, 6 for each sample (p, 2) of a line under the text, and the crowd
    of the legend and of the other points, which are squares of `dot` pixels.
    """
    dots = _boxes(pixels, np.full(2, dot))
    legends = [legend.get_window_extent().extents for legend in [ax.get_legend()] if legend]
    costs = []
    for i, (pixel, around, box) in enumerate(zip(pixels, places, boxes, strict=True)):
        there = np.vstack([np.delete(dots, i, axis=0), *legends])
        cost = np.linalg.norm(around, axis=1) + 100 * _outside(box, ax.bbox.extents)
        costs.append(cost + 6 * _inside(dense, box).sum(0) + _crowding(box, pixel, there))
    return costs


def _crowding(boxes: np.ndarray, point: np.ndarray, there: np.ndarray) -> np.ndarray:
    """10 for each pixel that boxes (k, 4) share with what is there (m, 4), and 30 where it stands in the way: (k,).

    The way is that from the point to the text, in eighths of its length.
    """
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2  # (k, 2)
    ways = point + (middles - point) * np.linspace(0, 1, 8)[:, None, None]  # (8, k, 2)
    crossed = _inside(ways.reshape(-1, 2), there).sum(1).reshape(8, -1).sum(0)
    return 10 * _overlap(boxes, there).sum(1) + 30 * crossed


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The area that boxes share: (k, 4) and (m, 4) to (k, m)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.clip(high - low, 0, None).prod(-1)


def _inside(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which points (p, 2) lie in which boxes (m, 4): (p, m) bool."""
    x, y, (left, bottom, right, top) = points[:, :1], points[:, 1:], boxes.T
    return (x >= left) & (x <= right) & (y >= bottom) & (y <= top)


def _outside(boxes: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """How far boxes (k, 4) reach beyond the frame: (k,)."""
    return np.clip(frame[:2] - boxes[:, :2], 0, None).sum(1) + np.clip(boxes[:, 2:] - frame[2:], 0, None).sum(1)


def _samples(ax: Axes, lines: Sequence[Line]) -> np.ndarray:
    """Points on the lines, every second pixel: (p, 2)."""
    parts = [np.empty((0, 2))]
    for x, y in lines:
        path = ax.transData.transform(np.stack([x, y], axis=1))
        path = np.clip(path, ax.bbox.min - 1, ax.bbox.max + 1)  # 0 is infinitely far off on a logarithmic axis
        for start, end in pairwise(path):
            parts.append(np.linspace(start, end, max(2, int(np.hypot(*(end - start)) / 2))))
    return np.unique(np.vstack(parts).round(), axis=0)
