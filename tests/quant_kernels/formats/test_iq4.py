"""The formats with a table of values against ggml's bytes, the gguf package, blocks worked by hand, and theory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import quant_kernels as qk
from quant_kernels.formats.iq4 import VALUES, nearest_value, pack_scales, unpack_scales

IQ4 = ["IQ4_NL", "IQ4_XS"]

grid = arrays(np.int16, (2, 256), elements=st.integers(-4096, 4096)).map(lambda x: torch.from_numpy(x.astype("f4")))
few = settings(max_examples=20, deadline=None)  # a search takes its time


@pytest.mark.parametrize("qtype, least_kinds", [("IQ4_NL", 37), ("IQ4_XS", 29)])
def test_bytes_equal_ggml(qtype, least_kinds, check):
    check.golden_bytes(qtype, least_kinds)


@pytest.mark.parametrize("qtype", IQ4)
def test_dequantize_equals_gguf(qtype, check):
    size = qk.QTYPES[qtype].type_size
    data = np.random.default_rng(1).integers(0, 256, (50, 5 * size), dtype=np.uint8)
    data.reshape(-1, size)[:, 1] &= 0xBF  # fp16 scales without the top bit of the exponent are finite
    check.dequantize_as_gguf(data, qtype)
    x = torch.randn(20, 512, generator=torch.Generator().manual_seed(2))
    check.dequantize_as_gguf(qk.quantize(x, qtype).numpy(), qtype)


def test_iq4_nl_by_hand():
    # the extreme is -127, and among the trials is the inverse scale -127 / -127: all values are met, twice
    assert qk.quantize(VALUES.repeat(2), "IQ4_NL").tolist() == [0x00, 0x3C, *[0x11 * k for k in range(16)]]


def test_iq4_xs_by_hand():
    factors = torch.tensor([1, 0.5, -1, 0, 0.25, 0.25, 0.25, 0.25])
    x = (factors[:, None] * VALUES.repeat(2)).flatten()
    # d = -1 / 32 is 0xa800. The scales are factors / d + 32: 0, 16, 63 (64 is too much), 32 and four times 24, with
    # lower bits 0, 0, 15, 0, 8, 8, 8, 8 and upper bits 0, 1, 3, 2, 1, 1, 1, 1
    head = [0x00, 0xA8, 0b10_11_01_00, 0b01_01_01_01, 0x00, 0x0F, 0x88, 0x88]
    each_value, zeros = [0x11 * k for k in range(16)], [0x88] * 16  # value 8 is 1, nearest to 0
    assert qk.quantize(x, "IQ4_XS").tolist() == head + each_value * 3 + zeros + each_value * 4


@pytest.mark.parametrize("qtype, d", [("IQ4_NL", 0x00), ("IQ4_XS", 0x80)])
def test_zero_blocks(qtype, d):
    data = qk.quantize(torch.zeros(256), qtype)
    assert data[1] == d, "IQ4_XS has -0 / 32"
    assert (data.view(-1, qk.QTYPES[qtype].type_size)[:, -16:] == 0x88).all()
    assert torch.equal(data, qk.quantize(torch.full((256,), -9e-16), qtype)), "below 1e-15 all is zero"


def test_the_ends_of_the_search():
    x, importance = torch.zeros(32), torch.full((32,), 1e34)
    x[0], importance[0] = 1.0, 1e-7
    # zeros count so much more, and as value 8, which is 1, that d is about -1e-40 and 1 / d is -Inf: weight 0 has the
    # first code, the others 0 * -Inf, the last
    assert qk.quantize(x, "IQ4_NL", importance).tolist() == [0x00, 0x80, 0xF0, *[0xFF] * 15]
    # where nothing counts d is 0
    assert qk.quantize(x, "IQ4_NL", torch.zeros(32)).tolist() == [0x00, 0x00, *[0x88] * 16]
    # above 1e-15 the scale, though 0 in fp16, still gives the codes
    assert qk.quantize(torch.full((32,), 2e-15), "IQ4_NL").tolist() == [0x00, 0x00, *[0xFF] * 16]


def test_weights_whose_squares_overflow():
    x = torch.ones(256)
    x[:32] = 1e18  # the scale of these is Inf / Inf
    data = qk.quantize(x, "IQ4_XS")
    assert (data[2] & 3, data[4] & 15) == (2, 0), "scale 32, that is 0"
    weights = qk.dequantize(data, "IQ4_XS")
    assert not weights[:32].any() and torch.allclose(weights[32:], torch.ones(224), rtol=1e-3)
    with pytest.raises(ValueError, match="IQ4_NL cannot hold"):
        qk.quantize(x, "IQ4_NL")


def test_ties_between_values_go_to_the_greater():
    ties = (VALUES[1:] + VALUES[:-1]) / 2
    assert nearest_value(ties).tolist() == list(range(1, 16))
    assert nearest_value(torch.nextafter(ties, torch.tensor(-200.0))).tolist() == list(range(15))
    assert nearest_value(torch.tensor([-torch.inf, -200, 0, 200, torch.inf, torch.nan])).tolist() == [
        0,
        0,
        8,
        15,
        15,
        15,
    ]


def test_scales_come_back():
    scales = torch.arange(64, dtype=torch.uint8).repeat(8).view(-1, 8)
    scales = torch.cat([scales, scales.flip(-1)])
    assert torch.equal(unpack_scales(*pack_scales(scales)), scales)


@pytest.mark.parametrize("qtype", IQ4)
@few
@given(x=grid)
def test_twice_the_weights_have_the_same_codes_and_twice_the_scale(qtype, x):
    once, twice = qk.dequantize(qk.quantize(torch.stack([x, 2 * x]), qtype), qtype)
    assert torch.equal(twice, 2 * once)


@few
@given(x=grid)
def test_iq4_nl_is_no_worse_than_the_scale_of_the_extreme(x):
    x = x.view(-1, 32)
    d = (x.gather(-1, x.abs().argmax(-1, keepdim=True)) / -127).half().float()
    plain = d * VALUES[nearest_value(torch.where(d == 0, 0.0, x / d)).int()]
    searched = qk.dequantize(qk.quantize(x, "IQ4_NL"), "IQ4_NL")
    errors = [(x * x * (x - y) ** 2).double().sum(-1) for y in (searched, plain)]  # weighted as in the search
    rounding = 2**-11 * (x**4).double().sum(-1)  # of d to fp16
    assert (errors[0] <= errors[1] + rounding).all()


@pytest.mark.parametrize("qtype", IQ4)
def test_importance_moves_the_error_to_where_it_counts_less(qtype):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(16, 512, generator=generator)
    importance = torch.where(torch.rand(512, generator=generator) < 0.1, 100.0, 0.01)

    def weighted_error(data):
        return float((importance * (qk.dequantize(data, qtype) - x) ** 2).sum())

    assert weighted_error(qk.quantize(x, qtype, importance)) < 0.9 * weighted_error(qk.quantize(x, qtype))


@pytest.mark.parametrize("qtype, greatest", [("IQ4_NL", 65504 * 113), ("IQ4_XS", 65504 * 113 * 32)])
def test_a_scale_beyond_fp16_is_refused(qtype, greatest):
    x = torch.zeros(512)
    x[300] = -greatest  # the search starts with the extreme at 113, and sums that overflow leave it there
    assert qk.dequantize(qk.quantize(x, qtype), qtype)[300] == -greatest
    x[300] = -greatest * 1.001
    with pytest.raises(ValueError, match=rf"{qtype} cannot hold -\d.* at index \(300,\): .* fp16"):
        qk.quantize(x, qtype)
