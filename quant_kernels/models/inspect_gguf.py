"""What a GGUF file of any architecture holds, read from its header alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
from gguf.gguf_reader import ReaderTensor

from quant_kernels.models.gguf_reader import read_gguf

COUNTS = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count")  # what gguf puts among the key-value pairs
FIRST_ITEMS = 4  # of an array, for JSON


@dataclass(frozen=True)
class Share:
    """Weights that are stored in so many bytes: a tensor, all tensors of a type, or all of a file."""

    n_weights: int
    n_bytes: int

    @property
    def bits_per_weight(self) -> float | None:
        return 8 * self.n_bytes / self.n_weights if self.n_weights else None


@dataclass(frozen=True)
class TensorInfo(Share):
    """A tensor as the header describes it; `shape` is torch's, (rows, columns), the reverse of the file's."""

    name: str
    shape: tuple[int, ...]
    qtype: str


@dataclass(frozen=True)
class TypeShare(Share):
    """All tensors of a type."""

    qtype: str
    n_tensors: int


@dataclass(frozen=True)
class Contents(Share):
    """What `inspect_gguf` found. `metadata` are the key-value pairs, in the file's order as are the tensors."""

    path: Path
    file_bytes: int
    version: int
    metadata: dict[str, Any]
    tensors: list[TensorInfo]

    @property
    def file_type(self) -> str | None:
        """The mix of types that the file says it was made with, such as "mostly Q4_K_M"."""
        number = self.metadata.get("general.file_type")
        try:
            kind, _, mix = gguf.LlamaFileType(number).name.partition("_")
        except ValueError:
            return None if number is None else f"unknown ({number})"
        return f"{kind.lower()} {mix}".strip()

    def by_type(self) -> list[TypeShare]:
        """The types of the tensors, the one with most bytes first."""
        groups: dict[str, list[TensorInfo]] = {}
        for tensor in self.tensors:
            groups.setdefault(tensor.qtype, []).append(tensor)
        shares = [TypeShare(*totals(group), qtype, len(group)) for qtype, group in groups.items()]
        return sorted(shares, key=lambda share: -share.n_bytes)


def inspect_gguf(path: str | Path) -> Contents:
    """Reads the header of a GGUF file: its key-value pairs, and name, shape, type and size of each tensor.

    The file is memory-mapped and its tensors are not read. Sizes are those of the `gguf` package's table, exact
    integers in bytes. Raises FileNotFoundError if there is no such file, and ValueError if it is not a GGUF, is damaged
    or truncated, or has a tensor of a type that `gguf` does not know. Format: the GGUF specification, versions 2 and 3.

    >>> import numpy as np, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "small.gguf")
    >>> writer = gguf.GGUFWriter(path, "llama")
    >>> writer.add_tensor("output.weight", gguf.quantize(np.ones((4, 64), "f4"), gguf.GGMLQuantizationType.Q4_0),
    ...                   raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    >>> writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()
    >>> contents = inspect_gguf(path)
    >>> contents.tensors  # 8 blocks of 32 weights and 18 bytes
    [TensorInfo(n_weights=256, n_bytes=144, name='output.weight', shape=(4, 64), qtype='Q4_0')]
    >>> contents.bits_per_weight, contents.metadata
    (4.5, {'general.architecture': 'llama'})
    """
    path = Path(path)
    pairs, tensors = read_gguf(path)
    infos = [describe(tensor) for tensor in tensors.values()]
    version = pairs["GGUF.version"]
    metadata = {key: value for key, value in pairs.items() if key not in COUNTS}
    return Contents(*totals(infos), path, path.stat().st_size, version, metadata, infos)


def describe(tensor: ReaderTensor) -> TensorInfo:
    shape = tuple(tensor.shape.tolist()[::-1])
    return TensorInfo(math.prod(shape), int(tensor.n_bytes), tensor.name, shape, tensor.tensor_type.name)


def totals(shares: list[TensorInfo]) -> tuple[int, int]:
    return sum(share.n_weights for share in shares), sum(share.n_bytes for share in shares)


def as_json(contents: Contents) -> dict[str, Any]:
    """Everything as what JSON knows: arrays of the metadata as their length and first items, NaN and Inf as null."""
    return {
        "path": str(contents.path),
        "file_bytes": contents.file_bytes,
        "version": contents.version,
        "architecture": contents.metadata.get("general.architecture"),
        "name": contents.metadata.get("general.name"),
        "file_type": contents.file_type,
        "n_pairs": len(contents.metadata),
        "n_tensors": len(contents.tensors),
        **sizes(contents),
        "types": [{"type": share.qtype, "n_tensors": share.n_tensors, **sizes(share)} for share in contents.by_type()],
        "tensors": [
            {"name": tensor.name, "shape": tensor.shape, "type": tensor.qtype, **sizes(tensor)}
            for tensor in contents.tensors
        ],
        "metadata": {key: json_value(value) for key, value in contents.metadata.items()},
    }


def sizes(share: Share) -> dict[str, int | float | None]:
    return {"n_weights": share.n_weights, "n_bytes": share.n_bytes, "bits_per_weight": share.bits_per_weight}


def json_value(value: Any) -> Any:
    if isinstance(value, list):
        return {"length": len(value), "first": [json_value(item) for item in value[:FIRST_ITEMS]]}
    return None if isinstance(value, float) and not math.isfinite(value) else value
