"""The examiner's view of a candidate's process: it runs cells and calls functions, within limits."""

import base64
import binascii
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgpack
import psutil

from .inside.channel import Channel, Closed
from .inside.codec import BadMessage, decode, encode
from .sandbox import ABSENT, Limits, Sandboxed, start

GRACE_SECONDS = 2.0  # between the request to stop and the kill
START_SECONDS = 60.0
STOPPED = "Stopped"  # the name of the error of a cell that did not come to its end


class CandidateFailure(Exception):
    """The candidate's process did not answer as it should; the message is for the candidate."""


@dataclass
class CellRun:
    """What one cell of the candidate's did."""

    printed: dict[str, str] = field(default_factory=dict)  # "stdout" and "stderr" -> text
    displays: list[dict[str, str]] = field(default_factory=list)  # MIME type -> data
    error: dict[str, str] | None = None  # name, message, traceback


class RemoteFunction:
    """Stands in the examiner's process for a candidate's function: a call runs there, data comes back by value."""

    def __init__(self, candidate: "Candidate", process: "Process", number: int):
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


class Process:
    """One life of a candidate's process: requests and replies, deadlines, bounded output."""

    def __init__(self, files: dict[str, bytes], sandbox: str, limits: Limits, absent: tuple[str, ...]):
        self.limits = limits
        self.sandboxed: Sandboxed = start(sandbox, limits, absent)
        self.channel = Channel(self.sandboxed.connection, limits.reply_bytes)
        self.printed = {"stdout": bytearray(), "stderr": bytearray()}
        self.number = 0  # of the last request
        self.alive = True
        for stream, name in ((self.sandboxed.process.stdout, "stdout"), (self.sandboxed.process.stderr, "stderr")):
            self.channel.watched[stream.fileno()] = self._reader(stream.fileno(), self.printed[name])
        deadline = time.monotonic() + START_SECONDS
        try:
            self.channel.send(msgpack.packb(files), deadline)
            self._reply(deadline)
        except (Closed, TimeoutError) as error:
            said = bytes(self.printed["stderr"][-2000:]).decode(errors="replace")
            self.kill()
            raise RuntimeError(f"a candidate's process did not start: {said or error}") from None
        except BaseException:
            self.kill()
            raise
        tree = psutil.Process(self.sandboxed.process.pid)
        self.pid = [tree, *tree.children(recursive=True)][-1].pid

    def request(self, operation: str, arguments: dict, deadline: float, limit: str) -> dict:
        """The reply to a request; CandidateFailure, naming the `limit`, if there is none by the deadline."""
        self.number += 1
        for text in self.printed.values():
            text.clear()
        try:
            self.channel.send(msgpack.packb([self.number, operation, arguments]), deadline)
            reply = self._reply(deadline)
            self.channel.serve_watched()
            return reply
        except TimeoutError:
            self._interrupt()
            raise CandidateFailure(f"stopped: it ran longer than {limit}") from None
        except Closed:
            ending = self._ending()
            self.kill()
            raise CandidateFailure(f"the process ended ({ending})") from None
        except CandidateFailure:
            self.kill()
            raise
        except (ValueError, TypeError) as error:
            self.kill()
            raise CandidateFailure(f"the process sent what is no answer ({error})") from None

    def take_printed(self) -> dict[str, str]:
        """What was printed since the last request."""
        return {name: bytes(text).decode(errors="replace") for name, text in self.printed.items() if text}

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            self.channel.watched.clear()
            self.sandboxed.kill()

    def _reply(self, deadline: float) -> dict:
        while True:
            number, reply = msgpack.unpackb(self.channel.receive(deadline), strict_map_key=False)
            if number == self.number and isinstance(reply, dict):
                return reply

    def _interrupt(self) -> None:
        """Stop what runs; kill the process if it does not stop."""
        try:
            os.kill(self.pid, signal.SIGINT)
            self._reply(time.monotonic() + GRACE_SECONDS)
        except (OSError, Closed, ValueError, TypeError, CandidateFailure):  # TimeoutError is an OSError
            self.kill()

    def _reader(self, descriptor: int, text: bytearray) -> Callable[[], None]:
        def read():
            data = os.read(descriptor, 1 << 16)
            if not data:
                self.channel.watched.pop(descriptor, None)
            text.extend(data)
            if len(text) > self.limits.output_bytes:
                raise CandidateFailure(f"stopped: it printed more than {self.limits.output_bytes:,} bytes")

        return read

    def _ending(self) -> str:
        try:
            status = self.sandboxed.process.wait(timeout=GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return "it closed its connection"
        signal_number = -status if status < 0 else status - 128  # the sandbox reports a signal as 128 + its number
        if signal_number in signal.valid_signals():
            return f"{signal.Signals(signal_number).name}: it crashed, was killed, or used more memory than it may"
        return f"exit status {status}"


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
