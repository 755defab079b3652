"""Examines a submitted notebook: the candidate's cells in the sandbox, the tests in a process of their own."""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from multiprocessing import forkserver

import nbformat.v4 as nbf
from nbformat import NotebookNode

from .exam import Exam
from .files import fitting
from .inside.confine import limit_resources
from .restore import code_cells
from .sandbox import ABSENT, DEFAULT_LIMITS, Limits
from .zygote import adopt, warm

OWN_MEMORY = 2  # the examiner's own process may use so many times a submission's memory
MARGIN_SECONDS = 60.0  # past a submission's limit, the examiner's own process is taken for stuck

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload([__name__, f"{__package__}.sitting"])

_main_lock = threading.Lock()


@dataclass(frozen=True)
class Verdict:
    """The outcome of one test cell."""

    grade_id: str
    points: float
    max_points: float
    message: str  # why points are missing; empty if none are


@dataclass
class Examination:
    """All that an examination found out; `write_to` puts it into the notebook."""

    exam: str  # Exam.digest
    tests: dict[str, float]  # grade_id -> points that a test cell can give, in order
    outputs: dict[str, list[NotebookNode]]  # grade_id -> outputs of the instructor's cell
    runs: list[list[NotebookNode]]  # outputs of the candidate's code cells, in their order
    seconds: float
    notes: list[str] = field(default_factory=list)  # what an instructor should look at

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """One verdict for each test cell."""
        return [_verdict(grade_id, points, self.outputs[grade_id]) for grade_id, points in self.tests.items()]

    @property
    def points(self) -> float:
        return sum(verdict.points for verdict in self.verdicts)

    @property
    def max_points(self) -> float:
        return sum(verdict.max_points for verdict in self.verdicts)

    def write_to(self, notebook: NotebookNode, exam: Exam) -> None:
        """Set the outputs of a restored notebook's code cells, and its metadata `course.examination`."""
        runs = iter(self.runs)
        for cell, own in code_cells(notebook, exam):
            cell.outputs = self.outputs.get(own.grade_id, []) if own else next(runs, [])
            cell.execution_count = None
        details = {"exam": self.exam, "seconds": round(self.seconds, 2)}
        details["exercises"] = [asdict(verdict) for verdict in self.verdicts]
        details["notes"] = self.notes
        notebook.metadata["course"] = {"examination": details}


def examine(
    notebook: NotebookNode,
    exam: Exam,
    files: dict[str, bytes] | None = None,
    *,
    sandbox: str = "bubblewrap",
    limits: Limits = DEFAULT_LIMITS,
    absent: tuple[str, ...] = ABSENT,
) -> Examination:
    """Examine a submission in a process of its own; `files` are the submission's support files.

    Raises RuntimeError if the examination itself fails, never for what the candidate did.
    """
    with tempfile.TemporaryDirectory(prefix="examiner-", ignore_cleanup_errors=True) as folder:
        arguments = (notebook, exam, files or {}, sandbox, limits, absent)
        outcome = _in_own_process(folder, warm(sandbox, absent), limits, *arguments)
    if isinstance(outcome, Examination):
        return outcome
    raise RuntimeError(outcome)


def prepare(sandbox: str = "bubblewrap", absent: tuple[str, ...] = ABSENT) -> None:
    """Start what examinations are forked from: it imports for seconds, in which the caller can do something else."""
    warm(sandbox, absent)
    forkserver.ensure_running()


def _in_own_process(folder: str, zygote: str, limits: Limits, *arguments) -> Examination | str:
    """What `_examine_and_send` sends: an examination, or why there is none."""
    ours, theirs = FORKED.Pipe(duplex=False)
    process = FORKED.Process(target=_examine_and_send, args=(theirs, folder, zygote, *arguments), daemon=True)
    with _no_main_module():
        process.start()
    theirs.close()
    seconds = limits.submission_seconds + MARGIN_SECONDS
    try:
        return ours.recv() if ours.poll(seconds) else f"the examination did not end within {seconds:g} s"
    except EOFError:
        process.join()
        return f"the examiner's process ended early (exit code {process.exitcode})"
    finally:
        process.kill()
        process.join()
        ours.close()


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Let a process that is started be spared the import of this one's main module, which takes longer than to fork."""
    with _main_lock:
        own, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = own


def _examine_and_send(connection, folder, zygote, notebook, exam, files, sandbox, limits, absent) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it too; the process that started it ends it
    adopt(zygote, sandbox, absent)
    os.environ["MPLBACKEND"] = "agg"
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # examinations run side by side, and waiting threads would stall each other
    limit_resources({"RLIMIT_DATA": OWN_MEMORY * limits.memory_bytes})  # a test may ask for ever more data
    tempfile.tempdir = folder  # all that is written here goes when the folder does
    work = tempfile.mkdtemp()
    write_files(work, exam.files)
    os.chdir(work)
    sys.path.insert(0, work)
    try:
        with open(os.devnull, "w") as sys.stdout, open(os.devnull, "w") as sys.stderr:
            connection.send(_examine_here(notebook, exam, files, sandbox, limits, absent))
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")


def write_files(folder: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)


def _examine_here(notebook, exam, files, sandbox, limits, absent) -> Examination:
    from .candidate import Candidate  # these import torch, which the process that asks for examinations does without
    from .sitting import Sitting

    began = time.monotonic()
    room = limits.scratch_bytes // 2 - sum(map(len, exam.files.values()))
    files, left_out = fitting(files, room, limits.file_bytes)
    with Candidate({**files, **exam.files}, sandbox, limits, absent) as candidate:
        sitting = Sitting(notebook, exam, candidate)
        sitting.take()
    tests = {cell.grade_id: cell.points for cell in exam.cells if cell.is_test}
    seconds = time.monotonic() - began
    return Examination(exam.digest, tests, sitting.outputs, sitting.runs, seconds, left_out + sitting.notes)


def _verdict(grade_id: str, max_points: float, outputs: list[NotebookNode]) -> Verdict:
    """Points as nbgrader gives them: none after an error, a last expression's value for partial credit, else all."""
    from nbgrader.utils import determine_grade  # slow to import, and examinations do without

    graded = nbf.new_code_cell(outputs=outputs)
    graded.metadata["nbgrader"] = {"grade": True, "solution": False, "points": max_points, "grade_id": grade_id}
    points, max_points = determine_grade(graded)
    errors = [output.evalue for output in outputs if output.output_type == "error"]
    said = errors or [output.text.strip() for output in outputs if output.output_type == "stream"]
    return Verdict(grade_id, points, max_points, said[0] if said and points < max_points else "")
