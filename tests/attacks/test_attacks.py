"""The corpus against the examiner: every submission gets what it deserves, and nothing around it is touched."""

import dataclasses
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter

from course.grading.grade import Outcome

from .canaries import Canaries, active_markup
from .corpus import HONEST, HOSTILE, corpus
from .entry import MAX_POINTS, NOTEBOOK, Entry, find, graded_cells, hand_in
from .run import build_course, feedback_problems, gradebook_problems, graded, hand_all_in, problems
from .unlucky import ENTRIES as UNLUCKY

pytestmark = [pytest.mark.grader, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_course(tmp_path_factory.mktemp("attacks") / "course")


@pytest.fixture
def course(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "course"))


def test_the_corpus_gets_what_it_deserves_and_touches_nothing(course):
    entries = corpus()
    with Canaries(course) as canaries:
        hand_all_in(entries, canaries.place)
        canaries.handed_in()
        outcomes = graded(course, workers=2)
        found = problems(entries, outcomes) + canaries.problems()
        found += gradebook_problems(course, entries, outcomes)
        shown = [outcome.student for outcome in outcomes if outcome.is_graded and outcome.student.startswith("display")]
        found += feedback_problems(course, shown, canaries.token)
    assert not found, "\n" + "\n".join(found)


def test_the_corpus_is_as_large_as_it_must_be():
    assert sum(map(len, HOSTILE.values())) >= 60 and len(UNLUCKY) >= 20
    for group in [*HOSTILE.values(), UNLUCKY]:
        names = [entry.name for entry in group]
        assert len(set(names)) == len(names)


def outcome(student: str, points: float | None, reason: str = "", message: str = "") -> Outcome:
    exercises = [{"grade_id": "test-span", "points": points, "max_points": 1, "message": message}]
    return Outcome(student, "q95_attacked", "not graded" if points is None else "graded", points, 15, reason, exercises)


def test_a_score_that_is_not_deserved_is_reported_by_name():
    wrong = dataclasses.replace(HONEST, points=0)
    (problem,) = problems({"ann": HONEST, "eve": wrong}, [outcome("ann", 15), outcome("eve", 15)])
    assert problem.startswith("eve: deserves 0, got 15")
    assert problems({"ann": HONEST}, []) == ["ann: there is no outcome"]


@pytest.mark.parametrize(
    "entry, points, reason, message, expected",
    [
        (HONEST, None, "", "", "deserves 15, got None"),
        (dataclasses.replace(HONEST, or_look=True), 3, "", "", "deserves 15, got 3"),
        (dataclasses.replace(HONEST, or_look=True), 3, "a cell is missing", "", None),
        (Entry("", "", points=None), None, "", "", "no reason is given"),
        (Entry("", "", points=None), 0, "", "", "deserves None, got 0"),
        (Entry("", "", points=None, says="link"), None, "it is a LINK", "", None),
        (Entry("", "", says="memory"), 0, "", "this does not hold", "nothing says 'memory'"),
    ],
)
def test_what_counts_as_deserved(entry, points, reason, message, expected):
    found = problems({"eve": entry}, [outcome("eve", points, reason, message)])
    assert (found[0] if found else None) == expected or expected in found[0]


def test_canaries_notice_what_is_planted_left_and_reached(course):
    with Canaries(course) as canaries:
        folder = hand_in(HONEST, "ann", canaries.place)
        canaries.handed_in()
        assert canaries.problems() == []
        (folder / f"{canaries.token}-left").touch()
        socket.create_connection(("127.0.0.1", canaries.place.port)).close()
        daemon = "import os, time\nif os.fork() == 0: time.sleep(60)"
        subprocess.run([sys.executable, "-c", daemon], check=True)
        found = "\n".join(canaries.problems(seconds=0.5))
        canaries.end_survivors()
    for part in ("a process is left", "a file was left", "was changed", "the TCP port was reached"):
        assert part in found


def test_active_markup_is_found_where_nothing_is_sanitized(course):
    (written,) = (entry for entry in HOSTILE["display"] if entry.name == "written")
    with Canaries(course) as canaries:
        folder = hand_in(written, "eve", canaries.place)
        page, _ = HTMLExporter().from_filename(str(folder / NOTEBOOK))
        found = " ".join(active_markup(page, canaries.token))
    assert "<script>" in found and "onerror" in found and "javascript:" in found
    assert active_markup(f"<pre>&lt;script&gt;{canaries.token}</pre>", canaries.token) == []


def test_an_entry_writes_only_what_a_candidate_could(course):
    with Canaries(course) as canaries:
        folder = hand_in(HONEST, "ann", canaries.place)
    notebook = nbformat.read(folder / NOTEBOOK, as_version=4)
    assert find(notebook, "quantize").source.startswith("def quantize(x, bits):")
    assert not any(mark in nbformat.writes(notebook) for mark in ("HIDDEN TESTS", "BEGIN SOLUTION", "MARK SCHEME"))
    assert sum(cell.metadata.nbgrader.points for cell in graded_cells(notebook)) == MAX_POINTS
