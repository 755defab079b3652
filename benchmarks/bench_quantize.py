"""Quantize and dequantize beside the gguf package and, where GGML_LIBRARY names a compiled ggml, its C functions.

    python benchmarks/bench_quantize.py [--millions 16] [--rounds 5]

Every peer has the same weights and the same number of threads: torch splits its operations, for gguf and ggml the rows
are split between Python threads (neither holds the interpreter's lock while it computes). The time is the best of the
rounds, in which the peers take turns. `write only` fills fresh memory of the result's size: no dequantize is faster.
"""

import argparse
import os
import platform
import runpy
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import quant_kernels as qk

COLUMNS = 4096
MAKE_GOLDEN = Path(__file__).parents[1] / "tests/quant_kernels/golden/make_golden.py"
NO_SEARCH = ("Q8_0", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4")  # formats that importance does not change
FEWER = 16  # a search is slow: it gets this fraction of the weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--millions", type=float, default=16, help="weights, in millions (16)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the best counts (5)")
    args = parser.parse_args()
    rows = max(FEWER, round(args.millions * 2**20 / COLUMNS))
    x = np.random.default_rng(0).standard_normal((rows, COLUMNS), dtype=np.float32)
    importance = np.random.default_rng(1).chisquare(1, COLUMNS).astype(np.float32)
    console = Console()
    for threads in sorted({1, os.cpu_count() or 1}):
        console.print(table(x, importance, threads, args.rounds))
    console.print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}"
    )


def table(x: np.ndarray, importance: np.ndarray, threads: int, rounds: int) -> Table:
    """One line per format and direction: million weights per second, and how many times faster than the peers."""
    torch.set_num_threads(threads)
    result = Table(title=f"{x.size / 1e6:.1f} million weights, {threads} thread{'s' * (threads > 1)}: M weights/s")
    for column in ("format", "what", "quant_kernels", "gguf", "ratio", "ggml C", "ratio"):
        result.add_column(column, justify="left" if column in ("format", "what") else "right")
    result.add_row("", "write only", f"{x.size / best([lambda: write_only(x.size)], rounds)[0] / 1e6:.0f}")
    with ThreadPoolExecutor(threads) as pool:
        for qtype in qk.QTYPES:
            for what, n, jobs in directions(x, importance, qtype, threads, pool):
                result.add_row(qtype, what, *cells(n, best(jobs, rounds)))
    return result


def directions(
    x: np.ndarray, importance: np.ndarray, qtype: str, threads: int, pool: ThreadPoolExecutor
) -> list[tuple[str, int, list[Callable | None]]]:
    """What is measured for a format: its name, the number of weights, and what quant_kernels, gguf and ggml run."""
    number, ggml = gguf.GGMLQuantizationType[qtype], c_library()
    few = x[: len(x) // FEWER]
    plain = few if qk.QTYPES[qtype].searches else x
    data = qk.quantize(torch.from_numpy(few), qtype).repeat(FEWER, 1)

    def split(function: Callable, rows: np.ndarray, *more: object) -> Callable:
        parts = np.array_split(rows, threads)
        return lambda: list(pool.map(lambda part: function(part, *more), parts))

    lines = [
        (
            "quantize",
            plain.size,
            [
                lambda: qk.quantize(torch.from_numpy(plain), qtype),
                split(gguf.quants.quantize, plain, number) if gguf_quantizes(number) else None,
                split(ggml.quantize, plain, qtype) if ggml else None,
            ],
        ),
        (
            "dequantize",
            few.size * FEWER,
            [
                lambda: qk.dequantize(data, qtype),
                split(gguf.quants.dequantize, data.numpy(), number),
                split(ggml.dequantize, data.numpy(), qtype) if ggml else None,
            ],
        ),
        (
            "q. by importance",
            few.size,
            [
                lambda: qk.quantize(torch.from_numpy(few), qtype, torch.from_numpy(importance)),
                None,
                split(ggml.quantize, few, qtype, importance) if ggml else None,
            ],
        ),
    ]
    return lines[:2] if qtype in NO_SEARCH else lines


def gguf_quantizes(number: gguf.GGMLQuantizationType) -> bool:
    try:
        gguf.quants.quantize(np.zeros((1, 256), np.float32), number)
    except NotImplementedError:
        return False
    return True


def c_library() -> object | None:
    path = os.environ.get("GGML_LIBRARY")
    return runpy.run_path(str(MAKE_GOLDEN))["Ggml"](path) if path else None


def write_only(n: int) -> None:
    out = torch.from_numpy(np.empty(n, np.float32))
    for part in out.split(2**19):
        part.zero_()


def best(jobs: list[Callable | None], rounds: int) -> list[float | None]:
    """The shortest time of each job, in seconds, after one round that does not count."""
    times = [[seconds(job) for job in jobs] for _ in range(rounds + 1)][1:]
    return [None if column[0] is None else min(column) for column in zip(*times, strict=True)]


def seconds(job: Callable | None) -> float | None:
    if job is None:
        return None
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def cells(n: int, times: list[float | None]) -> list[str]:
    """quant_kernels' rate, then each peer's rate and how many times it takes quant_kernels' time."""
    own, *peers = times
    texts = [f"{n / own / 1e6:.1f}"]
    for peer in peers:
        texts += ["-", "-"] if peer is None else [f"{n / peer / 1e6:.1f}", f"{peer / own:.2f}x"]
    return texts


if __name__ == "__main__":
    main()
