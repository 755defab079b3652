"""Values that cross the border between the examiner and a candidate's process, as bytes (msgpack).

Only plain data crosses, by value: None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict,
range, slice, numpy arrays and scalars, torch tensors and dtypes. A function crosses as a number that its owner
can look up.
Decoding runs no code of the sender's and allocates no more than the bytes that arrived.
"""

import math
import re
import sys
from collections.abc import Callable

import msgpack
import numpy as np

TUPLE, SET, FROZENSET, COMPLEX, INT, RANGE, SLICE, ARRAY, SCALAR, TENSOR, DTYPE, FUNCTION = range(1, 13)
NUMPY_DTYPE = re.compile(r"[<>|=]?[biufcSU]\d{1,6}")
MAX_INT_BYTES = 1 << 16


class CannotCross(TypeError):
    """A value that has no form on the other side."""


class BadMessage(ValueError):
    """Bytes that are no value of this format."""


def encode(value: object, function_number: Callable[[Callable], int] | None = None) -> bytes:
    """Bytes of a value; `function_number` gives the number under which a function crosses."""

    def extend(value):
        return _extend(value, lambda part: encode(part, function_number), function_number)

    try:
        return msgpack.packb(value, default=extend, strict_types=True, use_bin_type=True)
    except UnicodeEncodeError as error:
        raise CannotCross(f"a string that is not valid Unicode cannot be compared by value: {error}") from None
    except (RecursionError, msgpack.PackValueError):
        raise CannotCross("a value that contains itself, or is nested too deep, cannot be passed by value") from None


def decode(data: bytes, function: Callable[[int], object] | None = None) -> object:
    """The value of bytes from `encode`; `function` makes the stand-in for a function's number."""

    def restore(code: int, payload: bytes) -> object:
        return _restore(code, payload, lambda part: decode(part, function), function)

    try:
        return msgpack.unpackb(data, ext_hook=restore, strict_map_key=False, raw=False)
    except BadMessage:
        raise
    except Exception as error:  # whatever a hostile sender provokes in the decoder is the sender's fault
        raise BadMessage(f"not a value of this format: {type(error).__name__}: {error}") from None


def _extend(value, pack, function_number) -> msgpack.ExtType | object:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return msgpack.ExtType(TENSOR, pack(_tensor_parts(value)))
    if torch is not None and isinstance(value, torch.dtype):
        return msgpack.ExtType(DTYPE, pack(str(value).removeprefix("torch.")))
    if isinstance(value, np.ndarray | np.generic):
        code = ARRAY if isinstance(value, np.ndarray) else SCALAR
        return msgpack.ExtType(code, pack(_array_parts(np.asarray(value))))
    if isinstance(value, bool | np.bool):
        return bool(value)
    if isinstance(value, int):
        return _int(int(value))
    for base in (float, str, bytes, list, dict):
        if isinstance(value, base) and type(value) is not base:
            return base(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    for code, base in ((TUPLE, tuple), (SET, set), (FROZENSET, frozenset)):
        if isinstance(value, base):
            return msgpack.ExtType(code, pack(list(value)))
    if isinstance(value, complex):
        return msgpack.ExtType(COMPLEX, pack([value.real, value.imag]))
    if isinstance(value, range | slice):
        code = RANGE if isinstance(value, range) else SLICE
        return msgpack.ExtType(code, pack([value.start, value.stop, value.step]))
    if callable(value) and not isinstance(value, type) and function_number is not None:
        return msgpack.ExtType(FUNCTION, pack(function_number(value)))
    raise CannotCross(
        f"a value of type {type(value).__name__} cannot be passed by value; "
        "return tensors, arrays, numbers, strings, or lists, tuples and dicts of them"
    )


def _int(value: int) -> int | msgpack.ExtType:
    if -(1 << 63) <= value < 1 << 64:
        return value
    size = value.bit_length() // 8 + 1
    if size > MAX_INT_BYTES:
        raise CannotCross(f"an integer of {size} bytes is over the limit of {MAX_INT_BYTES}")
    return msgpack.ExtType(INT, value.to_bytes(size, "big", signed=True))


def _tensor_parts(tensor) -> list:
    torch = sys.modules["torch"]
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise CannotCross(f"a {tensor.layout} tensor on {tensor.device} cannot be passed by value; return a dense one")
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    return [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), flat.view(torch.uint8).numpy().tobytes()]


def _array_parts(array: np.ndarray) -> list:
    if not NUMPY_DTYPE.fullmatch(array.dtype.str):
        raise CannotCross(
            f"an array of dtype {array.dtype} cannot be passed by value; use numbers, booleans or strings"
        )
    return [array.dtype.str, list(array.shape), array.tobytes()]


def _restore(code: int, payload: bytes, unpack, function) -> object:
    if code == INT:
        if len(payload) > MAX_INT_BYTES:
            raise BadMessage(f"an integer of {len(payload)} bytes is over the limit of {MAX_INT_BYTES}")
        return int.from_bytes(payload, "big", signed=True)
    parts = unpack(payload)
    if code == TENSOR:
        return _tensor(*parts)
    if code in (ARRAY, SCALAR):
        array = _array(*parts)
        return array if code == ARRAY else array[()]
    if code == DTYPE:
        return _torch_dtype(parts)
    if code == FUNCTION and function is not None and type(parts) is int:
        return function(parts)
    containers = {TUPLE: tuple, SET: set, FROZENSET: frozenset}
    if code in containers:
        return containers[code](parts)
    starred = {COMPLEX: complex, RANGE: range, SLICE: slice}
    if code in starred:
        return starred[code](*parts)
    raise BadMessage(f"unknown extension type {code}")


def _check_size(shape: list, itemsize: int, data: bytes) -> None:
    if not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 32:
        raise BadMessage(f"bad shape {shape}")
    if math.prod(shape) * itemsize != len(data):
        raise BadMessage(f"shape {shape} of {itemsize}-byte items does not fit {len(data)} bytes")


def _torch_dtype(name: str):
    import torch

    dtype = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(dtype, torch.dtype):
        raise BadMessage(f"unknown torch dtype {name!r}")
    return dtype


def _tensor(name: str, shape: list, data: bytes):
    import torch

    dtype = _torch_dtype(name)
    _check_size(shape, dtype.itemsize, data)
    if not data:
        return torch.empty(shape, dtype=dtype)
    flat = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    if dtype is torch.bool:  # any byte other than 0 and 1 would be undefined behaviour
        return (flat != 0).reshape(shape)
    return flat.view(dtype).reshape(shape)


def _array(name: str, shape: list, data: bytes) -> np.ndarray:
    if not isinstance(name, str) or not NUMPY_DTYPE.fullmatch(name):
        raise BadMessage(f"unknown numpy dtype {name!r}")
    dtype = np.dtype(name)
    _check_size(shape, dtype.itemsize, data)
    if dtype.kind == "b":
        return (np.frombuffer(data, dtype=np.uint8) != 0).reshape(shape)
    return np.frombuffer(bytearray(data), dtype=dtype).reshape(shape)
