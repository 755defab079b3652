"""The neighbours of the tuples of codes that are no points of a grid, laid out for the search of the best one.

Not all have to be looked at. A neighbour is no better than another that lies between the tuple and it: whose codes all
are those of the tuple, or of the neighbour, or in between. For where the tuple has the codes nearest to the weights, as
a rule, each term of the error grows with the distance from its code, and with the terms grows their rounded sum. ggml,
which keeps the first of equals, meets the nearer one first. So there are short lists beside the full ones, of 13
neighbours instead of 58 with the IQ2_XS grid and Gaussian weights, and they have the same winner.
"""

from dataclasses import dataclass
from functools import cache

import torch

from .grids import grid

NOWHERE = 2.0**40  # all values of the point that ends a list


@dataclass(frozen=True)
class Neighbours:
    """A grid as the search needs it, on a device. Tuples of codes are packed as in `Grid`; code c has value 2 c + 1."""

    dim: int
    bits: int  # of a code
    n_codes: int
    is_point: torch.Tensor  # (2**(bits * dim),) int32, 1 for points, 0 for others
    start: torch.Tensor  # (2, 2**(bits * dim)) int32, where the short and the full list of a tuple's neighbours start
    count: torch.Tensor  # (2, 2**(bits * dim)) int32, and how long they are
    numbers: torch.Tensor  # the lists, int32, of the numbers of points; each ends with n_points, which is none
    values: torch.Tensor  # (dim, n_points + 1) float32
    packed: torch.Tensor  # (n_points + 1,) int32, the points' codes
    lower: torch.Tensor  # (n_codes,) float32, the value between a code and the one below, -Inf for the first
    upper: torch.Tensor  # (n_codes,) float32, the inverse of that between a code and the one above, 0 for the last


@cache
def neighbours(name: str, device: torch.device) -> Neighbours:
    """The grid of a format, on a device."""
    g = grid(name)
    tuples = g.count.nonzero()[:, 0]
    tuples = tuples[g.start[tuples].argsort()]  # in the order of their lists
    tuples = tuples.repeat_interleave(g.count[tuples])  # of each neighbour
    kept = ~excelled(g.points[g.neighbours].char() - unpack(tuples, g.bits, g.dim).T.char(), g.start[tuples])
    lists = [with_ends(tuples[some], g.neighbours[some], len(g.points), len(g.index)) for some in (kept, kept | True)]
    start, count, numbers = zip(*lists, strict=True)
    codes = torch.cat([g.points, g.points[:1]]).int()
    values = (2 * codes + 1).float()
    values[-1] = NOWHERE
    packed = (codes << g.bits * torch.arange(g.dim, dtype=torch.int32)).sum(1, dtype=torch.int32)
    lower, upper = 2.0 * torch.arange(g.n_codes), 1 / (2.0 * torch.arange(g.n_codes) + 2)
    lower[0], upper[-1] = -torch.inf, 0
    tables = (
        *((g.index >= 0).int(), torch.stack([start[0], start[1] + len(numbers[0])]), torch.stack(count)),
        *(torch.cat(numbers), values.T.contiguous(), packed, lower.float(), upper.float()),
    )
    return Neighbours(g.dim, g.bits, g.n_codes, *(table.to(device) for table in tables))


def with_ends(
    tuples: torch.Tensor, numbers: torch.Tensor, end: int, size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Starts and counts, (size,) int32, and the lists, in each of which `end` follows the numbers of a tuple."""
    count = tuples.bincount(minlength=size)
    known, rank = tuples.unique_consecutive(return_inverse=True)
    lists = torch.full((len(numbers) + len(known),), end, dtype=torch.int32)
    lists[torch.arange(len(numbers)) + rank] = numbers
    start, length = torch.zeros_like(count), count[known] + 1
    start[known] = length.cumsum(0) - length
    return start.int(), count.int(), lists


def excelled(steps: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Whether another neighbour lies between a tuple and its neighbour, for each in the lists: (n,) bool.

    steps: (n, dim) int8, from the tuple's codes to those of the neighbour. start: (n,), where its list starts.
    """
    place, found = torch.arange(len(start)) - start, torch.zeros(len(start), dtype=torch.bool)
    left = torch.arange(len(start))
    for offset in range(1, int(place.max()) + 1):
        left = left[(place[left] >= offset) & ~found[left]]
        near, far = steps[left - offset], steps[left]
        found[left] = ((near * far >= 0) & (near.abs() <= far.abs())).all(1)
    return found


def unpack(packed: torch.Tensor, bits: int, dim: int) -> torch.Tensor:
    """Packed codes, (..., n), to codes, (..., dim, n)."""
    shifts = bits * torch.arange(dim, dtype=packed.dtype, device=packed.device)
    return (packed[..., None, :] >> shifts[:, None]).bitwise_and_((1 << bits) - 1)
