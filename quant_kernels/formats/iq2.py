"""The 2-bit formats with a grid: eight magnitudes are a point, with codes 0, 1 and 2 that stand for 8, 25 and 43."""

from typing import ClassVar

import torch

from .bits import from_half_bytes, half_bytes
from .grid_quants import GridQType
from .k_bits import pack_crumbs, unpack_crumbs
from .k_quants import sum_of_columns
from .k_search import search_positive
from .search import divide


class IQ2QType(GridQType):
    """32 points to a block."""

    values = (8, 25, 43)
    factor = 0.25


class IQ2_XXS(IQ2QType):
    """256 points, even signs, and a scale for 32 weights.

    Of each 32 weights `qs` has the numbers of their four points, a byte each, and an integer of 32 bits:

        bit    31 to 28   27 to 21        20 to 14        13 to 7        6 to 0
               scale      signs of 24-31  signs of 16-23  signs of 8-15  signs of 0-7
    """

    fields: ClassVar = {"d": 2, "qs": 64}
    needs_importance = True
    sub_block = 32
    even_signs = True
    trials = (0.1, 6)
    again = "always"

    def sigma2(self, squares: torch.Tensor) -> torch.Tensor:
        return divide(sum_of_columns(squares), self.block_size)

    def start(
        self, x: torch.Tensor, weights: torch.Tensor, n_codes: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        _, _, active = super().start(x, weights, n_codes)
        scale = search_positive(x.T, weights.T, n_codes + 1)[0][:, 0]
        high = scale * n_codes
        return scale, high, active & ~(high <= 0)  # NaN is searched with, and then refused

    def pack(self, d: torch.Tensor, scales: torch.Tensor, numbers: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        words = pack_words(scales, signs).view(-1, 8, 4)
        return torch.cat([half_bytes(d), torch.cat([numbers.view(-1, 8, 4).byte(), words], dim=-1).flatten(1)], dim=-1)

    def unpack(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        d, qs = self.split(data)
        numbers, words = qs.unflatten(-1, (8, 8)).split(4, dim=-1)
        scales, signs = unpack_words(words)
        return from_half_bytes(d), scales, numbers, signs


class IQ2_XS(IQ2QType):
    """512 points, even signs, and a scale for 16 weights; `scales` has two to a byte, the first in its lower bits.

    Of each 8 weights `qs` has an integer of 16 bits:

        bit    15 to 9   8 to 0
               signs     number of the point
    """

    fields: ClassVar = {"d": 2, "qs": 64, "scales": 8}
    needs_importance = True
    sub_block = 16
    even_signs = True

    def sigma2(self, squares: torch.Tensor) -> torch.Tensor:
        return divide(sum_of_columns(squares), self.block_size)

    def pack(self, d: torch.Tensor, scales: torch.Tensor, numbers: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        qs = (numbers | signs << 9).to(torch.int16).view(torch.uint8)  # (n_blocks, 64)
        return torch.cat([half_bytes(d), qs, pack_scales(scales)], dim=-1)

    def unpack(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        d, qs, scales = self.split(data)
        words = aligned(qs).view(torch.int16).int()  # (n_blocks, 32)
        return from_half_bytes(d), unpack_scales(scales), words & 0x1FF, words >> 9 & 0x7F


class IQ2_S(IQ2QType):
    """1024 points, a sign for each weight, and a scale for 16 weights; `scales` has two to a byte.

    The first 32 bytes of `qs` are the lower 8 bits of the points' numbers, the others the signs of 8 weights each. The
    upper two bits of the numbers are in `qh`:

        bit    7 6          5 4          3 2          1 0
               point 4j+3   point 4j+2   point 4j+1   point 4j       of byte j
    """

    fields: ClassVar = {"d": 2, "qs": 64, "qh": 8, "scales": 8}
    sub_block = 16
    least = 1e-8
    fudge = 0.9875

    def unweighted(self, x: torch.Tensor) -> torch.Tensor:
        squares = x * x
        return 0.25 * self.sigma2(squares) + squares

    def pack(self, d: torch.Tensor, scales: torch.Tensor, numbers: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        qh = pack_crumbs((numbers >> 8).view(-1, 4)).view(-1, 8)
        parts = [(numbers & 0xFF).byte(), signs.byte(), qh.byte(), pack_scales(scales)]
        return torch.cat([half_bytes(d), *parts], dim=-1)

    def unpack(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        d, qs, qh, scales = self.split(data)
        high = unpack_crumbs(qh.reshape(-1, 1)).view(-1, 32).int()
        return from_half_bytes(d), unpack_scales(scales), qs[:, :32] | high << 8, qs[:, 32:]


def pack_words(scales: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """(n_blocks, 8) scales and (n_blocks, 32) signs of seven bits, int32, to (n_blocks, 32) bytes: see `IQ2_XXS`."""
    first, second, third, fourth = signs.view(-1, 8, 4).unbind(-1)
    return (first | second << 7 | third << 14 | fourth << 21 | scales << 28).view(torch.uint8)


def unpack_words(words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n_blocks, 8, 4) bytes to scales, (n_blocks, 8), and signs, (n_blocks, 8, 4): the inverse of `pack_words`."""
    words = aligned(words).view(torch.int32)  # (n_blocks, 8, 1)
    signs = words >> torch.tensor([0, 7, 14, 21], dtype=torch.int32, device=words.device) & 0x7F
    return words[..., 0] >> 28 & 0x0F, signs


def pack_scales(scales: torch.Tensor) -> torch.Tensor:
    """(n_blocks, 2 * m) scales below 16 to (n_blocks, m) uint8: 2 j in the lower half of byte j, 2 j + 1 above."""
    return (scales[:, ::2] | scales[:, 1::2] << 4).byte()


def unpack_scales(data: torch.Tensor) -> torch.Tensor:
    """(n_blocks, m) uint8 to (n_blocks, 2 * m) scales, the inverse of `pack_scales`."""
    return torch.stack([data & 0x0F, data >> 4], dim=-1).flatten(1)


def aligned(data: torch.Tensor) -> torch.Tensor:
    """A copy that can be viewed as longer integers; a single block is contiguous as it is, wherever it starts."""
    return data.clone(memory_format=torch.contiguous_format)
