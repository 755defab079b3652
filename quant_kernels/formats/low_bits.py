"""The formats with one or two bits to a weight and an fp16 scale: nothing is searched for, so error weights change
nothing.
"""

from typing import ClassVar

import torch

from .bits import from_half_bytes, half_bytes, pack_bits, unpack_bits
from .block import QType
from .search import inverse, ordered_sum, round_half_away


class Q1_0(QType):
    """128 signs: x = d or -d. The scale d is the mean magnitude, a bit is set for x >= 0, for -0 too."""

    family = "legacy"
    block_size = 128
    fields: ClassVar = {"d": 2, "qs": 16}
    scales = ("d",)

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        d = ordered_sum(x.abs().T.contiguous())[:, None] / 128  # (n_blocks, 1)
        return torch.cat([half_bytes(d), pack_bits(x >= 0)], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        _, qs = self.split(data)
        return unpack_bits(qs).view(torch.int8) * 2 - 1  # (n_blocks, 128)

    def steps(self, data: torch.Tensor) -> tuple[torch.Tensor, None]:
        return from_half_bytes(self.split(data)[0]), None


class Q2_0(QType):
    """64 weights of two bits: x = d * (q - 1). The scale d is the largest magnitude, so that 3, 2 d, is never written.

    Where d < 2**-128 and 1 / d is Inf, all codes are 0: C leaves the conversion of Inf and NaN to an integer undefined,
    and this is what x86 makes of it.
    """

    family = "legacy"
    block_size = 64
    fields: ClassVar = {"d": 2, "qs": 16}
    scales = ("d",)
    zero = 1

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        d = x.abs().amax(-1, keepdim=True)
        id = inverse(d)
        q = round_half_away(x * id) + 1  # (n_blocks, 64)
        q.mul_((id > 0) | (d == 0))
        return torch.cat([half_bytes(d), pack_neighbours(q)], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        _, qs = self.split(data)
        return unpack_neighbours(qs)  # (n_blocks, 64)

    def steps(self, data: torch.Tensor) -> tuple[torch.Tensor, None]:
        return from_half_bytes(self.split(data)[0]), None


def pack_neighbours(codes: torch.Tensor) -> torch.Tensor:
    """(n_blocks, 4 * m) codes below 4, of one byte each, to (n_blocks, m) uint8.

    Byte j holds four codes in a row:

        bit    7 6         5 4         3 2         1 0
               code 4j+3   code 4j+2   code 4j+1   code 4j
    """
    four = codes.contiguous().view(torch.int32)  # ......33 ......22 ......11 ......00
    four = four | four >> 6  #                     ......33 ....3322 ....2211 ....1100
    return (four | four >> 12).to(torch.uint8)


def unpack_neighbours(qs: torch.Tensor) -> torch.Tensor:
    """(n_blocks, m) uint8 to (n_blocks, 4 * m) codes below 4, the inverse of `pack_neighbours`."""
    four = qs.to(torch.int32)  # ........ ........ ........ 33221100
    four = four | four << 12  #  ........ ....3322 1100.... 33221100
    return (four | four << 6).bitwise_and_(0x03030303).view(torch.uint8)
