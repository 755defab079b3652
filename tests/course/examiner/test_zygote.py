"""Candidates' processes forked from one warm parent: what they inherit, what they cannot reach, how they end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from course.cli import ROOT
from course.examiner import zygote
from course.examiner.candidate import Candidate
from course.examiner.process import CandidateFailure
from course.examiner.sandbox import Limits

LIMITS = Limits(cell_seconds=20, scratch_bytes=4 << 20)
GRADES = """
from course.examiner.candidate import Candidate
from course.examiner.sandbox import DEFAULT_LIMITS

with Candidate({}, "bubblewrap", DEFAULT_LIMITS) as candidate:
    run = candidate.run("import os, sys, pytest\\nprint(sys.prefix, os.access(sys.executable, os.X_OK))")
    print(run.error, run.printed["stdout"], end="")
"""


@pytest.fixture
def pair():
    """Two candidates' processes that run side by side."""
    with Candidate({}, "bubblewrap", LIMITS) as one, Candidate({}, "bubblewrap", LIMITS) as other:
        one.run("pass")
        other.run("pass")
        yield one, other


def evaluate(candidate: Candidate, source: str) -> object:
    run = candidate.run(f"import json, os, sys\n{source}\nprint(json.dumps(answer))")
    assert run.error is None, run.error
    return json.loads(run.printed["stdout"])


