"""Perplexity on models whose probabilities are known."""

import math

import pytest
import torch

from quant_kernels.measures import perplexity as module
from quant_kernels.measures.perplexity import perplexity
from quant_kernels.models.gguf_file import load_model

VOCAB = 8


def table_model(losses):
    """A model that gives the token t, wherever it stands, the loss losses[t]; the last id takes what is left."""
    logits = -torch.tensor(losses, dtype=torch.float64)
    rest = torch.log(1 - logits.exp().sum())
    logits = torch.cat([logits, rest[None]]).float()

    def model(tokens):  # (B, T) -> (B, T, len(losses) + 1)
        return logits.expand(*tokens.shape, -1)

    return model


def test_worked_by_hand():
    # Windows of 6: positions 4 and 5 are scored, by the logits at 3 and 4. Losses ln 4, ln 8, ln 8, ln 8.
    tokens = [2, 2, 2, 2, 0, 1, 2, 2, 2, 2, 1, 1, 0, 0]
    result = perplexity(table_model([math.log(4), math.log(8)]), tokens, n_ctx=6)
    losses = [math.log(4), math.log(8), math.log(8), math.log(8)]
    mean = sum(losses) / 4
    deviation = math.sqrt(sum(loss**2 for loss in losses) / 4 - mean**2)
    assert result.value == pytest.approx(math.exp(mean))
    assert result.standard_error == pytest.approx(math.exp(mean) * deviation / math.sqrt(3), rel=1e-5)
    assert (result.tokens_scored, result.windows, result.n_ctx) == (4, 2, 6)


def test_one_mean_over_all_tokens_not_a_mean_of_windows():
    tokens = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    result = perplexity(table_model([math.log(2), math.log(32)]), tokens, n_ctx=6)
    assert result.value == pytest.approx(8)  # the windows' own perplexities, 2 and 32, average to 17


@pytest.mark.parametrize(("n_ctx", "scored"), [(3, 1), (4, 1), (5, 2), (64, 31), (65, 32)])
def test_second_half_is_scored(n_ctx, scored):
    seen = []

    def model(tokens):
        seen.append(tokens)
        return torch.zeros(*tokens.shape, VOCAB)

    result = perplexity(model, [1] * (n_ctx * 3 + n_ctx - 1), n_ctx)
    assert (result.windows, result.tokens_scored) == (3, 3 * scored)
    assert torch.cat(seen).shape == (3, n_ctx)
    assert result.value == pytest.approx(VOCAB) and result.standard_error == pytest.approx(0, abs=1e-3)


def test_batching_changes_nothing(tiny_gguf, lighthouse, monkeypatch):
    model = load_model(tiny_gguf())
    tokens = model.tokenizer.encode(lighthouse)[:2000]
    by_default = perplexity(model, tokens, n_ctx=64)
    monkeypatch.setattr(module, "BATCH_TOKENS", 1)
    one_by_one = perplexity(model, tokens, n_ctx=64)
    assert one_by_one.value == pytest.approx(by_default.value, rel=1e-6)
    assert one_by_one.tokens_scored == by_default.tokens_scored


def test_bos_replaces_each_windows_first_token_only(tiny_gguf):
    model = load_model(tiny_gguf(claims={"tokenizer.ggml.add_bos_token": True}))
    tokens = torch.arange(40)
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    perplexity(model, tokens, n_ctx=20)
    expected = torch.arange(40).view(2, 20)
    expected[:, 0] = 262
    assert torch.equal(torch.cat(seen), expected)
    assert torch.equal(tokens, torch.arange(40))


def test_runs_without_gradients_and_reports_progress(monkeypatch):
    monkeypatch.setattr(module, "BATCH_TOKENS", 16)
    calls = []

    def model(tokens):
        assert torch.is_inference_mode_enabled()
        return torch.zeros(*tokens.shape, VOCAB, dtype=torch.bfloat16)

    perplexity(model, torch.ones(42, dtype=torch.int32), 8, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(2, 5), (4, 5), (5, 5)]


def test_nan_and_hopeless_models_have_a_value():
    def broken(value):
        return lambda tokens: torch.full((*tokens.shape, VOCAB), value)

    assert math.isnan(perplexity(broken(float("nan")), [1] * 16, 8).value)
    surest = torch.tensor([1e4] + [0.0] * (VOCAB - 1))
    assert perplexity(lambda tokens: surest.expand(*tokens.shape, -1), [1] * 16, 8).value == math.inf


@pytest.mark.parametrize(
    ("tokens", "n_ctx", "message"),
    [
        ([], 8, "0 tokens do not fill one window of n_ctx 8"),
        ([1] * 7, 8, "7 tokens do not fill one window of n_ctx 8"),
        ([1] * 7, 4, "score one token: no standard error"),
        ([1] * 20, 2, "n_ctx 2 is below 3"),
        ([1] * 20, -5, "n_ctx -5 is below 3"),
        ([1, -1] * 8, 8, "token ids -1 to 1 are not all in 0"),
        ([1.0] * 16, 8, r"tokens are torch.float32 of shape \(16,\), not \(n,\) integer ids"),
        ([[1] * 16], 8, r"of shape \(1, 16\)"),
        ([1] * 15 + [VOCAB], 8, "token ids 1 to 8 are not all in 0 to 7"),
    ],
)
def test_bad_input_is_refused(tokens, n_ctx, message):
    with pytest.raises(ValueError, match=message):
        perplexity(lambda ids: torch.zeros(*ids.shape, VOCAB), tokens, n_ctx)


def test_limits_of_a_loaded_model_are_checked_before_it_runs(tiny_gguf):
    model = load_model(tiny_gguf())
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match="n_ctx 129 is above the model's 128"):
        perplexity(model, [1] * 500, n_ctx=129)
    with pytest.raises(ValueError, match="token ids 1 to 264 are not all in 0 to 263"):
        perplexity(model, [1] * 499 + [264], n_ctx=64)
