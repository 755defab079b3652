"""Palettization: each weight becomes a place in a short list of values, which k-means chooses from the weights.

Deep Compression, arXiv 1510.00149, and coremltools' palettization; the levels are Lloyd's (1957) and Max's (1960).
Left out: lists of vectors, weights on the error (as in SqueezeLLM), packing of the codes, training through them.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .affine import check_values

BITS = range(1, 9)
GAPS = 1024  # how finely the density of the weights is looked at, for the first choice of values


@dataclass(frozen=True)
class Palette:
    """What `palettize` found: the tensor is about lut[codes], with the list of its group.

    codes: uint8 of the quantized tensor's shape. lut: float32 (n_groups, 2**bits), ascending. errors: the mean squared
    error of each group after each step of Lloyd's algorithm, float64 (n_groups, n_steps).
    """

    codes: Tensor
    lut: Tensor
    bits: int
    errors: Tensor

    def dequantize(self) -> Tensor:
        """Returns float32 of the quantized tensor's shape."""
        codes = self.codes.reshape(len(self.lut), -1).long()  # (n_groups, group)
        return self.lut.gather(1, codes).view(self.codes.shape)

    @property
    def bits_per_weight(self) -> float:
        """Codes and lists, whose values count as 16 bits each."""
        return self.bits + 16 * self.lut.numel() / self.codes.numel()


def palettize(w: Tensor, bits: int = 4, *, rows: int | None = None, iterations: int = 300) -> Palette:
    """Quantizes w to 2**bits values of its own, chosen by k-means for the least squared error.

    w: floating point, any shape. bits: 1 to 8. rows: how many rows share a list, the "per grouped channel" of
    coremltools; by default one list serves all of w. Lloyd's algorithm ends where a step lowers no group's error by
    more than a millionth of it, or after so many iterations. A least error among neighbours is not the least of all,
    but nothing is left to chance. Raises TypeError or ValueError for other input.

    >>> q = palettize(torch.tensor([0.0, 0.5, 4.75, 5.0, 5.25]), bits=1)
    >>> q.codes.tolist(), q.lut.tolist()
    ([0, 0, 1, 1, 1], [[0.25, 5.0]])
    """
    check_values(w)
    check_options(w, bits, rows, iterations)
    groups = w.detach().double().reshape(1 if rows is None else w.shape[0] // rows, -1)  # (n_groups, group)
    values, order = groups.contiguous().sort(dim=-1)
    mean = values.mean(-1, keepdim=True)  # taken off for the sake of the sums of squares
    lut, errors = lloyd(values - mean, first_levels(values - mean, 2**bits), iterations)
    codes = torch.empty_like(order).scatter_(1, order, sorted_codes(values - mean, lut))
    return Palette(codes.to(torch.uint8).view(w.shape), (lut + mean).float(), bits, errors)


def lloyd(values: Tensor, levels: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm on sorted values: each goes to its nearest level, each level to the mean of its values.

    values: float64 (n_groups, group); levels: (n_groups, k), ascending. Returns the levels and the mean squared error
    after each step, (n_groups, n_steps). The values of a level are neighbours: running sums give the means.
    """
    running = F.pad(values.cumsum(-1), (1, 0))  # (n_groups, group + 1)
    squares = values.square().sum(-1)  # (n_groups,)
    errors = []
    for _ in range(iterations):
        bounds = F.pad(edges(values, levels), (1, 0))
        bounds = F.pad(bounds, (0, 1), value=values.shape[1])  # (n_groups, k + 1)
        count, total = bounds.diff(dim=1), running.gather(1, bounds).diff(dim=1)  # (n_groups, k)
        levels = torch.where(count > 0, total / count.clamp(min=1), levels)
        error = squares - (2 * levels * total - levels.square() * count).sum(-1)
        errors.append(error.clamp(min=0) / values.shape[1])
        if len(errors) > 1 and (errors[-2] - errors[-1] <= 1e-6 * errors[-1]).all():
            break
    return levels, torch.stack(errors, dim=1)


def edges(values: Tensor, levels: Tensor) -> Tensor:
    """How many of the sorted values are nearer to level j than to j + 1, or as near: (n_groups, k - 1)."""
    midpoints = (levels[:, 1:] + levels[:, :-1]) / 2
    return torch.searchsorted(values, midpoints, right=True)


def sorted_codes(values: Tensor, levels: Tensor) -> Tensor:
    """The places of the nearest levels, as int64 (n_groups, group): a code is the number of edges before it."""
    steps = edges(values, levels)
    counts = F.pad(torch.zeros_like(values, dtype=torch.int64), (0, 1)).scatter_add_(1, steps, torch.ones_like(steps))
    return counts[:, :-1].cumsum(-1)


def first_levels(values: Tensor, k: int) -> Tensor:
    """Where k levels should about lie: (n_groups, group) sorted to (n_groups, k), ascending.

    With many levels, the best density of levels is the cube root of the density of values (Panter and Dite, 1951).
    The density is 1 / gap, with gap the distance between values that have equally many others between them: a gap gets
    gap**(2/3) levels. Quantiles, by contrast, give the tails too few, which Lloyd's algorithm does not make up for.
    """
    n_gaps = max(1, min(values.shape[1] - 1, GAPS))
    at = values[:, torch.linspace(0, values.shape[1] - 1, n_gaps + 1, device=values.device).long()]
    share = F.pad(at.diff(dim=1).pow(2 / 3).cumsum(1), (1, 0))  # (n_groups, n_gaps + 1)
    share = share / share[:, -1:].clamp(min=torch.finfo(share.dtype).tiny)
    wanted = ((torch.arange(k, device=values.device).to(values) + 0.5) / k).repeat(len(values), 1)
    gap = torch.searchsorted(share, wanted).clamp(1, n_gaps)  # (n_groups, k), the right end of it
    left, right = share.gather(1, gap - 1), share.gather(1, gap)
    part = ((wanted - left) / (right - left).clamp(min=torch.finfo(share.dtype).tiny)).clamp(0, 1)
    return torch.lerp(at.gather(1, gap - 1), at.gather(1, gap), part)


def check_options(w: Tensor, bits: int, rows: int | None, iterations: int) -> None:
    if bits not in BITS:
        raise ValueError(f"bits is {bits!r}, not an integer from {BITS[0]} to {BITS[-1]}")
    if rows is not None and (w.dim() < 2 or rows < 1 or w.shape[0] % rows):
        raise ValueError(f"w of shape {tuple(w.shape)} cannot be cut into groups of {rows} rows")
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}, not at least 1")
