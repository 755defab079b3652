"""y = x W^T from packed weights beside dense matrices, other libraries' packed ones, and ggml's own kernels.

    python benchmarks/bench_matmul.py [--types Q4_0 Q4_K ...] [--tokens 1 8 64] [--threads 1 2] [--rounds 5]

Weights come from memory: each call has another copy of them, and the copies together are larger than most caches. The
time is the best of the rounds, in which all take turns, and of the copies in a round. A ratio is how many times less
time it takes than torch's dense float32, in the same run; for one token and what is compiled the aim is AIM.

Other libraries run where they are installed (`pip install -e '.[bench]'`), ggml where GGML_CPU_LIBRARY names its
library for CPUs (libggml-cpu.so of a build of llama.cpp). bitsandbytes and `eager` unpack weights in each call.
"""

import argparse
import ctypes
import os
import platform
import runpy
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import quant_kernels as qk

SHAPES = ((4096, 4096), (11008, 4096))  # (m, n)
TYPES = ("Q8_0", "Q4_0", "Q4_K", "Q6_K")
COMPILED = "compiled"  # in the name of what runs so
AIM = 4
COPIED = 400e6  # bytes of all copies of one kind of weights
MAKE_GOLDEN = Path(__file__).parents[1] / "tests/quant_kernels/golden/make_golden.py"

Job = Callable[[int], object]  # is told which copy to use


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--types", nargs="+", default=list(TYPES), choices=qk.QTYPES, metavar="TYPE")
    parser.add_argument("--tokens", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, os.cpu_count() or 1}), help="(1 and all)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the best counts (5)")
    args = parser.parse_args()
    console = Console(width=None if Console().is_terminal else 120)
    for threads in args.threads:
        torch.set_num_threads(threads)
        for m, n in SHAPES:
            console.print(table(m, n, args.types, args.tokens, threads, args.rounds))
    console.print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}"
    )


def table(m: int, n: int, qtypes: list[str], counts: list[int], threads: int, rounds: int) -> Table:
    """One line per kernel: milliseconds for each number of tokens, and the ratio to dense float32."""
    result = Table(title=f"x W^T, W {m} x {n}, {threads} thread{'s' * (threads > 1)}: ms, and times dense float32")
    for column in ("kernel", *(f"{count} token{'s' * (count > 1)}" for count in counts)):
        result.add_column(column, justify="left" if column == "kernel" else "right")
    weights = torch.randn(m, n, generator=torch.Generator().manual_seed(0)) / n**0.5
    dense = dense_float32(weights)
    with Progress(transient=True) as progress:
        makers = [lambda weights: dense, dense_bfloat16, *LIBRARIES, *(ours(qtype) for qtype in qtypes)]
        for maker in progress.track(makers, description=f"{threads} threads"):
            kernels = maker(weights)  # their weights live as long as they are measured
            for name, kernel in kernels.items():
                cells = [cell(name, kernel, dense["torch float32"], count, n, rounds) for count in counts]
                result.add_row(name, *cells)
    return result


def cell(name: str, kernel: Callable, dense: Callable, count: int, n: int, rounds: int) -> str:
    x = torch.randn(count, n, generator=torch.Generator().manual_seed(1))
    with qk.compiled() if COMPILED in name else nullcontext():
        base, own = best([dense(x), kernel(x)], rounds)
    missed = f" < {AIM}" if COMPILED in name and count == 1 and base / own < AIM else ""
    return f"{own * 1e3:.2f} {base / own:.2f}x{missed}"


def copies(packed: torch.Tensor) -> list[torch.Tensor]:
    return [packed.clone() for _ in range(max(2, int(COPIED / packed.nbytes)))]


# Kernels: weights (m, n) float32 to {name: x (t, n) float32 to a job}


def dense_float32(weights: torch.Tensor) -> dict[str, Callable]:
    packed = copies(weights)
    return {"torch float32": lambda x: lambda i: x @ packed[i % len(packed)].T}


def dense_bfloat16(weights: torch.Tensor) -> dict[str, Callable]:
    packed = copies(weights.bfloat16())
    return {"torch bfloat16": lambda x: with_bfloat16(x, lambda x, i: x @ packed[i % len(packed)].T)}


