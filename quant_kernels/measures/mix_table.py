"""What each mix leaves of a model: size, perplexity, and how far its predictions stray."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch

from quant_kernels.measures.compare import Comparison, Estimate, Recording, record
from quant_kernels.measures.imatrix import Imatrix
from quant_kernels.measures.overlap import check_overlap
from quant_kernels.models.gguf_file import load_model
from quant_kernels.models.mixes import MIXES, known_mix
from quant_kernels.models.quantize_model import Cache, plan_file, quantize_model

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class MixRow:
    """A mix of a model: its size, and what `compare` finds between it and the model as the file has it."""

    name: str
    bytes: int  # of all tensors
    bits_per_weight: float
    perplexity: float
    standard_error: float
    ratio: Estimate  # of the perplexities, the mix's / the base's
    kl_divergence: Estimate  # nats
    same_top: Estimate  # share of tokens


@dataclass
class Job:
    """What a process needs for any mix: the file, the recorded base, and the tensors that it has quantized before."""

    path: Path
    recording: Recording
    imatrix: Imatrix | None
    allow_requantize: bool
    cache: Cache = field(default_factory=dict)

    def row(self, mix: str) -> MixRow:
        model = quantize_model(self.path, mix, self.imatrix, allow_requantize=self.allow_requantize, cache=self.cache)
        found = self.recording.compare(model)
        return row_of(mix, model.n_bytes, model.bits_per_weight, found)


def row_of(name: str, n_bytes: int, bits_per_weight: float, found: Comparison) -> MixRow:
    other = found.other
    return MixRow(
        name,
        n_bytes,
        bits_per_weight,
        other.value,
        other.standard_error,
        found.ratio,
        found.kl_divergence,
        found.same_top,
    )


def mix_table(
    path: str | Path,
    text: str,
    mixes: Sequence[str] = tuple(MIXES),
    *,
    imatrix: Imatrix | None = None,
    n_ctx: int = 512,
    max_windows: int | None = None,
    allow_requantize: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[MixRow]:
    """Returns a row for each mix of a GGUF's model, measured on a text by the convention of llama-perplexity.

    imatrix: the importance of the columns; some mixes need it. max_windows: of the text, from its beginning.
    workers: processes with one thread each, by default as many as there are cores; 1 is this process with its own.
    progress: called with the mixes done and their number.

    Raises ValueError for counts below 1, an unknown mix, a text that the imatrix was made from, and as `quantize_model`
    and `perplexity` do.
    """
    check_counts(mixes=len(mixes), max_windows=max_windows, workers=workers)
    for mix in mixes:
        known_mix(mix)
    check_overlap(imatrix.sketch if imatrix else None, text)
    model = load_model(path)
    tokens = model.tokenizer.encode(text, add_special=True)[: max_windows and max_windows * n_ctx]
    with record(model, tokens, n_ctx) as recording:
        job = Job(Path(path), recording, imatrix, allow_requantize)
        workers = min(workers or os.cpu_count(), len(mixes))
        if workers > 1:
            return rows_by_processes(job, mixes, workers, progress)
        return list(rows_one_by_one(job, mixes, progress))


def check_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name} is {count}, not at least 1")


def rows_one_by_one(job: Job, mixes: Sequence[str], progress: Progress | None) -> Iterator[MixRow]:
    for done, mix in enumerate(mixes, 1):
        yield job.row(mix)
        if progress:
            progress(done, len(mixes))


def rows_by_processes(job: Job, mixes: Sequence[str], workers: int, progress: Progress | None) -> list[MixRow]:
    """As rows_one_by_one; the first error stops all that has not begun."""
    with ProcessPoolExecutor(workers, get_context("spawn"), start_worker, (job,)) as executor:
        futures = [executor.submit(work, mix) for mix in mixes]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                if progress:
                    progress(done, len(mixes))
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def start_worker(job: Job) -> None:
    global _job
    _job = job
    torch.set_num_threads(1)


def work(mix: str) -> MixRow:
    return _job.row(mix)


def possible_mixes(path: str | Path, imatrix: Imatrix | None) -> list[str]:
    """Returns the mixes that a GGUF can be quantized to; without an imatrix some cannot."""
    return [mix for mix in MIXES if imatrix or not refused(path, mix)]


def refused(path: str | Path, mix: str) -> bool:
    try:
        plan_file(path, mix)
    except ValueError:
        return True
    return False
