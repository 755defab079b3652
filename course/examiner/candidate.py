"""The examiner's view of a candidate's process: it runs cells and does what tests ask, within limits."""

import base64
import binascii
import builtins
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .inside.codec import CannotCross
from .last_call import LastCall
from .process import CandidateFailure, Process
from .proxies import Border, RemoteObject, clean, gone, labelled
from .sandbox import ABSENT, Limits

MAX_NAME = 100  # characters
MAX_TEXT = 20_000
MAX_DISPLAY = 100_000
MAX_DISPLAYS = 50  # of a cell
STOPPED = "Stopped"  # the name of the error of a cell that did not come to its end


@dataclass
class CellRun:
    """What one cell of the candidate's did."""

    printed: dict[str, str] = field(default_factory=dict)  # "stdout" and "stderr" -> text
    displays: list[dict[str, str]] = field(default_factory=list)  # MIME type -> data
    error: dict[str, str] | None = None  # name, message, traceback


class Candidate:
    """A candidate's process that is started again, and brought back to where it was, when it dies.

    `deadline` (time.monotonic()) bounds what the test cell asks that runs at the moment.
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
        self.last_call: LastCall | None = None  # of the test cell that runs at the moment
        self._printed: dict[str, str] = {}  # by it
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

    def begin_test(self) -> None:
        """From now on the limit of a cell counts for what a test asks."""
        self.deadline = time.monotonic() + self.limits.cell_seconds
        self.last_call, self._printed = None, {}

    def look_up(self, names: set[str]) -> dict[str, tuple[str, object]]:
        """name -> ("value", the value or a proxy) or ("module", its name) or ("opaque", the reason)."""
        found = self._request(self._living(), "look_up", {"names": sorted(names)}, self.deadline).get("found")
        if not isinstance(found, dict):
            raise CandidateFailure("the process did not tell what names it has")
        result = {}
        for name in names & found.keys():
            match found[name]:
                case [str("value"), value]:
                    result[name] = ("value", labelled(value, name))
                case [str(kind), str(reason)]:
                    result[name] = (kind, clean(reason, MAX_TEXT))
        return result

    def apply(self, process: Process, operation: str, arguments: tuple[RemoteObject, ...], keywords: dict) -> object:
        """Do something to an object of the candidate's; exceptions of the candidate's are raised here."""
        if not process.alive:
            raise CandidateFailure(gone(arguments[0]))
        request = {"operation": operation, "arguments": arguments, "keywords": keywords, "names": self.changed_names()}
        self.last_call = None  # it may hold objects that this request can give back
        try:
            reply = self._request(process, "apply", request, self.deadline)
        except CandidateFailure:
            self.last_call = LastCall(operation, arguments, keywords, ending="did not return")
            raise
        finally:
            printed = process.take_printed()
            if printed or operation == "call":  # a look at a result must not hide what the call has printed
                self._printed = printed
        if "error" not in reply:
            self.last_call = LastCall(operation, arguments, keywords, reply.get("value"))
            return reply.get("value")
        error = _exception(reply["error"], self.limits)
        self.last_call = LastCall(operation, arguments, keywords, ending=f"raised {type(error).__name__}: {error}")
        raise error

    def printed(self) -> dict[str, str]:
        """What the last call printed."""
        return self._printed

    def _living(self) -> Process:
        """The process, started and brought back to where it was if need be."""
        if time.monotonic() >= self._ends:
            raise CandidateFailure(f"not run: the {self.limits.submission_seconds:g} s for a submission are over")
        while self._process is None or not self._process.alive:
            if self._starts > self.limits.restarts:
                raise CandidateFailure(f"not run: the process ended {self._starts} times before")
            self._starts += 1
            self._process = process = self._start()
            process.border = Border(process, functools.partial(self.apply, process))
            history, self._history = self._history, []
            for source in history:
                try:
                    self._run(self._process, source)
                except CandidateFailure:
                    break
                self._history.append(source)
        return self._process

    def _run(self, process: Process, source: str) -> CellRun:
        reply = self._request(process, "run", {"source": source}, time.monotonic() + self.limits.cell_seconds)
        error, displays = reply.get("error"), reply.get("displays")
        displays = displays[:MAX_DISPLAYS] if isinstance(displays, list) else []
        displays = [_display(data) for data in displays if isinstance(data, dict)]
        return CellRun(
            process.take_printed(), displays, _texts(error, self.limits) if isinstance(error, dict) else None
        )

    def _request(self, process: Process, operation: str, arguments: dict, ends: float) -> dict:
        deadline, limit = self._deadline(ends)
        if time.monotonic() >= deadline:
            raise CandidateFailure(f"not run: {limit} was reached")
        dead = process.border.take_dead()
        try:
            return process.request(operation, {**arguments, "dead": dead}, deadline, limit)
        except CannotCross:
            process.border.dead.extend(dead)
            raise
        except Exception:
            raise
        except BaseException:  # the test's own time is over, perhaps in the middle of a message
            process.kill()
            raise

    def _deadline(self, deadline: float) -> tuple[float, str]:
        if deadline < self._ends:
            return deadline, f"the limit of {self.limits.cell_seconds:g} s for a cell"
        return self._ends, f"the limit of {self.limits.submission_seconds:g} s for a submission"


def _error(failure: CandidateFailure) -> dict[str, str]:
    return {"name": STOPPED, "message": str(failure), "traceback": str(failure)}


def _texts(error: dict, limits: Limits) -> dict[str, str]:
    name = clean(error.get("name"), MAX_NAME)
    message, traceback = (clean(error.get(key), MAX_TEXT, keep="\n\t") for key in ("message", "traceback"))
    return {"name": name, "message": limits.named(name, message), "traceback": traceback}


def _display(data: dict) -> dict[str, str]:
    """Only plain text and images that are images: what candidates display is shown to instructors."""
    plain = data.get("text/plain")
    kept = {"text/plain": plain[:MAX_DISPLAY]} if isinstance(plain, str) else {}
    try:
        image = base64.b64decode(data.get("image/png", ""), validate=False)
    except (binascii.Error, TypeError, ValueError):
        image = b""
    if image.startswith(b"\x89PNG"):
        kept["image/png"] = base64.b64encode(image).decode()
    return kept


class CandidateError(Exception):
    """An exception of the candidate's whose type is not one of Python's own."""


def _exception(error: object, limits: Limits) -> Exception:
    """An exception of the same builtin class; those that would end a loop or the examiner become CandidateError."""
    error = error if isinstance(error, dict) else {}
    texts, classes = _texts(error, limits), error.get("classes")
    kind = _builtin_exception(classes if isinstance(classes, list) else [])
    try:
        exception = kind(texts["message"])
    except TypeError:
        kind = CandidateError
    if kind is CandidateError:
        exception = CandidateError(f"{texts['name'] or 'Error'}: {texts['message']}")
    exception.candidate_traceback = texts["traceback"]
    return exception


def _builtin_exception(names: list) -> type[Exception]:
    found = (getattr(builtins, name, None) for name in names if isinstance(name, str))
    kinds = (kind for kind in found if isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception)
    kind = next(kinds, CandidateError)
    return CandidateError if issubclass(kind, StopIteration | StopAsyncIteration) else kind
