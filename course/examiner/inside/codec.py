"""Values that cross the border between the examiner and a candidate's process.

By value: None, Ellipsis, bool, int, float, complex, str, bytes, list, tuple, named tuple, set, frozenset, dict, range,
slice, Fraction, Decimal, numpy arrays and scalars, torch tensors, dtypes and devices. A subclass crosses as what it is
a subclass of. Every other object crosses as a handle: a few plain values by which its owner finds it again.

A message's head is msgpack, in which a list that begins with a tag stands for what msgpack has no form for. Large data
is not in the head but in buffers, each of which belongs to one value. Decoding runs no code of the sender's, makes no
copy of the buffers, and takes no more memory than some multiple of the head that arrived.
"""

import collections
import functools
import math
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import msgpack
import numpy as np

from .channel import MAX_BUFFERS, MAX_HEAD, Message

TAGS = ("tuple", "named tuple", "set", "frozenset", "complex", "range", "slice", "ellipsis", "fraction", "decimal")
TAGS += ("array", "scalar", "tensor", "dtype", "device", "handle")
INT = len(TAGS)  # the extension type of integers of more than 64 bits; those below are tags
INLINE_BYTES = 4096  # data of fewer bytes stands in the head
NUMPY_DTYPE = re.compile(r"[<>|=]?[biufcSU]\d{1,6}")
FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
DEVICE = re.compile(r"[a-z]{1,20}(:\d{1,3})?")
MAX_INT_BYTES = 1 << 16
MAX_RANGE = 1 << 24  # numbers in a range, which takes no memory until somebody lists them
MAX_CONTAINERS = 1 << 20  # lists, tuples, sets and dicts in a value
MAX_NAMED_TUPLES = 64  # kinds of them in a value, and fields in each
MAX_DIGITS = 1_000  # of a Decimal, its exponent, a Fraction's numerator and denominator
LARGE = 10**MAX_DIGITS
TENSOR_DTYPES = {"bool", "bfloat16", "float16", "float32", "float64", "complex64", "complex128"}
TENSOR_DTYPES |= {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
TENSOR_DTYPES |= {f"float8_{kind}" for kind in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e8m0fnu")}


class CannotCross(TypeError):
    """A value that has no form on the other side."""


class BadMessage(ValueError):
    """A message that holds no value of this format."""


class Tag:
    """Marks a list in the head as the parts of something else."""

    def __init__(self, name: str):
        self.name = name
        self.packed = msgpack.ExtType(TAGS.index(name), b"")


TAG_OF = {name: Tag(name) for name in TAGS}


def encode(value: object, give: Callable[[object], list] | None = None) -> Message:
    """The message for a value; `give` makes the handle of an object that cannot cross by value.

    Raises CannotCross, with the reason.
    """
    encoder = Encoder(give or _no_handles)
    try:
        head = msgpack.packb(value, default=encoder.extend, strict_types=True, use_bin_type=True)
    except UnicodeEncodeError as error:
        raise CannotCross(f"a string that is not valid Unicode cannot be compared by value: {error}") from None
    except (RecursionError, msgpack.PackValueError):
        raise CannotCross("a value that contains itself, or is nested too deep, cannot be passed by value") from None
    if len(head) > MAX_HEAD:
        raise CannotCross(
            f"lists, strings and numbers of {len(head):,} bytes are over the limit of {MAX_HEAD:,}; "
            "pass large data as tensors or arrays"
        )
    return Message(head, encoder.buffers)


def decode(message: Message, take: Callable[..., object] | None = None) -> object:
    """The value in a message; `take` is given the parts of each handle. Raises BadMessage where there is no value."""
    decoder = Decoder(message.buffers, take)
    try:
        value = msgpack.unpackb(
            message.head,
            ext_hook=decoder.extension,
            list_hook=decoder.sequence,
            object_hook=decoder.count,
            strict_map_key=False,
            raw=False,
        )
    except BadMessage:
        raise
    except Exception as error:  # whatever a hostile sender provokes in the decoder is the sender's fault
        raise BadMessage(f"not a value of this format: {type(error).__name__}: {str(error)[:200]}") from None
    if decoder.open_tags:
        raise BadMessage("a tag that begins no list")
    return value


def _no_handles(value: object) -> list:
    raise CannotCross(f"a value of type {type(value).__name__} cannot be passed by value")


class Encoder:
    """What msgpack asks for values that it has no form for; collects the buffers."""

    def __init__(self, give: Callable[[object], list]):
        self.give = give
        self.buffers: list[memoryview] = []

    def extend(self, value: object) -> object:
        """Something that msgpack can pack in the value's place."""
        kind = type(value)  # an object may lie about its __class__
        if kind is tuple:
            return _tagged("tuple", *value)
        if issubclass(kind, np.ndarray | np.generic):
            return self.array(value)
        for base, simple in SIMPLE.items():
            if issubclass(kind, base):
                return simple(value)
        return self.of_torch(value) or _tagged("handle", *self.give(value))

    def of_torch(self, value: object) -> list | None:
        torch = sys.modules.get("torch")
        if torch is None:
            return None
        if issubclass(type(value), torch.Tensor):
            return self.tensor(value)
        if isinstance(value, torch.dtype):
            return _tagged("dtype", str(value).removeprefix("torch."))
        return _tagged("device", str(value)) if isinstance(value, torch.device) else None

    def tensor(self, tensor) -> list:
        torch = sys.modules["torch"]
        name = str(tensor.dtype).removeprefix("torch.")
        if tensor.layout is not torch.strided or tensor.device.type == "meta" or name not in _tensor_dtypes():
            raise CannotCross(
                f"a {tensor.layout} tensor of {name} on {tensor.device} cannot be passed by value; return a dense one"
            )
        dense = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
        flat = dense.as_strided((dense.numel(),), (1,))  # a dimension of 1 may have any stride, reshaped too
        return _tagged("tensor", name, list(tensor.shape), self.put(memoryview(flat.view(torch.uint8).numpy())))

    def array(self, value: np.ndarray | np.generic) -> list:
        array = np.asarray(value)
        if not NUMPY_DTYPE.fullmatch(array.dtype.str):
            raise CannotCross(
                f"an array of dtype {array.dtype} cannot be passed by value; use numbers, booleans or strings"
            )
        data = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8)) if array.nbytes else memoryview(b"")
        tag = "array" if issubclass(type(value), np.ndarray) else "scalar"
        return _tagged(tag, array.dtype.str, list(array.shape), self.put(data))

    def put(self, data: memoryview) -> int | bytes:
        """The data itself if there is little of it, else the number of the buffer that it becomes."""
        if len(data) < INLINE_BYTES or len(self.buffers) == MAX_BUFFERS:
            return bytes(data)
        self.buffers.append(data)
        return len(self.buffers) - 1


