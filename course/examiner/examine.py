"""Examines a submitted notebook: the candidate's cells in the sandbox, the tests in a process of their own."""

import hashlib
import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import cached_property

import nbformat.v4 as nbf
from nbformat import NotebookNode

from .candidate import Candidate, CellRun
from .exam import Exam, ExamCell, claimed_id
from .sandbox import ABSENT, DEFAULT_LIMITS, Limits
from .trusted import TrustedCells
from .zygote import adopt, warm

EXPERIMENT = "experiment"  # tag of cells that grading does not run
MARGIN_SECONDS = 60.0  # past a submission's limit, the examiner's own process is taken for stuck


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

    submission: str  # sha256 of the examined cells
    exam: str  # Exam.digest
    tests: dict[str, float]  # grade_id -> points that a test cell can give, in order
    outputs: dict[str, list[NotebookNode]]  # grade_id -> outputs of the instructor's cell
    runs: list[list[NotebookNode]]  # outputs of the candidate's code cells, in their order
    seconds: float

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
        """Set the outputs of the notebook's code cells, and its metadata `course.examination`."""
        runs = iter(self.runs)
        for cell, own in code_cells(notebook, exam):
            cell.outputs = self.outputs.get(own.grade_id, []) if own else next(runs, [])
            cell.execution_count = None
        details = {"submission": self.submission, "exam": self.exam, "seconds": round(self.seconds, 2)}
        details["exercises"] = [asdict(verdict) for verdict in self.verdicts]
        card = notebook.metadata.get("course")
        notebook.metadata["course"] = {**(card if isinstance(card, dict) else {}), "examination": details}


def code_cells(notebook: NotebookNode, exam: Exam) -> list[tuple[NotebookNode, ExamCell | None]]:
    """The notebook's code cells, each with the instructor's cell whose place it marks, if any."""
    pairs, seen = [], set()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            own = exam.find(claimed_id(cell))
            own = None if own and own.grade_id in seen else own
            seen.add(own.grade_id if own else None)
            pairs.append((cell, own))
    return pairs


def submission_digest(notebook: NotebookNode, exam: Exam) -> str:
    """Changes when anything does that the candidate wrote in a code cell, or where the tests stand."""
    parts = [own.grade_id if own else cell.source for cell, own in code_cells(notebook, exam)]
    return hashlib.sha256(repr(parts).encode(errors="surrogatepass")).hexdigest()


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


def _in_own_process(folder: str, zygote: str, limits: Limits, *arguments) -> Examination | str:
    """What `_examine_and_send` sends: an examination, or why there is none."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_examine_and_send, args=(theirs, folder, zygote, *arguments), daemon=True)
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


def _examine_and_send(connection, folder, zygote, notebook, exam, files, sandbox, limits, absent) -> None:
    adopt(zygote, sandbox, absent)
    os.environ["MPLBACKEND"] = "agg"
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # examinations run side by side, and waiting threads would stall each other
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
    began = time.monotonic()
    outputs, runs = {}, []
    with Candidate({**files, **exam.files}, sandbox, limits, absent) as candidate:
        trusted = TrustedCells(exam, candidate)
        pairs = code_cells(notebook, exam)
        present = {own.grade_id for _, own in pairs if own}
        missing = [(None, own) for own in exam.cells if own.grade_id not in present]
        for cell, own in [*pairs, *missing]:
            if own:
                outputs[own.grade_id] = trusted.run(own)
            elif EXPERIMENT in cell.metadata.get("tags", ()):
                runs.append([])
            else:
                run = candidate.run(cell.source)
                if run.error:
                    trusted.failures[cell.source] = run.error
                runs.append(_outputs(run))
    tests = {cell.grade_id: cell.points for cell in exam.cells if cell.is_test}
    digest = submission_digest(notebook, exam)
    return Examination(digest, exam.digest, tests, outputs, runs, time.monotonic() - began)


def _verdict(grade_id: str, max_points: float, outputs: list[NotebookNode]) -> Verdict:
    """Points as nbgrader gives them: none after an error, a last expression's value for partial credit, else all."""
    from nbgrader.utils import determine_grade  # slow to import, and examinations do without

    graded = nbf.new_code_cell(outputs=outputs)
    graded.metadata["nbgrader"] = {"grade": True, "solution": False, "points": max_points, "grade_id": grade_id}
    points, max_points = determine_grade(graded)
    errors = [output.evalue for output in outputs if output.output_type == "error"]
    return Verdict(grade_id, points, max_points, errors[0] if errors else "")


def _outputs(run: CellRun) -> list[NotebookNode]:
    outputs = [nbf.new_output("stream", name=name, text=text) for name, text in run.printed.items()]
    outputs += [nbf.new_output("display_data", data) for data in run.displays if data]
    if run.error:
        lines = run.error["traceback"].split("\n")
        outputs.append(nbf.new_output("error", ename=run.error["name"], evalue=run.error["message"], traceback=lines))
    return outputs
