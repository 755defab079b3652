"""The search of IQ1_S and IQ1_M for the point of the grid that takes the place of eight codes that are none.

The point is the neighbour with the least sum(weights * (x - scale * level)**2). Of a code's three levels one is nearest
to x, as a rule that of the code itself. Then a point is no better than another that keeps more of these codes and else
agrees with it: each term of its sum, and with it the rounded sum, is at least as large. ggml, which keeps the first of
equals, meets the other earlier. So a shortlist of the neighbours, on average 16 of 73, has the same winner.
"""

from functools import cache

import numpy as np
import torch

from .grids import Grid, grid

BUCKET, BUCKETS = 32, 8  # at least 32 groups in a bucket, at most 8 buckets: see `least`
FLOAT_MAX = torch.finfo(torch.float32).max


@cache
def neighbour_lists() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The neighbours of each packed tuple of codes u, in ggml's order, as `packed_points`: first start, then count.

    For the shortlist start[0, u] and count[0, u], for the full list start[1, u] and count[1, u] refer to the third.
    """
    points = grid("IQ1_S")
    start, count = points.start.numpy(), points.count.numpy()
    tuples = np.flatnonzero(count)
    tuples = tuples[np.argsort(start[tuples])]
    tuples = np.repeat(tuples, count[tuples])  # of each neighbour
    keep = ~excelled(points, tuples, points.neighbours.numpy())
    short_count = np.bincount(tuples[keep], minlength=len(count))
    short_start = np.zeros_like(start)
    kept, first = np.unique(tuples[keep], return_index=True)
    short_start[kept] = first
    starts, counts = np.stack([short_start, start + keep.sum()]), np.stack([short_count, count])
    packed = packed_points(points.points)[points.neighbours.long()]
    packed = torch.cat([packed[torch.from_numpy(keep)], packed])
    return torch.from_numpy(starts.astype(np.int32)), torch.from_numpy(counts.astype(np.int32)), packed


def excelled(points: Grid, tuples: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Whether another point lies between a packed tuple and its neighbour, (n_pairs,) both and the result.

    Between them is what has some of the changes that make the neighbour out of the tuple, up to four.
    """
    changes = points.points.numpy()[numbers].astype(np.int32) - (tuples[:, None] >> 2 * np.arange(8) & 3)
    changes = changes << 2 * np.arange(8)  # (n_pairs, 8)
    pair, digit = changes.nonzero()
    steps = np.zeros((len(changes), 4), np.int64)
    steps[pair, np.arange(len(pair)) - np.searchsorted(pair, pair)] = changes[pair, digit]
    neighbours, is_point = tuples + steps.sum(1), points.index.numpy() >= 0
    found = np.zeros(len(tuples), bool)
    for some in range(1, 15):
        between = tuples + steps @ (some >> np.arange(4) & 1)
        found |= is_point[between] & (between != neighbours)
    return found


def packed_points(codes: torch.Tensor) -> torch.Tensor:
    """(2048, 8) codes to (2048,) int32, for which rows of `table_of_sums` a point needs.

    bit    25 to 15           14 13    12 11    10 9     8 7      6 to 0
           number of point    code 7   code 6   code 5   code 4   ((code 0 * 3 + code 1) * 3 + code 2) * 3 + code 3
    """
    codes = codes.to(torch.int32)
    packed = ((codes[:, 0] * 3 + codes[:, 1]) * 3 + codes[:, 2]) * 3 + codes[:, 3]
    for i in range(4, 8):
        packed |= codes[:, i] << 2 * i - 1
    return packed | torch.arange(len(codes), dtype=torch.int32) << 15


def nearest_neighbours(
    x: torch.Tensor, weights: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, tuples: torch.Tensor
) -> torch.Tensor:
    """The numbers of the points, -1 where all sums are NaN or beyond float32: (n,) int32.

    x and weights are (8, n). scale, shift, 1/8 or -1/8, and the packed codes, which are no point, are (n,).
    """
    levels = torch.arange(-1.0, 2.0, device=x.device)[:, None] + shift  # (3, n)
    difference = scale * levels - x[:, None]  # (8, 3, n)
    costs = weights[:, None] * difference * difference
    codes = tuples >> 2 * torch.arange(8, dtype=torch.int32, device=x.device)[:, None] & 3  # (8, n)
    own = costs.gather(1, codes[:, None].long())[:, 0]
    full = (~(costs.amin(1) == own).all(0)).long()
    start, count, points = (part.to(x.device) for part in neighbour_lists())
    return least(table_of_sums(costs), start[full, tuples], count[full, tuples], points)


def table_of_sums(costs: torch.Tensor) -> torch.Tensor:
    """What the first four codes cost together, in order, and what each of the last four does.

    (8, 3, n) to (81 + 4 * 3, n).
    """
    sums = costs[0]
    for levels in costs[1:4]:
        sums = (sums[:, None] + levels).flatten(0, 1)  # (3**i, n)
    return torch.cat([sums, costs[4:].flatten(0, 1)])


def least(table: torch.Tensor, start: torch.Tensor, count: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The number of the first point with the least sum below the largest float32, else -1: (n,) int32.

    table is (93, n). Column k chooses from the packed points[start[k] : start[k] + count[k]].
    """
    count, order = count.sort(descending=True)
    size = max(BUCKET, -(-len(count) // BUCKETS))
    buckets = list(zip(start[order].split(size), count.split(size), order.int().split(size), strict=True))
    lengths = [int(count[0]) for _, count, _ in buckets]
    rank = torch.arange(max(lengths), dtype=torch.int32, device=table.device)[:, None]
    # a list that is shorter than the longest of its bucket ends with its last point several times
    places = [start + rank[:n].minimum(count - 1) for n, (start, count, _) in zip(lengths, buckets, strict=True)]
    columns = [column.expand(n, -1) for n, (_, _, column) in zip(lengths, buckets, strict=True)]
    shapes, sizes = [place.shape for place in places], [place.numel() for place in places]
    places, columns = (torch.cat([part.reshape(-1) for part in parts]) for parts in (places, columns))
    sums, packed = sums_of_points(table, points, places, columns)
    best = [sums.view(shape).min(0) for sums, shape in zip(sums.split(sizes), shapes, strict=True)]
    chosen = [
        part.view(shape).gather(0, at[None])[0]
        for part, shape, (_, at) in zip(packed.split(sizes), shapes, best, strict=True)
    ]
    numbers = torch.where(torch.cat([least for least, _ in best]) < FLOAT_MAX, torch.cat(chosen) >> 15, -1)
    return torch.empty_like(numbers).index_copy_(0, order, numbers)


def sums_of_points(
    table: torch.Tensor, points: torch.Tensor, places: torch.Tensor, columns: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the packed points at places, (m,), cost in columns, (m,), of the table, and these points: (m,) both."""
    points = points.index_select(0, places)
    width = table.shape[1]
    sums = table.view(-1).index_select(0, columns.add(points & 0x7F, alpha=width))
    for i in range(4):
        code = (points >> 7 + 2 * i).bitwise_and_(3)
        sums += table[81 + 3 * i :].view(-1).index_select(0, columns.add(code, alpha=width))
    return sums, points