def _tagged(name: str, *parts: object) -> list:
    return [TAG_OF[name].packed, *parts]


def _int(value: int) -> int | msgpack.ExtType:
    value = int(value)
    if -(1 << 63) <= value < 1 << 64:
        return value
    size = value.bit_length() // 8 + 1
    if size > MAX_INT_BYTES:
        raise CannotCross(f"an integer of {size} bytes is over the limit of {MAX_INT_BYTES}")
    return msgpack.ExtType(INT, value.to_bytes(size, "big", signed=True))


def _tuple(value: tuple) -> list:
    kind = type(value)
    fields = getattr(kind, "_fields", getattr(kind, "__match_args__", ()))  # the latter of torch.return_types
    name = kind.__name__
    named = len(fields) == len(value) and FIELD.fullmatch(name) and all(map(FIELD.fullmatch, fields))
    if not named or len(fields) > MAX_NAMED_TUPLES:
        return _tagged("tuple", *value)
    return _tagged("named tuple", name, list(fields), *value)


def _range(value: range) -> list:
    if value[MAX_RANGE:]:
        raise CannotCross(f"a range of more than {MAX_RANGE:,} numbers cannot be passed by value; return its bounds")
    return _tagged("range", value.start, value.stop, value.step)


def _fraction(value: Fraction) -> list:
    return _tagged("fraction", *(_few_digits(part, abs(part) < LARGE) for part in value.as_integer_ratio()))


