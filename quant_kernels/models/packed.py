"""Tensors as the bytes that a GGUF has of them, and a model that keeps these beside its weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from quant_kernels.models.llama import Config, Llama
from quant_kernels.models.plan_mix import Plan
from quant_kernels.qtypes import dequantize, quantize

FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Packed(NamedTuple):
    """A tensor's type, a format or a name out of FLOATS, and its bytes: uint8 (..., rows, bytes of a row)."""

    qtype: str
    data: Tensor


def pack(weight: Tensor, qtype: str, importance: Tensor | None = None) -> Tensor:
    """Returns float32 weights (..., columns) as uint8 (..., n_bytes); ValueError if the type cannot hold them."""
    if qtype not in FLOATS:
        return quantize(weight, qtype, importance)
    rounded = weight.to(FLOATS[qtype])
    if not rounded.isfinite().all():
        raise ValueError(f"{qtype} cannot hold {weight.abs().max().item()}")
    return rounded.contiguous().view(torch.uint8)


def unpack(qtype: str, data: Tensor) -> Tensor:
    """Returns the float32 weights that the bytes stand for, in memory of their own."""
    if qtype not in FLOATS:
        return dequantize(data, qtype)
    return data.contiguous().view(FLOATS[qtype]).to(torch.float32, copy=True)


class QuantizedLlama(Llama):
    """A Llama with the weights that a mix has left of another's; float32, as any loaded model.

    plan: what the mix decided. packed: {name: (type, bytes)} of every tensor, as they stand in a file.
    """

    def __init__(self, config: Config, plan: Plan, packed: dict[str, Packed]):
        with torch.device("meta"):
            super().__init__(config)
        self.plan, self.packed = plan, packed
        weights = {"rope_freqs.weight": torch.ones(config.head_dim // 2)}
        self.load_state_dict(weights | {name: unpack(*tensor) for name, tensor in packed.items()}, assign=True)
        self.requires_grad_(False).eval()

    @property
    def mix(self) -> str:
        return self.plan.mix

    @property
    def n_bytes(self) -> int:
        """The bytes of all tensors, without the file's header."""
        return self.plan.n_bytes

    @property
    def bits_per_weight(self) -> float:
        return self.plan.bits_per_weight

    def checked_packed(self) -> dict[str, Packed]:
        """Returns `packed`; ValueError names a tensor whose weights have changed since."""
        weights = self.state_dict()
        for name, tensor in self.packed.items():
            if not torch.equal(weights[name].cpu(), unpack(*tensor)):
                raise ValueError(f"{name} has changed: its {tensor.qtype} bytes stand for other weights")
        return self.packed
