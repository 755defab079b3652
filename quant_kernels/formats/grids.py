"""The grids of ggml's I-quants: lists of points, of which a format stores the number in place of 4 or 8 codes.

A point is a tuple of codes, 8 of 0 to 2, or 4 of 0 to 7; code c stands for the odd number 2 c + 1 (in IQ1_S and IQ1_M
for c - 1). The points were chosen by ggml's authors and follow no formula: they are data, `grids.npz`. A tuple of codes
that is not a point is replaced by one of its neighbours, the points at the nearest few distances.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

POINTS = Path(__file__).with_name("grids.npz")
DISTANCES = {"IQ2_XXS": 2, "IQ2_XS": 2, "IQ2_S": 1, "IQ1_S": 3, "IQ3_XXS": 2, "IQ3_S": 3}  # that neighbours can have
FAR = 255  # more than any squared distance between codes


@dataclass(frozen=True)
class Grid:
    """The points of a format, and for all tuples of codes which point they are or which points are near.

    A tuple is known by its packed codes u = sum(code_i << (bits * i)), with 2 bits to a code in 8 dimensions and 3 bits
    in 4. The neighbours of u are `neighbours[start[u] : start[u] + count[u]]`, the nearest first, and of points at the
    same distance the one with the lower number.
    """

    points: torch.Tensor  # (n_points, dim) uint8, codes
    index: torch.Tensor  # (2**(bits * dim),) int32, the number of the point u, -1 for others
    start: torch.Tensor  # (2**(bits * dim),) int32
    count: torch.Tensor  # (2**(bits * dim),) int32, 0 for points and for tuples with a code that does not exist
    neighbours: torch.Tensor  # (count.sum(),) int32, numbers of points

    @property
    def dim(self) -> int:
        return self.points.shape[1]

    @property
    def bits(self) -> int:
        """Bits of a packed code: 2 or 3."""
        return code_bits(self.dim)

    @property
    def n_codes(self) -> int:
        """The number of codes: 3 or 8."""
        return int(self.points.max()) + 1


@cache
def grid(name: str) -> Grid:
    """The grid of a format, by ggml's name of it; IQ1_M uses that of IQ1_S.

    >>> points = grid("IQ3_S").points
    >>> points.shape, points[5].tolist(), int(grid("IQ3_S").index[0o0010])
    (torch.Size([512, 4]), [0, 1, 0, 0], 5)
    """
    with np.load(POINTS) as grids:
        points = grids[name]
    tuples = every_tuple(points.shape[1], int(points.max()) + 1)
    size = 1 << (code_bits(points.shape[1]) * points.shape[1])
    index, start, count = np.full(size, -1, np.int32), np.zeros(size, np.int32), np.zeros(size, np.int32)
    index[pack_codes(points)] = np.arange(len(points))
    others = pack_codes(tuples)
    tuples, others = tuples[index[others] < 0], others[index[others] < 0]
    neighbours, count[others] = nearest_points(tuples, points, DISTANCES[name])
    start[others] = np.cumsum(count[others]) - count[others]
    return Grid(*(torch.from_numpy(part) for part in (points, index, start, count, neighbours)))


def code_bits(dim: int) -> int:
    return {8: 2, 4: 3}[dim]


def every_tuple(dim: int, n_codes: int) -> np.ndarray:
    """All tuples of codes: (n_codes**dim, dim) uint8."""
    return np.indices((n_codes,) * dim, dtype=np.uint8).reshape(dim, -1).T


def pack_codes(tuples: np.ndarray) -> np.ndarray:
    """(n, dim) codes to (n,) int32, the first code in the lowest bits."""
    dim = tuples.shape[1]
    return tuples.astype(np.int32) @ (1 << code_bits(dim) * np.arange(dim, dtype=np.int32))


def nearest_points(tuples: np.ndarray, points: np.ndarray, n_distances: int) -> tuple[np.ndarray, np.ndarray]:
    """The points at the nearest `n_distances` distances from each tuple, and how many they are, (n_tuples,).

    The numbers of the points, int32, are in one row: by tuple, then by distance, then by number.
    """
    distances = squared_distances(tuples, points)
    limit = distances.min(1, keepdims=True)
    for _ in range(n_distances - 1):
        limit = np.where(distances > limit, distances, FAR).min(1, keepdims=True)
    rows, numbers = np.nonzero(distances <= limit)
    order = np.argsort(rows * (FAR + 1) + distances[rows, numbers], kind="stable")
    return numbers[order].astype(np.int32), np.bincount(rows, minlength=len(tuples))


def squared_distances(tuples: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Between codes, (n_tuples, n_points) uint8: at most 8 * 2**2 or 4 * 7**2."""
    a, b = tuples.astype(np.float32), points.astype(np.float32)
    distances = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * (a @ b.T)
    return distances.astype(np.uint8)
