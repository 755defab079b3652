"""Outliers: every one of them is seen, however many channels share a pixel."""

import pytest
import torch
from matplotlib import pyplot as plt

from quant_kernels.plots import outliers_per_channel


@pytest.fixture
def maxima():
    """Of 4 layers and 1,700 channels, three of which stand out."""
    values = 1 + torch.rand(4, 1700, generator=torch.Generator().manual_seed(0))
    values[1:, 5], values[:, 901], values[2, 1699] = 300, 40, 90
    return values


def test_a_map_of_layers(maxima, dressed):
    ax = outliers_per_channel(maxima)
    dressed(ax, "channel", "layer", "Largest activation of each channel")
    assert [text.get_text() for text in ax.texts] == ["5", "901", "1699"]
    bar = ax.figure.axes[1]
    assert bar.get_ylabel() == "max |x|" and bar.get_yscale() == "log"


def test_no_outlier_gets_lost_between_pixels(maxima):
    (mesh,) = outliers_per_channel(maxima).collections
    shown = mesh.get_array()
    assert shown.shape == (4, 567)  # three channels a pixel
    assert shown[1, 5 // 3] == 300 and shown[0, 901 // 3] == 40 and shown[2, 1699 // 3] == 90
    assert mesh.get_coordinates()[0, [0, -1], 0].tolist() == [-0.5, 1699.5]


def test_neighbours_share_a_text(maxima):
    maxima[:, 8] = 50
    assert [text.get_text() for text in outliers_per_channel(maxima).texts] == ["5, 8", "901", "1699"]


def test_a_single_layer_is_a_line(maxima, labels, dressed):
    ax = outliers_per_channel(maxima[1])
    dressed(ax, "channel", "max |x| (dashed: median)", "Largest activation of each channel")
    labels(ax, ["5", "901"])
    line, median = ax.lines
    assert line.get_ydata().tolist() == maxima[1].tolist()
    assert median.get_ydata()[0] == pytest.approx(maxima[1].median().item(), rel=1e-3)
    assert ax.get_legend() is None


def test_several_are_lines_with_names(maxima, labels):
    ax = outliers_per_channel({"as it is": maxima[1], "rotated": torch.full((1700,), 9.0)}, title="Rotation")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["as it is", "rotated"]
    assert ax.lines[0].get_color() != ax.lines[2].get_color()
    labels(ax, ["5", "901"])
    assert ax.get_title(loc="left") == "Rotation"


def test_nothing_stands_out_of_what_is_even():
    for even in (torch.ones(8), torch.ones(2, 8)):
        ax = outliers_per_channel(even)
        ax.figure.draw_without_rendering()
        assert not ax.texts


def test_half_precision_and_gradients_are_no_matter():
    outliers_per_channel(torch.ones(8, dtype=torch.bfloat16))
    outliers_per_channel(torch.ones(8, requires_grad=True))


@pytest.mark.parametrize(
    ("maxima", "message"),
    [
        ({}, "there are no maxima to draw"),
        (torch.empty(0), r"maxima have shape \(0,\), not"),
        (torch.ones(2, 2, 2), r"maxima have shape \(2, 2, 2\), not \(n_channels,\) or \(n_layers, n_channels\)"),
        (torch.tensor([1.0, float("inf")]), "no magnitudes"),
        (torch.tensor([-1.0, 2.0]), "maxima from -1.0 to 2.0 are no magnitudes that can be drawn"),
        (torch.zeros(3), "no magnitudes"),
        ({"a": torch.ones(3), "b": torch.ones(2, 3)}, "several maxima are drawn as lines"),
    ],
)
def test_what_is_refused(maxima, message):
    with pytest.raises(ValueError, match=message):
        outliers_per_channel(maxima)
    assert plt.get_fignums() == []
