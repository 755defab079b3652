"""Forged replies and results: what the examiner reads is written by somebody else than its own code."""

import nbformat.v4 as nbf

from ..entry import Entry, tests

SOCKETS = """
import os, stat, struct
def sockets():
    for descriptor in range(3, 256):
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode): yield descriptor
        except OSError: pass
"""
TWIST = """
import msgpack
real = msgpack.packb
def twisted(value, *a, **k):
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = [*value[:-1], {name: TWISTED for name in value[-1]}]
    return real(value, *a, **k)
msgpack.packb = twisted
"""


def outputs_of_success(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            points = str(cell.metadata.get("nbgrader", {}).get("points", 15))
            cell.outputs = [nbf.new_output("execute_result", {"text/plain": points}, execution_count=1)]


def tests_that_print_points(notebook):
    for cell in tests(notebook):
        cell.source = str(cell.metadata.nbgrader.points)


ENTRIES = [
    Entry(
        "garbage-replies",
        "Random bytes go to every socket that the process has",
        SOCKETS + "for descriptor in sockets(): os.write(descriptor, os.urandom(5000))",
    ),
    Entry(
        "gigantic-length",
        "A reply claims to have 2**63 bytes",
        SOCKETS + "for descriptor in sockets(): os.write(descriptor, struct.pack('>Q', 2**63) + b'x' * 1000)",
    ),
    Entry(
        "replies-in-advance",
        "Replies to the next hundred requests are written before they are asked",
        SOCKETS
        + """
import msgpack
for number in range(100):
    for reply in ({"value": True, "error": None}, {"points": 15, "outputs": [], "displays": []}):
        message = msgpack.packb([number, reply])
        for descriptor in sockets(): os.write(descriptor, struct.pack(">Q", len(message)) + message)
""",
    ),
    Entry(
        "old-replies-again",
        "Every message that the kernel writes is written twice",
        """
import socket
real = socket.socket.send
def twice(self, data, *a):
    real(self, data, *a)
    return real(self, data, *a)
import gc
for kind in [kind for kind in gc.get_objects() if isinstance(kind, type) and "Channel" in kind.__name__]:
    send = kind.send
    kind.send = lambda self, message, *a, send=send: [send(self, message, *a) for _ in range(2)] and None
""",
    ),
    Entry(
        "sockets-closed",
        "Every descriptor is closed",
        "import os\nos.closerange(0, 256)",
    ),
    Entry(
        "sockets-replaced",
        "Every descriptor is replaced by a pipe that nobody empties",
        SOCKETS
        + """
reader, writer = os.pipe()
for descriptor in [0, 1, 2, *sockets()]: os.dup2(writer, descriptor)
""",
    ),
    Entry(
        "half-a-reply",
        "A reply begins, and never ends",
        SOCKETS + "for descriptor in sockets(): os.write(descriptor, struct.pack('>Q', 1000) + b'x')",
    ),
    Entry(
        "nested-reply",
        "A reply of a million nested lists, and one with keys that cannot be keys",
        SOCKETS
        + """
for message in (b"\\x91" * 1_000_000, b"\\x92\\x01\\x81\\x90\\x01", b"\\xc7\\x00\\xff", b"\\xd6\\xff\\0\\0\\0\\0"):
    for descriptor in sockets(): os.write(descriptor, struct.pack(">Q", len(message)) + message)
""",
    ),
    Entry(
        "reply-fields-are-numbers",
        "Every field of every reply becomes the number 7",
        TWIST.replace("TWISTED", "7"),
    ),
    Entry(
        "reply-fields-are-lists",
        "Every field of every reply becomes a list of mappings of lists",
        TWIST.replace("TWISTED", "[[], {'text/plain': []}, {'image/png': 5}]"),
    ),
    Entry(
        "encoder-replaced",
        "Whatever encodes values encodes the answer True",
        """
import sys
for name, module in list(sys.modules.items()):
    if getattr(module, "encode", None) and getattr(module, "decode", None) and "msgpack" in dir(module):
        module.encode = lambda *a, **k: b"\\xc3"
        module.decode = lambda *a, **k: ((), {})
for module in list(sys.modules.values()):
    if type(getattr(module, "encode", None)).__name__ == "function" and "kernel" in module.__name__:
        module.encode = lambda *a, **k: b"\\xc3"
""",
    ),
    Entry(
        "kernel-object-found",
        "gc finds the kernel, whose methods then answer True",
        """
import gc
for thing in gc.get_objects():
    if type(thing).__name__ in ("Kernel", "IPythonKernel"):
        for name in ("call", "look_up", "get", "invoke"):
            setattr(thing, name, lambda *a, **k: {"value": b"\\xc3"})
""",
    ),
    Entry(
        "points-as-result",
        "The functions publish their own points as the result of the cell",
        """
import sys
""",
        cells={
            name: f"{code}\n    from IPython import get_ipython\n    get_ipython().displayhook({points})\n    return None"
            for name, code, points in (
                ("span", "def span(values):", 1),
                ("column", "def column(path, name):", 2),
                ("running", "class RunningMean: value = 0.0\ndef running_means(numbers):", 4),
                ("quantize", "def quantize(x, bits):", 8),
            )
        },
    ),
    Entry(
        "points-published",
        "Messages of execution results go out on the kernel's own channel",
        """
kernel = getattr(get_ipython(), "kernel", None)
def publish(*a):
    content = {"data": {"text/plain": "15"}, "metadata": {}, "execution_count": 1}
    kernel.session.send(kernel.iopub_socket, "execute_result", content, parent=kernel.get_parent(), ident=b"")
if kernel: get_ipython().events.register("pre_run_cell", publish)
""",
    ),
    Entry(
        "errors-cleared",
        "What was published of a test is taken back with clear_output",
        """
from IPython.display import clear_output
get_ipython().events.register("post_run_cell", lambda *a: clear_output())
get_ipython().events.register("post_execute", lambda *a: clear_output())
""",
    ),
    Entry(
        "stored-results",
        "The file holds outputs of success for all tests",
        edit=outputs_of_success,
    ),
    Entry(
        "tests-that-are-numbers",
        "The test cells hold nothing but their points",
        edit=tests_that_print_points,
    ),
]
