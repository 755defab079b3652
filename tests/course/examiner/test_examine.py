"""Whole examinations: what answers deserve, and what attacks and bad luck come to."""

import pytest

from course.examiner import Exam, Limits, examine
from course.examiner.examine import code_cells, submission_digest

from .notebooks import EXAM, ORIGINAL, blank, graded, helper, notebook, plain, submission

LIMITS = Limits(cell_seconds=3)


def points(written, exam=EXAM) -> dict[str, float]:
    return {verdict.grade_id: verdict.points for verdict in examine(written, exam, limits=LIMITS).verdicts}


def message(written, exam=EXAM) -> str:
    return "\n".join(verdict.message for verdict in examine(written, exam, limits=LIMITS).verdicts)


def test_a_right_answer_gets_all_and_a_wrong_one_the_message_of_its_test():
    assert points(submission()) == {"test-double": 3, "test-area": 2}
    examination = examine(submission(double="def double(n): return n + n if n > 5 else n"), EXAM, limits=LIMITS)
    assert (examination.points, examination.max_points) == (2, 5)
    assert examination.verdicts[0].message == "double(2) is not 4"


def test_hidden_tests_count_and_are_not_shown():
    told = message(submission(double="def double(n): return min(2 * n, 100)"))
    assert told == "a hidden test failed\n"


def test_an_assertion_without_message_shows_its_line():
    assert "this does not hold: assert math.isclose(area(2), 4 * math.pi)" in message(
        submission(area="def area(r): return r")
    )


@pytest.mark.parametrize(
    "double, reason",
    [
        ("def double(n):\n    raise NotImplementedError()", "not implemented"),
        ("def double(n: return 2 * n", "the submission defines no `double`; its cell failed: SyntaxError"),
        ("", "the submission defines no `double`"),
        ("def double(n):\n    return [][n]", "list index out of range"),
        ("def double(n):\n    while True: pass", "longer than the limit of 3 s for a cell"),
        ("def double(n):\n    import os; os._exit(0)", "the process ended (exit status 0)"),
        ("class Any:\n    __eq__ = lambda *a: True\ndef double(n): return Any()", "type Any cannot be passed by value"),
        ("import numpy as double", "`double` is the module numpy in the submission"),
        ("def double(n): return bytearray(2**33)", "MemoryError"),
    ],
)
def test_the_reason_for_missing_points_is_told_and_the_rest_is_graded(double, reason):
    examination = examine(submission(double=double), EXAM, limits=LIMITS)
    told, other = examination.verdicts
    details = "\n".join(examination.outputs["test-double"][-1].traceback)
    assert reason in told.message or reason in details
    assert (told.points, other.points) == (0, 2)


