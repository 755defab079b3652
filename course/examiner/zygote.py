"""Starts candidates' processes: each is forked from a warm parent that has imported what candidates import.

The warm parent runs inside the sandbox and reads nothing of a candidate's. For each candidate it forks a keeper, which
gives the candidate's process namespaces of its own: the parent, the keepers and other candidates cannot be seen,
signalled or traced from there. One warm parent serves all threads of a process, and the processes that `adopt` it.
"""

import atexit
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import psutil

from .cgroup import Group
from .inside.keeper import KILLED, STATUS
from .sandbox import ABSENT, INSIDE, Limits, bubblewrap, environment, write_stubs

PRELOAD = ("numpy", "torch", "matplotlib.pyplot")
START_SECONDS = 60.0  # for a warm parent, imports and all
KILL_SECONDS = 10.0
FIRST_UID = 1 << 24  # of candidates' processes under root: each has its own, so that none shares another's limits
CREDENTIALS = struct.Struct("3i")  # process, user and group, as SCM_CREDENTIALS carries them


class StartError(RuntimeError):
    """A candidate's process could not be started; that is no fault of the candidate's."""


@dataclass
class Sandboxed:
    """A started candidate's process, and our ends of what leads to it."""

    process: int  # its number here, outside
    connection: socket.socket
    outputs: dict[str, int]  # "stdout" and "stderr" -> file descriptor to read from
    control: socket.socket  # to its keeper
    group: Group | None
    folder: tempfile.TemporaryDirectory | None  # where it works, if it is not isolated

    def wait(self, seconds: float) -> int | None:
        """Its exit code, negative for a signal, once it has ended; None if it has not within some seconds."""
        self.control.settimeout(seconds)
        try:
            status = self.control.recv(STATUS.size)
        except TimeoutError:
            return None
        if len(status) < STATUS.size:
            return None
        code = os.waitstatus_to_exitcode(*STATUS.unpack(status))
        return KILLED - code if code > KILLED else code

    def kill(self) -> None:
        """End the process, and with it everything that it started; returns when all of it is gone."""
        started = [] if self.folder is None else _descendants(self.process)
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_WR)
            self.control.settimeout(KILL_SECONDS)
            while self.control.recv(64):
                pass
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.control.close()
        self.connection.close()
        for descriptor in self.outputs.values():
            os.close(descriptor)
        if self.group:
            self.group.remove()
        if self.folder:
            self.folder.cleanup()


class Zygote:
    """A warm parent, in the sandbox or, if it is asked for, with no protection at all."""

    def __init__(self, kind: str, absent: tuple[str, ...], preload: tuple[str, ...]):
        self.isolated = kind != "none"
        self.folder = Path(tempfile.mkdtemp(prefix="examiner-"))
        self.path = str(self.folder / "socket")
        stubs = write_stubs(self.folder, absent)
        prefix = bubblewrap(stubs, absent) if self.isolated else []
        variables = {"PATH": os.environ.get("PATH", os.defpath)}
        if not self.isolated:
            variables |= environment(INSIDE.parent, stubs)
        with socket.socket(socket.AF_UNIX) as listener, open(self.folder / "stderr", "w") as stderr:
            listener.bind(self.path)
            listener.listen(128)
            setup = {"listener": listener.fileno(), "preload": preload}
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "inside", json.dumps(setup)],
                stdin=subprocess.PIPE,  # it ends when this closes, as it does when this process ends
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=[listener.fileno()],
                env=variables,
                start_new_session=True,
            )

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """End the warm parent, and with it all candidates' processes in its sandbox."""
        self.process.stdin.close()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


_zygotes: dict[tuple, Zygote] = {}
_adopted: dict[tuple, str] = {}
_lock = threading.Lock()


def warm(kind: str, absent: tuple[str, ...] = ABSENT, preload: tuple[str, ...] = PRELOAD) -> str:
    """The address of this process's warm parent for candidates of this kind, which is started if there is none."""
    key = (kind, absent, preload)
    with _lock:
        if key in _adopted:
            return _adopted[key]
        if key not in _zygotes or not _zygotes[key].lives:
            _zygotes[key] = Zygote(*key)
            atexit.register(_zygotes[key].close)
        return _zygotes[key].path


def adopt(address: str, kind: str, absent: tuple[str, ...] = ABSENT, preload: tuple[str, ...] = PRELOAD) -> None:
    """Let this process use another's warm parent, as long as that other process lives."""
    _adopted[kind, absent, preload] = address


def start(kind: str, limits: Limits, absent: tuple[str, ...] = ABSENT, preload: tuple[str, ...] = PRELOAD) -> Sandboxed:
    """Start a candidate's process; it waits for its files on the connection.

    Raises StartError, with the reason, if it cannot be started.
    """
    address = warm(kind, absent, preload)
    group = Group.create(limits)
    control = socket.socket(socket.AF_UNIX)
    try:
        return _start(address, control, kind != "none", limits, group)
    except OSError as error:
        control.close()
        if group:
            group.remove()
        said = ""
        with contextlib.suppress(OSError):
            said = (Path(address).parent / "stderr").read_text(errors="replace")[-2000:]
        raise StartError(f"a candidate's process did not start: {error}; {said}") from None


def _start(address: str, control: socket.socket, isolated: bool, limits: Limits, group: Group | None) -> Sandboxed:
    control.settimeout(START_SECONDS)
    if hasattr(socket, "SO_PASSCRED"):
        control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    control.connect(address)
    keeper = _sender(control)
    if group:
        group.add(keeper)
    folder = None if isolated else tempfile.TemporaryDirectory(prefix="candidate-", ignore_cleanup_errors=True)
    setup = {
        "isolated": isolated,
        "uid": FIRST_UID + keeper,
        "work": folder and folder.name,
        "reply_bytes": limits.reply_bytes,
        "scratch_bytes": limits.scratch_bytes,
        "rlimits": limits.rlimits(),
    }
    if not isolated:
        setup["rlimits"].pop("RLIMIT_NPROC")  # it would count every process of this user
    ours, theirs = socket.socketpair()
    outputs, ends = zip(os.pipe(), os.pipe(), strict=True)
    socket.send_fds(control, [json.dumps(setup).encode()], [theirs.fileno(), *ends])
    theirs.close()
    for end in ends:
        os.close(end)
    process = _sender(control)
    return Sandboxed(process, ours, dict(zip(("stdout", "stderr"), outputs, strict=True)), control, group, folder)


def _sender(control: socket.socket) -> int:
    """The process number, as it is here, of the process that sends its own; the kernel vouches for it where it can."""
    data, ancillary, _, _ = control.recvmsg(STATUS.size, socket.CMSG_SPACE(CREDENTIALS.size))
    if len(data) < STATUS.size:
        raise ConnectionResetError("the keeper of a candidate's process has ended")
    for _, _, credentials in ancillary:
        return CREDENTIALS.unpack(credentials)[0]
    return STATUS.unpack(data)[0]


def _descendants(process: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process).children(recursive=True)
    return []
