"""The formats of one and two bits against ggml's bytes, and blocks worked by hand."""

import pytest
import torch

import quant_kernels as qk
from quant_kernels.formats.low_bits import pack_neighbours, unpack_neighbours

LOW_BITS = ["Q1_0", "Q2_0"]


@pytest.mark.parametrize("qtype", LOW_BITS)
def test_bytes_equal_ggml(qtype, check):
    check.golden_bytes(qtype, least_kinds=28)


@pytest.mark.parametrize("qtype, block_size, bits", [("Q1_0", 128, 1.125), ("Q2_0", 64, 2.25)])
def test_sizes(qtype, block_size, bits):
    layout = qk.QTYPES[qtype]
    assert (layout.block_size, layout.type_size, layout.bits_per_weight) == (block_size, 18, bits)


def test_q1_0_by_hand():
    x = torch.full((128,), -1.0)
    x[[0, 9, 127]] = torch.tensor([3.0, 0.0, 0.0])
    x[10] = -0.0
    # the magnitudes are 3, three times 0, and 124 times 1, with mean 127 / 128, in fp16 0x3bf0
    data = qk.quantize(x, "Q1_0")
    assert data.tolist() == [0xF0, 0x3B, 0b0000_0001, 0b0000_0110, *[0] * 13, 0b1000_0000]
    expected = torch.full((128,), -0.9921875)
    expected[[0, 9, 10, 127]] = 0.9921875
    assert torch.equal(qk.dequantize(data, "Q1_0"), expected)


def test_q2_0_by_hand():
    x = torch.zeros(64)
    x[[0, 1, 2, 5, 63]] = torch.tensor([-4.0, 4.0, 2.0, -1.99, -2.0])
    # d = 4 is 0x4400. Half the scale rounds away from zero; codes from the lowest bits up are 0 2 2 1, 1 1 1 1, 1 1 1 0
    data = qk.quantize(x, "Q2_0")
    assert data.tolist() == [0x00, 0x44, 0b01_10_10_00, *[0b01_01_01_01] * 14, 0b00_01_01_01]
    expected = torch.zeros(64)
    expected[[0, 1, 2, 63]] = torch.tensor([-4.0, 4.0, 4.0, -4.0])
    assert torch.equal(qk.dequantize(data, "Q2_0"), expected)


def test_q2_0_reads_a_code_that_it_never_writes():
    data = torch.tensor([0x00, 0x3C, 0b11_10_01_00, *[0] * 15], dtype=torch.uint8)
    assert qk.dequantize(data, "Q2_0")[:4].tolist() == [-1.0, 0.0, 1.0, 2.0]


def test_every_byte_of_two_bit_codes_comes_back():
    data = torch.arange(256, dtype=torch.uint8).view(16, 16)
    codes = unpack_neighbours(data)
    assert codes.shape == (16, 64)
    assert codes[1, 44:48].tolist() == [3, 2, 1, 0], "27 is 0b00_01_10_11, the first code in the lowest bits"
    assert torch.equal(pack_neighbours(codes), data)


def test_q2_0_the_smallest_weights():
    zero, tiny = qk.quantize(torch.zeros(64), "Q2_0"), qk.quantize(torch.full((64,), 2.0**-128), "Q2_0")
    assert zero.tolist() == [0, 0, *[0b01_01_01_01] * 16]
    assert not tiny.any(), "1 / 2**-128 is infinite"
    assert qk.quantize(torch.full((64,), 2.0**-127), "Q2_0").tolist() == [0, 0, *[0b10_10_10_10] * 16]


@pytest.mark.parametrize("qtype", LOW_BITS)
def test_a_scale_beyond_fp16_is_refused(qtype):
    x = torch.full((256,), -65504.0)
    assert torch.equal(qk.dequantize(qk.quantize(x, qtype), qtype), x)
    with pytest.raises(ValueError, match=rf"{qtype} cannot hold -65520.0 at index \(0,\): .* fp16"):
        qk.quantize(torch.full((256,), -65520.0), qtype)


@pytest.mark.parametrize("qtype", LOW_BITS)
def test_importance_is_ignored(qtype):
    x = torch.randn(2, 512, generator=torch.Generator().manual_seed(3))
    assert torch.equal(qk.quantize(x, qtype, torch.rand(512)), qk.quantize(x, qtype))
