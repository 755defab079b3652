"""The search that follows lines against one that looks at every neighbour in every trial."""

import pytest
import torch

from quant_kernels.formats import grid_search
from quant_kernels.formats.grid_neighbours import neighbours
from quant_kernels.formats.grid_search import (
    OFF_GRID,
    PACKED,
    Columns,
    best_points,
    every_trial,
    least_errors,
    nearest_above,
    nearest_tuples,
    runs,
)
from quant_kernels.formats.search import nearest_int

NAMES = ["IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]
CPU = torch.device("cpu")


def sub_blocks(kind, dim, n=30):
    """Magnitudes and weights, (2, dim, n)."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, dim, n, generator=generator).abs()
    weights = torch.rand(2, dim, n, generator=generator)
    if kind == "ties":  # equal errors, which only the order of their sums tells apart
        x, weights = (4 * x).round() + 0.1, torch.ones_like(weights)
    if kind == "without weights":
        weights = torch.where(weights < 0.7, 0.0, weights)
    if kind == "large":
        x *= 1e36
    if kind == "small":
        x *= 1e-30
    return x, weights


def each_trial_by_itself(near, tuples, columns, scales):
    """What `best_points` is to find: the points' packed codes, and where a sub-block has no error that is a number."""
    n, lists = tuples.shape[-1], grid_lists(near)
    expected, failed = tuples.clone(), torch.zeros(n, dtype=torch.bool)
    for t, g, b in (near.is_point[tuples] == 0).nonzero().tolist():
        column = slice(g * n + b, g * n + b + 1)
        candidates = lists[int(tuples[t, g, b])][:, None]
        x, weights = columns.x[:, column], columns.weights[:, column]
        best, found = least_errors(candidates, x, weights, scales[t, b : b + 1], near.values)
        expected[t, g, b] = near.packed[best[0]] + OFF_GRID
        failed[b] |= not found
    return expected, failed


def grid_lists(near):
    """The full lists: {packed codes: numbers of the neighbours}."""
    starts = near.start[1].tolist()
    return {u: near.numbers[starts[u] : starts[u] + c] for u, c in enumerate(near.count[1].tolist()) if c}


def set_up(name, kind):
    near = neighbours(name, CPU)
    x, weights = sub_blocks(kind, near.dim)
    highest = 2.0 * near.n_codes - 1
    numerators = torch.arange(-9, 10) * (highest / 50) + highest
    inverses = numerators[:, None] / x.amax((0, 1))
    tuples = torch.stack([nearest_tuples(x, id, near.n_codes, near.bits) for id in inverses])
    return near, tuples, Columns.of(x, weights), inverses.reciprocal(), 0.02 / 0.82


@pytest.mark.parametrize("kind", ["usual", "ties", "without weights", "large", "small"])
@pytest.mark.parametrize("name", NAMES)
def test_lines_find_what_every_trial_finds(name, kind):
    near, tuples, columns, scales, spacing = set_up(name, kind)
    wanted = torch.ones(tuples.shape[1:], dtype=torch.bool)
    points, failed = best_points(near, tuples, columns, scales, wanted, spacing)
    expected, expected_failed = each_trial_by_itself(near, tuples, columns, scales)
    assert torch.equal(failed, expected_failed)
    assert failed.any() == (kind == "large")
    assert torch.equal(points[:, :, ~failed], expected[:, :, ~failed])
    assert (points >= OFF_GRID).any()


def test_the_comparison_notices_a_lead_that_rounding_can_decide(monkeypatch):
    near, tuples, columns, scales, spacing = set_up("IQ2_XS", "ties")
    monkeypatch.setattr(grid_search, "LEAD", 1e-25)
    wanted = torch.ones(tuples.shape[1:], dtype=torch.bool)
    points, _ = best_points(near, tuples, columns, scales, wanted, spacing)
    assert not torch.equal(points, each_trial_by_itself(near, tuples, columns, scales)[0])


def test_few_neighbours_are_looked_at(monkeypatch):
    near, tuples, columns, scales, spacing = set_up("IQ3_S", "usual")
    rows, leaders = [], grid_search.leaders
    count = (near.is_point[tuples] == 0).sum()

    def counted(near, codes, *others):
        rows.append(len(codes))
        return leaders(near, codes, *others)

    monkeypatch.setattr(grid_search, "leaders", counted)
    best_points(near, tuples, columns, scales, torch.ones(tuples.shape[1:], dtype=torch.bool), spacing)
    assert sum(rows) < 0.6 * count, "most trials repeat the one before"


@pytest.mark.parametrize("name", NAMES)
def test_nearest_tuples_are_made_of_nearest_codes(name):
    near = neighbours(name, CPU)
    x = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.5, 1e7, 3e38, -3e38]).repeat(near.dim, 1).T[:, :, None]  # (8, dim, 1)
    x[:, 1:] = -x[:, 1:] - 2
    for id in (torch.ones(1), torch.full((1,), 2.0), torch.full((1,), torch.inf), torch.full((1,), torch.nan)):
        codes = nearest_int(0.5 * (x * id - 1)).clamp_(0, near.n_codes - 1)
        packed = nearest_tuples(x, id, near.n_codes, near.bits)
        shifts = near.bits * torch.arange(near.dim)[:, None]
        assert torch.equal(packed[:, None] >> shifts & (1 << near.bits) - 1, codes)


def test_codes_are_surely_nearest_above_a_scale():
    near = neighbours("IQ3_S", CPU)
    codes = torch.tensor([0 | 2 << 3 | 7 << 6 | 7 << 9] * 6, dtype=torch.int32)  # values 1, 5, 15 and 15
    x = torch.tensor([[0.3, 5.2, 15, 90]] * 6).T.clone()
    scale = torch.tensor([1.0, 0.9, 1.3, 1.31, 1.0, 1.0])
    x[0, 4], x[0, 5] = 2.0, -5.0  # between two values; a wrong sign
    above = nearest_above(near, codes, x, scale)
    assert torch.allclose(above, torch.tensor([5.2 / 6, 5.2 / 6, torch.inf, torch.inf, torch.inf, 5.2 / 6]))


def test_runs_and_their_trials():
    trial, group, end = runs(torch.tensor([[7, 1], [7, 2], [5, 2], [7, 2]], dtype=torch.int32))
    assert list(zip(group.tolist(), trial.tolist(), end.tolist(), strict=True)) == [
        (0, 0, 2),
        (0, 2, 3),
        (0, 3, 4),
        (1, 0, 1),
        (1, 1, 4),
    ]
    trial, group, end = every_trial(trial, group, end)
    assert trial.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert group.tolist() == [0] * 4 + [1] * 4
    assert torch.equal(end, trial + 1)


def test_the_first_of_equal_errors_wins():
    near = neighbours("IQ2_XS", CPU)
    zeros, one = torch.zeros(8, 1), torch.ones(1)
    best, found = least_errors(torch.tensor([[9], [4], [7]], dtype=torch.int32), zeros, zeros, one, near.values)
    assert (best.item(), found.item()) == (9, True)
    none = torch.full((8, 1), torch.inf)
    assert not least_errors(torch.tensor([[9], [4]], dtype=torch.int32), zeros, none, one, near.values)[1].item()


def test_flags_leave_the_codes_alone():
    assert max(int(neighbours(name, CPU).packed.max()) for name in NAMES) <= PACKED < OFF_GRID
