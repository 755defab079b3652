"""`course grade` as a command, a cluster of `dask` commands, and a class whose examinations can be counted."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from course.build import build

from ..conftest import make_source
from ..handing_in import NAME, hand_in

STUDENTS = [f"s{number:02}" for number in range(12)]
ANSWERS = {  # points -> cells that get them
    6: {},
    5: {"ones": "def ones(n): return 2"},
    2: {"width": "def width(n): return 3"},
}
DESERVED = {student: list(ANSWERS)[number % 3] for number, student in enumerate(STUDENTS)}
EXAMINATION_SECONDS = 0.5  # at least, so that a run lasts long enough to be killed in the middle
PATIENCE = 120.0  # seconds for anything that is waited for


def class_of_twelve(root: Path) -> Path:
    """A course directory with twelve submissions; each examination adds a line to `counter`, the candidate's name.

    The instructor's test, which runs in the examiner's own process, writes it: the name is the submission's.
    """
    source = make_source(root)
    text = source / NAME / f"{NAME}.py"
    old = 'assert ones(5) == 2, "5 is 101, two ones"\n'
    count = f"with open({str(root / 'counter')!r}, 'a') as file:\n    file.write(who + '\\n')\n"
    count += f"import time\ntime.sleep({EXAMINATION_SECONDS})\n"
    assert old in text.read_text()
    text.write_text(text.read_text().replace(old, count + old))
    build(None, source_dir=source, course_dir=root)
    for student, points in DESERVED.items():
        content = dict(ANSWERS[points])
        first = content.get("width") or model_width(text)
        hand_in(root, student, **{**content, "width": f"who = {student!r}\n{first}"})
    (root / "counter").touch()
    return root


def model_width(text: Path) -> str:
    return "def width(n):\n    if n < 0:\n        raise ValueError(n)\n    return n.bit_length()"


def examinations(course: Path) -> list[str]:
    """Whose submission was examined, in order."""
    return (course / "counter").read_text().split()


def stamped(course: Path) -> set[str]:
    """Whose record is complete."""
    paths = course.glob(f"autograded/*/{NAME}/{NAME}.ipynb")
    return {path.parents[1].name for path in paths if '"handed_in"' in path.read_text()}


def wait_for(condition, process: subprocess.Popen | None = None) -> None:
    """Wait until something holds; an error if it does not in time, or the process that should see to it has ended."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


def course_command(course: Path, *arguments: str) -> subprocess.Popen:
    """The console script, in a process group of its own, as from a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "course.cli", *arguments, "--course-dir", str(course)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what a shell starts with & ignores Ctrl-C
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code and all that was printed."""
    text, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, text


@contextlib.contextmanager
def in_the_middle(course: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    """`course grade`, once some submissions are recorded and more are to come."""
    process = course_command(course, "grade", *arguments)
    try:
        wait_for(lambda: len(stamped(course)) >= 4, process)
        assert len(stamped(course)) < len(STUDENTS)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[str]:
    """Those that run still, ten seconds later at most."""
    _, left = psutil.wait_procs(processes, timeout=10)
    return [" ".join(process.cmdline()) for process in left if process.status() != psutil.STATUS_ZOMBIE]


@contextlib.contextmanager
def dask_cluster(folder: Path, threads: int = 2) -> Iterator[tuple[str, subprocess.Popen, subprocess.Popen]]:
    """(address, the scheduler's process, the process that starts the worker anew when it dies)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    scheduler = dask("scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2])
    worker = dask("worker", address, "--nthreads", str(threads), "--local-directory", str(folder), "--no-dashboard")
    processes = [scheduler, worker]
    try:
        yield address, *processes
    finally:
        tree = [child for process in processes if process.poll() is None for child in descendants(process.pid)]
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=PATIENCE)
        assert not alive(tree)


def dask(*arguments: str) -> subprocess.Popen:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    program = shutil.which("dask", path=str(Path(sys.executable).parent))
    extra = ["--dashboard-address", "127.0.0.1:0"] if arguments[0] == "scheduler" else []
    return subprocess.Popen([program, *arguments, *extra], **quiet, env=os.environ | {"OMP_NUM_THREADS": "1"})


def worker_of(nanny: subprocess.Popen) -> psutil.Process:
    """The process that examines."""
    found = [process for process in psutil.Process(nanny.pid).children() if "spawn_main" in " ".join(process.cmdline())]
    return found[0]
