"""A question as the gates look at it: the instructor's notebook beside the one that candidates get."""

from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from ..directory import open_course, step_folder
from ..question import label, read_source


@dataclass(frozen=True)
class Question:
    """One question as the instructor has it, and as candidates get it."""

    name: str
    source_folder: Path
    release_folder: Path
    source: NotebookNode
    release: NotebookNode

    def problem(self, cell: NotebookNode | None, what: str) -> str:
        """Return a sentence that names the question, the cell and what is wrong."""
        return f"{self.name}{f', cell {label(cell)}' if cell else ''}: {what}"


def load_question(name: str, *, source_dir: Path, course_dir: Path) -> Question:
    """Return a question with both of its notebooks read."""
    source, release = Path(source_dir) / name, step_folder(open_course(course_dir), "release", name)
    notebook = nbformat.read(release / f"{name}.ipynb", as_version=4)
    return Question(name, source, release, read_source(source / f"{name}.py"), notebook)
