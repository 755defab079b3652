"""One submission's cells, taken in order: the candidate's run in the sandbox, the instructor's in this process."""

import nbformat.v4 as nbf
from nbformat import NotebookNode

from .candidate import Candidate, CellRun
from .exam import Exam, ExamCell, claimed_id, import_statements, normalized
from .reasons import explain_undefined, is_experiment, undefined_name
from .restore import code_cells, restore
from .trusted import TrustedCells

# a test that ends so may only have stood before the code that it needs
TOO_EARLY = ("NameError", "NotImplementedError")


class Sitting:
    """What comes of each cell of one submission."""

    def __init__(self, notebook: NotebookNode, exam: Exam, candidate: Candidate):
        self.exam, self.candidate = exam, candidate
        self.notebook, self.notes = restore(notebook, exam)
        self.trusted = TrustedCells(exam, candidate)
        self.outputs: dict[str, list[NotebookNode]] = {}  # grade_id -> outputs of the instructor's cell
        self.runs: list[list[NotebookNode]] = []  # outputs of the candidate's code cells, in their order
        self.taken_after: dict[str, int] = {}  # grade_id -> how many of the candidate's cells ran before
        self.blanks = _replaced_blanks(self.notebook, exam)
        self.has_code = False  # of the candidate's own

    def take(self) -> None:
        """Take all cells, and those of the instructor's that came too early once more at the end."""
        for cell, own in code_cells(self.notebook, self.exam):
            if own:
                self._take_own(own)
            else:
                self.runs.append(self._run(cell))
        for own in self.exam.cells:
            self._take_own(own)
        self._explain()

    def _take_own(self, own: ExamCell) -> None:
        """Run a cell of the instructor's, after those that stand before it in the instructor's own notebook.

        Otherwise a submission that moved or deleted one could put a name of its own in the place of the instructor's.
        """
        for cell in self.exam.cells[: self.exam.cells.index(own)]:
            if cell.grade_id not in self.outputs:
                self._run_own(cell)
        came_before = self.taken_after.get(own.grade_id)
        if came_before is None:
            self._run_own(own)
        elif came_before < len(self.runs) and _error_name(self.outputs[own.grade_id]) in TOO_EARLY:
            self._run_again(own)

    def _run_own(self, own: ExamCell) -> None:
        self._share(own)
        self.taken_after[own.grade_id] = len(self.runs)
        self.outputs[own.grade_id] = self.trusted.run(own)

    def _run_again(self, own: ExamCell) -> None:
        before = self.outputs[own.grade_id]
        self._run_own(own)
        outputs = self.outputs[own.grade_id]
        if _error_name(outputs) in TOO_EARLY:
            self.outputs[own.grade_id] = before
        elif own.is_test:
            self.notes.append(f"`{own.grade_id}` stands before code that it needs: it was run again after it")

    def _run(self, cell: NotebookNode) -> list[NotebookNode]:
        source = cell.source
        if is_experiment(cell) or not source.strip() or normalized(source) in self.blanks:
            return []
        self.has_code = self.has_code or normalized(source) not in self.exam.prose
        run = self.candidate.run(source)
        if run.error:
            self.trusted.failures[source] = run.error
        return _outputs(run)

    def _share(self, own: ExamCell) -> None:
        """Give the candidate's process what running the notebook would: a helper's names, the imports of a test."""
        place = self.exam.place(own.grade_id)
        shown = place.released if place else ""
        if shown and own.is_test:
            statements = import_statements(nbf.new_notebook(cells=[nbf.new_code_cell(shown)])).values()
            shown = "\n".join(f"try: {statement}\nexcept Exception: pass" for statement in statements)
        if shown:
            self.candidate.run(shown)

    def _explain(self) -> None:
        """Say why names are missing that the tests need; if all tests miss theirs, the grading may be what is wrong."""
        tests = [own.grade_id for own in self.exam.cells if own.is_test]
        missing = {grade_id: name for grade_id in tests if (name := undefined_name(self.outputs[grade_id]))}
        for grade_id, name in missing.items():
            if reason := explain_undefined(name, self.notebook, self.exam):
                error = self.outputs[grade_id][-1]
                error.evalue += f"; {reason}"
                error.traceback[0] += f"; {reason}"
                self.notes.append(f"`{grade_id}` needs `{name}`: {reason}")
        if tests and len(missing) == len(tests) and self.has_code:
            names = ", ".join(f"`{name}`" for name in dict.fromkeys(missing.values()))
            self.notes.append(f"no test found the names that it needs ({names}), though there is code")


def _replaced_blanks(notebook: NotebookNode, exam: Exam) -> set[str]:
    """Texts of blanks that stand filled in elsewhere: an untouched copy must not undo the answer."""
    texts = {claimed_id(cell): normalized(cell.source) for cell in notebook.cells}
    blanks = [place for place in exam.places if place.solution and place.text]
    open_ = {place.text for place in blanks if texts.get(place.grade_id, place.text) == place.text}
    return {place.text for place in blanks} - open_


def _error_name(outputs: list[NotebookNode]) -> str | None:
    return outputs[-1].ename if outputs and outputs[-1].output_type == "error" else None


def _outputs(run: CellRun) -> list[NotebookNode]:
    outputs = [nbf.new_output("stream", name=name, text=text) for name, text in run.printed.items()]
    outputs += [nbf.new_output("display_data", data) for data in run.displays if data]
    if run.error:
        lines = run.error["traceback"].split("\n")
        outputs.append(nbf.new_output("error", ename=run.error["name"], evalue=run.error["message"], traceback=lines))
    return outputs
