"""MXFP4 and NVFP4 against torchao's codes, ggml's formats and what is known of their errors."""

import pytest
import torch

import quant_kernels as qk
from quant_kernels.formats.fp4 import E2M1_DOUBLED
from quant_kernels.measures.errors import relative_rmse
from quant_kernels.methods.microscaling import E2M1, ELEMENTS, quantize_mx, quantize_nvfp4

# torchao 0.18.0 on `ramp()`: to_mx with ScaleCalculationMode FLOOR and RCEIL, nvfp4_quantize with
# per_tensor_amax_to_scale; scales as bytes, codes as hexadecimal digits, one per weight
TORCHAO = {
    "floor": ([127, 123], "fb5e96e27c4fa5e06d27c4fa6e16d37c5f96e27d4fb5e86e27c4fa6e06d37c5f"),
    "ceil": ([128, 124], "da3c84c15a2d93c04b15a2d94c04b25a3d84c15b2d93c84c15a2d94c04b25a3d"),
    "nvfp4": ([126, 126, 93, 94], "fb5e96e27c4fa5e06d27c4fa6e16d37b5f96e27d4fb5e86e27c4fa5e06d37c5f"),
}


def ramp():
    small = torch.tensor([1.0, 0.0625]).repeat_interleave(32)
    return ((torch.arange(64) * 37) % 101 - 50) / 8 * small


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", TORCHAO)
def test_codes_and_scales_are_those_of_torchao(kind):
    q = quantize_nvfp4(ramp()) if kind == "nvfp4" else quantize_mx(ramp(), rule=kind)
    scales, codes = TORCHAO[kind]
    assert q.scales.tolist() == scales
    assert "".join(f"{code:x}" for code in q.codes.tolist()) == codes


def test_mxfp4_is_ggmls_where_nothing_ties():
    x = normal(64, 256)
    assert torch.equal(quantize_mx(x).dequantize(), qk.dequantize(qk.quantize(x, "MXFP4"), "MXFP4"))


def test_nvfp4_without_the_tensors_scale_is_ggmls():
    x = normal(64, 256)
    q = quantize_nvfp4(x, tensor_scale=1.0)
    assert torch.equal(q.dequantize(), qk.dequantize(qk.quantize(x, "NVFP4"), "NVFP4"))


def test_ties_go_to_the_even_mantissa_and_in_ggml_to_the_smaller_number():
    x = torch.tensor([4.0, 3.5, 2.5, 0.25, 0.75] + [0.0] * 27)  # scale 1
    assert quantize_mx(x).dequantize()[:5].tolist() == [4.0, 4.0, 2.0, 0.0, 1.0]
    assert qk.dequantize(qk.quantize(x, "MXFP4"), "MXFP4")[:5].tolist() == [4.0, 3.0, 2.0, 0.0, 0.5]


def test_e2m1_has_one_table():
    assert torch.equal(E2M1.values, E2M1_DOUBLED.float() / 2)


@pytest.mark.parametrize(
    ("element", "numbers"),
    [("E2M3", 32), ("E3M2", 32), ("E2M1", 8), ("E4M3", 127), ("E5M2", 124)],
)
def test_elements_hold_the_numbers_of_the_specification(element, numbers):
    layout = ELEMENTS[element]
    positive = layout.values[: 2 ** (layout.bits - 1)]
    positive = positive[positive.isfinite()]
    assert len(positive) == numbers and positive.max() == layout.largest
    assert (positive.diff() > 0).all()


def test_errors_on_normal_weights():
    x = normal(64, 4096)
    # of ggml's formats on such weights; NVFP4's scale for the tensor changes little where all blocks are alike
    assert relative_rmse(x, quantize_mx(x).dequantize()) == pytest.approx(0.11499, rel=0.005)
    assert relative_rmse(x, quantize_nvfp4(x).dequantize()) == pytest.approx(0.09508, rel=0.005)


