"""A control group for a candidate's processes, where the machine lends one: what all of them use together is bounded.

Both versions are known: with the first, memory and processes are two groups, with the second one. Without the right to
make groups only the limits of each single process hold.
"""

import contextlib
import functools
import itertools
import os
import secrets
import time
from pathlib import Path

import psutil

from .sandbox import Limits

ROOT = Path("/sys/fs/cgroup")
PREFIX = "examiner-"
REMOVAL_SECONDS = 2.0
OLD_SECONDS = 600.0  # an older empty group is left over; the process of a younger one may live where it is not seen


class Group:
    """The processes of one candidate."""

    def __init__(self, folders: list[Path]):
        self.folders = folders

    @classmethod
    def create(cls, limits: Limits) -> "Group | None":
        """A group with the limits set, or None where none can be had."""
        name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        for parents in places():
            group = cls([parent / name for parent in parents])
            try:
                group._make(limits)
                return group
            except OSError:
                group.remove()
        return None

    def _make(self, limits: Limits) -> None:
        for folder in self.folders:
            folder.mkdir()
        settings = {
            "memory.max": limits.memory_bytes,
            "memory.limit_in_bytes": limits.memory_bytes,
            "pids.max": limits.processes + 1,  # the keeper counts too
        }
        written = [
            (folder / name).write_text(f"{value}\n")
            for folder in self.folders
            for name, value in settings.items()
            if (folder / name).exists()
        ]
        if len(written) != 2:
            raise FileNotFoundError("a group that bounds memory and processes")

    def add(self, process: int) -> None:
        """Move a process here; those that it starts later follow."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(f"{process}\n")

    def ran_out_of_memory(self) -> bool:
        """Whether the system killed a process because the group was at its limit."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError):
                    counts = dict(line.split() for line in (folder / name).read_text().splitlines())
                    if int(counts.get("oom_kill", 0)):
                        return True
        return False

    def remove(self) -> None:
        """Remove the group; its processes have ended, or are about to."""
        ends = time.monotonic() + REMOVAL_SECONDS
        for folder in self.folders:
            while folder.is_dir():
                try:
                    folder.rmdir()
                except OSError:
                    if time.monotonic() > ends:
                        break
                    time.sleep(0.005)


@functools.cache
def places() -> list[list[Path]]:
    """Where this process may make groups; each place is one folder, or one for memory and one for processes."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()] if ROOT.is_dir() else []
    own = {controller: path.strip("/") for _, names, path in lines for controller in names.split(",")}
    found = []
    if "memory" in own and "pids" in own:
        found.append([ROOT / controller / own[controller] for controller in ("memory", "pids")])
    if "" in own:
        folder = ROOT / own[""]
        found += [[folder], [folder.parent]]
    found = [place for place in found if all(os.access(folder, os.W_OK) for folder in place)]
    for folder in itertools.chain.from_iterable(found):
        _clear(folder)
    return found


def _clear(folder: Path) -> None:
    """Remove the groups of examiners that were killed."""
    for group in folder.glob(f"{PREFIX}*-*"):
        owner = int(group.name.split("-")[1])
        with contextlib.suppress(OSError):
            if not psutil.pid_exists(owner) and time.time() - group.stat().st_mtime > OLD_SECONDS:
                group.rmdir()
