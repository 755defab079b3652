"""The searches of the I-quants with grids: which point stands for a group of weights, and which scale for a sub-block.

The arithmetic is ggml's float32 operation for operation, as in `search`, on tensors (groups, dim, n): the n sub-blocks
side by side, with a point for each group of dim weights. Code c of a point stands for the value q = 2 c + 1.

ggml tries 13 to 31 scales for a sub-block. With each, a group whose nearest codes are not a point gets the best of
their neighbours, which are up to 292. Most of that is repetition: as the scale falls, the nearest codes of a group
change two or three times, and then the best neighbour about once more. For a point with values q, the error

    sum w (s q - x)^2  =  s (s a - b) + sum w x^2      with a = sum w q^2 and b = sum 2 w x q

has a straight line in it, s a - b. The lowest line is the best neighbour, and one that is lowest for two scales is so
for all between. So `best_points` looks for the lowest line only where the nearest codes, or the lowest line, may have
changed. A lead that is so small that rounding could decide, as between equal errors, does not count: there the errors
of all neighbours are computed as ggml does, in each trial.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from ..compilation import compilable
from .grid_neighbours import Neighbours, unpack
from .search import ROUNDER, ordered_sum, sqrt

LEAD = 2.0**-17  # of the terms of an error: more than what rounding, here and in ggml, can make of equal errors
WAVES = 4  # of looking for changes of the lowest line, before every trial that is left is looked at
DOUBT = 2.0**-20  # of a value: more than what rounding does to it
SLAB = 2**15  # candidates at a time, so that they stay in cache
FLOAT_MAX, TINY = torch.finfo(torch.float32).max, torch.finfo(torch.float32).tiny
PLACE, LAST = 511, torch.iinfo(torch.int32).max  # bits that name a place among the candidates; the greatest key
PACKED, OFF_GRID, TRIAL = 0xFFFF, 1 << 16, 1 << 17  # packed codes, whether they are a neighbour's, in which trial


@dataclass(frozen=True)
class Columns:
    """The groups of all sub-blocks side by side: group g is in sub-block g % n."""

    x: torch.Tensor  # (dim, groups * n)
    weights: torch.Tensor  # (dim, groups * n), the square roots: ggml weighs neighbours less sharply than scales
    sum_w: torch.Tensor  # (groups * n,)
    sum_wx2: torch.Tensor  # (groups * n,)

    @classmethod
    def of(cls, x: torch.Tensor, weights: torch.Tensor) -> "Columns":
        x, weights = x.transpose(0, 1).flatten(1), sqrt(weights.transpose(0, 1).flatten(1))
        return cls(x, weights, weights.sum(0), (weights * x * x).sum(0))

    def at(self, group: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x and weights of some groups, (n_rows,): (dim, n_rows) each."""
        return self.x.index_select(1, group), self.weights.index_select(1, group)

    def slack(self, least: torch.Tensor, most: torch.Tensor, highest: torch.Tensor) -> torch.Tensor:
        """The lead that a line needs for scales from least to most, (n,) both: (groups * n,).

        It is Inf, more than any lead, where numbers are so large or small that float32 has other errors than rounding.
        """
        groups = len(self.sum_w) // len(least)
        least, most = least.repeat(groups), most.repeat(groups)
        slack = LEAD * (highest * highest * most * self.sum_w + self.sum_wx2 / least)
        usual = (slack * least > 1e-34) & (slack * most < 1e30)
        return torch.where(usual, slack, torch.inf)


