"""The I-quants with a ternary digit to a weight: eight codes -1, 0 or 1 are the number of one of 2048 grid points.

A weight is x = scale * (code + shift): all codes of a group are shifted by 1/8 or by -1/8. The search for the codes,
shifts and scales of sub-blocks is in `iq1_search` and `iq1_neighbours`.
"""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import torch

from .bits import from_half_bytes, half_bytes, pack_nibbles
from .block import QType
from .grids import grid
from .iq1_neighbours import nearest_neighbours
from .iq1_search import SHIFT, Scores, Signs, Sums, best_cuts, codes_of_cuts, sorted_order, sorted_sums
from .search import divide, mean_square, nearest, ordered_sum, sqrt

SIGNS_OF_WHOLE: Signs = ((1,), (-1,))
SIGNS_OF_HALVES: Signs = ((1, 1), (1, -1), (-1, 1), (-1, -1))
PLACE = torch.tensor([1 << 2 * i for i in range(8)], dtype=torch.float32)  # of a code in a packed tuple


class IQ1QType(QType):
    """Error weights that grow with the weight itself and with its block."""

    family = "I"
    block_size = 256
    searches = True
    fuses = False
    search_chunk = 2**17
    refusal = (
        "a scale of its block is not finite in fp16, which ends at 65504, "
        "or the search for it ends in numbers beyond float32"
    )

    def error_weights(self, rows: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
        x = rows.reshape(-1, self.block_size)
        sigma2 = mean_square(x) * (2 * self.block_size) / self.block_size  # ggml doubles the sum, which may overflow
        return importance.reshape(x.shape) * sqrt(sigma2 + x * x)


class IQ1_S(IQ1QType):
    """Sub-blocks of 32 weights with a scale and a shift: x = d * (2 * scale + 1) * (code + shift).

    A sub-block has four points. Byte j of `qs` is the lower part of number j; `qh` are eight little-endian uint16:

        bit    15             14 13 12    11 10 9          8 7 6            5 4 3            2 1 0
               shift is -1/8  scale       top of point 3   top of point 2   top of point 1   top of point 0
    """

    fields: ClassVar = {"d": 2, "qs": 32, "qh": 16}
    scales = ("d",)
    needs_importance = True

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        found = search(x.view(-1, 32), weights.reshape(-1, 32), SIGNS_OF_WHOLE, scores_of_whole, 1e-12)
        points = found.points.view(-1, 8, 4)
        largest, d, steps = steps_of(found.scales.view(-1, 8))
        top = torch.where(largest == 0, 0, steps.int() | found.negative.view(-1, 8).int() << 3)
        qh = pack_words(torch.cat([points >> 8, top[..., None]], dim=-1))
        return torch.cat([half_bytes(d * 1.125), points.flatten(1).to(torch.uint8), qh], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        _, qs, qh = self.split(data)
        *tops, fifth = unpack_words(qh)  # (n_blocks, 8)
        points = qs.unflatten(1, (8, 4)) | torch.stack(tops, dim=-1) << 8
        return eighths(points, (fifth >> 3)[..., None])  # (n_blocks, 8, 32)

    def steps(self, data: torch.Tensor) -> tuple[torch.Tensor, None]:
        d, _, qh = self.split(data)
        *_, fifth = unpack_words(qh)
        return from_half_bytes(d) * ((fifth & 7) * 2 + 1) * SHIFT, None


class IQ1_M(IQ1QType):
    """Sub-blocks of 16 weights with a scale, and a shift for each half: x = d * (2 * scale + 1) * (code + shift).

    Half a sub-block is one point. Byte j of `qs` is the lower part of number j; byte k of `qh` belongs to sub-block k:

        bit    7                     6 5 4               3                     2 1 0
               half 1 shift -1/8     top of its point    half 0 shift -1/8     top of its point

    `scales` are four little-endian uint16, of which each has a part of fp16 d, its lowest bits in the first:

        bit    15 14 13 12    11 10 9      8 7 6        5 4 3        2 1 0
               part j of d    scale 4j+3   scale 4j+2   scale 4j+1   scale 4j
    """

    fields: ClassVar = {"qs": 32, "qh": 16, "scales": 8}

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        weights = x * x if weights is None else weights.reshape(x.shape)
        found = search(x.view(-1, 16), weights.view(-1, 16), SIGNS_OF_HALVES, scores_of_halves, 1e-7)
        points = found.points.view(-1, 32)
        largest, d, steps = steps_of(found.scales.view(-1, 16))
        negative = found.negative.view(-1, 32) & (largest != 0)
        values = levels_of_points(points, negative).view(-1, 16, 16) * (2 * steps + 1)[..., None]
        qx, q2 = sums_of_fit(values.flatten(1), x, weights)
        d = torch.where((q2 > 0)[:, None] & ~d.isnan(), (qx / q2)[:, None], d) * 1.1125
        d, steps = (torch.where(largest == 0, 0.0, part) for part in (d, steps))
        nibbles = half_bytes(d).view(torch.int16).int() >> 4 * torch.arange(4, device=x.device)  # (n_blocks, 4)
        scales = pack_words(torch.cat([steps.int().view(-1, 4, 4), nibbles[..., None] & 0xF], dim=-1))
        qh = pack_nibbles((points >> 8 | negative.int() << 3).to(torch.uint8).view(-1, 2)).view(-1, 16)
        return torch.cat([points.to(torch.uint8), qh, scales], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        qs, qh, _ = self.split(data)
        top = torch.stack([qh & 0xF, qh >> 4], dim=-1).flatten(1)  # (n_blocks, 32)
        return eighths(qs | (top.int() & 7) << 8, top >> 3).unflatten(1, (16, 16))

    def steps(self, data: torch.Tensor) -> tuple[torch.Tensor, None]:
        scales = self.split(data)[-1]
        *steps, _ = unpack_words(scales)
        return self.d(scales) * (torch.stack(steps, dim=-1).flatten(1) * 2 + 1) * SHIFT, None

    def finite_scales(self, data: torch.Tensor) -> torch.Tensor:
        return self.d(self.split(data)[-1])[:, 0].isfinite()

    def d(self, scales: torch.Tensor) -> torch.Tensor:
        """(n_blocks, 8) uint8 to (n_blocks, 1) float32."""
        first, second, third, fourth = (scales[:, 1::2].int() >> 4).unbind(-1)
        bits = first | second << 4 | third << 8 | fourth << 12
        return bits.to(torch.int16).view(torch.float16).float()[:, None]


@dataclass(frozen=True)
class Found:
    """What the search finds: scales, NaN where ggml ends the process, (n,), numbers of points, (n, groups), and which
    groups are shifted by -1/8, (n, n_parts) bool.
    """

    scales: torch.Tensor
    points: torch.Tensor
    negative: torch.Tensor


def search(x: torch.Tensor, weights: torch.Tensor, signs: Signs, scores: Scores, all_zero: float) -> Found:
    """The scales, points and shifts of sub-blocks, (n, 32 or 16), that make sum(weights * (x - y)**2) small.

    A sub-block below the magnitude `all_zero`, or where no cut is any good, has scale 0 and point 0.
    """
    order = sorted_order(x)
    sums = sorted_sums(x, weights, order, len(signs[0]))
    relevant = x.abs().amax(-1) >= np.float32(all_zero)
    i1, i2, way, scale = best_cuts(sums, signs, scores, relevant)
    found, swap = way >= 0, scale < 0
    codes = codes_of_cuts(order, i1, i2)
    codes = torch.where(swap[:, None], 2 - codes, codes)
    way = torch.where(swap, len(signs) - 1 - way, way).masked_fill_(~found, 0)
    scale = scale.abs()
    negative = torch.tensor(signs, device=x.device)[way] < 0  # (n, n_parts)
    points, off = points_of_codes(codes, found, x, weights, scale, negative)
    missing = (points < 0).any(-1)
    points = points.clamp_(min=0)
    qx, q2 = sums_of_fit(levels_of_points(points, negative).view_as(x), x, weights)
    scale = torch.where(off & (qx > 0) & (q2 > 0), qx / q2, scale)
    failed = missing | scale.isnan()
    return Found(scale.masked_fill_(failed, torch.nan), points, negative)


def points_of_codes(
    codes: torch.Tensor,
    found: torch.Tensor,
    x: torch.Tensor,
    weights: torch.Tensor,
    scale: torch.Tensor,
    negative: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The points that stand for the codes of sub-blocks, (n, groups) int32, and where they are others, (n,) bool."""
    tuples = (codes.view(-1, 8).float() @ PLACE.to(x.device)).to(torch.int32)
    points = grid("IQ1_S").index.to(x.device)[tuples].view(len(x), -1)  # (n, groups)
    points = torch.where(found[:, None], points, 0)
    off = (points.view(-1) < 0).nonzero()[:, 0]
    if len(off):
        block = off // points.shape[1]
        part = off % points.shape[1] % negative.shape[1]
        shift = torch.where(negative[block, part], -SHIFT, SHIFT)
        columns = (side.reshape(-1, 8)[off].T.contiguous() for side in (x, weights))
        points.view(-1)[off] = nearest_neighbours(*columns, scale[block], shift, tuples[off])
    is_off = torch.zeros_like(found)
    is_off[off // points.shape[1]] = True
    return points, is_off


def scores_of_whole(sums: Sums, i1: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """ggml's sums of weights * x * level and weights * level**2 for IQ1_S: see `best_cuts`; levels are (3, 1, n)."""
    x, w = sums.x[:, 0], sums.w[:, 0]  # (33, n)
    low, middle, high = levels[:, 0]
    x1, w1 = x.gather(0, i1[None]), w.gather(0, i1[None])
    qx = x1 * low + (x - x1) * middle + (x[-1] - x) * high
    return qx, w1 * low * low + (w - w1) * middle * middle + (w[-1] - w) * high * high


def scores_of_halves(sums: Sums, i1: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """ggml's sums of weights * x * level and weights * level**2 for IQ1_M: see `best_cuts`; levels are (3, 2, n)."""
    x, w = sums.x, sums.w  # (17, 2, n)
    low, middle, high = levels
    place = i1.expand(1, 2, -1)
    qx = x[-1] * high - (x.gather(0, place) + x)
    q2 = w[-1] * high * high + w.gather(0, place) * (low * low - middle * middle) + w * (middle * middle - high * high)
    return qx[:, 0] + qx[:, 1], q2[:, 0] + q2[:, 1]


def levels_of_points(points: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """The eight levels of each point, (n, groups, 8) float32; negative, (n, 1 or groups), says how they are shifted."""
    return eighths(points, negative).float().mul_(SHIFT).unflatten(-1, (-1, 8))


def eighths(points: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """The levels of points, (..., groups), in units of 1/8: (..., 8 * groups) int8. `negative` is broadcast to them."""
    rows = points | negative.to(torch.int32) << 11
    return shifted_points().to(points.device).index_select(0, rows.view(-1)).view(*rows.shape).view(torch.int8)


@cache
def shifted_points() -> torch.Tensor:
    """The points with 8 * code + 1, and again with 8 * code - 1: (4096,) int64, of which each is eight int8."""
    points = grid("IQ1_S").points.to(torch.int8) * 8 - 8
    return torch.cat([points + 1, points - 1]).view(torch.int64)[:, 0]


def sums_of_fit(values: torch.Tensor, x: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """sum(weights * values * x) and sum(weights * values**2) over blocks, in order: (n, size) to (n,)."""
    values, x, weights = (side.T.contiguous() for side in (values, x, weights))
    weighted = weights * values
    return ordered_sum(torch.stack([weighted * x, weighted * values], dim=1)).unbind()


def steps_of(scales: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The largest scale and d, (n_blocks, 1), and steps of 0 to 7, (n_blocks, m), for scales = d * (2 * steps + 1)."""
    largest = scales.amax(-1, keepdim=True) + 0.0  # no -0
    d = divide(largest, 15)
    return largest, d, nearest((scales * d.reciprocal() - 1) * 0.5, 0, 7)


def pack_words(parts: torch.Tensor) -> torch.Tensor:
    """(n_blocks, m, 5) codes, four of 3 bits and one of 4, to m little-endian uint16: (n_blocks, 2 * m) uint8."""
    first, second, third, fourth, fifth = parts.int().unbind(-1)
    words = first | second << 3 | third << 6 | fourth << 9 | fifth << 12
    return words.to(torch.int16).view(torch.uint8)


def unpack_words(data: torch.Tensor) -> list[torch.Tensor]:
    """(n_blocks, 2 * m) uint8 to five times (n_blocks, m) int32, the inverse of `pack_words`."""
    words = data.clone(memory_format=torch.contiguous_format).view(torch.int16).int()
    return [words >> shift & mask for shift, mask in ((0, 7), (3, 7), (6, 7), (9, 7), (12, 15))]
