"""The examiner's view of a candidate's process: cells, values, calls, limits, and life after death."""

import contextlib
import time

import pytest
import torch

from course.examiner.candidate import Candidate, CandidateError
from course.examiner.inside.channel import HEADER, MAX_BUFFERS
from course.examiner.inside.codec import decode, encode
from course.examiner.process import CandidateFailure
from course.examiner.sandbox import Limits
from course.examiner.trusted import Overtime, time_limit
from quant_kernels import peak_memory

LIMITS = Limits(cell_seconds=1.5, output_bytes=10_000, restarts=3)
STUBBORN = "import time\nwhile True:\n    try:\n        time.sleep(0.1)\n    except BaseException:\n        pass"


@pytest.fixture(params=["bubblewrap", "none"])
def candidate(request):
    with Candidate({}, request.param, LIMITS) as candidate:
        yield candidate


def function(candidate: Candidate, name: str):
    candidate.begin_test()
    return candidate.look_up({name})[name][1]


def test_a_cell_gives_what_it_printed_displayed_and_raised(candidate):
    run = candidate.run("import sys\nprint('out'); print('err', file=sys.stderr)\n1 + 1")
    assert run.printed == {"stdout": "out\n", "stderr": "err\n"}
    assert run.displays == [{"text/plain": "2"}] and run.error is None
    run = candidate.run("1 / 0")
    assert run.error["name"] == "ZeroDivisionError" and "1 / 0" in run.error["traceback"]
    assert candidate.run("def f(:").error["name"] == "SyntaxError"
    broken = "get_ipython().InteractiveTB.structured_traceback = None\n1 / 0"
    assert candidate.run(broken).error["name"] == "ZeroDivisionError"


def test_magics_work_and_displays_that_could_run_scripts_are_dropped(candidate):
    candidate.run("%timeit -n1 -r1 pass")
    run = candidate.run("from IPython.display import HTML, display\ndisplay(HTML('<script>alert(1)</script>'))")
    assert run.displays == [{"text/plain": "<IPython.core.display.HTML object>"}]
    forged = "from IPython.display import publish_display_data as p\np({'image/png': 'x\" onerror=\"alert(1)'})"
    assert candidate.run(forged).displays == [{}]


def test_names_are_looked_up_by_value(candidate):
    candidate.run("import math\nimport numpy\nx = {'a': [1, (2,)]}\nf = lambda n: n + 1\nodd = numpy.array([f])")
    found = candidate.look_up({"x", "math", "odd", "f", "absent"})
    assert found["x"] == ("value", {"a": [1, (2,)]}) and found["math"] == ("module", "math")
    assert found["odd"][0] == "opaque" and "an array of dtype object" in found["odd"][1]
    assert found["f"][1](41) == 42 and "absent" not in found


def test_an_object_that_fails_when_it_is_looked_at_is_opaque(candidate):
    trap = "class Trap(list):\n    def __iter__(self): raise RuntimeError('no items for you')\ntrap = Trap()"
    candidate.run(f"{trap}\nx = 1")
    assert candidate.look_up({"trap", "x"}) == {
        "trap": ("opaque", "an object that fails when it is looked at (RuntimeError: no items for you)"),
        "x": ("value", 1),
    }
    assert candidate.run("print(1)").printed["stdout"] == "1\n"


def test_tensors_go_and_come_by_value():
    x = torch.arange(4.0)
    with Candidate({}, "bubblewrap", Limits()) as candidate:
        candidate.run("def twice(x, *, add=0):\n    x += x\n    return x + add")
        assert function(candidate, "twice")(x, add=1).tolist() == [1, 3, 5, 7]
    assert x.tolist() == [0, 1, 2, 3]  # the candidate changed a copy


def test_bound_arguments_do_not_count_as_memory_of_the_call():
    x = torch.zeros(40 << 20, dtype=torch.uint8)
    with Candidate({}, "bubblewrap", Limits()) as candidate:
        candidate.run("def thrifty(x): return x[:5].sum()\ndef wasteful(x): return x.float().sum()")
        thrifty, wasteful = function(candidate, "thrifty"), function(candidate, "wasteful")
        assert thrifty.bind(x)() == 0
        assert peak_memory(thrifty, x)[1] < 10 << 20
        assert peak_memory(wasteful, x)[1] > 150 << 20


