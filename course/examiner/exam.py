"""The exam: the instructor's own cells, from the gradebook or the instructor's notebook, never from a submission."""

import ast
import dataclasses
import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from .files import collect

HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS", re.DOTALL)
KEPT_BACK = re.compile(r"^[^\n]*BEGIN (HIDDEN TESTS|MARK SCHEME|SOLUTION).*?END \1[^\n]*$", re.DOTALL | re.MULTILINE)


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
class Place:
    """A marked cell of the instructor's notebook, whose place a submission's cell can take: a blank, a test, a rubric.

    The flags are nbgrader's: `grade` and `solution` together make an answer that is scored by hand.
    """

    grade_id: str
    cell_type: str  # "code" or "markdown"
    source: str  # as in the gradebook, with what the release leaves out
    grade: bool = False
    solution: bool = False
    task: bool = False
    locked: bool = False
    points: float | None = None
    checksum: str = ""

    @property
    def is_manual(self) -> bool:
        return self.grade and self.solution

    @property
    def is_scored(self) -> bool:
        return self.grade or self.task

    @property
    def released(self) -> str:
        """The source that candidates were given."""
        return KEPT_BACK.sub("", self.source)

    @cached_property
    def text(self) -> str:
        """What candidates were given, normalized."""
        return normalized(self.released)

    @property
    def mark(self) -> NotebookNode:
        """The metadata that nbgrader keeps in the cell."""
        flags = ("grade_id", "cell_type", "grade", "solution", "task", "locked")
        mark = NotebookNode({name: getattr(self, name) for name in flags}, schema_version=3)
        if self.is_scored:
            mark["points"] = self.points
        if self.checksum:
            mark["checksum"] = self.checksum
        return mark

    @classmethod
    def from_cell(cls, cell: NotebookNode) -> "Place":
        """A place as the instructor's notebook marks it."""
        mark = cell.metadata["nbgrader"]
        flags = {name: bool(mark.get(name)) for name in ("grade", "solution", "task", "locked")}
        points = float(mark["points"]) if flags["grade"] or flags["task"] else None
        return cls(mark["grade_id"], cell.cell_type, cell.source, **flags, points=points)


@dataclass(frozen=True)
class Exam:
    """What a submitted notebook is examined with."""

    cells: tuple[ExamCell, ...]
    imports: dict[str, str]  # name -> the instructor's import statement that binds it
    files: dict[str, bytes]  # relative path -> content of the instructor's support files
    places: tuple[Place, ...] = ()  # all marked cells, in the order of the instructor's notebook
    prose: frozenset[str] = frozenset()  # normalized text of the cells without a mark

    @classmethod
    def from_notebook(cls, original: NotebookNode, files: dict[str, bytes]) -> "Exam":
        """Cells and points as the instructor's notebook has them."""
        marks = [(cell, cell.metadata.get("nbgrader", {})) for cell in original.cells if cell.cell_type == "code"]
        cells = tuple(
            ExamCell(mark["grade_id"], cell.source, float(mark["points"]) if mark.get("grade") else None)
            for cell, mark in marks
            if (mark.get("grade") or mark.get("locked")) and not mark.get("solution")
        )
        places = tuple(Place.from_cell(cell) for cell in original.cells if claimed_id(cell))
        return cls(cells, import_statements(original), files, places, prose(original))

    def place(self, grade_id: str | None) -> Place | None:
        return self._by_id.get(grade_id)

    @cached_property
    def _by_id(self) -> dict[str, Place]:
        return {place.grade_id: place for place in self.places}

    def find(self, grade_id: str | None) -> ExamCell | None:
        return next((cell for cell in self.cells if cell.grade_id == grade_id), None)

    @property
    def digest(self) -> str:
        """Changes when anything that could change a score does."""
        parts = [dataclasses.astuple(cell) for cell in self.cells], self.imports, self.files
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def claimed_id(cell: NotebookNode) -> str | None:
    """The grade id that a cell's metadata claims; None where it is missing or malformed."""
    mark = cell.metadata.get("nbgrader")
    grade_id = mark.get("grade_id") if isinstance(mark, dict) else None
    return grade_id if isinstance(grade_id, str) else None


def normalized(source: str) -> str:
    """A cell's text without what editors and formatters change: space at line ends, empty lines."""
    return "\n".join(line.rstrip() for line in source.splitlines() if line.strip())


def prose(original: NotebookNode) -> frozenset[str]:
    """The normalized text of an instructor's cells that carry no mark."""
    return frozenset(normalized(cell.source) for cell in original.cells if not claimed_id(cell))


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
    return collect(folder)[0]
