"""Every format against ggml's C library, on weights and importances of every kind.

Skipped unless GGML_LIBRARY names the library. For a long run: --hypothesis-profile thorough.
"""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import quant_kernels as qk

HUGE = np.float32(3e38)
MAY_ABORT = ("IQ1", "IQ2", "IQ3")  # ggml ends the process where no point of their grids is near

WEIGHTS = {
    "gaussian": lambda rng, n: rng.standard_normal(n),
    "heavy-tailed": lambda rng, n: rng.standard_t(1.5, n),
    "outliers": lambda rng, n: rng.standard_normal(n) * np.where(rng.random(n) < 0.05, 1000, 1),
    "one-sided": lambda rng, n: np.abs(rng.standard_normal(n)) + rng.random(),
    "constant": lambda rng, n: np.full(n, rng.standard_normal()),
    "nearly constant": lambda rng, n: rng.standard_normal() * (1 + rng.integers(-3, 4, n) * 2.0**-23),
    "two values": lambda rng, n: rng.choice(rng.standard_normal(2), n),
    "zeros of both signs": lambda rng, n: rng.choice([0.0, -0.0], n),
    "sparse": lambda rng, n: np.where(rng.random(n) < 0.9, rng.choice([0.0, -0.0], n), rng.standard_normal(n)),
    "one-hot": lambda rng, n: np.where(np.arange(n) == rng.integers(n), rng.standard_normal(), 0.0),
    "ties": lambda rng, n: rng.integers(-9, 9, n) + rng.choice([0.0, 0.5], n),
    "equal extremes": lambda rng, n: rng.choice([-4.0, 4.0, 0.5, -1.0], n),
    "ramp": lambda rng, n: (np.arange(n) - rng.integers(n)) * rng.standard_normal(),
    "every exponent": lambda rng, n: np.ldexp(rng.standard_normal(n), rng.integers(-149, 127, n)),
    "denormal": lambda rng, n: rng.integers(-(2**23), 2**23, n) * 2.0**-149,
}
IMPORTANCES = {
    "typical": lambda rng, n: rng.chisquare(1, n),
    "extreme": lambda rng, n: 10 ** rng.uniform(-12, 12, n),
    "with zeros": lambda rng, n: rng.chisquare(1, n) * (rng.random(n) < 0.4),
    "extreme, with zeros": lambda rng, n: 10 ** rng.uniform(-12, 12, n) * (rng.random(n) < 0.4),
    "one-hot": lambda rng, n: np.arange(n) == rng.integers(n),
    "constant": lambda rng, n: np.full(n, 10 ** rng.uniform(-12, 12)),
    "all zero": lambda rng, n: rng.choice([0.0, -0.0], n),
    "denormal": lambda rng, n: rng.integers(0, 2**23, n) * 2.0**-149,
    "huge": lambda rng, n: 10 ** rng.uniform(30, 38, n),
}

seeds = st.integers(0, 2**32 - 1)
exponents = st.just(0) | st.integers(-16, 16) | st.integers(-149, 127)


@st.composite
def weights(draw, shape):
    """Float32 (rows, n), whose segments are of up to three kinds and magnitudes, or any numbers at all."""
    if draw(st.integers(0, 3)) == 0:
        return draw(arrays(np.float32, shape, elements=st.floats(-HUGE, HUGE, width=32)))
    rng, n = np.random.default_rng(draw(seeds)), shape[0] * shape[1]
    kinds = draw(st.lists(st.sampled_from(sorted(WEIGHTS)), min_size=1, max_size=3))
    powers = draw(st.lists(exponents, min_size=1, max_size=3))
    segment = draw(st.sampled_from([8, 16, 32, shape[1], n]))
    x = [np.ldexp(WEIGHTS[rng.choice(kinds)](rng, segment), rng.choice(powers)) for _ in range(n // segment)]
    return np.concatenate(x).clip(-HUGE, HUGE).astype(np.float32).reshape(shape)


@st.composite
def importances(draw, n):
    """Float32 (n,), at least 0."""
    if draw(st.integers(0, 3)) == 0:
        return draw(arrays(np.float32, n, elements=st.floats(0, HUGE, width=32)))
    kind = draw(st.sampled_from(sorted(IMPORTANCES)))
    return IMPORTANCES[kind](np.random.default_rng(draw(seeds)), n).astype(np.float32)


def same_weights(data, qtype, ggml):
    """Asserts that dequantize agrees with ggml to the sign of zero, and on which weights are NaN."""
    expected, actual = ggml.dequantize(data, qtype), qk.dequantize(torch.from_numpy(data), qtype).numpy()
    same = (expected.view(np.int32) == actual.view(np.int32)) | (np.isnan(expected) & np.isnan(actual))
    first = np.argwhere(~same)[:1].tolist()
    assert not first, f"{first}: {expected[~same][0]} is expected, not {actual[~same][0]}"


def thorough(divisor):
    """A fraction of the examples that the profile asks for, 100 by default."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    return settings(max_examples=settings.default.max_examples // divisor, deadline=None, suppress_health_check=slow)


@pytest.mark.parametrize("qtype", qk.QTYPES)
@thorough(5)
@given(data=st.data())
def test_bytes_equal_the_c_library(qtype, ggml, check, data):
    layout = qk.QTYPES[qtype]
    shape = (2, max(64, layout.block_size) * data.draw(st.integers(1, 2)))
    x = data.draw(weights(shape))
    importance = data.draw(importances(shape[1]) if layout.needs_importance else st.none() | importances(shape[1]))
    quantize = ggml.quantize_or_abort if qtype.startswith(MAY_ABORT) else ggml.quantize
    expected = np.concatenate([quantize(row[None], qtype, importance) for row in x])
    assume(not reads_beyond_a_group(x, qtype, importance))
    check.same_blocks(expected, x, qtype, importance)
    same_weights(expected, qtype, ggml)


def reads_beyond_a_group(x, qtype, importance):
    """Whether errors may overflow in IQ1's search: ggml then looks at the whole grid, with the wrong index for x."""
    if not qtype.startswith("IQ1"):
        return False
    largest = float(np.abs(x).max())
    return largest**3 * (largest if importance is None else max(1.0, float(importance.max()))) > 1e30


@pytest.mark.parametrize("qtype", qk.QTYPES)
@thorough(5)
@given(data=st.data())
def test_weights_of_any_bytes_equal_the_c_library(qtype, ggml, data):
    shape = (2, qk.QTYPES[qtype].type_size)
    same_weights(data.draw(arrays(np.uint8, shape) | seeds.map(lambda seed: random_bytes(seed, shape))), qtype, ggml)


def random_bytes(seed, shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
