"""Quantize and dequantize beside their peers: the gguf package, ggml's C functions, bitsandbytes and torchao.

    python benchmarks/bench_quantize.py [--types Q4_0 Q4_K ...] [--millions 16] [--rounds 5]

ggml's C functions run where GGML_LIBRARY names its compiled library (tests/quant_kernels/golden/make_golden.py makes
one), bitsandbytes and torchao where they are installed (`pip install -e '.[bench]'`). Every peer has the same weights
and the same number of threads: torch splits its operations, for gguf and ggml the rows are split between Python threads
(neither holds the interpreter's lock while it computes). The time is the best of the rounds, in which the peers take
turns. `write only` fills fresh memory of the result's size: no dequantize that returns new memory is faster.

A ratio is how many times a peer's time quant_kernels takes less; one below its aim is followed by the aim.
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
from rich.progress import Progress
from rich.table import Table

import quant_kernels as qk

COLUMNS = 4096
MAKE_GOLDEN = Path(__file__).parents[1] / "tests/quant_kernels/golden/make_golden.py"
FEWER = 16  # a search is slow: it gets this fraction of the weights
AIMS = {"quantize": (None, 1), "with importance": (None, 1), "dequantize": (4, 1)}  # times gguf, times ggml
PEERS = {  # library's format: ours with about as many bits
    "bitsandbytes nf4, 64": "Q4_0",
    "bitsandbytes int8, 256": "Q8_0",
    "torchao mxfp4": "MXFP4",
    "torchao nvfp4": "NVFP4",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--types", nargs="+", default=list(qk.QTYPES), choices=qk.QTYPES, metavar="TYPE", help="(all)")
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, os.cpu_count() or 1}), help="(1 and all)")
    parser.add_argument("--millions", type=float, default=16, help="weights, in millions (16)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the best counts (5)")
    parser.add_argument("--eager", action="store_true", help="nothing compiled")
    args = parser.parse_args()
    rows = max(FEWER, round(args.millions * 2**20 / COLUMNS))
    x = np.random.default_rng(0).standard_normal((rows, COLUMNS), dtype=np.float32)
    importance = np.random.default_rng(1).chisquare(1, COLUMNS).astype(np.float32)
    fuse = (lambda job: None) if args.eager else compiled
    console = Console(width=None if Console().is_terminal else 120)
    for threads in args.threads:
        torch.set_num_threads(threads)
        console.print(formats_table(x, importance, args.types, threads, args.rounds, fuse))
        if libraries := installed_peers():
            console.print(libraries_table(torch.from_numpy(x), libraries, threads, args.rounds, fuse))
    console.print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}"
    )


def formats_table(
    x: np.ndarray, importance: np.ndarray, qtypes: list[str], threads: int, rounds: int, fuse: Callable
) -> Table:
    """One line per format and direction: million weights per second, and how many times faster than the peers.

    fuse: makes of a job the same job with compiled steps, or None.
    """
    result = Table(title=f"{x.size / 1e6:.1f} million weights, {threads} thread{'s' * (threads > 1)}: M weights/s")
    for column in ("format", "what", "eager", "compiled", "gguf", "ratio", "ggml C", "ratio"):
        result.add_column(column, justify="left" if column in ("format", "what") else "right")
    result.add_row("", "write only", f"{x.size / best([lambda: write_only(x.size)], rounds)[0] / 1e6:.0f}")
    with ThreadPoolExecutor(threads) as pool, Progress(transient=True) as progress:
        for qtype in progress.track(qtypes, description=f"{threads} threads"):
            for what, n, jobs in directions(x, importance, qtype, threads, pool, fuse):
                aims = AIMS[what] if what == "dequantize" or qk.QTYPES[qtype].family in "KI" else (None, None)
                result.add_row(qtype, what, *cells(n, best(jobs, rounds), aims))
    return result


def directions(
    x: np.ndarray, importance: np.ndarray, qtype: str, threads: int, pool: ThreadPoolExecutor, fuse: Callable
) -> list[tuple[str, int, list[Callable | None]]]:
    """What is measured for a format: its name, the number of weights, and what runs in the table's order."""
    number, ggml, layout = gguf_number(qtype), c_library(), qk.QTYPES[qtype]
    few = x[: len(x) // FEWER]
    plain = few if layout.searches else x
    weights = torch.from_numpy(importance)
    data = qk.quantize(torch.from_numpy(few), qtype, weights).repeat(FEWER, 1)

    def split(function: Callable, rows: np.ndarray, *more: object) -> Callable:
        parts = np.array_split(rows, threads)
        return lambda: list(pool.map(lambda part: function(part, *more), parts))

    lines = []
    if not layout.needs_importance:
        job = lambda: qk.quantize(torch.from_numpy(plain), qtype)  # noqa: E731
        peers = split(gguf.quants.quantize, plain, number) if gguf_can("quantize", number) else None
        lines.append(("quantize", plain.size, [job, fuse(job), peers, ggml and split(ggml.quantize, plain, qtype)]))
    if ignores_importance(qtype) is False:
        job = lambda: qk.quantize(torch.from_numpy(few), qtype, weights)  # noqa: E731
        peers = [None, ggml and split(ggml.quantize, few, qtype, importance)]
        lines.append(("with importance", few.size, [job, fuse(job), *peers]))
    job = lambda: qk.dequantize(data, qtype)  # noqa: E731
    peers = [
        split(gguf.quants.dequantize, data.numpy(), number) if gguf_can("dequantize", number) else None,
        ggml and split(ggml.dequantize, data.numpy(), qtype),
    ]
    lines.append(("dequantize", few.size * FEWER, [job, fuse(job), *peers]))
    return lines


def ignores_importance(qtype: str) -> bool:
    return qtype in runpy.run_path(str(MAKE_GOLDEN))["WITHOUT_IMPORTANCE"]


def compiled(job: Callable) -> Callable:
    def run() -> None:
        with qk.compiled():
            job()

    return run


def gguf_number(qtype: str) -> gguf.GGMLQuantizationType | None:
    return getattr(gguf.GGMLQuantizationType, qtype, None)


def gguf_can(direction: str, number: gguf.GGMLQuantizationType | None) -> bool:
    if number is None:
        return False
    shape, dtype = (
        ((1, 256), np.float32) if direction == "quantize" else ((1, gguf.GGML_QUANT_SIZES[number][1]), np.uint8)
    )
    try:
        getattr(gguf.quants, direction)(np.zeros(shape, dtype), number)
    except NotImplementedError:
        return False
    return True


def c_library() -> object | None:
    path = os.environ.get("GGML_LIBRARY")
    return runpy.run_path(str(MAKE_GOLDEN))["Ggml"](path) if path else None


def installed_peers() -> dict[str, tuple[Callable, Callable]]:
    """By the name of a library's format, x to its quantized form, and that to float32; of those installed."""
    found = {}
    try:
        from bitsandbytes import functional as bnb
    except ImportError:
        pass
    else:
        found["bitsandbytes nf4, 64"] = (
            lambda x: bnb.quantize_4bit(x, blocksize=64, quant_type="nf4"),
            lambda q: bnb.dequantize_4bit(*q),
        )
        found["bitsandbytes int8, 256"] = (
            lambda x: bnb.quantize_blockwise(x, blocksize=256),
            lambda q: bnb.dequantize_blockwise(*q),
        )
    try:
        from torchao.prototype.mx_formats.mx_tensor import MXTensor
        from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor
    except ImportError:
        return found
    found["torchao mxfp4"] = (
        lambda x: MXTensor.to_mx(x, torch.float4_e2m1fn_x2, 32),
        lambda q: q.dequantize(torch.float32),
    )
    found["torchao nvfp4"] = (lambda x: NVFP4Tensor.to_nvfp4(x), lambda q: q.dequantize(torch.float32))
    return found


def libraries_table(
    x: torch.Tensor, libraries: dict[str, tuple[Callable, Callable]], threads: int, rounds: int, fuse: Callable
) -> Table:
    """Other libraries' formats beside ours with about as many bits, compiled and eager."""
    result = Table(title=f"other libraries, {threads} thread{'s' * (threads > 1)}: M weights/s")
    for column in ("their format", "ours", "what", "theirs", "eager", "ratio", "compiled", "ratio"):
        result.add_column(column, justify="left" if column in ("their format", "ours", "what") else "right")
    for name, (quantize, dequantize) in libraries.items():
        qtype = PEERS[name]
        theirs, data = quantize(x), qk.quantize(x, qtype)
        pairs = {
            "quantize": (lambda: quantize(x), lambda: qk.quantize(x, qtype)),  # noqa: B023
            "dequantize": (lambda: dequantize(theirs), lambda: qk.dequantize(data, qtype)),  # noqa: B023
        }
        for what, (their_job, job) in pairs.items():
            their, eager, fused = best([their_job, job, fuse(job)], rounds)
            rates = [rate(x.numel(), time) for time in (their, eager, fused)]
            ratios = ["-" if time is None else f"{their / time:.1f}x" for time in (eager, fused)]
            result.add_row(name, qtype, what, rates[0], rates[1], ratios[0], rates[2], ratios[1])
    return result


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


def cells(n: int, times: list[float | None], aims: tuple[float | None, float | None]) -> list[str]:
    """Both of our rates, then each peer's rate and how many times the better of ours it takes."""
    eager, fused, *peers = times
    texts = [rate(n, eager), rate(n, fused)]
    for peer, aim in zip(peers, aims, strict=True):
        ratio = None if peer is None else peer / min(eager, fused or eager)
        missed = f" < {aim}" if ratio and aim and ratio < aim else ""
        texts += [rate(n, peer), "-" if ratio is None else f"{ratio:.2f}x{missed}"]
    return texts


def rate(n: int, time: float | None) -> str:
    return "-" if time is None else f"{n / time / 1e6:.1f}"


if __name__ == "__main__":
    main()
