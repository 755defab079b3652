"""One keeper stands between the warm parent and one candidate's process: it forks it, waits for it, and ends it.

Over `control` it says its process number, takes the setup and three files (the connection, stdout, stderr), lets the
candidate's process say its number, and says how that process ended. When `control` closes, it ends it.
"""

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable

from .channel import Channel
from .codec import decode, encode
from .confine import FOLDERS, NOBODY, confine, limit_resources, own_namespaces

KILLED = 128  # plus the signal: how the first process of a namespace says that the candidate's was killed
STATUS = struct.Struct("i")  # a process number, or how a process ended as waitpid gives it


def keep(control: socket.socket) -> None:
    """Keep one candidate's process from its start to its end."""
    say_number(control)
    message, files, _, _ = socket.recv_fds(control, 1 << 16, 3)
    if not message:
        return
    setup = json.loads(message)

    def run() -> None:
        become_candidate(control, setup, files)

    if setup["isolated"]:
        own_namespaces()
        wait(control, fork(lambda: be_first(setup["uid"], setup["scratch_bytes"], run)))
    else:
        wait(control, fork(run))


def say_number(control: socket.socket) -> None:
    """Send this process's number; outside, where it has another, the kernel tells which."""
    control.sendall(STATUS.pack(os.getpid()))


def fork(run: Callable[[], None]) -> int:
    """The number of a new process that runs a function and ends; what it raises is told on its stderr."""
    number = os.fork()
    if number:
        return number
    try:
        run()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def wait(control: socket.socket, candidate: int) -> None:
    """Wait until the candidate's process has ended, or end it when nobody listens; then say how it ended."""
    awake, wake = socket.socketpair()
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())
    while os.waitid(os.P_PID, candidate, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        ready, _, _ = select.select([control, awake], [], [])
        if awake in ready:
            awake.recv(64)
        if control in ready:
            end(candidate)
            break
    _, status = os.waitpid(candidate, 0)
    with contextlib.suppress(OSError):
        control.sendall(STATUS.pack(status))


def end(candidate: int) -> None:
    """Kill the candidate's process; where it is the first of a namespace, all in there end with it."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(candidate, signal.SIGKILL)


def be_first(uid: int, scratch_bytes: int, run: Callable[[], None]) -> None:
    """Shut this process in, as the first of its namespace, and wait there for the candidate's process, its child.

    The first process of a namespace takes in orphans, and is hard to signal: a candidate's process could not even crash
    as it would elsewhere.
    """
    confine(scratch_bytes, uid)
    candidate = fork(run)
    os.closerange(0, os.sysconf("SC_OPEN_MAX"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ended, status = os.wait()
    while ended != candidate:
        ended, status = os.wait()
    code = os.waitstatus_to_exitcode(status)
    os._exit(KILLED - code if code < 0 else code)


def become_candidate(control: socket.socket, setup: dict, files: list[int]) -> None:
    """Take the files, and answer the examiner's requests."""
    from .kernel import Kernel

    say_number(control)
    os.setsid()
    channel = Channel(socket.socket(fileno=take(files)), setup["reply_bytes"])
    work = FOLDERS["work"] if setup["isolated"] else setup["work"]
    os.environ["HOME"] = work
    os.chdir(work)
    write_files(decode(channel.receive()))
    limit_resources(setup["rlimits"])
    sys.path.insert(0, work)
    kernel = Kernel(channel)
    channel.send(encode([0, {}]))
    kernel.serve()


def take(files: list[int]) -> int:
    """The number of the connection, after the given files took their places and all others were closed."""
    connection, stdout, stderr = files
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.dup2(connection, 3)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    return 3


def write_files(files: dict[str, bytes]) -> None:
    for name, data in files.items():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "wb") as file:
            file.write(data)


def trial() -> None:
    """Show whether this machine allows what `become_candidate` needs; raises OSError where it does not."""
    own_namespaces()
    candidate = fork(lambda: confine(1 << 20, NOBODY))
    _, status = os.waitpid(candidate, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    trial()
