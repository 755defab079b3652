"""The search for neighbours against all of them, one after the other."""

import numpy as np
import torch

from quant_kernels.formats.grids import grid
from quant_kernels.formats.iq1_neighbours import nearest_neighbours, neighbour_lists

POINTS = grid("IQ1_S")
TUPLES = POINTS.count.nonzero()[:, 0].to(torch.int32)


def one_after_the_other(x, weights, scale, shift, packed):
    """The number of the first neighbour with the least error, for one group, as ggml's loop finds it."""
    start, count = int(POINTS.start[packed]), int(POINTS.count[packed])
    best, found = np.finfo(np.float32).max, -1
    for number in POINTS.neighbours[start : start + count].tolist():
        error = np.float32(0)
        for xi, w, code in zip(x, weights, POINTS.points[number].tolist(), strict=True):
            difference = scale * np.float32(code - 1 + shift) - xi
            error += w * difference * difference
        if error < best:
            best, found = error, number
    return found


def case(n, seed):
    generator = torch.Generator().manual_seed(seed)
    tuples = TUPLES[torch.randint(len(TUPLES), (n,), generator=generator)]
    shift = torch.where(torch.rand(n, generator=generator) < 0.5, 0.125, -0.125)
    codes = (tuples >> 2 * torch.arange(8)[:, None] & 3) - 1
    return tuples, shift, codes + shift, generator


def check(x, weights, scale, shift, tuples):
    found = nearest_neighbours(x, weights, scale, shift, tuples)
    columns = (x.T.numpy(), weights.T.numpy(), scale.numpy(), shift.numpy(), tuples.tolist())
    assert found.tolist() == [one_after_the_other(*group) for group in zip(*columns, strict=True)]


def test_where_the_codes_are_the_nearest():
    tuples, shift, levels, generator = case(200, seed=1)
    x = levels + (torch.rand(8, 200, generator=generator) - 0.5) * 0.98
    check(x * 3, torch.rand(8, 200, generator=generator), torch.full((200,), 3.0), shift, tuples)


def test_where_they_are_not_and_where_errors_are_equal():
    tuples, shift, levels, generator = case(200, seed=2)
    weights = torch.randint(0, 3, (8, 200), generator=generator).float()
    check(torch.randint(-2, 3, (8, 200), generator=generator) / 2, weights, torch.ones(200), shift, tuples)
    check(levels.clone(), weights, torch.ones(200), shift, tuples)


def test_errors_beyond_float32_have_no_winner():
    tuples, shift, levels, _ = case(3, seed=3)
    weights = torch.ones(8, 3)
    weights[:, 1] = 3e38
    weights[:, 2] = torch.nan
    found = nearest_neighbours(levels * 100 + 300, weights, torch.full((3,), 100.0), shift, tuples)
    assert found[0] >= 0 and found[1:].tolist() == [-1, -1]


def test_the_shortlist_is_short_and_in_order():
    start, count, points = neighbour_lists()
    for packed in TUPLES[::500].tolist():
        short, full = (points[start[k, packed] :][: count[k, packed]].tolist() for k in (0, 1))
        places = [full.index(point) for point in short]
        assert places == sorted(places) and places[0] == 0
        assert [point >> 15 for point in full] == POINTS.neighbours[POINTS.start[packed] :][: len(full)].tolist()
    assert count[0].sum() < 0.25 * count[1].sum()
