"""The exam: the instructor's own cells, from the gradebook or the instructor's notebook, never from a submission."""

import ast
import dataclasses
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.utils import is_grade, is_locked, is_solution

MAX_FILE_BYTES = 64 << 20
HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS", re.DOTALL)


@dataclass(frozen=True)
class ExamCell:
    """A code cell of the instructor's that candidates cannot change."""

    grade_id: str
    source: str
    points: float | None  # None: a helper cell, not a test

    @property
    def is_test(self) -> bool:
        return self.points is not None

    def hides(self, line: int) -> bool:
        """Whether a line (from 1) stands among the hidden tests."""
        return any(
            self.source.count("\n", 0, match.start()) < line <= self.source.count("\n", 0, match.end()) + 1
            for match in HIDDEN.finditer(self.source)
        )


@dataclass(frozen=True)
class Exam:
    """What a submitted notebook is examined with."""

    cells: tuple[ExamCell, ...]
    imports: dict[str, str]  # name -> the instructor's import statement that binds it
    files: dict[str, bytes]  # relative path -> content of the instructor's support files

    @classmethod
    def from_gradebook(
        cls, gradebook: Gradebook, assignment: str, notebook: str, original: NotebookNode, files: dict
    ) -> "Exam":
        """Cells and points as the gradebook has them; import statements from the instructor's notebook `original`."""
        entry = gradebook.find_notebook(notebook, assignment)
        points = {cell.name: cell.max_score for cell in entry.grade_cells}
        answers = {cell.name for cell in entry.solution_cells}
        order = [(cell.metadata.get("nbgrader") or {}).get("grade_id") for cell in original.cells]
        cells = [
            ExamCell(cell.name, cell.source, points.get(cell.name))
            for cell in entry.source_cells
            if cell.locked and cell.cell_type == "code" and cell.name not in answers
        ]
        cells.sort(key=lambda cell: order.index(cell.grade_id) if cell.grade_id in order else len(order))
        return cls(tuple(cells), import_statements(original), files)

    @classmethod
    def from_notebook(cls, original: NotebookNode, files: dict) -> "Exam":
        """Cells and points as the instructor's notebook has them."""
        cells = tuple(
            ExamCell(
                cell.metadata.nbgrader.grade_id,
                cell.source,
                float(cell.metadata.nbgrader.points) if is_grade(cell) else None,
            )
            for cell in original.cells
            if cell.cell_type == "code" and is_locked(cell) and not is_solution(cell)
        )
        return cls(cells, import_statements(original), files)

    def find(self, grade_id: str | None) -> ExamCell | None:
        return next((cell for cell in self.cells if cell.grade_id == grade_id), None)

    @property
    def digest(self) -> str:
        """Changes when anything that could change a score does."""
        return hashlib.sha256(repr(dataclasses.astuple(self)).encode()).hexdigest()


def import_statements(notebook: NotebookNode) -> dict[str, str]:
    """name -> the import statement that binds it, of all top-level imports in the notebook's code cells."""
    statements = {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        try:
            tree = ast.parse(TransformerManager().transform_cell(cell.source))
        except SyntaxError:
            continue  # a cell in another language, or one that is broken on purpose
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    statements[alias.asname or alias.name.split(".")[0]] = ast.unparse(node)
    return statements


def support_files(folder: Path | str) -> dict[str, bytes]:
    """Relative path -> content of the regular files beside the notebooks; links and notebooks are left out."""
    files = {}
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            if (
                path.is_symlink()
                or not path.is_file()
                or path.suffix == ".ipynb"
                or path.stat().st_size > MAX_FILE_BYTES
            ):
                continue
            files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return files
