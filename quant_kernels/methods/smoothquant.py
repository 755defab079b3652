"""SmoothQuant (Xiao et al., arXiv 2211.10438): moves part of the activations' outliers into the weights.

Left out: smoothing of what no norm precedes (ffn_down's input, for one), and the migration strength per layer.
"""

import torch
from torch import Tensor

from ..models.llama import Llama
from .folding import CONSUMERS, NORMS, find, fold, read_weights


def smoothing_scales(x_maxima: Tensor, weight: Tensor, alpha: float = 0.5) -> Tensor:
    """s = max|X|**alpha / max|W|**(1 - alpha) per channel: quantize X / s and W * s, whose product is that of X and W.

    x_maxima: the largest magnitude of each input channel, (n,), as seen in calibration; weight: W, (m, n), all matrices
    that read X, one above the other. alpha: 0 evens out the weights' columns, 1 the activations', and between them is
    a compromise (the paper: 0.5, and 0.75 for models with more outliers). A channel that is 0 in X or in W has s = 1.
    Returns (n,). Raises ValueError for other shapes, an alpha out of 0 to 1, and what is not finite.

    >>> smoothing_scales(torch.tensor([16.0, 1.0]), torch.tensor([[1.0, -1.0], [0.5, 0.0]]))
    tensor([4., 1.])
    """
    if weight.dim() != 2 or x_maxima.shape != weight.shape[1:] or weight.numel() == 0:
        raise ValueError(f"maxima of shape {tuple(x_maxima.shape)} do not fit a weight of shape {tuple(weight.shape)}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, not from 0 to 1")
    if not (x_maxima.isfinite() & (x_maxima >= 0)).all() or not weight.isfinite().all():
        raise ValueError("maxima and weight are not all finite, or a maximum is negative")
    w_maxima = weight.detach().abs().amax(0)  # (n,)
    scales = x_maxima**alpha / w_maxima ** (1 - alpha)
    return torch.where((x_maxima > 0) & (w_maxima > 0), scales, 1.0)


def smooth_llama(model: Llama, x_maxima: dict[str, Tensor], alpha: float = 0.5) -> Llama:
    """A copy of the model with smoother activations behind its norms and the same logits, to the rounding of floats.

    x_maxima: linear layer to (n,), as `linears.input_maxima` finds them. Quantize the copy, as with
    `replace_linears`, to gain from it.
    """
    scales = {}
    for i in range(len(model.blk)):
        for norm in NORMS:
            block, _ = find(model, f"blk.{i}.{norm}")
            maxima = x_maxima[f"blk.{i}.{CONSUMERS[norm][0]}"]
            scales[f"blk.{i}.{norm}"] = smoothing_scales(maxima, read_weights(block, norm), alpha)
    return fold(model, scales)
