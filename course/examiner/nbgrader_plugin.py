"""Plugs the examiner into nbgrader, in the place where it would run a submission and its tests in one kernel.

`configure(c)` in a course's nbgrader_config.py is all that is needed; `nbgrader autograde`, the formgrader's button and
`course grade` then give the same scores. Formgrader, generate_feedback and export work on what is written as ever.
"""

import os
from dataclasses import fields, replace
from pathlib import Path

import nbformat
from nbconvert.exporters import NotebookExporter
from nbconvert.preprocessors import ClearMetadataPreprocessor, CSSHTMLHeaderPreprocessor
from nbformat import NotebookNode
from nbgrader.api import Gradebook, Notebook
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import (
    AssignLatePenalties,
    ClearOutput,
    GetGrades,
    IgnorePattern,
    LimitOutput,
    NbGraderPreprocessor,
    OverwriteKernelspec,
    SaveAutoGrades,
)
from traitlets import Dict, List, Unicode
from traitlets.config import Config

from ..display.hiding import HideMarkSchemes, HideTests
from .exam import Exam, ExamCell, Place, claimed_id, import_statements, prose
from .examine import Examination, examine
from .files import Refused, apart_from, collect, read_file, shown, walk
from .reading import MAX_NOTEBOOK_BYTES, parse_notebook
from .restore import restore
from .sandbox import ABSENT, Limits

LIMIT_NAMES = [field.name for field in fields(Limits)]


class Examine(NbGraderPreprocessor):
    """Examines the notebook, or records an examination that was made before, and puts the outputs into it."""

    sandbox = Unicode("bubblewrap", help="'bubblewrap', or 'none' for no protection.").tag(config=True)
    limits = Dict({}, help=f"Changes to the limits of a submission: {', '.join(LIMIT_NAMES)}.").tag(config=True)
    absent = List(Unicode(), list(ABSENT), help="Modules that a submission cannot import.").tag(config=True)

    # (student, assignment, notebook) -> an examination that is at hand already
    ready: dict[tuple[str, str, str], tuple[Exam, Examination]] = {}  # noqa: RUF012 (shared on purpose)

    def preprocess(self, nb, resources):
        exam, examination = self.ready.get(_key(resources)) or self._examine(nb, _key(resources))
        examination.write_to(nb, exam)
        return nb, resources

    def _examine(self, nb: NotebookNode, key: tuple[str, str, str]) -> tuple[Exam, Examination]:
        coursedir, (student, assignment, notebook) = self.parent.parent.coursedir, key
        exam = load_exam(coursedir, assignment, notebook)
        files, left_out = collect(coursedir.format_path(coursedir.submitted_directory, student, assignment))
        files, blocked = apart_from(exam.files, files)
        examination = examine(nb, exam, files, **self.settings)
        before = nb.metadata.get("course", {}).get("notes", [])
        return exam, replace(examination, notes=[*before, *left_out, *blocked, *examination.notes])

    @property
    def settings(self) -> dict:
        """The keyword arguments of `examine` that this configuration asks for."""
        return {"sandbox": self.sandbox, "limits": Limits.changed(self.limits), "absent": tuple(self.absent)}


class SubmissionExporter(NotebookExporter):
    """Reads a submitted notebook as `course grade` does: other encodings and formats too, and no symbolic links."""

    def from_filename(self, filename, resources=None, **kw):
        if not self.parent._sanitizing:  # what nbgrader itself has written
            return super().from_filename(filename, resources, **kw)
        folder, name = os.path.split(filename)
        if link := next((path for path in walk(folder) if path.is_symlink()), None):
            raise Refused(f"{shown(link.name)} is a symbolic link; hand in the file itself")
        try:
            notebook, notes = parse_notebook(read_file(filename, MAX_NOTEBOOK_BYTES))
        except Refused as reason:
            raise Refused(f"{shown(name)} {reason}") from None
        notebook.metadata["course"] = {"notes": [f"the notebook {note}" for note in notes]}
        resources["metadata"] = {"name": Path(name).stem, "path": folder}
        return self.from_notebook_node(notebook, resources=resources, **kw)


class RestoreCells(NbGraderPreprocessor):
    """Gives cells the marks and tests that the gradebook has for them, and adds graded cells that are missing."""

    def preprocess(self, nb, resources):
        _, assignment, notebook = key = _key(resources)
        exam, _ = Examine.ready.get(key) or (load_exam(self.parent.parent.coursedir, assignment, notebook), None)
        restored, notes = restore(nb, exam)
        for cell in restored.cells:
            place = exam.place(claimed_id(cell))
            if place and place.locked:
                cell.source = place.source
        before = nb.metadata.pop("course", {}).get("notes", [])
        restored.metadata["course"] = {"notes": [*before, *notes]}
        return restored, resources


def _key(resources: dict) -> tuple[str, str, str]:
    place = resources["nbgrader"]
    return place["student"], place["assignment"], place["notebook"]


def places(entry: Notebook) -> list[Place]:
    """The cells that the gradebook knows in a notebook."""
    graded = {cell.name: cell.max_score for cell in entry.grade_cells}
    tasks = {cell.name: cell.max_score for cell in entry.task_cells}
    answers = {cell.name for cell in entry.solution_cells}
    return [
        Place(
            cell.name,
            cell.cell_type,
            cell.source,
            grade=cell.name in graded,
            solution=cell.name in answers,
            task=cell.name in tasks,
            locked=cell.locked,
            points=graded.get(cell.name, tasks.get(cell.name)),
            checksum=cell.checksum,
        )
        for cell in entry.source_cells
    ]


def load_exam(coursedir: CourseDirectory, assignment: str, notebook: str) -> Exam:
    """The exam of a notebook in a course directory.

    Cells and points are the gradebook's; order and import statements come from the instructor's notebook in source/,
    support files from release/. Raises Refused if one of those cannot be read.
    """
    source = coursedir.format_path(coursedir.source_directory, ".", assignment)
    original = nbformat.read(f"{source}/{notebook}.ipynb", as_version=4)
    order = {claimed_id(cell): place for place, cell in enumerate(original.cells)}
    with Gradebook(coursedir.db_url, coursedir.course_id) as gradebook:
        known = places(gradebook.find_notebook(notebook, assignment))
    known.sort(key=lambda place: (order.get(place.grade_id, len(order)), place.grade_id))
    cells = tuple(
        ExamCell(place.grade_id, place.source, place.points if place.grade else None)
        for place in known
        if place.locked and place.cell_type == "code" and not place.solution
    )
    files, left_out = collect(coursedir.format_path(coursedir.release_directory, ".", assignment))
    if left_out:
        raise Refused(left_out[0])
    return Exam(cells, import_statements(original), files, tuple(known), prose(original))


def configure(config: Config) -> None:
    """Set nbgrader's options so that it grades through the examiner, and keeps from candidates what is not theirs."""
    config.Autograde.exporter_class = SubmissionExporter
    config.Autograde.sanitize_preprocessors = [
        ClearOutput,
        RestoreCells,
        OverwriteKernelspec,
    ]
    config.Autograde.autograde_preprocessors = [
        Examine,
        IgnorePattern,
        ClearMetadataPreprocessor,
        LimitOutput,
        SaveAutoGrades,
        AssignLatePenalties,
    ]
    config.GenerateFeedback.preprocessors = [GetGrades, HideTests, HideMarkSchemes, CSSHTMLHeaderPreprocessor]
    config.GenerateFeedback.exporter_class = "course.display.pages.FeedbackPage"
    # the text of a question holds its answers: nbgrader would copy it beside the notebooks
    config.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", "feedback", "q[0-9][0-9]_*.py"]
