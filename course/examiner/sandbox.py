"""Where a candidate's process runs: inside bubblewrap, or, if it is asked for, with no protection at all.

In the sandbox there is no network, no file of the host but the Python installation and the system's libraries
(read-only), one scratch folder in memory, no environment variable, no other process, no privilege. The modules that
hold the answers are absent.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

INSIDE = Path(__file__).parent / "inside"  # the only part of the course that the sandbox holds
# places in the sandbox
PACKAGE_FOLDER, STUBS, SCRATCH = "/opt/examiner", "/opt/absent", "/scratch"
SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin")
SYSTEM += ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")
NOBODY = 65534
KILL_SECONDS = 5.0
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
    memory_bytes: int = 4 * GiB  # of data, per process
    processes: int = 64
    file_bytes: int = 64 * MiB
    scratch_bytes: int = 256 * MiB
    output_bytes: int = 1 * MiB  # printed by one cell
    reply_bytes: int = 512 * MiB  # returned by one call
    restarts: int = 3  # of a candidate's process that died

    def rlimits(self) -> dict[str, int]:
        return {
            "RLIMIT_DATA": self.memory_bytes,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_CORE": 0,
        }


DEFAULT_LIMITS = Limits()


@dataclass
class Sandboxed:
    """A started candidate's process: bubblewrap's (or its own) process and our end of the connection."""

    process: subprocess.Popen
    connection: socket.socket
    folder: tempfile.TemporaryDirectory

    def kill(self) -> None:
        """End the process, and with it everything that it started; returns when all of it is gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            tree = psutil.Process(self.process.pid).children(recursive=True)
            for process in tree:  # the first child of a process namespace takes all others with it
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(tree, timeout=KILL_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.connection.close()
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()
        self.folder.cleanup()


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
    command = [*_bubblewrap(DEFAULT_LIMITS, ()), sys.executable, "-c", "import sys"]
    trial = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if trial.returncode != 0:
        reason = trial.stderr.strip() or f"exit status {trial.returncode}"
        raise SandboxError(f"bubblewrap is refused on this machine ({reason}); allow user namespaces, {advice}")


def start(kind: str, limits: Limits, absent: tuple[str, ...] = ABSENT) -> Sandboxed:
    """Start a candidate's process; it waits for its files on the connection."""
    ours, theirs = socket.socketpair()
    folder = tempfile.TemporaryDirectory(prefix="candidate-", ignore_cleanup_errors=True)
    setup = {"descriptor": theirs.fileno(), "reply_bytes": limits.reply_bytes, "rlimits": limits.rlimits()}
    stubs = _write_stubs(Path(folder.name) / "absent", absent)
    if kind == "none":
        setup["rlimits"].pop("RLIMIT_NPROC")  # it would count every process of this user
        prefix, work = [], Path(folder.name) / "work"
        work.mkdir()
        environment = {"PATH": os.environ["PATH"], **_environment(INSIDE.parent, stubs, work)}
    else:
        own = ("--ro-bind", str(INSIDE), f"{PACKAGE_FOLDER}/{INSIDE.name}", "--ro-bind", str(stubs), STUBS)
        prefix = _bubblewrap(limits, (*_masks(absent), *own))
        work, environment = None, {"PATH": os.environ["PATH"]}
    with theirs:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "inside", json.dumps(setup)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            cwd=work,
            env=environment,
            start_new_session=True,
        )
    return Sandboxed(process, ours, folder)


def _environment(package_folder: Path, stubs: Path, home: Path) -> dict[str, str]:
    return {
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"{package_folder}{os.pathsep}{stubs}",
        "TMPDIR": str(home),
    }


def _bubblewrap(limits: Limits, binds: tuple[str, ...]) -> list[str]:
    """The bubblewrap command up to the program: what it sees, where it stands, what it may do."""
    command = ["bwrap", "--die-with-parent", "--new-session", "--hostname", "examiner", "--unshare-cgroup-try"]
    command += [f"--unshare-{kind}" for kind in ("ipc", "pid", "net", "uts")]
    for path in SYSTEM:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            command += ["--ro-bind", path, path]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/dev/shm", SCRATCH):  # before the installation, which may lie below /tmp
        command += ["--perms", "1777", "--size", str(limits.scratch_bytes), "--tmpfs", folder]
    for path in sorted({sys.prefix, sys.base_prefix, os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)}):
        command += [*_readable_parents(path), "--ro-bind", path, path]
    for folder in ("/opt", PACKAGE_FOLDER):
        command += ["--perms", "0755", "--dir", folder]
    command += [*binds, "--remount-ro", "/", "--chdir", SCRATCH, "--clearenv", "--setenv", "PATH", "/usr/bin:/bin"]
    for name, value in _environment(Path(PACKAGE_FOLDER), Path(STUBS), Path(SCRATCH)).items():
        command += ["--setenv", name, value]
    if os.geteuid() != 0:
        return [*command, "--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY), "--cap-drop", "ALL", "--"]
    # the kernel counts no processes of the real root: become nobody before the candidate's code runs
    drop = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--inh-caps=-all", "--"]
    return [*command, "--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--", *drop]


def _readable_parents(path: str) -> list[str]:
    """bubblewrap makes missing parents with mode 0700, which would shut out an unprivileged user."""
    parents = [
        str(parent)
        for parent in reversed(Path(path).parents)
        if str(parent) != "/" and not str(parent).startswith("/usr")
    ]
    return [part for parent in parents for part in ("--perms", "0755", "--dir", parent)]


def _masks(absent: tuple[str, ...]) -> list[str]:
    """Cover the absent modules where they are installed, so that no import trick finds them."""
    masks = []
    for name in absent:
        spec = importlib.util.find_spec(name)
        for place in list(spec.submodule_search_locations or [spec.origin]) if spec else []:
            if not any(Path(place).is_relative_to(prefix) for prefix in (sys.prefix, sys.base_prefix, "/usr")):
                continue  # not in the sandbox anyway
            masks += ["--tmpfs", place] if os.path.isdir(place) else ["--ro-bind", os.devnull, place]
    return masks


def _write_stubs(folder: Path, absent: tuple[str, ...]) -> Path:
    """Modules that say why the real ones are absent."""
    folder.mkdir()
    for name in absent:
        (folder / f"{name}.py").write_text(ABSENT_MODULE.format(name=name))
    folder.chmod(0o755)
    return folder
