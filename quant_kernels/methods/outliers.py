"""Gives a model the activation outliers that large models grow by themselves, without changing its function.

Chosen channels of each norm's gain are multiplied by a factor and the columns that read them divided by it: what
enters the linear layers then has the channels that Dettmers et al. found in models from 6.7e9 weights on
(LLM.int8(), arXiv 2208.07339): few, large, and the same for all tokens. Left out: outliers of the residual stream
itself, of keys and of single tokens.
"""

import torch
from torch import Tensor

from ..models.llama import Llama
from .folding import NORMS, fold


def inject_outliers(model: Llama, factor: float = 60.0, channels: int | Tensor = 5, seed: int = 0) -> Llama:
    """A copy of the model, the same function, whose linear layers behind norms read outlier channels.

    factor: how much larger the channels become, above 0. channels: how many, drawn by the seed and the same in all
    blocks, or their indices. Raises ValueError for channels that the model does not have.
    """
    scales = torch.ones(model.config.n_embd)
    scales[chosen(model.config.n_embd, channels, seed)] = 1 / factor
    return fold(model, {f"blk.{i}.{norm}": scales for i in range(len(model.blk)) for norm in NORMS})


def chosen(n_embd: int, channels: int | Tensor, seed: int) -> Tensor:
    if isinstance(channels, int):
        if not 0 <= channels <= n_embd:
            raise ValueError(f"{channels} channels are not among the model's {n_embd}")
        return torch.randperm(n_embd, generator=torch.Generator().manual_seed(seed))[:channels]
    if channels.numel() and not 0 <= int(channels.min()) <= int(channels.max()) < n_embd:
        raise ValueError(f"channels {int(channels.min())} to {int(channels.max())} are not all in 0 to {n_embd - 1}")
    return channels
