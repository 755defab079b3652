"""Which file of a hand-in is which notebook: under its name, or found where it was renamed or lies a folder deeper."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NoReturn

from nbformat import NotebookNode

from ..examiner import Exam
from ..examiner.exam import claimed_id
from ..examiner.files import Refused, hard_links, read_file, shown, walk
from ..examiner.reading import MAX_NOTEBOOK_BYTES, parse_notebook

MAX_OTHERS = 20  # notebooks with other names that are looked into
MAX_SHOWN = 8  # files that a reason names


class Ungradable(Exception):
    """One submission cannot be examined; the message says why."""


@dataclass
class Found:
    """A notebook that was handed in, and what an instructor should know of where and how."""

    path: Path
    notebook: NotebookNode
    notes: list[str]

    def marks(self, exam: Exam) -> int:
        """How many of an exam's marked cells the notebook claims to have."""
        return len({claimed_id(cell) for cell in self.notebook.cells} & {place.grade_id for place in exam.places})


def find_notebooks(folder: Path, exams: dict[str, Exam]) -> dict[str, Found]:
    """Notebook name -> what was handed in for it; raises Ungradable if that is nothing, or it is not clear which.

    Of several notebooks some may be missing, if none with another name was handed in.
    """
    named = {name: folder / f"{name}.ipynb" for name in exams}
    found = {name: parse(path) for name, path in named.items() if os.path.lexists(path)}
    others = (path for path in walk(folder, depth=1) if _is_notebook(path) and path not in named.values())
    others = list(islice(others, MAX_OTHERS))
    lost = [name for name in exams if name not in found]
    readable = [entry for path in others if (entry := _try(path))] if lost else []
    for name in lost:
        if entry := _pick(name, exams[name], readable, is_last=len(exams) - len(found) == 1):
            entry.notes.append(f"the notebook was found as {shown(entry.path.relative_to(folder).as_posix())}")
            found[name] = entry
            readable.remove(entry)
    unused = [path for path in others if path not in {entry.path for entry in found.values()}]
    if len(found) < len(exams) and (unused or not found):
        _refuse(folder, [name for name in exams if name not in found], unused or walk(folder))
    if unused:
        names = ", ".join(shown(path.relative_to(folder).as_posix()) for path in unused)
        next(iter(found.values())).notes.append(f"not graded, though handed in too: {names}")
    return found


def parse(path: Path) -> Found:
    """Read a notebook; raises Ungradable, with the reason, if it is none."""
    try:
        notebook, notes = parse_notebook(read_file(path, MAX_NOTEBOOK_BYTES))
        links = hard_links(path)
    except Refused as reason:
        raise Ungradable(f"{shown(path.name)} {reason}") from None
    notes = [f"the notebook {note}" for note in notes]
    if links > 1:
        notes.append(f"the notebook is one of {links} hard links to a file: look whose it is")
    return Found(path, notebook, notes)


def _is_notebook(path: Path) -> bool:
    return path.suffix.lower() == ".ipynb" and not path.name.startswith(".")


def _try(path: Path) -> Found | None:
    try:
        return parse(path)
    except Ungradable:
        return None


def _pick(name: str, exam: Exam, others: list[Found], is_last: bool) -> Found | None:
    """The one with the right name in another folder, or with the exam's marks, or the only one that is left."""
    same_name = [entry for entry in others if entry.path.name == f"{name}.ipynb"]
    pool = same_name or others
    marks = [entry.marks(exam) for entry in pool]
    fits = [entry for entry, count in zip(pool, marks, strict=True) if count == max(marks)]
    if not fits or not (same_name or max(marks) or (is_last and len(pool) == 1)):
        return None
    different = [entry for entry in fits if entry.notebook != fits[0].notebook]
    if different:
        names = ", ".join(shown(entry.path.name) for entry in [fits[0], *different][:MAX_SHOWN])
        raise Ungradable(f"{name}.ipynb is missing, and each of {names} could be it; hand in one of them")
    return fits[0]


def _refuse(folder: Path, lost: list[str], entries: Iterable[Path]) -> NoReturn:
    missing = ", ".join(f"{name}.ipynb" for name in lost)
    names = [shown(path.relative_to(folder).as_posix()) for path in islice(entries, MAX_SHOWN) if path != folder]
    handed_in = ", ".join(names) or "nothing that can be read"
    raise Ungradable(f"{missing} is missing; handed in: {handed_in}")
