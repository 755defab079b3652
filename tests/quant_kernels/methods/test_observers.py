"""Observers, against torch.ao's, numpy's percentiles and a search by brute force; and what static scales cannot do."""

import math

import numpy as np
import pytest
import torch
from torch.ao.quantization import MinMaxObserver, MovingAverageMinMaxObserver

from quant_kernels.measures.errors import mse, sqnr
from quant_kernels.methods.affine import fake_quantize, quantize_affine
from quant_kernels.methods.observers import Histogram, MeanSquaredError, MinMax, MovingAverage, Percentile

ALL = [MinMax, MovingAverage, Percentile, MeanSquaredError]


def batches(n=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 100, generator=random) * (i + 1) + 0.5 for i in range(n)]


def calibrated(observer, values):
    for batch in values:
        observer.observe(batch)
    return observer


@pytest.mark.parametrize(("ours", "theirs"), [(MinMax, MinMaxObserver), (MovingAverage, MovingAverageMinMaxObserver)])
def test_torch_finds_the_same_parameters(ours, theirs):
    theirs = theirs(dtype=torch.quint8)
    for batch in batches():
        theirs(batch)
    scale, zero_point = calibrated(ours(), batches()).parameters()
    torch.testing.assert_close((scale, zero_point), theirs.calculate_qparams(), rtol=1e-6, atol=0)


def test_min_max_of_one_batch_is_dynamic_quantization():
    x = batches(1)[0]
    for symmetric in (False, True):
        static = calibrated(MinMax(4, symmetric=symmetric), [x]).quantize(x)
        assert torch.equal(static.dequantize(), fake_quantize(x, 4, symmetric=symmetric))


@pytest.mark.parametrize("percent", [50, 99, 99.9, 100])
def test_percentile_against_numpy(percent):
    values = batches()
    ends = calibrated(observer := Percentile(percent=percent), values).range()
    for end, rank in zip(ends, [(100 - percent) / 2, (100 + percent) / 2], strict=True):
        one_less, one_more = np.clip([rank - 100 / 4000, rank + 100 / 4000], 0, 100)  # of 4000 values
        least, most = np.percentile(torch.cat(values).numpy(), [one_less, one_more])
        assert least - observer.reach / 1024 <= end <= most + observer.reach / 1024


def test_a_histogram_that_grows_counts_the_same():
    values = [torch.tensor([0.0, 0.3, -0.2]), torch.tensor([5.0, -7.0]), torch.tensor([100.0])]
    grown = calibrated(Histogram(), values)
    assert grown.counts.sum() == 6 and grown.reach == pytest.approx(0.3 * 2**9)
    at_once = Histogram()
    at_once.observe(torch.tensor([grown.reach]))
    at_once.observe(torch.cat(values))
    at_once.counts[-1] -= 1
    difference = grown.counts - at_once.counts
    assert difference.abs().sum() <= 2  # 0.3, the first reach, lies on an edge


def test_least_squares_clip_against_brute_force():
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    x[0] = 20.0
    observer = calibrated(MeanSquaredError(4, symmetric=True), [x])
    errors = {i / 100: mse(x, fake_quantize(x, 4, symmetric=True, clip=i / 100)) for i in range(1, 101)}
    ours = mse(x, observer.quantize(x).dequantize())
    assert ours <= min(errors.values()) * 1.01 and ours < errors[1.0] / 4
    # For N(0, 1) and 4 bits the best range is known to be about 2.7 standard deviations (Banner et al.,
    # arXiv 1810.05723, has 2.55 for its own grid of 2^4 steps); one outlier does not move it.
    assert 2.3 < observer.range()[1] < 2.9


def test_one_outlier_spoils_min_max_but_not_the_others():
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    with_outlier = torch.cat([x, torch.tensor([200.0])])
    quality = {observer: sqnr(x, calibrated(observer(), [with_outlier]).quantize(x).dequantize()) for observer in ALL}
    assert quality[MinMax] < 15 and quality[Percentile] > 28


def test_a_static_scale_does_not_follow_a_drift():
    x = torch.randn(5_000, generator=torch.Generator().manual_seed(1))
    for observer in ALL:
        observer = calibrated(observer(), [x])
        still, drifted = sqnr(x, observer.quantize(x).dequantize()), sqnr(4 * x, observer.quantize(4 * x).dequantize())
        dynamic = sqnr(4 * x, fake_quantize(4 * x))
        assert still > 28 and drifted < 15 and dynamic > 35
        assert observer.quantize(4 * x).dequantize().abs().max() < 1.1 * x.abs().max()  # clipped


def test_parameters_follow_the_next_batch():
    observer = calibrated(MinMax(), [torch.ones(3)])
    before = observer.parameters()[0].item()
    observer.observe(2 * torch.ones(3))
    assert observer.parameters()[0].item() == pytest.approx(2 * before)


@pytest.mark.parametrize("observer", ALL)
def test_awkward_batches(observer):
    for values in ([0.0, 0.0], [3.0, 3.0], [-3.0], [1e-42], [1.7e38, -1.7e38]):
        x = torch.tensor(values)
        restored = calibrated(observer(), [x, x]).quantize(x).dequantize()
        torch.testing.assert_close(restored, x, rtol=0.01, atol=1e-41)
    grown = calibrated(observer(), [torch.tensor([1e-30]), torch.tensor([1e30])])
    assert grown.parameters()[0].isfinite()


@pytest.mark.parametrize("observer", ALL)
def test_refused(observer):
    with pytest.raises(ValueError, match=f"{observer.__name__} is not calibrated: it has seen no batch"):
        observer().quantize(torch.ones(2))
    with pytest.raises(ValueError, match="magnitude in x is nan"):
        observer().observe(torch.tensor([math.nan]))
    with pytest.raises(ValueError, match="is empty"):
        observer().observe(torch.ones(0, 3))
    with pytest.raises(ValueError, match="magnitude in x is inf"):
        calibrated(observer(), [torch.ones(2)]).quantize(torch.tensor([math.inf]))
    with pytest.raises(ValueError, match="bits is 9"):
        calibrated(observer(9), [torch.ones(2)]).parameters()


def test_options_out_of_range():
    with pytest.raises(ValueError, match="percent is 0, not above 0 and at most 100"):
        Percentile(percent=0)
    with pytest.raises(ValueError, match=r"rate is 1\.5, not above 0 and at most 1"):
        MovingAverage(rate=1.5)


def test_dynamic_scales_per_token_fit_each_token():
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.01], [1], [10], [100]])
    rows = quantize_affine(x, 8, per="row").dequantize()
    whole = quantize_affine(x, 8).dequantize()
    assert min(sqnr(a, b) for a, b in zip(x, rows, strict=True)) > 35
    assert sqnr(x[0], whole[0]) < 1 and sqnr(x, whole) > 35  # the whole looks well, the small token is lost