def _decimal(value: Decimal) -> list:
    return _tagged("decimal", _few_digits(str(value), _is_simple(value)))


def _few_digits(part: object, few: bool) -> object:
    if not few:
        raise CannotCross(f"a Fraction or Decimal of more than {MAX_DIGITS} digits cannot be passed by value")
    return part


def _is_simple(value: Decimal) -> bool:
    _, digits, exponent = value.as_tuple()
    return len(digits) <= MAX_DIGITS and (isinstance(exponent, str) or abs(exponent) <= MAX_DIGITS)


SIMPLE: dict[type, Callable] = {  # base -> what stands for its instances in the head
    int: _int,
    float: float,
    str: str,
    bytes: bytes,
    list: list,
    dict: dict,
    tuple: _tuple,
    set: lambda value: _tagged("set", *value),
    frozenset: lambda value: _tagged("frozenset", *value),
    complex: lambda value: _tagged("complex", value.real, value.imag),
    range: _range,
    slice: lambda value: _tagged("slice", value.start, value.stop, value.step),
    type(Ellipsis): lambda value: _tagged("ellipsis"),
    Fraction: _fraction,
    Decimal: _decimal,
}


class Decoder:
    """Builds values from what msgpack finds; distrusts all of it."""

    def __init__(self, buffers: list[memoryview], take: Callable[..., object] | None):
        self.buffers: list[memoryview | None] = list(buffers)
        self.take = take
        self.containers = 0
        self.open_tags = 0
        self.named_tuples: set[type] = set()

    def extension(self, code: int, payload: bytes) -> object:
        if code == INT:
            _require(len(payload) <= MAX_INT_BYTES, f"an integer of {len(payload)} bytes is over {MAX_INT_BYTES}")
            return int.from_bytes(payload, "big", signed=True)
        _require(0 <= code < len(TAGS) and not payload, f"unknown extension type {code}")
        self.open_tags += 1
        return TAG_OF[TAGS[code]]

    def count(self, container: object) -> object:
        self.containers += 1
        if self.containers > MAX_CONTAINERS:
            raise BadMessage(f"over {MAX_CONTAINERS:,} lists, tuples and dicts; pass large data as tensors or arrays")
        return container

    def sequence(self, items: list) -> object:
        self.count(items)
        if not items or type(items[0]) is not Tag:
            return items
        self.open_tags -= 1
        return RESTORE[items[0].name](self, *items[1:])

    def data(self, part: object) -> memoryview | bytearray:
        """The data that a part is, or that it is the number of; no buffer is given out twice."""
        if type(part) is bytes:
            return bytearray(part)
        _require(type(part) is int and 0 <= part < len(self.buffers), f"no buffer {part!r:.100}")
        data, self.buffers[part] = self.buffers[part], None
        _require(data is not None, f"buffer {part} is used twice")
        return data

    def named_tuple(self, name: str, fields: list, *values: object) -> tuple:
        few = len(fields) <= MAX_NAMED_TUPLES
        _require(few and all(FIELD.fullmatch(part) for part in (name, *fields)), "bad names of a named tuple")
        kind = _named_tuple_class(name, tuple(fields))
        self.named_tuples.add(kind)
        _require(len(self.named_tuples) <= MAX_NAMED_TUPLES, f"over {MAX_NAMED_TUPLES} kinds of named tuples")
        return kind(*values)

    def array(self, name: str, shape: list, part: object) -> np.ndarray:
        _require(type(name) is str and NUMPY_DTYPE.fullmatch(name), f"unknown numpy dtype {name!r:.100}")
        dtype, data = np.dtype(name), self.data(part)
        _check_size(shape, dtype.itemsize, data)
        if not data:
            return np.empty(shape, dtype)
        if dtype.kind == "b":  # any byte other than 0 and 1 would be undefined behaviour
            return (np.frombuffer(data, np.uint8) != 0).reshape(shape)
        if dtype.kind == "U":
            _require(np.frombuffer(data, name[0] + "u4").max() <= sys.maxunicode, "a character that is none")
        return np.frombuffer(data, dtype).reshape(shape)

    def scalar(self, name: str, shape: list, part: object) -> np.generic:
        _require(shape == [], "a scalar with a shape")
        return self.array(name, shape, part)[()]

    def tensor(self, name: str, shape: list, part: object):
        import torch

        dtype, data = _tensor_dtypes().get(name), self.data(part)
        _require(dtype is not None, f"unknown torch dtype {name!r:.100}")
        _check_size(shape, dtype.itemsize, data)
        if not data:
            return torch.empty(shape, dtype=dtype)
        flat = torch.frombuffer(data, dtype=torch.uint8)
        flat = flat.ne_(0) if dtype is torch.bool else flat  # see `array`
        return flat.view(dtype).reshape(shape)

    def handle(self, *parts: object) -> object:
        _require(self.take is not None, "a handle where none is expected")
        return self.take(*parts)


