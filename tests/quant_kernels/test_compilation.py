"""What `compiled` changes: the speed, and no bit."""

import shutil
import sysconfig

import numpy as np
import pytest
import torch

import quant_kernels as qk
from quant_kernels.compilation import compilable, is_compiled

SLOW = [name for name, layout in qk.QTYPES.items() if layout.searches]


@compilable(dim=-1)
def twice(x, factor):
    return x * factor


def test_within_it_steps_are_compiled(monkeypatch):
    calls = []
    monkeypatch.setattr(
        torch, "compile", lambda step, **_: lambda *arguments: calls.append(arguments) or step(*arguments)
    )
    step = compilable(dim=-1)(lambda x, factor: x * factor)
    x = torch.arange(4.0)
    assert torch.equal(step(x, 2), 2 * x) and not calls
    with qk.compiled():
        assert is_compiled()
        assert torch.equal(step(x, 2), 2 * x) and len(calls) == 1
        step(x[:1], 2)
        assert len(calls) == 1, "one block is not worth a variant"
    assert not is_compiled()
    assert torch.equal(step(x, 2), 2 * x) and len(calls) == 1


def test_it_ends_with_an_error_too():
    with pytest.raises(ValueError, match="unknown qtype"), qk.compiled():
        qk.quantize(torch.zeros(32), "Q9_9")
    assert not is_compiled()


def test_without_headers_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(RuntimeError, match=r"has no Python\.h"), qk.compiled():
        pass
    assert not is_compiled()


def test_without_a_compiler_it_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="needs a C\\+\\+ compiler"), qk.compiled():
        pass
    assert not is_compiled()


@pytest.mark.compiles
@pytest.mark.parametrize("qtype", qk.QTYPES)
def test_dequantize_gives_the_same_bits(qtype):
    layout = qk.QTYPES[qtype]
    data = np.random.default_rng(5).integers(0, 256, (40, 4 * layout.type_size), dtype=np.uint8)
    data = torch.from_numpy(data)
    expected = qk.dequantize(data, qtype)
    with qk.compiled():
        for part in (slice(None), slice(0, 13), slice(0, 1)):
            actual, nan = qk.dequantize(data[part], qtype), expected[part].isnan()  # NaN has no bits of its own
            same = actual.view(torch.int32) == expected[part].view(torch.int32)
            assert torch.equal(actual.isnan(), nan) and (same | nan).all()


@pytest.mark.compiles
@pytest.mark.parametrize("qtype", [name for name in qk.QTYPES if name in SLOW or name.startswith("Q")])
def test_quantize_writes_the_golden_bytes(qtype, check):
    with qk.compiled():
        check.golden_bytes(qtype, least_kinds=29)
