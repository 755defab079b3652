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
    def from_notebook(cls, original: NotebookNode, files: dict[str, bytes]) -> "Exam":
        """Cells and points as the instructor's notebook has them."""
        marks = [(cell, cell.metadata.get("nbgrader", {})) for cell in original.cells if cell.cell_type == "code"]
        cells = tuple(
            ExamCell(mark["grade_id"], cell.source, float(mark["points"]) if mark.get("grade") else None)
            for cell, mark in marks
            if (mark.get("grade") or mark.get("locked")) and not mark.get("solution")
        )
        return cls(cells, import_statements(original), files)

    def find(self, grade_id: str | None) -> ExamCell | None:
        return next((cell for cell in self.cells if cell.grade_id == grade_id), None)

    @property
    def digest(self) -> str:
        """Changes when anything that could change a score does."""
        return hashlib.sha256(repr(dataclasses.astuple(self)).encode()).hexdigest()


def claimed_id(cell: NotebookNode) -> str | None:
    """The grade id that a cell's metadata claims; None where it is missing or malformed."""
    mark = cell.metadata.get("nbgrader")
    grade_id = mark.get("grade_id") if isinstance(mark, dict) else None
    return grade_id if isinstance(grade_id, str) else None


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
    """Relative path -> content of the regular files beside the notebooks; links, notebooks, huge files are left out."""
    files = {}
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(place, name) for name in names):
            if path.is_symlink() or not path.is_file() or path.suffix == ".ipynb":
                continue
            if path.stat().st_size <= MAX_FILE_BYTES:
                files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return files
