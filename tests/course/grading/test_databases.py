"""The whole way on real database servers: SQLite that somebody else writes, and PostgreSQL."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory

from course import cli
from course.build import build
from course.directory import load_config
from course.grading.grade import grade
from course.grading.record import record
from course.grading.regrade import regrade
from course.results.report import report

from ..conftest import make_source
from ..handing_in import HALF, NAME, give_points, hand_in, mend, scores

pytestmark = [
    pytest.mark.grader,
    pytest.mark.filterwarnings("ignore:Object of type <Submitted"),  # nbgrader's own, for a new student
]
NOBODY = 65534  # PostgreSQL does not run as root
BUSY_SECONDS = 7.0  # longer than the 5 s that sqlite3 waits by itself


def as_nobody() -> dict:
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def program(name: str) -> str:
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    assert found, f"{name} is not installed; on Debian: apt-get install postgresql"
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The folder of the socket of a PostgreSQL server."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:  # short: a socket's path has 107 characters at most
        if as_nobody():
            os.chown(folder, NOBODY, NOBODY)
        options = {"check": True, "capture_output": True, **as_nobody()}
        command = [program("initdb"), "-D", f"{folder}/data", "-U", "course", "-A", "trust", "--no-sync"]
        subprocess.run(command, **options)
        command = [program("postgres"), "-D", f"{folder}/data", "-k", folder, "-c", "listen_addresses=", "-F"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, **quiet, **as_nobody())
        try:
            deadline = time.monotonic() + 60
            while not Path(folder, ".s.PGSQL.5432").exists():
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            yield folder
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
def postgres(server, tmp_path):
    """A course directory with its gradebook on the server, and the gradebook's address."""
    course = tmp_path / "course"
    source = make_source(course)
    db_url = f"postgresql+psycopg://course@/postgres?host={server}"
    (course / "nbgrader_config.py").write_text(
        "from course.examiner.nbgrader_plugin import configure\nc = get_config()\nconfigure(c)\n"
        f"c.CourseDirectory.db_url = {db_url!r}\n"
    )
    build(None, source_dir=source, course_dir=course)
    return course, db_url


def test_the_whole_way_on_postgresql(postgres, capsys):
    course, db_url = postgres
    hand_in(course, "ann")
    hand_in(course, "bea", **HALF)
    hand_in(course, "cem", "no notebook")
    outcomes = {outcome.student: (outcome.status, outcome.points) for outcome in grade(course, workers=2)}
    assert outcomes == {"ann": ("graded", 6), "bea": ("graded", 2), "cem": ("not graded", None)}
    assert scores(course, db_url) == {"ann": 6, "bea": 2}
    assert [outcome.status for outcome in grade(course, workers=2, student="bea")] == ["unchanged"]
    assert not (course / "gradebook.db").exists()

    give_points(course, "bea", "rubric-depth", 5, db_url)
    rows = {row.candidate: row for row in report(course, csv_path=course / "report.csv")}
    assert (rows["bea"].code, rows["cem"].status) == (2, "not graded")

    mend(course, "assert ones(5) == 2", "assert ones(5) == 3")
    with regrade(course) as regrading:
        assert {(change.student, change.old, change.new) for change in regrading.changes} == {
            ("ann", 1, 0),
            ("bea", 1, 0),
        }
        regrading.record()
    assert scores(course, db_url) == {"ann": 5, "bea": 1 + 5}

    assert cli.main(["report", "--course-dir", str(course)]) == 0
    assert "bea" in capsys.readouterr().out


def test_what_the_formgrader_asks_for_on_postgresql(postgres):
    course, _ = postgres
    hand_in(course, "eve")
    config = load_config(course)
    api = NbGraderAPI(CourseDirectory(config=config), config=config)
    assert api.autograde(NAME, "eve")["success"]
    (assignment,) = (entry for entry in api.get_assignments() if entry["name"] == NAME)
    assert assignment["num_submissions"] >= 1
    (submission,) = (entry for entry in api.get_submissions(NAME) if entry["student"] == "eve")
    assert (submission["score"], submission["autograded"]) == (6, True)
    assert api.get_student_submissions("eve")
    assert api.generate_feedback(NAME, "eve")["success"]


def test_recording_waits_for_somebody_who_writes_for_long(sample_course, monkeypatch):
    hand_in(sample_course, "ann")
    writers = []

    def record_meanwhile(*arguments):
        began = threading.Event()
        writers.append(threading.Thread(target=write, args=(sample_course / "gradebook.db", began)))
        writers[0].start()
        began.wait()
        record(*arguments)

    monkeypatch.setattr("course.grading.grade.record", record_meanwhile)
    (outcome,) = grade(sample_course, workers=1)
    writers[0].join()
    assert (outcome.status, outcome.points, outcome.reason) == ("graded", 6, "")


def write(path: Path, began: threading.Event) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        began.set()
        time.sleep(BUSY_SECONDS)
        writer.execute("COMMIT")


def test_the_formgrader_reads_and_scores_while_grading_goes_on(sample_course):
    students = [f"s{number}" for number in range(8)]
    for student in students:
        hand_in(sample_course, student)
    grade(sample_course, workers=1, student="s0")
    stop, given = threading.Event(), []

    def score():
        while not stop.is_set():
            given.append(len(given) % 8)
            give_points(sample_course, "s0", "rubric-depth", given[-1])
            assert scores(sample_course)["s0"] == 6 + given[-1]

    person = threading.Thread(target=score)
    person.start()
    try:
        outcomes = grade(sample_course, workers=2)
    finally:
        stop.set()
        person.join()
    assert {outcome.points for outcome in outcomes} == {6}
    assert scores(sample_course) == {**dict.fromkeys(students, 6), "s0": 6 + given[-1]}
