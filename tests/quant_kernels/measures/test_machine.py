"""Measured rooflines: the best of the rounds, in the right unit, and what is refused. No speed is asserted."""

import time

import pytest
import torch

from quant_kernels.hardware import Hardware
from quant_kernels.measures.machine import best_seconds, measure_bandwidth, measure_operations, measured_hardware
from quant_kernels.models.shapes import ARCHITECTURES
from quant_kernels.roofline import decode


def test_the_best_round_counts_but_for_the_first():
    pauses = [0.0, 0.03, 0.01, 0.02]
    assert best_seconds(lambda: time.sleep(pauses.pop(0)), rounds=3) >= 0.01
    assert not pauses


@pytest.fixture
def half_a_second(monkeypatch):
    """Every measured call counts as half a second."""

    def measured(run, rounds, device):
        run()
        return 0.5

    monkeypatch.setattr("quant_kernels.measures.machine.best_seconds", measured)


def test_bytes_and_operations_over_seconds(half_a_second):
    assert measure_bandwidth(2**20 + 5) == 2**20 / 0.5  # whole rows of 16 KiB
    assert measure_operations(torch.bfloat16, size=10) == 2 * 10**3 / 0.5


def test_what_is_measured_makes_a_bound(half_a_second):
    machine = measured_hardware(n_bytes=2**20, size=10)
    assert machine == Hardware(
        f"this machine ({torch.get_num_threads()} CPU threads)",
        2**20 / 0.5,
        {"FP32": 4000, "FP16": 4000},
        sources=(f"measured with torch {torch.__version__}",),
    )
    assert decode(ARCHITECTURES["SmolLM2-135M"], machine, arithmetic="FP32").tokens_per_second > 0


def test_real_measurements_are_positive():
    assert measure_bandwidth(2**22, rounds=1) > 0 and measure_operations(size=32, rounds=1) > 0


def test_what_is_refused():
    with pytest.raises(ValueError, match="n_bytes is 1000, less than one row of 4096 float32 numbers"):
        measure_bandwidth(1000)
    with pytest.raises(ValueError, match=r"dtype is torch\.int8, not a floating-point type"):
        measure_operations(torch.int8)
    with pytest.raises(ValueError, match="size is 0, at least 1 is needed"):
        measure_operations(size=0)
    with pytest.raises(ValueError, match="rounds is 0, at least 1 is needed"):
        measure_operations(size=2, rounds=0)
