"""A run that is killed in the middle: the same command goes on, nothing is lost, nothing is graded a second time."""

import os
import shutil
import signal
from collections import Counter

import pytest

from ..handing_in import give_points, scores
from .running import (
    DESERVED,
    STUDENTS,
    alive,
    class_of_twelve,
    course_command,
    dask_cluster,
    descendants,
    examinations,
    finish,
    in_the_middle,
    stamped,
    wait_for,
    worker_of,
)

pytestmark = pytest.mark.grader
THREADS = 2


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Twelve submissions, of which one was graded earlier, and has points by hand; shared, and copied by each test."""
    course = class_of_twelve(tmp_path_factory.mktemp("begun") / "course")
    assert finish(course_command(course, "grade", "--student", "s00"))[0] == 0
    give_points(course, "s00", "rubric-depth", 5)
    return course


@pytest.fixture
def course(begun, tmp_path):
    """A course directory of a test's own; examinations are counted in the folder that it is a copy of."""
    (begun / "counter").write_text("s00\n")
    course = shutil.copytree(begun, tmp_path / "course")
    (course / "counter").unlink()
    (course / "counter").symlink_to(begun / "counter")
    return course


def expected() -> dict[str, float]:
    return {**DESERVED, "s00": DESERVED["s00"] + 5}


def recorded(course) -> Counter:
    """How often those were examined whose record is complete."""
    return Counter(student for student in examinations(course) if student in stamped(course))


def assert_whole(course, before: Counter, lost: int) -> None:
    """All is graded as it deserves; what was recorded `before` was not examined again, at most `lost` others were."""
    assert stamped(course) == set(STUDENTS)
    assert scores(course) == expected()
    counted = Counter(examinations(course))
    assert set(counted) == set(STUDENTS)
    assert {student: counted[student] for student in before} == before
    assert counted.total() <= len(STUDENTS) + lost
    code, text = finish(course_command(course, "grade", "--workers", "1"))
    assert code == 0 and text.count("unchanged") == len(STUDENTS)
    assert len(examinations(course)) == counted.total()


def test_an_undisturbed_run(course):
    code, text = finish(course_command(course, "grade", "--workers", str(THREADS)))
    assert code == 0, text
    assert_whole(course, Counter(STUDENTS), lost=0)


def test_the_driver_is_killed(course):
    with in_the_middle(course, "--workers", str(THREADS)) as driver:
        tree = descendants(driver.pid)
        driver.kill()
        driver.wait()
        before = recorded(course)
        assert not alive(tree)
    code, text = finish(course_command(course, "grade", "--workers", str(THREADS)))
    assert code == 0, text
    # on their way to the gradebook: twice the threads
    assert_whole(course, before, lost=2 * THREADS)


def test_the_driver_is_killed_again_and_again(course):
    for _ in range(3):
        already = len(stamped(course))
        driver = course_command(course, "grade", "--workers", "1")
        wait_for(lambda already=already: len(stamped(course)) >= already + 2, driver)
        driver.kill()
        finish(driver)
        before = recorded(course)
    assert finish(course_command(course, "grade", "--workers", "1"))[0] == 0
    assert_whole(course, before, lost=3 * 2)


def test_the_user_presses_ctrl_c(course):
    with in_the_middle(course, "--workers", str(THREADS)) as driver:
        tree = descendants(driver.pid)
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: all of the group
        code, text = finish(driver)
        assert code == 130, text
        assert "stopped; what was graded is kept, the same command goes on from there" in text
        assert "Traceback" not in text and "lost sys.stderr" not in text
        before = recorded(course)
        assert not alive(tree)
    assert finish(course_command(course, "grade"))[0] == 0
    assert_whole(course, before, lost=2 * THREADS)


def test_an_examiner_of_the_driver_is_killed(course):
    with in_the_middle(course, "--workers", str(THREADS)) as driver:
        servers = [process for process in descendants(driver.pid) if "forkserver" in " ".join(process.cmdline())]
        for process in servers:
            process.kill()
        code, text = finish(driver)
    assert code == 0, text
    assert_whole(course, Counter(), lost=2 * THREADS)


def test_a_worker_is_killed(course, tmp_path):
    with dask_cluster(tmp_path / "dask", THREADS) as (address, _, nanny):
        with in_the_middle(course, "--scheduler", address) as driver:
            worker = worker_of(nanny)
            tree = [worker, *worker.children(recursive=True)]
            before = recorded(course)
            worker.kill()
            code, text = finish(driver)
            assert code == 0, text
        assert not alive(tree)
        assert_whole(course, before, lost=4 * THREADS)  # what was done there and not fetched yet, and what was begun


def test_the_scheduler_is_killed(course, tmp_path):
    with dask_cluster(tmp_path / "one", THREADS) as (address, scheduler, _):
        with in_the_middle(course, "--scheduler", address) as driver:
            scheduler.kill()
            code, text = finish(driver)
            before = recorded(course)
        assert code == 1
        assert f"the connection to the scheduler at {address} was lost" in text
        assert "the same command goes on from there" in text and "Traceback" not in text
        assert scores(course).items() >= {student: expected()[student] for student in before}.items()
    with dask_cluster(tmp_path / "two", THREADS) as (address, *_):
        assert finish(course_command(course, "grade", "--scheduler", address))[0] == 0
    assert_whole(course, before, lost=4 * THREADS)


def test_a_second_run_is_refused_while_one_goes_on(course):
    with in_the_middle(course, "--workers", "1") as driver:
        driver.send_signal(signal.SIGSTOP)  # it would be done before the other one has begun
        code, text = finish(course_command(course, "grade"))
        driver.send_signal(signal.SIGCONT)
        assert code == 2 and f"is held by process {driver.pid} on" in text
        assert finish(driver)[0] == 0
    assert_whole(course, Counter(STUDENTS), lost=0)


def test_a_cluster_gives_the_scores_of_a_run_here(course, tmp_path):
    copy = shutil.copytree(course, tmp_path / "copy")
    with dask_cluster(tmp_path / "dask") as (address, *_):
        code, text = finish(course_command(copy, "grade", "--scheduler", address))
    assert code == 0, text
    assert scores(copy) == expected()
