"""The legacy formats against ggml's bytes, the gguf package, blocks worked by hand, and the theory of rounding."""

import runpy
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import quant_kernels as qk

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = dict(np.load(GOLDEN / "cases.npz"))
LEGACY = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
LEVELS = {"Q4_0": 8, "Q4_1": 15, "Q5_0": 16, "Q5_1": 31, "Q8_0": 127}  # extreme / scale, or range / scale
MINIMUM = ["Q4_1", "Q5_1"]

finite_floats = st.floats(-1000, 1000, width=32)
blocks = arrays(np.float32, st.tuples(st.integers(1, 4), st.just(64)), elements=finite_floats)


def quantize(x, qtype, importance=None):
    return qk.quantize(torch.from_numpy(x), qtype, None if importance is None else torch.from_numpy(importance)).numpy()


def dequantize(data, qtype):
    return qk.dequantize(torch.from_numpy(data), qtype).numpy()


def scales(data, qtype):
    """The fp16 fields, d and m: (n_blocks, 1 or 2)."""
    heads = data.reshape(-1, qk.QTYPES[qtype].type_size)[:, : 4 if qtype in MINIMUM else 2]
    return np.ascontiguousarray(heads).view(np.float16)


def differing(expected, actual, qtype):
    """How many blocks differ, and the first of them, for the message of an assertion."""
    size = qk.QTYPES[qtype].type_size
    expected, actual = expected.reshape(-1, size), actual.reshape(-1, size)
    wrong = np.flatnonzero((expected != actual).any(-1))
    first = wrong[:1].tolist()
    return f"{len(wrong)} of {len(expected)} blocks differ; {first}: {expected[first]} is expected, not {actual[first]}"


# ggml


@pytest.mark.parametrize("importance", ["", "typical", "extreme"])
@pytest.mark.parametrize("qtype", LEGACY)
def test_bytes_equal_ggml(qtype, importance):
    golden = np.load(GOLDEN / f"{qtype}.npz")
    kinds = [name.partition("/")[0] for name in golden if name.partition("/")[2] == importance]
    assert len(kinds) >= 35 or (qtype == "Q8_0" and importance), "a golden file has lost its cases"
    for kind in kinds:
        x = CASES[kind]
        expected = golden[f"{kind}/{importance}" if importance else kind]
        actual = quantize(x, qtype, CASES[f"{importance}-{x.shape[1]}"] if importance else None)
        assert np.array_equal(expected, actual), f"{kind}: {differing(expected, actual, qtype)}"


def test_golden_cases_reach_the_traps():
    """Guards against golden data that no longer hold what they were chosen for."""
    golden = {qtype: np.load(GOLDEN / f"{qtype}.npz") for qtype in LEGACY}
    assert (golden["Q4_0"]["zero"].reshape(-1, 18)[:, 1] == 0x80).all(), "zero blocks of Q4_0 have d = -0"
    assert (golden["Q4_0"]["zero/typical"] == 0).all(), "but not those of the search, whose codes are 0 too"
    assert (golden["Q4_1"]["negative_zero"].reshape(-1, 20)[:, 3] == 0x80).all(), "m keeps the sign of a zero"
    assert set(golden["Q4_0"]["equal_extremes"].reshape(-1, 18)[:, 1]) == {0x38, 0xB8}, "d = 0.5 and -0.5"
    assert (golden["Q4_0"]["denormal"].reshape(-1, 18)[:, 2:] == 0).any(-1).any(), "1 / d is Inf, all codes 0"


@pytest.mark.parametrize("qtype", LEGACY)
def test_golden_bytes_are_what_the_c_library_writes(qtype, ggml):
    golden_bytes = runpy.run_path(str(GOLDEN / "make_golden.py"))["golden_bytes"]
    fresh, stored = golden_bytes(ggml, qtype, CASES), np.load(GOLDEN / f"{qtype}.npz")
    assert fresh.keys() == set(stored)
    assert all(np.array_equal(fresh[name], stored[name]) for name in stored)


# The gguf package