ATTACKS = {
    "patched builtins": "import builtins\nbuiltins.min = builtins.abs = lambda *a: 4\n",
    "patched math": "math.isclose = lambda *a: True\n",
    "a lying integer": "class Int(int):\n    __eq__ = lambda *a: True\n    __hash__ = int.__hash__\n",
    "redefined names": "def assertion(*a): return True\nAssertionError = ValueError\n",
    "an exit hook": "import atexit, os\natexit.register(os._exit, 0)\n",
    "a patched IPython": "get_ipython().run_cell = lambda *a, **k: None\n",
    "a replaced encoder": "import inside.codec\ninside.codec.encode = lambda *a: b'\\xc3'\n",
    "a trace function": "import sys\nsys.settrace(lambda *a: None)\n",
    "shadow module": "open('math.py', 'w').write('isclose = lambda *a: True')\n",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_gain_nothing(attack):
    wrong = "def double(n):\n    return Int(5) if 'Int' in globals() else 5"
    assert sum(points(submission(double=ATTACKS[attack] + wrong, area="def area(r): return 1.0")).values()) == 0


def test_metadata_of_the_submission_does_not_decide():
    written = submission(double="def double(n): return 1")
    written.cells[2].metadata.nbgrader.update(points=100, locked=False, solution=True)
    written.cells[2].metadata["tags"] = ["skip-execution", "experiment"]
    assert points(written) == {"test-double": 0, "test-area": 2}


def test_missing_moved_and_copied_test_cells_still_count():
    cells = submission().cells
    assert points(notebook(*cells[:2])) == {"test-double": 3, "test-area": 0}
    assert points(notebook(cells[0], cells[1], cells[3])) == {"test-double": 3, "test-area": 2}
    copies = [graded("test-double", "", 3), graded("test-area", "", 2)]
    assert points(notebook(*cells, *copies)) == {"test-double": 3, "test-area": 2}
    assert points(notebook(plain("import math"), plain(cells[1].source), plain(cells[3].source))) == {
        "test-double": 3,
        "test-area": 2,
    }


def test_warnings_and_prints_of_an_answer_cost_nothing():
    noise = "    warnings.warn('hm'); print(n, file=sys.stderr); print(n)\n"
    noisy = f"import sys, warnings\ndef double(n):\n{noise}    return 2 * n"
    assert points(submission(double=noisy)) == {"test-double": 3, "test-area": 2}


def test_experiments_are_not_run():
    written = submission()
    written.cells.insert(1, plain("raise SystemExit('ran')\nmath = None", tags=["experiment"]))
    examination = examine(written, EXAM, limits=LIMITS)
    assert examination.points == 5 and examination.runs[1] == []


def test_locked_helpers_run_on_this_side_with_the_candidates_names():
    original = notebook(
        helper("tools", "def check(value):\n    assert twice(value) == 2 * value, f'{value}'"),
        blank("twice", ""),
        graded("test-twice", "check(21)", 1),
    )
    exam = Exam.from_notebook(original, {})
    overridden = "def twice(n): return 2 * n\ndef check(value): pass"
    assert points(notebook(blank("twice", overridden)), exam) == {"test-twice": 1}
    assert points(notebook(blank("twice", "def twice(n): return n\ndef check(value): pass")), exam) == {"test-twice": 0}


def test_a_last_expression_gives_partial_credit_as_in_nbgrader():
    exam = Exam.from_notebook(notebook(graded("test-half", "sum(answer(n) == n for n in range(4)) / 2", 2)), {})
    assert points(notebook(plain("def answer(n): return n if n < 2 else 0")), exam) == {"test-half": 1}


TAKEN_AWAY = """
kept = double
del double
try:
    four(1)
except NameError:
    pass
else:
    raise AssertionError("four does not use double")
finally:
    double = kept
assert four(2) == 8
"""


def test_a_test_may_take_a_name_away_or_put_another_in_its_place():
    replaced = "assert factor == 3\nfactor = 10\nassert scaled(2) == 20"
    exam = Exam.from_notebook(notebook(graded("taken", TAKEN_AWAY, 1), graded("replaced", replaced, 1)), {})
    common = plain("factor = 3\ndef double(n): return 2 * n\ndef scaled(n): return factor * n")
    uses, does_not = plain("def four(n): return double(double(n))"), plain("def four(n): return 4 * n")
    assert points(notebook(common, uses), exam) == {"taken": 1, "replaced": 1}
    assert points(notebook(common, does_not), exam) == {"taken": 0, "replaced": 1}
    assert "four does not use double" in message(notebook(common, does_not), exam)


def test_support_files_are_on_both_sides():
    original = notebook(graded("test-read", "import helper\nassert read() == helper.WORD == open('w.txt').read()", 1))
    exam = Exam.from_notebook(original, {"helper.py": b"WORD = 'word'", "w.txt": b"word"})
    written = notebook(plain("import helper\ndef read(): return open('w.txt').read() + helper.WORD[4:]"))
    assert points(written, exam) == {"test-read": 1}


def test_the_submissions_files_do_not_replace_the_instructors():
    exam = Exam.from_notebook(notebook(graded("t", "assert read() == 'given'", 1)), {"w.txt": b"given"})
    written = notebook(plain("def read(): return open('w.txt').read()"))
    assert examine(written, exam, {"w.txt": b"forged"}, limits=LIMITS).points == 1


def test_a_test_that_hangs_on_this_side_is_stopped():
    exam = Exam.from_notebook(notebook(graded("t", "while answer: pass", 1)), {})
    assert "the test ran longer than 1 s" in "\n".join(
        verdict.message
        for verdict in examine(notebook(plain("answer = 1")), exam, limits=Limits(cell_seconds=1)).verdicts
    )


def test_write_to_puts_outputs_and_metadata_into_the_notebook():
    written = submission(double="print('hello')\ndef double(n): return 1")
    examination = examine(written, EXAM, limits=LIMITS)
    written.metadata["course"] = {"number": 6, "examination": {"forged": True}}
    examination.write_to(written, EXAM)
    assert written.cells[1].outputs[0].text == "hello\n"
    assert written.cells[2].outputs[0].ename == "AssertionError" and written.cells[4].outputs == []
    recorded = written.metadata["course"]["examination"]
    assert recorded["exercises"][0] == {
        "grade_id": "test-double",
        "points": 0,
        "max_points": 3,
        "message": "double(2) is not 4",
    }
    assert recorded["submission"] == submission_digest(written, EXAM) and recorded["exam"] == EXAM.digest


def test_the_digest_follows_what_the_candidate_wrote_in_code():
    digests = {submission_digest(submission(), EXAM), submission_digest(submission(area="x"), EXAM)}
    assert len(digests) == 2
    retitled = submission()
    retitled.cells[2].source = "assert True"  # a test cell's text is not the candidate's to write
    assert submission_digest(retitled, EXAM) in digests


def test_code_cells_marks_each_place_once():
    pairs = code_cells(notebook(*ORIGINAL.cells, graded("test-double", "", 3)), EXAM)
    assert [own.grade_id if own else None for _, own in pairs] == [None, None, "test-double", None, "test-area", None]


@pytest.mark.parametrize("double", ["def double(n): return 2 * n", "import os\ndef double(n): os._exit(1)"])
def test_nothing_is_left_behind(tmp_path, monkeypatch, double):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    examine(submission(double=double), EXAM, {"data.csv": b"1"}, limits=LIMITS)
    left = [path.name for path in tmp_path.iterdir()]
    assert [
        name for name in left if not name.startswith("pymp-")
    ] == []  # multiprocessing's own, until this process ends
