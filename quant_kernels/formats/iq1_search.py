"""The search of IQ1_S and IQ1_M: which weights of a sub-block become -1, 0 and 1, and with which scale.

Once the weights are sorted, three levels are two cuts, so all of them can be tried: i1 weights get the lowest level and
those from i2 on the highest. A level is the code -1, 0 or 1 plus a shift of 1/8 or -1/8, which is tried too. A cut is
good if sum(weights * x * level)**2 / sum(weights * level**2), which is what the least-squares scale takes off the
error, is large. Both sums follow from sums over the sorted weights.

ggml looks at one cut after the other and keeps a better one. Cuts that are as good but for rounding are common, and
among these the bytes depend on that order and on the rounding of each step. So the cuts are first tried all at once, in
any arithmetic; those that come near the best, few as a rule, are then tried as ggml does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from ..compilation import compilable
from .search import ordered_sum

SHIFT = 0.125  # IQ1S_DELTA and IQ1M_DELTA
LEVELS = {1: (-1 + SHIFT, SHIFT, 1 + SHIFT), -1: (-1 - SHIFT, -SHIFT, 1 - SHIFT)}
# Of the best. Levels are at least 1/8, so cancellation leaves 2**-14 and less between two roundings.
NEAR = 1 - 2.0**-12
PIECE = 1024  # sub-blocks: what is computed of their cuts stays in cache
LOWEST = torch.finfo(torch.float32).min

Signs = tuple[tuple[int, ...], ...]  # the ways to shift the parts of a sub-block, in ggml's order


@dataclass(frozen=True)
class Sums:
    """Sums of weights * x and of weights over the first i weights in sorted order, for each part of a sub-block.

    x and w are (n + 1, n_parts, n_blocks); of IQ1_S the only part is the whole, of IQ1_M the parts are the halves.
    """

    x: torch.Tensor
    w: torch.Tensor

    def of(self, blocks: torch.Tensor) -> "Sums":
        return Sums(self.x[..., blocks], self.w[..., blocks])


Scores = Callable[[Sums, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def sorted_order(x: torch.Tensor) -> torch.Tensor:
    """The places of the weights in ascending order, equal ones in their order: (n_blocks, n) to int64 of that shape.

    glibc's qsort, a merge sort, is stable too. 0 and -0 are equal.
    """
    bits = (x + 0.0).view(torch.int32)  # -0 + 0 is 0
    ascending = bits ^ (bits >> 31).bitwise_and_(0x7FFFFFFF)  # of negative floats the larger bits are the lower number
    n = x.shape[-1]
    keys = ascending.to(torch.int64).mul_(n).add_(torch.arange(n, device=x.device))
    # numpy sorts short rows ten times faster
    keys = torch.from_numpy(np.sort(keys.numpy())) if keys.device.type == "cpu" else keys.sort().values
    return keys.bitwise_and_(n - 1)


def sorted_sums(x: torch.Tensor, weights: torch.Tensor, order: torch.Tensor, n_parts: int) -> Sums:
    """The sums of a sub-block, (n_blocks, n), whose parts are its equal pieces; all others add 0 to those of a part."""
    n_blocks, n = x.shape
    x, weights = (side.gather(-1, order).T for side in (x, weights))
    terms = torch.stack([weights * x, weights], dim=1)[:, :, None]  # (n, 2, 1, n_blocks)
    if n_parts > 1:
        part = (order >> (n // n_parts).bit_length() - 1).to(torch.int8).T.contiguous()
        own = part[:, None, None] == torch.arange(n_parts, dtype=torch.int8, device=x.device)[:, None]
        terms = torch.where(own, terms, 0.0)  # (n, 2, n_parts, n_blocks)
    sums = x.new_zeros(n + 1, 2, n_parts, n_blocks)
    for i, term in enumerate(terms):
        torch.add(sums[i], term, out=sums[i + 1])
    return Sums(*sums.unbind(1))


def best_cuts(
    sums: Sums, signs: Signs, scores: Scores, relevant: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The cuts i1 and i2, the number of the signs, -1 where there are none, and the scale: (n_blocks,) each.

    `relevant` says which sub-blocks are searched at all. `scores` gives the exact sums of some sub-blocks for one i1,
    one choice of signs and all i2, (n + 1, n_some) each.
    """
    pieces = zip(sums.x.split(PIECE, -1), sums.w.split(PIECE, -1), strict=True)
    rough = torch.cat([rough_scores(*piece, signs) for piece in pieces], dim=-1)  # (n + 1, n_signs, n_blocks)
    best = rough.flatten(0, 1).amax(0)
    limit = torch.where(is_usual(best, sums.w[-1].sum(0)), best * NEAR, -torch.inf)
    i1, way, blocks = (relevant & ~(rough < limit)).nonzero().unbind(-1)
    levels = levels_of(signs).to(blocks.device)[way]  # (n_some, 3, n_parts)
    qx, q2 = scores(sums.of(blocks), i1, levels.permute(1, 2, 0))  # (n + 1, n_some)
    place = torch.arange(len(qx), device=qx.device)[:, None]
    below = torch.where(place < i1, -torch.inf, 0.0)  # i2 < i1 is no cut
    i2, some = (~((qx * qx / q2).add_(below) < limit[blocks])).nonzero().unbind(-1)
    exists = i2 >= i1[some]  # a NaN is near too
    i2, some = i2[exists], some[exists]
    place = (i1[some] * len(qx) + i2) * len(signs) + way[some]  # in ggml's order
    place, scale = first_better(blocks[some], place, qx[i2, some], q2[i2, some], len(relevant))
    cuts, way = place // len(signs), torch.where(place < 0, -1, place % len(signs))
    return cuts // len(qx), cuts % len(qx), way, scale


