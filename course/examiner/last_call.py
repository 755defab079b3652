"""The last thing that a test asked of the candidate's code, in few words: a failure is shown with it."""

import reprlib
from dataclasses import dataclass

import numpy as np
import torch

from .proxies import RemoteObject, name_of

MAX_CHARACTERS = 300
MAX_VALUES = 6  # of a tensor, list or dict
FORMS = {  # operation -> how it is written
    "getattr": "{0}.{1}",
    "setattr": "{0}.{1} = {2}",
    "delattr": "del {0}.{1}",
    "getitem": "{0}[{1}]",
    "setitem": "{0}[{1}] = {2}",
    "delitem": "del {0}[{1}]",
    "contains": "{1} in {0}",
    "isinstance": "isinstance({1}, {0})",
    "issubclass": "issubclass({1}, {0})",
}
VERBS = {"call": "returned", "bind": "returned", "getattr": "is", "getitem": "is"}


@dataclass
class LastCall:
    """An operation on an object of the candidate's, and what came of it; put into words only when a test fails."""

    operation: str
    arguments: tuple  # the object first
    keywords: dict
    outcome: object = None
    ending: str = ""  # in the outcome's place: that there is none

    def __str__(self) -> str:
        ending = self.ending or self._outcome()
        return f"{cut(self._asked(), MAX_CHARACTERS * 2 // 3)} {cut(ending, MAX_CHARACTERS // 3)}".rstrip()

    def _asked(self) -> str:
        name, *arguments = map(brief, self.arguments)
        if self.operation in ("call", "bind"):
            keywords = [f"{key}={brief(value)}" for key, value in self.keywords.items()]
            return f"{name}({', '.join([*arguments, *keywords])})"
        if self.operation.endswith("attr"):
            arguments[0] = self.arguments[1]
        return FORMS.get(self.operation, self.operation + "({0})").format(name, *arguments)

    def _outcome(self) -> str:
        if self.operation.startswith(("set", "del")):
            return ""
        match self.operation, self.outcome:
            case "next", []:
                return "ended"
            case "next", [item]:
                return f"gave {brief(item)}"
        return f"{VERBS.get(self.operation, 'gave')} {brief(self.outcome)}"


def cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def brief(value: object) -> str:
    """A value in at most some hundred characters: of tensors and arrays the dtype, the shape and the first values."""
    return cut(_BRIEF.repr(value), MAX_CHARACTERS // 3)


class _Brief(reprlib.Repr):
    def __init__(self):
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = MAX_VALUES
        self.maxstring = self.maxlong = self.maxother = 60

    def repr1(self, value: object, level: int) -> str:
        if isinstance(value, RemoteObject):
            return name_of(value)
        if isinstance(value, torch.Tensor):
            return _numbers(value.detach().reshape(-1)[: MAX_VALUES + 1].tolist(), "tensor", value)
        if isinstance(value, np.ndarray):
            return _numbers(value.reshape(-1)[: MAX_VALUES + 1].tolist(), "array", value)
        if isinstance(value, np.generic):
            return self.repr1(value.item(), level)
        if isinstance(value, tuple):
            return self.repr_tuple(value, level)
        if isinstance(value, int) and value.bit_length() > 1000:  # Python refuses to write the longest out
            return f"an integer of {value.bit_length()} bits"
        return super().repr1(value, level)


_BRIEF = _Brief()


def _numbers(first: list, kind: str, whole: torch.Tensor | np.ndarray) -> str:
    shown = ", ".join(f"{value:.6g}" if isinstance(value, float) else repr(value) for value in first[:MAX_VALUES])
    more = ", …" if len(first) > MAX_VALUES else ""
    return f"{str(whole.dtype).removeprefix('torch.')} {kind} {tuple(whole.shape)} [{shown}{more}]"
