"""Pictures without a screen, which leave nothing behind, and what is asserted of each."""

import itertools

import matplotlib
import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Annotation, Text


@pytest.fixture(autouse=True)
def nothing_is_left():
    """No setting has changed after a test; its figures are closed."""
    plt.switch_backend("agg")
    before = matplotlib.rcParams.copy()
    yield
    assert dict(matplotlib.rcParams) == dict(before)
    plt.close("all")


def text_boxes(ax):
    """The boxes of the texts beside points, by text, as they stand when the figure is drawn."""
    ax.figure.draw_without_rendering()
    texts = [artist for artist in ax.texts if isinstance(artist, Annotation)]
    return {text.get_text(): Text.get_window_extent(text) for text in texts}


def check_labels(ax, expected):
    """Asserts that the expected texts are there, within the axes, and that no two share a pixel."""
    boxes = text_boxes(ax)
    assert boxes.keys() == set(expected)
    for name, box in boxes.items():
        assert ax.bbox.padded(2).containsx(box.x0) and ax.bbox.padded(2).containsx(box.x1), name
        assert ax.bbox.padded(2).containsy(box.y0) and ax.bbox.padded(2).containsy(box.y1), name
    overlaps = [(a, b) for a, b in itertools.combinations(boxes, 2) if boxes[a].overlaps(boxes[b])]
    assert not overlaps


def check_dress(ax, x, y, *in_title):
    """Asserts what every picture has: units, a title that says what it shows, and no background."""
    assert (ax.get_xlabel(), ax.get_ylabel()) == (x, y)
    assert all(part in ax.get_title(loc="left") for part in in_title)
    assert ax.figure.patch.get_alpha() == ax.patch.get_alpha() == 0
    width, _ = ax.figure.get_size_inches() * ax.figure.dpi
    assert width == 700


@pytest.fixture(scope="session")
def labels():
    return check_labels


@pytest.fixture(scope="session")
def dressed():
    return check_dress
