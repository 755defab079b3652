"""What crosses the border, what does not, and what a hostile sender can do to the decoder."""

import contextlib
import math
import random
from collections import Counter, OrderedDict, defaultdict, namedtuple
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course.examiner.inside import codec
from course.examiner.inside.channel import MAX_BUFFERS, Message
from course.examiner.inside.codec import INLINE_BYTES, MAX_RANGE, TAGS, BadMessage, CannotCross, decode, encode

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
simple = scalars | st.fractions() | st.decimals(allow_nan=False) | st.complex_numbers(allow_nan=False)
values = st.recursive(
    simple,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)
Pair = namedtuple("Pair", "bits count")


@given(values)
def test_plain_data_comes_back_equal_and_of_the_same_type(value):
    back = decode(encode(value))
    assert back == value
    assert type(back) is type(value)


OTHERS = [{1, 2}, frozenset("ab"), 1 + 2j, range(2, 9, 3), slice(1, None), ..., 10**300, -(2**70), Fraction(1, 3)]
OTHERS += [Decimal("1.50"), Decimal("-Infinity"), torch.float16, torch.device("cuda:1"), {(1, (2,)): {3}}, [[], [[]]]]


@pytest.mark.parametrize("value", OTHERS, ids=lambda value: type(value).__name__)
def test_other_values_come_back(value):
    back = decode(encode(value))
    assert back == value and type(back) is type(value)


def test_nan_and_negative_zero_are_kept():
    nan, zero = decode(encode([math.nan, -0.0]))
    assert math.isnan(nan) and math.copysign(1, zero) == -1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.int64, torch.bool, torch.cfloat])
@pytest.mark.parametrize("shape", [(), (0,), (3, 4), (2, 0, 5), (100, 100)])
def test_tensors_keep_dtype_shape_and_bits(dtype, shape):
    tensor = (torch.randn(shape) * 3).to(dtype)
    back = decode(encode(tensor))
    assert back.dtype is dtype and back.shape == tensor.shape and torch.equal(back, tensor)


@pytest.mark.parametrize("stride", [(32, 32, 32), (5, 7, 1), (0, 0, 0), (1, 1, 9)])
@pytest.mark.parametrize("offset", [0, 3])
def test_a_dimension_of_one_may_have_any_stride(stride, offset):
    odd = torch.arange(8.0).as_strided((1, 1, 1), stride, offset)
    assert torch.equal(decode(encode(odd)), torch.full((1, 1, 1), float(offset)))
    column = torch.arange(8.0).as_strided((4, 1), (1, 64), offset)
    assert torch.equal(decode(encode(column)), column)


def test_eight_bit_floats_keep_their_bits():
    tensor = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    assert torch.equal(decode(encode(tensor)).view(torch.uint8), tensor.view(torch.uint8))


def test_views_and_parameters_cross_as_plain_tensors():
    base = torch.arange(24.0).reshape(4, 6)
    parameter = torch.nn.Parameter(base)
    assert torch.equal(decode(encode(base.T[::2])), base.T[::2])
    assert type(decode(encode(parameter))) is torch.Tensor


def test_arrays_and_their_scalars_keep_dtype():
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    back = decode(encode([array, np.float32(1.5), np.array(["ab", "c"]), np.array([True, False]), np.str_("")]))
    assert back[0].dtype == np.int16 and (back[0] == array).all()
    assert back[1] == 1.5 and type(back[1]) is np.float32
    assert back[2].tolist() == ["ab", "c"] and back[3].tolist() == [True, False] and back[4] == ""
    turned = np.arange(6000.0).reshape(60, 100).T
    assert (decode(encode(turned)) == turned).all()


def test_large_data_is_not_copied_into_the_head_and_small_data_is():
    tensor, array = torch.zeros(INLINE_BYTES, dtype=torch.uint8), np.zeros(INLINE_BYTES, np.uint8)
    head, buffers = encode([tensor, array, tensor[1:]])
    assert len(head) < INLINE_BYTES + 200 and [len(buffer) for buffer in buffers] == [INLINE_BYTES] * 2
    tensor[5] = array[6] = 7
    assert (buffers[0][5], buffers[1][6]) == (7, 7)  # they are the tensor's own memory
    received = [memoryview(bytearray(buffer)) for buffer in buffers]
    first, second, _ = decode(Message(head, received))
    received[0][9] = received[1][9] = 8
    assert (first[9], second[9]) == (8, 8)  # and so are the decoder's


def test_the_same_tensor_twice_is_two_tensors_on_the_other_side():
    tensor = torch.zeros(INLINE_BYTES)
    head, buffers = encode([tensor, tensor])
    first, second = decode(Message(head, [memoryview(bytearray(buffer)) for buffer in buffers]))
    first += 1
    assert second.sum() == 0


