"""What a candidate's process can see and do, asked from inside."""

import json
import os
import time
from pathlib import Path

import pytest

from course.examiner import sandbox
from course.examiner.candidate import Candidate
from course.examiner.sandbox import Limits, SandboxError, check_sandbox

MiB = 1 << 20
LIMITS = Limits(cell_seconds=20, memory_bytes=600 * MiB, processes=20, file_bytes=2 * MiB, scratch_bytes=4 * MiB)


@pytest.fixture(scope="module")
def candidate():
    with Candidate({"data/given.txt": b"given"}, "bubblewrap", LIMITS) as candidate:
        yield candidate


def evaluate(candidate: Candidate, source: str) -> object:
    run = candidate.run(f"import json, os, sys\n{source}\nprint(json.dumps(answer))")
    assert run.error is None, run.error
    return json.loads(run.printed["stdout"])


def error_of(candidate: Candidate, source: str) -> str:
    run = candidate.run(source)
    assert run.error is not None, run
    return f"{run.error['name']}: {run.error['message']}"


def test_support_files_lie_in_the_working_folder(candidate):
    assert evaluate(candidate, "answer = open('data/given.txt').read()") == "given"


def test_no_file_of_the_host_but_the_installation(candidate):
    secrets = [Path(__file__), Path.home() / ".bashrc", Path("/etc/passwd"), Path("/etc/hostname"), Path("/var/log")]
    assert evaluate(candidate, f"answer = [os.path.exists(path) for path in {list(map(str, secrets))}]") == [False] * 5


def test_nothing_but_the_scratch_folder_can_be_written(candidate):
    places = ["/", "/usr", "/opt", os.path.dirname(os.__file__), "/opt/examiner/inside"]
    answer = evaluate(candidate, f"answer = [os.access(path, os.W_OK) for path in {places} + [os.getcwd()]]")
    assert answer == [False] * len(places) + [True]


def test_no_secret_in_the_environment(candidate):
    names = evaluate(candidate, "answer = sorted(os.environ)")
    assert set(names) <= set(sandbox.environment("", "")) | {
        "PATH",
        "PWD",
        "LC_CTYPE",
        "COLUMNS",
        "LINES",
    }


def test_no_network(candidate):

    interfaces = evaluate(candidate, "import socket\nanswer = [name for _, name in socket.if_nameindex()]")
    assert interfaces == ["lo"]
    assert "unreachable" in error_of(candidate, "import socket\nsocket.create_connection(('192.0.2.1', 80), 2)")


def test_no_other_process_and_no_privilege(candidate):
    assert evaluate(candidate, "answer = sum(name.isdigit() for name in os.listdir('/proc'))") <= 3
    assert evaluate(candidate, "answer = os.getuid()") not in (0, os.getuid())
    assert "Error" in error_of(candidate, "import os\nos.setuid(0)")


@pytest.mark.parametrize("name", sandbox.ABSENT)
def test_reference_modules_are_absent_and_say_why(candidate, name):
    assert f"`{name}` is not available while a submission is graded" in error_of(candidate, f"import {name}")
    search = f"""
import importlib.machinery, importlib.util
sys.modules.pop("{name}", None)
path = [entry for entry in sys.path if entry != "/opt/absent"]
spec = importlib.machinery.PathFinder.find_spec("{name}", path)
answer = [] if spec is None else [str(spec.origin)]
"""
    assert evaluate(candidate, search) in ([], ["None"])  # a covered folder is an empty namespace


def test_memory_is_limited(candidate):
    reached = "the limit of 0.586 GiB of memory was reached"
    assert error_of(candidate, "block = bytearray(2**30)") == f"MemoryError: {reached}"
    assert reached in error_of(candidate, "import torch\nblock = torch.ones(2**28)")


def test_file_size_and_scratch_space_are_limited(candidate):
    assert "the limit of 2 MiB for a file" in error_of(candidate, "open('big', 'wb').write(bytes(3 << 20))")
    fill = "for number in range(9):\n    open(f'part{number}', 'wb').write(bytes(1 << 20))"
    assert "the limit of 4 MiB, and 20,000 files, of scratch space" in error_of(candidate, fill)
    candidate.run("import glob, os\nfor name in glob.glob('part*') + ['big']: os.remove(name)")


def test_processes_are_limited(candidate):
    count = """
import subprocess
children = []
try:
    while len(children) < 100:
        children.append(subprocess.Popen(["sleep", "5"]))
except OSError:
    pass
answer = len(children)
for child in children:
    child.kill()
    child.wait()
"""
    assert evaluate(candidate, count) < LIMITS.processes
    threads = "import threading, time\nfor _ in range(50): threading.Thread(target=time.sleep, args=(3,)).start()"
    assert "the limit of 20 processes and threads" in error_of(candidate, threads)


def test_nothing_outlives_the_process():
    with Candidate({}, "bubblewrap", LIMITS) as candidate:
        marker = f"{os.getpid()}.25"
        candidate.run(f"import subprocess\nsubprocess.Popen(['setsid', 'sleep', '{marker}'])")
        assert comes_true(lambda: running(marker)), "setsid becomes sleep in a moment"
    assert not running(marker)


def comes_true(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def running(marker: str) -> bool:
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands.append(path.read_bytes())
        except OSError:
            continue
    return any(b"sleep\0" in command and marker.encode() in command for command in commands)


def test_a_missing_bubblewrap_is_named_with_a_remedy(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(SandboxError, match=r"bubblewrap is not installed.*--sandbox none"):
        check_sandbox("bubblewrap")


def test_a_refused_bubblewrap_is_named_with_its_reason(monkeypatch, tmp_path):
    refused = tmp_path / "bwrap"
    refused.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2; exit 1\n")
    refused.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(SandboxError, match=r"refused.*No permissions to create new namespace.*--sandbox none"):
        check_sandbox("bubblewrap")


def test_only_known_sandboxes():
    check_sandbox("none")
    with pytest.raises(SandboxError, match="unknown sandbox 'docker'"):
        check_sandbox("docker")


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"cell_second": 10}, "there is no limit 'cell_second'; there are cell_seconds, submission_seconds"),
        ({"cell_seconds": -1}, "the limit cell_seconds is -1; a number above 0"),
        ({"cell_seconds": float("inf")}, "the limit cell_seconds is inf"),
        ({"processes": 0}, "the limit processes is 0"),
        ({"memory_bytes": "2G"}, "the limit memory_bytes is '2G'; a whole number"),
        ({"memory_bytes": 1.5e9}, "the limit memory_bytes is 1500000000.0; a whole number"),
        ({"processes": True}, "the limit processes is True"),
    ],
)
def test_limits_that_would_be_everybodys_zero_are_refused(changes, reason):
    with pytest.raises(SandboxError, match=reason):
        Limits.changed(changes)
    assert Limits.changed({"restarts": 0, "cell_seconds": 2}) == Limits(restarts=0, cell_seconds=2)
