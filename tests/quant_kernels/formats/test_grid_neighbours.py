"""The short and the full lists of neighbours."""

import pytest
import torch

from quant_kernels.formats.grid_neighbours import NOWHERE, excelled, neighbours, unpack
from quant_kernels.formats.grids import grid

CPU = torch.device("cpu")


def lists(near, kind):
    start, count = near.start[kind].tolist(), near.count[kind].tolist()
    return {u: near.numbers[start[u] : start[u] + count[u] + 1].tolist() for u in range(len(count)) if count[u]}


@pytest.mark.parametrize("name", ["IQ2_XXS", "IQ2_S", "IQ3_XXS", "IQ3_S"])
def test_lists(name):
    near, g = neighbours(name, CPU), grid(name)
    short, full = lists(near, 0), lists(near, 1)
    assert short.keys() == full.keys()
    for u, numbers in full.items():
        assert numbers == [*g.neighbours[g.start[u] : g.start[u] + g.count[u]].tolist(), len(g.points)]
        assert set(short[u]) <= set(numbers) and short[u][0] == numbers[0] and short[u][-1] == len(g.points)
    assert (near.values[:, -1] == NOWHERE).all()


def test_short_lists_leave_out_what_another_neighbour_excels():
    near, g = neighbours("IQ3_S", CPU), grid("IQ3_S")
    short, full = lists(near, 0), lists(near, 1)
    points = g.points.int()
    for u in list(full)[::20]:
        codes = unpack(torch.tensor([u]), g.bits, g.dim)[:, 0]
        for far in full[u][:-1]:
            low, high = torch.minimum(codes, points[far]), torch.maximum(codes, points[far])
            others = points[[near for near in full[u][:-1] if near != far]]
            assert (far not in short[u]) == bool(((low <= others) & (others <= high)).all(1).any())


def test_between_is_in_all_codes():
    steps = torch.tensor([[1, 0], [0, -1], [2, 0], [1, -1], [-1, 1], [1, 0], [2, 1]], dtype=torch.int8)
    start = torch.tensor([0, 0, 0, 0, 0, 5, 5])
    assert excelled(steps, start).tolist() == [False, False, True, True, False, False, True]


def test_unpack():
    assert unpack(torch.tensor([0b10_01_00, 0b00_10_10]), 2, 3).tolist() == [[0, 2], [1, 2], [2, 0]]
