"""What a candidate's processes may use together."""

import os
import subprocess
from pathlib import Path

import pytest

from course.examiner import cgroup
from course.examiner.candidate import Candidate
from course.examiner.cgroup import Group
from course.examiner.sandbox import Limits

MiB = 1 << 20
needs_group = pytest.mark.skipif(not cgroup.places(), reason="this machine lends no control group")


@needs_group
def test_memory_of_all_processes_together_is_bounded():
    fill = """
import subprocess, sys
hold = "x = bytearray(300 << 20); import time; time.sleep(60)"
held = [subprocess.Popen([sys.executable, "-c", hold]) for _ in range(3)]
while all(process.poll() is None for process in held):
    pass
"""
    with Candidate({}, "bubblewrap", Limits(cell_seconds=60, memory_bytes=800 * MiB)) as candidate:
        run = candidate.run(fill)
        assert candidate._process.sandboxed.group.ran_out_of_memory()
    assert run.error is None or "more than the limit of 0.78 GiB" in run.error["message"]  # whom the system picks


@needs_group
def test_a_group_is_removed_with_its_processes():
    group = Group.create(Limits())
    sleeper = subprocess.Popen(["sleep", "60"])
    group.add(sleeper.pid)
    assert any(str(folder.name) in Path(f"/proc/{sleeper.pid}/cgroup").read_text() for folder in group.folders)
    sleeper.kill()
    sleeper.wait()
    group.remove()
    assert not any(folder.exists() for folder in group.folders)
    assert not group.ran_out_of_memory()


@needs_group
def test_groups_of_a_killed_examiner_are_cleared(monkeypatch):
    ended = subprocess.Popen(["true"])
    ended.wait()
    (first, *_), *_ = cgroup.places()
    left, mine = (first / f"{cgroup.PREFIX}{number}-x" for number in (ended.pid, os.getpid()))
    left.mkdir()
    mine.mkdir()
    cgroup._clear(first)
    assert left.exists()  # it may be somebody's whose process is not seen from here
    monkeypatch.setattr(cgroup, "OLD_SECONDS", -1.0)
    cgroup._clear(first)
    assert not left.exists() and mine.exists()
    mine.rmdir()


def test_without_the_right_to_make_groups_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(cgroup, "places", lambda: [[tmp_path]])  # a folder that is no control group
    assert Group.create(Limits()) is None
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(cgroup, "places", list)
    assert Group.create(Limits()) is None
