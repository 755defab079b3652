"""The linear layers of a model's blocks: replaced in a copy of the model, or watched while it runs.

Left out: the embedding and the output matrix, which these methods leave in float.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..models.llama import Llama

BATCH_TOKENS = 1024  # tokens per forward pass


def block_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers by GGUF's names, `blk.0.attn_q` and so on."""
    modules = model.named_modules()
    return {name: module for name, module in modules if name.startswith("blk.") and isinstance(module, nn.Linear)}


def clone(model: Llama) -> Llama:
    """A copy whose modules are its own and whose parameters are shared, until one is assigned anew."""
    shared = [*model.parameters(), *model.buffers(), model.metadata, model.__dict__.get("tokenizer")]
    return copy.deepcopy(model, {id(value): value for value in shared})


def replace_linears(model: Llama, make: Callable[[str, nn.Linear], nn.Module]) -> Llama:
    """A copy of the model with make(name, linear) in the place of each linear layer of its blocks.

    What is not replaced (norms, embeddings, a linear layer that `make` returns) shares its parameters with the model.
    For a model in W8A8, `make` is lambda name, linear: W8A8Linear.from_linear(linear).
    """
    other = clone(model)
    for name, linear in block_linears(other).items():
        other.set_submodule(name, make(name, linear))
    return other


@contextmanager
def watched(model: nn.Module, see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Calls see(name, x) with the input x, (..., n), of each linear layer of the blocks until the `with` block ends."""

    def hook(name: str) -> Callable:
        return lambda _, args: see(name, args[0].detach())

    handles = [linear.register_forward_pre_hook(hook(name)) for name, linear in block_linears(model).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def calibrate(model: Llama, windows: Tensor, see: Callable[[str, Tensor], None]) -> None:
    """Runs the model on windows of token ids, (W, T), and calls see(name, x) with the input of each linear layer."""
    if windows.ndim != 2 or windows.numel() == 0:
        raise ValueError(f"windows have shape {tuple(windows.shape)}, not (at least 1, at least 1)")
    with watched(model, see), torch.no_grad():
        for batch in windows.split(max(1, BATCH_TOKENS // windows.shape[1])):
            model(batch)


def input_maxima(model: Llama, windows: Tensor) -> dict[str, Tensor]:
    """The largest magnitude in each channel that enters each linear layer, (n,), over windows of token ids, (W, T)."""
    maxima: dict[str, Tensor] = {}

    def see(name: str, x: Tensor) -> None:
        found = x.flatten(0, -2).abs().amax(0)  # (n,)
        maxima[name] = torch.maximum(maxima[name], found) if name in maxima else found

    calibrate(model, windows, see)
    return maxima
