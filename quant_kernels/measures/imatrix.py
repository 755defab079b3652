"""The importance matrix of llama.cpp, and its file: a GGUF with two F32 tensors for each weight.

For a matrix W with inputs x the error of an output is (W - W') x; where columns are uncorrelated its mean square is
the sum of (w - w')^2 E[x^2], so that E[x^2] of its column is what an error of a weight costs. No gradient is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.gguf_reader import ReaderTensor
from torch import Tensor

from quant_kernels.measures.overlap import KEY, Sketch, calibration_sketch
from quant_kernels.models.gguf_reader import read_gguf
from quant_kernels.models.gguf_writer import replacing

SUMS, COUNTS = ".in_sum2", ".counts"  # what follows a weight's name in a file
UNKNOWN = "unknown"  # llama-quantize refuses a file that lists no data set


@dataclass(frozen=True)
class Entry:
    """Sums of squares of a weight matrix's inputs, or of the matrices' of all experts of a layer."""

    sums: Tensor  # (n_matrices, columns) float32
    counts: Tensor  # (n_matrices,) int64: the tokens that were summed


@dataclass(frozen=True)
class Imatrix:
    """Sums of squared inputs by the GGUF name of a weight, such as `blk.0.attn_q.weight`, and where they come from.

    Raises ValueError for entries that no text can give: sums that are negative, infinite or NaN.
    """

    entries: Mapping[str, Entry]
    chunk_count: int  # windows of the text that were read
    chunk_size: int  # tokens in each
    datasets: tuple[str, ...] = ()
    sketch: Sketch | None = None  # of the text
    file: str = ""  # that it was read from

    def __post_init__(self):
        if not self.entries:
            raise ValueError("an imatrix needs the inputs of one weight at least")
        for name, entry in self.entries.items():
            check_entry(name, entry)

    def importance(self, name: str) -> Tensor | None:
        """Returns the mean squared input of each column of a weight, float32 (columns,); None for an unknown weight.

        Experts have one row each: (n_experts, columns). Raises ValueError if an expert saw no token.
        """
        if name not in self.entries:
            return None
        entry = self.entries[name]
        if unseen := (entry.counts == 0).nonzero().flatten().tolist():
            which = f"expert {unseen[0]} of {len(entry.counts)}" if len(entry.counts) > 1 else "the weight"
            raise ValueError(f"the imatrix has no data for {name}: {which} saw no token of the calibration text")
        means = entry.sums / entry.counts[:, None]  # (n_matrices, columns)
        return means if len(means) > 1 else means[0]

    def quantization_metadata(self) -> dict[str, str | int | list[int]]:
        """Returns the key-value pairs with which a model quantized with this imatrix says so, as llama-quantize's do.

        The sketch of the calibration text is among them, so that the model is not evaluated on that text.
        """
        known = {
            "quantize.imatrix.file": self.file,
            "quantize.imatrix.dataset": self.datasets[0] if self.datasets else "",
            "quantize.imatrix.entries_count": len(self.entries),
            "quantize.imatrix.chunks_count": self.chunk_count,
            KEY: list(self.sketch.hashes) if self.sketch else [],
        }
        return {key: value for key, value in known.items() if value}


def check_entry(name: str, entry: Entry) -> None:
    sums, counts = entry.sums, entry.counts
    if sums.ndim != 2 or counts.shape != sums.shape[:1] or not sums.numel():
        raise ValueError(
            f"{name}: sums are {tuple(sums.shape)} and counts {tuple(counts.shape)}, not (n, columns) and (n,)"
        )
    if not bool(sums.isfinite().all()):
        raise ValueError(f"{name}: {int((~sums.isfinite()).sum())} sums of squared inputs are NaN or infinite")
    if bool((sums < 0).any()) or bool((counts < 0).any()):
        raise ValueError(f"{name}: a sum of squares or a count is negative")


class Writer(gguf.GGUFWriter):
    """Without the architecture, of which an imatrix has none."""

    def add_architecture(self) -> None:
        pass


def save_imatrix(imatrix: Imatrix, path: str | Path) -> None:
    """Writes an imatrix in llama.cpp's GGUF format, which `llama-quantize --imatrix` reads.

    The sketch of the calibration text goes with it, under a key that llama.cpp does not look at. The file is written
    beside its place and moved there.

    Raises OSError if it cannot be written.
    Source: IMatrixCollector::save_imatrix in tools/imatrix/imatrix.cpp of llama.cpp.

    >>> import tempfile
    >>> entry = Entry(torch.tensor([[2.0, 8.0]]), torch.tensor([4]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_imatrix(Imatrix({"blk.0.attn_q.weight": entry}, 1, 4), f"{folder}/imatrix.gguf")
    ...     load_imatrix(f"{folder}/imatrix.gguf").importance("blk.0.attn_q.weight")
    tensor([0.5000, 2.0000])
    """
    with replacing(Path(path)) as partial:
        write(imatrix, partial)


def write(imatrix: Imatrix, path: Path) -> None:
    writer = Writer(path, arch="")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", list(imatrix.datasets) or [UNKNOWN])
    writer.add_uint32("imatrix.chunk_count", imatrix.chunk_count)
    writer.add_uint32("imatrix.chunk_size", imatrix.chunk_size)
    if imatrix.sketch and imatrix.sketch.hashes:
        writer.add_array(KEY, list(imatrix.sketch.hashes))
    for name, entry in sorted(imatrix.entries.items()):
        for suffix, rows in ((SUMS, entry.sums), (COUNTS, entry.counts[:, None])):  # (n_matrices, columns or 1)
            writer.add_tensor(name + suffix, rows.float().squeeze(0).numpy())  # one matrix has one dimension
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def load_imatrix(path: str | Path) -> Imatrix:
    """Reads an imatrix file in GGUF format, of llama-imatrix or of `save_imatrix`.

    Raises FileNotFoundError if there is no such file, and ValueError if it is damaged, is not an imatrix, or holds
    sums that are infinite or NaN. The older format, `.dat`, is not read: llama-imatrix converts it with
    `-m MODEL --in-file old.dat -o new.gguf`.
    Source: common_imatrix_load in common/imatrix-loader.cpp of llama.cpp.

    >>> load_imatrix("none.gguf")
    Traceback (most recent call last):
    FileNotFoundError: none.gguf does not exist
    """
    path = Path(path)
    metadata, tensors = read_gguf(path)
    try:
        return Imatrix(
            entries=read_entries(tensors),
            chunk_count=count(metadata, "imatrix.chunk_count"),
            chunk_size=count(metadata, "imatrix.chunk_size"),
            datasets=tuple(metadata.get("imatrix.datasets", ())),
            sketch=calibration_sketch(metadata),
            file=str(path),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_entries(tensors: Mapping[str, ReaderTensor]) -> dict[str, Entry]:
    names = [name.removesuffix(SUMS) for name in tensors if name.endswith(SUMS)]
    if not names:
        raise ValueError(f"it is not an imatrix: none of its {len(tensors)} tensors is called NAME{SUMS}")
    return {name: read_entry(tensors, name) for name in names}


def read_entry(tensors: Mapping[str, ReaderTensor], name: str) -> Entry:
    if name + COUNTS not in tensors:
        raise ValueError(f"the tensor {name}{COUNTS} is missing")
    sums, counts = (matrix(tensors[name + suffix]) for suffix in (SUMS, COUNTS))
    if not bool(counts.isfinite().all()):
        raise ValueError(f"{name}: a count is NaN or infinite")
    if counts.numel() == 0 or sums.numel() % counts.numel():
        raise ValueError(f"{name}: {sums.numel()} sums are no {counts.numel()} rows, one for each count")
    return Entry(sums.reshape(counts.numel(), -1), counts.flatten().round().long())


def matrix(tensor: ReaderTensor) -> Tensor:
    if tensor.tensor_type != gguf.GGMLQuantizationType.F32:
        raise ValueError(f"{tensor.name} has type {tensor.tensor_type.name}, not F32")
    return torch.from_numpy(np.array(tensor.data))


def count(metadata: Mapping[str, Any], key: str) -> int:
    value = metadata.get(key)
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{key} is {value!r}, not a number of tokens or windows")
    return value
