"""How a text is cut into the windows that a model reads, and the logits that score it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from quant_kernels.models.llama import Config, Llama

BATCH_TOKENS = 1024  # tokens per forward pass: more is no faster on a CPU, and 49152 logits each take 200 MB


class Window(NamedTuple):
    """The tokens start to stop - 1 of a text, which a model reads at once; those from `scored` on are scored."""

    start: int
    scored: int
    stop: int


def half_windows(n_tokens: int, n_ctx: int) -> list[Window]:
    """Windows that do not overlap, of which the second half is scored; the rest that fills none is dropped.

    Source: tools/perplexity/perplexity.cpp of llama.cpp. The logits at n_ctx // 2 are the first that score, so that
    the token there is not scored itself.

    >>> half_windows(20, n_ctx=8)
    [Window(start=0, scored=5, stop=8), Window(start=8, scored=13, stop=16)]
    """
    return [Window(start, start + n_ctx // 2 + 1, start + n_ctx) for start in range(0, n_tokens - n_ctx + 1, n_ctx)]


def strided_windows(n_tokens: int, n_ctx: int, stride: int) -> list[Window]:
    """Windows that begin every `stride` tokens and score what the one before has not; the last may be shorter.

    >>> strided_windows(11, n_ctx=6, stride=2)  # doctest: +NORMALIZE_WHITESPACE
    [Window(start=0, scored=1, stop=6), Window(start=2, scored=6, stop=8), Window(start=4, scored=8, stop=10),
     Window(start=6, scored=10, stop=11)]
    """
    starts = range(0, max(1, n_tokens - n_ctx + stride), stride)
    fresh = max(1, n_ctx - stride)  # the first token of a window has nothing before it that could score it
    windows = [Window(s, s + fresh if s else 1, min(s + n_ctx, n_tokens)) for s in starts]
    return [window for window in windows if window.scored < window.stop]


@dataclass(frozen=True)
class Plan:
    """A text's tokens (n,) and the windows in which they are read."""

    tokens: Tensor
    windows: list[Window]
    n_ctx: int
    stride: int | None = None
    bos_id: int | None = None  # replaces the first token of each window

    @property
    def n_scored(self) -> int:
        return sum(window.stop - window.scored for window in self.windows)

    def batches(self) -> Iterator[tuple[Tensor, int]]:
        """Yields ids (B, T) of windows that are alike, and the position in them whose logits are the first to score."""
        for (length, scored), alike in groupby(self.windows, lambda w: (w.stop - w.start, w.scored - w.start)):
            starts = torch.tensor([window.start for window in alike])
            for some in starts.split(max(1, BATCH_TOKENS // length)):
                ids = self.tokens[some[:, None] + torch.arange(length)]  # (B, T), a copy
                if self.bos_id is not None:
                    ids[:, 0] = self.bos_id
                yield ids, scored - 1

    def scored_logits(self, model: Callable[[Tensor], Tensor]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yields, batch by batch, the windows done, logits (n, V), and the tokens that they score (n,)."""
        done = 0
        for ids, first in self.batches():
            logits = logits_between(model, ids, slice(first, -1))  # (B, T - 1 - first, V)
            targets = ids[:, first + 1 :].to(logits.device)  # (B, T - 1 - first)
            check_ids(targets, logits.shape[-1])
            done += len(ids)
            yield done, logits.flatten(0, 1), targets.flatten()


def logits_between(model: Callable[[Tensor], Tensor], ids: Tensor, positions: slice) -> Tensor:
    """The logits at some positions; a Llama is spared the output matrix's work on the others."""
    if isinstance(model, Llama):
        return model(ids, positions)
    logits = model(ids)
    if logits.shape[:-1] != ids.shape:
        raise ValueError(f"the model turns ids {tuple(ids.shape)} into {tuple(logits.shape)}, not into (B, T, V)")
    return logits[:, positions]


def plan_windows(model: Callable, tokens: Sequence[int] | Tensor, n_ctx: int, stride: int | None = None) -> Plan:
    """Returns the checked plan that scores a text: strided windows if there is a stride, half windows if not."""
    config = model.config if isinstance(model, Llama) else None
    tokens = checked_tokens(tokens)  # (n,)
    if config is not None and n_ctx > config.n_ctx:
        raise ValueError(f"n_ctx {n_ctx} is above the model's {config.n_ctx}")
    plan = plan_halves(tokens, n_ctx, config) if stride is None else plan_strides(tokens, n_ctx, stride)
    if plan.n_scored < 2:
        scored = "one token" if plan.n_scored else "no token"
        raise ValueError(f"{len(tokens)} tokens in windows of n_ctx {n_ctx} score {scored}: no standard error")
    check_ids(tokens, config.vocab if config is not None else math.inf)
    return plan


def plan_halves(tokens: Tensor, n_ctx: int, config: Config | None) -> Plan:
    if n_ctx < 3:
        raise ValueError(f"n_ctx {n_ctx} is below 3: no token of a window's second half would be scored")
    if len(tokens) < n_ctx:
        raise ValueError(f"{len(tokens)} tokens do not fill one window of n_ctx {n_ctx}")
    bos_id = config.bos_id if config is not None else None
    return Plan(tokens, half_windows(len(tokens), n_ctx), n_ctx, bos_id=bos_id)


def plan_strides(tokens: Tensor, n_ctx: int, stride: int) -> Plan:
    if n_ctx < 2:
        raise ValueError(f"n_ctx {n_ctx} is below 2: no token would have another before it")
    if not 1 <= stride <= n_ctx:
        raise ValueError(f"stride {stride} is not in 1 to {n_ctx}, the window's length")
    return Plan(tokens, strided_windows(len(tokens), n_ctx, stride), n_ctx, stride)


def checked_tokens(tokens: Sequence[int] | Tensor) -> Tensor:
    tokens = torch.as_tensor(tokens)
    if tokens.ndim != 1 or (len(tokens) and (tokens.is_floating_point() or tokens.dtype == torch.bool)):
        raise ValueError(f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}, not (n,) integer ids")
    return tokens.long()


def check_ids(tokens: Tensor, vocab: float) -> None:
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocab:
        raise ValueError(f"token ids {low} to {high} are not all in 0 to {vocab - 1}")
