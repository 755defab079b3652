"""What earlier runs recorded: a submission that was graded as it is now, by the tests of now, is not graded again.

A record counts when all of it is there: nbgrader's notebook in autograded/, stamped with the digest of what was handed
in, which is written last, and the same points in the gradebook.
"""

import hashlib
import itertools
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from nbgrader import api
from nbgrader.coursedir import CourseDirectory

from ..directory import open_gradebook, step_folder, write_atomically
from ..examiner import Exam
from ..examiner.files import MAX_ALL_BYTES, MAX_FILES, Refused, read_file, walk
from .submissions import Submission, find_submissions, load_exams, read_submission


@dataclass(frozen=True)
class Earlier:
    """A complete record of a submission."""

    handed_in: str  # digest of the files
    exams: dict[str, str]  # notebook name -> digest of the exam
    exercises: list[dict]  # grade_id, points, max_points, message
    notes: list[str]  # what needs a look


@dataclass
class Pile:
    """The submissions that a run looks at; exams and scores are read once for each assignment."""

    coursedir: CourseDirectory
    assignments: list[str] | None = None
    student: str | None = None
    _exams: dict[str, dict[str, Exam]] = field(default_factory=dict)
    _digests: dict[str, dict[str, str]] = field(default_factory=dict)
    _points: dict[str, dict[tuple[str, str, str], float]] = field(default_factory=dict)

    @cached_property
    def found(self) -> list[tuple[str, str]]:
        """(student, assignment), sorted; raises GradeError if there is none."""
        found = find_submissions(self.coursedir, self.assignments, self.student)
        for assignment in {assignment for _, assignment in found}:
            self._exams[assignment] = load_exams(self.coursedir, assignment)
            self._digests[assignment] = {name: exam.digest for name, exam in self._exams[assignment].items()}
            self._points[assignment] = _recorded_points(self.coursedir, assignment)
        return found

    def read(self, student: str, assignment: str) -> Submission:
        """A submission as it was handed in; raises Ungradable, with the reason, if it cannot be examined."""
        return read_submission(self.coursedir, student, assignment, self._exams[assignment])

    def earlier(self, student: str, assignment: str) -> Earlier | None:
        """The record of a submission that did not change since; None if there is none, or only a part of one."""
        record = _read_record(self.coursedir, student, assignment, list(self._exams[assignment]))
        if record is None or record.handed_in != self.hand_in_digest(student, assignment):
            return None
        points = {
            (student, exercise["notebook"], exercise["grade_id"]): exercise["points"] for exercise in record.exercises
        }
        return record if points.items() <= self._points[assignment].items() else None

    def is_current(self, assignment: str, record: Earlier) -> bool:
        """Whether a record was made by the tests of now."""
        return record.exams == self._digests[assignment]

    def hand_in_digest(self, student: str, assignment: str) -> str:
        """Changes when a file does that was handed in."""
        folder = step_folder(self.coursedir, "submitted", assignment, student)
        if folder.resolve() != folder:
            return "a symbolic link"  # which leads who knows where
        parts, left = [], MAX_ALL_BYTES
        for path in itertools.islice(walk(folder), MAX_FILES):
            try:
                data = read_file(path, left)
                left -= len(data)
                content = hashlib.sha256(data).hexdigest()
            except Refused as reason:
                content = str(reason)
            parts.append((str(path.relative_to(folder)), content))
        return hashlib.sha256(repr(parts).encode(errors="surrogateescape")).hexdigest()


def stamp(coursedir: CourseDirectory, submission: Submission, handed_in: str) -> None:
    """Complete the record of a submission: until then it counts as none."""
    for path in _recorded_paths(coursedir, submission.student, submission.assignment, list(submission.exams)):
        notebook = json.loads(path.read_bytes())
        notebook["metadata"]["course"]["examination"]["handed_in"] = handed_in
        mode = path.stat().st_mode
        write_atomically(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
        path.chmod(mode)


def _recorded_paths(coursedir: CourseDirectory, student: str, assignment: str, names: list[str]) -> list[Path]:
    folder = step_folder(coursedir, "autograded", assignment, student)
    return [folder / f"{name}.ipynb" for name in names]


def _read_record(coursedir: CourseDirectory, student: str, assignment: str, names: list[str]) -> Earlier | None:
    """What autograded/ holds, which may be a notebook as the candidate left it."""
    stamps, exams, exercises, notes = set(), {}, [], []
    try:
        for name, path in zip(names, _recorded_paths(coursedir, student, assignment, names), strict=True):
            examination = json.loads(path.read_bytes())["metadata"]["course"]["examination"]
            stamps.add(examination["handed_in"])
            exams[name] = examination["exam"]
            exercises += [{"notebook": name, **exercise} for exercise in examination["exercises"]]
            notes += examination.get("notes", [])
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return Earlier(stamps.pop(), exams, exercises, notes) if len(stamps) == 1 else None


def _recorded_points(coursedir: CourseDirectory, assignment: str) -> dict[tuple[str, str, str], float]:
    """(student, notebook, grade id) -> the tests' points in the gradebook."""
    with open_gradebook(coursedir) as gradebook:
        rows = (
            gradebook.db.query(
                api.SubmittedAssignment.student_id, api.Notebook.name, api.GradeCell.name, api.Grade.auto_score
            )
            .join(api.SubmittedNotebook, api.SubmittedNotebook.assignment_id == api.SubmittedAssignment.id)
            .join(api.Notebook, api.Notebook.id == api.SubmittedNotebook.notebook_id)
            .join(api.Grade, api.Grade.notebook_id == api.SubmittedNotebook.id)
            .join(api.GradeCell, api.GradeCell.id == api.Grade.cell_id)
            .join(api.Assignment, api.Assignment.id == api.SubmittedAssignment.assignment_id)
            .filter(api.Assignment.name == assignment)
        )
        return {(student, notebook, cell): points for student, notebook, cell, points in rows}
