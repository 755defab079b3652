"""What a candidate's process may see and use: the view of the file system that bubblewrap makes, and the limits.

In the sandbox there is no network, no file of the host but the Python installation and the system's libraries
(read-only), one scratch folder in memory, no environment variable, no other process, no privilege. The modules that
hold the answers are absent. How processes are started there is told in zygote.py.
"""

import importlib.util
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

from .inside.confine import FOLDERS, MAX_FILES, NOBODY, SCRATCH

INSIDE = Path(__file__).parent / "inside"  # the only part of the course that the sandbox holds
# places in the sandbox
PACKAGE_FOLDER, STUBS = "/opt/examiner", "/opt/absent"
SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin")
SYSTEM += ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")
NEEDED_BY_ROOT = ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "KILL")  # until a candidate's process has dropped it all
MiB, GiB = 1 << 20, 1 << 30

ABSENT = ("quant_kernels", "course", "gguf", "llama_cpp", "bitsandbytes", "torchao", "nbgrader")
ABSENT_MODULE = """raise ImportError(
    "`{name}` is not available while a submission is graded: the exercises ask you to write what it holds. "
    "Cells tagged `experiment`, which grading does not run, may use it."
)
"""


class SandboxError(RuntimeError):
    """The sandbox cannot be had on this machine."""


@dataclass(frozen=True)
class Limits:
    """What a submission may use; exceeding one fails the cell that did, by name."""

    cell_seconds: float = 30.0
    submission_seconds: float = 300.0
    memory_bytes: int = 4 * GiB  # of data, per process; of all together where there is a control group
    processes: int = 64  # and threads
    file_bytes: int = 64 * MiB
    scratch_bytes: int = 256 * MiB
    output_bytes: int = 1 * MiB  # printed by one cell
    reply_bytes: int = 512 * MiB  # returned by one call
    restarts: int = 3  # of a candidate's process that died

    def __post_init__(self):
        for field in fields(self):
            value, whole = getattr(self, field.name), field.type is int
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise SandboxError(f"the limit {field.name} is {value!r}; a {'whole ' * whole}number is needed")
            if not math.isfinite(value) or value < 0 or (value == 0 and field.name != "restarts"):
                raise SandboxError(f"the limit {field.name} is {value!r}; a number above 0 is needed")

    @classmethod
    def changed(cls, changes: dict[str, float]) -> "Limits":
        """The defaults but for some; raises SandboxError for a name or number that is none."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(changes.keys() - set(known)):
            raise SandboxError(f"there is no limit {unknown[0]!r}; there are {', '.join(known)}")
        return cls(**changes)

    def rlimits(self) -> dict[str, int]:
        return {
            "RLIMIT_DATA": self.memory_bytes,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_CORE": 0,
        }

    def named(self, error: str, message: str) -> str:
        """The message of a candidate's exception, with the limit that it ran into, if it was one.

        >>> Limits().named("MemoryError", "")
        'the limit of 4 GiB of memory was reached'
        """
        limits = {
            "can't allocate memory|MemoryError": f"{self.memory_bytes / GiB:.3g} GiB of memory",
            r"can't start new thread|Errno 11\]": f"{self.processes} processes and threads",
            r"Errno 27\]": f"{self.file_bytes / MiB:.3g} MiB for a file",
            r"Errno 28\]": f"{self.scratch_bytes / MiB:.3g} MiB, and {MAX_FILES:,} files, of scratch space",
        }
        reached = [limit for pattern, limit in limits.items() if re.search(pattern, f"{error}: {message}")]
        parts = [message, *(f"the limit of {limit} was reached" for limit in reached)]
        return "; ".join(part for part in parts if part)


DEFAULT_LIMITS = Limits()


def check_sandbox(kind: str) -> None:
    """Raise SandboxError, saying what to do, if candidates' processes cannot be started in this sandbox."""
    if kind == "none":
        return
    if kind != "bubblewrap":
        raise SandboxError(f"unknown sandbox {kind!r}; known are 'bubblewrap' and 'none'")
    advice = "or pass --sandbox none to run candidates' code with no protection, as yourself"
    if shutil.which("bwrap") is None:
        raise SandboxError(
            f"bubblewrap is not installed (Debian: apt-get install bubblewrap; Linux only); install it, {advice}"
        )
    with tempfile.TemporaryDirectory(prefix="examiner-") as folder:
        command = [*bubblewrap(write_stubs(Path(folder), ()), ()), sys.executable, "-m", "inside.keeper"]
        trial = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if trial.returncode != 0:
        reason = trial.stderr.strip().rpartition("\n")[2] or f"exit status {trial.returncode}"
        raise SandboxError(f"bubblewrap is refused on this machine ({reason}); allow user namespaces, {advice}")


