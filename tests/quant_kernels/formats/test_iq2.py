"""The 2-bit formats with a grid against ggml's bytes, the gguf package, blocks worked by hand, and theory."""

import numpy as np
import pytest
import torch

import quant_kernels as qk
from quant_kernels.formats.grid_quants import even_signs, pack_signs
from quant_kernels.formats.grids import grid
from quant_kernels.formats.iq2 import pack_scales, pack_words, unpack_scales, unpack_words

IQ2 = ["IQ2_XXS", "IQ2_XS", "IQ2_S"]


@pytest.mark.parametrize("qtype, least_kinds", [("IQ2_XXS", 29), ("IQ2_XS", 29), ("IQ2_S", 29)])
def test_bytes_equal_ggml(qtype, least_kinds, check):
    check.golden_bytes(qtype, least_kinds)


@pytest.mark.parametrize("qtype", IQ2)
def test_dequantize_equals_gguf(qtype, check):
    size = qk.QTYPES[qtype].type_size
    data = np.random.default_rng(1).integers(0, 256, (50, 5 * size), dtype=np.uint8)
    data.reshape(-1, size)[:, 1] &= 0xBF  # fp16 scales without the top bit of the exponent are finite
    check.dequantize_as_gguf(data, qtype)


@pytest.mark.parametrize("qtype, share", [("IQ2_XXS", 0.98), ("IQ2_XS", 1), ("IQ2_S", 1)])
def test_weights_on_the_grid_come_back(qtype, share):
    """IQ2_XXS tries scales around one of its own making, which need not be on the grid."""
    layout, points = qk.QTYPES[qtype], grid(qtype).points
    generator = torch.Generator().manual_seed(2)
    numbers = torch.randint(len(points), (20, 32), generator=generator)
    highest = (points == 2).any(1).nonzero()[:, 0]
    numbers[:, ::2] = highest[numbers[:, ::2] % len(highest)]  # every sub-block has the highest code
    signs = torch.randint(256, (20, 32), generator=generator)
    if layout.even_signs:
        signs = torch.tensor([s for s in range(256) if s.bit_count() % 2 == 0])[signs % 128]
    plus_minus = 1 - 2 * (signs[..., None] >> torch.arange(8) & 1)
    x = (2.0 * points[numbers] + 1) * plus_minus * 0.25
    data = qk.quantize(x.flatten(1), qtype, torch.ones(256))
    d, scales, found_numbers, found_signs = layout.unpack(data)
    assert torch.allclose(d, torch.tensor(0.25 / 31 * layout.fudge), rtol=1e-3)
    assert (scales == 15).float().mean() >= share
    assert (found_numbers.reshape(20, 32) == numbers).float().mean() >= share
    assert torch.equal(found_signs.reshape(20, 32).long(), signs & (0x7F if layout.even_signs else 0xFF))


@pytest.mark.parametrize("qtype", IQ2)
def test_zero_blocks(qtype):
    importance = torch.ones(256)
    data = qk.quantize(torch.zeros(256), qtype, importance)
    assert not data.any()
    tiny = qk.QTYPES[qtype].least * 0.99
    assert torch.equal(data, qk.quantize(torch.full((256,), -tiny), qtype, importance))


@pytest.mark.parametrize("qtype", ["IQ2_XXS", "IQ2_XS"])
def test_importance_is_needed(qtype):
    assert qk.QTYPES[qtype].needs_importance
    with pytest.raises(ValueError, match=f"{qtype} needs importance: "):
        qk.quantize(torch.zeros(256), qtype)
    assert not qk.QTYPES["IQ2_S"].needs_importance


@pytest.mark.parametrize("qtype", ["IQ2_XS", "IQ2_S"])
def test_where_ggml_ends_the_process_a_block_is_refused(qtype):
    x = torch.randn(2, 512, generator=torch.Generator().manual_seed(3))
    x[1, 256:] *= 1e37  # whose squares are Inf, and so are the errors of all neighbours
    with pytest.raises(ValueError, match=rf"{qtype} cannot hold .* at index \(1, \d+\): .* search for its points"):
        qk.quantize(x, qtype, torch.ones(512))
    x[1, 256:] /= 1e37
    qk.quantize(x, qtype, torch.ones(512))


