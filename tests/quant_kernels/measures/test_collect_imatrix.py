"""Sums of squared activations: against llama-imatrix, by hand, and where there are none."""

import pytest
import torch

from quant_kernels.measures import windows
from quant_kernels.measures.collect_imatrix import collect_imatrix
from quant_kernels.measures.imatrix import load_imatrix
from quant_kernels.measures.overlap import overlap
from quant_kernels.models.gguf_file import load_model


def test_as_llama_imatrix_collects(tiny_pair, lighthouse, golden):
    # llama-imatrix sums in float32, one token after the other, which costs it up to 2e-5 over these 3840 tokens.
    expected = load_imatrix(golden / "tiny_imatrix.gguf")
    found = collect_imatrix(tiny_pair[0], lighthouse, n_ctx=64)
    assert (found.chunk_count, found.chunk_size) == (expected.chunk_count, expected.chunk_size) == (60, 64)
    assert found.entries.keys() == expected.entries.keys()
    for name, entry in found.entries.items():
        assert entry.counts.equal(expected.entries[name].counts)
        torch.testing.assert_close(entry.sums, expected.entries[name].sums, rtol=3e-5, atol=0)


def test_sums_worked_by_hand(tiny_gguf):
    model = load_model(tiny_gguf(tokenizer__ggml__add_bos_token=True))
    tokens = torch.arange(20)
    found = collect_imatrix(model, tokens, n_ctx=8)
    ids = tokens[:16].view(2, 8).clone()
    ids[:, 0] = model.config.bos_id
    x = model.blk[0].attn_norm(model.token_embd(ids))  # (2, 8, 64): what attn_q, attn_k and attn_v read
    for name in ("attn_q", "attn_k", "attn_v"):
        entry = found.entries[f"blk.0.{name}.weight"]
        torch.testing.assert_close(entry.sums, x.square().sum((0, 1))[None])
        assert entry.counts.tolist() == [16] and entry.sums.dtype == torch.float32
    torch.testing.assert_close(found.importance("blk.0.attn_q.weight"), x.square().mean((0, 1)))
    assert found.importance("blk.1.ffn_down.weight").shape == (96,)
    assert found.importance("output.weight") is None and found.importance("token_embd.weight") is None


def test_the_output_matrix_on_demand(tiny_gguf):
    model = load_model(tiny_gguf())
    found = collect_imatrix(model, [1, 2, 3, 4] * 8, n_ctx=8, process_output=True)
    seen = []
    model.output_norm.register_forward_hook(lambda _, inputs, x: seen.append(x))
    model(torch.tensor([[1, 2, 3, 4] * 2]))
    torch.testing.assert_close(found.importance("output.weight"), seen[0].square().mean((0, 1)))
    tied = collect_imatrix(load_model(tiny_gguf(tied=True)), [1, 2, 3, 4] * 8, n_ctx=8, process_output=True)
    assert len(tied.entries) == 14 and len(found.entries) == 15


def test_no_logits_are_computed_and_no_hook_stays(tiny_gguf, monkeypatch):
    monkeypatch.setattr(windows, "BATCH_TOKENS", 16)
    model = load_model(tiny_gguf())
    calls, shapes = [], []
    model.register_forward_hook(lambda _, inputs, logits: shapes.append(tuple(logits.shape)))
    collect_imatrix(model, [1] * 45, n_ctx=8, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(2, 5), (4, 5), (5, 5)]
    assert shapes == [(2, 0, 264), (2, 0, 264), (1, 0, 264)]
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_hooks_go_after_an_error(tiny_gguf):
    model = load_model(tiny_gguf())

    def stop(*_):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        collect_imatrix(model, [1] * 64, n_ctx=8, progress=stop)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_text_leaves_its_sketch(tiny_gguf, lighthouse):
    model = load_model(tiny_gguf())
    by_text = collect_imatrix(model, lighthouse, n_ctx=128, dataset="lighthouse.txt")
    by_tokens = collect_imatrix(model, model.tokenizer.encode(lighthouse), n_ctx=128)
    assert by_text.sketch == by_tokens.sketch and overlap(by_text.sketch, lighthouse) == 1
    assert (by_text.datasets, by_tokens.datasets) == (("lighthouse.txt",), ())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e20])
def test_a_broken_model_is_named(tiny_gguf, value):
    model = load_model(tiny_gguf(change=lambda tensors: tensors["blk.1.attn_norm.weight"].fill(value)))
    with pytest.raises(ValueError, match=r"blk.1.attn_[qkv].weight: 64 sums of squared inputs are NaN or infinite"):
        collect_imatrix(model, list(range(64)), n_ctx=8)


@pytest.mark.parametrize(
    ("text", "n_ctx", "message"),
    [
        ("", 64, "0 tokens do not fill one window of n_ctx 64"),
        ("short", 64, "do not fill one window of n_ctx 64"),
        ("long enough " * 50, 129, "n_ctx 129 is above the model's 128"),
        ([1, 264] * 64, 64, "token ids 1 to 264 are not all in 0 to 263"),
        ([0.5] * 64, 64, "not \\(n,\\) integer ids"),
    ],
)
def test_bad_texts_are_refused(tiny_gguf, text, n_ctx, message):
    with pytest.raises(ValueError, match=message):
        collect_imatrix(load_model(tiny_gguf()), text, n_ctx)
