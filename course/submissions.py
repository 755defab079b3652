"""What candidates handed in: found below submitted/, read as it is, refused with a reason where it cannot be."""

import glob
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.api import MissingEntry
from nbgrader.coursedir import CourseDirectory

from .directory import open_gradebook, step_folder
from .examiner import Exam, Examination
from .examiner.exam import support_files
from .examiner.nbgrader_plugin import load_exam

MAX_NOTEBOOK_BYTES = 64 << 20


class GradeError(Exception):
    """Grading cannot begin; the message says why."""


class Ungradable(Exception):
    """One submission cannot be examined; the message says why."""


@dataclass
class Submission:
    """One candidate's notebooks for one assignment, with the exams they are examined by."""

    student: str
    assignment: str
    exams: dict[str, Exam]  # notebook name -> exam
    notebooks: dict[str, NotebookNode]
    files: dict[str, bytes]
    examinations: dict[str, Examination] = field(default_factory=dict)

    @property
    def is_examined(self) -> bool:
        return len(self.examinations) == len(self.exams)


def find_submissions(
    coursedir: CourseDirectory, assignments: list[str] | None, student: str | None
) -> list[tuple[str, str]]:
    """(student, assignment) of the folders below submitted/, sorted; raises GradeError if there is none."""
    step = coursedir.submitted_directory
    pattern = re.compile(coursedir.format_path(step, "(?P<student>[^/]+)", "(?P<assignment>[^/]+)", escape=True))
    found = []
    for path in glob.glob(coursedir.format_path(step, "*", "*")):
        match = pattern.fullmatch(path)
        if match and Path(path).is_dir():
            found.append((match["student"], match["assignment"]))
    found = [(who, what) for who, what in found if student in (None, who) and (not assignments or what in assignments)]
    if not found:
        wanted = coursedir.format_path(step, student or "*", ",".join(assignments or "*"))
        raise GradeError(f"there is no submission at {wanted}")
    return sorted(found)


def load_exams(coursedir: CourseDirectory, assignment: str) -> dict[str, Exam]:
    """Notebook name -> exam of an assignment; raises GradeError if the course does not hold it."""
    with open_gradebook(coursedir) as gradebook:
        try:
            names = sorted(notebook.name for notebook in gradebook.find_assignment(assignment).notebooks)
        except MissingEntry:
            known = ", ".join(sorted(entry.name for entry in gradebook.assignments)) or "none"
            advice = "`course build` or `nbgrader generate_assignment` records an assignment"
            raise GradeError(f"the gradebook has no assignment {assignment!r} (known: {known}); {advice}") from None
    try:
        return {name: load_exam(coursedir, assignment, name) for name in names}
    except FileNotFoundError as error:
        raise GradeError(f"the instructor's notebook {error.filename} is missing; `course build` makes it") from None


def read_submission(coursedir: CourseDirectory, student: str, assignment: str, exams: dict[str, Exam]) -> Submission:
    """A submission as it was handed in; raises Ungradable, with the reason, if it cannot be examined."""
    folder = step_folder(coursedir, "submitted", assignment, student)
    links = [path for path in [folder, *folder.rglob("*")] if path.is_symlink()]
    if links:
        raise Ungradable(f"{links[0].name} is a symbolic link; hand in the file itself")
    notebooks = {name: read_notebook(folder / f"{name}.ipynb") for name in exams}
    return Submission(student, assignment, exams, notebooks, support_files(folder))


def read_notebook(path: Path) -> NotebookNode:
    """A notebook that somebody else wrote; raises Ungradable, with the reason, if it is none."""
    if not path.is_file():
        others = ", ".join(sorted(other.name for other in path.parent.glob("*.ipynb"))) or "no notebook"
        raise Ungradable(f"{path.name} is missing; handed in: {others}")
    if path.stat().st_size > MAX_NOTEBOOK_BYTES:
        raise Ungradable(f"{path.name} has {path.stat().st_size:,} bytes; the limit is {MAX_NOTEBOOK_BYTES:,}")
    try:
        with warnings.catch_warnings(action="ignore"):
            notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
            nbformat.validate(notebook)
    except UnicodeDecodeError as error:
        raise Ungradable(f"{path.name} is not UTF-8 text: {error}") from None
    except nbformat.reader.NotJSONError:
        raise Ungradable(f"{path.name} is not a notebook: it is not JSON") from None
    except Exception as error:  # nbformat passes on whatever a malformed file provokes
        first_line = str(error).strip().split("\n")[0][:200]
        raise Ungradable(f"{path.name} is not a valid notebook: {type(error).__name__}: {first_line}") from None
    return notebook
