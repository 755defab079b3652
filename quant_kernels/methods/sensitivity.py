"""Sensitivity: how much worse the model gets when one of its matrices is quantized, measured or estimated.

Swapping one at a time is the plain measurement; tr(dW H dW^T) as an estimate follows Optimal Brain Surgeon and HAWQ
(arXiv 1905.03696), with the layer's own output error in the place of the model's loss. Left out: gradients, pairs of
matrices (damages do not quite add up).
"""

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.llama import Llama
from .hessian import output_error
from .linears import BATCH_TOKENS


def sensitivity(
    model: Llama,
    replacements: Mapping[str, Tensor],
    loss: Callable[[Llama], float],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """How much the loss grows when a matrix alone is replaced, for each of the named ones.

    replacements: GGUF names to matrices, as for `model.replaced`. loss: called with the model, as it is and with each
    replacement; `divergence` and `cross_entropy` make such functions. It may fall: small changes are lost in the noise
    of a short text. progress: called with the matrices done and their number.
    """
    base = loss(model)
    damages = {}
    for name, weight in replacements.items():
        with model.replaced({name: weight}):
            damages[name] = loss(model) - base
        if progress:
            progress(len(damages), len(replacements))
    return damages


def cross_entropy(windows: Tensor) -> Callable[[Llama], float]:
    """A loss: the mean negative log-likelihood, in nats, of what follows each token. windows: (W, T) ids, T above 1."""
    check_windows(windows, 2)

    def loss(model: Llama) -> float:
        nll = [
            F.cross_entropy(logits[:, :-1].mT, batch[:, 1:], reduction="sum") for batch, logits in run(model, windows)
        ]
        return sum(nll).item() / windows[:, 1:].numel()

    return loss


def divergence(model: Llama, windows: Tensor) -> Callable[[Llama], float]:
    """A loss: the mean KL divergence, in nats per token, from what the model predicts now; 0 while it is unchanged.

    windows: (W, T) ids. The predictions are kept, W * T * vocab float32 numbers: choose few tokens.
    """
    check_windows(windows, 1)
    base = torch.cat([logits.log_softmax(-1) for _, logits in run(model, windows)])  # (W, T, V)

    def loss(other: Llama) -> float:
        total, done = torch.zeros((), dtype=torch.float64), 0
        for batch, logits in run(other, windows):
            target = base[done : (done := done + len(batch))]
            total += F.kl_div(logits.log_softmax(-1), target, reduction="sum", log_target=True).double().cpu()
        return total.item() / windows.numel()

    return loss


def hessian_damages(
    model: Llama, replacements: Mapping[str, Tensor], hessians: Mapping[str, Tensor]
) -> dict[str, float]:
    """tr(dW H dW^T) of each replacement: its layer's squared output error per token, without running the model.

    hessians: by name, as `input_hessians` collects them. Raises ValueError for a name that has none.
    """
    missing = set(replacements) - set(hessians)
    if missing:
        raise ValueError(f"there is no H for {', '.join(sorted(missing))}")
    own = model.weights()
    return {name: output_error(weight - own[name].detach(), hessians[name]) for name, weight in replacements.items()}


def run(model: Llama, windows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields batches of windows and their logits, (B, T, V)."""
    with torch.no_grad():
        for batch in windows.split(max(1, BATCH_TOKENS // windows.shape[1])):
            yield batch, model(batch).float()


def check_windows(windows: Tensor, shortest: int) -> None:
    if windows.ndim != 2 or windows.shape[0] == 0 or windows.shape[1] < shortest:
        raise ValueError(f"windows have shape {tuple(windows.shape)}, not (at least 1, at least {shortest})")
