"""Sample answers to a question: right ones written differently, and wrong ones that real people give.

One file is one answer, tests/answers/NAME/right_*.py or wrong_*.py:

    # fails: test-q4_0, test-gemv         the test cells that it must fail; empty for a right answer
    # says: high and low nibbles          what a failure message must contain
    \"\"\"The misconception, in one sentence.\"\"\"
    # %% q4_0                             what follows replaces the solution cell q4_0; the rest is the model answer
"""

import ast
import copy
import re
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode
from nbgrader.utils import is_solution

SECTION = re.compile(r"^# %% (\S+)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    """An answer to a question, as changes to the model answer, and what must become of it."""

    name: str
    idea: str  # the misconception of a wrong answer, or what is different in a right one
    fails: frozenset[str]  # grade ids of the test cells that it must fail
    says: str  # a failure message must contain this
    cells: dict[str, str]  # grade id of a solution cell -> its content

    @property
    def is_right(self) -> bool:
        return not self.fails


def read_answers(folder: Path) -> list[Answer]:
    """The answers of a folder, right ones first."""
    return sorted(
        (read_answer(path) for path in folder.glob("*.py")), key=lambda answer: (bool(answer.fails), answer.name)
    )


def read_answer(path: Path) -> Answer:
    """One answer; raises ValueError if the file has no `# fails:` line, no docstring or no section."""
    text = path.read_text()
    head, *sections = SECTION.split(text)
    cells = {grade_id: code.strip() for grade_id, code in zip(sections[::2], sections[1::2], strict=True)}
    fails = re.search(r"^# fails:(.*)$", head, re.MULTILINE)
    says = re.search(r"^# says:(.*)$", head, re.MULTILINE)
    idea = ast.get_docstring(ast.parse(head))
    if not fails or not idea or not cells:
        raise ValueError(f"{path}: an answer needs a line `# fails:`, a docstring, and a section `# %% GRADE_ID`")
    names = frozenset(name.strip() for name in fails[1].split(",") if name.strip())
    return Answer(path.stem, " ".join(idea.split()), names, says[1].strip() if says else "", cells)


def fill_in(notebook: NotebookNode, cells: dict[str, str]) -> NotebookNode:
    """A copy of a notebook with the content of some solution cells replaced; raises KeyError for one it has not."""
    filled = copy.deepcopy(notebook)
    blanks = {cell.metadata.nbgrader.grade_id: cell for cell in filled.cells if is_solution(cell)}
    for grade_id, code in cells.items():
        blanks[grade_id].source = code
    return filled


def model_cells(notebook: NotebookNode) -> dict[str, str]:
    """grade id -> content of the solution cells of an instructor's notebook."""
    return {cell.metadata.nbgrader.grade_id: cell.source for cell in notebook.cells if is_solution(cell)}
