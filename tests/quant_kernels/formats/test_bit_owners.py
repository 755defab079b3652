"""Owners of bits: found by flipping, they agree with the layouts that ggml-common.h draws."""

import re
from collections import Counter

import pytest

from quant_kernels import QTYPES
from quant_kernels.formats.bit_owners import bit_owners


def of_bytes(name, start, stop):
    owners = bit_owners(QTYPES[name])
    return [owners[8 * byte : 8 * byte + 8] for byte in range(start, stop)]


def bits(*parts):
    """bits((2, "s4"), (6, "s0")) are a byte, the high bits first."""
    return [owner for n, owner in parts for _ in range(n)]


def test_scales_and_minima_of_q4_k():
    first, low, high = of_bytes("Q4_K", 4, 8), of_bytes("Q4_K", 8, 12), of_bytes("Q4_K", 12, 16)
    for j in range(4):
        assert first[j] == bits((2, f"s{j + 4}"), (6, f"s{j}"))
        assert low[j] == bits((2, f"m{j + 4}"), (6, f"m{j}"))
        assert high[j] == bits((4, f"m{j + 4}"), (4, f"s{j + 4}"))


def test_nibbles():
    assert of_bytes("Q4_0", 2, 18) == [bits((4, str(j + 16)), (4, str(j))) for j in range(16)]
    assert of_bytes("Q4_K", 16, 48) == [bits((4, str(j + 32)), (4, str(j))) for j in range(32)]


def test_planes_of_single_bits():
    assert of_bytes("Q3_K", 0, 1) == [[str(32 * plane) for plane in range(7, -1, -1)]]
    assert of_bytes("Q5_0", 2, 3) == [[str(weight) for weight in range(7, -1, -1)]]


def test_a_scale_of_the_whole_block_and_a_grid_index_belong_to_nobody_alone():
    assert of_bytes("Q4_K", 0, 4) == [[""] * 8] * 4
    grid, scale = of_bytes("IQ2_XXS", 2, 9), of_bytes("IQ2_XXS", 9, 10)
    assert not any(map(any, grid)) and scale == [bits((4, "s0"), (4, ""))]


@pytest.mark.parametrize("name", ["Q4_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "TQ2_0"])
def test_every_weight_has_its_bits(name):
    layout = QTYPES[name]
    width = int(re.search(r"\d", name)[0])
    counts = Counter(owner for owner in bit_owners(layout) if owner.isdigit())
    assert counts == {str(weight): width for weight in range(layout.block_size)}


SCALES = {"Q2_K": (16, 4), "Q3_K": (16, 6), "Q4_K": (8, 6), "Q5_K": (8, 6), "Q6_K": (16, 8), "IQ4_XS": (8, 6)}


@pytest.mark.parametrize("name", SCALES)
def test_every_sub_block_has_its_scale(name):
    n_sub, width = SCALES[name]
    counts = Counter(owner for owner in bit_owners(QTYPES[name]) if owner.startswith("s"))
    assert counts == {f"s{sub}": width for sub in range(n_sub)}
