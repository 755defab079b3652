"""Submissions on a cluster: a bounded number at a time, workers that are checked, failures with their reason."""

import contextlib
import threading
import time
from types import SimpleNamespace

import pytest

from course.examiner import SandboxError
from course.grading import cluster
from course.grading.cluster import ClusterError, ClusterLost, UnfitWorker, check_worker, existing_cluster, fingerprint
from course.grading.cluster import threads_here as threads
from course.grading.submissions import Submission

SETTINGS = {"sandbox": "none", "absent": ()}
BUSY = [0]  # how many tasks run, after each change
TRIES = []
LOCK = threading.Lock()


def slowly(notebooks, *_):
    for change in (1, -1):
        with LOCK:
            BUSY.append(BUSY[-1] + change)
        time.sleep(0.01)
    return notebooks


def with_exams(notebooks, exams, *_):
    return exams


def failing(notebooks, *_):
    name, failures = notebooks["q90"]
    TRIES.append(name)
    if TRIES.count(name) <= failures:
        raise RuntimeError("no memory is left")
    return {"q90": name}


def given_back(notebooks, *_):
    return notebooks


def submission(student: str, notebook: object = None) -> Submission:
    return Submission(student, "q90", {"q90": "the exam"}, {"q90": notebook}, {})


def examined(crew, submissions) -> dict[str, tuple[dict, str]]:
    return {found.student: (found.examinations, reason) for found, reason in crew.examine(submissions)}


@pytest.fixture(autouse=True)
def nothing_to_prepare(monkeypatch):
    """These tests examine nothing for real."""
    monkeypatch.setattr(cluster, "prepare", lambda *_: None)


@pytest.fixture
def here():
    with threads(2, SETTINGS) as crew:
        yield crew


@pytest.fixture
def served(here, monkeypatch):
    """The same cluster, as if it were somewhere else."""
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(cluster, "UNFIT_SECONDS", 0.1)
    check_worker.cache_clear()
    yield here.client.scheduler.address
    check_worker.cache_clear()


def test_submissions_are_read_as_the_cluster_gets_to_them(here):
    read, ahead = [], []

    def pile():
        for number in range(40):
            read.append(number)
            yield submission(f"s{number}", number)

    here.task = slowly
    for done, (found, reason) in enumerate(here.examine(pile())):
        ahead.append(len(read) - done)
        assert found.examinations == {"q90": int(found.student[1:])} and reason == ""
    assert len(ahead) == 40
    assert max(ahead) <= 4  # twice the threads
    assert max(BUSY) == 2


def test_the_exams_of_an_assignment_travel_once(here):
    here.task = with_exams
    outcome = examined(here, [submission(f"s{number}") for number in range(6)])
    assert [found for found, _ in outcome.values()] == [{"q90": "the exam"}] * 6
    assert len(here.exams) == 1


def test_a_failure_is_tried_again_and_then_has_its_reason(here):
    here.task = failing
    outcome = examined(here, [submission("ann", ("ann", 1)), submission("bea", ("bea", 9))])
    assert outcome == {"ann": ({"q90": "ann"}, ""), "bea": ({}, "the examination failed: no memory is left")}
    assert sorted(TRIES) == ["ann"] * 2 + ["bea"] * 3


def test_no_port_shows_who_hands_in(here):
    import psutil

    listening = [entry.laddr.ip for entry in psutil.Process().net_connections() if entry.status == "LISTEN"]
    assert set(listening) <= {"127.0.0.1"}


def test_a_cluster_that_is_not_there(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.3)
    with (
        pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 within 0.3 s"),
        existing_cluster("tcp://127.0.0.1:9", SETTINGS, print),
    ):
        pass


@pytest.mark.parametrize("address", ["nonsense://x", "127.0.0.1:99999999", ""])
def test_an_address_that_is_none(monkeypatch, address):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.3)
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at"), existing_cluster(address, SETTINGS, print):
        pass


def test_a_worker_that_is_as_this_process_examines(served):
    with existing_cluster(served, SETTINGS, print) as crew:
        crew.task = given_back
        assert examined(crew, [submission("ann", 1)]) == {"ann": ({"q90": 1}, "")}
        assert list(crew.fit.values()) == [2]