@cache
def levels_of(signs: Signs) -> torch.Tensor:
    """The levels of each part for each choice of signs: (n_signs, 3, n_parts) float32."""
    return torch.tensor([[LEVELS[sign] for sign in way] for way in signs]).transpose(1, 2)


@compilable(dim=-1)
def rough_scores(x: torch.Tensor, w: torch.Tensor, signs: Signs) -> torch.Tensor:
    """How good each i1 with each choice of signs is, with its best i2: (n + 1, n_signs, n_blocks).

    x, w: `Sums`. The three levels are 1 apart, so sum(weights * x * level) is the highest level times the sum of all
    less the sums up to i1 and up to i2.
    """
    both = ordered_sum(x.transpose(0, 1))  # (n + 1, n_blocks)
    terms = []
    for way in signs:
        levels = [LEVELS[sign] for sign in way]
        low = sum(w[:, part] * (a * a - b * b) for part, (a, b, _) in enumerate(levels))
        high = sum(w[:, part] * (b * b - c * c) + w[-1, part] * (c * c) for part, (_, b, c) in enumerate(levels))
        terms.append((sum(x[-1, part] * c for part, (_, _, c) in enumerate(levels)) - both, low, high))
    scores = []
    for i1 in range(len(x)):
        for rest, low, high in terms:
            qx = rest[i1:] - both[i1]
            scores.append((qx * qx / (high[i1:] + low[i1])).amax(0))
    return torch.stack(scores).unflatten(0, (len(x), len(signs)))


def is_usual(best: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Where nothing that matters to the best score overflows or becomes denormal."""
    product, large, small = best * w, 2.0**100, 2.0**-100
    usual = (best > small) & (best < large) & (w > small) & (w < large)
    return usual & (product > small) & (product < large)


def first_better(
    blocks: torch.Tensor, place: torch.Tensor, qx: torch.Tensor, q2: torch.Tensor, n_blocks: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The place, -1 where there is none, and the scale of the best cut of each block: (n_blocks,) both.

    blocks, place, qx and q2 describe the cuts to be tried, in the order of their places.
    """
    order = (blocks * (place.max() + 1 if len(place) else 1) + place).argsort()
    place, qx, q2 = place[order], qx[order], q2[order]
    scale, square = qx / q2, qx * qx
    score = scale * qx
    count = blocks.bincount(minlength=n_blocks)
    first = count.cumsum(0) - count
    best = torch.full((n_blocks,), LOWEST, device=qx.device)
    chosen = torch.full_like(count, -1)
    block = count.nonzero()[:, 0]
    for turn in range(int(count.max())):
        block = block[count[block] > turn]
        trial, least = first[block] + turn, best[block]
        better = (q2[trial] > 0) & (square[trial] > least * q2[trial])
        best[block] = torch.where(better, score[trial], least)
        chosen[block[better]] = trial[better]
    if not len(place):
        return chosen, torch.zeros_like(best)
    found = chosen >= 0
    return torch.where(found, place[chosen], -1), torch.where(found, scale[chosen], 0.0)


def codes_of_cuts(order: torch.Tensor, i1: torch.Tensor, i2: torch.Tensor) -> torch.Tensor:
    """The codes 0, 1 and 2 of the weights in their own order: (n_blocks, n) uint8."""
    place = torch.arange(order.shape[1], device=order.device, dtype=torch.int16)
    codes = (place >= i1[:, None]).to(torch.uint8) + (place >= i2[:, None]).to(torch.uint8)
    return torch.empty_like(codes).scatter_(-1, order, codes)
