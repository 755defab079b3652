"""Copies of a model with other layers, and the inputs of its layers."""

import pytest
import torch
from torch import nn

from quant_kernels.methods.linears import block_linears, calibrate, clone, input_maxima, replace_linears
from quant_kernels.models.gguf_file import load_model

TOKENS = torch.arange(24).view(3, 8)


@pytest.fixture
def tiny(tiny_gguf):
    return load_model(tiny_gguf())


def test_the_linear_layers_of_the_blocks(tiny):
    linears = block_linears(tiny)
    assert len(linears) == 2 * 7 and "blk.1.ffn_down" in linears and "output" not in linears


def test_a_clone_shares_weights_but_not_layers(tiny):
    other = clone(tiny)
    assert all(a is b for a, b in zip(tiny.parameters(), other.parameters(), strict=True))
    assert other.tokenizer.encode("the") == tiny.tokenizer.encode("the")
    other.blk[0].attn_q.weight = nn.Parameter(torch.zeros(64, 64))
    assert tiny.blk[0].attn_q.weight.any() and not torch.equal(tiny(TOKENS), other(TOKENS))


def test_replaced_layers_are_called_and_the_model_is_as_before(tiny):
    before = tiny(TOKENS)
    seen = []

    def make(name, linear):
        seen.append((name, tuple(linear.weight.shape)))
        return linear if name.endswith("attn_q") else nn.Linear(linear.in_features, linear.out_features)

    other = replace_linears(tiny, make)
    assert len(seen) == 14 and ("blk.0.attn_k", (32, 64)) in seen
    assert other.blk[0].attn_q.weight is tiny.blk[0].attn_q.weight and other.blk[0].attn_k.bias is not None
    assert not torch.allclose(other(TOKENS), before) and torch.equal(tiny(TOKENS), before)


def test_inputs_are_those_of_the_layers(tiny):
    seen = {}
    calibrate(tiny, TOKENS, lambda name, x: seen.setdefault(name, x))
    assert seen.keys() == block_linears(tiny).keys()
    first = tiny.blk[0].attn_norm(tiny.token_embd(TOKENS))
    torch.testing.assert_close(seen["blk.0.attn_q"], first.detach())
    assert torch.equal(seen["blk.0.attn_q"], seen["blk.0.attn_v"]) and seen["blk.1.ffn_down"].shape == (3, 8, 96)
    assert not tiny.blk[0].attn_q._forward_pre_hooks


def test_maxima_over_batches_are_those_of_all_tokens(tiny, monkeypatch):
    at_once = input_maxima(tiny, TOKENS)
    monkeypatch.setattr("quant_kernels.methods.linears.BATCH_TOKENS", 8)
    one_by_one = input_maxima(tiny, TOKENS)
    torch.testing.assert_close(at_once, one_by_one)
    assert at_once["blk.0.ffn_down"].shape == (96,)


@pytest.mark.parametrize("windows", [torch.arange(8), torch.zeros(0, 8, dtype=torch.long)])
def test_no_windows_are_refused(tiny, windows):
    with pytest.raises(ValueError, match="windows have shape"):
        input_maxima(tiny, windows)
