"""Proxies: what stands in the examiner's process for objects of the candidate's.

What is done to a proxy is done to the object, in the candidate's process; data comes back by value. A proxy itself has
no value: it is never true or false, equal to data, ordered, a number or an array, so that an object that lies about
these gains nothing.
"""

import functools
import os
from collections import deque
from collections.abc import Callable, Iterator

import torch

from .inside.codec import BadMessage, CannotCross
from .inside.objects import MAX_NAME
from .process import CandidateFailure, Process

MAX_LABEL = 60  # characters
SHARED_NAMES = {"__name__", "__qualname__"}  # of all names with two underscores on both sides, those that are looked up
INSTEAD = {  # what cannot be passed to the candidate's code, and what a test passes in its place
    torch.Generator: "pass a seed, and let the candidate's code make the generator",
    torch.nn.Module: "pass its state_dict(), or let the candidate's code make the module",
    os.PathLike: "pass it as a string",
    Iterator: "pass a list",
    Callable: "let the test work on what the candidate's code returns, or define it in a cell of the notebook that is "
    "not a test, where it runs on the candidate's side",
    object: "pass data: tensors, arrays, numbers, strings, or lists, tuples and dicts of them",
}


def clean(text: object, limit: int, keep: str = "") -> str:
    """A candidate's text, cut, and without control characters but those to keep; empty if it is no text."""
    if not isinstance(text, str):
        return ""
    return "".join(character for character in text[:limit] if character.isprintable() or character in keep)


class Border:
    """What crosses between this process and one life of the candidate's that is no data."""

    def __init__(self, process: Process, ask: Callable[[str, tuple, dict], object]):
        self.process = process
        self.ask = ask  # does an operation on objects over there
        self.dead: deque[int] = deque()  # objects that no proxy stands for any more

    def give(self, value: object) -> list:
        """The handle of a proxy; CannotCross, which tells the author of the test what to do, for anything else."""
        if isinstance(value, RemoteObject):
            held = held_by(value)
            if held.border is self:
                return [held.number]
            raise CandidateFailure(gone(value))
        advice = next(advice for kind, advice in INSTEAD.items() if isinstance(value, kind))
        raise CannotCross(f"{_described(value)} of the test cannot be passed to the candidate's code; {advice}")

    def take(self, number: object, kind: object, type_name: object) -> "RemoteObject":
        """The proxy for an object that the candidate's process has told of."""
        if type(number) is not int or type(kind) is not str or kind not in PROXIES:
            raise BadMessage("a bad handle")
        type_name = clean(type_name, MAX_NAME)
        return _proxy_class(kind, "type" if kind == "class" else type_name)(Held(self, number, type_name))

    def take_dead(self) -> list[int]:
        return [self.dead.popleft() for _ in range(len(self.dead))]


class Held:
    """What a proxy knows of its object. It is given back with the next request, not when it is no longer needed."""

    def __init__(self, border: Border, number: int, type_name: str):
        self.border, self.number, self.type_name = border, number, type_name
        self.label = ""  # how the test has come by it, such as `plan.layers`

    def __del__(self):
        self.border.dead.append(self.number)


def held_by(proxy: "RemoteObject") -> Held:
    return object.__getattribute__(proxy, "_RemoteObject__held")


def labelled(value: object, label: str) -> object:
    """The value; a proxy is called so from now on."""
    if isinstance(value, RemoteObject) and len(label) <= MAX_LABEL:
        held_by(value).label = label
    return value


def name_of(proxy: "RemoteObject") -> str:
    return held_by(proxy).label or repr(proxy)


def gone(proxy: "RemoteObject") -> str:
    return f"{name_of(proxy)} is gone: the process that held it has ended"


def ask(proxy: "RemoteObject", operation: str, /, *arguments: object, **keywords: object) -> object:
    return held_by(proxy).border.ask(operation, (proxy, *arguments), keywords)


