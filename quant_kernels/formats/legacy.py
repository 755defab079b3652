"""The first formats of ggml: blocks of 32 weights with an fp16 scale `d`, some with an fp16 minimum `m`.

Without error weights the scale comes from the extremes of the block, with them from a search. Either way the codes are
made with the float32 scale, before it is rounded to fp16.
"""

from typing import ClassVar

import torch

from .bits import bit_fields, from_half_bytes, half_bytes, pack_bits, pack_nibbles, unpack_bits
from .block import QType
from .search import (
    divide,
    first_extreme,
    first_minimum,
    inverse,
    mean_square,
    round_half_away,
    search_asymmetric,
    search_symmetric,
    sqrt,
)


class LegacyQType(QType):
    """32 weights, and error weights that grow with the weight itself and with its whole row."""

    family = "legacy"
    block_size = 32

    def error_weights(self, rows: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
        return importance * sqrt(mean_square(rows) + rows * rows)

    def steps(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        fields = dict(zip(self.fields, self.split(data), strict=True))
        return from_half_bytes(fields["d"]), from_half_bytes(fields["m"]) if "m" in fields else None


class Q4_0(LegacyQType):
    """Sixteen levels around zero: x = d * (q - 8)."""

    fields: ClassVar = {"d": 2, "qs": 16}
    scales = ("d",)
    zero = 8

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        d, q = symmetric_codes(x, weights, nmax=8)
        return torch.cat([half_bytes(d), pack_nibbles(q)], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        _, qs = self.split(data)
        return bit_fields(qs, 4)  # (n_blocks, 2, 16)


class Q4_1(LegacyQType):
    """Sixteen levels from the minimum up: x = d * q + m."""

    fields: ClassVar = {"d": 2, "m": 2, "qs": 16}
    scales = ("d", "m")

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        d, m, q = asymmetric_codes(x, weights, nmax=15)
        return torch.cat([half_bytes(d), half_bytes(m), pack_nibbles(q)], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        _, _, qs = self.split(data)
        return bit_fields(qs, 4)  # (n_blocks, 2, 16)


class Q5_0(LegacyQType):
    """Thirty-two levels around zero: x = d * (q - 16). The fifth bits of the codes are in `qh`."""

    fields: ClassVar = {"d": 2, "qh": 4, "qs": 16}
    scales = ("d",)
    zero = 16

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        d, q = symmetric_codes(x, weights, nmax=16)
        return torch.cat([half_bytes(d), pack_bits(q >> 4), pack_nibbles(q & 0x0F)], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        _, qh, qs = self.split(data)
        return five_bits(qh, qs)


class Q5_1(LegacyQType):
    """Thirty-two levels from the minimum up: x = d * q + m. The fifth bits of the codes are in `qh`."""

    fields: ClassVar = {"d": 2, "m": 2, "qh": 4, "qs": 16}
    scales = ("d", "m")

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        d, m, q = asymmetric_codes(x, weights, nmax=31)
        return torch.cat([half_bytes(d), half_bytes(m), pack_bits(q >> 4), pack_nibbles(q & 0x0F)], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        _, _, qh, qs = self.split(data)
        return five_bits(qh, qs)


class Q8_0(LegacyQType):
    """Signed bytes: x = d * q, with q from -127 to 127. Searches for no scale, so error weights change nothing."""

    fields: ClassVar = {"d": 2, "qs": 32}
    scales = ("d",)

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        d = divide(x.abs().amax(-1, keepdim=True), 127)
        q = round_half_away(x * inverse(d))  # (n_blocks, 32)
        return torch.cat([half_bytes(d), q.view(torch.uint8)], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        _, qs = self.split(data)
        return qs.view(torch.int8)  # (n_blocks, 32)


def five_bits(qh: torch.Tensor, qs: torch.Tensor) -> torch.Tensor:
    """The codes, (n_blocks, 2, 2, 8): fifth bits from qh, (n_blocks, 4), the others from qs, (n_blocks, 16)."""
    fifth = unpack_bits(qh).unflatten(1, (2, 2, 8))
    return (fifth << 4) | bit_fields(qs, 4).unflatten(-1, (2, 8))


def symmetric_codes(x: torch.Tensor, weights: torch.Tensor | None, nmax: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale d, (n_blocks, 1), and codes q in [0, 2 * nmax), (n_blocks, 32) uint8, of x = d * (q - nmax).

    The element of largest magnitude gets code 0, hence a scale of the opposite sign.
    """
    if weights is not None:
        d, q = search_symmetric(x.T.contiguous(), weights.T.contiguous(), nmax)
        return d[:, None], q.T.to(torch.uint8)
    d = first_extreme(x) / -nmax
    id = inverse(d)
    # ggml's 1 / d is Inf where |d| < 2**-128, and all codes end as 0 instead of nmax
    offset = torch.where((id == 0) & (d != 0), 0.0, nmax + 0.5).to(x.dtype)
    q = (x * id).add_(offset).to(torch.int8).view(torch.uint8)
    return d, q.clamp_(max=2 * nmax - 1)


def asymmetric_codes(
    x: torch.Tensor, weights: torch.Tensor | None, nmax: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The scale d and minimum m, (n_blocks, 1), and codes q in [0, nmax], (n_blocks, 32) uint8, of x = d * q + m."""
    if weights is not None:
        d, m, q = search_asymmetric(x.T.contiguous(), weights.T.contiguous(), nmax)
        return d[:, None], m[:, None], q.T.to(torch.uint8)
    m = first_minimum(x)
    d = divide((x.amax(-1, keepdim=True) - m).abs(), nmax)  # abs: -0 - 0 is -0, here 0
    q = (x - m).mul_(inverse(d)).add_(0.5).to(torch.int8).view(torch.uint8)
    return d, m, q.clamp_(max=nmax)
