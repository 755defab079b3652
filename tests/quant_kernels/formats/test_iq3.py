"""The 3-bit formats with a grid against ggml's bytes, the gguf package, blocks worked by hand, and theory."""

import numpy as np
import pytest
import torch

import quant_kernels as qk
from quant_kernels.formats.grids import grid

IQ3 = ["IQ3_XXS", "IQ3_S"]


@pytest.mark.parametrize("qtype", IQ3)
def test_bytes_equal_ggml(qtype, check):
    check.golden_bytes(qtype, least_kinds=29)


@pytest.mark.parametrize("qtype", IQ3)
def test_dequantize_equals_gguf(qtype, check):
    size = qk.QTYPES[qtype].type_size
    data = np.random.default_rng(1).integers(0, 256, (50, 5 * size), dtype=np.uint8)
    data.reshape(-1, size)[:, 1] &= 0xBF  # fp16 scales without the top bit of the exponent are finite
    check.dequantize_as_gguf(data, qtype)


def on_the_grid(layout):
    """Numbers of points and bytes of signs, (20, 64) and (20, 32), and the weights they stand for, (20, 256)."""
    points = grid(layout.name).points
    generator = torch.Generator().manual_seed(2)
    numbers = torch.randint(len(points), (20, 64), generator=generator)
    highest = (points == 7).any(1).nonzero()[:, 0]
    numbers[:, ::8] = highest[numbers[:, ::8] % len(highest)]  # every sub-block has the highest code
    signs = torch.randint(256, (20, 32), generator=generator)
    if layout.even_signs:
        signs = torch.tensor([s for s in range(256) if s.bit_count() % 2 == 0])[signs % 128]
    plus_minus = 1 - 2 * (signs[..., None] >> torch.arange(8) & 1)
    return numbers, signs, (2.0 * points[numbers] + 1).flatten(1) * plus_minus.flatten(1) * 0.25


@pytest.mark.parametrize("importance", [None, torch.ones(256)])
@pytest.mark.parametrize("qtype", IQ3)
def test_weights_on_the_grid_come_back(qtype, importance):
    layout = qk.QTYPES[qtype]
    numbers, signs, x = on_the_grid(layout)
    d, scales, found_numbers, found_signs = layout.unpack(qk.quantize(x, qtype, importance))
    assert torch.allclose(d, torch.tensor(0.25 / 31 * layout.fudge), rtol=1e-3)
    assert (scales == 15).all()
    assert torch.equal(found_numbers.reshape(20, 64).long(), numbers)
    assert torch.equal(found_signs.reshape(20, 32).long(), signs & (0x7F if layout.even_signs else 0xFF))


def test_a_sub_block_of_zeros_moves_the_ones_after_it():
    layout = qk.QTYPES["IQ3_S"]
    numbers, signs, x = on_the_grid(layout)
    x.view(20, 8, 32)[:, [2, 5]] = 0
    _, scales, found_numbers, found_signs = layout.unpack(qk.quantize(x, "IQ3_S"))
    assert scales[0].tolist() == [15, 15, 0, 15, 15, 0, 15, 15]
    places = [0, 1, 3, 4, 6, 7]  # of the sub-blocks that are left; ggml stores them in the first six places
    kept = numbers.view(20, 8, 8)[:, places].flatten(1) & 0xFF
    assert torch.equal(found_numbers[:, :48].long() & 0xFF, kept)
    assert torch.equal(found_signs[:, :24].long(), signs.view(20, 8, 4)[:, places].flatten(1))
    ninth = (numbers >> 8).view(20, 8, 8)
    ninth[:, [2, 5]] = 0
    assert torch.equal(found_numbers.long() >> 8, ninth.flatten(1)), "the ninth bits stay where they are"


@pytest.mark.parametrize("qtype", IQ3)
def test_zero_blocks(qtype):
    data = qk.quantize(torch.zeros(256), qtype)
    assert not data.any()
    assert torch.equal(data, qk.quantize(torch.full((256,), -0.0), qtype))


def test_iq3_xxs_takes_tiny_weights_for_zero():
    assert not qk.quantize(torch.full((256,), 9e-9), "IQ3_XXS").any()
    assert qk.quantize(torch.full((256,), 1.1e-8), "IQ3_XXS")[2:].any()
    assert qk.quantize(torch.full((256,), 1e-9), "IQ3_S")[2:].any()


@pytest.mark.parametrize("qtype", IQ3)
def test_where_ggml_ends_the_process_a_block_is_refused(qtype):
    x = torch.randn(2, 512, generator=torch.Generator().manual_seed(3))
    assert not qk.QTYPES[qtype].needs_importance
    qk.quantize(x, qtype)
    x[1, 256:] *= 1e37  # whose squares are Inf, and so are the errors of all neighbours
    with pytest.raises(ValueError, match=rf"{qtype} cannot hold .* at index \(1, \d+\): .* search for its points"):
        qk.quantize(x, qtype)


@pytest.mark.parametrize("qtype", IQ3)
def test_importance_moves_the_error_to_where_it_counts_less(qtype):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(16, 512, generator=generator)
    weights = torch.where(torch.rand(512, generator=generator) < 0.1, 100.0, 0.01)

    def weighted_error(importance):
        return float((x - qk.dequantize(qk.quantize(x, qtype, importance), qtype)).square().mul(weights).sum())

    assert weighted_error(weights) < 0.9 * weighted_error(torch.ones(512))
