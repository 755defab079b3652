"""What candidates handed in: found below submitted/, read as it is, refused with a reason where it cannot be."""

import glob
import re
from dataclasses import dataclass, field
from pathlib import Path

import nbformat.v4 as nbf
from nbformat import NotebookNode
from nbgrader.api import MissingEntry
from nbgrader.coursedir import CourseDirectory
from nbgrader.utils import parse_utc

from ..directory import open_gradebook, step_folder
from ..examiner import Exam, Examination
from ..examiner.files import Refused, apart_from, collect, read_file
from ..examiner.nbgrader_plugin import load_exam
from .hand_in import Found, Ungradable, find_notebooks, parse

TIMESTAMP = "timestamp.txt"  # nbgrader's: when a submission was handed in
MAX_TIMESTAMP_BYTES = 1_000
EPOCH = "1970-01-01 00:00:00 UTC"
NOT_HANDED_IN = "the notebook was not handed in: it counts as empty"


class GradeError(Exception):
    """Grading cannot begin; the message says why."""


@dataclass
class Submission:
    """One candidate's notebooks for one assignment, with the exams they are examined by."""

    student: str
    assignment: str
    exams: dict[str, Exam]  # notebook name -> exam
    notebooks: dict[str, NotebookNode]
    files: dict[str, bytes]
    examinations: dict[str, Examination] = field(default_factory=dict)
    read_notes: dict[str, list[str]] = field(default_factory=dict)  # notebook name -> what its reading turned up

    @property
    def is_examined(self) -> bool:
        return len(self.examinations) == len(self.exams)

    @property
    def notes(self) -> list[str]:
        """What an instructor should look at, a sentence each: of reading and, once examined, of examining."""
        return [note for name in self.exams for note in self.notes_on(name)]

    def notes_on(self, name: str) -> list[str]:
        """The notes on one notebook; where there are several, they begin with its name."""
        notes = list(self.read_notes.get(name, ()))
        if name in self.examinations:
            notes += self.examinations[name].notes
        return [f"{name}: {note}" for note in notes] if len(self.exams) > 1 else notes


def find_submissions(
    coursedir: CourseDirectory, assignments: list[str] | None, student: str | None
) -> list[tuple[str, str]]:
    """(student, assignment) of the folders below submitted/, sorted; raises GradeError if there is none."""
    step = coursedir.submitted_directory
    pattern = re.compile(coursedir.format_path(step, "(?P<student>[^/]+)", "(?P<assignment>[^/]+)", escape=True))
    found = []
    for path in _glob(coursedir, coursedir.format_path(step, "*", "*")):
        match = pattern.fullmatch(path)
        if match and (Path(path).is_dir() or Path(path).is_symlink()):  # a link is refused later, with its reason
            found.append((match["student"], match["assignment"]))
    found = [(who, what) for who, what in found if student in (None, who) and (not assignments or what in assignments)]
    if not found:
        wanted = coursedir.format_path(step, student or "*", ",".join(assignments or "*"))
        raise GradeError(f"there is no submission at {wanted}")
    return sorted(found)


def _glob(coursedir: CourseDirectory, pattern: str) -> list[str]:
    """The paths that match; the course directory's own path may hold brackets."""
    root = f"{coursedir.root}/"
    return glob.glob(glob.escape(root) + pattern.removeprefix(root) if pattern.startswith(root) else pattern)


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
    except Refused as reason:
        raise GradeError(f"the support files of {assignment} cannot be used: {reason}") from None


def read_submission(coursedir: CourseDirectory, student: str, assignment: str, exams: dict[str, Exam]) -> Submission:
    """A submission as it was handed in; raises Ungradable, with the reason, if it cannot be examined."""
    folder = step_folder(coursedir, "submitted", assignment, student)
    _refuse_links(folder, Path(coursedir.root))
    found = find_notebooks(folder, exams)
    notebooks = {name: found[name].notebook if name in found else nbf.new_notebook() for name in exams}
    notes = {name: list(found[name].notes) if name in found else [NOT_HANDED_IN] for name in exams}
    files, left_out = _support_files(folder, found)
    files, blocked = apart_from({name: data for exam in exams.values() for name, data in exam.files.items()}, files)
    notes[next(iter(exams))] += [*left_out, *blocked]
    return Submission(student, assignment, exams, notebooks, files, read_notes=notes)


def read_notebook(path: Path) -> NotebookNode:
    """A notebook that somebody else wrote; raises Ungradable, with the reason, if it is none."""
    return parse(path).notebook


def _refuse_links(folder: Path, root: Path) -> None:
    for path in (folder, *folder.parents):
        if path == root:
            return
        if path.is_symlink():
            raise Ungradable(f"{path.relative_to(root)} is a symbolic link; hand in the folder itself")


def _support_files(folder: Path, found: dict[str, Found]) -> tuple[dict[str, bytes], list[str]]:
    """What lies beside the notebooks, and what is left out; the time of handing in always lies in the folder itself."""
    folders = {entry.path.parent for entry in found.values()}
    files, notes = collect(folders.pop() if len(folders) == 1 else folder)
    files.pop(TIMESTAMP, None)
    if (folder / TIMESTAMP).exists():
        try:
            files[TIMESTAMP] = _timestamp(folder / TIMESTAMP)
        except Refused as reason:
            notes.append(f"{TIMESTAMP} is left out, so that the submission counts as on time: it {reason}")
    return files, notes


def _timestamp(path: Path) -> bytes:
    text = read_file(path, MAX_TIMESTAMP_BYTES).decode("utf-8-sig", errors="replace").strip()
    try:
        parse_utc(text or EPOCH)
    except Exception:  # dateutil passes on whatever the text provokes
        raise Refused("holds no time, such as 2024-05-31 23:59:00 UTC") from None
    return text.encode()
