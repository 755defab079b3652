"""nbgrader's course directory: its configuration, with the examiner always plugged in, its gradebook, its folders."""

import logging
import os
import sysconfig
from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config, PyFileConfigLoader

from .examiner.nbgrader_plugin import configure


def load_config(course_dir: Path) -> Config:
    """The configuration of a course directory: the examiner's, changed by nbgrader_config.py if there is one."""
    course_dir = Path(course_dir).resolve()
    config = Config()
    configure(config)
    if (course_dir / "nbgrader_config.py").is_file():
        config.merge(PyFileConfigLoader("nbgrader_config.py", path=str(course_dir)).load_config())
    config.CourseDirectory.root = str(course_dir)
    return config


def open_course(course_dir: Path, **overrides: str) -> CourseDirectory:
    """Return nbgrader's view of a course directory, its nbgrader_config.py (if any) applied.

    The user's own Jupyter settings are left aside, so that a course gives the same everywhere.
    """
    config = load_config(course_dir)
    config.CourseDirectory.update(overrides)
    return CourseDirectory(config=config)


def open_gradebook(course: CourseDirectory) -> Gradebook:
    """Return the open gradebook of a course directory, made if it is not there yet.

    To make one, nbgrader calls `alembic` by name, which is not on the PATH where the virtual environment is not active.
    """
    path = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), path])
    try:
        return Gradebook(course.db_url, course.course_id or "default_course")
    finally:
        os.environ["PATH"] = path


def step_folder(course: CourseDirectory, step: str, assignment: str, student: str = ".") -> Path:
    """Return the folder of one of nbgrader's steps: source, release, submitted, autograded or feedback."""
    directory = getattr(course, f"{step}_directory")
    return Path(os.path.normpath(course.format_path(directory, student, assignment)))


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)


class KeepsReason:
    """For a converter of nbgrader's: keeps the exception that it otherwise only logs."""

    reason: Exception | None = None

    def convert_single_notebook(self, notebook_filename: str) -> None:
        try:
            super().convert_single_notebook(notebook_filename)
        except Exception as error:
            self.reason = error
            raise


def silent_log() -> logging.Logger:
    """Return a log for nbgrader's converters that goes nowhere."""
    log = logging.getLogger("course.nbgrader")
    log.propagate, log.handlers = False, [logging.NullHandler()]
    return log
