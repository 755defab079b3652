"""The ternary formats against ggml's bytes, the gguf package, blocks worked by hand, and ternary weights."""

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import quant_kernels as qk
from quant_kernels.formats.ternary import pack_trits, unpack_trits

TERNARY = ["TQ1_0", "TQ2_0"]

blocks = arrays(np.float32, (2, 256), elements=st.floats(-6e4, 6e4, width=32))
trits = arrays(np.int8, (2, 512), elements=st.integers(-1, 1))


@pytest.mark.parametrize("qtype", TERNARY)
def test_bytes_equal_ggml(qtype, check):
    check.golden_bytes(qtype, least_kinds=29)


@pytest.mark.parametrize("qtype", TERNARY)
@given(x=blocks)
def test_quantize_equals_gguf(qtype, x, check):
    x[np.abs(x) < 1e-30] = 0  # gguf converts NaN to an integer, with a warning, where 1 / d is infinite
    check.same_blocks(gguf.quants.quantize(x, gguf.GGMLQuantizationType[qtype]), x, qtype)


@pytest.mark.parametrize("qtype", TERNARY)
def test_dequantize_equals_gguf(qtype, check):
    size = qk.QTYPES[qtype].type_size
    data = np.random.default_rng(1).integers(0, 256, (20, 5 * size), dtype=np.uint8)
    data.reshape(-1, size)[:, -1] &= 0xBF  # fp16 scales without the top bit of the exponent are finite
    check.dequantize_as_gguf(data, qtype)
    x = torch.randn(20, 512, generator=torch.Generator().manual_seed(2))
    check.dequantize_as_gguf(qk.quantize(x, qtype).numpy(), qtype)


def test_tq1_0_by_hand():
    x = torch.zeros(256)
    x[[0, 32, 1, 2, 160, 255]] = torch.tensor([2.0, -2.0, 1.0, -0.99, 2.0, -2.0])
    data = qk.quantize(x, "TQ1_0").tolist()
    # d = 2; half of it is 1, a little less is 0. Five zeros are 11111 in base 3, 121: 121 * 256 / 243 = 127.5, up 128
    assert data[52:] == [0x00, 0x40]
    # 20111 is 175, up to 185; 21111 is 202, up to 213
    assert data[:48] == [185, 213, *[128] * 30, 213, *[128] * 15]
    # weights 240, 244, 248 and 252 are 1111 and a zero that fills up, 120, up to 127; 11100 is 117, up to 124
    assert data[48:52] == [127, 127, 127, 124]


def test_tq2_0_by_hand():
    x = torch.zeros(256)
    x[[0, 32, 96, 159]] = torch.tensor([4.0, -4.0, 2.0, -4.0])
    # d = 4 is 0x4400; weights 0, 32, 64 and 96 are codes 2 0 1 2, from the lowest bits up; weight 159 is in byte 63
    expected = [0b10_01_00_10, *[0b01_01_01_01] * 62, 0b01_01_01_00, 0x00, 0x44]
    assert qk.quantize(x, "TQ2_0").tolist() == expected


@pytest.mark.parametrize("stride, count", [(32, 5), (16, 5), (4, 4)])
def test_every_combination_of_trits_comes_back(stride, count):
    combinations = torch.cartesian_prod(*[torch.arange(3)] * count).to(torch.uint8)  # (3**count, count)
    data = combinations.repeat_interleave(stride, dim=-1)
    assert torch.equal(unpack_trits(pack_trits(data, stride), count), data)
    assert len(pack_trits(data, stride)[:, 0].unique()) == 3**count


@pytest.mark.parametrize("qtype", TERNARY)
@given(t=trits, d=st.floats(2.0**-24, 65504, width=16))
def test_ternary_weights_come_back(qtype, t, d):
    x = torch.from_numpy(t) * torch.tensor(d)
    assert torch.equal(qk.dequantize(qk.quantize(x, qtype), qtype), x)


@pytest.mark.parametrize("qtype", TERNARY)
def test_the_smallest_weights(qtype):
    # 1 / 2**-128 is infinite: all weights become 0
    zero, tiny = qk.quantize(torch.zeros(256), qtype), qk.quantize(torch.full((256,), 2.0**-128), qtype)
    assert torch.equal(zero, tiny)
    assert not torch.equal(zero, qk.quantize(torch.full((256,), 2.0**-127), qtype))


@pytest.mark.parametrize("qtype", TERNARY)
def test_a_scale_beyond_fp16_is_refused(qtype):
    x = torch.zeros(512)
    x[300] = -65520
    with pytest.raises(ValueError, match=rf"{qtype} cannot hold -65520.0 at index \(300,\): .* fp16"):
        qk.quantize(x, qtype)


@pytest.mark.parametrize("qtype", TERNARY)
def test_importance_is_ignored(qtype):
    x = torch.randn(2, 512, generator=torch.Generator().manual_seed(3))
    assert torch.equal(qk.quantize(x, qtype, torch.rand(512)), qk.quantize(x, qtype))