def ours(qtype: str) -> Callable:
    def kernels(weights: torch.Tensor) -> dict[str, Callable]:
        few = weights[:64]  # quantized once, as the time does not depend on the values
        importance = torch.ones(few.shape[1]) if qk.QTYPES[qtype].needs_importance else None
        packed = copies(qk.quantize(few, qtype, importance).repeat(len(weights) // len(few), 1))

        def kernel(integer: bool) -> Callable:
            return lambda x: lambda i: qk.matmul(x, packed[i % len(packed)], qtype, integer=integer)

        found = {
            f"{qtype} {path}, {how}": kernel(path == "integer")
            for path in ("float", "integer")
            for how in ("eager", COMPILED)
        }
        return found | ggml_kernel(qtype, packed, weights.shape)

    return kernels


def with_bfloat16(x: torch.Tensor, job: Callable) -> Job:
    x = x.bfloat16()
    return lambda i: job(x, i)


def int4_of_torch(weights: torch.Tensor) -> dict[str, Callable]:
    """torch's packed 4-bit weights with bfloat16 scales and minima of 32 each."""
    m, n = weights.shape
    codes = torch.randint(0, 16, (m, n), dtype=torch.int32)
    packed = copies(torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1))
    scales = torch.full((n // 32, m, 2), 0.01, dtype=torch.bfloat16)
    multiply = torch.ops.aten._weight_int4pack_mm_for_cpu
    return {
        "torch int4pack, 32": lambda x: with_bfloat16(x, lambda x, i: multiply(x, packed[i % len(packed)], 32, scales))
    }


def int8_of_torch(weights: torch.Tensor) -> dict[str, Callable]:
    """torch's 8-bit weights with one bfloat16 scale per row."""
    packed = copies((weights * 1000).clamp(-127, 127).to(torch.int8))
    scales = torch.full((len(weights),), 0.001, dtype=torch.bfloat16)
    multiply = torch.ops.aten._weight_int8pack_mm
    return {"torch int8pack": lambda x: with_bfloat16(x, lambda x, i: multiply(x, packed[i % len(packed)], scales))}


def bitsandbytes_nf4(weights: torch.Tensor) -> dict[str, Callable]:
    try:
        import bitsandbytes
    except ImportError:
        return {}
    data, state = bitsandbytes.functional.quantize_4bit(weights, blocksize=64, quant_type="nf4")
    return {"bitsandbytes nf4, 64": lambda x: lambda i: bitsandbytes.matmul_4bit(x, data.t(), quant_state=state)}


LIBRARIES = (int4_of_torch, int8_of_torch, bitsandbytes_nf4)


# ggml


class InitParams(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


def ggml_kernel(qtype: str, packed: list[torch.Tensor], shape: tuple[int, int]) -> dict[str, Callable]:
    path = os.environ.get("GGML_CPU_LIBRARY")
    if not path:
        return {}
    library, number = ggml_library(path), runpy.run_path(str(MAKE_GOLDEN))["FORMATS"][qtype]
    return {f"{qtype}, ggml": lambda x: ggml_job(library, number, packed, shape, x)}


def ggml_library(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)  # with its symbols come those of libggml-base
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    for name, arguments in {
        "ggml_init": [InitParams],
        "ggml_new_tensor_2d": [pointer, ctypes.c_int, number, number],
        "ggml_mul_mat": [pointer] * 3,
        "ggml_new_graph": [pointer],
        "ggml_build_forward_expand": [pointer, pointer],
        "ggml_get_data": [pointer],
        "ggml_free": [pointer],
        "ggml_graph_compute_with_ctx": [pointer, pointer, ctypes.c_int],
    }.items():
        getattr(library, name).argtypes, getattr(library, name).restype = arguments, pointer
    library.ggml_cpu_init()
    return library


def ggml_job(
    library: ctypes.CDLL, number: int, packed: list[torch.Tensor], shape: tuple[int, int], x: torch.Tensor
) -> Job:
    """The time includes that of starting ggml's threads, if there are any."""
    m, n = shape
    size = sum(part.nbytes for part in packed) + x.nbytes + len(packed) * (4 * m * len(x) + 2**20) + 2**24
    context = library.ggml_init(InitParams(size, None, False))
    right = library.ggml_new_tensor_2d(context, 0, n, len(x))  # 0: float32
    ctypes.memmove(library.ggml_get_data(right), x.data_ptr(), x.nbytes)
    graphs = []
    for part in packed:
        left = library.ggml_new_tensor_2d(context, number, n, m)
        ctypes.memmove(library.ggml_get_data(left), part.data_ptr(), part.nbytes)
        graphs.append(library.ggml_new_graph(context))
        library.ggml_build_forward_expand(graphs[-1], library.ggml_mul_mat(context, left, right))
    threads = torch.get_num_threads()

    class Owner:
        def __call__(self, i: int) -> None:
            scratch = library.ggml_init(InitParams(2**22 + 8 * x.nbytes, None, False))
            library.ggml_graph_compute_with_ctx(scratch, graphs[i % len(graphs)], threads)
            library.ggml_free(scratch)

        def __del__(self) -> None:
            library.ggml_free(context)

    return Owner()


# Time


def best(jobs: list[Job], rounds: int) -> list[float]:
    """The shortest time of each job, in seconds, after one call that does not count."""
    for job in jobs:
        job(0)
    times = [[fastest(job, 8 * k) for job in jobs] for k in range(rounds)]
    return [min(column) for column in zip(*times, strict=True)]


def fastest(job: Job, start: int, calls: int = 8) -> float:
    """Of a few calls, of which slow jobs get only one."""
    shortest = float("inf")
    for i in range(start, start + calls):
        before = time.perf_counter()
        job(i)
        shortest = min(shortest, time.perf_counter() - before)
        if shortest > 0.05:
            break
    return shortest


if __name__ == "__main__":
    main()
