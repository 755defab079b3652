"""NF4 against the published levels and against bitsandbytes."""

import pytest
import torch

from quant_kernels.measures.errors import relative_rmse
from quant_kernels.methods.nf4 import LEVELS, quantize_nf4

# As QLoRA's appendix prints them, and bitsandbytes 0.50.2 has them (backends/utils.py)
PUBLISHED = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
]
# bitsandbytes 0.50.2: quantize_4bit(x, blocksize=64, quant_type="nf4") of ((k * 37) % 101 - 50) / 25 for k below 128
BYTES = (
    "04c16e29f3b05d17e29f3c05d18e2af4c16e18e3b05d17e29f3b05d18e2af4c1"
    "6d18e3b04c17e29f3b05d17e2af4c06d18e2a04c16e29f3b05d17e29f3c05d18"
)


def ramp():
    return ((torch.arange(128) * 37) % 101 - 50) / 25


def test_levels_are_the_published_ones_to_the_last_bit():
    assert torch.equal(LEVELS, torch.tensor(PUBLISHED))


def test_bytes_are_those_of_bitsandbytes():
    q = quantize_nf4(ramp())
    assert q.qs.flatten().numpy().tobytes().hex() == BYTES
    assert q.absmax.tolist() == [2.0, 2.0]


def test_each_weight_gets_the_nearest_level():
    w = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    q = quantize_nf4(w)
    nearest = (w[..., None] / w.abs().amax(-1)[:, None, None] - LEVELS).abs().argmin(-1)
    assert torch.equal(q.codes().long(), nearest)
    assert q.dequantize().shape == w.shape


def test_error_on_normal_weights():
    w = torch.randn(512, 1024, generator=torch.Generator().manual_seed(0))
    error = relative_rmse(w, quantize_nf4(w).dequantize())
    assert error == pytest.approx(0.0919, rel=0.01)  # 0.0919 is that of bitsandbytes on such weights


def test_double_quantization_saves_what_the_paper_says():
    w = torch.randn(256, 1024, generator=torch.Generator().manual_seed(0))
    plain, double = quantize_nf4(w), quantize_nf4(w, double=True)
    assert plain.bits_per_weight == 4.5
    assert double.bits_per_weight == pytest.approx(4.127, abs=5e-4)
    assert plain.bits_per_weight - double.bits_per_weight == pytest.approx(0.373, abs=5e-4)
    assert relative_rmse(w, double.dequantize()) < relative_rmse(w, plain.dequantize()) * 1.005
    assert relative_rmse(plain.absmax, double.absmax.dequantize()) < 0.01


def test_scales_are_quantized_in_blocks_of_256():
    w = torch.randn(300 * 64, generator=torch.Generator().manual_seed(0))
    w[256 * 64 :] *= torch.logspace(0, 1, 44).repeat_interleave(64)
    double = quantize_nf4(w, double=True)
    assert double.absmax.scale.shape == (2,) and double.absmax.codes.shape == (300,)
    assert double.absmax.scale[1] > 3 * double.absmax.scale[0]
    assert relative_rmse(w, double.dequantize()) < 0.1
    constant = quantize_nf4(torch.ones(128), double=True)
    assert constant.dequantize().eq(1).all()


def test_a_transposed_matrix_is_taken_in_its_own_order():
    w = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(quantize_nf4(w.T).dequantize(), quantize_nf4(w.T.contiguous()).dequantize())
    assert not torch.equal(quantize_nf4(w.T).dequantize(), quantize_nf4(w).dequantize().T)


def test_zeros_stay_zero():
    w = torch.zeros(2, 64)
    w[1, 3] = -5.0
    assert torch.equal(quantize_nf4(w).dequantize(), w)
    assert torch.equal(quantize_nf4(torch.zeros(64), double=True).dequantize(), torch.zeros(64))


def test_other_input_is_refused():
    with pytest.raises(ValueError, match="100 elements are not a multiple of the block size 64"):
        quantize_nf4(torch.ones(10, 10))
    with pytest.raises(ValueError, match="block_size is 3"):
        quantize_nf4(torch.ones(3), 3)
    for bad in (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("inf")]), torch.ones(0)):
        with pytest.raises(ValueError, match=r"nan|inf|empty"):
            quantize_nf4(bad, 2)
    with pytest.raises(TypeError, match="int64"):
        quantize_nf4(torch.ones(64, dtype=torch.int64))
