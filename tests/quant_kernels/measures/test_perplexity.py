"""Perplexity on models whose probabilities are known."""

import codecs
import contextlib
import io
import math

import pytest
import torch

from quant_kernels.measures import windows
from quant_kernels.measures.overlap import KEY, sketch_text
from quant_kernels.measures.perplexity import bits_per_byte, perplexity, perplexity_of_text, word_perplexity
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
    assert (result.tokens_scored, result.windows, result.n_ctx, result.stride) == (4, 2, 6, None)
    assert result.nats == pytest.approx(sum(losses))


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
    monkeypatch.setattr(windows, "BATCH_TOKENS", 1)
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


@pytest.mark.parametrize(("n_ctx", "printed"), [(32, 19.1277), (64, 12.4772), (96, 18.2102)])
def test_the_zen_of_python_as_llama_perplexity_reads_it(smollm2, n_ctx, printed):
    """Question 9 prints these figures; llama-perplexity of llama.cpp 0c1e57098, SmolLM2 converted to F32."""
    with contextlib.redirect_stdout(io.StringIO()):
        import this
    zen = smollm2.tokenizer.encode(codecs.decode(this.s, "rot13"))
    assert perplexity(smollm2, zen, n_ctx).value == pytest.approx(printed, rel=2e-5)


def test_runs_without_gradients_and_reports_progress(monkeypatch):
    monkeypatch.setattr(windows, "BATCH_TOKENS", 16)
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


def test_strides_worked_by_hand():
    # Windows of 4 every 2: tokens 1 to 3, then 4 and 5, then 6. Losses ln 2, ln 2, ln 2, ln 32, ln 32, ln 32.
    result = perplexity(table_model([math.log(2), math.log(32)]), [1, 0, 0, 0, 1, 1, 1], n_ctx=4, stride=2)
    assert result.value == pytest.approx(8)
    assert (result.tokens_scored, result.windows, result.stride) == (6, 3, 2)


def test_strides_score_with_all_that_the_window_holds(tiny_gguf, lighthouse):
    model = load_model(tiny_gguf())
    tokens = torch.tensor(model.tokenizer.encode(lighthouse)[:50])
    result = perplexity(model, tokens, n_ctx=16, stride=5)
    losses = []
    for i in range(1, 50):  # the window of each token, looked for one by one
        start = next(s for s in range(0, 50, 5) if min(s + 16, 50) > i)
        logits = model(tokens[None, start:i])[0, -1]
        losses.append(-logits.log_softmax(-1)[tokens[i]].item())
    assert result.nats == pytest.approx(sum(losses), rel=1e-5)


def test_a_stride_keeps_the_tokens_as_they_are(tiny_gguf):
    model = load_model(tiny_gguf(claims={"tokenizer.ggml.add_bos_token": True}))
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    perplexity(model, torch.arange(12), n_ctx=8, stride=4)
    assert torch.equal(torch.cat(seen), torch.stack([torch.arange(8), torch.arange(4, 12)]))


def test_a_text_shorter_than_a_window_is_one_strided_window():
    result = perplexity(table_model([math.log(2)]), [0, 0, 0], n_ctx=512, stride=256)
    assert (result.tokens_scored, result.windows, result.value) == (2, 1, pytest.approx(2))


def test_units_of_a_text(tiny_gguf):
    model = load_model(tiny_gguf(claims={"tokenizer.ggml.add_bos_token": True}))
    text = "the hand\nand thé\u3000\U0001f600 then "  # 29 bytes, 5 words; the tiny vocabulary knows "the", "and", "in"
    result = perplexity_of_text(model, text, n_ctx=64, stride=32)
    n_tokens = len(model.tokenizer.encode(text))
    assert (result.tokens_scored, result.bytes_scored, result.words_scored) == (n_tokens, len(text.encode()), 6)
    assert result.bits_per_byte == pytest.approx(result.nats / math.log(2) / len(text.encode()))
    assert result.bits_per_byte == bits_per_byte(result, result.bytes_scored)
    assert result.word_perplexity == pytest.approx(math.exp(result.nats / 6)) == word_perplexity(result, 6)


def test_perplexity_of_a_text_is_that_of_its_tokens(tiny_gguf, lighthouse):
    model = load_model(tiny_gguf(claims={"tokenizer.ggml.add_bos_token": True}))
    result = perplexity_of_text(model, lighthouse, n_ctx=64)
    expected = perplexity(model, model.tokenizer.encode(lighthouse, add_special=True), n_ctx=64)
    assert all(getattr(result, name) == value for name, value in vars(expected).items())


def test_a_text_without_a_word_in_its_scored_part(tiny_gguf):
    result = perplexity_of_text(load_model(tiny_gguf()), "x" * 64, n_ctx=64)
    assert (result.bytes_scored, result.words_scored) == (31, 0)
    assert math.isnan(result.word_perplexity) and result.bits_per_byte > 0


def test_no_bytes_and_no_words_have_no_measure():
    result = perplexity(lambda ids: torch.zeros(*ids.shape, VOCAB), [1] * 16, 8)
    with pytest.raises(ValueError, match="0 bytes were scored"):
        bits_per_byte(result, 0)
    with pytest.raises(ValueError, match="0 words were scored"):
        word_perplexity(result, 0)


def test_the_calibration_text_is_refused(tiny_gguf, lighthouse):
    model = load_model(tiny_gguf())
    model.metadata[KEY] = list(sketch_text(lighthouse).hashes)
    with pytest.raises(ValueError, match=r"share 100% of the shorter one's sequences of 13 words; the limit is 10%"):
        perplexity_of_text(model, lighthouse[300:2000], n_ctx=64)
