"""Palette and rows: contrast on light and dark pages, colours that the colour-blind tell apart, and what is refused."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgb

from quant_kernels.plots.blocks import ONE, PLAIN, ZERO
from quant_kernels.plots.style import COLOURS, GREY, INK, MARKERS, new_axes, plain_ticks, records, tint

PAGES = ("#ffffff", "#111111")  # JupyterLab's --jp-layout-color0, light and dark

# Machado, Oliveira and Fernandes 2009: linear RGB as seen without one of the three kinds of cones.
SIGHTS = {
    "all": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour):
    values = np.array(to_rgb(colour))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """The ratio of WCAG 2.2."""
    dark, light = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def seen(colour, sight):
    """CIELAB."""
    x, y, z = (TO_XYZ @ np.clip(np.array(sight) @ linear(colour), 0, 1)) / (0.9505, 1, 1.089)
    fx, fy, fz = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_grey_text_is_as_readable_on_both_pages_as_any_grey_can_be():
    best = max(min(contrast(f"#{v:02x}{v:02x}{v:02x}", page) for page in PAGES) for v in range(256))
    assert min(contrast(GREY, page) for page in PAGES) >= best - 0.01 > 4.3


@pytest.mark.parametrize("page", PAGES)
def test_colours_stand_out_from_both_pages(page):
    assert all(contrast(colour, page) >= 3 for colour in COLOURS)  # what WCAG asks of graphics


def test_colours_are_told_apart_by_the_colour_blind():
    for sight in SIGHTS.values():
        pairs = itertools.combinations([seen(colour, sight) for colour in COLOURS], 2)
        assert min(np.linalg.norm(one - other) for one, other in pairs) > 15
    assert len(set(MARKERS)) == len(COLOURS)


def test_that_check_can_fail():
    red, green = (seen(colour, SIGHTS["deuteranopia"]) for colour in ("#D00000", "#6E6E00"))
    assert np.linalg.norm(red - green) < 15


@pytest.mark.parametrize("colour", COLOURS)
def test_ink_is_readable_on_every_cell(colour):
    for share in (*PLAIN, ZERO, ONE):
        assert contrast(to_hex(tint(colour, share)), INK) > 4.5
    assert to_hex(tint(colour, 1)).upper() == colour and tint(colour, 0) == (1, 1, 1)


@dataclass
class Row:
    name: str
    size: float


def test_rows_are_mappings_or_dataclasses():
    assert records([Row("a", 2.0), {"name": "b", "size": 3, "more": None}], "size") == [
        {"name": "a", "size": 2.0},
        {"name": "b", "size": 3, "more": None},
    ]


@pytest.mark.parametrize("size", [0, -1.0, math.nan, math.inf, None, "2"])
def test_numbers_of_rows_are_checked(size):
    with pytest.raises(ValueError, match=f"size of a is {size}, not a number above 0"):
        records([Row("a", size)], "size")


def test_rows_that_lack_something():
    with pytest.raises(ValueError, match="there are no rows to draw"):
        records([], "size")
    with pytest.raises(ValueError, match="row 'a' has no error"):
        records([Row("a", 1)], "error")
    with pytest.raises(ValueError, match="has no name"):
        records([{"size": 1}], "size")


def test_given_axes_are_used_and_new_ones_are_the_only_new_figure():
    figure, ax = plt.subplots()
    assert new_axes(ax, 3) is ax and plt.get_fignums() == [figure.number]
    assert new_axes(None, 3).figure.get_size_inches().tolist() == [7, 3]
    assert len(plt.get_fignums()) == 2


@pytest.mark.parametrize(("limits", "expected"), [((0.9, 110), ["1", "2", "5", "10"]), ((1, 1e6), ["1", "10", "100"])])
def test_logarithmic_ticks_are_plain_numbers(limits, expected):
    ax = new_axes(None, 3)
    ax.set(yscale="log", ylim=limits)
    plain_ticks(ax.yaxis)
    ax.figure.draw_without_rendering()
    texts = [text.get_text() for text in ax.get_yticklabels()]
    assert [text for text in texts if text in expected] == expected