def test_what_a_power_of_two_costs():
    x = normal(256, 1024)
    errors = [relative_rmse(x * scale, quantize_mx(x * scale).dequantize()) for scale in (1.0, 1.5, 2.0)]
    assert errors[0] == errors[2] != errors[1]
    small_blocks = quantize_nvfp4(x)
    assert relative_rmse(x, small_blocks.dequantize()) < 0.85 * min(errors)
    assert small_blocks.bits_per_weight == 4.5 and quantize_mx(x).bits_per_weight == 4.25


def test_rules_for_the_scale():
    x = normal(64, 256)
    floor, ceil = quantize_mx(x), quantize_mx(x, rule="ceil")
    assert torch.log2(floor.block_scales()).frac().eq(0).all()
    amax = x.unflatten(-1, (-1, 32)).abs().amax(-1)
    assert (amax / floor.block_scales() >= 4).all() and (amax / floor.block_scales() < 8).all()
    assert (amax / ceil.block_scales() > 3).all() and (amax / ceil.block_scales() <= 6).all()
    assert (amax / floor.block_scales() > 6).any()  # these are cut off
    block = torch.full((32,), 6.0)
    assert quantize_mx(block, rule="ceil").block_scales().item() == 1.0  # 6 fits: it is not rounded up


def test_the_tensors_scale_makes_tiny_tensors_as_good_as_others():
    x = normal(16, 256)
    errors = [relative_rmse(x * scale, quantize_nvfp4(x * scale).dequantize()) for scale in (1.0, 1e-6, 1e6)]
    assert errors == pytest.approx([errors[0]] * 3, rel=1e-3)
    assert relative_rmse(x * 1e-6, quantize_nvfp4(x * 1e-6, tensor_scale=1.0).dequantize()) > 0.9
    assert relative_rmse(x * 1e6, quantize_nvfp4(x * 1e6, tensor_scale=1.0).dequantize()) > 0.9


@pytest.mark.parametrize("element", ELEMENTS)
def test_more_bits_are_better(element):
    x = normal(32, 256)
    q = quantize_mx(x, element)
    assert q.bits_per_weight == ELEMENTS[element].bits + 0.25
    expected = {"E2M1": 0.115, "E2M3": 0.0285, "E3M2": 0.054, "E4M3": 0.0295, "E5M2": 0.054}[element]
    assert relative_rmse(x, q.dequantize()) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("quantizer", [quantize_mx, quantize_nvfp4])
def test_extremes_stay_finite(quantizer):
    x = torch.zeros(4, 32)
    x[1], x[2, 5], x[3, 0] = 1e-45, 1.7e38, -1.7e38
    y = quantizer(x).dequantize()
    assert y.isfinite().all() and y[0].eq(0).all()
    assert y[2, 5] > 1e38 and y[3, 0] < -1e38
    assert quantizer(torch.zeros(32)).dequantize().eq(0).all()
    assert quantizer(torch.full((32,), 1e-45)).dequantize().abs().max() <= 1e-44


def test_other_input_is_refused():
    for quantizer, size in ((quantize_mx, 32), (quantize_nvfp4, 16)):
        with pytest.raises(ValueError, match=f"last dimension 40 is not a multiple of the block size {size}"):
            quantizer(torch.ones(2, 40))
        with pytest.raises(ValueError, match="nan"):
            quantizer(torch.full((32,), float("nan")))
        with pytest.raises(ValueError, match="empty"):
            quantizer(torch.ones(0, 32))
        with pytest.raises(TypeError, match="int64"):
            quantizer(torch.ones(32, dtype=torch.int64))
    with pytest.raises(ValueError, match="element is 'INT4'"):
        quantize_mx(torch.ones(32), "INT4")
    with pytest.raises(ValueError, match="rule is 'round'"):
        quantize_mx(torch.ones(32), rule="round")
    for scale in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="tensor_scale is"):
            quantize_nvfp4(torch.ones(32), tensor_scale=scale)
