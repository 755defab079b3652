"""What every block format has: a struct of named fields, and the two ways between weights and bytes."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from ..compilation import compilable


class QType(ABC):
    """A block format of ggml: `block_size` weights share a struct of `type_size` bytes.

    A subclass carries ggml's name of the format, lists the fields of ggml's struct (ggml-common.h) in their order with
    their sizes in bytes, and turns blocks into structs and back. The shape of the tensors and their values were
    checked before.

    >>> from quant_kernels import QTYPES
    >>> QTYPES["Q4_K"]
    Q4_K(256 weights in 144 bytes, 4.5 bits per weight)
    >>> QTYPES["Q4_K"].fields
    {'d': 2, 'dmin': 2, 'scales': 12, 'qs': 128}
    >>> [qtype.name for qtype in QTYPES.values() if qtype.family == "K" and qtype.bits_per_weight < 4]
    ['Q2_K', 'Q3_K']
    """

    family: str  # "legacy", "K", "I", "ternary" or "float"
    block_size: int  # weights
    fields: ClassVar[dict[str, int]]  # name: bytes
    zero: int = 0  # the code that stands for 0, or for what is added
    scales: tuple[str, ...] = ()  # the fields that hold one fp16 number
    needs_importance: ClassVar[bool] = False  # whether ggml refuses to quantize without importance
    searches: bool = False  # whether a scale is searched for even without error weights
    fuses: bool = True  # whether codes are arithmetic on bits, which can be compiled to one loop, or come from a table
    search_chunk: int = (
        2**15
    )  # weights searched at a time: enough for an operation to be worth its call, few for a cache
    refusal: str = "a scale of its block is not finite in fp16, which ends at 65504"  # what `finite_scales` finds

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def type_size(self) -> int:
        return sum(self.fields.values())

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.type_size / self.block_size

    def __repr__(self) -> str:
        return (
            f"{self.name}({self.block_size} weights in {self.type_size} bytes, {self.bits_per_weight} bits per weight)"
        )

    @abstractmethod
    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """(n_blocks, block_size) float32, and as many error weights or None, to (n_blocks, type_size) uint8."""

    @abstractmethod
    def codes(self, data: torch.Tensor) -> torch.Tensor:
        """The weights' codes: (n_blocks, type_size) uint8 to (n_blocks, ...) uint8 or int8, block_size of each block.

        The dimensions are those in which the format packs them; together, in order, they are the weights' order.
        """

    @abstractmethod
    def steps(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The scale of each sub-block, and what is added to its weights, if anything is.

        (n_blocks, type_size) uint8 to (n_blocks, n_sub) float32 each: x = step * (code - zero) + offset.
        """

    def dequantize_blocks(self, data: torch.Tensor, out: torch.Tensor) -> None:
        """(n_blocks, type_size) uint8 into `out`, (n_blocks, block_size) float32."""
        if self.fuses:
            spread(data, *stored_steps(data, self), out, self)
        else:
            multiply(self.codes(data), *self.steps(data), out, self.zero)

    def error_weights(self, rows: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
        """How much the error of each weight counts in the search for a scale: (n_rows, n), all three."""
        return importance

    def quantize_rows(self, rows: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
        """(n_rows, n) float32, and as many importances or None, to (n_rows, n / block_size * type_size) uint8."""
        weights = None
        if importance is not None:
            weights = self.error_weights(rows, importance).reshape(-1, self.block_size)
        return self.quantize_blocks(rows.reshape(-1, self.block_size), weights).reshape(len(rows), -1)

    def split(self, data: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The struct's fields, in order: (n_blocks, type_size) to one (n_blocks, bytes of the field) each."""
        return data.split(list(self.fields.values()), dim=-1)

    def finite_scales(self, data: torch.Tensor) -> torch.Tensor:
        """Which blocks have scales that are numbers: (n_blocks, type_size) uint8 to (n_blocks,) bool."""
        finite = torch.ones(len(data), dtype=torch.bool, device=data.device)
        for field, value in zip(self.fields, self.split(data), strict=True):
            if field in self.scales:
                finite &= value[:, 1] & 0x7C != 0x7C  # 0EEEEE00, fp16's exponent, is all ones in Inf and NaN
        return finite


@compilable(dim=0)
def stored_steps(data: torch.Tensor, layout: QType) -> tuple[torch.Tensor, torch.Tensor | None]:
    """`QType.steps`, which are worth a step of their own: each counts for a whole sub-block."""
    return layout.steps(data)


@compilable(dim=0)
def spread(
    data: torch.Tensor, step: torch.Tensor, offset: torch.Tensor | None, out: torch.Tensor, layout: QType
) -> None:
    """step * (code - zero) + offset into `out`, (n_blocks, block_size); step and offset are (n_blocks, n_sub)."""
    multiply(layout.codes(data), step, offset, out, layout.zero)


@compilable(dim=0)
def multiply(
    codes: torch.Tensor, step: torch.Tensor, offset: torch.Tensor | None, out: torch.Tensor, zero: int
) -> None:
    """As `spread`, of codes (n_blocks, ...)."""
    x = out.view(codes.shape)
    x.copy_(codes)
    if zero:
        x.sub_(zero)
    x.mul_(over_sub_blocks(step, codes))
    if offset is not None:
        x.add_(over_sub_blocks(offset, codes))


def over_sub_blocks(values: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """(n_blocks, n_sub) to the dimensions of codes: those that sub-blocks are counted in, and 1 for the others."""
    counted = 1
    while math.prod(codes.shape[1:counted]) < values.shape[1]:
        counted += 1
    return values.view(codes.shape[:counted] + (1,) * (codes.dim() - counted))
