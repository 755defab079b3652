"""The 4-bit float formats against ggml's bytes, the gguf package, blocks worked by hand, and the ends of the scales."""

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import quant_kernels as qk
from quant_kernels.formats.fp4 import UE4M3_HALVED, ue4m3

FP4 = ["MXFP4", "NVFP4"]
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])

blocks = arrays(np.float32, (2, 64), elements=st.floats(-1000, 1000, width=32).map(lambda v: v * (abs(v) > 1e-30)))


@pytest.mark.parametrize("qtype, least_kinds", [("MXFP4", 37), ("NVFP4", 33)])
def test_bytes_equal_ggml(qtype, least_kinds, check):
    check.golden_bytes(qtype, least_kinds)


@given(x=blocks)
def test_mxfp4_equals_gguf(x, check):
    check.same_blocks(gguf.quants.quantize(x, gguf.GGMLQuantizationType.MXFP4), x, "MXFP4")


@pytest.mark.parametrize("qtype", FP4)
def test_dequantize_equals_gguf(qtype, check):
    data = np.random.default_rng(1).integers(0, 256, (50, 40 * qk.QTYPES[qtype].type_size), dtype=np.uint8)
    check.dequantize_as_gguf(data, qtype)
    x = torch.randn(20, 640, generator=torch.Generator().manual_seed(2))
    check.dequantize_as_gguf(qk.quantize(x, qtype).numpy(), qtype)


def test_mxfp4_by_hand():
    x = torch.zeros(32)
    x[[0, 16, 1, 17]] = torch.tensor([6.0, 1.75, -0.5, -3.6])
    x[[2, 3, 4]] = torch.tensor([0.25, 2.5, -5.0])
    # 6 is in [4, 8), so the scale is 1, e = 127. 6 is code 7, -0.5 is 8 + 1, -3.6 is -4, 8 + 6.
    # Halfway goes to zero: 1.75 to 1.5, code 3; 0.25 to 0; 2.5 to 2, code 4; -5 to -4, 8 + 6.
    assert qk.quantize(x, "MXFP4").tolist() == [127, 0x37, 0xE9, 0x00, 0x04, 0x0E, *[0] * 11]
    assert qk.dequantize(qk.quantize(x, "MXFP4"), "MXFP4")[:5].tolist() == [6.0, -0.5, 0.0, 2.0, -4.0]


def test_nvfp4_by_hand():
    x = torch.zeros(64)
    x[[0, 8, 16, 48, 57]] = torch.tensor([6.0, -3.0, 0.75, 6.75, 0.5625])
    # scales 6 / 6 = 1, 0.75 / 6 = 2**-3, 0 and 6.75 / 6 = 1.125 have exponents 7, 4, 0 and 7, mantissas 0, 0, 0 and 1
    scales = [7 << 3, 4 << 3, 0, 7 << 3 | 1]
    # 6 is code 7, -3 is 8 + 5, 0.5625 = 1.125 / 2 is code 1; weight j is in the byte of weight j + 8 of its sixteen
    codes = [0xD7, *[0] * 7, 0x07, *[0] * 7, *[0] * 8, 0x07, 0x10, *[0] * 6]
    assert qk.quantize(x, "NVFP4").tolist() == scales + codes
    assert torch.equal(qk.dequantize(qk.quantize(x, "NVFP4"), "NVFP4"), x)


@pytest.mark.parametrize(
    "largest, e",
    [
        (0.0, 0),
        (2.0**-125, 0),
        (1.0, 125),
        (8 - 2**-10, 127),
        (8 - 2**-21, 128),  # whose logarithm is 3 in float32
        (float(np.float32(3e38)), 252),
        (float(np.finfo(np.float32).max), 253),
        (2.0**-127, 254),  # e = -2 wraps around
        (2.0**-149, 232),
    ],
)
def test_the_scale_of_mxfp4(largest, e):
    x = torch.zeros(32)
    x[9] = -largest
    data = qk.quantize(x, "MXFP4")
    assert data[0] == e
    if largest < 2.0**-125:
        assert not data[1:].any(), "weights too small for any scale become zeros"