def test_iq2_xxs_takes_weights_whose_squares_overflow_for_zero_or_refuses_them():
    x = torch.randn(256, generator=torch.Generator().manual_seed(3)) * 1e30
    assert not qk.quantize(x, "IQ2_XXS", torch.ones(256)).any(), "its first scale is Inf / Inf, and no trial better"
    with pytest.raises(ValueError, match="IQ2_XXS cannot hold"):
        qk.quantize(torch.full((256,), 1e30), "IQ2_XXS", torch.ones(256))


@pytest.mark.parametrize("qtype", IQ2)
def test_importance_moves_the_error_to_where_it_counts_less(qtype):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(16, 512, generator=generator)
    importance = torch.where(torch.rand(512, generator=generator) < 0.1, 100.0, 0.01)

    def weighted_error(importance):
        return float((x - qk.dequantize(qk.quantize(x, qtype, importance), qtype)).square().mul(weights).sum())

    weights = importance
    assert weighted_error(importance) < 0.9 * weighted_error(torch.ones(512))


# Signs and packing


def test_signs_by_hand():
    negative = torch.tensor([1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0], dtype=torch.bool)[:, None]
    assert pack_signs(negative).tolist() == [[0b10000001], [0b10]]


def test_an_odd_number_of_signs_costs_the_least_weight():
    x = torch.tensor([-3.0, 2, -2, 4, 5, -1.5, 7, 8])[:, None]
    weights = torch.ones(8, 1)
    magnitudes, signs = even_signs(x, weights)
    assert magnitudes[:, 0].tolist() == [3, 2, 2, 4, 5, -1.5, 7, 8]
    assert signs.item() == 0b101
    weights[1] = 0.1  # now it is a positive weight that is said to be negative
    magnitudes, signs = even_signs(x, weights)
    assert magnitudes[:, 0].tolist() == [3, -2, 2, 4, 5, 1.5, 7, 8]
    assert signs.item() == 0b100111
    assert even_signs(x.abs(), weights)[0].min() > 0


def test_the_first_of_equal_costs_gets_the_wrong_sign():
    x = torch.tensor([2.0, -1, 1, 1, 1, 1, 1, 1])[:, None].repeat(1, 3)
    weights = torch.ones(8, 3)
    weights[0, 1] = torch.nan  # no cost is less than NaN
    weights[1, 2] = torch.nan  # nor is NaN less than any
    magnitudes, signs = even_signs(x, weights)
    assert (magnitudes < 0).nonzero().tolist() == [[0, 1], [1, 0], [2, 2]]
    assert signs.tolist() == [[0b00, 0b11, 0b110]]


def test_words_by_hand():
    signs = torch.tensor([[1, 2, 3, 127] + [0] * 28], dtype=torch.int32)
    scales = torch.tensor([[15] + [0] * 7], dtype=torch.int32)
    word = 15 << 28 | 127 << 21 | 3 << 14 | 2 << 7 | 1
    assert pack_words(scales, signs).tolist() == [[*word.to_bytes(4, "little"), *[0] * 28]]
    again = unpack_words(pack_words(scales, signs).view(-1, 8, 4))
    assert torch.equal(again[0], scales) and torch.equal(again[1].flatten(1), signs)


def test_scales_come_back():
    scales = torch.arange(256, dtype=torch.int32).view(-1, 8) % 16
    assert pack_scales(scales)[0].tolist() == [0x10, 0x32, 0x54, 0x76]
    assert torch.equal(unpack_scales(pack_scales(scales)).int(), scales)


@pytest.mark.parametrize("qtype", ["IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"])
def test_a_block_need_not_start_where_longer_integers_can(qtype):
    data = qk.quantize(torch.randn(256, generator=torch.Generator().manual_seed(4)), qtype, torch.ones(256))
    moved = torch.cat([data.new_zeros(2), data])[2:]
    assert torch.equal(qk.dequantize(moved, qtype), qk.dequantize(data, qtype))
