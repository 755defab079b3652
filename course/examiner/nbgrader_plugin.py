"""Plugs the examiner into nbgrader, in the place where it would run a submission and its tests in one kernel.

`configure(c)` in a course's nbgrader_config.py is all that is needed; `nbgrader autograde`, the formgrader's button and
`course grade` then give the same scores. Formgrader, generate_feedback and export work on what is written as ever.
"""

from dataclasses import fields

import nbformat
import nbformat.v4 as nbf
from nbconvert.preprocessors import ClearMetadataPreprocessor, CSSHTMLHeaderPreprocessor
from nbformat import NotebookNode
from nbgrader.api import Gradebook, Notebook
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    ClearHiddenTests,
    ClearMarkScheme,
    ClearOutput,
    GetGrades,
    IgnorePattern,
    LimitOutput,
    NbGraderPreprocessor,
    OverwriteCells,
    OverwriteKernelspec,
    SaveAutoGrades,
)
from traitlets import Dict, List, Unicode
from traitlets.config import Config

from .exam import Exam, ExamCell, claimed_id, import_statements, support_files
from .examine import Examination, examine
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
        place = resources["nbgrader"]
        key = (place["student"], place["assignment"], place["notebook"])
        exam, examination = self.ready.get(key) or self._examine(nb, *key)
        examination.write_to(nb, exam)
        return nb, resources

    def _examine(self, nb, student: str, assignment: str, notebook: str) -> tuple[Exam, Examination]:
        coursedir = self.parent.parent.coursedir
        exam = load_exam(coursedir, assignment, notebook)
        files = support_files(coursedir.format_path(coursedir.submitted_directory, student, assignment))
        return exam, examine(nb, exam, files, **self.settings)

    @property
    def settings(self) -> dict:
        """The keyword arguments of `examine` that this configuration asks for."""
        return {"sandbox": self.sandbox, "limits": Limits(**self.limits), "absent": tuple(self.absent)}


class RestoreCells(NbGraderPreprocessor):
    """Gives cells the marks that the gradebook has for them, whatever they claim, and adds graded cells that lack."""

    def preprocess(self, nb, resources):
        place = resources["nbgrader"]
        with Gradebook(place["db_url"]) as gradebook:
            entry = gradebook.find_notebook(place["notebook"], place["assignment"])
            sources = {cell.name: cell.source for cell in entry.source_cells}
            marks = cell_marks(entry)
        missing = dict(marks)
        for cell in nb.cells:
            grade_id = claimed_id(cell)
            cell.metadata.pop("nbgrader", None)
            if mark := missing.pop(grade_id, None):  # of copies the first
                cell.metadata["nbgrader"] = mark
        for grade_id, mark in missing.items():
            if mark["grade"] or mark["task"]:
                make = nbf.new_code_cell if mark["cell_type"] == "code" else nbf.new_markdown_cell
                nb.cells.append(make(sources[grade_id], metadata={"nbgrader": mark}))
        return nb, resources


def cell_marks(entry: Notebook) -> dict[str, NotebookNode]:
    """grade_id -> the nbgrader metadata of every cell that the gradebook knows in a notebook."""
    graded = {cell.name: cell.max_score for cell in entry.grade_cells}
    tasks = {cell.name: cell.max_score for cell in entry.task_cells}
    answers = {cell.name for cell in entry.solution_cells}
    marks = {}
    for cell in sorted(entry.source_cells, key=lambda cell: cell.name):
        name = cell.name
        mark = NotebookNode(grade_id=name, schema_version=3, cell_type=cell.cell_type, checksum=cell.checksum)
        mark.update(grade=name in graded, solution=name in answers, task=name in tasks, locked=cell.locked)
        if name in graded or name in tasks:
            mark["points"] = graded.get(name, tasks.get(name))
        marks[name] = mark
    return marks


def load_exam(coursedir: CourseDirectory, assignment: str, notebook: str) -> Exam:
    """The exam of a notebook in a course directory.

    Cells and points are the gradebook's; order and import statements come from the instructor's notebook in source/,
    support files from release/.
    """
    source = coursedir.format_path(coursedir.source_directory, ".", assignment)
    original = nbformat.read(f"{source}/{notebook}.ipynb", as_version=4)
    order = {claimed_id(cell): place for place, cell in enumerate(original.cells)}
    with Gradebook(coursedir.db_url, coursedir.course_id) as gradebook:
        entry = gradebook.find_notebook(notebook, assignment)
        points = {cell.name: cell.max_score for cell in entry.grade_cells}
        answers = {cell.name for cell in entry.solution_cells}
        cells = [
            ExamCell(cell.name, cell.source, points.get(cell.name))
            for cell in entry.source_cells
            if cell.locked and cell.cell_type == "code" and cell.name not in answers
        ]
    cells.sort(key=lambda cell: order.get(cell.grade_id, len(order)))
    files = support_files(coursedir.format_path(coursedir.release_directory, ".", assignment))
    return Exam(tuple(cells), import_statements(original), files)


def configure(config: Config) -> None:
    """Set nbgrader's options so that it grades through the examiner, and keeps from candidates what is not theirs."""
    config.Autograde.sanitize_preprocessors = [
        ClearOutput,
        RestoreCells,
        OverwriteKernelspec,
        OverwriteCells,
        CheckCellMetadata,
    ]
    config.Autograde.autograde_preprocessors = [
        Examine,
        IgnorePattern,
        ClearMetadataPreprocessor,
        LimitOutput,
        SaveAutoGrades,
        AssignLatePenalties,
        CheckCellMetadata,
    ]
    config.GenerateFeedback.preprocessors = [GetGrades, ClearHiddenTests, ClearMarkScheme, CSSHTMLHeaderPreprocessor]
    # the text of a question holds its answers: nbgrader would copy it beside the notebooks
    config.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", "feedback", "q[0-9][0-9]_*.py"]
