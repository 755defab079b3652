"""What a candidate wrote for the cells that an instructor scores, taken from the autograded notebook."""

import json
from pathlib import Path

from ..plain_text import clean

MAX_ANSWER = 8000  # characters; a cell of Excel holds 32,767


def written_answers(autograded: Path, release: Path, cells: list[str]) -> dict[str, str]:
    """Return the answer to each of `cells` (grade ids) in a notebook; empty where nothing was written.

    A manually graded cell is its own answer. To a task cell the answer is what stands below it, up to the next cell
    that nbgrader knows. Cells that are as they were handed out are no answer. Raises OSError or ValueError where the
    autograded notebook cannot be read.
    """
    handed_out = {_source(cell) for cell in _cells(release)} if release.is_file() else set()
    answers, task = {}, None
    for cell in _cells(autograded):
        mark = _mark(cell)
        if mark.get("grade_id"):
            task = mark["grade_id"] if mark.get("task") else None
        place = mark.get("grade_id") if mark.get("solution") else task
        text = _source(cell)
        if place in cells and not mark.get("task") and text not in handed_out:
            answers.setdefault(place, []).append(text)
    return {name: clean("\n\n".join(answers.get(name, [])), MAX_ANSWER) for name in cells}


def _cells(path: Path) -> list[dict]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if isinstance(cell, dict)]


def _mark(cell: dict) -> dict:
    mark = cell.get("metadata", {}).get("nbgrader", {})
    return mark if isinstance(mark, dict) else {}


def _source(cell: dict) -> str:
    source = cell.get("source", "")
    return "".join(source).strip() if isinstance(source, list) else str(source).strip()
