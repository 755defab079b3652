"""What this machine reaches: memory bandwidth and operations per second, measured with torch.

These are floors. Other work on the machine lowers them, and so do fewer threads (`torch.set_num_threads`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from quant_kernels.hardware import Hardware

COLUMNS = 4096


def measure_bandwidth(n_bytes: int = 2**29, rounds: int = 5, device: str = "cpu") -> float:
    """Bytes/s that are read: the best of some matrix-vector products, which is what decode does.

    n_bytes: the size of the float32 matrix. It has to be several times the last cache's, or that is what is measured.
    Raises ValueError for less than a row of 4,096 numbers, and for less than 1 round.
    """
    rows = n_bytes // (4 * COLUMNS)
    if rows < 1:
        raise ValueError(f"n_bytes is {n_bytes}, less than one row of {COLUMNS} float32 numbers")
    matrix, vector = torch.ones(rows, COLUMNS, device=device), torch.ones(COLUMNS, device=device)
    return matrix.nbytes / best_seconds(lambda: torch.mv(matrix, vector), rounds, device)


def measure_operations(
    dtype: torch.dtype = torch.float32, size: int = 1024, rounds: int = 5, device: str = "cpu"
) -> float:
    """Operations/s in the multiplication of two (size, size) matrices, a multiplication and an addition being two.

    Raises ValueError for a dtype that is not floating-point, for size 0, and for less than 1 round.
    """
    if not dtype.is_floating_point:
        raise ValueError(f"dtype is {dtype}, not a floating-point type")
    if size < 1:
        raise ValueError(f"size is {size}, at least 1 is needed")
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    return 2 * size**3 / best_seconds(lambda: torch.matmul(a, b), rounds, device)


def measured_hardware(device: str = "cpu", n_bytes: int = 2**29, size: int = 1024) -> Hardware:
    """This machine as a `Hardware`: its bandwidth, and its peaks in float32 (FP32) and bfloat16 (FP16).

    A bound from these can be exceeded, by what the measurement did not reach.
    """
    peaks = {
        "FP32": measure_operations(torch.float32, size, device=device),
        "FP16": measure_operations(torch.bfloat16, size, device=device),
    }
    where = f"{torch.get_num_threads()} CPU threads" if device == "cpu" else torch.cuda.get_device_name(device)
    source = f"measured with torch {torch.__version__}"
    return Hardware(f"this machine ({where})", measure_bandwidth(n_bytes, device=device), peaks, sources=(source,))


def best_seconds(run: Callable[[], object], rounds: int, device: str = "cpu") -> float:
    """The shortest of some runs, after one that does not count: the first one allocates and warms up."""
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}, at least 1 is needed")
    return min([_seconds(run, device) for _ in range(rounds + 1)][1:])


def _seconds(run: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
