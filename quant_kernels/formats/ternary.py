"""The ternary formats of ggml: 256 weights that are -1, 0 or 1 times an fp16 scale `d`, the largest magnitude.

They are meant for models that were trained with ternary weights. Nothing is searched for, so error weights change
nothing. A weight is stored as a trit: 0, 1 or 2.
"""

from typing import ClassVar

import torch

from .bits import bit_fields, from_half_bytes, half_bytes
from .block import QType
from .k_bits import pack_halves_of_crumbs
from .search import inverse, round_half_away


class TQ1_0(QType):
    """Five trits to a byte: x = d * (t - 1). The last 16 weights are in `qh`, four trits to a byte.

    bytes          weights       byte j of these holds
    qs 0 to 31     0 to 159      j, j + 32, j + 64, j + 96, j + 128
    qs 32 to 47    160 to 239    160 + j, 176 + j, 192 + j, 208 + j, 224 + j
    qh 0 to 3      240 to 255    240 + j, 244 + j, 248 + j, 252 + j
    """

    family = "ternary"
    block_size = 256
    fields: ClassVar = {"qs": 48, "qh": 4, "d": 2}
    scales = ("d",)
    zero = 1

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        d, t = ternary_codes(x)
        parts = zip(t.split([160, 80, 16], dim=-1), (32, 16, 4), strict=True)
        return torch.cat([*(pack_trits(part, stride) for part, stride in parts), half_bytes(d)], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        qs, qh, _ = self.split(data)
        t = [unpack_trits(qs[:, :32], 5), unpack_trits(qs[:, 32:], 5), unpack_trits(qh, 4)]
        return torch.cat(t, dim=-1)  # (n_blocks, 256)

    def steps(self, data: torch.Tensor) -> tuple[torch.Tensor, None]:
        return from_half_bytes(self.split(data)[-1]), None


class TQ2_0(QType):
    """Two bits to a trit: x = d * (q - 1). Codes of 3, which are never written, stand for 2 d."""

    family = "ternary"
    block_size = 256
    fields: ClassVar = {"qs": 64, "d": 2}
    scales = ("d",)
    zero = 1

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        d, t = ternary_codes(x)
        return torch.cat([pack_halves_of_crumbs(t), half_bytes(d)], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        qs, _ = self.split(data)
        return bit_fields(qs.unflatten(1, (2, 32)), 2)  # (n_blocks, 2, 4, 32)

    def steps(self, data: torch.Tensor) -> tuple[torch.Tensor, None]:
        return from_half_bytes(self.split(data)[-1]), None


def ternary_codes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale d >= 0, (n_blocks, 1), and trits t, (n_blocks, 256) uint8, of x = d * (t - 1).

    Half the scale rounds away from zero. Where |d| < 2**-128 and 1 / d is Inf, all trits are 1: C leaves the
    conversion of Inf and NaN to an integer undefined, and this is what x86 makes of it.
    """
    d = x.abs().amax(-1, keepdim=True)
    return d, (round_half_away(x * inverse(d)) + 1).view(torch.uint8)


def pack_trits(trits: torch.Tensor, stride: int) -> torch.Tensor:
    """(n_blocks, 5 * stride) or (n_blocks, 4 * stride) trits to (n_blocks, stride) uint8.

    Byte j holds weights j, j + stride, ... as the digits of a fraction in base 3, weight j first, with 0 for a fifth
    that is missing; 0.22222 in base 3 is 242 / 243. The byte is that fraction of 256, rounded up.
    """
    place = torch.tensor([81, 27, 9, 3, 1], dtype=torch.int32, device=trits.device)
    digits = trits.unflatten(-1, (-1, stride)).to(torch.int32)  # (n_blocks, 4 or 5, stride)
    numerator = (digits * place[: digits.shape[1], None]).sum(1)  # below 243
    return ((numerator * 256 + 242) // 243).to(torch.uint8)


def unpack_trits(data: torch.Tensor, count: int) -> torch.Tensor:
    """(n_blocks, stride) uint8 to (n_blocks, count * stride) trits, the inverse of `pack_trits`.

    Multiplying by a power of 3 moves digits over the point. What is left is the fraction, in the last 8 bits; 3 times
    that has the next digit above them.
    """
    power = torch.tensor([1, 3, 9, 27, 81], dtype=torch.int32, device=data.device)[:count, None]
    fraction = data[:, None].to(torch.int32) * power & 0xFF  # (n_blocks, count, stride)
    return (fraction * 3 >> 8).flatten(1).to(torch.uint8)