def test_functions_go_and_come_as_proxies(candidate):
    candidate.run("def adder(n):\n    return lambda x: x + n\ndef apply(f, x):\n    return f(x)")
    add = function(candidate, "adder")(2)
    assert add(3) == 5
    assert function(candidate, "apply")(add, 4) == 6
    with pytest.raises(TypeError, match="the function <lambda> of the test cannot be passed"):
        function(candidate, "apply")(lambda x: x, 1)


def test_exceptions_come_as_the_same_builtin_type(candidate):
    candidate.run("class Mine(KeyError): pass\nclass Own(Exception): pass\ndef f(kind): raise kind_of[kind]('why')")
    candidate.run("kind_of = dict(value=ValueError, mine=Mine, own=Own, stop=StopIteration, exit=SystemExit)")
    expected_of = {"value": ValueError, "mine": KeyError, "own": CandidateError, "exit": CandidateError}
    for kind, expected in expected_of.items():
        with pytest.raises(expected, match="why") as caught:
            function(candidate, "f")(kind)
        assert "def f(kind)" in caught.value.candidate_traceback
    candidate.run("import struct\ndef unpack(data): return struct.unpack('<I', data)")
    with pytest.raises(CandidateError, match=r"^struct\.error: unpack requires a buffer of 4 bytes"):
        function(candidate, "unpack")(b"")
    with pytest.raises(CandidateError, match="StopIteration: why"):
        list(map(function(candidate, "f"), ["stop"]))  # must not end the loop of a test


def test_a_cell_over_its_time_is_stopped_and_the_state_kept(candidate):
    candidate.run("x = 1")
    assert "longer than the limit of 1.5 s for a cell" in candidate.run("while True: pass").error["message"]
    assert candidate.run("print(x)").printed["stdout"] == "1\n"


@pytest.mark.parametrize("fatal", [STUBBORN, "import os\nos._exit(3)", "import os\nos.kill(os.getpid(), 11)"])
def test_a_dead_process_is_brought_back_to_where_it_was(candidate, fatal):
    candidate.run("x = 1")
    assert candidate.run(fatal).error["name"] == "Stopped"
    assert candidate.run("print(x)").printed["stdout"] == "1\n"


def test_the_ending_of_a_process_is_told(candidate):
    assert "exit status 3" in candidate.run("import os\nos._exit(3)").error["message"]
    assert "SIGSEGV" in candidate.run("import os\nos.kill(os.getpid(), 11)").error["message"]


def test_a_process_that_keeps_dying_is_not_started_for_ever(candidate):
    for _ in range(LIMITS.restarts + 1):
        candidate.run("import os\nos._exit(3)")
    assert "ended 4 times before" in candidate.run("print(1)").error["message"]


def test_when_the_time_of_a_submission_is_over_nothing_more_is_run():
    with Candidate({}, "none", Limits(submission_seconds=2)) as candidate:
        candidate.run("x = 1")
        assert "the limit of 2 s for a submission" in candidate.run("import time\ntime.sleep(60)").error["message"]
        began = time.monotonic()
        messages = {candidate.run("x = 2").error["message"] for _ in range(100)}
        assert messages == {"not run: the 2 s for a submission are over"}
        with pytest.raises(CandidateFailure, match="are over"):
            candidate.look_up({"x"})
        assert time.monotonic() - began < 10  # 100 cells that each waited for their grace would take minutes


def test_printing_without_end_is_stopped(candidate):
    run = candidate.run("while True: print('again')")
    assert "printed more than 10,000 bytes" in run.error["message"]
    assert len(run.printed["stdout"]) < 200_000


def test_limits_hold_inside_calls(candidate):
    candidate.run(
        "def forever(): \n    while True: pass\ndef chat():\n    while True: print('again')\ndef die():\n    exit_()"
    )
    candidate.run("import os\ndef exit_(): os._exit(1)")
    for name, reason in (("forever", "longer than"), ("chat", "printed more"), ("die", "exit status 1")):
        with pytest.raises(CandidateFailure, match=reason):
            function(candidate, name)()


