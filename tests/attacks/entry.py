"""What an entry of the corpus is, and how it becomes a folder below submitted/."""

import shutil
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ASSIGNMENT = "q95_attacked"
NOTEBOOK = f"{ASSIGNMENT}.ipynb"
SOURCES = Path(__file__).parent / "assignment"
MAX_POINTS = 15  # span 1, column 2, running 4, quantize 8: a total says which of them gave points
NOBODY = 65534  # users from here on are a sandbox's

WRONG = {
    "span": "def span(values):\n    return 0.0",
    "column": "def column(path, name):\n    return np.zeros(4)",
    "running": """class RunningMean:
    value = 0.0

    def add(self, number):
        pass


def running_means(numbers):
    return [0.0 for _ in numbers]""",
    "quantize": """def quantize(x, bits):
    return torch.zeros_like(x, dtype=torch.int8), torch.tensor(0.0)""",
}
WRITTEN = {"answer": "One large value makes the scale large, so that small values share few codes."}
CONFINED = f'import os\nassert os.getuid() >= {NOBODY}, "this attack is for a sandbox only"\n'


@dataclass(frozen=True)
class Place:
    """Where a corpus is handed in; `$COURSE`, `$TOKEN` and `$PORT` in an entry's code stand for these."""

    course: Path  # the course directory
    token: str  # what an attack that writes or starts something puts into its name, so that it can be found
    port: int  # where the canary listens on 127.0.0.1


@dataclass(frozen=True)
class Entry:
    """One submission of the corpus, and what it deserves.

    `code` runs first. By default all answers are wrong, unless `code` sets `gained` to something true: an attack that
    gets what it is after then gets the right answers, and shows in the points. With `right`, or where `cells` replaces
    some answers, all others are right.
    """

    name: str
    does: str  # one sentence
    code: str = ""
    points: float | None = 0  # None: it is reported as not graded
    says: str = ""  # a pattern (re, any case) that the reason, a message or a note must hold
    cells: dict[str, str] = field(default_factory=dict)  # grade_id -> source; $RIGHT stands for the right answer
    right: bool = False
    or_look: bool = False  # other points, or none, are as good if a reason or note says so
    confined: bool = False  # it could harm the machine: the code runs as the user of a sandbox only
    edit: Callable[[NotebookNode], NotebookNode | None] | None = None  # changes the notebook, or gives another
    raw: Callable[[str], bytes] | None = None  # the file's bytes from the notebook's JSON
    files: Callable[[Path, Place], None] | None = None  # changes the folder that is handed in


def answers(entry: Entry, solutions: dict[str, str], place: Place) -> dict[str, str]:
    """grade_id -> source of the cells that the entry writes; `solutions` are the right ones."""
    code = CONFINED * entry.confined + entry.code
    cells = dict(WRITTEN)
    for grade_id, right in solutions.items():
        wrong_unless_gained = f"{WRONG.get(grade_id, '')}\n\nif globals().get('gained'):\n{indent(right)}"
        source = right if entry.right or entry.cells else wrong_unless_gained
        source = entry.cells.get(grade_id, source)
        if code and grade_id == "span":
            source = f"{code}\n\n{source}"
        values = {"COURSE": str(place.course), "TOKEN": place.token, "PORT": str(place.port), "RIGHT": right}
        cells[grade_id] = string.Template(source).safe_substitute(values)
    return cells


def indent(source: str) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in source.split("\n"))


def right_answers(course: Path) -> dict[str, str]:
    """grade_id -> source of the solution cells of the instructor's notebook, in their order."""
    original = nbformat.read(course / "source" / ASSIGNMENT / NOTEBOOK, as_version=4)
    marks = [(cell, cell.metadata.get("nbgrader", {})) for cell in original.cells if cell.cell_type == "code"]
    return {mark["grade_id"]: without_marks(cell.source) for cell, mark in marks if mark.get("solution")}


def without_marks(source: str) -> str:
    """A solution as a candidate would hand it in."""
    return "".join(line for line in source.splitlines(keepends=True) if " SOLUTION" not in line)


def hand_in(entry: Entry, student: str, place: Place) -> Path:
    """Write the entry's folder below submitted/, and return it."""
    release = place.course / "release" / ASSIGNMENT
    folder = place.course / "submitted" / student / ASSIGNMENT
    shutil.copytree(release, folder)
    notebook = nbformat.read(release / NOTEBOOK, as_version=4)
    cells = answers(entry, right_answers(place.course), place)
    for cell in notebook.cells:
        cell.source = cells.get(grade_id(cell), cell.source)
    if entry.edit:
        notebook = entry.edit(notebook) or notebook
    text = string.Template(nbformat.writes(notebook)).safe_substitute(TOKEN=place.token)
    (folder / NOTEBOOK).write_bytes(entry.raw(text) if entry.raw else text.encode(errors="surrogatepass"))
    if entry.files:
        entry.files(folder, place)
    return folder


def grade_id(cell: NotebookNode) -> str | None:
    mark = cell.metadata.get("nbgrader")
    return mark.get("grade_id") if isinstance(mark, dict) else None


def find(notebook: NotebookNode, name: str) -> NotebookNode:
    """The cell with a grade id."""
    return next(cell for cell in notebook.cells if grade_id(cell) == name)


def graded_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The test cells."""
    return [cell for cell in notebook.cells if str(grade_id(cell)).startswith("test-")]
