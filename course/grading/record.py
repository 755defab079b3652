"""Records an examined submission: nbgrader writes the gradebook and autograded/, as its own autograde does.

nbgrader gets a copy with the right names, without links, as the submission was read; submitted/ stays as it is.
"""

import contextlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.converters import Autograde, autograde
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import latesubmissions, overwritekernelspec, saveautogrades
from traitlets import Unicode

from ..directory import KeepsReason, open_gradebook, silent_log
from ..examiner.examine import write_files
from ..examiner.nbgrader_plugin import Examine
from .submissions import Submission

STEPS = (autograde, overwritekernelspec, saveautogrades, latesubmissions)  # modules that open the gradebook

_gradebooks: dict[str, Gradebook] = {}  # address -> gradebook


class RecordError(Exception):
    """An examined submission could not be recorded; the message says why."""


class _Staged(CourseDirectory):
    """A course directory whose submissions lie elsewhere."""

    place = Unicode()

    def format_path(self, nbgrader_step: str, student_id: str, assignment_id: str, escape: bool = False) -> str:
        if nbgrader_step != self.submitted_directory:
            return super().format_path(nbgrader_step, student_id, assignment_id, escape)
        return os.path.join(re.escape(self.place) if escape else self.place, student_id, assignment_id)


class _Autograde(KeepsReason, Autograde):
    """nbgrader's autograde of one submission, which keeps its reason when it fails."""

    submission: Submission

    def init_notebooks(self) -> None:
        """nbgrader would glob for them, and miss names that hold brackets."""
        folder = Path(self._format_source(self.submission.assignment, self.submission.student))
        self.assignments = {str(folder): [str(folder / f"{name}.ipynb") for name in self.submission.exams]}


def record(coursedir: CourseDirectory, submission: Submission) -> None:
    """Let nbgrader write the gradebook and autograded/, with the examinations that were made.

    Recording a second time writes the same again. For one thread at a time. Raises RecordError, with the reason.
    """
    converter = _Autograde(config=coursedir.config, log=silent_log(), force=True)
    converter.submission = submission
    try:
        with tempfile.TemporaryDirectory(prefix="recording-") as place, warnings.catch_warnings(action="ignore"):
            _stage(submission, Path(place, submission.student, submission.assignment))
            converter.coursedir = _Staged(config=coursedir.config, place=place)
            with _at_hand(submission), _one_gradebook(coursedir):
                converter.start()
    except Exception as error:  # nbgrader passes on whatever goes wrong in a converter
        reason = converter.reason or error
        raise RecordError(f"nbgrader could not record it: {type(reason).__name__}: {reason}") from error


def _stage(submission: Submission, folder: Path) -> None:
    folder.mkdir(parents=True)
    write_files(str(folder), submission.files)
    for name, notebook in submission.notebooks.items():
        (folder / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


@contextlib.contextmanager
def _at_hand(submission: Submission) -> Iterator[None]:
    """Have Examine take the examinations that were made, with all notes."""
    ready = {
        (submission.student, submission.assignment, name): (exam, replace(examination, notes=submission.notes_on(name)))
        for name, exam in submission.exams.items()
        for examination in [submission.examinations[name]]
    }
    Examine.ready.update(ready)
    try:
        yield
    finally:
        for key in ready:
            Examine.ready.pop(key, None)


@contextlib.contextmanager
def _one_gradebook(coursedir: CourseDirectory) -> Iterator[None]:
    """Have nbgrader's steps share one gradebook: each would open its own, and prepare every statement anew."""
    if coursedir.db_url not in _gradebooks:
        _gradebooks[coursedir.db_url] = open_gradebook(coursedir)
    gradebook = _gradebooks[coursedir.db_url]
    gradebook.close = gradebook.db.remove  # what a step calls at its end
    own = [module.Gradebook for module in STEPS]
    try:
        for module in STEPS:
            module.Gradebook = lambda *_, **__: gradebook
        yield
    finally:
        for module, original in zip(STEPS, own, strict=True):
            module.Gradebook = original
        gradebook.db.remove()
        gradebook.engine.dispose()
