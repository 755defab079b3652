"""KL divergence and what goes with it: by hand, against llama-perplexity, and on models that are broken."""

import json
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant_kernels.measures import windows
from quant_kernels.measures.compare import Comparison, Estimate, compare, record, score
from quant_kernels.measures.memory import peak_memory
from quant_kernels.measures.perplexity import perplexity
from quant_kernels.models.gguf_file import load_model


def constant(*probabilities):
    """A model with the same probabilities everywhere."""
    logits = torch.tensor(probabilities, dtype=torch.float64).log().float()
    return lambda ids: logits.expand(*ids.shape, -1)


def by_token(table):
    """A model whose next probabilities are the table's row of the token that it reads."""
    logits = torch.tensor(table, dtype=torch.float64).log().float()
    return lambda ids: logits[ids]


TOKENS = [0, 1] * 8


def test_worked_by_hand():
    # Windows of 6: the logits at 3 and 4 score positions 4 and 5, here the tokens 0 and 1.
    base, other = by_token([[0.5, 0.5], [0.25, 0.75]]), by_token([[0.9, 0.1], [0.5, 0.5]])
    result = compare(base, other, [0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1], n_ctx=6)
    # After the token 1 comes 0 (p = 0.25, q = 0.5), and after 0 comes 1 (p = 0.5, q = 0.1); twice each.
    divergences = [
        0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5),
        0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1),
    ]
    losses, base_losses = [math.log(2), math.log(10)], [math.log(4), math.log(2)]
    ratios = [loss - base for loss, base in zip(losses, base_losses, strict=True)]
    assert result.kl_divergence == expected(divergences)
    assert result.log_ratio == expected(ratios)
    assert result.delta_p == expected([0.25, -0.4])
    assert result.delta_p_rms.value == pytest.approx(math.sqrt((0.25**2 + 0.4**2) / 2))
    assert result.same_top == expected([0, 1])  # at (0.5, 0.5) the first counts: 0 as after it, 0 against 1 before
    assert result.correlation == pytest.approx(-1)
    assert result.other.value == pytest.approx(math.sqrt(20))
    assert result.base.value == pytest.approx(math.sqrt(8))
    assert result.ratio.value == pytest.approx(math.sqrt(20 / 8))
    assert result.kl_percentiles[0] == pytest.approx(divergences[0], rel=1e-5)
    assert result.kl_percentiles[50] == pytest.approx(sum(divergences) / 2, rel=1e-5)
    assert result.delta_p_percentiles[25] == pytest.approx(-0.4)  # the second of four values is as low


def expected(pair):
    """The estimate of two values that occur twice each."""
    difference = pair[0] - pair[1]
    return Estimate(pytest.approx(sum(pair) / 2, rel=1e-5), pytest.approx(abs(difference) / math.sqrt(12), rel=1e-5))


PRINTED = {  # llama-perplexity's label: the figure here, and its unit
    "Mean PPL(Q)": (lambda c: c.other, 1),
    "Mean PPL(base)": (lambda c: c.base, 1),
    "Mean ln(PPL(Q)/PPL(base))": (lambda c: c.log_ratio, 1),
    "Mean PPL(Q)/PPL(base)": (lambda c: c.ratio, 1),
    "Mean PPL(Q)-PPL(base)": (lambda c: c.difference, 1),
    "Mean    KLD": (lambda c: c.kl_divergence, 1),
    "Mean    Δp": (lambda c: c.delta_p, 100),
    "RMS Δp": (lambda c: c.delta_p_rms, 100),
    "Same top p": (lambda c: c.same_top, 100),
}
PERCENTILES = {"Minimum": 0, "Median ": 50, "Maximum": 100} | {f"{at}%  ": at for at in (0.1, 99.9)}
PERCENTILES |= {f"{at}.0%  ": at for at in (1, 5, 10, 25, 75, 90, 95, 99)}


def test_as_llama_perplexity_prints(tiny_pair, lighthouse, golden):
    # Its base's probabilities are rounded to 16 bits, which is where the last digits come from.
    printed = json.loads((golden / "tiny_compare.json").read_text())
    base, other = tiny_pair
    result = compare(base, other, base.tokenizer.encode(lighthouse, add_special=True), n_ctx=64)
    for label, (figure, unit) in PRINTED.items():
        estimate, (value, error) = figure(result), printed.pop(label)
        digits = 1e-6 if unit == 1 else 6e-4
        assert unit * estimate.value == pytest.approx(value, rel=1e-6, abs=max(digits, 3e-4 * (label[5:8] == "PPL")))
        assert unit * estimate.standard_error == pytest.approx(error, rel=2e-5, abs=digits)
    assert 100 * result.correlation == pytest.approx(printed.pop("Cor(ln(PPL(Q)), ln(PPL(base)))")[0], abs=6e-3)
    for label, (value,) in printed.items():
        at = next(at for name, at in PERCENTILES.items() if label.startswith(name))
        if label.endswith("KLD"):
            assert result.kl_percentiles[at] == pytest.approx(value, abs=3e-5)
        else:
            assert 100 * result.delta_p_percentiles[at] == pytest.approx(value, abs=6e-4)
    assert len(printed) == 11 + 13


