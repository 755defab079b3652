"""Using up what the machine has: time, memory, processes, disk, output, the patience of whoever formats a traceback.

Every attack is bounded by itself too, so that a sandbox that fails does not take the machine with it.
"""

import nbformat.v4 as nbf

from ..entry import MAX_POINTS, Entry

SPAN = MAX_POINTS - 1  # points of an entry that loses the first exercise
BIG = 64 << 20


def slow_cells(notebook):
    """After all else, cells that take together longer than a submission may."""
    notebook.cells += [nbf.new_code_cell("import time\ntime.sleep(2)") for _ in range(9)]


def in_span(name: str, does: str, body: str, **details) -> Entry:
    """An attack in the first exercise's function; its result is wrong in any case."""
    code = body.strip("\n").replace("\n", "\n    ")
    guard = "import os\n    assert os.getuid() >= 65534\n    " if details.get("confined") else ""
    details = {"points": SPAN, "cells": {"span": f"def span(values):\n    {guard}{code}\n    return 0.0"}, **details}
    return Entry(name, does, **{**details, "confined": False})


ENTRIES = [
    in_span("endless-loop", "A function never returns", "while True: pass", says="time|longer than|seconds"),
    Entry(
        "endless-cell",
        "A cell never ends, so that its function is not defined",
        points=SPAN,
        cells={"span": "while True: pass\n$RIGHT"},
        says="longer than|limit",
    ),
    in_span(
        "deaf-sleep",
        "A function ignores interrupts, and sleeps",
        """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try: time.sleep(1000)
    except BaseException: pass
""",
    ),
    in_span("long-arithmetic", "One operation of C code takes an hour", "return 3.0 ** 0 * (7 ** (10**9)) % 2"),
    in_span(
        "exploding-pattern",
        "A regular expression takes exponential time",
        "import re\nreturn re.match('(a+)+$$', 'a' * 64 + 'b')",
    ),
    in_span(
        "endless-getattr",
        "Looking at an attribute of the result never ends",
        """
class Slow:
    def __getattribute__(self, name):
        while True: pass
return Slow()
""",
    ),
    in_span(
        "endless-message",
        "The text of an exception never ends",
        """
class Endless(Exception):
    def __str__(self):
        while True: pass
raise Endless
""",
    ),
    Entry(
        "slow-all-along",
        "Cells after the last test take longer than the whole submission may",
        points=MAX_POINTS,
        right=True,
        edit=slow_cells,
    ),
    in_span("recursion", "A function calls itself for ever", "return span(values)", says="recursion"),
    in_span(
        "deep-recursion",
        "The limit of recursion is lifted, until the stack overflows",
        "import sys\nsys.setrecursionlimit(10**8)\ndef f(n): return f'{f(n + 1)}' + str([f(n)])\nreturn f(0)",
    ),
    in_span(
        "memory",
        "A function takes memory, and uses it",
        f"""
import torch
kept = []
for _ in range(100): kept.append(bytearray(b"x") * {BIG})
""",
        confined=True,
        says="memory",
    ),
    in_span(
        "memory-at-once",
        "A tensor of a terabyte is asked for",
        "return torch.empty(2**40, dtype=torch.uint8)",
        says="memory|alloc",
    ),
    in_span(
        "memory-of-many",
        "Eight processes take each as much as one may",
        f"""
import os, time
for _ in range(8):
    if os.fork() == 0:
        kept = []
        try:
            for _ in range(10): kept.append(bytearray(b"x") * {BIG})
            time.sleep(20)
        finally: os._exit(0)
time.sleep(1)
""",
        confined=True,
    ),
    in_span(
        "fork-bomb",
        "Processes start processes, a thousand at most",
        """
import os, time
end = time.monotonic() + 10
for _ in range(10):
    try: os.fork()
    except OSError: pass
while time.monotonic() < end: time.sleep(0.2)
if os.getpid() != 0: raise SystemExit
""",
        confined=True,
    ),
    in_span(
        "threads",
        "A thousand threads that never end",
        """
import threading, time
for _ in range(1000): threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
""",
        confined=True,
    ),
    in_span(
        "flood",
        "A function prints for ever",
        "while True: print('flood ' * 100)",
        says="print|output|bytes",
    ),
    in_span(
        "flood-of-errors",
        "The error stream is filled, by a process of its own, without a line's end",
        "import subprocess\nsubprocess.run('yes | tr -d \"\\\\n\" >&2', shell=True, timeout=20)",
        says="print|output|bytes",
    ),
    in_span("one-line", "One line of 50 MB is printed", "print('x' * 50_000_000)", says="print|output|bytes"),
    in_span("large-reply", "A tensor of 200 MB is returned", "return torch.zeros(50_000_000)"),
    in_span("large-number", "A number of 40 million bits is returned", "return 1 << 40_000_000"),
    in_span(
        "large-message",
        "An exception's text has 100 MB, and a chain of 300 more before it",
        """
error = None
for _ in range(300):
    try: raise ValueError("x" * 1000) from error
    except ValueError as one: error = one
raise ValueError("x" * 100_000_000) from error
""",
    ),
    in_span(
        "scratch-filled",
        "The working folder is filled with files",
        """
for number in range(200):
    with open(f"fill-{number}", "wb") as file: file.write(b"x" * 4_000_000)
""",
        confined=True,
    ),
    in_span(
        "shared-memory-filled",
        "/dev/shm and /tmp are filled",
        """
for folder in ("/dev/shm", "/tmp", "/var/tmp"):
    try:
        for number in range(100):
            with open(f"{folder}/$TOKEN-{number}", "wb") as file: file.write(b"x" * 4_000_000)
    except OSError: pass
""",
        confined=True,
    ),
    in_span(
        "one-large-file", "One file grows to 200 MB", "open('large', 'wb').write(b'x' * 200_000_000)", confined=True
    ),
    in_span(
        "many-files",
        "A hundred thousand empty files",
        "for number in range(100_000): open(f'{number}', 'w').close()",
        confined=True,
    ),
    in_span(
        "many-descriptors",
        "Files are opened until none can be, so that the next exercise cannot read its file either",
        "import os\nkept = [os.dup(1) for _ in range(1_000_000)]",
        points=SPAN - 2,
    ),
    in_span(
        "many-displays",
        "A hundred thousand pictures are shown",
        "from IPython.display import display\nfor _ in range(100_000): display({'text/plain': 'x' * 1000}, raw=True)",
    ),
    in_span(
        "zombies",
        "Children that ended are never waited for",
        "import os\nfor _ in range(1000):\n    if os.fork() == 0: os._exit(0)",
        confined=True,
    ),
]
