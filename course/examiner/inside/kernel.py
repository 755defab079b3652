"""The candidate's kernel: runs the candidate's cells, and calls their functions for the examiner."""

import builtins
import contextlib
import signal
import sys
import traceback
import types
import warnings

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from . import channel, codec, objects
from .channel import Channel, Closed, Message
from .codec import CannotCross, decode, encode
from .objects import OPERATIONS, Handles, handle

MAX_TEXT = 20_000  # characters of a traceback or message that are kept
MAX_DISPLAYS = 50
MAX_DISPLAYED = 8_000_000  # characters of all displays of a cell
OWN_FILES = {__file__, channel.__file__, codec.__file__, objects.__file__}
KEPT_TYPES = {"text/plain": 100_000, "image/png": 4_000_000}  # what a display keeps, and the bytes it may have


class Publisher(DisplayPublisher):
    """Keeps what a cell displays."""

    def publish(self, data, **_):
        displays = self.shell.displays
        strings = {kind: data[kind] for kind in KEPT_TYPES if isinstance(data.get(kind), str)}
        kept = {kind: valid(part) for kind, part in strings.items() if len(part) <= KEPT_TYPES[kind]}
        displayed = sum(len(part) for display in displays for part in display.values())
        if kept and len(displays) < MAX_DISPLAYS and displayed < MAX_DISPLAYED:
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

    def enable_gui(self, gui=None):
        """`%matplotlib` asks for this; there is no window to draw in, and plots are drawn all the same."""

    def _showtraceback(self, etype, evalue, stb):
        self.failure = {
            "name": text(getattr(etype, "__name__", "Error")),
            "message": text(evalue),
            "traceback": valid("\n".join(map(str, stb))[-MAX_TEXT:]),
        }


def no_input(prompt: object = "", /) -> str:
    raise EOFError("input() has nobody to ask while a submission is graded")


def the_shell() -> Shell:
    """The one shell of this process, made at the first call."""
    builtins.input = no_input
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
        self.handles = Handles()
        self.shell = the_shell()
        signal.signal(signal.SIGINT, self.on_interrupt)

    def on_interrupt(self, *_):
        if self.busy:
            raise KeyboardInterrupt("the time limit was reached")

    def serve(self) -> None:
        with contextlib.suppress(Closed):
            while True:
                self.channel.send(self.reply_to(self.channel.receive()))

    def reply_to(self, request: Message) -> Message:
        number, operation, arguments = decode(request, self.handles.take)
        try:
            self.busy = True
            reply = encode([number, self.answer(operation, arguments)], self.handles.give)
        except BaseException as error:
            self.busy = False
            reply = encode([number, {"error": describe(error)}])
        self.busy = False
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        return reply

    def answer(self, operation: str, arguments: dict) -> dict:
        self.handles.release(arguments.pop("dead"))
        operations = {"run": self.run, "look_up": self.look_up, "apply": self.apply}
        return operations[operation](**arguments)

    def run(self, source: str) -> dict:
        self.shell.displays, self.shell.failure = [], None
        result = self.shell.run_cell(source, store_history=False)
        error = result.error_before_exec or result.error_in_exec
        if error is not None and self.shell.failure is None:  # IPython could not format its traceback
            self.shell.failure = describe(error)
        return {"displays": self.shell.displays, "error": self.shell.failure}

    def look_up(self, names: list[str]) -> dict:
        return {"found": {name: self.find(name) for name in names if name in self.shell.user_ns}}

    def find(self, name: str) -> list:
        value = self.shell.user_ns[name]
        try:
            if issubclass(type(value), types.ModuleType):
                return ["module", value.__name__]
            encode(value, lambda part: handle(0, part))  # a trial: what fails must not spoil the other names
            return ["value", value]
        except CannotCross as error:
            return ["opaque", text(error)]
        except BaseException as error:
            return ["opaque", f"an object that fails when it is looked at ({type(error).__name__}: {text(error)})"]

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

    def apply(self, operation: str, arguments: list, keywords: dict, names: tuple[list, dict]) -> dict:
        """Do one of the operations on objects, with the notebook's names as the test has left them."""
        try:
            with self.changed_names(*names):
                return {"value": OPERATIONS[operation](*arguments, **keywords)}
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return {"error": describe(error)}


def describe(error: BaseException) -> dict:
    """What the examiner is told of an exception: its builtin classes, message and traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if frame.filename not in OWN_FILES]
    lines = [*traceback.format_list(theirs), *traceback.format_exception_only(error)]
    return {
        "name": valid(named(type(error))),
        "classes": [base.__name__ for base in type(error).__mro__ if base.__module__ == "builtins"],
        "message": text(error),
        "traceback": valid("".join(lines)[-MAX_TEXT:]),
    }


def named(kind: type) -> str:
    """The name of an exception class, with its module where the name alone says little: struct.error."""
    return kind.__name__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"


def text(value: object) -> str:
    try:
        return valid(str(value)[:MAX_TEXT])
    except Exception:
        return ""


def valid(string: str) -> str:
    """The string without what no encoding can hold."""
    return string.encode("utf-8", "replace").decode()