def search_scale(
    near: Neighbours,
    x: torch.Tensor,
    weights: torch.Tensor,
    scale: torch.Tensor,
    high: torch.Tensor,
    active: torch.Tensor,
    trials: tuple[float, int],
    again: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale and points that make sum(weights * (x - scale * q)**2) small: (n,) and packed codes (groups, n).

    x, weights: (groups, dim, n). scale: (n,), the one that stays if no trial is a success. Tried are the inverse scales
    with which `high`, (n,), gets the highest q or a little more or less: `trials` is the step and how many there are on
    each side. With the best one's least-squares scale some groups are rounded once more: those "off" the grid, "all" if
    one of them is, or "always" all of them. active: (n,) bool, where to search. Where ggml ends the process, for want
    of an error that is a number, the scale is NaN.
    """
    groups, n = len(x), len(high)
    columns, wx = Columns.of(x, weights), weights * x
    (step, side), highest = trials, np.float32(2 * near.n_codes - 1)
    numerators = highest + np.arange(-side, side + 1, dtype=np.float32) * np.float32(step)
    spacing = step / float(numerators[0])
    inverses = torch.from_numpy(numerators).to(x.device)[:, None] / high  # (n_trials, n)
    tuples = torch.stack([nearest_tuples(x, id, near.n_codes, near.bits) for id in inverses])  # (n_trials, groups, n)
    tried, failed = best_points(near, tuples, columns, inverses.reciprocal(), active.expand(groups, n), spacing)
    scale, points = best_trial(near, tried, wx, weights, scale, OFF_GRID if again == "all" else 0)
    off = points >= OFF_GRID
    wanted = {"off": off, "all": off.any(0).expand(groups, n), "always": torch.ones_like(off)}[again]
    wanted = wanted & active & (scale > 0)
    final = nearest_tuples(x, scale.reciprocal(), near.n_codes, near.bits)[None]
    final, failed_again = best_points(near, final, columns, scale[None], wanted, spacing)
    points = torch.where(wanted, final[0], points) & PACKED
    sum_qx, sum_q2 = sums(points, wx, weights, near.bits)
    scale = torch.where(wanted.any(0) & (sum_q2 > 0), sum_qx / sum_q2, scale)
    return torch.where(failed | failed_again, torch.nan, scale), points


@compilable(dim=-1)
def nearest_tuples(x: torch.Tensor, id: torch.Tensor, n_codes: int, bits: int) -> torch.Tensor:
    """The packed codes of the values nearest to x * id: (groups, dim, n) and (n,) to (groups, n) int32.

    A code is `nearest_int` of 0.5 * (x * id - 1), limited to those there are, in fewer steps.
    """
    rounded = torch.full_like(x, ROUNDER).add_((x * id).sub_(1), alpha=0.5).view(torch.int32)
    codes = rounded.bitwise_and_(0x7FFFFF).clamp_(0x400000, 0x400000 + n_codes - 1).sub_(0x400000)
    first, *others = codes.unbind(1)
    for i, code in enumerate(others, start=1):
        first = first.add(code, alpha=1 << bits * i)
    return first


def best_trial(
    near: Neighbours, tried: torch.Tensor, wx: torch.Tensor, weights: torch.Tensor, scale: torch.Tensor, points: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale, (n,), and points, (groups, n), of the trial that fits best; what was given if none fits at all."""
    points = torch.full_like(tried[0], points)
    best = torch.zeros_like(scale)
    for trial in tried:
        sum_qx, sum_q2 = sums(trial, wx, weights, near.bits)
        better = (sum_q2 > 0) & (sum_qx * sum_qx > best * sum_q2)
        scale = torch.where(better, sum_qx / sum_q2, scale)
        best = torch.where(better, scale * sum_qx, best)
        points = torch.where(better, trial, points)
    return scale, points


@compilable(dim=-1)
def sums(points: torch.Tensor, wx: torch.Tensor, weights: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """sum(wx * q) and sum(weights * q * q) over a sub-block, (n,), for the values q of packed codes, (groups, n)."""
    q = unpack(points, bits, wx.shape[1]).float().mul_(2).add_(1)  # (groups, dim, n)
    return ordered_sum((wx * q).flatten(0, 1)), ordered_sum((weights * q).mul_(q).flatten(0, 1))


def best_points(
    near: Neighbours,
    tuples: torch.Tensor,
    columns: Columns,
    scales: torch.Tensor,
    wanted: torch.Tensor,
    spacing: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The point of each group in each trial, (n_trials, groups, n), and where there is none for a sub-block, (n,).

    tuples: packed nearest codes (n_trials, groups, n). scales: (n_trials, n); the inverse of the first grows by the
    part `spacing` from trial to trial. wanted: (groups, n) bool. The points are packed codes, with OFF_GRID where they
    are not the nearest codes.
    """
    (n_trials, *shape), n = tuples.shape, scales.shape[1]
    tuples = tuples.flatten(1)  # (n_trials, m)
    m = tuples.shape[1]
    slack = columns.slack(scales[-1], scales[0], near.values[:, :-1].max())
    known, failed = torch.zeros_like(tuples), torch.zeros(n, dtype=torch.bool, device=tuples.device)
    trial, group, end = runs(tuples)
    at = trial * m + group
    codes = tuples.view(-1).index_select(0, at)
    known.view(-1).index_copy_(0, at, codes + trial.int() * TRIAL)
    open = (near.is_point.index_select(0, codes) == 0) & wanted.reshape(-1).index_select(0, group)
    for wave in range(WAVES + 1):
        rows = open.nonzero()[:, 0]
        if not len(rows):
            break
        trial, group, end = (part.index_select(0, rows) for part in (trial, group, end))
        if wave == WAVES:
            trial, group, end = every_trial(trial, group, end)
        codes = tuples.view(-1).index_select(0, trial * m + group)
        order = near.count[0].index_select(0, codes).argsort(descending=True)
        trial, group, end, codes = (part.index_select(0, order) for part in (trial, group, end, codes))
        at, block = trial * m + group, group % n
        scale = scales.view(-1).index_select(0, trial * n + block)
        points, until, found = leaders(near, codes, columns, group, scale, slack)
        known.view(-1).index_copy_(0, at, near.packed.index_select(0, points) + (trial.int() * TRIAL + OFF_GRID))
        failed[block[~found]] = True
        ratio = scales[0].index_select(0, block) / until.clamp(min=TINY)  # the scales' inverses are evenly spaced
        trial = ((ratio - 1) / spacing).ceil().clamp(0, n_trials).long().maximum(trial + 1)
        open = trial < end
    for before, after in pairwise(known):
        torch.maximum(before, after, out=after)  # what is known of a later trial is greater
    return known.bitwise_and_(OFF_GRID | PACKED).view(n_trials, *shape), failed


def runs(tuples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The trials in a row in which the nearest codes of a group are the same: first trial, group, and trial after it.

    tuples: (n_trials, m). Each of the three is (n_runs,).
    """
    n_trials, m = tuples.shape
    changed = torch.ones((m, n_trials), dtype=torch.bool, device=tuples.device)
    changed[:, 1:] = (tuples[1:] != tuples[:-1]).T
    start = changed.view(-1).nonzero()[:, 0]
    end = torch.cat([start[1:], start.new_tensor([m * n_trials])])
    group = start // n_trials
    return start - group * n_trials, group, end - group * n_trials


def every_trial(
    trial: torch.Tensor, group: torch.Tensor, end: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What is left of runs, a trial at a time."""
    length = end - trial
    group, first = group.repeat_interleave(length), (trial - length.cumsum(0) + length).repeat_interleave(length)
    trial = first + torch.arange(len(first), device=first.device)
    return trial, group, trial + 1


def leaders(
    near: Neighbours,
    codes: torch.Tensor,
    columns: Columns,
    group: torch.Tensor,
    scale: torch.Tensor,
    slack: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The number of the best neighbour, above which scale it stays that, and if there is one: (n_rows,) each.

    codes: packed codes that are no point, of `group`, with `scale`, (n_rows,) each, those with longer lists of
    neighbours first. slack: (m,).
    """
    slack, found = slack.index_select(0, group), []
    for part, candidates in slabs(near, 0, codes):
        x, weights = columns.at(group[part])
        nearest = nearest_above(near, codes[part], x, scale[part])
        best, reach = leading_lines(candidates, x, weights, scale[part], slack[part], near.values)
        found.append((best, reach.maximum(nearest)))
    points, until = map(torch.cat, zip(*found, strict=True))
    close, exists = (until == torch.inf).nonzero()[:, 0], torch.ones_like(scale, dtype=torch.bool)
    close = close[near.count[1, codes[close]].argsort(descending=True)]
    for part, candidates in slabs(near, 1, codes[close]):
        rows = close[part]
        x, weights = columns.at(group[rows])
        points[rows], exists[rows] = least_errors(candidates, x, weights, scale[rows], near.values)
    return points, until, exists


def nearest_above(near: Neighbours, codes: torch.Tensor, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Above which scale the packed codes are surely nearest to x, so that short lists will do; Inf if not at `scale`.

    codes and scale: (n_rows,). x: (dim, n_rows).
    """
    each = unpack(codes, near.bits, near.dim)
    lower, upper = (edge.index_select(0, each.view(-1)).view_as(x) for edge in (near.lower, near.upper))
    above = upper.mul_(x).amax(0) * (1 + DOUBT)
    sure = (x - lower.mul_(scale * (1 + DOUBT)) >= 0).all(0) & (scale > above)
    return torch.where(sure, above, torch.inf)


def slabs(near: Neighbours, kind: int, codes: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Some rows and their candidates, (width, n), at a time: the neighbours of packed codes, (n_rows,).

    They are from the short lists (kind 0) or the full ones (1). No list may be longer than the one before; those that
    are shorter than the width are filled up with their end.
    """
    start, count = near.start[kind].index_select(0, codes), near.count[kind].index_select(0, codes)
    done = 0
    while done < len(count):
        width = int(count[done]) + 1
        part = slice(done, done + max(1, SLAB // width))
        place = torch.arange(width, dtype=torch.int32, device=count.device)[:, None].minimum(count[part])
        place += start[part]
        yield part, near.numbers.index_select(0, place.view(-1)).view_as(place)
        done = part.stop


def leading_lines(
    candidates: torch.Tensor,
    x: torch.Tensor,
    weights: torch.Tensor,
    scale: torch.Tensor,
    slack: torch.Tensor,
    values: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The candidate with the lowest line at `scale`, and above which scale it is that: (n_rows,) each, Inf if nowhere.

    candidates: (width, n_rows) numbers of points. x, weights: (dim, n_rows). values: (dim, n_points + 1).
    """
    a, b = lines(candidates, x, weights, values)
    height = (a * scale).sub_(b)
    gap = height.sub_(height.amin(0))
    place = torch.arange(len(gap), dtype=torch.int32, device=gap.device)[:, None]
    keys = gap.view(torch.int32).bitwise_and(~PLACE).bitwise_or_(place)  # floats >= 0 are ordered as their bits are
    first = keys.amin(0, keepdim=True).bitwise_and(PLACE).long()
    lead = keys.scatter(0, first, LAST).amin(0).bitwise_and(~PLACE).view(torch.float32)
    best = candidates.gather(0, first)[0]
    rise, fall = a - a.gather(0, first), b + (slack - b.gather(0, first))
    reach = fall.div_(rise.clamp_(min=TINY)).scatter(0, first, -torch.inf).amax(0)
    trusted = (lead > slack) & (best < values.shape[1] - 1)
    return best, torch.where(trusted, reach, torch.inf)


def lines(
    candidates: torch.Tensor, x: torch.Tensor, weights: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """a = sum(weights * q**2) and b = 2 * sum(weights * x * q) of the candidates' values q, (width, n_rows) each."""
    a, b = (torch.zeros(candidates.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    for value, xi, w in zip(values, 2 * x, weights, strict=True):
        q = value.index_select(0, candidates.view(-1)).view(candidates.shape)
        wq = q * w
        a.addcmul_(wq, q)
        b.addcmul_(wq, xi)
    return a, b


def least_errors(
    candidates: torch.Tensor, x: torch.Tensor, weights: torch.Tensor, scale: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first candidate of least error, and if any error is below the largest float32, as ggml computes it.

    candidates: (width, n_rows). x, weights: (dim, n_rows). values: (dim, n_points + 1).
    """
    error = torch.zeros(candidates.shape, dtype=x.dtype, device=x.device)
    for value, xi, w in zip(values, x, weights, strict=True):
        q = value.index_select(0, candidates.view(-1)).view(candidates.shape)
        difference = q.mul_(scale).sub_(xi)
        error += (w * difference).mul_(difference)
    usable = (error < FLOAT_MAX) & (candidates < values.shape[1] - 1)
    least, first = torch.where(usable, error, torch.inf).min(0, keepdim=True)
    return candidates.gather(0, first)[0], (least < torch.inf)[0]
