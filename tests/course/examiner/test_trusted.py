"""Which names a test cell borrows, and what is borrowed again."""

import pytest

from course.examiner.exam import Exam, ExamCell
from course.examiner.process import CandidateFailure
from course.examiner.sandbox import Limits
from course.examiner.trusted import Overtime, TrustedCells, global_names, time_limit


class Desk:
    """A candidate's process that answers from a dictionary."""

    limits = Limits(cell_seconds=1)

    def __init__(self, **values):
        self.values = {name: ("value", value) for name, value in values.items()}
        self.asked = []

    def look_up(self, names):
        self.asked.append(set(names))
        return {name: self.values[name] for name in names if name in self.values}

    def printed(self):
        return {"stdout": "said by the candidate"}


def run(desk, *sources, imports=None):
    trusted = TrustedCells(Exam((), imports or {}, {}), desk)
    return [trusted.run(ExamCell(f"cell-{place}", source, 1.0)) for place, source in enumerate(sources)]


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
    trusted = TrustedCells(Exam((), {}, {}), desk)
    assert trusted.run(ExamCell("helper", "def value(): return answer", None)) == []
    desk.values["answer"] = ("value", 2)
    assert trusted.run(ExamCell("test", "assert value() == 2", 1.0)) == []
    del desk.values["answer"]
    (*_, error) = trusted.run(ExamCell("test", "value()", 1.0))
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
