"""The search for cuts against a loop over all of them, as ggml's, with ties in plenty."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quant_kernels.formats.iq1 import SIGNS_OF_WHOLE, scores_of_whole
from quant_kernels.formats.iq1_search import LEVELS, best_cuts, codes_of_cuts, sorted_order, sorted_sums

few_values = arrays(np.float32, (3, 32), elements=st.sampled_from([-1.0, -0.5, -0.0, 0.0, 0.25, 0.5, 1.0, 3.0]))
few_weights = arrays(np.float32, (3, 32), elements=st.sampled_from([0.0, 0.5, 1.0, 1.0, 2.0]))
some_values = arrays(np.float32, (3, 32), elements=st.floats(-2, 2, width=32))
small_values = arrays(np.float32, (3, 32), elements=st.floats(-(2.0**-70), 2.0**-70, width=32))


def search(x, weights):
    order = sorted_order(x)
    sums = sorted_sums(x, weights, order, 1)
    return order, best_cuts(sums, SIGNS_OF_WHOLE, scores_of_whole, torch.ones(len(x), dtype=torch.bool))


def walk(x, weights):
    """One cut after the other, for one sub-block: i1, i2, the number of the signs and the scale."""
    order = np.argsort(x, kind="stable")
    zero = np.zeros(1, np.float32)
    sx = np.cumsum(np.concatenate([zero, (weights * x)[order]]), dtype=np.float32)
    sw = np.cumsum(np.concatenate([zero, weights[order]]), dtype=np.float32)
    best, found = np.finfo(np.float32).min, (-1, -1, -1, 0.0)
    for i1 in range(len(sx)):
        for i2 in range(i1, len(sx)):
            for way, levels in enumerate(LEVELS.values()):
                a, b, c = map(np.float32, levels)
                qx = sx[i1] * a + (sx[i2] - sx[i1]) * b + (sx[-1] - sx[i2]) * c
                q2 = sw[i1] * a * a + (sw[i2] - sw[i1]) * b * b + (sw[-1] - sw[i2]) * c * c
                if q2 > 0 and qx * qx > best * q2:
                    best, found = qx / q2 * qx, (i1, i2, way, qx / q2)
    return found


@settings(max_examples=15, deadline=None)
@given(x=few_values | some_values | small_values, weights=few_weights)
def test_the_search_ends_where_the_loop_ends(x, weights):
    _, (i1, i2, way, scale) = search(torch.from_numpy(x), torch.from_numpy(weights))
    for k in range(len(x)):
        with np.errstate(all="ignore"):  # as C
            expected = walk(x[k], weights[k])
        assert int(way[k]) == expected[2]
        if expected[2] >= 0:
            assert (int(i1[k]), int(i2[k]), float(scale[k])) == (*expected[:2], float(expected[3]))


def test_by_hand():
    x = torch.tensor([[0.125, 1.125, -0.875, 0.125] * 8]) * 3
    order, (i1, i2, way, scale) = search(x, torch.ones_like(x))
    assert (int(i1), int(i2), int(way), float(scale)) == (8, 24, 0, 3.0)
    assert codes_of_cuts(order, i1, i2).tolist() == [[1, 2, 0, 1] * 8]


def test_equal_weights_keep_their_order():
    x = torch.tensor([[0.0, 1.0, -0.0, -2.0, 1.0, -3.0, 0.0, -3.0]])
    assert sorted_order(x).tolist() == [[5, 7, 3, 0, 2, 6, 1, 4]]


@pytest.mark.parametrize("n_parts", [1, 2])
def test_sums_are_taken_in_order(n_parts):
    x = torch.tensor([[3.0, -1.0, 2.0**25, 1.0, 1.0, -2.0, 0.5, 4.0]])
    weights = torch.ones_like(x)
    sums = sorted_sums(x, weights, sorted_order(x), n_parts)
    assert sums.w[-1].flatten().tolist() == ([8.0] if n_parts == 1 else [4.0, 4.0])
    if n_parts == 1:
        assert sums.x[:, 0, 0].tolist() == [0, -2, -3, -2.5, -1.5, -0.5, 2.5, 6.5, 2.0**25 + 8]
    else:
        assert sums.x[:, 0, 0].tolist() == [0, 0, -1, -1, 0, 0, 3, 3, 2.0**25 + 4]
        assert sums.x[:, 1, 0].tolist() == [0, -2, -2, -1.5, -1.5, -0.5, -0.5, 3.5, 3.5]