def positive_zeros(data, qtype):
    """The same blocks with +0 for a scale of -0: the only bytes that gguf writes otherwise than ggml."""
    data = data.reshape(-1, qk.QTYPES[qtype].type_size).copy()
    width = 2 * scales(data, qtype).shape[1]
    data[:, :width] = np.where(scales(data, qtype) == 0, np.float16(0), scales(data, qtype)).view(np.uint8)
    return data


@pytest.mark.parametrize("qtype", LEGACY)
@given(x=blocks)
def test_quantize_equals_gguf(qtype, x):
    with np.errstate(all="ignore"):
        expected = gguf.quants.quantize(x, gguf.GGMLQuantizationType[qtype])
    actual = quantize(x, qtype)
    assert expected.shape == actual.shape
    expected, actual = positive_zeros(expected, qtype), positive_zeros(actual, qtype)
    assert np.array_equal(expected, actual), differing(expected, actual, qtype)


@pytest.mark.parametrize("qtype", LEGACY)
def test_dequantize_equals_gguf_on_any_bytes(qtype):
    size = qk.QTYPES[qtype].type_size
    data = np.random.default_rng(1).integers(0, 256, (50, 40 * size), dtype=np.uint8)
    data.reshape(-1, size)[:, 1] &= 0xBF  # fp16 scales without the top bit of the exponent are finite
    data.reshape(-1, size)[:, 3] &= 0xBF
    expected = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[qtype])
    actual = dequantize(data, qtype)
    assert actual.shape == expected.shape
    assert np.array_equal(expected.view(np.int32), actual.view(np.int32)), "equal to the sign of zero"


# By hand


def test_q4_0_by_hand():
    x = torch.tensor([-8.0, -7.0, 0.0, 7.0]).repeat(8)
    # the extreme is -8, d = -8 / -8 = 1, fp16 0x3c00; codes x + 8 are 0 1 8 15, and weight j + 16 equals weight j
    expected = [0x00, 0x3C, *[0x00, 0x11, 0x88, 0xFF] * 4]
    assert qk.quantize(x, "Q4_0").tolist() == expected


def test_q4_0_has_a_negative_scale_when_the_extreme_is_positive():
    x = torch.zeros(32)
    x[0], x[1], x[16], x[17] = 2.0, 1.0, -1.75, -2.0
    # d = 2 / -8 = -0.25, fp16 0xb400; codes x / d + 8: 2 -> 0, 1 -> 4, 0 -> 8, -1.75 -> 15, -2 -> 16 limited to 15
    expected = [0x00, 0xB4, 0xF0, 0xF4, *[0x88] * 14]
    assert qk.quantize(x, "Q4_0").tolist() == expected
    assert qk.dequantize(qk.quantize(x, "Q4_0"), "Q4_0")[[0, 1, 16, 17]].tolist() == [2.0, 1.0, -1.75, -1.75]


def test_q4_0_zero_block():
    # 0 / -8 is -0, fp16 0x8000; the code of zero is 8
    assert qk.quantize(torch.zeros(32), "Q4_0").tolist() == [0x00, 0x80, *[0x88] * 16]
    assert qk.quantize(-torch.zeros(32), "Q4_0").tolist() == [0x00, 0x80, *[0x88] * 16]
    # the search for a scale returns +0 and codes 0
    assert qk.quantize(torch.zeros(32), "Q4_0", torch.ones(32)).tolist() == [0] * 18


def test_the_first_of_equal_extremes_gives_the_sign():
    x = torch.zeros(2, 32)
    x[0, 3], x[0, 9] = 8.0, -8.0
    x[1, 3], x[1, 9] = -8.0, 8.0
    d = qk.quantize(x, "Q4_0")[:, :2].contiguous().view(torch.float16)
    assert d.tolist() == [[-1.0], [1.0]]


def test_q4_1_by_hand():
    x = torch.arange(16).repeat(2) * 0.5 + 1
    # m = 1 is 0x3c00, d = (8.5 - 1) / 15 = 0.5 is 0x3800; codes 0 to 15, twice
    assert qk.quantize(x, "Q4_1").tolist() == [0x00, 0x38, 0x00, 0x3C, *[0x11 * k for k in range(16)]]


