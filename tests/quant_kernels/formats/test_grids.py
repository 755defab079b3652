"""The grids against the gguf package's tables, and their neighbours against a search through all points."""

import gguf
import numpy as np
import pytest
import torch

from quant_kernels.formats.grids import DISTANCES, every_tuple, grid, nearest_points, pack_codes

VALUES = {"IQ2": (8, 25, 43), "IQ3_XXS": (4, 12, 20, 28, 36, 44, 52, 62), "IQ3_S": range(1, 16, 2), "IQ1": (-1, 0, 1)}


@pytest.mark.parametrize("name", DISTANCES)
def test_points_equal_gguf(name):
    table = getattr(gguf.quants, name)
    table.init_grid()
    values = next(values for start, values in VALUES.items() if name.startswith(start))
    assert np.array_equal(np.array(values)[grid(name).points], table.grid[0, 0])


@pytest.mark.parametrize("name", DISTANCES)
def test_each_point_has_its_number(name):
    g = grid(name)
    numbers = g.index[pack_codes(g.points.numpy())]
    assert torch.equal(numbers, torch.arange(len(g.points), dtype=torch.int32))
    assert (g.index >= 0).sum() == len(g.points), "others have none"
    assert not g.count[g.index >= 0].any(), "a point needs no neighbours"


@pytest.mark.parametrize("name", DISTANCES)
def test_neighbours_are_the_points_at_the_least_distances(name):
    g = grid(name)
    tuples = every_tuple(g.dim, g.n_codes)
    for codes in tuples[np.random.default_rng(0).integers(0, len(tuples), 200)]:
        u = int((codes.astype(int) << g.bits * np.arange(g.dim)).sum())
        distances = ((g.points.int() - torch.from_numpy(codes).int()) ** 2).sum(1).tolist()
        allowed = [] if 0 in distances else sorted(set(distances))[: DISTANCES[name]]
        expected = sorted((d, number) for number, d in enumerate(distances) if d in allowed)
        found = g.neighbours[g.start[u] : g.start[u] + g.count[u]]
        assert found.tolist() == [number for _, number in expected]


def test_tuples_with_codes_that_do_not_exist_have_nothing():
    g = grid("IQ2_XS")
    threes = torch.tensor([3, 0xFFFF, 0b11 << 8])
    assert g.index[threes].tolist() == [-1, -1, -1]
    assert g.count[threes].tolist() == [0, 0, 0]
    assert (g.count > 0).sum() + len(g.points) == 3**8


def test_fewer_distances_than_wanted():
    points = np.array([[0, 0, 0, 0], [1, 0, 0, 0]], np.uint8)
    numbers, counts = nearest_points(np.array([[3, 0, 0, 0], [0, 1, 0, 0]], np.uint8), points, 3)
    assert (numbers.tolist(), counts.tolist()) == ([1, 0, 0, 1], [2, 2])
