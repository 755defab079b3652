"""Records an examined submission: nbgrader writes the gradebook and autograded/, as its own autograde does."""

import warnings

from nbgrader.converters import Autograde
from nbgrader.coursedir import CourseDirectory

from .directory import KeepsReason, silent_log, step_folder
from .examiner.nbgrader_plugin import Examine
from .submissions import Submission


class RecordError(Exception):
    """An examined submission could not be recorded; the message says why."""


class _Autograde(KeepsReason, Autograde):
    """nbgrader's autograde of one submission, which keeps its reason when it fails."""

    submission: Submission

    def init_notebooks(self) -> None:
        """nbgrader would glob for them, and miss names that hold brackets."""
        folder = step_folder(self.coursedir, "submitted", self.submission.assignment, self.submission.student)
        self.assignments = {str(folder): [str(folder / f"{name}.ipynb") for name in self.submission.exams]}


def record(coursedir: CourseDirectory, submission: Submission) -> None:
    """Let nbgrader write the gradebook and autograded/, with the examinations that were made.

    Recording a second time writes the same again. Raises RecordError, with the reason, if nbgrader cannot.
    """
    keys = {name: (submission.student, submission.assignment, name) for name in submission.exams}
    Examine.ready.update({keys[name]: (submission.exams[name], submission.examinations[name]) for name in keys})
    converter = _Autograde(
        coursedir=CourseDirectory(config=coursedir.config), config=coursedir.config, log=silent_log(), force=True
    )
    converter.submission = submission
    try:
        with warnings.catch_warnings(action="ignore"):
            converter.start()
    except Exception as error:  # nbgrader passes on whatever goes wrong in a converter
        reason = converter.reason or error
        raise RecordError(f"nbgrader could not record it: {type(reason).__name__}: {reason}") from error
    finally:
        for key in keys.values():
            Examine.ready.pop(key, None)