def test_more_tensors_than_buffers_cross(monkeypatch):
    monkeypatch.setattr(codec, "MAX_BUFFERS", 3)
    tensors = [torch.full((INLINE_BYTES,), float(number)) for number in range(5)]
    message = encode(tensors)
    assert len(message.buffers) == 3 < MAX_BUFFERS
    assert all(torch.equal(*pair) for pair in zip(tensors, decode(message), strict=True))


class Typed(NamedTuple):
    bits: int
    scale: torch.Tensor


def test_named_tuples_keep_their_names():
    back = decode(encode([Pair(4, 2), Typed(3, torch.ones(2)), torch.ones(2, 3).max(0), torch.Size([2, 3])]))
    assert back[0] == (4, 2) and (back[0].bits, back[0].count) == (4, 2) and type(back[0]).__name__ == "Pair"
    assert back[1].bits == 3 and back[2].values.tolist() == [1, 1, 1] and type(back[3]) is tuple
    assert type(decode(encode(Pair(1, 2)))) is type(back[0])
    assert decode(encode(namedtuple("Odd", "a class", rename=True)(1, 2))) == (1, 2)


def test_subclasses_cross_as_their_base_so_that_no_lie_survives():
    class Liar(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    class Listed(list):
        __class__ = int

    assert decode(encode(Liar(5))) != 6
    assert decode(encode([OrderedDict(a=1), defaultdict(int, b=2), Counter("c")])) == [{"a": 1}, {"b": 2}, {"c": 1}]
    assert decode(encode(Listed([1]))) == [1]


class Thing:
    pass


@pytest.mark.parametrize(
    "value, reason",
    [
        (Thing(), "a value of type Thing cannot be passed by value"),
        (Thing, "a value of type type cannot"),
        (np.array([Thing()]), "an array of dtype object"),
        (torch.eye(2).to_sparse(), "sparse"),
        (torch.empty(2, device="meta"), "on meta"),
        ("\udc80", "not valid Unicode"),
        (range(MAX_RANGE + 1), "a range of more than"),
        (Decimal("1e1001"), "more than 1000 digits"),
        (Fraction(1, 10**1000), "more than 1000 digits"),
        pytest.param(1 << 10_000_000, "over the limit", id="huge int"),
        pytest.param(["x" * (1 << 20)] * 17, "pass large data as tensors", id="huge head"),
    ],
)
def test_what_cannot_cross_says_why(value, reason):
    with pytest.raises(CannotCross, match=reason):
        encode(value)


def test_a_value_that_contains_itself_cannot_cross():
    loop = []
    loop.append((loop,))
    with pytest.raises(CannotCross, match="contains itself"):
        encode(loop)


def test_other_objects_cross_as_handles():
    thing = Thing()
    message = encode([thing, (thing,)], {thing: [7, "object", "Thing"]}.__getitem__)
    assert decode(message, lambda *handle: handle) == [(7, "object", "Thing"), ((7, "object", "Thing"),)]
    with pytest.raises(BadMessage, match="a handle where none is expected"):
        decode(message)


def tag(name: str) -> msgpack.ExtType:
    return msgpack.ExtType(TAGS.index(name), b"")


def forged(name: str, *parts: object) -> Message:
    return Message(msgpack.packb([tag(name), *parts]))


TENSOR = [tag("tensor"), "uint8", [4], 0]
HOSTILE = {
    "nothing": Message(b""),
    "no msgpack": Message(b"\xc1"),
    "two values": Message(b"\x01\x02"),
    "a list that claims 2**32 - 1 items": Message(b"\xdd\xff\xff\xff\xff"),
    "a map that claims 2**32 - 1 items": Message(b"\xdf\xff\xff\xff\xff"),
    "deep lists": Message(b"\x91" * 100_000),
    "deep tuples": Message((b"\x92" + msgpack.packb(tag("tuple"))) * 50_000 + b"\xc0"),
    "a tag alone": Message(msgpack.packb(tag("set"))),
    "a tag inside": Message(msgpack.packb([1, tag("set")])),
    "a tag as a key": Message(msgpack.packb({tag("set"): 1})),
    "a tag with a payload": Message(msgpack.packb([msgpack.ExtType(0, b"1")])),
    "an unknown tag": Message(msgpack.packb([msgpack.ExtType(99, b"")])),
    "a negative tag": Message(msgpack.packb([1]).replace(b"\x01", b"\xd4\xfe\x00")),
    "a list as a key": Message(b"\x81\x91\x01\x02"),
    "a huge int": Message(msgpack.packb(msgpack.ExtType(codec.INT, b"1" * 100_000))),
    "a shape that claims much": forged("tensor", "float32", [10**6, 10**6], b"1234"),
    "a shape with large empty sides": forged("tensor", "float32", [0, 2**62, 2**62], b""),
    "a negative shape": forged("tensor", "float32", [-1, -4], b"1234"),
    "a shape of bools": forged("tensor", "uint8", [True], b"1"),
    "a shape that is no list": forged("tensor", "float32", "no list", b"1234"),
    "a dtype that is a function": forged("tensor", "load", [1], b"1234"),
    "a dtype that is quantized": forged("tensor", "quint8", [1], b"1"),
    "a dtype that is a list": forged("tensor", ["uint8"], [1], b"1"),
    "a buffer that is not there": forged("tensor", "uint8", [1], 0),
    "a negative buffer": Message(msgpack.packb([tag("tensor"), "uint8", [4], -1]), [memoryview(b"1234")]),
    "a buffer used twice": Message(msgpack.packb([TENSOR, TENSOR]), [memoryview(bytearray(4))]),
    "data that is a string": forged("tensor", "uint8", [1], "1"),
    "an object array": forged("array", "|O8", [1], b"12345678"),
    "a structured array": forged("array", "<f4,<f4", [1], b"12345678"),
    "an array that claims much": forged("array", "<f4", [2], b"1234"),
    "many strings of no length": forged("array", "<U0", [10**12], b""),
    "a string of no characters": forged("array", "<U1", [1], b"\xff\xff\xff\xff"),
    "a float of 3 bytes": forged("array", "<f3", [1], b"123"),
    "a scalar with a shape": forged("scalar", "<f4", [1], b"1234"),
    "a set of lists": forged("set", [1]),
    "a complex of strings": forged("complex", "a", "b"),
    "a long range": forged("range", 0, 10**15, 1),
    "a range of nothing": forged("range", 0, 1, 0),
    "a fraction by zero": forged("fraction", 1, 0),
    "a fraction of floats": forged("fraction", 1.5, 0.5),
    "a huge exponent": forged("decimal", "1e999999999"),
    "a huge Decimal": forged("decimal", "1" * 100_000),
    "a dtype that is a class": forged("dtype", "Tensor"),
    "a dtype that is none": forged("dtype", [1]),
    "a device that is none": forged("device", "nowhere at all"),
    "a named tuple with code": forged("named tuple", "A", ["x: __import__('os')"], 1),
    "a named tuple with private names": forged("named tuple", "A", ["_replace"], 1),
    "a named tuple with a keyword": forged("named tuple", "A", ["class"], 1),
    "a named tuple with a name twice": forged("named tuple", "A", ["x", "x"], 1, 2),
    "a named tuple of few values": forged("named tuple", "A", ["x", "y"], 1),
    "a named tuple with no list of names": forged("named tuple", "A", "xy", 1, 2, 3),
    "a named tuple of many names": forged("named tuple", "A", [f"x{n}" for n in range(99)], *range(99)),
    "many named tuples": Message(msgpack.packb([[tag("named tuple"), f"N{n}", ["x"], 1] for n in range(99)])),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_messages_are_refused(name):
    with pytest.raises(BadMessage) as caught:
        decode(HOSTILE[name], lambda *handle: handle)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("item", [[], {}, (), set(), Fraction(1, 2)], ids=repr)
def test_more_containers_than_the_limit_are_refused(monkeypatch, item):
    monkeypatch.setattr(codec, "MAX_CONTAINERS", 1000)
    assert decode(encode([item] * 999)) == [item] * 999
    with pytest.raises(BadMessage, match="over 1,000 lists"):
        decode(encode([item] * 1000))


@given(st.binary(max_size=200), st.lists(st.binary(max_size=20), max_size=3))
def test_random_messages_decode_or_are_refused(head, buffers):
    with contextlib.suppress(BadMessage):
        decode(Message(head, [memoryview(bytearray(buffer)) for buffer in buffers]), lambda *handle: handle)


RICH = [torch.ones(2, 3), {"a": (1, 2.5, None), 3: {4}}, Pair(1, "x"), np.arange(3), np.float32(1), 10**30]
RICH += [Fraction(1, 2), Decimal("1.5"), range(5), slice(1, 2), torch.float32, torch.device("cpu"), torch.ones(5000)]
RICH += [np.array(["ab"]), ...]


def test_mutated_messages_decode_or_are_refused():
    head, buffers = encode([*RICH, Thing()], lambda thing: [1, "object", "Thing"])
    data, generator = b"".join(map(bytes, buffers)), random.Random(0)
    for _ in range(3000):
        mutated = bytearray(head)
        for _ in range(generator.choice([1, 1, 2, 5])):
            mutated[generator.randrange(len(mutated))] = generator.randrange(256)
        with contextlib.suppress(BadMessage):
            repr(decode(Message(bytes(mutated), [memoryview(bytearray(data))]), lambda *handle: handle))


def test_booleans_are_normalised():
    for name, dtype, convert in (("tensor", "bool", torch.Tensor.numpy), ("array", "|b1", np.asarray)):
        assert convert(decode(forged(name, dtype, [2], b"\x00\x07"))).view(np.uint8).tolist() == [0, 1]
