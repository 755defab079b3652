"""The scales of scales, and the search that moves one code at a time."""

import torch

from quant_kernels.formats.k_search import (
    as_bytes,
    scale_codes,
    search_one_by_one,
    search_positive,
    signed_scale_codes,
)
from quant_kernels.formats.search import nearest_int


def test_infinity_and_nan_have_integers_too():
    x = torch.tensor([torch.inf, -torch.inf, torch.nan, -7.5, 2.5])
    assert nearest_int(x).tolist() == [-(2**22), -(2**22), 0, -8, 2]


def test_negative_codes_wrap_around():
    assert as_bytes(torch.tensor([-1.0, 0.0, 255.0, -(2.0**22)])).tolist() == [255, 0, 255, 0]


def test_scale_codes_by_hand():
    d, q = scale_codes(torch.tensor([[126.0, 63.0, 3.0, 0.0, -2.0]]), 63)
    assert d.tolist() == [[2.0]]
    assert q.tolist() == [[63, 32, 2, 0, 255]]  # 31.5 and 1.5 go to the even neighbour


def test_scales_of_zero_have_a_positive_scale():
    d, q = scale_codes(torch.tensor([[-0.0, 0.0], [-0.0, -1.0], [0.0, 1e-39]]), 15)
    assert d[:2].tolist() == [[0.0], [0.0]]
    assert not d.signbit().any()
    assert not q.any()  # 15 / 1e-39 is Inf


def test_signed_scale_codes_by_hand():
    d, q = signed_scale_codes(torch.tensor([[4.0, -4.0, 1.0, torch.nan], [-3.0, 0.0, 1.5, 3.0], [0.0, -0.0, 0, 0]]), 32)
    assert d.tolist() == [[-0.125], [0.09375], [0.0]]  # the first extreme gets code -32, its opposite has none
    assert q.tolist() == [[-32, 31, -8, 0], [-32, 0, 16, 31], [0, 0, 0, 0]]


def test_positive_scales_on_the_grid_are_found():
    q = torch.tensor([[15.0, 3, 0, 7, 9, 1, 2, 4], [15.0, 15, 15, 15, 15, 15, 15, 15], [0.0, 0, 0, 0, 0, 0, 0, 0]])
    d, codes = search_positive(q * 0.25, torch.ones(3, 8), 15)
    assert d.tolist() == [[0.25], [0.25], [0.0]]
    assert torch.equal(codes, q.to(torch.uint8))


def test_scales_that_do_not_count_do_not_matter():
    x = torch.tensor([[15.0, 3.0, 2.4, 6.0]])
    d, codes = search_positive(x, torch.tensor([[0.0, 0.0, 1.0, 0.0]]), 15)
    assert d.item() * codes[0, 2].item() == x[0, 2].item()


def test_codes_move_where_the_extreme_is_negative():
    x = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
    x[:, 0] = -x.abs().amax(-1) - 0.1

    def error(x, d, q):
        return (x * x * (x - d * (q - 4)).square()).sum(-1)

    plain = (x / x[:, :1] * -4).round().clamp(-4, 3)
    fit = (x**3 * plain).sum(-1, keepdim=True) / (x * x * plain * plain).sum(-1, keepdim=True)
    d, q = search_one_by_one(x.T, 4)
    searched = error(x, d[:, None], q.T)
    assert (searched <= error(x, fit, plain + 4) * 1.00001).all()
    assert searched.sum() < 0.95 * error(x, fit, plain + 4).sum()
    d, q = search_one_by_one(-x.T, 4)
    assert torch.equal(q.T, plain + 4)
    assert torch.allclose(d[:, None], -fit)
