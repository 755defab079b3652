"""What an attack must not touch: files, sockets, processes and secrets around a run, and whether they were."""

import contextlib
import ctypes
import os
import secrets
import socket
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import psutil

from .entry import Place

SHARED = [Path(path) for path in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/root", "/etc", "/usr/local")]
STEPS = ("source", "release", "submitted", "nbgrader_config.py")  # what grading reads, and must not change
OUR_OWN = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")  # Python's helpers, which stay
PR_SET_CHILD_SUBREAPER = 36
SECONDS_TO_END = 10.0
IPC_CREAT, IPC_RMID = 0o1600, 0  # readable by the user only
ACTIVE = {"script", "iframe", "object", "embed", "base", "meta", "form", "style", "link", "svg"}


class Canaries:
    """Secrets and traps around a course directory, from `with` to its end; `problems()` tells what was touched."""

    def __init__(self, course: Path):
        self.token = f"planted-{secrets.token_hex(4)}"
        self.course = course
        self.listeners: list[socket.socket] = []
        self.open = contextlib.ExitStack()

    def __enter__(self) -> "Canaries":
        self._listen()
        self.place = Place(self.course, self.token, self.listeners[0].getsockname()[1])
        secret = f"secret-of-{self.token}"
        os.environ["SECRET_OF_THE_EXAMINER"] = secret
        self.open.callback(os.environ.pop, "SECRET_OF_THE_EXAMINER")
        self.secrets = [Path("/tmp", self.token), Path("/dev/shm", self.token), Path.home() / f".{self.token}"]
        for path in self.secrets:
            path.write_text(secret)
            self.open.callback(path.unlink, missing_ok=True)
        self.libc = ctypes.CDLL(None)
        segment = self.libc.shmget(0, 4096, IPC_CREAT)
        self.open.callback(self.libc.shmctl, segment, IPC_RMID, None)
        # orphans of this process's descendants become its own children, and can be counted
        self.libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.open.callback(self.libc.prctl, PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        self.children = set(psutil.Process().children(recursive=True))
        return self

    def __exit__(self, *_) -> None:
        self.open.close()

    def handed_in(self) -> None:
        """From now on the course's own files must not change."""
        self.status = self._status()

    def problems(self, seconds: float = SECONDS_TO_END) -> list[str]:
        """Sentences that name what was touched, or is left; processes have some seconds to end."""
        found = [f"a process is left: {text}" for text in self._survivors(seconds)]
        found += [f"a file was left: {path}" for path in self._planted()]
        found += [f"{self.token} is left in {path}" for path in self._lists_with_token()]
        found += [f"{path} was changed" for path in sorted({path for path, _ in self._status() ^ self.status})]
        found += [f"{path} was changed" for path in self.secrets if "secret-of" not in path.read_text()]
        return found + [f"{kind} was reached" for kind in self._reached()]

    def _listen(self) -> None:
        self.listeners = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
        self.listeners[1].bind(self.listeners[0].getsockname())
        door = self.course.parent / "door"
        self.open.callback(door.unlink)
        for address in (f"\0{self.token}", str(door)):
            server = socket.socket(socket.AF_UNIX)
            server.bind(address)
            server.listen()
            self.listeners.append(server)
        for server in self.listeners:
            server.setblocking(False)
            self.open.callback(server.close)

    def _reached(self) -> list[str]:
        kinds = ("the TCP port", "the UDP port", "the socket without a file", "the socket with a file")
        reached = []
        for kind, server in zip(kinds, self.listeners, strict=True):
            with contextlib.suppress(BlockingIOError):
                server.recv(100) if server.type == socket.SOCK_DGRAM else server.accept()[0].close()
                reached.append(kind)
        return reached

    def _status(self) -> set[tuple[str, tuple]]:
        paths = [path for step in STEPS for path in everything_below(self.course / step)]
        states = [os.lstat(path) for path in paths]
        return {(path, (it.st_mode, it.st_size, it.st_mtime_ns)) for path, it in zip(paths, states, strict=True)}

    def _planted(self) -> list[str]:
        places = [*SHARED, Path.home(), Path.cwd(), Path(sys.prefix), self.course, self.course.parent]
        places += [Path(path) for path in sys.path if path.endswith("site-packages")]
        readable = [place for place in places if os.access(place, os.R_OK | os.X_OK)]
        found = {entry.path for place in readable for entry in os.scandir(place) if self.token in entry.name}
        found |= {path for path in everything_below(self.course) if self.token in path}
        return sorted(found - set(map(str, self.secrets)))

    def _lists_with_token(self) -> list[str]:
        """Sockets without a file, and keys, that bear the token but are not this object's own."""
        sockets = [line for line in Path("/proc/net/unix").read_text().splitlines() if f"@{self.token}" in line]
        keys = Path("/proc/keys").read_text() if Path("/proc/keys").is_file() else ""
        found = ["/proc/net/unix"] * any(not line.endswith(self.token) for line in sockets)
        return found + ["/proc/keys"] * (self.token in keys)

    def end_survivors(self) -> None:
        for process in self._descendants():
            process.kill()

    def _survivors(self, seconds: float) -> list[str]:
        end = time.monotonic() + seconds
        while (left := self._descendants()) and time.monotonic() < end:
            time.sleep(0.2)
        return [f"{process.pid} {command(process)[:200]}" for process in left]

    def _descendants(self) -> list[psutil.Process]:
        new = set(psutil.Process().children(recursive=True)) - self.children
        return [process for process in new if lives(process) and not any(name in command(process) for name in OUR_OWN)]


def everything_below(top: Path) -> list[str]:
    """The paths of a file or folder and all below it that can be reached, links not followed."""
    below = [os.path.join(place, name) for place, folders, files in os.walk(top) for name in (*folders, *files)]
    return [str(top), *sorted(path for path in below if len(path) < 4096)]


def lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


class Markup(HTMLParser):
    """Finds markup in a page that would run or load something that a candidate wrote."""

    def __init__(self, token: str):
        super().__init__()
        self.token = token
        self.inside = ""
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        for name, value in attrs:
            text = (value or "").strip()
            runs = name.startswith("on") or text.lower().startswith(("javascript:", "data:text/html", "data:image/svg"))
            if self.token in text and (runs or tag in ACTIVE):
                self.found.append(f"<{tag} {name}={text[:80]!r}>")

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.token in data and self.inside in ACTIVE:
            self.found.append(f"<{self.inside}> {data.strip()[:80]!r}")


def active_markup(page: str, token: str) -> list[str]:
    """What of a candidate's, marked by the token, a browser would run on this page."""
    markup = Markup(token)
    markup.feed(page)
    return markup.found
