"""Scaling the channels between two layers of a Llama without changing its function: W (x) = (W s) (x / s).

The division goes into what makes x (the gain of an RMSNorm, or the rows of a matrix after which nothing but a product
follows), the multiplication into the columns of the matrices that read it: no operation is added.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..models.llama import Block, Llama
from .linears import clone

# What makes the input of which layers. SwiGLU multiplies by ffn_up's output, attention averages attn_v's: both are
# linear in it. Of ffn_gate and of attn_q and attn_k nothing can be folded this way.
CONSUMERS = {
    "attn_norm": ("attn_q", "attn_k", "attn_v"),
    "attn_v": ("attn_output",),
    "ffn_norm": ("ffn_gate", "ffn_up"),
    "ffn_up": ("ffn_down",),
}
NORMS = ("attn_norm", "ffn_norm")


def fold(model: Llama, scales: Mapping[str, Tensor]) -> Llama:
    """A copy of the model in which each named module's output is divided by s, and multiplied by s where it is read.

    scales: `blk.0.attn_norm`, or another of CONSUMERS, to s, (n,): one positive number per channel. The copy's logits
    are the model's, to the rounding of floats. Raises ValueError for another name, shape or sign, and for an attn_v
    whose channels are read by several query heads.
    """
    folded = clone(model)
    for name, s in scales.items():
        block, producer = find(folded, name)
        check_scales(name, s, producer)
        s = s.to(producer.weight)
        divide_rows(producer, s)
        for consumer in CONSUMERS[name.rpartition(".")[2]]:
            linear = getattr(block, consumer)
            if linear.in_features != len(s):
                raise ValueError(f"{name} has {len(s)} channels, {consumer} reads {linear.in_features}")
            linear.weight = nn.Parameter(linear.weight.detach() * s)  # (m, n)
    return folded


def find(model: Llama, name: str) -> tuple[Block, nn.Module]:
    """The block of a producer, and the producer itself."""
    path, _, producer = name.rpartition(".")
    if producer not in CONSUMERS or path not in {f"blk.{i}" for i in range(len(model.blk))}:
        raise ValueError(f"{name!r} is not blk.0 to blk.{len(model.blk) - 1} with one of {', '.join(CONSUMERS)}")
    block = model.get_submodule(path)
    return block, getattr(block, producer)


def check_scales(name: str, s: Tensor, producer: nn.Module) -> None:
    if s.shape != producer.weight.shape[:1]:
        raise ValueError(f"scales of {name} have shape {tuple(s.shape)}, not ({len(producer.weight)},)")
    if not ((s > 0) & s.isfinite()).all():
        raise ValueError(f"scales of {name} are from {s.min().item()} to {s.max().item()}, not all positive and finite")


def divide_rows(producer: nn.Module, s: Tensor) -> None:
    weight = producer.weight.detach()  # (n,) of a norm, (n, k) of a matrix
    producer.weight = nn.Parameter(weight / s.view(-1, *[1] * (weight.dim() - 1)))


def read_weights(block: Block, producer: str) -> Tensor:
    """The matrices that read what the producer makes, one above the other, (sum of m, n)."""
    return torch.cat([getattr(block, consumer).weight.detach() for consumer in CONSUMERS[producer]])


def foldable(model: Llama) -> list[str]:
    """The producers whose channels each enter the same column of all their consumers, for all blocks."""
    shared = model.config.n_head != model.config.n_head_kv  # several query heads read one channel of attn_v
    return [f"blk.{i}.{name}" for i in range(len(model.blk)) for name in CONSUMERS if name != "attn_v" or not shared]
