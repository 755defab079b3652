"""The 4-bit formats with a table: codes are places in a list of sixteen numbers, which lie closer together near zero.

The scale of 32 weights is always searched for, also without importance. IQ4_XS gives eight such scales six bits each.
The searches repeat ggml's float32 arithmetic on columns, (32, n_blocks), as those of the other formats.
"""

from typing import ClassVar

import torch

from ..compilation import compilable
from .bits import bit_fields, from_half_bytes, half_bytes, pack_nibbles, unpack_nibbles
from .block import QType
from .k_bits import pack_crumbs, unpack_crumbs
from .search import ALL_ZERO, divide, first_extreme, mean_square, nearest, sqrt

VALUES = torch.tensor([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=torch.float32)
INTEGERS = VALUES.to(torch.int8)
MIDPOINTS = (VALUES[1:] + VALUES[:-1]) / 2  # whole numbers and halves, so x is nearest to NEAREST[floor(2 x) + 256]
NEAREST = torch.bucketize(torch.arange(-128, 128, 0.5), MIDPOINTS, right=True).to(torch.uint8)  # (512,)
NUMERATORS = torch.arange(-7.0, 8.0)[:, None] + VALUES[0]  # (15, 1), of the inverse scales that are tried


class IQ4QType(QType):
    """Error weights that grow with the weight itself and with its block; without importance, its square."""

    family = "I"
    searches = True

    def error_weights(self, rows: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
        x = rows.reshape(-1, self.block_size)
        return importance.reshape(x.shape) * sqrt(2 * mean_square(x) + x * x)


class IQ4_NL(IQ4QType):
    """Sixteen uneven levels: x = d * VALUES[q]."""

    block_size = 32
    fields: ClassVar = {"d": 2, "qs": 16}
    scales = ("d",)

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        d = search_table(x, x * x if weights is None else weights)
        return torch.cat([half_bytes(d), pack_nibbles(nearest_value(x * inverse_or_zero(d)))], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        _, qs = self.split(data)
        return from_table(bit_fields(qs, 4))  # (n_blocks, 2, 16)

    def steps(self, data: torch.Tensor) -> tuple[torch.Tensor, None]:
        d, _ = self.split(data)
        return from_half_bytes(d), None


class IQ4_XS(IQ4QType):
    """Eight times 32 weights, each with a scale from -32 to 31: x = d * (scale - 32) * VALUES[q].

    The lower four bits of the scales are in `scales_l`, the upper two in `scales_h`. Weights beyond about 1e17 have
    squares so large that the search ends in NaN; ggml leaves these 32 out, and they become 0.
    """

    block_size = 256
    fields: ClassVar = {"d": 2, "scales_h": 2, "scales_l": 4, "qs": 128}
    scales = ("d",)

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        x = x.reshape(-1, 32)  # (8 n_blocks, 32)
        scales = search_table(x, x * x if weights is None else weights.reshape(x.shape)).view(-1, 8)
        d = first_extreme(scales.masked_fill(scales.isnan(), 0.0)) / -32  # (n_blocks, 1)
        steps = nearest(scales * inverse_or_zero(d), -32, 31)  # (n_blocks, 8)
        q = nearest_value(x * inverse_or_zero(d * steps).view(-1, 1))  # (8 n_blocks, 32)
        scales_h, scales_l = pack_scales((steps + 32).to(torch.uint8))
        return torch.cat([half_bytes(d), scales_h, scales_l, pack_nibbles(q).view(-1, 128)], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        *_, qs = self.split(data)
        return from_table(bit_fields(qs.unflatten(1, (8, 16)), 4))  # (n_blocks, 8, 2, 16)

    def steps(self, data: torch.Tensor) -> tuple[torch.Tensor, None]:
        d, scales_h, scales_l, _ = self.split(data)
        return from_half_bytes(d) * (unpack_scales(scales_h, scales_l).float() - 32), None


def search_table(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The scale d, (n_blocks, 1), that makes sum(weights * (x - d * nearest value)**2) small; x is (n_blocks, 32).

    Each of 16 inverse scales, at and around VALUES[0] / extreme, gives values, and the values give the least-squares
    d. Source: `quantize_row_iq4_nl_impl` of ggml.
    """
    extreme = first_extreme(x)[:, 0]
    iscales = torch.cat([divide(1.0, divide(extreme, -VALUES[0]))[None], NUMERATORS.to(x.device) / extreme])
    tables = VALUES.to(x.device)[NEAREST.to(x.device).int()]  # (512,) the values themselves
    return _best_scale(x.T.contiguous(), weights.T.contiguous(), extreme, iscales, tables)[:, None]


@compilable(dim=-1)
def _best_scale(
    x: torch.Tensor, weights: torch.Tensor, extreme: torch.Tensor, iscales: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """The d that gains most, (n_blocks,): columns (32, n_blocks) and inverse scales (16, n_blocks)."""
    all_qx, all_q2 = 0.0, 0.0
    for position, weight in zip(x, weights, strict=True):
        value = values[half_steps(position * iscales)]  # (16, n_blocks)
        weighted = weight * value
        all_qx, all_q2 = all_qx + weighted * position, all_q2 + weighted * value
    sum_qx, sum_q2 = all_qx[0], all_q2[0]
    d = torch.where(sum_q2 > 0, sum_qx / sum_q2, 0.0)
    best = d * sum_qx
    for sum_qx, sum_q2 in zip(all_qx[1:], all_q2[1:], strict=True):
        better = (sum_q2 > 0) & (sum_qx * sum_qx > best * sum_q2)
        d = torch.where(better, sum_qx / sum_q2, d)
        best = torch.where(better, d * sum_qx, best)
    return torch.where(extreme.abs() < ALL_ZERO, 0.0, d)


def half_steps(x: torch.Tensor) -> torch.Tensor:
    """The places in NEAREST of any x, int32; of NaN the last."""
    last = torch.tensor(255.0, device=x.device)
    return (torch.fmin((2 * x).floor(), last).clamp(min=-256) + 256).int()


def nearest_value(x: torch.Tensor) -> torch.Tensor:
    """The codes, uint8, of the values nearest to x; on a tie the greater, and for NaN the last, as in ggml."""
    return NEAREST.to(x.device)[half_steps(x)]


def from_table(codes: torch.Tensor) -> torch.Tensor:
    """Codes below 16 to int8."""
    return VALUES.to(codes.device)[codes.int()]


def inverse_or_zero(d: torch.Tensor) -> torch.Tensor:
    """1 / d, and 0 for d = 0. `inverse` is 0 below 2**-128 too; in ggml weights then go to the table's ends."""
    return torch.where(d == 0, 0.0, d.reciprocal())


def pack_scales(scales: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n_blocks, 8) scales below 64 to `scales_h`, (n_blocks, 2), and `scales_l`, (n_blocks, 4), uint8 both.

    Bits of scale k, which are ......hhllll:

        scales_l  byte j     bit 7 6 5 4: scale 2j+1    bit 3 2 1 0: scale 2j
        scales_h  byte j     bit 7 6: scale 4j+3    5 4: scale 4j+2    3 2: scale 4j+1    1 0: scale 4j
    """
    scales_h, scales_l = pack_crumbs((scales >> 4).view(-1, 4)), pack_nibbles((scales & 0x0F).view(-1, 2))
    return scales_h.view(-1, 2), scales_l.view(-1, 4)


def unpack_scales(scales_h: torch.Tensor, scales_l: torch.Tensor) -> torch.Tensor:
    """The scales, (n_blocks, 8) uint8 below 64: the inverse of `pack_scales`."""
    high, low = unpack_crumbs(scales_h.reshape(-1, 1)), unpack_nibbles(scales_l.reshape(-1, 1))
    return (high << 4).view(-1, 8) | low.view(-1, 8)
