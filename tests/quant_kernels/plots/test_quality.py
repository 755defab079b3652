"""Error against bits, perplexity against size: what is drawn where, and that every name can be read."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.container import ErrorbarContainer

from quant_kernels import QTYPES
from quant_kernels.plots import error_against_bits, pareto_front, perplexity_against_size
from quant_kernels.plots.style import COLOURS

GIB = 2**30

# Llama-3-8B on WikiText-2, n_ctx 512, from llama.cpp's tools/perplexity/README: GiB, bits per weight, perplexity.
LLAMA_3_8B = {
    "F16": (14.97, 16.0, 6.2332),
    "Q8_0": (7.96, 8.5, 6.2343),
    "Q6_K": (6.14, 6.56, 6.2534),
    "Q5_K_M": (5.33, 5.7, 6.2886),
    "Q5_K_S": (5.21, 5.57, 6.3366),
    "Q5_1": (5.65, 6.04, 6.3379),
    "Q5_0": (5.21, 5.57, 6.3632),
    "Q4_K_M": (4.58, 4.89, 6.4071),
    "Q4_K_S": (4.37, 4.67, 6.5005),
    "IQ4_NL": (4.35, 4.65, 6.4556),
    "IQ4_XS": (4.14, 4.46, 6.4597),
    "Q4_1": (4.78, 5.1, 6.6827),
    "Q4_0": (4.34, 4.64, 6.7001),
    "Q3_K_L": (4.03, 4.3, 6.7879),
    "Q3_K_M": (3.74, 4.0, 6.8885),
    "IQ3_M": (3.53, 3.76, 6.8983),
    "Q3_K_S": (3.41, 3.64, 7.8638),
    "IQ3_XXS": (3.05, 3.37, 7.4584),
    "Q2_K": (2.96, 3.16, 9.7516),
    "IQ2_M": (2.74, 2.93, 8.6008),
    "IQ2_XXS": (2.24, 2.38, 14.0918),
    "IQ1_S": (1.88, 2.0, 60.69),
}


def mixes(**more):
    return [
        {"name": name, "bytes": size * GIB, "bits_per_weight": bits, "perplexity": perplexity, "standard_error": 0.04}
        | more
        for name, (size, bits, perplexity) in LLAMA_3_8B.items()
    ]


def formats():
    """All formats, with errors near the bound."""
    return [
        {"name": name, "bits_per_weight": q.bits_per_weight, "error": 1.3 * 2**-q.bits_per_weight, "family": q.family}
        for name, q in QTYPES.items()
    ]


def markers(ax):
    """The points of each series, by its label."""
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in ax.lines}


def test_error_against_bits(labels, dressed):
    ax = error_against_bits(formats())
    dressed(ax, "bits per weight", "relative RMSE (%)", "Error of 25 formats")
    labels(ax, QTYPES)
    drawn = markers(ax)
    assert list(drawn) == ["legacy", "K", "I", "ternary", "float", "least for normal weights"]
    assert (4.5, pytest.approx(130 * 2**-4.5)) in drawn["K"]
    assert sum(len(points) for name, points in drawn.items() if not name.startswith("least")) == len(QTYPES)
    assert {line.get_marker() for line in ax.lines[:5]} == {"o", "s", "^", "D", "v"}
    assert ax.get_yscale() == "log"


def test_no_line_lies_under_the_rate_distortion_bound():
    x, y = error_against_bits(formats()).lines[-1].get_data()
    assert np.allclose(20 * np.log10(y / 100), -6.0206 * x)  # 6.02 dB a bit


def test_one_family_needs_no_name():
    rows = [{"name": "a", "bits_per_weight": 4, "error": 0.1}, {"name": "b", "bits_per_weight": 5, "error": 0.05}]
    ax = error_against_bits(rows, title="Mine")
    assert ax.get_title(loc="left") == "Mine"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["least for normal weights"]


def test_perplexity_against_size(labels, dressed):
    ax = perplexity_against_size(mixes())
    dressed(ax, "size of the file (GB)", "perplexity", "Perplexity of 21 mixes")
    beyond = {"IQ1_S": "IQ1_S 60.7", "IQ2_XXS": "IQ2_XXS 14.1"}
    labels(ax, [beyond.get(name, name) for name in LLAMA_3_8B if name != "F16"])
    bars = {bar.get_label(): bar for bar in ax.containers if isinstance(bar, ErrorbarContainer)}
    sizes = {label: len(bar.lines[0].get_xdata()) for label, bar in bars.items()}
    assert sizes == {"none smaller is as good": 12, "one smaller is as good": 7, "beyond the picture": 2}
    assert bars["beyond the picture"].lines[0].get_ydata() == pytest.approx(1.6 * 6.2332)
    half = {
        round(float(np.ptp(path[:, 1]) / 2), 6) for path in bars["one smaller is as good"].lines[2][0].get_segments()
    }
    assert half == {0.04}
    assert "F16 6.233, 16.1 GB" in markers(ax)
    (top,) = ax.child_axes
    assert top.get_xlabel() == "bits per weight"


def test_the_stairs_go_through_the_front():
    ax = perplexity_against_size(mixes())
    stairs = next(line for line in ax.lines if len(line.get_xdata()) > 2 and line.get_color() == COLOURS[0])
    x, y = stairs.get_data()
    assert (np.diff(x) >= 0).all() and (np.diff(y) <= 0).all()
    assert ((np.diff(x) == 0) | (np.diff(y) == 0)).all()
    assert (x[-1], y[-1]) == (7.96 * GIB / 1e9, 6.2343)


def test_small_models_are_counted_in_megabytes_and_may_lack_errors_and_bits():
    rows = [{"name": "F16", "bytes": 15.9e6, "perplexity": 20.0}, {"name": "Q8_0", "bytes": 8.4e6, "perplexity": 20.1}]
    ax = perplexity_against_size(rows)
    assert ax.get_xlabel() == "size of the file (MB)" and not ax.child_axes
    ax.figure.draw_without_rendering()


def test_axes_of_ones_own_keep_their_neighbours():
    figure, (left, right) = plt.subplots(1, 2)
    assert perplexity_against_size(mixes(), left) is left
    assert error_against_bits(formats(), right) is right
    assert plt.get_fignums() == [figure.number]


def test_pareto_front():
    assert pareto_front([]) == []
    assert pareto_front([(1, 1), (1, 1), (2, 0.5), (3, 0.5), (1, 2)]) == [0, 2]
    points = [tuple(point) for point in np.random.RandomState(0).rand(50, 2)]
    beaten = {i for i, (x, y) in enumerate(points) for a, b in points if a <= x and b <= y and (a, b) != (x, y)}
    assert set(pareto_front(points)) == set(range(50)) - beaten


def test_what_is_refused():
    with pytest.raises(ValueError, match="there are no rows to draw"):
        error_against_bits([])
    with pytest.raises(ValueError, match="there are no rows to draw"):
        perplexity_against_size([])
    with pytest.raises(ValueError, match="the rows need one named 'BF16', the base, and others beside it"):
        perplexity_against_size(mixes(), base="BF16")
    with pytest.raises(ValueError, match="the rows need one named 'F16', the base, and others beside it"):
        perplexity_against_size(mixes()[:1])
    with pytest.raises(ValueError, match="perplexity of F16 is nan, not a number above 0"):
        perplexity_against_size(mixes(perplexity=float("nan")))
    assert plt.get_fignums() == []