def _range_of(decoder: Decoder, *bounds: int) -> range:
    found = range(*bounds)
    _require(not found[MAX_RANGE:], f"a range of more than {MAX_RANGE:,} numbers")
    return found


def _fraction_of(decoder: Decoder, numerator: int, denominator: int) -> Fraction:
    _require(max(abs(numerator), abs(denominator)) < LARGE, f"a Fraction of more than {MAX_DIGITS} digits")
    return Fraction(numerator, denominator)


def _decimal_of(decoder: Decoder, text: str) -> Decimal:
    _require(type(text) is str and len(text) <= 2 * MAX_DIGITS and _is_simple(found := Decimal(text)), "a bad Decimal")
    return found


def _dtype_of(decoder: Decoder, name: str) -> object:
    import torch

    _require(name in _torch_dtypes(torch), f"unknown torch dtype {name!r:.100}")
    return _torch_dtypes(torch)[name]


def _device_of(decoder: Decoder, text: str) -> object:
    import torch

    _require(DEVICE.fullmatch(text), f"unknown torch device {text!r:.100}")
    return torch.device(text)


RESTORE: dict[str, Callable[..., object]] = {
    "tuple": lambda decoder, *items: items,
    "named tuple": Decoder.named_tuple,
    "set": lambda decoder, *items: set(items),
    "frozenset": lambda decoder, *items: frozenset(items),
    "complex": lambda decoder, real, imaginary: complex(real, imaginary),
    "range": _range_of,
    "slice": lambda decoder, *bounds: slice(*bounds),
    "ellipsis": lambda decoder: Ellipsis,
    "fraction": _fraction_of,
    "decimal": _decimal_of,
    "array": Decoder.array,
    "scalar": Decoder.scalar,
    "tensor": Decoder.tensor,
    "dtype": _dtype_of,
    "device": _device_of,
    "handle": Decoder.handle,
}


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise BadMessage(otherwise)


def _check_size(shape: list, itemsize: int, data: memoryview | bytearray) -> None:
    plain = type(shape) is list and all(type(n) is int and n >= 0 for n in shape)
    _require(plain and len(shape) <= 32, f"bad shape {shape!r:.100}")
    size = math.prod(shape) * itemsize
    _require(size == len(data), f"shape {shape} of {itemsize}-byte items does not fit {len(data)} bytes")
    _require(itemsize or math.prod(shape) <= 1, f"shape {shape} of empty items")


@functools.lru_cache(maxsize=256)
def _named_tuple_class(name: str, fields: tuple[str, ...]) -> type:
    return collections.namedtuple(name, fields)


def _tensor_dtypes() -> dict:
    """name -> torch dtype, of those whose tensors cross."""
    return {name: dtype for name, dtype in _torch_dtypes(sys.modules["torch"]).items() if name in TENSOR_DTYPES}


@functools.cache
def _torch_dtypes(torch) -> dict:
    return {
        str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)
    }
