"""How far a model strays from its base, token by token: what llama-perplexity --kl-divergence prints."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from quant_kernels.measures.perplexity import Perplexity, exp, summarize
from quant_kernels.measures.windows import Plan, plan_windows
from quant_kernels.models.llama import Llama

Model = Callable[[Tensor], Tensor]
Progress = Callable[[int, int], None]

CACHED = 2**16  # logits that are turned into float64 probabilities at once: more leave a core's cache
KL_PERCENTILES = (0, 0.1, 1, 5, 10, 50, 90, 95, 99, 99.9, 100)
DELTA_P_PERCENTILES = (0, 0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100)
TOKENIZER_KEYS = [f"tokenizer.ggml.{key}" for key in ("model", "pre", "tokens", "merges")]


@dataclass(frozen=True)
class Estimate:
    """A mean over the scored tokens, and its standard error."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class Comparison:
    """A model beside its base, over the same scored tokens. Percentiles interpolate between neighbouring values."""

    base: Perplexity
    other: Perplexity
    log_ratio: Estimate  # of ln(other's perplexity / base's), paired: the mean of the differences of the losses
    correlation: float  # of the losses
    kl_divergence: Estimate  # of other from base, in nats
    kl_percentiles: dict[float, float]
    same_top: Estimate  # share of tokens for which both hold the same token most likely
    delta_p: Estimate  # change of the probability of the text's own token
    delta_p_rms: Estimate
    delta_p_percentiles: dict[float, float]
    tokens_undefined: int  # scored tokens for which one of the models gives NaN; one is enough to make each figure NaN

    @property
    def ratio(self) -> Estimate:
        """Of the perplexities, other's / base's."""
        value = exp(self.log_ratio.value)
        return Estimate(value, value * self.log_ratio.standard_error)

    @property
    def difference(self) -> Estimate:
        """Of the perplexities, other's - base's."""
        a, b = self.other.standard_error, self.base.standard_error
        variance = a**2 + b**2 - 2 * self.correlation * a * b
        return Estimate(self.other.value - self.base.value, math.sqrt(variance) if variance > 0 else 0 * variance)


def compare(
    base: Model,
    other: Model,
    tokens: Sequence[int] | Tensor,
    n_ctx: int = 512,
    *,
    progress: Progress | None = None,
) -> Comparison:
    """Returns how the probabilities of `other` differ from those of `base`, over the tokens that `perplexity` scores.

    The divergence of a token is sum(p * (ln p - ln q)) over the vocabulary, p from the base and q from the other, in
    float64. A token that the base rules out (p = 0) adds nothing. Each mean has the standard error of a mean of
    independent tokens. Where one base is compared with many others, `record` spares it the repeated evaluation.

    base, other: loaded models, or callables from ids (B, T) to logits (B, T, V). tokens, n_ctx, progress: as in
    `perplexity`, without a stride.
    Raises ValueError as `perplexity` does, and if the models do not share a tokenizer.
    Source: tools/perplexity/perplexity.cpp of llama.cpp, which takes the base's probabilities from a file of 16 bits
    each and leaves out those below e^-16.

    >>> coin = lambda ids: torch.tensor([0.5, 0.5]).log().expand(*ids.shape, 2)
    >>> biased = lambda ids: torch.tensor([0.75, 0.25]).log().expand(*ids.shape, 2)
    >>> round(compare(coin, biased, [0, 1] * 8, n_ctx=8).kl_divergence.value, 6)  # 0.5 ln(0.5 / 0.75) + 0.5 ln 2
    0.143841
    >>> round(compare(biased, coin, [0, 1] * 8, n_ctx=8).kl_divergence.value, 6)  # not the same the other way round
    0.130812
    """
    check_same_tokenizer(tokenizer_of(base), tokenizer_of(other))
    plan = plan_windows(base, tokens, n_ctx)
    return run(plan, (logits for _, logits, _ in plan.scored_logits(base)), other, progress)


@dataclass(frozen=True)
class Recording:
    """The logits of a base model at the scored positions, in a file: what others are compared with.

    It can be pickled to another process, as long as the `with` block of `record` lasts.
    """

    path: Path
    plan: Plan
    vocab: int
    tokenizer: dict[str, object] | None

    def compare(self, other: Model, progress: Progress | None = None) -> Comparison:
        """Returns what `compare` does; raises ValueError if the other has another tokenizer than the base."""
        check_same_tokenizer(self.tokenizer, tokenizer_of(other))
        return run(self.plan, self.logits(), other, progress)

    def logits(self) -> Iterator[Tensor]:
        rows = self.plan.n_scored
        everything = torch.from_file(str(self.path), size=rows * self.vocab).view(rows, self.vocab)
        yield from everything.split([ids[:, first + 1 :].numel() for ids, first in self.plan.batches()])


