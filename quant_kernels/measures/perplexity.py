"""Perplexity as llama.cpp's llama-perplexity computes it, so that the figures can be laid side by side."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from quant_kernels.models.llama import Llama

BATCH_TOKENS = 1024  # tokens per forward pass: more is no faster on a CPU, and 49152 logits each take 200 MB

MAX_EXPONENT = math.log(sys.float_info.max)


@dataclass(frozen=True)
class Perplexity:
    """What `perplexity` found: value +/- standard_error over tokens_scored tokens in `windows` windows of n_ctx."""

    value: float
    standard_error: float
    tokens_scored: int
    windows: int
    n_ctx: int


def perplexity(
    model: Callable[[Tensor], Tensor],
    tokens: Sequence[int] | Tensor,
    n_ctx: int = 512,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Perplexity:
    """Returns exp of the mean negative log-likelihood of the second half of every window of n_ctx tokens.

    The windows do not overlap and the rest that fills none is dropped. Within a window the logits at positions
    n_ctx // 2 to n_ctx - 2 score the token that follows each: n_ctx - n_ctx // 2 - 1 tokens, for which the model
    sees at least half a window. A loaded model's `config.bos_id`, if set, replaces each first token.

    model: a loaded model, or any callable from ids (B, n_ctx) to logits (B, n_ctx, V), called under inference_mode.
    tokens: (n,) ids. progress: called with the windows done and their number, after each batch.
    Raises ValueError for too few tokens, an id outside the vocabulary, or an n_ctx below 3 or above the model's.
    Source: tools/perplexity/perplexity.cpp of llama.cpp, which asks for two windows where one is enough here.

    A model that knows nothing is as unsure as its vocabulary is large:

    >>> guess = lambda ids: torch.zeros(*ids.shape, 50)
    >>> result = perplexity(guess, list(range(40)), n_ctx=16)
    >>> round(result.value, 3), result.tokens_scored, result.windows
    (50.0, 14, 2)
    """
    windows = cut_windows(model, tokens, n_ctx)  # (W, n_ctx)
    total = square_total = 0.0
    with torch.inference_mode():
        for done, losses in token_losses(model, windows):
            total += losses.sum().item()
            square_total += losses.square().sum().item()
            if progress:
                progress(done, len(windows))
    return summarize(total, square_total, len(windows), n_ctx)


def cut_windows(model: Callable, tokens: Sequence[int] | Tensor, n_ctx: int) -> Tensor:
    """Returns the checked tokens as (n_windows, n_ctx)."""
    config = model.config if isinstance(model, Llama) else None
    tokens = torch.as_tensor(tokens)
    if tokens.ndim != 1 or (len(tokens) and (tokens.is_floating_point() or tokens.dtype == torch.bool)):
        raise ValueError(f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}, not (n,) integer ids")
    if n_ctx < 3:
        raise ValueError(f"n_ctx {n_ctx} is below 3: no token of a window's second half would be scored")
    if config is not None and n_ctx > config.n_ctx:
        raise ValueError(f"n_ctx {n_ctx} is above the model's {config.n_ctx}")
    if len(tokens) < n_ctx:
        raise ValueError(f"{len(tokens)} tokens do not fill one window of n_ctx {n_ctx}")
    if len(tokens) // n_ctx * scored_per_window(n_ctx) < 2:
        raise ValueError(f"{len(tokens)} tokens in windows of n_ctx {n_ctx} score one token: no standard error")
    check_ids(tokens, config.vocab if config is not None else math.inf)
    windows = tokens.long()[: len(tokens) // n_ctx * n_ctx].view(-1, n_ctx).clone()
    if config is not None and config.bos_id is not None:
        windows[:, 0] = config.bos_id
    return windows


def scored_per_window(n_ctx: int) -> int:
    return n_ctx - n_ctx // 2 - 1


def check_ids(tokens: Tensor, vocab: float) -> None:
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocab:
        raise ValueError(f"token ids {low} to {high} are not all in 0 to {vocab - 1}")


def token_losses(model: Callable[[Tensor], Tensor], windows: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yields, batch by batch, the windows done and the losses in nats of their scored tokens, float64 (n,)."""
    n_ctx = windows.shape[1]
    first = n_ctx // 2
    done = 0
    for batch in windows.split(max(1, BATCH_TOKENS // n_ctx)):
        logits = model(batch)[:, first:-1]  # (B, n_scored, V)
        targets = batch[:, first + 1 :].to(logits.device)  # (B, n_scored)
        check_ids(targets, logits.shape[-1])
        losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
        done += len(batch)
        yield done, losses.double()


def summarize(total: float, square_total: float, n_windows: int, n_ctx: int) -> Perplexity:
    n = n_windows * scored_per_window(n_ctx)
    mean = total / n
    variance = max(square_total / n - mean**2, 0.0)
    value = math.inf if mean > MAX_EXPONENT else math.exp(mean)
    return Perplexity(value, value * math.sqrt(variance / (n - 1)), n, n_windows, n_ctx)
