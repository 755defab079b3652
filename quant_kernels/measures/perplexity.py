"""Perplexity as llama.cpp's llama-perplexity computes it, or over strided windows; per token, byte and word."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from quant_kernels.measures.overlap import calibration_sketch, check_overlap
from quant_kernels.measures.units import count_units
from quant_kernels.measures.windows import Plan, plan_windows
from quant_kernels.models.llama import Llama

MAX_EXPONENT = math.log(sys.float_info.max)


@dataclass(frozen=True)
class Perplexity:
    """What `perplexity` found: value +/- standard_error over tokens_scored tokens in `windows` windows of n_ctx."""

    value: float
    standard_error: float
    tokens_scored: int
    windows: int
    n_ctx: int
    stride: int | None  # None: llama-perplexity's windows
    nats: float  # the sum of the negative log-likelihoods


@dataclass(frozen=True)
class TextPerplexity(Perplexity):
    """A perplexity with what the scored tokens stand for, which makes it comparable across tokenizers."""

    bytes_scored: int
    words_scored: int  # words that begin in a scored token
    bits_per_byte: float
    word_perplexity: float


def perplexity(
    model: Callable[[Tensor], Tensor],
    tokens: Sequence[int] | Tensor,
    n_ctx: int = 512,
    *,
    stride: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Perplexity:
    """Returns exp of the mean negative log-likelihood of the second half of every window of n_ctx tokens.

    The windows do not overlap and the rest that fills none is dropped. Within a window the logits at positions
    n_ctx // 2 to n_ctx - 2 score the token that follows each: n_ctx - n_ctx // 2 - 1 tokens, for which the model
    sees at least half a window. A loaded model's `config.bos_id`, if set, replaces each first token.

    With a stride, windows begin every `stride` tokens instead, the last one ends with the text, and each scores the
    tokens that the one before has not: every token but the first is scored once, from the second window on with
    n_ctx - stride tokens or more before it. With stride = n_ctx the windows are disjoint, and no first token of a
    window is scored. The tokens are read as they are: put a BOS before them if the model wants one.

    model: a loaded model, or any callable from ids (B, T) to logits (B, T, V), called under inference_mode.
    tokens: (n,) ids. progress: called with the windows done and their number, after each batch.
    Raises ValueError for too few tokens, an id outside the vocabulary, an n_ctx below 3 (with a stride 2) or above the
    model's, or a stride that is not in 1 to n_ctx.
    Source: tools/perplexity/perplexity.cpp of llama.cpp, which asks for two windows where one is enough here; the
    strided windows are those of the perplexity guide of transformers. llama.cpp's own --ppl-stride is a third
    convention: it leaves the first n_ctx - stride tokens of the text unscored, and the last ones.

    A model that knows nothing is as unsure as its vocabulary is large:

    >>> guess = lambda ids: torch.zeros(*ids.shape, 50)
    >>> result = perplexity(guess, list(range(40)), n_ctx=16)
    >>> round(result.value, 3), result.tokens_scored, result.windows
    (50.0, 14, 2)
    >>> perplexity(guess, list(range(40)), n_ctx=16, stride=8).tokens_scored
    39
    """
    return run(model, plan_windows(model, tokens, n_ctx, stride), progress)


def perplexity_of_text(
    model: Llama,
    text: str,
    n_ctx: int = 512,
    *,
    stride: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TextPerplexity:
    """Returns the perplexity of a text, with bits per byte and word perplexity of the part that was scored.

    The model's tokenizer cuts the text, behind the BOS that it asks for. Words are what whitespace separates; a word
    counts where its first byte is scored.

    Raises ValueError as `perplexity` does, and if the text overlaps with the one that the model was calibrated on.

    >>> perplexity_of_text(lambda ids: ids, "A text.")
    Traceback (most recent call last):
    ValueError: a function has no tokenizer: load_model gives a model that has one
    """
    if not isinstance(model, Llama):
        raise ValueError(f"a {type(model).__name__} has no tokenizer: load_model gives a model that has one")
    check_overlap(calibration_sketch(model.metadata), text)
    plan = plan_windows(model, model.tokenizer.encode(text, add_special=True), n_ctx, stride)
    result = run(model, plan, progress)
    n_bytes, n_words = count_units(model.metadata, plan)
    per_word = word_perplexity(result, n_words) if n_words else math.nan
    return TextPerplexity(
        **asdict(result),
        bytes_scored=n_bytes,
        words_scored=n_words,
        bits_per_byte=bits_per_byte(result, n_bytes),
        word_perplexity=per_word,
    )


def bits_per_byte(result: Perplexity, n_bytes: int) -> float:
    """Returns the bits that the scored tokens cost per byte of text that they stand for.

    Raises ValueError if there is no byte.

    >>> guess = lambda ids: torch.zeros(*ids.shape, 256)  # 8 bits per token
    >>> round(bits_per_byte(perplexity(guess, list(range(40)), n_ctx=16), n_bytes=28), 6)
    4.0
    """
    if n_bytes < 1:
        raise ValueError(f"{n_bytes} bytes were scored, bits per byte need 1")
    return result.nats / math.log(2) / n_bytes


def word_perplexity(result: Perplexity, n_words: int) -> float:
    """Returns the perplexity per word of the text that the scored tokens stand for: exp(nats / n_words).

    Raises ValueError if there is no word. Source: word_perplexity of EleutherAI's lm-evaluation-harness.

    >>> guess = lambda ids: torch.zeros(*ids.shape, 10)
    >>> round(word_perplexity(perplexity(guess, [0] * 40, n_ctx=16), n_words=7), 3)  # two tokens a word
    100.0
    """
    if n_words < 1:
        raise ValueError(f"{n_words} words were scored, word perplexity needs 1")
    return exp(result.nats / n_words)


def run(model: Callable[[Tensor], Tensor], plan: Plan, progress: Callable[[int, int], None] | None) -> Perplexity:
    losses = []
    with torch.inference_mode():
        for done, logits, targets in plan.scored_logits(model):
            losses.append(F.cross_entropy(logits.float(), targets, reduction="none").double())
            if progress:
                progress(done, len(plan.windows))
    return summarize(torch.cat(losses), plan)


def summarize(losses: Tensor, plan: Plan) -> Perplexity:
    """The perplexity of losses in nats (n,), float64; its standard error is the mean loss's times the value."""
    n = len(losses)
    value = exp(losses.mean().item())
    error = value * losses.std().item() / math.sqrt(n)
    return Perplexity(value, error, n, len(plan.windows), plan.n_ctx, plan.stride, losses.sum().item())


def exp(x: float) -> float:
    return math.inf if x > MAX_EXPONENT else math.exp(x)
