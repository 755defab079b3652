"""The ternary I-quants against ggml's bytes, the gguf package, blocks worked by hand, and weights on their grid."""

import numpy as np
import pytest
import torch

import quant_kernels as qk
from quant_kernels.formats.grids import grid
from quant_kernels.formats.iq1 import pack_words, unpack_words

IQ1 = ["IQ1_S", "IQ1_M"]
ONES = torch.ones(256)


@pytest.mark.parametrize("qtype", IQ1)
def test_bytes_equal_ggml(qtype, check):
    check.golden_bytes(qtype, least_kinds=28)


@pytest.mark.parametrize("qtype", IQ1)
def test_dequantize_equals_gguf(qtype, check):
    layout = qk.QTYPES[qtype]
    data = np.random.default_rng(1).integers(0, 256, (50, 5 * layout.type_size), dtype=np.uint8)
    finite = layout.finite_scales(torch.from_numpy(data).view(-1, layout.type_size))
    data.reshape(-1, layout.type_size)[~finite.numpy()] = 0
    check.dequantize_as_gguf(data, qtype)
    x = torch.randn(20, 512, generator=torch.Generator().manual_seed(2))
    check.dequantize_as_gguf(qk.quantize(x, qtype, torch.ones(512)).numpy(), qtype)


def test_iq1_s_by_hand():
    # eight times the codes -1 0 1 0 0 0 0 0 with the shift -1/8; the scale of sub-block 1 is a fifth
    codes = torch.tensor([-1.0, 0, 1, 0, 0, 0, 0, 0])
    x = (codes - 0.125).repeat(32)
    x[32:64] /= 5
    number = int(grid("IQ1_S").index[0b01_01_01_01_01_10_01_00])
    assert number == 1036  # 4 * 256 + 12
    data = qk.quantize(x, "IQ1_S", ONES)
    # the largest scale is 15 * d, and d is stored as 1.125 times that: 0.075 is 0x2ccd; steps of 15 and 3 are 7 and 1
    first, second = 0b1_111_100_100_100_100, 0b1_001_100_100_100_100
    assert data[:34].tolist() == [0xCD, 0x2C, *[12] * 32]
    assert data[34:].view(torch.int16).tolist() == [word - 65536 for word in (first, second, *[first] * 6)]


def test_iq1_m_by_hand():
    # the first half of each sub-block has shift 1/8, the second -1/8
    codes = torch.tensor([-1.0, 0, 1, 0, 0, 0, 0, 0])
    x = torch.cat([codes + 0.125, codes - 0.125]).repeat(16)
    x[16:32] /= 5
    data = qk.quantize(x, "IQ1_M")
    assert data[:48].tolist() == [12] * 32 + [0b1_100_0_100] * 16
    # d = 1 / 15 * 1.1125 is 0x2cbf: its lowest four bits stand above the first four scales
    words = (0xF_000 | 0b111_111_001_111, 0xB_000 | 0o7777, 0xC_000 | 0o7777, 0x2_000 | 0o7777)
    assert data[48:].view(torch.int16).bitwise_and(0xFFFF).tolist() == [word - 65536 * (word >> 15) for word in words]


@pytest.mark.parametrize("qtype, scales", [("IQ1_S", slice(0, 2)), ("IQ1_M", slice(48, 56))])
def test_weights_on_the_grid_keep_their_points(qtype, scales):
    generator = torch.Generator().manual_seed(4)
    layout = qk.QTYPES[qtype]
    data = torch.randint(0, 256, (50, layout.type_size), generator=generator, dtype=torch.uint8)
    if qtype == "IQ1_S":
        data[:, 1] = 0x2C
        data[:, 35] |= 0x70  # the largest step
    else:
        data[:, 48] |= 0x07
        data[:, 55] = data[:, 55] & 0x0F | 0x20
    again = qk.quantize(qk.dequantize(data, qtype), qtype, ONES)
    before, after = data.clone(), again.clone()
    if qtype == "IQ1_M":
        before[:, 49::2] &= 0x0F
        after[:, 49::2] &= 0x0F
    else:
        before[:, scales], after[:, scales] = 0, 0
    assert torch.equal(after, before), "d alone is another, larger by a factor"


def test_zero_blocks():
    for zero in (torch.zeros(256), torch.full((256,), -9e-13)):
        assert not qk.quantize(zero, "IQ1_S", ONES).any()
    for zero in (torch.zeros(256), torch.full((256,), 9e-8)):
        assert not qk.quantize(zero, "IQ1_M").any()
    for qtype in IQ1:
        assert not qk.quantize(torch.randn(256), qtype, torch.zeros(256)).any(), "nothing counts"


def test_words_come_back():
    words = torch.arange(-32768, 32768, dtype=torch.int16)
    data = words.view(torch.uint8).view(-1, 64)
    parts = torch.stack(unpack_words(data), dim=-1)  # (n, 32, 5)
    assert parts[..., :4].max() == 7 and parts[..., 4].max() == 15
    assert torch.equal(pack_words(parts), data)


@pytest.mark.parametrize("qtype", IQ1)
def test_importance_moves_the_error_to_where_it_counts_less(qtype):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(16, 512, generator=generator)
    importance = torch.where(torch.rand(512, generator=generator) < 0.1, 100.0, 0.01)

    def weighted_error(importances):
        return float((importance * (qk.dequantize(qk.quantize(x, qtype, importances), qtype) - x) ** 2).sum())

    assert weighted_error(importance) < 0.9 * weighted_error(torch.ones(512))


def test_iq1_s_needs_importance():
    with pytest.raises(ValueError, match="IQ1_S needs importance"):
        qk.quantize(torch.randn(256), "IQ1_S")


@pytest.mark.parametrize("qtype", IQ1)
def test_a_scale_beyond_fp16_is_refused(qtype):
    x = torch.randn(512, generator=torch.Generator().manual_seed(5))
    assert qk.quantize(x * 1e4, qtype, torch.ones(512)).any()
    x[300] = -1e7
    with pytest.raises(ValueError, match=rf"{qtype} cannot hold -10000000.0 at index \(300,\): .* fp16"):
        qk.quantize(x, qtype, torch.ones(512))


@pytest.mark.parametrize("qtype", IQ1)
def test_errors_beyond_float32_are_refused(qtype):
    # signs are often no point, and errors of all neighbours beyond float32; ggml reads on behind the weights then
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(6)).sign() * 600
    assert qk.quantize(x, qtype, torch.full((256,), 1e20)).any()
    with pytest.raises(ValueError, match=rf"{qtype} cannot hold .* beyond float32"):
        qk.quantize(x, qtype, torch.full((256,), 3e29))
