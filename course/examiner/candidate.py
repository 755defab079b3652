"""The examiner's view of a candidate's process: it runs cells and calls functions, within limits."""

import base64
import binascii
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .inside.codec import BadMessage, decode, encode
from .process import CandidateFailure, Process
from .sandbox import ABSENT, Limits

STOPPED = "Stopped"  # the name of the error of a cell that did not come to its end


@dataclass
class CellRun:
    """What one cell of the candidate's did."""

    printed: dict[str, str] = field(default_factory=dict)  # "stdout" and "stderr" -> text
    displays: list[dict[str, str]] = field(default_factory=list)  # MIME type -> data
    error: dict[str, str] | None = None  # name, message, traceback


class RemoteFunction:
    """Stands in the examiner's process for a candidate's function: a call runs there, data comes back by value."""

    def __init__(self, candidate: "Candidate", process: Process, number: int):
        self.candidate, self.process, self.number = candidate, process, number

    def __call__(self, *args, **kwargs):
        return self.candidate.call("call", self, args, kwargs)

    def bind(self, *args, **kwargs) -> "RemoteFunction":
        """A function of no arguments: this one, with its arguments in the candidate's process already."""
        return self.candidate.call("bind", self, args, kwargs)

    @property
    def pid(self) -> int:
        """The process that runs the function, for those who measure it."""
        return self.process.pid


class Candidate:
    """A candidate's process that is started again, and brought back to where it was, when it dies.

    `deadline` (time.monotonic()) bounds the calls of the test cell that runs at the moment.
    """

    def __init__(self, files: dict[str, bytes], sandbox: str, limits: Limits, absent: tuple[str, ...] = ABSENT):
        self.limits = limits
        self._start = lambda: Process(files, sandbox, limits, absent)
        self._process: Process | None = None
        self._history: list[str] = []  # cells that ran to their end
        self._starts = 0
        self._ends = time.monotonic() + limits.submission_seconds
        self.deadline = self._ends
        # what a test has done to the names it borrowed: those it deleted, and those it bound to something else
        self.changed_names: Callable[[], tuple[list[str], dict[str, object]]] = lambda: ([], {})

    def __enter__(self) -> "Candidate":
        return self

    def __exit__(self, *_) -> None:
        if self._process is not None:
            self._process.kill()

    def run(self, source: str) -> CellRun:
        """Run one of the candidate's own cells."""
        try:
            process = self._living()
        except CandidateFailure as failure:
            return CellRun(error=_error(failure))
        try:
            run = self._run(process, source)
        except CandidateFailure as failure:
            return CellRun(process.take_printed(), error=_error(failure))
        self._history.append(source)
        return run

    def look_up(self, names: set[str]) -> dict[str, tuple[str, object]]:
        """name -> ("value", the value or a RemoteFunction) or ("module", its name) or ("opaque", the reason)."""
        process = self._living()
        reply = process.request("look_up", {"names": sorted(names)}, *self._deadline(self.deadline))
        found = {}
        for name in names & set(reply):
            kind, value = reply[name]
            found[name] = (kind, self._value(process, value) if kind == "value" else str(value))
        return found

    def call(self, operation: str, function: RemoteFunction, args: tuple, kwargs: dict) -> object:
        """Call a function of the candidate's, or bind its arguments; its exceptions are raised here."""
        process = function.process
        if not process.alive:
            raise CandidateFailure("the process that held this function has ended")
        arguments = encode((args, kwargs), _own_function_number)
        request = {"function": function.number, "arguments": arguments}
        if operation == "call":
            request["names"] = encode(self.changed_names(), _own_function_number)
        reply = process.request(operation, request, *self._deadline(self.deadline))
        if "error" in reply:
            raise _exception(reply["error"])
        return self._value(process, reply.get("value"))

    def printed(self) -> dict[str, str]:
        """What the last call printed."""
        return self._process.take_printed() if self._process else {}

    def _living(self) -> Process:
        """The process, started and brought back to where it was if need be."""
        if time.monotonic() >= self._ends:
            raise CandidateFailure(f"not run: the {self.limits.submission_seconds:g} s for a submission are over")
        while self._process is None or not self._process.alive:
            if self._starts > self.limits.restarts:
                raise CandidateFailure(f"not run: the process ended {self._starts} times before")
            self._starts += 1
            self._process = self._start()
            history, self._history = self._history, []
            for source in history:
                try:
                    self._run(self._process, source)
                except CandidateFailure:
                    break
                self._history.append(source)
        return self._process

    def _run(self, process: Process, source: str) -> CellRun:
        cell_ends = time.monotonic() + self.limits.cell_seconds
        reply = process.request("run", {"source": source}, *self._deadline(cell_ends))
        error = reply.get("error")
        displays = [_display(data) for data in reply.get("displays", ()) if isinstance(data, dict)]
        return CellRun(process.take_printed(), displays, _texts(error) if isinstance(error, dict) else None)

    def _deadline(self, deadline: float) -> tuple[float, str]:
        if deadline < self._ends:
            return deadline, f"the limit of {self.limits.cell_seconds:g} s for a cell"
        return self._ends, f"the limit of {self.limits.submission_seconds:g} s for a submission"

    def _value(self, process: Process, data: object) -> object:
        try:
            return decode(data, lambda number: RemoteFunction(self, process, number))
        except (BadMessage, TypeError) as error:
            process.kill()
            raise CandidateFailure(f"the process sent what is no value ({error})") from None


def _own_function_number(function: object) -> int:
    if isinstance(function, RemoteFunction):
        return function.number
    raise TypeError(
        f"a function of the test ({function!r}) cannot be passed to the candidate's process; "
        "let the test call the candidate's function with data, and work on what it returns"
    )


def _error(failure: CandidateFailure) -> dict[str, str]:
    return {"name": STOPPED, "message": str(failure), "traceback": str(failure)}


def _texts(error: dict) -> dict[str, str]:
    return {key: str(error.get(key, "")) for key in ("name", "message", "traceback")}


def _display(data: dict) -> dict[str, str]:
    """Only plain text and images that are images: what candidates display is shown to instructors."""
    kept = {"text/plain": str(data["text/plain"])} if "text/plain" in data else {}
    try:
        image = base64.b64decode(data.get("image/png", ""), validate=False)
    except (binascii.Error, TypeError, ValueError):
        image = b""
    if image.startswith(b"\x89PNG"):
        kept["image/png"] = base64.b64encode(image).decode()
    return kept


class CandidateError(Exception):
    """An exception of the candidate's whose type is not one of Python's own."""


def _exception(error: dict) -> Exception:
    """An exception of the same builtin class; those that would end a loop or the examiner become CandidateError."""
    import builtins

    message = str(error.get("message", ""))
    kind = CandidateError
    for name in error.get("classes", ()):
        found = getattr(builtins, str(name), None)
        if isinstance(found, type) and issubclass(found, Exception) and found is not Exception:
            kind = found
            break
    if issubclass(kind, StopIteration | StopAsyncIteration):
        kind = CandidateError
    try:
        exception = kind(message)
    except TypeError:
        exception = CandidateError(message)
    if kind is CandidateError:
        exception = CandidateError(f"{error.get('name', 'Error')}: {message}")
    exception.candidate_traceback = str(error.get("traceback", ""))
    return exception
