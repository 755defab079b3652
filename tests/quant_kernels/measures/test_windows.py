"""Which tokens are scored, and with how much before them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant_kernels.measures import windows as module
from quant_kernels.measures.windows import Window, half_windows, plan_windows, strided_windows


def test_half_windows_worked_by_hand():
    assert half_windows(20, n_ctx=6) == [Window(0, 4, 6), Window(6, 10, 12), Window(12, 16, 18)]
    assert half_windows(7, n_ctx=7) == [Window(0, 4, 7)]


def windows_of_the_guide(n_tokens, n_ctx, stride):
    """The loop of the perplexity guide of transformers, whose first label of a window has no logits before it."""
    windows, before = [], 0
    for start in range(0, n_tokens, stride):
        stop = min(start + n_ctx, n_tokens)
        fresh = stop - before
        windows.append((start, max(stop - fresh, start + 1), stop))
        before = stop
        if stop == n_tokens:
            break
    return [Window(*window) for window in windows if window[1] < window[2]]


@given(st.integers(1, 200), st.integers(2, 40), st.data())
def test_strided_windows_are_those_of_the_guide(n_tokens, n_ctx, data):
    stride = data.draw(st.integers(1, n_ctx))
    assert strided_windows(n_tokens, n_ctx, stride) == windows_of_the_guide(n_tokens, n_ctx, stride)


@given(st.integers(2, 200), st.integers(2, 40), st.data())
def test_a_stride_scores_each_token_but_the_first_once(n_tokens, n_ctx, data):
    stride = data.draw(st.integers(1, n_ctx - 1))
    windows = strided_windows(n_tokens, n_ctx, stride)
    assert [i for w in windows for i in range(w.scored, w.stop)] == list(range(1, n_tokens))
    assert all(w.stop - w.start <= n_ctx for w in windows)
    assert all(w.scored - w.start >= n_ctx - stride for w in windows[1:])


def test_a_stride_as_long_as_the_window_leaves_out_first_tokens():
    assert strided_windows(10, n_ctx=4, stride=4) == [Window(0, 1, 4), Window(4, 5, 8), Window(8, 9, 10)]
    assert strided_windows(9, n_ctx=4, stride=4) == [Window(0, 1, 4), Window(4, 5, 8)]


@given(st.integers(3, 60), st.integers(2, 12), st.integers(1, 30), st.data())
def test_logits_stand_beside_the_tokens_that_they_score(n_tokens, n_ctx, batch_tokens, data):
    stride = data.draw(st.integers(1, n_ctx))
    tokens = torch.arange(n_tokens + 1)  # each token is its own position

    def model(ids):  # (B, T) -> logits that name the token they were read from
        return torch.nn.functional.one_hot(ids, n_tokens + 1).float()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH_TOKENS", batch_tokens)
        plan = plan_windows(model, tokens, n_ctx, stride)
        for _, logits, targets in plan.scored_logits(model):
            assert torch.equal(logits.argmax(-1) + 1, targets)


def test_batches_hold_windows_of_one_kind_and_no_more_than_asked(monkeypatch):
    monkeypatch.setattr(module, "BATCH_TOKENS", 20)
    plan = plan_windows(lambda ids: ids, torch.arange(30), 8, stride=3)
    shapes = [(tuple(ids.shape), first) for ids, first in plan.batches()]
    assert shapes == [((1, 8), 0), *[((2, 8), 4)] * 3, ((1, 8), 4), ((1, 6), 4)]


def test_a_model_that_loses_positions_is_named():
    with pytest.raises(ValueError, match=r"turns ids \(2, 8\) into \(2, 4, 5\), not into \(B, T, V\)"):
        list(plan_windows(None, [1] * 16, 8).scored_logits(lambda ids: torch.zeros(len(ids), 4, 5)))


@pytest.mark.parametrize(
    ("n_tokens", "n_ctx", "stride", "message"),
    [
        (20, 8, 0, "stride 0 is not in 1 to 8"),
        (20, 8, 9, "stride 9 is not in 1 to 8"),
        (20, 1, 1, "n_ctx 1 is below 2"),
        (0, 8, 4, "0 tokens in windows of n_ctx 8 score no token"),
        (1, 8, 4, "1 tokens in windows of n_ctx 8 score no token"),
        (2, 8, 4, "2 tokens in windows of n_ctx 8 score one token"),
    ],
)
def test_bad_strides_and_short_texts_are_refused(n_tokens, n_ctx, stride, message):
    with pytest.raises(ValueError, match=message):
        plan_windows(lambda ids: ids, [1] * n_tokens, n_ctx, stride)