def test_a_model_does_not_stray_from_itself(tiny_pair, lighthouse):
    base, _ = tiny_pair
    result = compare(base, base, base.tokenizer.encode(lighthouse)[:500], n_ctx=64)
    zero = Estimate(0, 0)
    assert result.kl_divergence == result.log_ratio == result.delta_p == result.delta_p_rms == zero
    assert result.same_top == Estimate(1, 0) and result.ratio == Estimate(1, 0)
    assert result.correlation == pytest.approx(1) and result.difference.value == 0
    assert set(result.kl_percentiles.values()) == set(result.delta_p_percentiles.values()) == {0}


def test_the_direction_matters(tiny_pair, lighthouse):
    base, other = tiny_pair
    tokens = base.tokenizer.encode(lighthouse)[:500]
    one, back = compare(base, other, tokens, n_ctx=64), compare(other, base, tokens, n_ctx=64)
    assert abs(one.kl_divergence.value - back.kl_divergence.value) > 5e-5
    assert one.log_ratio.value == pytest.approx(-back.log_ratio.value)
    assert one.same_top == back.same_top


@given(st.integers(0, 2**32), st.floats(-1e3, 1e3), st.sampled_from([1e-4, 0.1, 10]))
def test_divergence_is_not_negative_and_knows_no_offset(seed, offset, noise):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(20, 50, generator=generator)
    other = base + noise * torch.randn(20, 50, generator=generator)
    targets = torch.zeros(20, dtype=torch.long)
    divergence = score(base, other, targets)[:, 0]
    assert (divergence >= -1e-15).all()
    reference = torch.nn.functional.kl_div(
        other.double().log_softmax(-1), base.double().log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    torch.testing.assert_close(divergence, reference)
    torch.testing.assert_close(score(base.double() + offset, other.double() - offset, targets)[:, 0], divergence)


def test_both_perplexities_are_those_of_perplexity(tiny_pair, lighthouse):
    base, other = tiny_pair
    tokens = base.tokenizer.encode(lighthouse)[:500]
    result = compare(base, other, tokens, n_ctx=64)
    for found, model in ((result.base, base), (result.other, other)):
        expected = perplexity(model, tokens, n_ctx=64)
        assert (found.value, found.nats) == pytest.approx((expected.value, expected.nats), rel=1e-6)
        assert found.standard_error == pytest.approx(expected.standard_error, rel=1e-6)
        assert (found.tokens_scored, found.windows, found.n_ctx) == (7 * 31, 7, 64)


def test_a_recording_gives_the_same_to_each(tiny_pair, lighthouse, monkeypatch):
    monkeypatch.setattr(windows, "BATCH_TOKENS", 128)
    base, other = tiny_pair
    tokens = base.tokenizer.encode(lighthouse)[:500]
    calls = []
    base.register_forward_pre_hook(lambda *_: calls.append(1))
    with record(base, tokens, n_ctx=64) as recording:
        assert len(calls) == 4
        assert recording.compare(other) == recording.compare(other) == compare(base, other, tokens, n_ctx=64)
        assert len(calls) == 8  # the last of the three
        assert pickle.loads(pickle.dumps(recording)).compare(other) == recording.compare(other)
        assert recording.path.stat().st_size == 4 * 264 * 7 * 31
    assert not recording.path.parent.exists()


def test_a_recording_is_removed_after_an_error(tiny_pair):
    base, _ = tiny_pair
    with pytest.raises(RuntimeError, match="stop"), record(base, [1] * 128, n_ctx=64) as recording:
        raise RuntimeError("stop")
    assert not recording.path.parent.exists()


def test_progress_of_both(tiny_pair, monkeypatch):
    monkeypatch.setattr(windows, "BATCH_TOKENS", 128)
    base, other = tiny_pair
    calls = []

    def progress(done, total):
        calls.append((done, total))

    with record(base, [1] * 300, n_ctx=64, progress=progress) as recording:
        recording.compare(other, progress)
    assert calls == [(2, 4), (4, 4)] * 2


@pytest.mark.parametrize("broken", ["base", "other", "both"])
def test_nan_makes_each_figure_nan(broken):
    def nan_after_token_1(ids):
        return torch.where(ids[..., None] == 1, math.nan, constant(0.25, 0.75)(ids))

    base = constant(0.5, 0.5) if broken == "other" else nan_after_token_1
    other = constant(0.5, 0.5) if broken == "base" else nan_after_token_1
    result = compare(base, other, TOKENS, n_ctx=8)
    assert result.tokens_undefined == 2  # of six: the logits at 4 to 6 of both windows score, of which 5 reads a 1
    for figure in (result.kl_divergence, result.same_top, result.log_ratio, result.delta_p, result.delta_p_rms):
        assert math.isnan(figure.value) and math.isnan(figure.standard_error)
    assert math.isnan(result.kl_percentiles[50]) and math.isnan(result.delta_p_percentiles[50])


def test_tokens_that_are_ruled_out():
    base, other = constant(0.5, 0.5, 0), constant(0.25, 0.75, 0)
    result = compare(base, other, TOKENS, n_ctx=8)
    assert result.kl_divergence.value == pytest.approx(
        compare(constant(0.5, 0.5), constant(0.25, 0.75), TOKENS, 8).kl_divergence.value
    )
    assert compare(constant(0.5, 0.25, 0.25), other, TOKENS, n_ctx=8).kl_divergence.value == math.inf
    impossible = compare(base, other, [2] * 16, n_ctx=8)  # the text is what both rule out
    assert impossible.other.value == math.inf and math.isnan(impossible.log_ratio.value)
    assert impossible.kl_divergence.value == pytest.approx(result.kl_divergence.value)


def test_other_vocabularies_are_refused(tiny_gguf, tiny_pair):
    with pytest.raises(ValueError, match="the base's vocabulary has 2 tokens, the other's 3"):
        compare(constant(0.5, 0.5), constant(0.5, 0.25, 0.25), TOKENS, n_ctx=8)
    base, _ = tiny_pair
    tokens = [*base.metadata["tokenizer.ggml.tokens"]]
    tokens[3], tokens[4] = tokens[4], tokens[3]
    swapped = load_model(tiny_gguf(claims={"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.add_bos_token": True}))
    swapped.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    message = "do not share a tokenizer: tokenizer.ggml.tokens differ"
    with pytest.raises(ValueError, match=message):
        compare(base, swapped, [1] * 128, n_ctx=64)
    with record(base, [1] * 128, n_ctx=64) as recording, pytest.raises(ValueError, match=message):
        recording.compare(swapped)
    with pytest.raises(ValueError, match="do not share a tokenizer: BOS differ"):
        compare(base, load_model(tiny_gguf()), [1] * 128, n_ctx=64)


@pytest.mark.parametrize(
    ("tokens", "n_ctx", "message"),
    [([], 8, "0 tokens do not fill one window"), ([1] * 7, 8, "7 tokens do not fill"), ([5] * 16, 8, "5 to 5 are not")],
)
def test_bad_tokens_are_refused(tokens, n_ctx, message):
    model = constant(0.5, 0.5)
    with pytest.raises(ValueError, match=message):
        compare(model, model, tokens, n_ctx)
    with pytest.raises(ValueError, match=message), record(model, tokens, n_ctx):
        pass


def test_an_error_is_not_larger_than_its_parts():
    # Losses that go together: the error of the difference is that of the paired differences.
    random = np.random.RandomState(0)
    base_losses = random.gamma(2, size=500)
    losses = base_losses + 0.1 * random.standard_normal(500)
    vocabulary = np.exp(-np.stack([base_losses, losses]))  # (2, 500)

    def model(row):
        p = torch.tensor(np.stack([vocabulary[row], 1 - vocabulary[row]], -1))  # (500, 2)
        return lambda ids: p.log()[None, : ids.shape[1]].expand(len(ids), -1, -1)

    result = compare(model(0), model(1), [0] * 400, n_ctx=400)
    assert isinstance(result, Comparison)
    unpaired = math.hypot(
        result.base.standard_error / result.base.value, result.other.standard_error / result.other.value
    )
    assert result.log_ratio.standard_error < unpaired / 5
    se = {name: getattr(result, name).standard_error / getattr(result, name).value for name in ("base", "other")}
    paired = math.sqrt(se["base"] ** 2 + se["other"] ** 2 - 2 * result.correlation * se["base"] * se["other"])
    assert result.log_ratio.standard_error == pytest.approx(paired)


def test_no_more_than_a_batch_is_held(monkeypatch):
    monkeypatch.setattr(windows, "BATCH_TOKENS", 64)
    tokens = torch.arange(90 * 64) % 8_000

    def model(ids):
        return ids[..., None] / (1 + torch.arange(8_000.0))

    compare(model, model, tokens[:128], 64)
    result, peak = peak_memory(compare, model, model, tokens, 64)
    assert result.kl_divergence.value == 0
    assert peak < 0.5 * 90 * 31 * 8_000 * 4  # half of what the scored logits of one model take
