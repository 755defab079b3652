"""How a forked process shuts itself in: namespaces, a scratch folder, limits, no privilege, fewer system calls.

The calls are those of Linux's man pages unshare(2), mount(2), prctl(2), capset(2), user_namespaces(7).
"""

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

from . import seccomp

NOBODY = 65534
SCRATCH = "/scratch"  # what a candidate may write: the folders below, of one size together
FOLDERS = {"work": "/scratch/work", "tmp": "/tmp", "shm": "/dev/shm"}  # folder in SCRATCH -> where it is seen
MAX_FILES = 20_000
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
NOSUID, NODEV, NOEXEC, READ_ONLY, BIND, RECURSIVE, PRIVATE = 2, 4, 8, 1, 4096, 16384, 1 << 18
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, AMBIENT_CLEAR = 4, 24, 38, 47, 4
CAPABILITY_VERSION = 0x20080522


def own_namespaces() -> None:
    """Give the processes that this one will fork their own view of processes, mounts, network, and shared memory.

    Without root's privilege this needs a user namespace, in which this process then has all privileges.
    """
    flags = NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS
    if os.geteuid() == 0:
        _call("unshare", flags)
        return
    uid, gid = os.geteuid(), os.getegid()
    _call("unshare", flags | NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} {gid} 1")


def confine(scratch_bytes: int, uid: int) -> None:
    """Shut this process in, as `uid` where it is root; it must be the first in the namespaces of `own_namespaces`."""
    _mount(None, "/", None, RECURSIVE | PRIVATE)
    _mount("tmpfs", SCRATCH, "tmpfs", NOSUID | NODEV, f"size={scratch_bytes},nr_inodes={MAX_FILES},mode=0755")
    for name, place in FOLDERS.items():
        folder = f"{SCRATCH}/{name}"
        os.mkdir(folder)
        os.chmod(folder, 0o1777)
        if place != folder:
            _keep_installation(place, folder)
            _mount(folder, place, None, BIND | RECURSIVE)
    _mount_or_empty("proc", "/proc", NOSUID | NODEV | NOEXEC)
    _mount_or_empty("devpts", "/dev/pts", NOSUID | NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
    drop_privileges(uid)
    seccomp.install()


def _keep_installation(place: str, folder: str) -> None:
    """Show Python's installation in the folder that will cover a place, if it lies below that place."""
    for installed in sorted({sys.prefix, sys.base_prefix, *map(os.path.realpath, (sys.prefix, sys.base_prefix))}):
        if installed.startswith(f"{place}/"):
            copy = folder + installed.removeprefix(place)
            os.makedirs(copy, exist_ok=True)
            _mount(installed, copy, None, BIND | RECURSIVE)


def drop_privileges(uid: int) -> None:
    """Give up every privilege for good."""
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with contextlib.suppress(OSError):  # past the kernel's last capability
        for capability in range(64):
            _call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    _call("prctl", PR_CAP_AMBIENT, AMBIENT_CLEAR, 0, 0, 0)
    _call("capset", (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)())
    _call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)  # its own /proc/self stays readable


def limit_resources(limits: dict[str, int]) -> None:
    """Set this process's limits for good: without privileges a hard limit cannot be raised again."""
    for name, value in limits.items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _mount_or_empty(kind: str, place: str, flags: int, options: str | None = None) -> None:
    """Mount a file system of one's own; where the machine refuses, nothing is seen there instead of the parent's."""
    try:
        _mount(kind, place, kind, flags, options)
    except PermissionError:
        _mount("tmpfs", place, "tmpfs", NOSUID | NODEV | NOEXEC | READ_ONLY)


def _mount(what: str | None, place: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [text.encode() if text else None for text in (what, place, kind, options)]
    _call("mount", *texts[:3], ctypes.c_ulong(flags), texts[3])


def _call(function: str, *arguments) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
