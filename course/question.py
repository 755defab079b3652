"""A question as text: its notebook, the regions that nbgrader cuts out of it, its exercises, and its other files."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import jupytext
from nbformat import NotebookNode

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
# What nbgrader cuts out between "BEGIN x" and "END x", and the flag of the cells that may have it.
REGIONS = {"SOLUTION": "solution", "HIDDEN TESTS": "grade", "MARK SCHEME": "task"}
DELIMITER = re.compile(rf"\b(BEGIN|END) ({'|'.join(REGIONS)})")
EXERCISE = re.compile(r"^#+ (Exercise [^:\n]+)", re.MULTILINE)
_JUPYTER = {"__pycache__", ".ipynb_checkpoints"}


class BuildError(Exception):
    """A question cannot be read or built; the message says which and why."""


@dataclass(frozen=True)
class Exercise:
    """The cells of an exercise: its texts, the blanks to fill in, and its test cells."""

    texts: list[NotebookNode]
    blanks: list[NotebookNode]
    tests: list[NotebookNode]


def read_source(path: Path) -> NotebookNode:
    """Return the instructor's notebook of a question's text, with ids and metadata that depend on nothing else.

    Its test cells are folded: JupyterLab shows their first line, which says what they are, and a click unfolds them.
    """
    notebook = jupytext.read(path)
    course = notebook.metadata.get("course", {})
    notebook.metadata = NotebookNode(course=course, kernelspec=KERNELSPEC, language_info=LANGUAGE_INFO)
    for cell in notebook.cells:
        cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if not k.startswith("lines_to_")})
        try:
            split_regions(cell)
        except ValueError as error:
            raise BuildError(f"{path.name}, cell {label(cell)}: {error}") from None
    _set_ids(notebook.cells)
    _fold_tests(notebook.cells)
    return notebook


def label(cell: NotebookNode) -> str:
    """Return what a person finds a cell by: its grade id, or the beginning of its text."""
    grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
    return grade_id or repr(cell.source.strip().split("\n")[0][:50])


def split_regions(cell: NotebookNode) -> tuple[list[str], list[str]]:
    """Return the lines of a cell that candidates see, and those that nbgrader cuts out.

    A solution cell without a region is cut out whole. Raises ValueError for regions that are nested, not closed,
    not opened, or in the wrong kind of cell (nbgrader passes over some of these, and then leaks).
    """
    visible, removed, inside, found = [], [], None, set()
    for line in cell.source.split("\n"):
        match = DELIMITER.search(line)
        if not match:
            (removed if inside else visible).append(line)
            continue
        _check_delimiter(cell, *match.groups(), inside)
        inside = match[2] if match[1] == "BEGIN" else None
        found.add(match[2])
    if inside:
        raise ValueError(f"BEGIN {inside} has no END {inside}")
    if cell.metadata.get("nbgrader", {}).get("solution") and "SOLUTION" not in found:
        return [], visible + removed
    return visible, removed


def is_test(cell: NotebookNode) -> bool:
    """Whether a cell is a test cell: nbgrader scores it by running it."""
    mark = cell.metadata.get("nbgrader", {})
    return cell.cell_type == "code" and bool(mark.get("grade")) and not mark.get("solution")


def find_exercises(notebook: NotebookNode) -> list[Exercise]:
    """Return the exercises of an instructor's notebook: each ends with the last test cell after its blanks."""
    exercises, texts, blanks, tests = [], [], [], []
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader", {})
        opens = cell.cell_type == "markdown" and EXERCISE.match(cell.source)
        if tests and (opens or (cell.cell_type == "code" and mark.get("solution"))):
            exercises.append(Exercise(texts, blanks, tests))
            texts, blanks, tests = [], [], []
        if opens and not blanks:
            texts = []
        if cell.cell_type == "markdown" and not tests:
            texts.append(cell)
        elif cell.cell_type == "code" and mark.get("solution"):
            blanks.append(cell)
        elif is_test(cell) and blanks:
            tests.append(cell)
    return [*exercises, Exercise(texts, blanks, tests)] if blanks else exercises


def support_files(folder: Path) -> list[Path]:
    """Return the files beside a question's text or notebook, relative to its folder, sorted: pictures, data."""
    text = f"{folder.name}.py"
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    visible = (path for path in files if not any(part.startswith((".", "__pycache__")) for part in path.parts))
    return sorted(path for path in visible if path != Path(text) and path.suffix != ".ipynb")


def tree(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder by relative path, Jupyter's checkpoints left out."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not _JUPYTER & set(path.parts))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _check_delimiter(cell: NotebookNode, word: str, region: str, inside: str | None) -> None:
    if word == "BEGIN" and inside:
        raise ValueError(f"BEGIN {region} stands inside {inside}")
    if word == "END" and inside != region:
        raise ValueError(f"END {region} has no BEGIN {region}")
    flag = REGIONS[region]
    if not cell.metadata.get("nbgrader", {}).get(flag):
        raise ValueError(f"BEGIN {region} needs a cell whose nbgrader metadata says {flag}: true")


def _fold_tests(cells: list[NotebookNode]) -> None:
    heading = "Test"
    for cell in cells:
        if cell.cell_type == "markdown":
            heading = next(iter(EXERCISE.findall(cell.source)), heading)
        elif is_test(cell):
            cell.metadata.jupyter = NotebookNode(source_hidden=True)
            cell.source = f"# {heading}: run this cell to test your answer; click here to read the test.\n{cell.source}"


def _set_ids(cells: list[NotebookNode]) -> None:
    taken = set()
    for cell in cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()
        base = re.sub(r"[^a-zA-Z0-9_-]", "-", grade_id)[:60] or digest[:12]
        cell.id, repeat = base, 1
        while cell.id in taken:
            repeat += 1
            cell.id = f"{base}-{repeat}"
        taken.add(cell.id)
