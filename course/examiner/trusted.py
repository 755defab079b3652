"""Runs the instructor's cells in the examiner's process; the candidate's names are borrowed, by value or as proxies."""

import ast
import builtins
import contextlib
import dis
import io
import signal
import traceback
import types

import nbformat.v4 as nbf
import numpy as np
import torch
from nbformat import NotebookNode

from .candidate import STOPPED, Candidate
from .exam import Exam, ExamCell
from .process import CandidateFailure
from .zygote import StartError

GRACE_SECONDS = 5.0  # past its limit, a cell that waits for nothing of the candidate's is stopped
AGAIN_SECONDS = 1.0  # after which it is stopped once more, where something has swallowed the exception
MAX_MESSAGE = 4_000  # characters


class Overtime(BaseException):
    """The test itself, not the candidate's code, ran too long; no test can catch it by accident."""


class TrustedCells:
    """The instructor's cells of one exam, run in order in one namespace."""

    def __init__(self, exam: Exam, candidate: Candidate):
        self.exam = exam
        self.candidate = candidate
        self.namespace = {"__name__": "__main__"}
        self.needed: set[str] = set()  # global names that the cells so far read
        self.bound: set[str] = set()  # global names that the cells so far bind
        self.borrowed: set[str] = set()
        self.lent: dict[str, object] = {}  # name -> what it was borrowed as
        candidate.changed_names = self._changed_names
        self.failures: dict[str, dict] = {}  # source of a candidate's cell -> its error

    def run(self, cell: ExamCell) -> list[NotebookNode]:
        """The outputs of one cell: what was printed, a last expression's value, or the error that says why."""
        printed = io.StringIO()
        self.candidate.begin_test()
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
                value = self._execute(cell)
                text = _shown(cell, value)
        except StartError:  # else what ails this machine would be the candidate's zero
            raise
        except (Exception, SystemExit, Overtime) as error:
            return [*_stream(printed.getvalue() + self._candidate_output()), self._error(cell, error)]
        outputs = _stream(printed.getvalue())
        if text is not None:
            outputs.append(nbf.new_output("execute_result", {"text/plain": text}))
        return outputs

    def _execute(self, cell: ExamCell) -> object:
        tree = ast.parse(cell.source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        body = compile(tree, cell.grade_id, "exec")
        expression = compile(ast.Expression(last.value), cell.grade_id, "eval") if last else None
        with time_limit(self.candidate.limits.cell_seconds + GRACE_SECONDS):
            self._provide([body, expression] if expression else [body])
            exec(body, self.namespace)
            return eval(expression, self.namespace) if expression else None

    def _provide(self, codes: list[types.CodeType]) -> None:
        """Put into the namespace what the cells read and none of them binds: imports, and the candidate's names."""
        asked = set()  # names that this cell itself reads
        for code in codes:
            read, bound = global_names(code)
            asked |= read
            self.bound |= bound
        self.needed |= asked
        missing = {name for name in self.needed - self.bound if not hasattr(builtins, name)}
        for name in self.borrowed:
            self.namespace.pop(name, None)
        self.lent.clear()
        for name in missing & set(self.exam.imports):
            with contextlib.suppress(ImportError):  # then the test says what it misses
                exec(self.exam.imports[name], self.namespace)
        self.borrowed = {name for name in missing if name not in self.namespace}
        if self.borrowed:
            for name, (kind, value) in self.candidate.look_up(self.borrowed).items():
                if kind == "value":
                    self.namespace[name] = self.lent[name] = value
                elif name in asked:
                    reason = f"is the module {value} in the submission" if kind == "module" else f"is {value}"
                    raise CandidateFailure(f"`{name}` {reason}")

    def _changed_names(self) -> tuple[list[str], dict[str, object]]:
        """Borrowed names that the test has deleted, and those that it has bound to something else."""
        names = self.namespace
        deleted = [name for name in self.lent if name not in names]
        return deleted, {name: names[name] for name in self.lent.keys() & names if names[name] is not self.lent[name]}

    def _candidate_output(self) -> str:
        parts = self.candidate.printed().values()
        return "".join(part[:MAX_MESSAGE] for part in parts)

    def _error(self, cell: ExamCell, error: BaseException) -> NotebookNode:
        message = self._message(cell, error)
        name, line = type(error).__name__, self._failing_line(cell, error)
        details = {
            "failed at": line,
            "last call": str(self.candidate.last_call or ""),
            "in the submission": getattr(error, "candidate_traceback", ""),
        }
        lines = [f"{title}: {text}" for title, text in details.items() if text]
        return nbf.new_output("error", ename=name, evalue=message, traceback=[f"{name}: {message}", *lines])

    def _message(self, cell: ExamCell, error: BaseException) -> str:
        if isinstance(error, NameError) and error.name in self.borrowed:
            return f"the submission defines no `{error.name}`" + self._why_undefined(error.name)
        if isinstance(error, NotImplementedError) and not str(error):
            return "not implemented"
        if isinstance(error, MemoryError):
            return "the test ran out of memory, with all that the submission gave it"
        if isinstance(error, Overtime):
            return f"the test ran longer than {self.candidate.limits.cell_seconds:g} s"
        message = str(error)[:MAX_MESSAGE]
        if message:
            return message
        line = self._failing_line(cell, error)
        return f"this does not hold: {line}" if line else "a hidden test failed"

    def _failing_line(self, cell: ExamCell, error: BaseException) -> str:
        """The line of the cell that failed; empty if it is hidden."""
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == cell.grade_id]
        return "" if not lines or cell.hides(lines[-1]) else cell.source.splitlines()[lines[-1] - 1].strip()

    def _why_undefined(self, name: str) -> str:
        errors = [error for source, error in self.failures.items() if name in source or error["name"] == STOPPED]
        reasons = [
            error["message"] if error["name"] == STOPPED else f"{error['name']}: {error['message']}" for error in errors
        ]
        return f"; its cell failed: {'; '.join(reasons)}" if reasons else ""


def _shown(cell: ExamCell, value: object) -> str | None:
    """The text of a last expression's value. A number is the points of a test; nbgrader takes all else for full points.

    Raises ValueError if there are no such points.
    """
    if isinstance(value, torch.Tensor | np.ndarray | np.generic) and len(value.reshape(-1)) == 1:
        value = value.item()
    if not cell.is_test or isinstance(value, bool) or not isinstance(value, int | float):
        return None if value is None else repr(value)[:MAX_MESSAGE]
    if not 0 <= value <= cell.points:
        raise ValueError(f"the test gave {value:g} points, and only 0 to {cell.points:g} can be given")
    return repr(value)


def global_names(code: types.CodeType, top: bool = True) -> tuple[set[str], set[str]]:
    """The global names that a code object, with all inside it, reads, and those that it binds before it reads them."""
    read, bound = set(), set()
    for instruction in dis.get_instructions(code):
        name = instruction.argval
        if instruction.opname in ("LOAD_NAME", "LOAD_GLOBAL"):
            read.add(name)
        elif (
            instruction.opname == "STORE_GLOBAL" or (top and instruction.opname == "STORE_NAME")
        ) and name not in read:
            bound.add(name)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner_read, inner_bound = global_names(constant, top=False)
            read |= inner_read
            bound |= inner_bound
    return read, bound


@contextlib.contextmanager
def time_limit(seconds: float):
    """Raise Overtime in the main thread after some seconds."""

    def stop(*_):
        raise Overtime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _stream(text: str) -> list[NotebookNode]:
    return [nbf.new_output("stream", name="stdout", text=text)] if text else []
