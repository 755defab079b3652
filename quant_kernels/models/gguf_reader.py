"""Opens a GGUF file of any architecture with the `gguf` package, and refuses what is damaged.

The file is memory-mapped: only its header is read, tensors stay in the file until somebody looks at them.
"""

from __future__ import annotations

import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from gguf import GGUFValueType as Kind
from gguf.gguf_reader import ReaderField, ReaderTensor

LEAST_PAIR, LEAST_TENSOR = 13, 24  # bytes in the header: a key-value pair and a tensor with names of no letters


class UnknownType(ValueError):
    """A tensor has a type that the gguf package does not know."""


def check_file(path: Path) -> None:
    """Raises FileNotFoundError or ValueError for a path that is no GGUF file of a supported version."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not path.is_file():
        raise ValueError(f"{path} is not a file but a {'directory' if path.is_dir() else 'device or pipe'}")
    with path.open("rb") as file:
        magic, gguf_version = file.read(4), int.from_bytes(file.read(4), "little")
    if not magic:
        raise ValueError(f"{path} is not a GGUF file: it is empty")
    if magic != b"GGUF":
        raise ValueError(f"{path} is not a GGUF file: it begins with {magic!r}, not b'GGUF'")
    if gguf_version not in (2, 3):
        raise ValueError(f"{path} has GGUF version {gguf_version}; supported: 2 and 3, little-endian")


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, ReaderTensor]]:
    """Returns the key-value pairs and the tensors, still quantized and in the file.

    Raises FileNotFoundError or ValueError, which name the file and what is wrong with it.
    """
    check_file(path)
    try:
        reader = StrictReader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except UnknownType as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # the reader meets damage with KeyError, OverflowError, UnicodeDecodeError ...
        raise ValueError(f"{path} is damaged or truncated ({path.stat().st_size} bytes): {error}") from error
    return metadata, {tensor.name: tensor for tensor in reader.tensors}


class StrictReader(gguf.GGUFReader):
    """The reader of gguf, which goes on with less than was asked for, or counts for ever, where a file is damaged."""

    def _get(self, offset, dtype, count=1, override_order=None):
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if end > len(self.data):
            raise ValueError(f"its contents go on up to byte {end}")
        return np.frombuffer(self.data, dtype, int(count), int(offset))

    def _get_field_parts(self, orig_offs, raw_type):
        """As gguf's, without an array for each number and each length, which takes seconds for a vocabulary."""
        if raw_type != Kind.ARRAY:
            return super()._get_field_parts(orig_offs, int(raw_type))
        item_type, length = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
        dtype, start = self.gguf_scalar_to_np.get(item_type[0]), orig_offs + 12
        if dtype:
            values = [self._get(start, dtype, length[0])]
            end = start + values[0].nbytes
        elif item_type[0] == Kind.STRING:
            values, end = self._get_strings(start, length[0])
        else:
            raise ValueError(f"an array at byte {orig_offs} has items of type {item_type[0]}")
        indices = list(range(2, 2 + len(values)))
        return end - orig_offs, [item_type, length, *values], indices, [Kind.ARRAY, Kind(item_type[0])]

    def _get_strings(self, offs, count):
        strings = []
        for _ in range(count):
            length, string = self._get_str(offs)
            strings.append(string)
            offs += length.nbytes + string.nbytes
        return strings, offs

    def _build_fields(self, offs, count):
        self._check_count(count, LEAST_PAIR, "key-value pairs")
        return super()._build_fields(offs, count)

    def _build_tensor_info(self, offs, count):
        self._check_count(count, LEAST_TENSOR, "tensors")
        return super()._build_tensor_info(offs, count)

    def _check_count(self, count, least, what):
        if count > len(self.data) // least:
            raise ValueError(f"{count} {what} do not fit in it")

    def _build_tensors(self, start_offs, fields):
        for field in fields:
            self._check_tensor(field, int(start_offs))
        super()._build_tensors(start_offs, fields)

    def _check_tensor(self, field: ReaderField, start: int) -> None:
        """Computes in Python's integers, which do not overflow, where the tensor ends."""
        _, _, _, dims, number, offset = field.parts
        try:
            qtype = GGMLQuantizationType(int(number[0]))
        except ValueError:
            known = f"gguf {version('gguf')}"
            raise UnknownType(f"{field.name} has type {number[0]}, which {known} does not know") from None
        block_size, type_size = gguf.GGML_QUANT_SIZES[qtype]
        end = start + int(offset[0]) + math.prod(dims.tolist()) * type_size // block_size
        if end > len(self.data):
            raise ValueError(f"the tensor {field.name} goes on up to byte {end}")
