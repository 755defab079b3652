"""Scales between layers leave the function as it is."""

import pytest
import torch

from quant_kernels.methods.folding import fold, foldable
from quant_kernels.methods.linears import input_maxima
from quant_kernels.models.gguf_file import load_model


def some_scales(n):
    return torch.rand(n, generator=torch.Generator().manual_seed(n)) * 9 + 0.1


@pytest.mark.parametrize("producer", ["attn_norm", "ffn_norm", "ffn_up", "attn_v"])
def test_the_function_is_kept_and_the_inputs_are_divided(tiny_gguf, tokens, producer):
    model = load_model(tiny_gguf(n_head_kv=4))
    s = some_scales(96 if producer == "ffn_up" else 64)
    folded = fold(model, {f"blk.1.{producer}": s})
    torch.testing.assert_close(folded(tokens), model(tokens), rtol=1e-4, atol=1e-4)
    reader = {"attn_norm": "attn_k", "ffn_norm": "ffn_gate", "ffn_up": "ffn_down", "attn_v": "attn_output"}[producer]
    before, after = input_maxima(model, tokens), input_maxima(folded, tokens)
    torch.testing.assert_close(after[f"blk.1.{reader}"], before[f"blk.1.{reader}"] / s, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after[f"blk.0.{reader}"], before[f"blk.0.{reader}"])


def test_all_at_once(tiny, tokens):
    folded = fold(tiny, {name: some_scales(96 if name.endswith("up") else 64) for name in foldable(tiny)})
    torch.testing.assert_close(folded(tokens), tiny(tokens), rtol=1e-4, atol=1e-4)


def test_what_can_be_folded(tiny, tiny_gguf):
    assert foldable(tiny) == [f"blk.{i}.{name}" for i in (0, 1) for name in ("attn_norm", "ffn_norm", "ffn_up")]
    assert len(foldable(load_model(tiny_gguf(n_head_kv=4)))) == 2 * 4


@pytest.mark.parametrize(
    ("name", "scales", "message"),
    [
        ("blk.0.ffn_gate", torch.ones(96), "'blk.0.ffn_gate' is not blk.0 to blk.1 with one of attn_norm"),
        ("blk.2.attn_norm", torch.ones(64), "'blk.2.attn_norm' is not blk.0 to blk.1"),
        ("blk.0.attn_norm", torch.ones(32), r"scales of blk.0.attn_norm have shape \(32,\), not \(64,\)"),
        ("blk.0.attn_norm", torch.zeros(64), "are from 0.0 to 0.0, not all positive and finite"),
        ("blk.0.attn_norm", torch.full((64,), torch.nan), "not all positive and finite"),
        ("blk.0.attn_v", torch.ones(32), "blk.0.attn_v has 32 channels, attn_output reads 64"),
    ],
)
def test_refused(tiny, name, scales, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.").replace(r"\\", "\\")):
        fold(tiny, {name: scales})