@pytest.mark.parametrize("largest", [2.0**-126, 1.99 * 2.0**-126])
def test_mxfp4_refuses_magnitudes_whose_scale_is_not_a_number(largest):
    x = torch.zeros(3, 32)
    x[1, 4] = largest
    with pytest.raises(ValueError, match=r"MXFP4 cannot hold .*e-38 at index \(1, 4\): .* E8M0's NaN"):
        qk.quantize(x, "MXFP4")


@pytest.mark.parametrize(
    "scale, byte",
    [
        *((0.0, 0), (2.0**-10 * 0.99, 0), (2.0**-10, 1), (7.5 * 2.0**-9, 7), (2.0**-6, 8)),
        *((1.0625, 0x39), (1.06, 0x38), (1.97, 0x40), (240.0, 0x77), (247.9, 0x77), (248.0, 0x7E), (1e38, 0x7E)),
    ],
)
def test_the_scale_of_nvfp4(scale, byte):
    assert ue4m3(torch.tensor([scale])).tolist() == [byte]


def test_the_scale_of_nvfp4_is_divided_once():
    x = torch.zeros(64)
    x[3] = float.fromhex("0x1.97fffep+2")  # / 6 is below 1.0625, * (1 / 6) is not
    assert qk.quantize(x, "NVFP4")[0] == 0x38


def test_scales_of_nvfp4_agree_with_gguf():
    x = np.random.default_rng(4).integers(0, 0x7F800000, 10**5, dtype=np.int32).view(np.float32)
    x = np.concatenate([x, np.arange(2**13, dtype=np.float32) / 2**12, np.arange(2**13, dtype=np.float32) / 16])
    assert np.array_equal(ue4m3(torch.from_numpy(x)).numpy(), gguf.quants.NVFP4.fp32_to_ue4m3(x))
    table = gguf.quants.NVFP4.ue4m3_to_fp32(np.arange(256, dtype=np.uint8))
    assert np.array_equal(UE4M3_HALVED.numpy(), table.astype(np.float32))


def test_nvfp4_cuts_off_at_its_largest_number():
    x = torch.zeros(64)
    x[:3] = torch.tensor([5000.0, -2688.0, 1e-3])
    assert qk.dequantize(qk.quantize(x, "NVFP4"), "NVFP4")[:3].tolist() == [6 * 448.0, -6 * 448.0, 0.0]
    x[0] = 1e30  # so far off that all errors are equal, and the first code wins
    assert qk.dequantize(qk.quantize(x, "NVFP4"), "NVFP4")[0] == 0.0


@pytest.mark.parametrize("qtype, size", [("MXFP4", 32), ("NVFP4", 16)])
@given(x=blocks)
def test_each_weight_becomes_the_nearest_multiple_of_its_scale(qtype, size, x):
    data = qk.quantize(torch.from_numpy(x), qtype)
    layout = qk.QTYPES[qtype]
    scales = data.numpy().reshape(-1, layout.type_size)[:, : layout.type_size - layout.block_size // 2].reshape(-1, 1)
    d = 2.0 ** (scales - 127.0) if qtype == "MXFP4" else 2.0 * UE4M3_HALVED.numpy()[scales].astype(np.float64)
    actual = qk.dequantize(data, qtype).double().numpy().reshape(-1, size)
    x = x.astype(np.float64).reshape(-1, size)
    least = np.abs(np.abs(x)[..., None] - d[..., None] * E2M1).min(-1)
    assert np.array_equal(np.abs(actual - x), least)


@given(x=blocks)
def test_numbers_of_mxfp4_keep_their_bytes(x):
    data = qk.quantize(torch.from_numpy(x), "MXFP4")
    assert torch.equal(qk.quantize(qk.dequantize(data, "MXFP4"), "MXFP4"), data)


@pytest.mark.parametrize("qtype", FP4)
def test_importance_is_ignored(qtype):
    x = torch.randn(2, 512, generator=torch.Generator().manual_seed(3))
    assert torch.equal(qk.quantize(x, qtype, torch.rand(512)), qk.quantize(x, qtype))
