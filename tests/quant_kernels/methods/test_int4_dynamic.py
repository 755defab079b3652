"""8da4w: integers against integers, and torchao's codes."""

import pytest
import torch

from quant_kernels.measures.errors import relative_rmse
from quant_kernels.methods.affine import Affine, quantize_affine
from quant_kernels.methods.int4_dynamic import linear_8da4w, quantize_int4

# torchao 0.18.0: quantize_ with Int8DynamicActivationIntxWeightConfig(torch.int4, PerGroup(32)) of a Linear whose
# weight is `ramp()`: codes as hexadecimal digits (f is -1, 8 is -8), scales, and output for the input of the test
CODES = (
    "9f4b05c17e3af4b06d27e3af5c16d27e4b05c17d3af4b06c27e3af5b16d27e4a"
    "05c17d39f4b06c27e3af5b16d27e4a05c17d39e4a06c27d39f4b06c27e3af5b1"
)
SCALES = [0.14133332669734955, 0.13866665959358215, 0.01360000018030405, 0.013333333656191826]
OUTPUT = [8.279487609863281, -0.08023300021886826]


def ramp():
    return (((torch.arange(128) * 37) % 101 - 47) / 50).view(2, 64) * torch.tensor([[1.0], [0.1]])


def test_codes_and_outputs_are_those_of_torchao():
    weight = quantize_int4(ramp())
    assert "".join(f"{code % 16:x}" for code in weight.codes.flatten().tolist()) == CODES
    assert weight.scale.flatten().tolist() == pytest.approx(SCALES, rel=1e-6)
    x = ((torch.arange(64) * 29) % 53 - 20) / 16
    assert linear_8da4w(x, weight).tolist() == pytest.approx(OUTPUT, rel=1e-5)


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 7, 256, generator=generator) * 3 + 1, torch.randn(48, 256, generator=generator)


def test_sums_are_those_of_integers(case):
    x, w = case
    weight, tokens = quantize_int4(w), quantize_affine(x, per="row")
    integers = (tokens.codes.long() - tokens.zero_point.long()).unflatten(-1, (8, 32))  # (3, 7, 8, 32)
    sums = torch.einsum("btgi,mgi->btmg", integers, weight.codes.long().view(48, 8, 32))
    y = (sums.double() * weight.scale.double()).sum(-1) * tokens.scale.double()
    torch.testing.assert_close(linear_8da4w(x, weight).double(), y, rtol=1e-5, atol=1e-4)


def test_a_group_of_extremes_stays_exact():
    x = torch.zeros(1, 4096)
    x[0, :] = torch.tensor([255.0, 0.0]).repeat(2048)
    weight = Affine(torch.tensor([[-8, 7]], dtype=torch.int8).repeat(3, 2048), torch.ones(3, 1), torch.zeros(3, 1), 4)
    assert linear_8da4w(x, weight).tolist() == [[-8.0 * 255 * 2048] * 3]


def test_error_is_that_of_the_weights(case):
    x, w = case
    y, weight = x @ w.T, quantize_int4(w)
    error = relative_rmse(y, linear_8da4w(x, weight))
    assert error == pytest.approx(relative_rmse(y, x @ weight.dequantize().T), rel=0.02)
    assert error == pytest.approx(relative_rmse(w, weight.dequantize()), rel=0.1) == pytest.approx(0.095, rel=0.1)


def test_each_token_has_its_own_scale(case):
    x, w = case
    weight = quantize_int4(w)
    alone = linear_8da4w(x[0, 0], weight)
    x[1] *= 1000
    torch.testing.assert_close(linear_8da4w(x, weight)[0, 0], alone)


def test_codes_use_the_whole_range():
    w = torch.tensor([[7.4, -7.5, 0.1, 0.0]] * 8).repeat(1, 8)
    codes = quantize_int4(w).codes
    assert codes.min() in (-8, -7) and codes.max() == 7
    assert quantize_int4(torch.zeros(2, 32)).dequantize().eq(0).all()


def test_other_input_is_refused(case):
    x, w = case
    weight = quantize_int4(w)
    with pytest.raises(ValueError, match="W's 256 columns"):
        linear_8da4w(x[..., :255], weight)
    with pytest.raises(ValueError, match="nan"):
        linear_8da4w(x * float("nan"), weight)
    with pytest.raises(ValueError, match="last dimension 256 is not a multiple of the group size 48"):
        quantize_int4(w, 48)
    with pytest.raises(ValueError, match="not a matrix"):
        quantize_int4(w[0])
    with pytest.raises(ValueError, match="empty"):
        quantize_int4(torch.ones(0, 32))
    with pytest.raises(ValueError, match="groups of 16384 do not fit"):
        linear_8da4w(torch.ones(16384), quantize_int4(torch.ones(1, 16384), 16384))
