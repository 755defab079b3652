"""The injected outliers: invisible in floats, fatal for one scale per tensor."""

import pytest
import torch

from quant_kernels.measures.errors import relative_rmse
from quant_kernels.methods.linears import input_maxima, replace_linears
from quant_kernels.methods.llm_int8 import LLMInt8Linear
from quant_kernels.methods.outliers import inject_outliers
from quant_kernels.methods.rotation import rotate_llama
from quant_kernels.methods.smoothquant import smooth_llama
from quant_kernels.methods.w8a8 import PER_TENSOR, W8A8Linear


@pytest.mark.parametrize("factor", [60.0, 64.0, 1000.0, 0.01])
def test_the_function_is_kept(tiny, tokens, factor):
    torch.testing.assert_close(inject_outliers(tiny, factor)(tokens), tiny(tokens), rtol=1e-4, atol=1e-4)


def test_a_power_of_two_loses_no_bit(tiny, tokens):
    model = inject_outliers(tiny, 64.0)
    assert torch.equal(
        model.blk[0].attn_q(model.blk[0].attn_norm(torch.ones(64))),
        tiny.blk[0].attn_q(tiny.blk[0].attn_norm(torch.ones(64))),
    )


def test_the_same_channels_in_all_blocks(tiny, tokens):
    channels = torch.tensor([3, 40])
    before, after = input_maxima(tiny, tokens), input_maxima(inject_outliers(tiny, 60.0, channels), tokens)
    for name, maxima in after.items():
        expected = before[name].clone()
        if name.endswith(("_q", "_k", "_v", "_gate", "_up")):
            expected[channels] *= 60
        torch.testing.assert_close(maxima, expected, rtol=1e-3, atol=1e-4)


def test_the_seed_chooses(tiny):
    gains = [inject_outliers(tiny, channels=5, seed=seed).blk[1].ffn_norm.weight for seed in (0, 0, 1)]
    assert torch.equal(gains[0], gains[1]) and not torch.equal(gains[0], gains[2])
    assert ((gains[0] / tiny.blk[1].ffn_norm.weight) > 59).sum() == 5


def test_one_scale_per_tensor_breaks_and_the_remedies_hold(tiny, tokens):
    model = inject_outliers(tiny, 200.0, 2)
    logits = tiny(tokens)
    per_tensor = lambda _, linear: W8A8Linear.from_linear(linear, activation=PER_TENSOR)  # noqa: E731
    split = lambda _, linear: LLMInt8Linear.from_linear(linear, threshold=20.0)  # noqa: E731
    smooth, rotated = smooth_llama(model, input_maxima(model, tokens)), rotate_llama(model)
    quantized = {
        "before": replace_linears(tiny, per_tensor),
        "per tensor": replace_linears(model, per_tensor),
        "split": replace_linears(model, split),
        "smooth": replace_linears(smooth, per_tensor),
        "rotated": replace_linears(rotated, per_tensor),
    }
    errors = {name: relative_rmse(logits, each(tokens)) for name, each in quantized.items()}
    assert errors["per tensor"] > 8 * errors["before"]
    for remedy in ("split", "smooth", "rotated"):
        assert errors[remedy] < errors["per tensor"] / 4, errors


def test_refused(tiny):
    with pytest.raises(ValueError, match="65 channels are not among the model's 64"):
        inject_outliers(tiny, channels=65)
    with pytest.raises(ValueError, match="channels 1 to 64 are not all in 0 to 63"):
        inject_outliers(tiny, channels=torch.tensor([1, 64]))
    with pytest.raises(ValueError, match="not all positive and finite"):
        inject_outliers(tiny, factor=-60.0)
