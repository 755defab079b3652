"""Texts beside points: none on another, on a line or on the legend, as far as there is room."""

import numpy as np
import pytest
from matplotlib.text import Text

from quant_kernels.plots.labels import label_points
from quant_kernels.plots.style import legend, new_axes


@pytest.fixture
def ax():
    ax = new_axes(None, 4)
    ax.set(xlim=(0, 10), ylim=(0, 10))
    return ax


def box(label):
    label.figure.draw_without_rendering()
    return Text.get_window_extent(label)


def test_a_crowd_gets_texts_that_do_not_overlap(ax, labels):
    random = np.random.RandomState(0)
    points = [(f"point {i}", *place) for i, place in enumerate(5 + random.randn(25, 2))]
    label_points(ax, points)
    labels(ax, [text for text, _, _ in points])


def test_the_same_points_in_the_same_place_are_all_readable(ax, labels):
    label_points(ax, [(name, 5.0, 5.0) for name in ("one", "two", "three", "four", "five", "six")])
    labels(ax, ["one", "two", "three", "four", "five", "six"])


def test_texts_stay_within_the_axes(ax, labels):
    corners = [(f"{x} {y}", x, y) for x in (0, 10) for y in (0, 10)]
    label_points(ax, corners)
    labels(ax, [text for text, _, _ in corners])


def test_a_lonely_text_is_close_and_without_a_line(ax):
    (label,) = label_points(ax, [("alone", 5, 5)])
    assert not label.arrow_patch.get_visible()
    assert np.hypot(*label.get_position()) < 30  # points


def test_a_text_that_is_pushed_away_has_a_line(ax):
    labels = label_points(ax, [("a long text", 5.0, 5.0)] * 12)
    assert any(label.arrow_patch.get_visible() for label in labels)


def test_a_text_keeps_off_a_line_and_on_its_side(ax):
    flat = ((0, 10), (5, 5))
    (free,) = label_points(ax, [("text", 5, 5)], [flat])
    middle = ax.transData.transform((5, 5))[1]
    assert not box(free).y0 <= middle <= box(free).y1
    (above,) = label_points(ax, [("text", 3, 5)], [flat], [90])
    (below,) = label_points(ax, [("text", 7, 5)], [flat], [270])
    assert box(above).y0 > middle > box(below).y1


def test_a_text_keeps_off_the_legend(ax):
    ax.plot([], [], label="a legend")
    legend(ax, "upper right")
    ax.figure.draw_without_rendering()
    frame = ax.get_legend().get_window_extent()
    x, y = ax.transData.inverted().transform((frame.x0 - 8, (frame.y0 + frame.y1) / 2))
    (label,) = label_points(ax, [("a rather long text", x, y)])
    assert not box(label).overlaps(frame)


def test_nothing_to_write(ax):
    assert label_points(ax, []) == []