def test_a_function_of_a_dead_process_says_so(candidate):
    candidate.run("def f(): return 1")
    f = function(candidate, "f")
    candidate.run("import os\nos._exit(1)")
    with pytest.raises(CandidateFailure, match="f is gone: the process that held it has ended"):
        f()
    assert function(candidate, "f")() == 1


def test_what_the_last_call_printed_is_kept_while_a_test_looks_at_the_result(candidate):
    candidate.run("class Plan:\n    bits = 4\n    def add(self, n): print('adding', n)\nplan = Plan()")
    plan = function(candidate, "plan")
    plan.add(1)
    plan.add(2)
    assert plan.bits == 4 and candidate.printed() == {"stdout": "adding 2\n"}
    candidate.begin_test()
    assert candidate.printed() == {} and candidate.last_call is None


def test_past_its_time_nothing_more_is_asked_and_the_process_lives(candidate):
    candidate.run("def f(): return 1")
    f = function(candidate, "f")
    candidate.deadline = time.monotonic() - 1
    for ask in (f, lambda: candidate.look_up({"f"}), lambda: f.anything):
        with pytest.raises(CandidateFailure, match=r"not run: the limit of 1\.5 s for a cell was reached"):
            ask()
    candidate.begin_test()
    assert f() == 1


def test_texts_that_candidates_choose_are_cleaned_and_cut(candidate):
    candidate.run("Bad = type('B\\x1b[31m\\n' + 'x' * 10**6, (Exception,), {})")
    candidate.run("def f(): raise Bad('\\x07no\\udc80' + 'x' * 10**6)")
    with pytest.raises(CandidateError) as caught:
        function(candidate, "f")()
    text = str(caught.value)
    assert text.startswith("B[31mxxx") and len(text) < 21_000 and text.isprintable()
    assert candidate.run("raise Bad('\\udc80')").error["name"].startswith("B[31mxx")


def test_a_call_that_is_cut_short_on_this_side_ends_the_process(candidate):
    candidate.run("import time\ndef nap(): time.sleep(1)\ndef f(): return 1")
    nap = function(candidate, "nap")
    with pytest.raises(Overtime), time_limit(0.2):
        nap()
    with pytest.raises(CandidateFailure, match="nap is gone"):
        nap()
    assert function(candidate, "f")() == 1


def frame(value: object) -> str:
    head, _ = encode(value)
    return repr(HEADER.pack(len(head), 0) + head)


WRITE_TO_SOCKETS = """import os, stat
for n in range(3, 40):
    try:
        if stat.S_ISSOCK(os.fstat(n).st_mode):
            os.write(n, {})
    except OSError:
        pass
"""
FORGED = {
    "junk": "b'junk'",
    "a length too large": "(2**60).to_bytes(8, 'big')",
    "no message": "b'\\x00' * 8 + b'{}'",
    "buffers without end": repr(HEADER.pack(1, MAX_BUFFERS) + b"\xc0"),
    "no reply": frame([1, 1]),
    "no list": frame({"number": 1}),
    "an object for a reply": frame([1, {"error": None}, "more"]),
    "wrong parts": frame([2, {"found": [], "displays": [{}, 5], "error": 5}]),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_forged_replies_gain_nothing(candidate, forged):
    candidate.run("def f(): return 1")
    run = candidate.run(WRITE_TO_SOCKETS.format(forged))
    assert run.error is not None or all(data == {} for data in run.displays)
    assert function(candidate, "f")() == 1


def test_replies_ahead_of_their_requests_are_not_heard(candidate):
    candidate.run("def f(): return 1")
    frames = [frame([number, {"found": {"f": ["value", 7]}, "value": 7}]) for number in range(3, 30)]
    candidate.run(WRITE_TO_SOCKETS.format(f"b''.join([{', '.join(frames)}])"))
    assert function(candidate, "f")() == 1


@pytest.mark.parametrize("found", [5, {"f": 5}, {"f": ["value"]}, {"f": ["value", 1, 2]}, {"f": [object, object]}])
def test_forged_names_are_no_names(candidate, found, monkeypatch):
    candidate.run("def f(): return 1")
    process = candidate._living()
    told = decode(encode(found, lambda thing: [1, "object", "Thing"]), process.border.take)
    monkeypatch.setattr(process, "request", lambda *arguments: {"found": told})
    with contextlib.suppress(CandidateFailure):
        assert candidate.look_up({"f"}) == {}