def environment(package_folder: Path | str, stubs: Path | str) -> dict[str, str]:
    """The environment variables of candidates' processes, but for PATH."""
    work = FOLDERS["work"]
    return {
        "HOME": work,
        "LANG": "C.UTF-8",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"{package_folder}{os.pathsep}{stubs}",
        "TMPDIR": FOLDERS["tmp"],
        "USER": "candidate",
    }


def bubblewrap(stubs: Path, absent: tuple[str, ...]) -> list[str]:
    """The bubblewrap command up to the program: what it sees, where it stands, what it may do."""
    command = ["bwrap", "--new-session", "--hostname", "examiner", "--unshare-cgroup-try"]
    command += [f"--unshare-{kind}" for kind in ("ipc", "pid", "net", "uts")]
    for path in SYSTEM:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            command += ["--ro-bind", path, path]
    command += ["--proc", "/proc", "--dev", "/dev", "--perms", "0755", "--dir", SCRATCH]
    command += ["--perms", "1777", "--tmpfs", "/tmp"]  # before the installation, which may lie below it
    for path in sorted({sys.prefix, sys.base_prefix, os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)}):
        command += [*_readable_parents(path), "--ro-bind", path, path]
    for folder in ("/opt", PACKAGE_FOLDER):
        command += ["--perms", "0755", "--dir", folder]
    command += ["--ro-bind", str(INSIDE), f"{PACKAGE_FOLDER}/{INSIDE.name}", "--ro-bind", str(stubs), STUBS]
    command += [*_masks(absent, stubs / ".empty"), "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]
    command += ["--clearenv", "--setenv", "PATH", "/usr/bin:/bin"]
    for name, value in environment(PACKAGE_FOLDER, STUBS).items():
        command += ["--setenv", name, value]
    if os.geteuid() != 0:
        return [*command, "--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY), "--cap-drop", "ALL", "--"]
    needed = [part for name in NEEDED_BY_ROOT for part in ("--cap-add", f"CAP_{name}")]
    return [*command, "--cap-drop", "ALL", *needed, "--"]


def _readable_parents(path: str) -> list[str]:
    """bubblewrap makes missing parents with mode 0700, which would shut out an unprivileged user."""
    parents = [
        str(parent)
        for parent in reversed(Path(path).parents)
        if str(parent) != "/" and not str(parent).startswith("/usr")
    ]
    return [part for parent in parents for part in ("--perms", "0755", "--dir", parent)]


def _masks(absent: tuple[str, ...], empty: Path) -> list[str]:
    """Cover the absent modules where they are installed, so that no import trick finds them."""
    masks = []
    for name in absent:
        spec = importlib.util.find_spec(name)
        for place in list(spec.submodule_search_locations or [spec.origin]) if spec else []:
            if not any(Path(place).is_relative_to(prefix) for prefix in (sys.prefix, sys.base_prefix, "/usr")):
                continue  # not in the sandbox anyway
            masks += ["--ro-bind", str(empty) if os.path.isdir(place) else os.devnull, place]
    return masks


def write_stubs(parent: Path, absent: tuple[str, ...]) -> Path:
    """A new folder below `parent`, with modules that say why the real ones are absent, and an empty folder."""
    folder = parent / "absent"
    (folder / ".empty").mkdir(parents=True)
    for name in absent:
        (folder / f"{name}.py").write_text(ABSENT_MODULE.format(name=name))
    folder.chmod(0o755)
    return folder
