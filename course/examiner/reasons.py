"""Why a name that a test needs is not there: it may stand where nothing is run, or its cell may be gone."""

import re

from nbformat import NotebookNode

from .exam import Exam, claimed_id, normalized

EXPERIMENT = "experiment"  # tag of cells that grading does not run
UNDEFINED = re.compile(r"the submission defines no `(\w+)`")


def is_experiment(cell: NotebookNode) -> bool:
    """Whether the cell is one that grading does not run; the instructor's own cells cannot be."""
    return EXPERIMENT in cell.metadata.get("tags", ())


def undefined_name(outputs: list[NotebookNode]) -> str | None:
    """The name that a test found undefined, if that is why it failed."""
    found = UNDEFINED.match(outputs[-1].evalue) if outputs and outputs[-1].output_type == "error" else None
    return found[1] if found else None


def explain_undefined(name: str, notebook: NotebookNode, exam: Exam) -> str:
    """Where in a restored notebook the name stands without being run, or which cell is gone; empty if neither."""
    defines = re.compile(rf"^[ \t]*(?:(?:async +)?def|class) +{name}\b|^{name} *(?::[^=\n]*)?=(?!=)", re.MULTILINE)
    for number, cell in enumerate(notebook.cells, 1):
        if (place := _not_run(cell, exam)) and defines.search(cell.source) and _is_own(cell, exam):
            return f"cell {number}, {place}, has it, and is not run"
    present = {claimed_id(cell) for cell in notebook.cells}
    for blank in exam.places:
        if blank.solution and blank.grade_id not in present and defines.search(blank.source):
            return f"the cell `{blank.grade_id}` is missing"
    return ""


def _not_run(cell: NotebookNode, exam: Exam) -> str:
    """What keeps a cell from being run as the candidate's code; empty if nothing does."""
    if cell.cell_type != "code":
        return f"a {cell.cell_type} cell"
    place = exam.place(claimed_id(cell))
    if place and place.locked:
        return f"the instructor's `{place.grade_id}`"
    return f"tagged `{EXPERIMENT}`" if is_experiment(cell) else ""


def _is_own(cell: NotebookNode, exam: Exam) -> bool:
    """Whether the candidate wrote the text, and it did not come with the notebook."""
    place = exam.place(claimed_id(cell))
    text = normalized(cell.source)
    return text not in exam.prose and not (place and text in (place.text, normalized(place.source)))
