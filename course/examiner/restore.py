"""Finds out which of the instructor's cells each cell of a submission stands for, whatever became of its marks.

Marks get lost (Colab, VS Code), cells get split, copied, deleted, or turned into another type; none of that is to cost
points, and no mark that a submission claims is to gain any.
"""

import copy
from collections import Counter, defaultdict
from itertools import groupby

import nbformat.v4 as nbf
from nbformat import NotebookNode

from .exam import Exam, ExamCell, Place, claimed_id, normalized

MISSING = "This cell (`{}`) was missing from what was handed in; it was added when grading."
KINDS = {"code": "code", "markdown": "markdown", "raw": "a raw cell"}


def restore(notebook: NotebookNode, exam: Exam) -> tuple[NotebookNode, list[str]]:
    """A copy whose cells carry the instructor's marks and no others, and notes for the instructor.

    Scored cells that are missing stand at the end. A copy that is restored again stays as it is.
    """
    restored, notes = copy.deepcopy(notebook), []
    cells = restored.cells
    claims = [claimed_id(cell) for cell in cells]
    homes = _marked(cells, claims, exam, notes)
    _find_by_text(cells, homes, exam)
    _find_between(cells, homes, exam, notes)
    for cell in cells:
        cell.metadata.pop("nbgrader", None)
    for place in exam.places:
        if place.grade_id in homes:
            _settle(cells[homes[place.grade_id]], place, notes)
        elif place.is_scored:
            cells.append(_missing_cell(place, notes))
    return restored, notes


def code_cells(restored: NotebookNode, exam: Exam) -> list[tuple[NotebookNode, ExamCell | None]]:
    """The code cells of a restored notebook, each with the instructor's cell that it stands for, if any."""
    return [(cell, exam.find(claimed_id(cell))) for cell in restored.cells if cell.cell_type == "code"]


def _marked(cells: list[NotebookNode], claims: list[str | None], exam: Exam, notes: list[str]) -> dict[str, int]:
    """grade_id -> index of the cell that claims it; of copies the first, of an answer's the first that is answered."""
    claimants = defaultdict(list)
    for index, grade_id in enumerate(claims):
        if place := exam.place(grade_id):
            claimants[place.grade_id].append(index)
    homes = {}
    for grade_id, indexes in claimants.items():
        place = exam.place(grade_id)
        texts = {index: normalized(cells[index].source) for index in indexes}
        answered = [index for index in indexes if texts[index] and texts[index] != place.text]
        homes[grade_id] = indexes[0] if place.locked else [*answered, *indexes][0]
        if len({texts[index] for index in answered}) > 1 and not place.locked:
            use = "the first was taken for the answer" if place.is_manual else "all of them were run, in order"
            notes.append(f"`{grade_id}` stands there {len(indexes)} times with different text: {use}")
    return homes


def _find_by_text(cells: list[NotebookNode], homes: dict[str, int], exam: Exam) -> None:
    """Take for a place the cell that still has the text that was given out, where no other place has that text."""
    shared = Counter(place.text for place in exam.places)
    lost = {
        place.text: place.grade_id
        for place in exam.places
        if place.grade_id not in homes and place.text and shared[place.text] == 1
    }
    taken = set(homes.values())
    for index, cell in enumerate(cells):
        if lost and index not in taken and (grade_id := lost.pop(normalized(cell.source), None)):
            homes[grade_id] = index


def _find_between(cells: list[NotebookNode], homes: dict[str, int], exam: Exam, notes: list[str]) -> None:
    """Take for answers without a mark the text between their neighbours, where there is as much text as answers."""
    taken, start = set(homes.values()), 0
    for is_lost, group in groupby(exam.places, key=lambda place: place.grade_id not in homes):
        places = list(group)
        if not is_lost:
            start = homes[places[-1].grade_id] + 1
            continue
        following = exam.places[exam.places.index(places[-1]) + 1 :]
        end = homes[following[0].grade_id] if following else len(cells)
        for kind in ("markdown", "code"):
            blanks = [place for place in places if place.solution and place.cell_type == kind]
            texts = [n for n in range(start, end) if n not in taken and _is_answer(cells[n], kind, exam)]
            if len(texts) == len(blanks):
                found = {blank.grade_id: n for blank, n in zip(blanks, texts, strict=True) if blank.is_manual}
                homes.update(found)
                notes += [f"`{name}` had lost its mark: the text between its neighbours was taken" for name in found]


def _is_answer(cell: NotebookNode, kind: str, exam: Exam) -> bool:
    text = normalized(cell.source)
    return cell.cell_type == kind and text != "" and text not in exam.prose


def _settle(cell: NotebookNode, place: Place, notes: list[str]) -> None:
    """Give a cell its place's mark and type."""
    if cell.cell_type != place.cell_type:
        if place.cell_type == "code" and not place.locked:
            notes.append(f"`{place.grade_id}` was turned into {KINDS[cell.cell_type]}: it was run as code all the same")
        _change_type(cell, place.cell_type)
    cell.metadata = NotebookNode(nbgrader=place.mark)


def _change_type(cell: NotebookNode, kind: str) -> None:
    cell.cell_type = kind
    if kind == "code":
        cell.pop("attachments", None)
        cell.update(outputs=[], execution_count=None)
    else:
        cell.pop("outputs", None)
        cell.pop("execution_count", None)


def _missing_cell(place: Place, notes: list[str]) -> NotebookNode:
    source = place.source
    if place.is_manual:  # other text than the blank's, which nbgrader would score 0 unseen
        notes.append(f"the answer `{place.grade_id}` is missing: look whether it stands elsewhere in the notebook")
        source = ("# " if place.cell_type == "code" else "") + MISSING.format(place.grade_id)
    make = nbf.new_code_cell if place.cell_type == "code" else nbf.new_markdown_cell
    return make(source, metadata={"nbgrader": place.mark})
