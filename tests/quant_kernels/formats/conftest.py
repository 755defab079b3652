"""What the tests of a format compare with: ggml's golden bytes, and ggml itself where it has been compiled."""

import os
import runpy
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch

import quant_kernels as qk

GOLDEN = Path(__file__).parents[1] / "golden"


def blocks_of(data, qtype):
    return np.ascontiguousarray(data).reshape(-1, qk.QTYPES[qtype].type_size)


def same_blocks(expected, x, qtype, importance=None):
    """Asserts that quantize writes the expected bytes, and refuses x where these hold a scale that is no number."""
    expected = blocks_of(expected, qtype)
    importance = None if importance is None else torch.from_numpy(importance)
    finite = qk.QTYPES[qtype].finite_scales(torch.from_numpy(expected)).numpy()
    if not finite.all():
        with pytest.raises(ValueError, match=f"{qtype} cannot hold"):
            qk.quantize(torch.from_numpy(x), qtype, importance)
        if importance is not None:
            return
        x, expected = x.reshape(-1, qk.QTYPES[qtype].block_size)[finite], expected[finite]
    actual = blocks_of(qk.quantize(torch.from_numpy(x), qtype, importance).numpy(), qtype)
    wrong = np.flatnonzero((expected != actual).any(-1))
    first = wrong[:1].tolist()
    assert not first, f"{len(wrong)} of {len(expected)} differ; {first}: {expected[first]}, not {actual[first]}"


def golden_bytes(qtype, least_kinds):
    """Asserts that quantize writes the golden bytes of every case, with and without importance."""
    cases, golden = np.load(GOLDEN / "cases.npz"), np.load(GOLDEN / f"{qtype}.npz")
    assert len({name.partition("/")[0] for name in golden}) >= least_kinds, "a golden file has lost its cases"
    groups = defaultdict(list)  # rows of the same length and importance are quantized at once, which is quicker
    for name, expected in golden.items():
        kind, _, importance = name.partition("/")
        weights = f"{importance}-{cases[kind].shape[1]}" if importance else None
        groups[expected.shape[1], weights].append((expected, cases[kind]))
    for (_, weights), pairs in groups.items():
        expected, x = map(np.concatenate, zip(*pairs, strict=True))
        same_blocks(expected, x, qtype, cases[weights] if weights else None)


def dequantize_as_gguf(data, qtype):
    """Asserts that dequantize agrees with the gguf package to the sign of zero."""
    with np.errstate(over="ignore"):
        expected = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[qtype]).astype(np.float32)
    actual = qk.dequantize(torch.from_numpy(data), qtype).numpy()
    assert np.array_equal(expected.view(np.int32), actual.view(np.int32))


@pytest.fixture(scope="session")
def ggml():
    """The compiled library and the functions of make_golden.py; skips where there is none."""
    if "GGML_LIBRARY" not in os.environ:
        pytest.skip("GGML_LIBRARY does not name a ggml library; make_golden.py --keep-library makes one")
    return runpy.run_path(str(GOLDEN / "make_golden.py"))["Ggml"](os.environ["GGML_LIBRARY"])


@pytest.fixture(scope="session")
def check():
    """The assertions above."""
    return SimpleNamespace(same_blocks=same_blocks, golden_bytes=golden_bytes, dequantize_as_gguf=dequantize_as_gguf)
