"""nbgrader's course directory: its configuration, with the examiner always plugged in, its gradebook, its folders."""

import contextlib
import fcntl
import logging
import os
import socket
import sqlite3
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.coursedir import CourseDirectory
from sqlalchemy import Engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from traitlets.config import Config, PyFileConfigLoader

from .examiner.nbgrader_plugin import configure

LOCK = "gradebook.lock"
BUSY_SECONDS = 60  # that a connection to SQLite waits while another one writes; sqlite3's own 5 s end nbgrader's batch
DEFAULT_COURSE = "default_course"  # as nbgrader calls it

_gradebooks: set[str] = set()  # files of the gradebooks of course directories


class DirectoryError(Exception):
    """A course directory, or its gradebook, cannot be used; the message says why."""


def load_config(course_dir: Path) -> Config:
    """The configuration of a course directory: the examiner's, changed by nbgrader_config.py if there is one."""
    course_dir = Path(course_dir).resolve()
    config = Config()
    configure(config)
    if (course_dir / "nbgrader_config.py").is_file():
        config.merge(_read_config(course_dir))
    config.CourseDirectory.root = str(course_dir)
    coursedir = CourseDirectory(config=config)
    database = _database(coursedir)
    if database.drivername.startswith("sqlite"):
        _gradebooks.add(os.path.realpath(database.database or ""))
    elif not coursedir.course_id:
        config.CourseDirectory.course_id = DEFAULT_COURSE  # a row that other databases insist on
    return config


def _read_config(course_dir: Path) -> Config:
    try:
        return PyFileConfigLoader("nbgrader_config.py", path=str(course_dir)).load_config()
    except Exception as error:  # it is a program, which may fail in any way
        path = course_dir / "nbgrader_config.py"
        raise DirectoryError(f"{path} cannot be used: {type(error).__name__}: {error}") from error


def open_course(course_dir: Path, **overrides: str) -> CourseDirectory:
    """Return nbgrader's view of a course directory, its nbgrader_config.py (if any) applied.

    The user's own Jupyter settings are left aside, so that a course gives the same everywhere.
    """
    config = load_config(course_dir)
    config.CourseDirectory.update(overrides)
    return CourseDirectory(config=config)


def open_gradebook(course: CourseDirectory) -> Gradebook:
    """Return the open gradebook of a course directory, made if it is not there yet; raises DirectoryError.

    To make one, nbgrader calls `alembic` by name, which is not on the PATH where the virtual environment is not active.
    """
    path = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), path])
    try:
        return Gradebook(course.db_url, course.course_id or DEFAULT_COURSE)
    except (DBAPIError, NoSuchModuleError, ModuleNotFoundError) as error:
        reason = str(getattr(error, "orig", error)).strip().split("\n")[0]
        advice = "; PostgreSQL needs the extra `postgres` and an address postgresql+psycopg://..."
        if not isinstance(error, ModuleNotFoundError | NoSuchModuleError):
            advice = ""
        raise DirectoryError(f"the gradebook {_database(course)} cannot be opened: {reason}{advice}") from None
    finally:
        os.environ["PATH"] = path


def _database(course: CourseDirectory):
    """The gradebook's address; printed, it hides a password. Raises DirectoryError if it is none."""
    try:
        return make_url(course.db_url)
    except ArgumentError:
        raise DirectoryError(f"c.CourseDirectory.db_url is no address of a database: {course.db_url!r}") from None


@event.listens_for(Engine, "connect")
def _share(connection: object, _) -> None:
    """Let the formgrader read and write a course's SQLite gradebook while grading writes it."""
    if not isinstance(connection, sqlite3.Connection):
        return
    files = [row[2] for row in connection.execute("PRAGMA database_list")]
    if _gradebooks.isdisjoint(os.path.realpath(file) for file in files if file):
        return
    connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    with contextlib.suppress(sqlite3.OperationalError):  # read-only, or in use in the older mode: it works as it is
        connection.execute("PRAGMA journal_mode = WAL")


@contextlib.contextmanager
def only_writer(course: CourseDirectory) -> Iterator[None]:
    """Hold the course directory, so that no second process records scores; raises DirectoryError, naming who does.

    The system lets go of it when this process ends, however it ends.
    """
    path = Path(course.root, LOCK)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "a"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = path.read_text().strip() or "another process"
            raise DirectoryError(f"{course.root} is held by {holder}; wait until it is done, or end it") from None
        except OSError as error:
            raise DirectoryError(f"scores cannot be recorded in {course.root}: {error}") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} ({' '.join(sys.argv)})\n")
        file.flush()
        stack.callback(file.truncate, 0)
        yield


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
