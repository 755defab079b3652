"""The warm parent: it imports what candidates will import, then forks a keeper for each of them.

It reads nothing that a candidate wrote. This folder stands alone: nothing else of the course is needed, or can be seen,
in the sandbox.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys

from .keeper import fork, keep
from .kernel import the_shell


def warm_up(modules: list[str]) -> None:
    """Import what candidates will import, as far as it is installed, and make the shell that each of them gets."""
    for module in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    os.environ.pop("MPLCONFIGDIR", None)  # matplotlib's, for a home that cannot be written here
    the_shell().run_cell("pass", store_history=False)
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy every page that it looks at


def reseed() -> None:
    """Let forked processes draw different numbers, as freshly started ones would."""
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()


def main() -> None:
    setup = json.loads(sys.argv[1])
    listener = socket.socket(fileno=setup["listener"])
    warm_up(setup["preload"])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers that have ended vanish
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:  # closed: whoever started this process is gone
            return
        control, _ = listener.accept()
        fork(lambda control=control: start_keeper(listener, control))
        control.close()


def start_keeper(listener: socket.socket, control: socket.socket) -> None:
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    reseed()
    keep(control)


if __name__ == "__main__":
    main()
    os._exit(0)
