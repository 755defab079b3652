"""What the I-quants with a grid have in common: signs apart from magnitudes, points of a grid, scales of four bits.

The 256 weights of a block are taken as magnitudes and signs. A group of 8 or 4 magnitudes becomes a point of the grid,
of which the number is stored. A sub-block of 16 or 32 weights has a scale of four bits, with the block's fp16 scale `d`
as its unit. The signs of 8 weights are a byte, or 7 bits: then the number of minus signs is even by rule, and where it
is odd, the weight whose sign costs least gets the wrong one.
"""

from abc import abstractmethod
from functools import cache
from typing import ClassVar

import numpy as np
import torch

from .grid_neighbours import neighbours
from .grid_search import search_scale
from .grids import grid
from .k_quants import KQType
from .search import ALL_ZERO, divide, nearest_int

HIGHEST = 31.0  # units of d in the largest scale of a block, 2 * 15 + 1


class GridQType(KQType):
    """Magnitudes from a grid: x = sign * d * (scale + 0.5) * factor * values[code]."""

    family = "I"
    fuses = False
    search_chunk = 2**17
    scales = ("d",)
    refusal = "a scale of its block is beyond fp16, which ends at 65504, or the search for its points beyond float32"
    values: ClassVar[tuple[int, ...]]  # what codes stand for in a file, a little off 2 c + 1
    factor: float
    even_signs: bool = False  # whether 7 bits hold the signs of 8 weights
    least: float = ALL_ZERO  # sub-blocks whose largest magnitude is below are left out
    trials: tuple[float, int] = (0.1, 9)  # step and number on each side of the scales that are tried
    again: str = "off"  # which groups are rounded once more, see `search_scale`
    fudge: float = 1.0  # on d, after the scales of the sub-blocks have their codes

    @abstractmethod
    def pack(self, d: torch.Tensor, scales: torch.Tensor, numbers: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        """The structs, (n_blocks, type_size), from d, (n_blocks, 1) float32, and codes as int32: (n_blocks, n_sub)
        scales, (n_blocks, 32 or 64) numbers of points and (n_blocks, 32) signs, as bits, of eight weights each."""

    @abstractmethod
    def unpack(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The inverse of `pack`; the integers are of any type."""

    def unweighted(self, x: torch.Tensor) -> torch.Tensor:
        """The error weights that ggml makes up where there are none: (n_blocks, 256), both."""
        return x * x

    def start(
        self, x: torch.Tensor, weights: torch.Tensor, n_codes: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Before the trials, for magnitudes (sub_block, n): a scale, the value that is to have the highest code, and
        where there is something to search for, (n,) each."""
        high = x.amax(0)
        return divide(high, 2 * n_codes - 1), high, high >= np.float32(self.least)

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        weights = self.unweighted(x) if weights is None else weights
        x, weights = (self.columns(part) for part in (x, weights))  # (sub_block, n)
        x, signs = even_signs(x, weights) if self.even_signs else (x.abs(), pack_signs(x < 0))
        near = neighbours(self.name, x.device)
        scale, high, active = self.start(x, weights, near.n_codes)
        x, weights = (part.view(-1, near.dim, part.shape[1]) for part in (x, weights))  # (groups, dim, n)
        scale, points = search_scale(near, x, weights, scale, high, active, self.trials, self.again)
        signs = torch.where(scale < 0, ~signs, signs)
        numbers = grid(self.name).index.to(x.device)[points]
        scale, numbers, signs = (torch.where(active, part, 0) for part in (scale.abs(), numbers, signs))
        scale, numbers, signs, active = (self.of_blocks(part) for part in (scale, numbers, signs, active))
        return self.pack_scaled(scale, *self.places(numbers, signs, active))

    def places(
        self, numbers: torch.Tensor, signs: torch.Tensor, active: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers and signs where they are to be stored, as in `pack`; active: (n_blocks, n_sub), not left out."""
        return numbers, signs

    def of_blocks(self, x: torch.Tensor) -> torch.Tensor:
        """What sub-blocks have, (n,) or (count, n), to what blocks have, (n_blocks, n_sub * count)."""
        x = x.view(-1, x.shape[-1])  # (count, n)
        return x.T.reshape(-1, self.block_size // self.sub_block * len(x))

    def pack_scaled(self, scale: torch.Tensor, numbers: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        """The structs, from the scales of sub-blocks as they are, (n_blocks, n_sub) float32, instead of their codes."""
        most = scale.amax(-1, keepdim=True)
        d = divide(most, HIGHEST)
        scales = nearest_int((scale * d.reciprocal()).sub_(1).mul_(0.5)).clamp_(0, 15)
        if self.even_signs:
            signs = signs & 0x7F
            numbers, signs = (torch.where(most == 0, 0, part) for part in (numbers, signs))
        return self.pack(d * self.fudge, scales, numbers, signs & 0xFF)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        _, _, numbers, signs = self.unpack(data)
        points = magnitude_bytes(self.name, self.values, data.device)
        plus_minus = sign_bytes(self.even_signs, data.device)
        magnitudes = points.index_select(0, numbers.reshape(-1).int()).view(torch.int8)
        magnitudes *= plus_minus.index_select(0, signs.reshape(-1).int()).view(torch.int8)
        return magnitudes.view(-1, self.block_size // self.sub_block, self.sub_block)

    def steps(self, data: torch.Tensor) -> tuple[torch.Tensor, None]:
        d, scales, _, _ = self.unpack(data)
        return (d * (scales + 0.5)).mul_(self.factor), None


def pack_signs(negative: torch.Tensor) -> torch.Tensor:
    """(sub_block, n) bool to (sub_block / 8, n) int32: bit j of byte k is that of weight 8 k + j."""
    place = torch.tensor([1 << j for j in range(8)], dtype=torch.int32, device=negative.device)
    return (negative.unflatten(0, (-1, 8)) * place[:, None]).sum(1, dtype=torch.int32)


def even_signs(x: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The magnitudes, (sub_block, n), and signs as `pack_signs` has them, with an even number of bits each.

    Where the number of negative weights is odd, the first of those with the least weights * x**2 is given the other
    sign: its magnitude is negative.
    """
    negative = (x < 0).unflatten(0, (-1, 8))  # (sub_block / 8, 8, n)
    cost = (weights * x * x).unflatten(0, (-1, 8))
    # no cost is below a first one that is NaN, and no other NaN is below any
    cost = torch.cat([cost[:, :1].nan_to_num(nan=-torch.inf), cost[:, 1:].nan_to_num(nan=torch.inf)], dim=1)
    odd = negative.sum(1, keepdim=True) % 2 == 1
    place = torch.arange(8, device=x.device)[:, None]
    flip = odd & (place == cost.argmin(1, keepdim=True))
    return torch.where(flip.flatten(0, 1), -x.abs(), x.abs()), pack_signs((negative ^ flip).flatten(0, 1))


@cache
def magnitude_bytes(name: str, values: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """The 8 or 4 values of each point as the int8 in one integer: (n_points,) int64 or int32."""
    points = grid(name).points
    return torch.tensor(values, dtype=torch.int8)[points.int()].view(INTEGER[points.shape[1]])[:, 0].to(device)


@cache
def sign_bytes(even: bool, device: torch.device) -> torch.Tensor:
    """The 1 and -1 of each byte of signs as the int8 in one integer, (256,) int64; or of 7 bits, (128,)."""
    signs = torch.arange(128 if even else 256)[:, None] >> torch.arange(8) & 1
    if even:
        signs[:, 7] = signs.sum(1) % 2
    return (1 - 2 * signs).to(torch.int8).view(torch.int64)[:, 0].to(device)


INTEGER = {8: torch.int64, 4: torch.int32}
