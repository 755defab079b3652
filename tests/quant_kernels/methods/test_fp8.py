"""E4M3 and E5M2, bit by bit against torch's own float8 types."""

import math

import pytest
import torch

from quant_kernels.measures.errors import relative_rmse
from quant_kernels.methods.fp8 import E4M3, E5M2, FORMATS, Minifloat, linear_fp8, quantize_fp8

TORCH = {"E4M3": torch.float8_e4m3fn, "E5M2": torch.float8_e5m2}
AS_TORCH = {"E4M3": "saturate", "E5M2": "special"}  # what torch 2.13's casts do with numbers that are too large
EVERY_CODE = torch.arange(256, dtype=torch.uint8)
INF, NAN = math.inf, math.nan


@pytest.mark.parametrize("name", FORMATS)
def test_every_code_stands_for_what_torch_says(name):
    expected = EVERY_CODE.view(TORCH[name]).float()
    torch.testing.assert_close(FORMATS[name].decode(EVERY_CODE), expected, rtol=0, atol=0, equal_nan=True)


def awkward(name):
    """All numbers of the format, what lies halfway between two, the floats beside that, and random bits."""
    numbers = EVERY_CODE.view(TORCH[name]).float()
    numbers = numbers[numbers.isfinite()].sort().values
    halves = (numbers[1:] + numbers[:-1]) / 2
    beside = [torch.nextafter(halves, torch.tensor(end)) for end in (-INF, INF)]
    bits = torch.randint(-(2**31), 2**31, (100_000,), generator=torch.Generator().manual_seed(0), dtype=torch.int64)
    return torch.cat([numbers, halves, *beside, bits.to(torch.int32).view(torch.float32)])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_codes_are_those_of_torchs_casts(name, dtype):
    x = awkward(name).to(dtype)
    expected = x.to(TORCH[name]).view(torch.uint8)
    wrong = FORMATS[name].encode(x, AS_TORCH[name]) != expected
    assert not wrong.any(), f"{int(wrong.sum())} differ, first {x[wrong][0].item()}"


@pytest.mark.parametrize("name", FORMATS)
def test_every_number_keeps_its_code(name):
    values = FORMATS[name].decode(EVERY_CODE)
    kept = FORMATS[name].encode(values, "special") == EVERY_CODE
    assert kept[~values.isnan()].all()


@pytest.mark.parametrize(
    ("layout", "x", "saturated", "special"),
    [
        (E4M3, 464.0, 448.0, 448.0),  # halfway to 480, whose mantissa would be odd
        (E4M3, 464.1, 448.0, NAN),
        (E4M3, -INF, -448.0, NAN),
        (E5M2, 61439.0, 57344.0, 57344.0),
        (E5M2, 61440.0, 57344.0, INF),  # halfway to 65536, whose mantissa would be even
        (E5M2, -INF, -57344.0, -INF),
        (E4M3, NAN, NAN, NAN),
    ],
)
def test_overflow_is_a_choice(layout, x, saturated, special):
    for overflow, expected in (("saturate", saturated), ("special", special)):
        value = layout.decode(layout.encode(torch.tensor([x]), overflow))
        torch.testing.assert_close(value, torch.tensor([expected]), rtol=0, atol=0, equal_nan=True)


def test_subnormals_worked_by_hand():
    x = torch.tensor([1.0, 0.5, 1.5, 2.5, 0.51]) * 2.0**-9  # in steps of the subnormals of E4M3; ties to even
    assert (E4M3.decode(E4M3.encode(x)) * 2**9).tolist() == [1.0, 0.0, 2.0, 2.0, 1.0]


def test_a_format_without_special_codes_refuses_nan():
    plain = Minifloat("plain", 2, 1, bias=1, largest=6.0)
    assert plain.decode(plain.encode(torch.tensor([100.0, -INF]))).tolist() == [6.0, -6.0]
    with pytest.raises(ValueError, match="plain has no code for NaN"):
        plain.encode(torch.tensor([NAN]))
    with pytest.raises(ValueError, match="plain has no code for infinity"):
        plain.encode(torch.tensor([INF]), "special")
    with pytest.raises(ValueError, match="overflow is 'wrap'"):
        plain.encode(torch.tensor([1.0]), "wrap")


@pytest.mark.parametrize("per", ["tensor", "row"])
@pytest.mark.parametrize(("format", "half_step"), [("E4M3", 2.0**-4), ("E5M2", 2.0**-3)])
def test_errors_are_relative_to_each_number(per, format, half_step):
    x = torch.randn(16, 256, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 16)[:, None]
    q = quantize_fp8(x, format, per=per)
    smallest = FORMATS[format].values[1] * q.scale  # a step of the subnormals
    assert ((q.dequantize() - x).abs() <= torch.maximum(half_step * x.abs(), smallest / 2) * (1 + 1e-6)).all()
    assert torch.equal(q.dequantize().abs().amax(), x.abs().amax())


def test_e4m3_is_finer_and_a_row_with_its_own_scale_finer_still():
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    x[0] *= 1e5  # leaves the others to the subnormals
    tensor, row, wide = quantize_fp8(x), quantize_fp8(x, per="row"), quantize_fp8(x, "E5M2")
    error = {name: relative_rmse(x[1:], q.dequantize()[1:]) for name, q in (("t", tensor), ("r", row), ("w", wide))}
    assert error["r"] < 0.03 < error["w"] < 0.06 < error["t"]


def test_linear_multiplies_what_is_quantized():
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(2, 5, 64, generator=generator), torch.randn(24, 64, generator=generator)
    weight = quantize_fp8(w, per="row")
    y = linear_fp8(x, weight)
    tokens = quantize_fp8(x, per="row").dequantize()
    torch.testing.assert_close(y, tokens @ weight.dequantize().T, rtol=1e-5, atol=1e-5)
    assert relative_rmse(x @ w.T, y) < 0.05
    per_tensor = linear_fp8(x, quantize_fp8(w), per="tensor")
    assert relative_rmse(x @ w.T, per_tensor) < 0.05


def test_zeros_and_numbers_too_small_for_a_scale_stay_zero():
    assert quantize_fp8(torch.zeros(2, 3), per="row").dequantize().eq(0).all()
    assert quantize_fp8(torch.tensor([1e-44, 0.0])).dequantize().eq(0).all()


def test_other_input_is_refused():
    with pytest.raises(ValueError, match="format is 'E8M0'"):
        quantize_fp8(torch.ones(2), "E8M0")
    with pytest.raises(ValueError, match="per is 'column'"):
        quantize_fp8(torch.ones(2), per="column")
    with pytest.raises(ValueError, match="nan"):
        quantize_fp8(torch.tensor([NAN]))
    with pytest.raises(TypeError, match="int64"):
        quantize_fp8(torch.ones(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="1 dimensions, not 2"):
        linear_fp8(torch.ones(2), quantize_fp8(torch.ones(2)))
    with pytest.raises(ValueError, match="W's 4 columns"):
        linear_fp8(torch.ones(2), quantize_fp8(torch.ones(3, 4)))