def test_a_worker_with_other_source_is_named_before_anything_begins(served):
    with existing_cluster(served, SETTINGS, print) as crew:
        crew.wanted = tuple({**fingerprint(), "the examiner's source": "0123456789ab"}.items())
        with pytest.raises(ClusterError, match=r"inproc://.*: the examiner's source: .* there, 0123456789ab here"):
            examined(crew, [submission("ann")])


def test_a_worker_without_sandbox_is_named_before_anything_begins(served, monkeypatch):
    def refuse(kind):
        raise SandboxError("bubblewrap is not installed")

    monkeypatch.setattr(cluster, "check_sandbox", refuse)
    with (
        existing_cluster(served, {**SETTINGS, "sandbox": "bubblewrap"}, print) as crew,
        pytest.raises(ClusterError, match=r"make them fit, or remove them: inproc.*: bubblewrap is not installed"),
    ):
        examined(crew, [submission("ann")])


def test_a_worker_that_joins_and_cannot_examine_hands_on_what_it_gets(served, monkeypatch):
    said, refusals = [], iter([True, True, False])

    def refuse_twice(wanted, sandbox):
        if next(refusals, False):
            raise UnfitWorker("Python: 3.10 there, 3.11 here")

    with existing_cluster(served, SETTINGS, said.append) as crew:
        monkeypatch.setattr(cluster, "check_worker", lambda *_: None)
        crew.look()  # the first look finds it fit
        crew.fit.clear()
        crew.looked = time.monotonic()
        monkeypatch.setattr(cluster, "check_worker", refuse_twice)
        monkeypatch.setattr(cluster, "NO_WORKER_SECONDS", 0.3)
        with pytest.raises(ClusterLost, match=r"for 0.3 s no worker of the cluster at .* can examine"):
            crew.looked = 1e-9
            crew.look()
        assert "workers joined that cannot examine, and hand on what they get: inproc" in said[0]
        assert said[1].startswith("waiting up to 0.3 s: no worker of the cluster")
        monkeypatch.setattr(cluster, "examine", lambda notebook, exam, files, **_: notebook)
        content = ({"q90": 7}, {"q90": "exam"}, {}, SETTINGS, crew.wanted)
        task = crew.client.submit(cluster.examine_submission, *content, pure=False)
        assert task.result(timeout=20) == {"q90": 7}  # after one more refusal


def test_a_cluster_without_workers_is_waited_for(monkeypatch):
    said = []
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(cluster, "NO_WORKER_SECONDS", 0.2)
    client = SimpleNamespace(status="running", nthreads=dict)
    crew = cluster.Cluster(client, SETTINGS, said.append, "tcp://10.0.0.1:8786")
    with pytest.raises(ClusterLost, match=r"has no worker; start some with `dask worker tcp://10.0.0.1:8786`"):
        list(crew.examine([submission("ann")]))
    assert len(said) == 1


def test_a_scheduler_that_went_away_ends_the_run(monkeypatch):
    client = SimpleNamespace(status="connecting", nthreads=dict)
    crew = cluster.Cluster(client, SETTINGS, print, "tcp://10.0.0.1:8786")
    with pytest.raises(ClusterLost, match=r"tcp://10.0.0.1:8786 was lost; .* the same command goes on") as caught:
        list(crew.examine([submission("ann")]))
    assert caught.value.exit_code == 1


def test_without_submissions_no_cluster_is_asked(monkeypatch):
    where = cluster.Where(scheduler="tcp://127.0.0.1:9")
    assert list(where.examine(iter([]), SETTINGS)) == []


def test_what_is_left_of_a_run_that_is_broken_off_is_closed(monkeypatch):
    monkeypatch.setattr(cluster, "examine", lambda *_, **__: "examined")
    here = threading.active_count()
    with contextlib.closing(cluster.Where(workers=2).examine(map(submission, "abc"), SETTINGS)) as found:
        next(found)
    deadline = time.monotonic() + 20
    while threading.active_count() > here + 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= here + 1