class RemoteObject:
    """An object of the candidate's: attributes, items and iteration are asked for over there."""

    __slots__ = ("__held", "__weakref__")
    __array_ufunc__ = None  # numpy leaves its operators to this class

    def __init__(self, held: Held):
        object.__setattr__(self, "_RemoteObject__held", held)

    def __repr__(self) -> str:
        return f"<{held_by(self).type_name} of the submission>"

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") and name.endswith("__") and name not in SHARED_NAMES:
            raise AttributeError(f"{name_of(self)}: `{name}` is not asked for in the candidate's process")
        return labelled(ask(self, "getattr", name), f"{name_of(self)}.{name}")

    def __setattr__(self, name: str, value: object) -> None:
        ask(self, "setattr", name, value)

    def __delattr__(self, name: str) -> None:
        ask(self, "delattr", name)

    def __getitem__(self, key: object) -> object:
        return labelled(ask(self, "getitem", key), f"{name_of(self)}[…]")

    def __setitem__(self, key: object, value: object) -> None:
        ask(self, "setitem", key, value)

    def __delitem__(self, key: object) -> None:
        ask(self, "delitem", key)

    def __len__(self) -> int:
        return ask(self, "len")

    def __contains__(self, item: object) -> bool:
        return ask(self, "contains", item)

    def __iter__(self) -> "RemoteIterator":
        return labelled(ask(self, "iter"), name_of(self))

    def __enter__(self) -> object:
        return ask(self, "enter")

    def __exit__(self, *_) -> None:
        ask(self, "leave")  # it is not told of a test's exception, and cannot suppress it

    def __deepcopy__(self, memo: dict) -> object:
        return labelled(ask(self, "deepcopy"), name_of(self))

    def __hash__(self) -> int:
        return hash((id(held_by(self).border), held_by(self).number))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, RemoteObject):
            mine, theirs = held_by(self), held_by(other)
            if (mine.border, mine.number) == (theirs.border, theirs.number):
                return True
            if _compares_by_identity(self) and _compares_by_identity(other):
                return False
        raise TypeError(refusal(self, "cannot be compared"))

    def __ne__(self, other: object) -> bool:
        return not self == other

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "torch")
        raise TypeError(
            f"an object of the submission was given to `{name}`, where a tensor is needed; {HOW_TO_COMPARE}"
        )


class RemoteFunction(RemoteObject):
    """A function, or any other object of the candidate's that can be called: a call runs over there."""

    __slots__ = ()

    def __call__(self, /, *args, **kwargs) -> object:
        return labelled(ask(self, "call", *args, **kwargs), f"{name_of(self)}(…)")

    def bind(self, /, *args, **kwargs) -> "RemoteFunction":
        """A function of no arguments: this one, with its arguments in the candidate's process already."""
        return labelled(ask(self, "bind", *args, **kwargs), name_of(self))

    @property
    def pid(self) -> int:
        """The process that runs the function, for those who measure it."""
        return held_by(self).border.process.pid


class RemoteClass(RemoteFunction):
    """A class of the candidate's."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<class {held_by(self).type_name} of the submission>"

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, RemoteObject) and ask(self, "isinstance", value)

    def __subclasscheck__(self, kind: object) -> bool:
        return isinstance(kind, RemoteClass) and ask(self, "issubclass", kind)

    def __mro_entries__(self, bases: tuple) -> tuple:
        raise TypeError(f"a class of the test cannot inherit from {name_of(self)}, which is a class of the submission")


class RemoteIterator(RemoteObject):
    """An iterator or generator of the candidate's."""

    __slots__ = ()

    def __next__(self) -> object:
        match ask(self, "next"):
            case []:
                raise StopIteration
            case [item]:
                return item
        raise CandidateFailure("the process sent what is no next item")


def _compares_by_identity(proxy: RemoteObject) -> bool:
    return isinstance(proxy, RemoteClass) or held_by(proxy).type_name == "function"


PROXIES = {"object": RemoteObject, "callable": RemoteFunction, "class": RemoteClass, "iterator": RemoteIterator}
HOW_TO_COMPARE = "a test compares attributes, or data (numbers, strings, lists, tensors) that calls return"
REFUSED = {  # methods that would give a proxy a value
    "has no truth value (`is None` works)": "bool",
    "has no order": "lt le gt ge",
    "is no number": "int float complex index round neg abs add radd sub rsub mul rmul matmul rmatmul truediv rtruediv "
    "floordiv rfloordiv mod rmod pow rpow and rand or ror xor rxor lshift rlshift rshift rrshift",
    "is no array or tensor": "array array_function dlpack dlpack_device",
    "cannot be copied by the test": "copy reduce_ex",
}


def refusal(proxy: RemoteObject, fault: str) -> str:
    """What the author of a test, and the candidate, are told where data is needed."""
    held = held_by(proxy)
    what = f"`{held.label}` is an object" if held.label else "this is an object"
    return f"{what} of the submission's class `{held.type_name}` and {fault}; {HOW_TO_COMPARE}"


def _refuse(fault: str) -> Callable:
    def method(self, *args, **kwargs):
        raise TypeError(refusal(self, fault))

    return method


for _fault, _names in REFUSED.items():
    for _name in _names.split():
        setattr(RemoteObject, f"__{_name}__", _refuse(_fault))


@functools.lru_cache(maxsize=256)
def _proxy_class(kind: str, type_name: str) -> type[RemoteObject]:
    """A class of proxies by the name of the candidate's class, for tests and messages that ask for this name."""
    return type(type_name, (PROXIES[kind],), {"__slots__": (), "__module__": "__main__"})


def _described(value: object) -> str:
    name = getattr(value, "__name__", None)
    return f"the {type(value).__name__} {name}" if name else f"this {type(value).__name__}"
