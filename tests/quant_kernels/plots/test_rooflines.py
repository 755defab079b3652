"""Rooflines: roofs and ridges where the device has them, and steps that none of them rises above."""

import numpy as np
import pytest
from matplotlib import pyplot as plt

from quant_kernels.hardware import HARDWARE
from quant_kernels.models.shapes import ARCHITECTURES
from quant_kernels.plots import roofline
from quant_kernels.roofline import attainable, decode

A100, LLAMA = HARDWARE["A100 80GB SXM"], ARCHITECTURES["Llama-3.1-8B"]
BATCHES = (1, 4, 16, 64, 256)


@pytest.fixture
def series():
    return {
        f"{bits} weights": [decode(LLAMA, A100, weights=bits, batch=batch) for batch in BATCHES]
        for bits in ("FP16", "Q4_K")
    }


def texts(ax):
    return {text.get_text().strip() for text in ax.texts}


def test_roofs_and_ridges(dressed):
    ax = roofline(A100)
    dressed(ax, "operations per byte", "operations per second (T/s)", "Roofline of A100 80GB SXM, 2.04 TB/s")
    assert texts(ax) == {
        *("FP32 19.5", "FP16 312", "INT8 624", "INT4 1248"),
        *("ridge 10", "ridge 153", "ridge 306", "ridge 612"),
    }
    slope, *roofs = ax.lines
    (x0, x1), (y0, y1) = slope.get_data()
    assert y0 / x0 == pytest.approx(A100.bandwidth / 1e12) == y1 / x1
    assert {roof.get_ydata()[0] for roof in roofs} == {19.5, 312, 624, 1248}
    assert ax.get_xscale() == ax.get_yscale() == "log" and ax.get_legend() is None


def test_formats_of_the_same_speed_share_a_roof():
    assert texts(roofline(HARDWARE["H100 SXM"], formats=("FP8", "INT8"))) == {"FP8 = INT8 1979", "ridge 591"}


def test_steps_lie_on_the_roof_and_say_their_batch(series, dressed):
    ax = roofline(A100, series, formats=["FP16"], title="Decode")
    dressed(ax, "operations per byte", "operations per second (T/s)", "Decode")
    drawn = {line.get_label(): line for line in ax.lines if line.get_label() in series}
    assert drawn.keys() == series.keys()
    for line in drawn.values():
        x, y = line.get_data()
        assert np.allclose(y, [attainable(intensity, A100) / 1e12 for intensity in x])
        assert ax.get_xlim()[0] < min(x) and max(x) < ax.get_xlim()[1]
    assert len({line.get_marker() for line in drawn.values()}) == 2
    assert texts(ax) == {"FP16 312", "ridge 153", *map(str, BATCHES)}
    assert ax.get_legend().get_title().get_text() == "numbers: tokens of a step"


def test_batches_do_not_hide_each_other(series):
    ax = roofline(A100, series)
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text() in map(str, BATCHES)]
    places = {(round(box.x0), round(box.y0)) for box in boxes}
    assert len(places) == len(boxes) == 10


def test_given_axes():
    figure, ax = plt.subplots()
    assert roofline(A100, ax=ax) is ax and plt.get_fignums() == [figure.number]


def test_what_is_refused(series):
    with pytest.raises(ValueError, match="no peak of M2 Max is known: there is no roof to draw"):
        roofline(HARDWARE["M2 Max"])
    with pytest.raises(ValueError, match="H100 SXM has no INT4 matrix instruction"):
        roofline(HARDWARE["H100 SXM"], formats=["INT4"])
    with pytest.raises(ValueError, match="there are no steps to draw in the series"):
        roofline(A100, {"nothing": []})
    assert plt.get_fignums() == []
