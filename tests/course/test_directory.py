"""A course directory: its gradebook can be shared, one process at a time records scores, errors say what to do."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys

import pytest
from nbgrader.api import Gradebook
from sqlalchemy import text

from course.directory import BUSY_SECONDS, DirectoryError, load_config, only_writer, open_course, open_gradebook

HOLD = """
import sys
from course.directory import only_writer, open_course
with only_writer(open_course(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def setting(gradebook: Gradebook, name: str) -> object:
    return gradebook.db.execute(text(f"PRAGMA {name}")).scalar()


def configure(course, *lines: str) -> None:
    (course / "nbgrader_config.py").write_text("\n".join(["c = get_config()", *lines]))


def test_nbgraders_own_connections_to_the_gradebook_can_be_shared(sample_course):
    with Gradebook(open_course(sample_course).db_url) as gradebook:
        assert setting(gradebook, "journal_mode") == "wal"
        assert setting(gradebook, "busy_timeout") == BUSY_SECONDS * 1000


def test_other_databases_are_left_alone(sample_course, tmp_path):
    other = shutil.move(sample_course / "gradebook.db", tmp_path / "other.db")
    open_course(sample_course)
    with contextlib.closing(sqlite3.connect(other)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
    with Gradebook(f"sqlite:///{other}") as gradebook:
        assert setting(gradebook, "journal_mode") == "delete"
        assert setting(gradebook, "busy_timeout") != BUSY_SECONDS * 1000


def test_the_gradebook_is_read_while_somebody_writes(sample_course):
    course = open_course(sample_course)
    open_gradebook(course).close()
    with contextlib.closing(sqlite3.connect(sample_course / "gradebook.db")) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        writer.execute("DELETE FROM student")
        with open_gradebook(course) as gradebook:
            assert [entry.name for entry in gradebook.assignments] == ["q90_sample"]


def test_a_gradebook_in_the_older_mode_that_is_in_use_is_opened_as_it_is(sample_course):
    with contextlib.closing(sqlite3.connect(sample_course / "gradebook.db")) as reader:
        reader.execute("PRAGMA journal_mode = DELETE")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM student").fetchall()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("course.directory.BUSY_SECONDS", 0)
            with Gradebook(open_course(sample_course).db_url) as gradebook:
                assert [entry.name for entry in gradebook.assignments] == ["q90_sample"]


@pytest.mark.parametrize(
    "address, reason",
    [
        ("sqlite:////nowhere/gradebook.db", "sqlite:////nowhere/gradebook.db cannot be opened: unable to open"),
        ("postgresql+psycopg://me:secret@127.0.0.1:1/x", r"postgresql\+psycopg://me:\*\*\*@127.0.0.1:1/x .*refused"),
        ("postgresql+absent://127.0.0.1/x", "PostgreSQL needs the extra `postgres` and an address postgresql"),
        ("gradebook.db", "c.CourseDirectory.db_url is no address of a database: 'gradebook.db'"),
    ],
)
def test_a_gradebook_that_cannot_be_opened_is_named_without_its_password(sample_course, address, reason):
    configure(sample_course, f"c.CourseDirectory.db_url = {address!r}")
    with pytest.raises(DirectoryError, match=reason) as caught:
        open_gradebook(open_course(sample_course))
    assert "secret" not in str(caught.value)


def test_other_databases_than_sqlite_get_a_course_row(sample_course):
    assert load_config(sample_course).CourseDirectory.get("course_id", "") == ""
    configure(sample_course, "c.CourseDirectory.db_url = 'postgresql+psycopg://127.0.0.1/x'")
    assert load_config(sample_course).CourseDirectory.course_id == "default_course"
    configure(
        sample_course,
        "c.CourseDirectory.db_url = 'postgresql+psycopg://127.0.0.1/x'",
        "c.CourseDirectory.course_id = 'llm'",
    )
    assert load_config(sample_course).CourseDirectory.course_id == "llm"


def test_one_process_records_scores_and_is_named_and_lets_go_when_it_is_killed(sample_course):
    course = open_course(sample_course)
    command = [sys.executable, "-c", HOLD, str(sample_course)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DirectoryError, match=f"is held by process {holder.pid} on "), only_writer(course):
            pass
        holder.kill()
    with only_writer(course):
        pass
    with only_writer(course):  # and again
        pass


def test_scores_cannot_be_recorded_where_there_is_no_folder(tmp_path):
    course = open_course(tmp_path / "nowhere")
    with pytest.raises(DirectoryError, match=r"scores cannot be recorded in .*nowhere"), only_writer(course):
        pass


def test_a_configuration_that_fails_is_named(tmp_path):
    (tmp_path / "nbgrader_config.py").write_text("c = get_config(\n")
    with pytest.raises(DirectoryError, match=r"nbgrader_config.py cannot be used: SyntaxError: '\(' was never closed"):
        load_config(tmp_path)