def comes_true(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_torch_is_there_already_and_nothing_of_the_course(pair):
    assert evaluate(pair[0], "answer = 'torch' in sys.modules")
    assert evaluate(pair[0], "answer = [name for name in sys.modules if name.partition('.')[0] == 'course']") == []


def test_an_installation_below_tmp_stays_visible(tmp_path):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        installed = Path(folder) / "venv"
        installed.symlink_to(sys.prefix)
        script = tmp_path / "grades.py"
        script.write_text(GRADES)
        command = [installed / "bin/python", script]
        graded = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert graded.stdout == f"None {installed} True\n", graded.stderr


def test_no_process_of_others_can_be_seen_or_signalled(pair):
    one, other = pair
    assert evaluate(one, "answer = [name for name in os.listdir('/proc') if name.isdigit()]") == ["1", "2"]
    assert one.run("import os\nos.kill(-1, 9)").error["name"] == "ProcessLookupError"
    for number in (one._process.pid, other._process.pid, os.getpid()):
        with pytest.raises(AssertionError, match=r"ProcessLookupError|PermissionError"):
            evaluate(one, f"answer = os.kill({number}, 0)")
    assert evaluate(other, "answer = 1") == 1


def test_what_one_leaves_behind_the_next_does_not_find():
    leave = """
import builtins, ctypes, os, torch
torch.allclose = builtins.mark = lambda *_: True
os.environ["MARK"] = "1"
for folder in ("/tmp", "/dev/shm", "/scratch/work", "."):
    open(f"{folder}/mark", "w").close()
segment = ctypes.CDLL(None).shmget(4711, 4096, 0o1666)
assert segment >= 0
"""
    find = """
import builtins, ctypes, torch
found = [os.path.exists(f"{folder}/mark") for folder in ("/tmp", "/dev/shm", "/scratch/work")]
found += [hasattr(builtins, "mark"), "MARK" in os.environ, torch.allclose.__name__ == "<lambda>"]
answer = [*found, ctypes.CDLL(None).shmget(4711, 4096, 0o666) >= 0]
"""
    with Candidate({}, "bubblewrap", LIMITS) as first:
        assert first.run(leave).error is None
        with Candidate({}, "bubblewrap", LIMITS) as second:
            assert evaluate(second, find) == [False] * 7


def test_no_socket_leads_to_another_candidate(pair):
    one, other = pair
    listen = "import socket\nlistener = socket.socket(socket.AF_UNIX)\nlistener.bind('\\0meeting')\nlistener.listen()"
    assert one.run(listen).error is None
    call = "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0meeting')"
    assert other.run(call).error["name"] == "ConnectionRefusedError"
    assert one.run(call).error is None


def test_processes_of_one_candidate_do_not_count_for_another():
    limits = Limits(cell_seconds=20, processes=12)
    fill = """
import subprocess
try:
    children = [subprocess.Popen(["sleep", "60"]) for _ in range(100)]
except OSError:
    pass
"""
    with Candidate({}, "bubblewrap", limits) as one, Candidate({}, "bubblewrap", limits) as other:
        one.run(fill)
        assert evaluate(other, "import subprocess\nanswer = subprocess.run(['true']).returncode") == 0


def test_each_draws_its_own_random_numbers(pair):
    draw = "import random, numpy\nanswer = [random.random(), numpy.random.rand()]"
    one, other = (evaluate(candidate, draw) for candidate in pair)
    assert one[0] != other[0] and one[1] != other[1]


def test_a_warm_parent_that_has_ended_is_replaced():
    key = ("bubblewrap", ("colorsys",), ())
    address = zygote.warm(*key)
    zygote._zygotes[key].process.kill()
    assert comes_true(lambda: not zygote._zygotes[key].lives)
    sandboxed = zygote.start("bubblewrap", LIMITS, *key[1:])
    sandboxed.kill()
    assert zygote.warm(*key) != address
    zygote._zygotes.pop(key).close()


def test_the_reason_is_told_where_no_process_can_be_started(monkeypatch, tmp_path):
    refused = tmp_path / "bwrap"
    refused.write_text("#!/bin/sh\necho 'no more namespaces' >&2; exit 1\n")
    refused.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(RuntimeError, match="no more namespaces"):
        zygote.start("bubblewrap", LIMITS, ("wave",), ())
    zygote._zygotes.pop(("bubblewrap", ("wave",), ())).close()


OWNER = """
from course.examiner.candidate import Candidate
from course.examiner.sandbox import Limits

with Candidate({}, "bubblewrap", Limits()) as candidate:
    candidate.run("import subprocess; subprocess.Popen(['setsid', 'sleep', '61.75'])")
    print(candidate._process.pid, flush=True)
    candidate.run("while True: pass")
"""


def test_all_ends_when_the_examiner_is_killed(tmp_path):
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    owner = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    with owner.stdout:
        candidate = psutil.Process(int(owner.stdout.readline()))
    parents = {candidate, *psutil.Process(owner.pid).children(recursive=True)}
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    _, alive = psutil.wait_procs(parents, timeout=20)
    assert not alive


def test_a_reply_that_is_cut_off_ends_the_process_and_not_the_examiner(pair):
    pair[0].run("import os, threading\nthreading.Timer(0.1, os.closerange, (3, 64)).start()")
    with pytest.raises(CandidateFailure):
        for _ in range(100):
            pair[0].look_up({"x"})
            time.sleep(0.01)


def installed_for_all() -> bool:
    places = {Path(sys.prefix), Path(sys.base_prefix).resolve(), Path(__file__)}
    return all(folder.stat().st_mode & 0o001 for place in places for folder in [place, *place.parents][1:])


@pytest.mark.skipif(
    os.geteuid() != 0 or not installed_for_all() or not shutil.which("setpriv"),
    reason="needs root, to give it up, and an installation that others can read",
)
def test_without_roots_privilege(tmp_path_factory):
    script = f"""
import sys
sys.path.insert(0, {str(Path.cwd())!r})
from course.examiner.candidate import Candidate
from course.examiner.sandbox import Limits, check_sandbox
check_sandbox("bubblewrap")
with Candidate({{}}, "bubblewrap", Limits()) as candidate:
    run = candidate.run('''
import os
folders = [path for path, _, _ in os.walk("/") if os.access(path, os.W_OK)]
print([path for path in folders if not path.startswith(("/proc/", "/scratch"))], end=" ")
print([name for name in os.listdir("/proc") if name.isdigit()])
''')
    print(run.printed.get("stdout"), run.error)
"""
    command = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", sys.executable, "-B", "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, cwd="/tmp", env={"PATH": os.environ["PATH"]})
    assert run.stdout.split("\n")[0] == "['/tmp', '/dev/shm'] ['1', '2']", run
