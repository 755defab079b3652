"""HQQ against round-to-nearest on the same scales, and its two problems one by one."""

import pytest
import torch

from quant_kernels.measures.errors import mse
from quant_kernels.methods.affine import quantize_affine
from quant_kernels.methods.hqq import hqq, shrink

DISTRIBUTIONS = {
    "normal": torch.distributions.Normal(0.0, 1.0),
    "Laplace": torch.distributions.Laplace(0.0, 1.0),
    "t(3)": torch.distributions.StudentT(3.0),
}


def sample(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DISTRIBUTIONS[name].sample((128, 512))


def lp(error, p=0.7):
    return error.abs().pow(p).unflatten(-1, (-1, 64)).mean(-1)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_beats_nearest_on_the_same_scales(name, bits):
    w = sample(name)
    plain, q = quantize_affine(w, bits, per=64, exact_zero=False), hqq(w, bits)
    assert torch.equal(q.affine.scale, plain.scale)
    before, after = lp(w - plain.dequantize()), lp(w - q.dequantize())
    assert (after <= before * (1 + 1e-5)).all()  # in each group
    assert after.mean() < 0.97 * before.mean()
    assert mse(w, q.dequantize()) < 0.95 * mse(w, plain.dequantize())  # what was not asked for


def test_with_heavy_tails_and_few_bits_there_is_more_to_gain():
    gains = {}
    for name in DISTRIBUTIONS:
        w = sample(name)
        plain = quantize_affine(w, 2, per=64, exact_zero=False)
        gains[name] = (lp(w - hqq(w, 2).dequantize()).mean() / lp(w - plain.dequantize()).mean()).item()
    assert gains["t(3)"] < gains["Laplace"] < gains["normal"]
    assert gains["t(3)"] < 0.88


def test_the_error_falls_with_the_steps():
    errors = hqq(sample("Laplace"), 3).errors
    assert errors.shape == (21,)
    assert (errors[1:6] < errors[:5]).all() and errors[-1] < 0.98 * errors[0]


def test_the_same_in_any_unit():
    w = sample("Laplace")[:8]
    codes = hqq(w, 3).affine.codes
    for factor in (2.0**-20, 2.0**20):
        assert torch.equal(hqq(w * factor, 3).affine.codes, codes)


@pytest.mark.parametrize(("p", "near"), [(0.5, 0.02), (0.7, 0.01), (1.0, 1e-6)])
def test_shrinking_is_the_best_choice_for_large_errors_and_a_good_one_for_all(p, near):
    error, choices = torch.linspace(-1, 1, 41), torch.linspace(-1, 1, 4001)[:, None]

    def price(e):
        return e.abs().pow(p) / p + 10.0 / 2 * (error - e).square()

    chosen, best = shrink(error, p, 10.0), choices[price(choices).argmin(0), 0]
    large = error.abs() > (0.6 if p < 1 else 0)
    torch.testing.assert_close(chosen[large], best[large], rtol=0, atol=near)
    assert (price(chosen) <= price(error) + 1e-6).all()


def test_zeros_and_constants_are_kept():
    for value in (0.0, 0.3, -1e-30, 1e30):
        w = torch.full((2, 64), value)
        torch.testing.assert_close(hqq(w, 2).dequantize(), w)


def test_other_input_is_refused():
    w = torch.ones(2, 64)
    for options, message in (
        ({"p": 0.0}, "p is 0.0"),
        ({"p": 1.5}, "p is 1.5"),
        ({"strength": 0.0}, "strength is 0.0"),
        ({"steps": 0}, "steps is 0"),
        ({"bits": 1}, "bits is 1"),
        ({"group": 48}, "last dimension 64 is not a multiple of the group size 48"),
    ):
        with pytest.raises(ValueError, match=message):
            hqq(w, **options)
    for bad in (w * float("nan"), w * float("inf"), torch.ones(0, 64)):
        with pytest.raises(ValueError, match=r"nan|inf|empty"):
            hqq(bad)
