"""Forged replies and results: what the examiner reads is written by somebody else than its own code."""

import nbformat.v4 as nbf

from ..entry import Entry, graded_cells

SOCKETS = """
import os, stat, struct
def sockets():
    for descriptor in range(3, 256):
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode): yield descriptor
        except OSError: pass
"""
# the examiner's own kernel; there is none in stock Jupyter, where such an attack does nothing
KERNEL = """
import gc, sys
found = [thing for thing in gc.get_objects() if type(thing).__name__ == "Kernel" and hasattr(thing, "channel")]
kernel, module = found[0], sys.modules[type(found[0]).__module__]
"""


def outputs_of_success(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            points = str(cell.metadata.get("nbgrader", {}).get("points", 15))
            cell.outputs = [nbf.new_output("execute_result", {"text/plain": points}, execution_count=1)]


def tests_that_print_points(notebook):
    for cell in graded_cells(notebook):
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
        SOCKETS + "for descriptor in sockets(): os.write(descriptor, struct.pack('>QI', 2**63, 0) + b'x' * 1000)",
    ),
    Entry(
        "gigantic-buffers",
        "A reply claims to have a hundred buffers of 2**60 bytes",
        SOCKETS + "for descriptor in sockets(): os.write(descriptor, struct.pack('>QI100Q', 1, 100, *[2**60] * 100))",
    ),
    Entry(
        "replies-in-advance",
        "Replies to the next hundred requests are written before they are asked",
        KERNEL
        + """
found = {"span": ["value", 7.0], "column": ["opaque", ""], "RunningMean": ["module", "statistics"]}
for number in range(100):
    for reply in ({"value": True}, {"found": found}, {"displays": [], "error": None}, {"points": 15, "outputs": []}):
        kernel.channel.send(module.encode([number, reply]))
""",
    ),
    Entry(
        "every-reply-twice",
        "Each reply is sent twice, so that the second could pass for the next",
        KERNEL
        + """
send = type(kernel.channel).send
type(kernel.channel).send = lambda self, message, *a: [send(self, message, *a) for _ in range(2)] and None
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
        SOCKETS + "for descriptor in sockets(): os.write(descriptor, struct.pack('>QI', 1000, 0) + b'x')",
    ),
    Entry(
        "nested-reply",
        "A reply of a million nested lists, and one with keys that cannot be keys",
        SOCKETS
        + """
for message in (b"\\x91" * 1_000_000, b"\\x92\\x01\\x81\\x90\\x01", b"\\xc7\\x00\\xff", b"\\xd6\\xff\\0\\0\\0\\0"):
    for descriptor in sockets(): os.write(descriptor, struct.pack(">QI", len(message), 0) + message)
""",
    ),
    Entry(
        "reply-fields-are-numbers",
        "Every field of every reply becomes the number 7",
        KERNEL + "real = kernel.answer\nkernel.answer = lambda *a: {name: 7 for name in (*real(*a), 'error')}",
    ),
    Entry(
        "reply-fields-are-lists",
        "Every field of every reply becomes a list of mappings of lists",
        KERNEL
        + """
real = kernel.answer
kernel.answer = lambda *a: dict.fromkeys(real(*a), [[], {"text/plain": []}, {"image/png": 5}, {"name": {}}])
""",
    ),
    Entry(
        "names-that-were-not-asked-for",
        "The reply names things that the test did not ask for: the interpreter's own, and the test's",
        KERNEL
        + """
real = kernel.answer
names = ("abs", "isinstance", "len", "list", "torch", "npt", "TOLERANCE", "AssertionError", "__builtins__", "mean")
def answer(*a):
    reply = real(*a)
    if "found" in reply: reply["found"].update({name: ["value", 10.0**9] for name in names})
    return reply
kernel.answer = answer
""",
    ),
    Entry(
        "handles-forged",
        "Objects are told of that are not there, under kinds and names that lie",
        KERNEL
        + """
import itertools
kinds = itertools.cycle(["class", "callable", "object", "iterator", "torch.Tensor", 5])
kernel.handles.give = lambda thing: [2**62, next(kinds), "torch.Tensor"]
span = RunningMean = object()
""",
        cells={"column": "column = object()", "running": "", "quantize": "quantize = object()", "span": ""},
    ),
    Entry(
        "encoder-replaced",
        "Whatever encodes values encodes the answer True",
        KERNEL
        + """
real = module.encode
def encode(value, *a):
    number, reply = value
    return real([number, {name: True for name in reply}])
module.encode = encode
""",
    ),
    Entry(
        "kernel-patched",
        "The methods that call functions for the examiner answer True",
        KERNEL
        + """
for name in ("call", "look_up", "apply", "find"):
    setattr(kernel, name, lambda *a, **k: {"value": True, "found": {"span": ["value", True]}})
""",
    ),
    Entry(
        "points-as-result",
        "The functions publish their own points as the result of the cell",
        cells={
            name: f"import sys\n{code}\n    sys.displayhook({points})\n    return None"
            for name, code, points in (
                ("span", "def span(values):", 1),
                ("column", "def column(path, name):", 2),
                ("running", "class RunningMean:\n  value = 0.0\n  def add(self, number):", 4),
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
