"""Error measures, against torch's own functions and cases worked by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from quant_kernels.measures.errors import cosine, max_error, mse, relative_rmse, sqnr

MEASURES = [mse, relative_rmse, sqnr, cosine, max_error]


def test_against_torch():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(5, 7, generator=random)
    y = x + 0.1 * torch.randn(5, 7, generator=random)
    assert mse(x, y) == pytest.approx(F.mse_loss(x, y).item())
    assert cosine(x, y) == pytest.approx(F.cosine_similarity(x.flatten(), y.flatten(), dim=0).item())
    assert max_error(x, y) == pytest.approx(torch.dist(x, y, p=math.inf).item())
    assert relative_rmse(x, y) == pytest.approx((torch.dist(x, y) / x.norm()).item())
    assert sqnr(x, y) == pytest.approx(10 * math.log10(x.square().mean() / mse(x, y)))


def test_ten_times_the_noise_is_20_decibels_less():
    x, noise = torch.ones(100), torch.linspace(-1, 1, 100)
    assert sqnr(x, x + 0.01 * noise) - sqnr(x, x + 0.1 * noise) == pytest.approx(20, abs=1e-5)


def test_cosine_does_not_see_scale():
    x = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert cosine(x, 3 * x) == pytest.approx(1) and cosine(x, -x) == pytest.approx(-1)
    assert relative_rmse(x, 3 * x) == pytest.approx(2)


def test_no_signal():
    zeros, ones = torch.zeros(4), torch.ones(4)
    assert [measure(zeros, zeros) for measure in MEASURES] == [0, 0, math.inf, 1, 0]
    assert [measure(zeros, ones) for measure in MEASURES] == [1, math.inf, -math.inf, 0, 1]
    assert [measure(ones, ones) for measure in MEASURES] == [0, 0, math.inf, 1, 0]


def test_small_and_large_values_do_not_vanish_or_overflow():
    for size in (1e-30, 1e30):
        x = torch.tensor([size, -size])
        assert relative_rmse(x, 1.5 * x) == pytest.approx(0.5) and cosine(x, 2 * x) == pytest.approx(1)


@pytest.mark.parametrize("measure", MEASURES)
def test_refused(measure):
    x = torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"shapes differ: \(2, 3\) and \(3, 2\)"):
        measure(x, x.T)
    with pytest.raises(ValueError, match=r"shape \(0, 3\) have no error: they are empty"):
        measure(x[:0], x[:0])
    with pytest.raises(ValueError, match="the approximation has 6 values that are not finite"):
        measure(x, x * math.nan)
    with pytest.raises(ValueError, match="the reference has 6 values that are not finite"):
        measure(x * math.inf, x)
