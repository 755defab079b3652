"""Peak memory of a call, seen from outside: the resident set of the process that runs it."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import psutil

SECONDS_BETWEEN_SAMPLES = 0.0005


def peak_memory(function: Callable, *args: Any, **kwargs: Any) -> tuple[Any, int]:
    """Returns function(*args, **kwargs) and the bytes by which resident memory rose at its highest during the call.

    Memory is that of the process which runs the function: this one, or `function.pid` where it has one. Such a stand-in
    for a function that runs elsewhere also has `function.bind(*args, **kwargs)`, which takes the arguments there before
    the measured call. Linux keeps a high-water mark, which is exact; elsewhere, and where it cannot be reset, memory is
    sampled about every half millisecond.

    What it cannot see: without the mark, an allocation that is given back between two samples; pages not written to;
    and memory that the process held free and only takes up again. The last is rare in this process, whose free memory
    goes back to the system before the call (with glibc); of another process, `bind` is trusted to do the same.

    Raises what the function raises, and ProcessLookupError if its process does not exist.

    >>> data, peak = peak_memory(lambda n: b"x" * n, 50_000_000)
    >>> len(data), 45_000_000 < peak < 60_000_000
    (50000000, True)
    """
    pid = getattr(function, "pid", os.getpid())
    if pid == os.getpid():
        call = functools.partial(function, *args, **kwargs)
        release_free_memory()
    else:
        call = function.bind(*args, **kwargs)
    with Sampler(pid) as sampler:
        result = call()
    return result, sampler.peak - sampler.before


def release_free_memory() -> None:
    """Returns this process's free memory to the system, so that taking it up again shows; glibc only."""
    gc.collect()
    if sys.platform == "linux" and hasattr(c_library := ctypes.CDLL(None), "malloc_trim"):
        c_library.malloc_trim(0)


def reset_high_water_mark(pid: int) -> bool:
    """Starts Linux's record of a process's highest resident memory anew; False where that is not possible."""
    try:
        with open(f"/proc/{pid}/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def high_water_mark(pid: int) -> int:
    """The highest resident memory of a process since the reset, in bytes; 0 if the process has ended."""
    try:
        with open(f"/proc/{pid}/status") as file:
            lines = [line.split() for line in file if line.startswith("VmHWM:")]
    except OSError:
        return 0
    return int(lines[0][1]) * 1024 if lines else 0


class Sampler:
    """Follows the resident memory of a process, in bytes, for the length of a `with` block."""

    def __init__(self, pid: int):
        try:
            self.process = psutil.Process(pid)
            self.before = self.peak = self.process.memory_info().rss
        except psutil.Error as error:
            raise ProcessLookupError(f"cannot read the memory of process {pid}: {error}") from error
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> Sampler:
        self.has_high_water_mark = reset_high_water_mark(self.process.pid)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.sample()
        self.done.set()
        self.thread.join()
        if self.has_high_water_mark:
            self.peak = max(self.peak, high_water_mark(self.process.pid))

    def run(self) -> None:
        while not self.done.wait(SECONDS_BETWEEN_SAMPLES):
            self.sample()

    def sample(self) -> None:
        try:
            self.peak = max(self.peak, self.process.memory_info().rss)
        except psutil.Error:  # it ended: what was seen until then stands
            self.done.set()
