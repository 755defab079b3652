"""A submission that ends every worker it meets is named; those that were on the same worker are graded."""

import os
import signal
import time

import pytest
from distributed import Client, LocalCluster

from course.grading.cluster import Cluster
from course.grading.submissions import Submission

pytestmark = pytest.mark.grader


def submission(student: str) -> Submission:
    return Submission(student, "q90", {"q90": "the exam"}, {"q90": student}, {})


def test_one_that_ends_every_worker_is_named_and_no_other_is_blamed(monkeypatch):
    def task(notebooks, *_):  # travels by value
        if notebooks["q90"] == "mal":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(3)  # so that the others are there whenever it happens
        return notebooks

    students = ["ann", "mal", "bea", "cem"]
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=4, processes=True, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as workers,
        Client(workers) as client,
    ):
        cluster = Cluster(client, {}, task=task, fit={"there": 2})
        outcome = {
            found.student: (found.examinations, reason) for found, reason in cluster.examine(map(submission, students))
        }
    reason = outcome.pop("mal")[1]
    assert reason == "4 workers died while they examined it; did they run out of memory?"
    assert outcome == {student: ({"q90": student}, "") for student in ("ann", "bea", "cem")}
