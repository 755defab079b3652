"""k-means against Max's table, an exact solver and uniform steps."""

import itertools

import pytest
import torch

from quant_kernels.measures.errors import mse
from quant_kernels.methods.affine import fake_quantize
from quant_kernels.methods.palettization import palettize

# The least mean squared error of 2**bits levels for N(0, 1): J. Max, Quantizing for Minimum Distortion, 1960, Table I
MAX_1960 = {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497, 5: 0.002499}


@pytest.fixture(scope="module")
def normal():
    return torch.randn(512, 1024, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bits", MAX_1960)
def test_error_on_normal_weights_is_that_of_the_best_levels(normal, bits):
    q = palettize(normal, bits)
    assert mse(normal, q.dequantize()) == pytest.approx(MAX_1960[bits], rel=0.01)
    assert q.lut.shape == (1, 2**bits)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_uniform_steps_are_worse(normal, bits):
    w = normal[:64]
    assert mse(w, palettize(w, bits, rows=1).dequantize()) < 0.7 * mse(w, fake_quantize(w, bits, per="row"))


def heavy_tails():
    torch.manual_seed(0)
    return torch.distributions.StudentT(3.0).sample((4, 4096))


@pytest.mark.parametrize("bits", range(1, 9))
def test_no_step_raises_the_error(bits):
    w = heavy_tails()
    q = palettize(w, bits, rows=1)
    assert q.errors.shape[1] > 1 and (q.errors.diff(dim=1) <= 1e-12 * q.errors[:, :-1]).all()
    assert (q.lut.diff(dim=1) >= 0).all()
    measured = (w - q.dequantize()).square().mean(1).double()
    torch.testing.assert_close(measured, q.errors[:, -1], rtol=1e-4, atol=1e-12)


def least_error(values, k):
    """The error of the best k levels, by trying every way to cut the sorted values into k runs."""
    values = sorted(values)
    n = len(values)

    def spread(start, stop):
        mean = sum(values[start:stop]) / (stop - start)
        return sum((value - mean) ** 2 for value in values[start:stop])

    ways = itertools.combinations(range(1, n), k - 1)
    return min(sum(itertools.starmap(spread, itertools.pairwise((0, *cuts, n)))) for cuts in ways) / n


def test_near_the_least_error_there_is():
    ratios = []
    for seed in range(20):
        values = torch.randn(14, generator=torch.Generator().manual_seed(seed)).exp()
        least = least_error(values.tolist(), 4)
        ratios.append(mse(values, palettize(values, 2).dequantize()) / least)
    assert min(ratios) > 1 - 1e-5
    assert sorted(ratios)[10] < 1.01 and max(ratios) < 3  # a least error among neighbours, mostly the least of all


def test_each_weight_gets_its_nearest_value():
    w = heavy_tails()
    q = palettize(w, 4, rows=2)
    distance = (w.view(2, -1, 1) - q.lut[:, None]).abs()
    torch.testing.assert_close((w - q.dequantize()).abs().view(2, -1), distance.amin(-1))


def test_a_list_per_group_of_rows_follows_its_rows():
    w = torch.randn(8, 256, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 2, 8)[:, None]
    per_row = palettize(w, 4, rows=1)
    assert per_row.lut.shape == (8, 16)
    assert per_row.bits_per_weight == 4 + 16 * 16 / 256
    row = palettize(w[3], 4)
    assert torch.equal(per_row.dequantize()[3], row.dequantize())
    assert torch.equal(palettize(w.T, 4, rows=256).dequantize(), palettize(w, 4).dequantize().T)
    alone, together = ((w - q.dequantize())[0].square().mean() for q in (per_row, palettize(w, 4)))
    assert alone < together / 1000


@pytest.mark.parametrize(
    "w",
    [
        torch.zeros(4, 4),
        torch.tensor([3.0]),
        torch.full((5,), 1e38),
        torch.tensor([-1e38, 1e38, 0.0]),
        torch.tensor([1e-42, 2e-42]),
        torch.tensor([1e6, 1e6 + 1, 1e6 + 2, 1e6 + 3]),
    ],
)
def test_few_different_values_are_kept(w):
    assert torch.equal(palettize(w, 2).dequantize(), w)


def test_other_input_is_refused():
    for bits in (0, 9, 2.5):
        with pytest.raises(ValueError, match="bits is"):
            palettize(torch.ones(4), bits)
    for rows in (0, 3, -1):
        with pytest.raises(ValueError, match=f"groups of {rows} rows"):
            palettize(torch.ones(4, 2), rows=rows)
    with pytest.raises(ValueError, match="groups of 1 rows"):
        palettize(torch.ones(4), rows=1)
    with pytest.raises(ValueError, match="iterations is 0"):
        palettize(torch.ones(4), iterations=0)
    for bad in (torch.tensor([float("nan")]), torch.tensor([float("inf")]), torch.ones(0)):
        with pytest.raises(ValueError, match=r"nan|inf|empty"):
            palettize(bad)
    with pytest.raises(TypeError, match="int64"):
        palettize(torch.ones(4, dtype=torch.int64))
