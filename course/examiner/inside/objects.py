"""The candidate's objects that the examiner holds, and all that it may do with them."""

import contextlib
import copy
import ctypes
import functools
import gc
import operator

MAX_NAME = 100  # characters


class Handles:
    """Objects by number; each is kept until the examiner has given back every time that it was given it."""

    def __init__(self):
        self.held: dict[int, list] = {}  # number -> [object, times given]
        self.numbers: dict[int, int] = {}  # id of a held object -> its number
        self.last = 0

    def give(self, value: object) -> list:
        """The handle of an object."""
        number = self.numbers.get(id(value))
        if number is None:
            number = self.last = self.last + 1
            self.numbers[id(value)] = number
            self.held[number] = [value, 0]
        self.held[number][1] += 1
        return handle(number, value)

    def take(self, number: int) -> object:
        return self.held[number][0]

    def release(self, numbers: list[int]) -> None:
        """Let go of objects; a number may stand there as often as it was given."""
        for number in numbers:
            entry = self.held[number]
            entry[1] -= 1
            if not entry[1]:
                del self.numbers[id(entry[0])], self.held[number]


def handle(number: int, value: object) -> list:
    """What crosses in an object's place: its number, its kind, and the name of its class."""
    kind = type(value)
    named = value if issubclass(kind, type) else kind
    return [number, kind_of(value), type.__dict__["__name__"].__get__(named)[:MAX_NAME]]


def kind_of(value: object) -> str:
    kind = type(value)  # an object may lie about its __class__
    if issubclass(kind, type):
        return "class"
    if hasattr(kind, "__next__"):
        return "iterator"
    return "callable" if callable(value) else "object"


def call(function, /, *args, **kwargs):
    return function(*args, **kwargs)


def bind(function, /, *args, **kwargs) -> functools.partial:
    """A call for later: what it takes to receive the arguments is over when this returns."""
    release_free_memory()
    return functools.partial(function, *args, **kwargs)


def advance(iterator) -> list:
    """The next item as a list of one; an empty list at the end."""
    end = object()
    item = next(iterator, end)
    return [] if item is end else [item]


def is_instance(kind, value) -> bool:
    return isinstance(value, kind)


def is_subclass(kind, other) -> bool:
    return issubclass(other, kind)


def enter(manager):
    return type(manager).__enter__(manager)


def leave(manager) -> None:
    type(manager).__exit__(manager, None, None, None)


def release_free_memory() -> None:
    """Give free memory back to the system, so that taking it again can be seen from outside."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


OPERATIONS = {
    "call": call,
    "bind": bind,
    "getattr": getattr,
    "setattr": setattr,
    "delattr": delattr,
    "getitem": operator.getitem,
    "setitem": operator.setitem,
    "delitem": operator.delitem,
    "len": len,
    "contains": operator.contains,
    "iter": iter,
    "next": advance,
    "isinstance": is_instance,
    "issubclass": is_subclass,
    "enter": enter,
    "leave": leave,
    "deepcopy": copy.deepcopy,
}
