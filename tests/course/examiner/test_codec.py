"""What crosses the border, what does not, and what a hostile sender can do to the decoder."""

import contextlib
import math
from collections import OrderedDict, namedtuple

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course.examiner.inside import codec
from course.examiner.inside.codec import BadMessage, CannotCross, decode, encode

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(values)
def test_plain_data_comes_back_equal_and_of_the_same_type(value):
    back = decode(encode(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("value", [{1, 2}, frozenset("ab"), 1 + 2j, range(2, 9, 3), slice(1, None), 10**300, -(2**70)])
def test_other_builtins_come_back(value):
    assert decode(encode(value)) == value


def test_nan_and_negative_zero_are_kept():
    nan, zero = decode(encode([math.nan, -0.0]))
    assert math.isnan(nan) and math.copysign(1, zero) == -1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (3, 4), (2, 0, 5)])
def test_tensors_keep_dtype_shape_and_bits(dtype, shape):
    tensor = (torch.randn(shape) * 3).to(dtype)
    back = decode(encode(tensor))
    assert back.dtype is dtype and back.shape == tensor.shape and torch.equal(back, tensor)


def test_views_and_parameters_cross_as_plain_tensors():
    base = torch.arange(24.0).reshape(4, 6)
    parameter = torch.nn.Parameter(base)
    assert torch.equal(decode(encode(base.T[::2])), base.T[::2])
    assert type(decode(encode(parameter))) is torch.Tensor


def test_arrays_and_their_scalars_keep_dtype():
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    back = decode(encode([array, np.float32(1.5), np.array(["ab", "c"]), np.array([True, False])]))
    assert back[0].dtype == np.int16 and (back[0] == array).all()
    assert back[1] == 1.5 and type(back[1]) is np.float32
    assert back[2].tolist() == ["ab", "c"] and back[3].tolist() == [True, False]


def test_subclasses_cross_as_their_base_so_that_no_lie_survives():
    class Liar(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    assert decode(encode(Liar(5))) != 6
    pair = namedtuple("pair", "a b")
    assert decode(encode([OrderedDict(a=1), pair(1, 2)])) == [{"a": 1}, (1, 2)]


class Thing:
    pass


@pytest.mark.parametrize(
    "value, reason",
    [
        (Thing(), "a value of type Thing cannot be passed by value"),
        (Thing, "a value of type type cannot"),
        (np.array([Thing()]), "an array of dtype object"),
        (torch.eye(2).to_sparse(), "sparse"),
        ("\udc80", "not valid Unicode"),
        pytest.param(1 << 10_000_000, "over the limit", id="huge int"),
    ],
)
def test_what_cannot_cross_says_why(value, reason):
    with pytest.raises(CannotCross, match=reason):
        encode(value)


def test_a_value_that_contains_itself_cannot_cross():
    loop = []
    loop.append(loop)
    with pytest.raises(CannotCross, match="contains itself"):
        encode(loop)


def test_functions_cross_as_numbers():
    numbers = {len: 7}
    data = encode([len], numbers.__getitem__)
    assert decode(data, lambda number: f"function {number}") == ["function 7"]
    with pytest.raises(BadMessage):
        decode(data)


def forged(code: int, payload: object) -> bytes:
    return msgpack.packb(msgpack.ExtType(code, msgpack.packb(payload)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",  # a list that claims 2**32 - 1 items
        b"\x91" * 100_000,
        forged(codec.TENSOR, ["float32", [10**6, 10**6], b"1234"]),
        forged(codec.TENSOR, ["float32", [-1], b""]),
        forged(codec.TENSOR, ["load", [1], b"1234"]),
        forged(codec.TENSOR, ["float32", "no list", b"1234"]),
        forged(codec.ARRAY, ["|O8", [1], b"12345678"]),
        forged(codec.ARRAY, ["<f4", [2], b"1234"]),
        forged(codec.DTYPE, "Tensor"),
        forged(codec.SET, [[1]]),
        forged(codec.COMPLEX, ["a", "b"]),
        forged(99, []),
        msgpack.packb(msgpack.ExtType(codec.INT, b"1" * 100_000)),
        msgpack.packb({(1,): 2}),
    ],
)
def test_hostile_bytes_are_refused(data):
    with pytest.raises(BadMessage):
        decode(data)


@given(st.binary(max_size=200))
def test_random_bytes_decode_or_are_refused(data):
    with contextlib.suppress(BadMessage):
        decode(data)


def test_booleans_are_normalised():
    tensor = decode(forged(codec.TENSOR, ["bool", [2], b"\x00\x07"]))
    assert tensor.view(torch.uint8).tolist() == [0, 1]