def test_q5_0_by_hand():
    x = torch.arange(32) - 16.0
    # d = -16 / -16 = 1; codes 0 to 31: the fifth bit is set from weight 16 on, the lower four repeat
    assert qk.quantize(x, "Q5_0").tolist() == [0x00, 0x3C, 0x00, 0x00, 0xFF, 0xFF, *[0x11 * k for k in range(16)]]


def test_q5_1_by_hand():
    x = (31 - torch.arange(32)) * 0.25 + 2
    # m = 2 is 0x4000, d = 7.75 / 31 = 0.25 is 0x3400; codes 31 to 0: the fifth bit is set up to weight 15
    expected = [0x00, 0x34, 0x00, 0x40, 0xFF, 0xFF, 0x00, 0x00, *[0x11 * (15 - k) for k in range(16)]]
    assert qk.quantize(x, "Q5_1").tolist() == expected


def test_q8_0_rounds_halves_away_from_zero():
    x = torch.zeros(32)
    x[:9] = torch.tensor([127.0, -127.0, 0.5, -0.5, 1.5, -2.5, 0.49999997, -0.49999997, 126.5])
    # d = 1; -1 is 0xff, -3 is 0xfd, -127 is 0x81
    expected = [0x00, 0x3C, 127, 0x81, 1, 0xFF, 2, 0xFD, 0, 0, 127, *[0] * 23]
    assert qk.quantize(x, "Q8_0").tolist() == expected


def test_codes_are_made_before_the_scale_is_rounded():
    x = torch.zeros(32)
    x[0], x[1] = 1.0, 0.5 / 127 * 0.99999
    # 1 / 127 = 0.0078740 is 0.0078735 in fp16: with that the second weight would be 0.50002 steps, code 1
    assert qk.quantize(x, "Q8_0")[3].item() == 0


# Theory


@pytest.mark.parametrize("qtype", LEGACY)
@given(x=blocks)
def test_round_trip_error_is_at_most_half_a_step_and_the_rounding_of_the_scales(qtype, x):
    x64 = x.astype(np.float64).reshape(-1, 32)
    least = x64.min(-1, keepdims=True) if qtype in MINIMUM else 0.0
    span = x64.max(-1, keepdims=True) - least if qtype in MINIMUM else np.abs(x64).max(-1, keepdims=True)
    d = span / LEVELS[qtype]
    # The extreme of Q4_0 and Q5_0 has no code with the other sign: a whole step. fp16 has 11 bits, at least 2**-24.
    step = d if qtype in ("Q4_0", "Q5_0") else d / 2
    half_ulp = np.maximum(d * 2**-11, 2**-25) * LEVELS[qtype] + np.maximum(np.abs(least) * 2**-11, 2**-25)
    float32 = 2**-22 * np.abs(x64).max(-1, keepdims=True)
    error = np.abs(dequantize(quantize(x, qtype), qtype).reshape(-1, 32) - x64)
    assert (error <= step + half_ulp + float32).all()


@pytest.mark.parametrize("qtype", ["Q4_0", "Q5_0", "Q8_0"])
@given(x=blocks)
def test_weights_on_the_grid_keep_their_bytes(qtype, x):
    """Without a minimum the extreme gives back the scale exactly, unless that has become zero in fp16."""
    data = quantize(x, qtype)
    again = quantize(dequantize(data, qtype), qtype)
    kept = (scales(data, qtype) != 0)[:, 0]
    size = qk.QTYPES[qtype].type_size
    assert np.array_equal(data.reshape(-1, size)[kept], again.reshape(-1, size)[kept])


@pytest.mark.parametrize("qtype", ["Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_importance_moves_the_error_to_where_it_counts_less(qtype):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((64, 512)).astype(np.float32)
    importance = rng.chisquare(1, 512).astype(np.float32) ** 2

    def weighted_error(data):
        return float((importance * (dequantize(data, qtype) - x) ** 2).sum())

    assert weighted_error(quantize(x, qtype, importance)) < 0.9 * weighted_error(quantize(x, qtype))


def test_q8_0_ignores_importance():
    x = np.random.default_rng(3).standard_normal((4, 64)).astype(np.float32)
    assert np.array_equal(quantize(x, "Q8_0", np.arange(64, dtype=np.float32)), quantize(x, "Q8_0"))
