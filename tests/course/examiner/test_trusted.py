"""Which names a test cell borrows, and what is borrowed again."""

import contextlib
import time

import pytest

from course.examiner import trusted
from course.examiner.exam import Exam, ExamCell
from course.examiner.last_call import LastCall
from course.examiner.process import CandidateFailure
from course.examiner.sandbox import Limits
from course.examiner.trusted import Overtime, TrustedCells, global_names, time_limit
from course.examiner.zygote import StartError


class Desk:
    """A candidate's process that answers from a dictionary."""

    limits = Limits(cell_seconds=1)
    last_call = None

    def __init__(self, **values):
        self.values = {name: ("value", value) for name, value in values.items()}
        self.asked = []

    def begin_test(self):
        pass

    def look_up(self, names):
        self.asked.append(set(names))
        return {name: self.values[name] for name in names if name in self.values}

    def printed(self):
        return {"stdout": "said by the candidate"}


def run(desk, *sources, imports=None, points=1.0):
    cells = TrustedCells(Exam((), imports or {}, {}), desk)
    return [cells.run(ExamCell(f"cell-{place}", source, points)) for place, source in enumerate(sources)]


@pytest.mark.parametrize(
    "source, read, bound",
    [
        ("a = b", {"b"}, {"a"}),
        ("def f(x):\n    y = g(x)\n    return y + z", {"g", "z"}, {"f"}),
        ("class C:\n    attribute = outside\n    def m(self): return other", {"outside", "other"}, {"C"}),
        ("squares = [n * n for n in numbers]", {"numbers"}, {"squares"}),
        ("def f():\n    global made\n    made = 1", set(), {"f", "made"}),
        ("import torch.nn as nn\nnn.Linear", {"nn"}, {"nn"}),
        ("check(lambda: late)", {"check", "late"}, set()),
        ("before = f\ndel f\nf = before", {"f", "before"}, {"before"}),
    ],
)
def test_global_names(source, read, bound):
    found_read, found_bound = global_names(compile(source, "test", "exec"))
    assert (found_read - {"__name__"}, found_bound - {"__module__", "__qualname__"}) == (read, bound)


def test_a_cell_borrows_what_it_reads_and_does_not_bind():
    desk = Desk(answer=42, len="a lie", own="the candidate's")
    outputs = run(desk, "own = 1\nassert answer == 42 and len('ab') == 2 and own == 1")
    assert outputs == [[]] and desk.asked == [{"answer"}]


def test_an_import_of_the_instructors_wins_over_the_candidates_name():
    assert run(Desk(math="a lie"), "assert math.pi > 3", imports={"math": "import math"}) == [[]]


def test_names_that_earlier_helpers_read_are_borrowed_anew_for_each_cell():
    desk = Desk(answer=1)
    cells = TrustedCells(Exam((), {}, {}), desk)
    assert cells.run(ExamCell("helper", "def value(): return answer", None)) == []
    desk.values["answer"] = ("value", 2)
    assert cells.run(ExamCell("test", "assert value() == 2", 1.0)) == []
    del desk.values["answer"]
    (*_, error) = cells.run(ExamCell("test", "value()", 1.0))
    assert error.evalue == "the submission defines no `answer`"


def test_a_value_that_cannot_cross_fails_only_the_cell_that_reads_it():
    desk = Desk(fine=1)
    desk.values["odd"] = ("opaque", "a value of type Odd cannot be passed by value")
    first, second = run(desk, "assert odd", "assert fine == 1")
    assert first[-1].evalue == "`odd` is a value of type Odd cannot be passed by value"
    assert second == []


def test_what_was_printed_is_shown_with_a_failure_and_warnings_are_not():
    quiet = "import sys\nprint('deprecated', file=sys.stderr)\nprint('measured 3')"
    passed, failed = run(Desk(), quiet, "print('so far')\nassert False, 'no'")
    assert [output.text for output in passed] == ["measured 3\n"]
    assert failed[0].text == "so far\nsaid by the candidate" and failed[1].evalue == "no"


def test_a_failure_of_the_candidates_process_is_the_reason():
    class Gone(Desk):
        def look_up(self, names):
            raise CandidateFailure("the process ended (SIGSEGV)")

    assert run(Gone(), "f()")[0][-1].evalue == "the process ended (SIGSEGV)"


def test_the_time_limit_raises_and_is_taken_back():
    with pytest.raises(Overtime), time_limit(0.05):
        while True:
            pass
    with time_limit(0.05):
        pass
    sum(range(1_000_000))


def test_the_time_limit_comes_again_where_it_is_swallowed(monkeypatch):
    monkeypatch.setattr(trusted, "AGAIN_SECONDS", 0.05)
    with pytest.raises(Overtime), time_limit(0.05):
        for _ in range(2):
            with contextlib.suppress(BaseException):
                time.sleep(5)
        time.sleep(5)


def test_a_failure_shows_the_last_call_and_the_line():
    desk = Desk(double=lambda n: 5)
    desk.last_call = LastCall("len", ([1, 2],), {}, 2)
    secret = "### BEGIN HIDDEN TESTS\nassert secret, 'no'\n### END HIDDEN TESTS"
    failed, hidden = run(desk, "n = 2\nassert double(n) == 4, 'not 4'", secret)
    assert failed[-1].evalue == "not 4"
    assert failed[-1].traceback == [
        "AssertionError: not 4",
        "failed at: assert double(n) == 4, 'not 4'",
        "last call: len([1, 2]) gave 2",
    ]
    assert "secret" not in "\n".join(hidden[-1].traceback[1:])


@pytest.mark.parametrize(
    "value, text",
    [("1", "1"), ("0.5", "0.5"), ("np.float32(2) / 4", "0.5"), ("torch.tensor([1.5])", "1.5"), ("'ab'", "'ab'")],
)
def test_a_last_expression_is_shown_so_that_its_points_can_be_read(value, text):
    ((result,),) = run(Desk(), f"import numpy as np, torch\n{value}", points=2.0)
    assert result.output_type == "execute_result" and result.data == {"text/plain": text}


@pytest.mark.parametrize("value", ["-1", "3", "float('nan')", "torch.tensor(float('inf'))"])
def test_a_last_expression_that_is_no_number_of_points_gives_none(value):
    ((_, error),) = run(Desk(), f"import torch\n{value}", points=2.0)
    assert error.output_type == "error" and "only 0 to 2 can be given" in error.evalue


def test_a_process_that_cannot_be_started_is_nobodys_zero():
    class Broken(Desk):
        def look_up(self, names):
            raise StartError("the warm parent has ended")

    with pytest.raises(StartError, match="warm parent"):
        TrustedCells(Exam((), {}, {}), Broken()).run(ExamCell("test", "assert double(2) == 4", 1.0))