@contextmanager
def record(
    base: Model, tokens: Sequence[int] | Tensor, n_ctx: int = 512, *, progress: Progress | None = None
) -> Iterator[Recording]:
    """Evaluates a base model once, for many others to be compared with: `with record(base, tokens) as recording`.

    Its logits are kept in a temporary file until the block ends: 4 bytes for each scored token and entry of the
    vocabulary, which is 134 MB for 16,384 tokens and a vocabulary of 4096.
    `recording.compare(other)` gives what `compare(base, other, tokens, n_ctx)` gives.

    Raises ValueError as `perplexity` does, and OSError if the file cannot be written.

    >>> coin = lambda ids: torch.tensor([0.5, 0.5]).log().expand(*ids.shape, 2)
    >>> with record(coin, [0, 1] * 8, n_ctx=8) as recording:
    ...     recording.compare(coin).kl_divergence.value
    0.0
    """
    plan = plan_windows(base, tokens, n_ctx)
    with tempfile.TemporaryDirectory(prefix="quant_kernels_") as folder:
        path = Path(folder) / "logits.f32"
        with path.open("wb") as file, torch.inference_mode():
            for done, logits, _ in plan.scored_logits(base):
                file.write(logits.float().contiguous().numpy(force=True).data)
                if progress:
                    progress(done, len(plan.windows))
        yield Recording(path, plan, logits.shape[-1], tokenizer_of(base))


def run(plan: Plan, base_logits: Iterable[Tensor], other: Model, progress: Progress | None) -> Comparison:
    scores = []
    with torch.inference_mode():
        for theirs, (done, ours, targets) in zip(base_logits, plan.scored_logits(other), strict=True):
            if theirs.shape != ours.shape:
                raise ValueError(f"the base's vocabulary has {theirs.shape[-1]} tokens, the other's {ours.shape[-1]}")
            scores.append(score(theirs.to(ours.device), ours, targets))  # (n, 4)
            if progress:
                progress(done, len(plan.windows))
    return summarize_scores(torch.cat(scores), plan)


def score(base_logits: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Divergence, same top (1 or 0), the base's loss and the other's, of each token: float64 (n, 4)."""
    rows = max(1, CACHED // logits.shape[-1])
    parts = zip(base_logits.split(rows), logits.split(rows), targets[:, None].split(rows), strict=True)
    return torch.cat([torch.stack(score_rows(*part), -1) for part in parts]).cpu()


def score_rows(base_logits: Tensor, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    log_p = base_logits.double().log_softmax(-1)  # (n, V)
    log_q = logits.double().log_softmax(-1)  # (n, V)
    p = log_p.exp()
    divergence = (p * (log_p - log_q)).masked_fill_(p == 0, 0).sum(-1)  # (n,): -inf - -inf is no number
    same_top = (base_logits.max(-1).indices == logits.max(-1).indices).double()  # of equals the first
    same_top.masked_fill_(divergence.isnan(), math.nan)  # NaN is its own argmax
    return divergence, same_top, -log_p.gather(-1, targets)[:, 0], -log_q.gather(-1, targets)[:, 0]


def summarize_scores(scores: Tensor, plan: Plan) -> Comparison:
    divergence, same_top, base_loss, loss = scores.unbind(-1)  # (n,) each
    delta_p = (-loss).exp() - (-base_loss).exp()
    squares = estimate(delta_p.square())
    rms = math.sqrt(squares.value)
    return Comparison(
        base=summarize(base_loss, plan),
        other=summarize(loss, plan),
        log_ratio=estimate(loss - base_loss),
        correlation=correlation(loss, base_loss),
        kl_divergence=estimate(divergence),
        kl_percentiles=percentiles(divergence, KL_PERCENTILES),
        same_top=estimate(same_top),
        delta_p=estimate(delta_p),
        delta_p_rms=Estimate(rms, squares.standard_error / (2 * rms) if rms else 0.0),
        delta_p_percentiles=percentiles(delta_p, DELTA_P_PERCENTILES),
        tokens_undefined=int(divergence.isnan().sum()),
    )


def estimate(values: Tensor) -> Estimate:
    return Estimate(values.mean().item(), values.std().item() / math.sqrt(len(values)))


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's; NaN where one of the two is constant."""
    x, y = x - x.mean(), y - y.mean()
    return (x @ y / (x.norm() * y.norm())).item()


def percentiles(values: Tensor, at: Sequence[float]) -> dict[float, float]:
    with np.errstate(invalid="ignore"):  # between infinite values
        return dict(zip(at, np.percentile(values.numpy(), at).tolist(), strict=True))


def tokenizer_of(model: Model) -> dict[str, object] | None:
    """What makes ids and probabilities of two models mean the same; None for a model that does not say."""
    if not isinstance(model, Llama) or not model.metadata:
        return None
    return {key: model.metadata.get(key) for key in TOKENIZER_KEYS} | {"BOS": model.config.bos_id}


def check_same_tokenizer(base: dict[str, object] | None, other: dict[str, object] | None) -> None:
    if base is None or other is None:
        return
    if different := [key for key in base if base[key] != other[key]]:
        raise ValueError(f"the base and the other do not share a tokenizer: {', '.join(different)} differ")
