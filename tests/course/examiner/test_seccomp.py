"""System calls that are refused in a candidate's process, and those that must go on working."""

import errno
import json
import platform

import pytest

from course.examiner.candidate import Candidate
from course.examiner.inside import seccomp
from course.examiner.sandbox import Limits

pytestmark = pytest.mark.skipif(platform.machine() not in seccomp.ARCHITECTURES, reason="no filter for this processor")


@pytest.fixture(scope="module")
def candidate():
    with Candidate({}, "bubblewrap", Limits()) as candidate:
        yield candidate


def evaluate(candidate: Candidate, source: str) -> object:
    run = candidate.run(f"import json, os, socket, sys\n{source}\nprint(json.dumps(answer))")
    assert run.error is None, run.error
    return json.loads(run.printed["stdout"])


def test_refused_calls(candidate):
    column, _ = seccomp.ARCHITECTURES[platform.machine()]
    numbers = {name: numbers[column] for name, numbers in seccomp.DENIED.items()}
    ask = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def error(number):
    ctypes.set_errno(0)
    libc.syscall(number, 0, 0, 0, 0, 0, 0)
    return ctypes.get_errno()
"""
    errors = evaluate(candidate, f"{ask}answer = {{name: error(number) for name, number in {numbers}.items()}}")
    assert errors == dict.fromkeys(numbers, errno.EPERM)


def test_no_new_namespace_by_clone_either(candidate):
    column, _ = seccomp.ARCHITECTURES[platform.machine()]
    ask = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
errors = []
for arguments in (({seccomp.CLONE[column]}, 0x10000000 | 17), ({seccomp.CLONE3[column]}, 0)):
    libc.syscall(*arguments, 0, 0, 0, 0)
    errors.append(ctypes.get_errno())
answer = errors
"""
    assert evaluate(candidate, ask) == [errno.EPERM, errno.ENOSYS]


@pytest.mark.parametrize("family", ["AF_VSOCK", "AF_PACKET", "AF_ALG", "AF_TIPC"])
def test_other_families_of_sockets_are_refused(candidate, family):
    ask = f"""
try:
    socket.socket(socket.{family}, socket.SOCK_STREAM)
    answer = 0
except OSError as error:
    answer = error.errno
"""
    assert evaluate(candidate, ask) == errno.EAFNOSUPPORT


def test_honest_work_goes_on(candidate):
    work = """
import multiprocessing, subprocess, threading, torch
seen = []
thread = threading.Thread(target=seen.append, args=(1,))
thread.start()
thread.join()
with multiprocessing.get_context("fork").Pool(2) as pool:
    seen += pool.map(abs, [-2, -3])
one, other = socket.socketpair()
one.send(b"4")
seen += [int(other.recv(1)), int(subprocess.run(["echo", "5"], capture_output=True).stdout)]
answer = [*seen, float(torch.ones(6).sum())]
"""
    assert evaluate(candidate, work) == [1, 2, 3, 4, 5, 6]
