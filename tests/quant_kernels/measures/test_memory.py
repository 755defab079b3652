"""Peak memory: what is seen, of which process."""

import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from quant_kernels.measures.memory import peak_memory

MB = 1 << 20


def allocate(megabytes):
    block = torch.ones(megabytes * MB // 4)
    time.sleep(0.05)  # long enough to be sampled on a busy machine
    return float(block[0])


def test_an_allocation_that_is_gone_again_is_seen():
    result, peak = peak_memory(allocate, 64)
    assert result == 1.0
    assert 60 * MB < peak < 80 * MB


def test_a_function_without_allocations_shows_nothing():
    assert peak_memory(sum, range(100_000))[1] < 4 * MB


def test_memory_that_was_free_before_counts_when_it_is_taken_up_again():
    if sys.platform != "linux":
        pytest.skip("free memory is given back before the call with glibc only")
    peaks = [peak_memory(allocate, 8)[1] for _ in range(4)]
    assert min(peaks) > 4 * MB


def test_the_result_counts():
    tensor, peak = peak_memory(torch.ones, 16 * MB)
    assert tensor.nbytes == 64 * MB and peak > 60 * MB


def test_keyword_arguments_and_errors_pass_through():
    assert peak_memory(sorted, [1, 2], reverse=True)[0] == [2, 1]
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        peak_memory(lambda: 1 / 0)
    assert threading.active_count() == before


WORKER = """
for line in iter(input, ""):
    block = bytearray(b"x") * (int(line) << 20)
    print(len(block), flush=True)
    del block
"""


class Elsewhere:
    """A stand-in for a function of another process."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid

    def __call__(self, megabytes):
        self.process.stdin.write(f"{megabytes}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def bind(self, megabytes):
        return lambda: self(megabytes)

    def end(self):
        self.process.communicate("\n")


def test_memory_is_that_of_the_process_that_runs_the_function():
    elsewhere = Elsewhere()
    elsewhere(0)
    try:
        size, peak = peak_memory(elsewhere, 64)
        mine_meanwhile = peak_memory(lambda: elsewhere(64))[1]
    finally:
        elsewhere.end()
    assert size == 64 * MB
    assert 60 * MB < peak < 80 * MB
    assert mine_meanwhile < 4 * MB


def test_a_process_that_ends_during_the_call_is_no_error():
    elsewhere = Elsewhere()

    def call():
        elsewhere.end()
        return "ended"

    call.pid, call.bind = elsewhere.pid, lambda: call
    assert peak_memory(call)[0] == "ended"
    with pytest.raises(ProcessLookupError, match=f"cannot read the memory of process {elsewhere.pid}"):
        peak_memory(call)


def test_own_pid_is_the_default():
    def call():
        return allocate(40)

    call.pid = os.getpid()
    assert peak_memory(call)[1] > 36 * MB
