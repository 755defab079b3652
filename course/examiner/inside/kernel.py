"""The candidate's kernel: runs the candidate's cells, and calls their functions for the examiner."""

import contextlib
import ctypes
import functools
import gc
import signal
import sys
import traceback
import types
import warnings

import msgpack
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from .channel import Channel, Closed
from .codec import decode, encode

MAX_TEXT = 20_000  # characters of a traceback or message that are kept
MAX_DISPLAYS = 50
KEPT_TYPES = {"text/plain": 100_000, "image/png": 4_000_000}  # what a display keeps, and the bytes it may have


class Publisher(DisplayPublisher):
    """Keeps what a cell displays."""

    def publish(self, data, **_):
        displays = self.shell.displays
        kept = {kind: data[kind] for kind, limit in KEPT_TYPES.items() if kind in data and len(data[kind]) <= limit}
        if kept and len(displays) < MAX_DISPLAYS:
            displays.append(kept)


class ResultHook(DisplayHook):
    """Keeps the value of a cell's last expression."""

    def write_output_prompt(self):
        pass

    def write_format_data(self, format_dict, md_dict=None):
        self.shell.display_pub.publish(format_dict)


class Shell(InteractiveShell):
    """IPython without a terminal: displays and errors are kept for the reply."""

    def init_display_pub(self):
        self.displays = []
        self.failure = None
        self.display_pub = Publisher(parent=self, shell=self)

    def init_displayhook(self):
        super().init_displayhook()
        self.displayhook = ResultHook(parent=self, shell=self, cache_size=0)
        self.display_trap.hook = self.displayhook

    def _showtraceback(self, etype, evalue, stb):
        self.failure = {
            "name": getattr(etype, "__name__", "Error"),
            "message": text(evalue),
            "traceback": "\n".join(map(str, stb))[-MAX_TEXT:],
        }


def the_shell() -> Shell:
    """The one shell of this process, made at the first call."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    with warnings.catch_warnings(action="ignore"):  # that there is no history
        return Shell.instance(config=config)


class Kernel:
    """Answers the examiner's requests, one at a time."""

    def __init__(self, channel: Channel):
        self.channel = channel
        self.busy = False
        self.functions = {}  # number -> function that crossed
        self.shell = the_shell()
        signal.signal(signal.SIGINT, self.on_interrupt)

    def on_interrupt(self, *_):
        if self.busy:
            raise KeyboardInterrupt("the time limit was reached")

    def serve(self) -> None:
        with contextlib.suppress(Closed):
            while True:
                operation, reply = self.reply_to(self.channel.receive())
                if operation == "bind":  # by now nothing holds the bytes in which the arguments came
                    release_free_memory()
                self.channel.send(reply)

    def reply_to(self, request: bytes) -> tuple[str, bytes]:
        number, operation, arguments = msgpack.unpackb(request, strict_map_key=False)
        return operation, msgpack.packb([number, self.answer(operation, arguments)])

    def answer(self, operation: str, arguments: dict) -> dict:
        try:
            self.busy = True
            operations = {"run": self.run, "look_up": self.look_up, "bind": self.bind, "call": self.call}
            reply = operations[operation](**arguments)
        except KeyboardInterrupt as error:
            reply = {"error": describe(error)}
        finally:
            self.busy = False
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        return reply

    def run(self, source: str) -> dict:
        self.shell.displays, self.shell.failure = [], None
        result = self.shell.run_cell(source, store_history=False)
        error = result.error_before_exec or result.error_in_exec
        if error is not None and self.shell.failure is None:  # IPython could not format its traceback
            self.shell.failure = describe(error)
        return {"displays": self.shell.displays, "error": self.shell.failure}

    def look_up(self, names: list[str]) -> dict:
        return {name: self.find(name) for name in names if name in self.shell.user_ns}

    def find(self, name: str) -> list:
        value = self.shell.user_ns[name]
        try:
            if isinstance(value, types.ModuleType):
                return ["module", value.__name__]
            return ["value", encode(value, self.function_number)]
        except Exception as error:  # an object may also fail in its own way when it is looked at
            return ["opaque", text(error)]

    @contextlib.contextmanager
    def changed_names(self, deleted: list[str], bound: dict):
        """The notebook's names as a test has left them, for as long as a call lasts."""
        names = self.shell.user_ns
        before = {name: names.pop(name) for name in [*deleted, *bound] if name in names}
        names.update(bound)
        try:
            yield
        finally:
            for name in bound:
                names.pop(name, None)
            names.update(before)

    def function_number(self, function) -> int:
        self.functions[len(self.functions)] = function
        return len(self.functions) - 1

    def bind(self, function: int, arguments: bytes) -> dict:
        """Keep a call for later: what it takes to receive the arguments is over when it is made."""
        positional, named = decode(arguments, self.functions.__getitem__)
        bound = functools.partial(self.functions[function], *positional, **named)
        return {"value": encode(bound, self.function_number)}

    def call(self, function: int, arguments: bytes, names: bytes) -> dict:
        try:
            positional, named = decode(arguments, self.functions.__getitem__)
            with self.changed_names(*decode(names, self.functions.__getitem__)):
                return {"value": encode(self.functions[function](*positional, **named), self.function_number)}
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return {"error": describe(error)}


def describe(error: BaseException) -> dict:
    """What the examiner is told of an exception: its builtin classes, message and traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if frame.filename != __file__]
    lines = [*traceback.format_list(theirs), *traceback.format_exception_only(error)]
    return {
        "name": type(error).__name__,
        "classes": [base.__name__ for base in type(error).__mro__ if base.__module__ == "builtins"],
        "message": text(error),
        "traceback": "".join(lines)[-MAX_TEXT:],
    }


def text(value: object) -> str:
    try:
        return str(value)[:MAX_TEXT]
    except Exception:
        return ""


def release_free_memory() -> None:
    """Give free memory back to the system, so that taking it again can be seen from outside."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
