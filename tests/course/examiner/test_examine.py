"""Whole examinations: what answers deserve, and what attacks and bad luck come to."""

import nbformat.v4 as nbf
import pytest

from course.examiner import Exam, Limits, examine

from .notebooks import EXAM, blank, graded, helper, notebook, plain, submission

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
        (
            "class Any:\n    __eq__ = lambda *a: True\ndef double(n): return Any()",
            "an object of the submission's class `Any`",
        ),
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


def examined(written, exam=EXAM):
    """Points of each test, and the notes."""
    examination = examine(written, exam, limits=LIMITS)
    return {verdict.grade_id: verdict.points for verdict in examination.verdicts}, examination.notes


ALL = {"test-double": 3, "test-area": 2}


def test_a_test_that_stands_before_its_code_is_run_again():
    cells = submission().cells
    got, notes = examined(notebook(cells[0], cells[2], cells[1], *cells[3:]))
    assert got == ALL
    assert notes == ["`test-double` stands before code that it needs: it was run again after it"]


def test_an_answer_below_its_untouched_blank_counts():
    stub = "def double(n):\n    raise NotImplementedError()"
    cells = submission(double=stub).cells
    got, notes = examined(notebook(*cells, plain("def double(n): return 2 * n")))
    assert got == ALL and len(notes) == 1


def test_a_test_that_fails_on_its_own_is_not_run_again():
    cells = submission(double="def double(n): return 1").cells
    got, notes = examined(notebook(*cells, plain("def double(n): return 2 * n")))
    assert got == {"test-double": 0, "test-area": 2} and notes == []


def test_an_untouched_copy_of_the_blank_does_not_undo_the_answer():
    stub = "def twice(n):\n    raise NotImplementedError()"
    exam = Exam.from_notebook(notebook(blank("twice", stub), graded("t", "assert twice(2) == 4", 1)), {})
    answer, untouched = blank("twice", "def twice(n): return 2 * n"), blank("twice", stub)
    assert examined(notebook(answer, untouched), exam) == ({"t": 1}, [])
    assert examined(notebook(untouched, answer), exam) == ({"t": 1}, [])


@pytest.mark.parametrize(
    "cells, reason",
    [
        ([], "the cell `double` is missing"),
        (
            [nbf.new_markdown_cell("see:\n\ndef double(n): return 2 * n")],
            "cell 2, a markdown cell, has it, and is not run",
        ),
        ([nbf.new_raw_cell("double = lambda n: 2 * n")], "cell 2, a raw cell, has it, and is not run"),
        ([plain("def double(n): return 2 * n", tags=["experiment"])], "cell 2, tagged `experiment`, has it"),
        ([graded("test-double", "def double(n): return 2 * n", 3)], "cell 2, the instructor's `test-double`, has it"),
    ],
)
def test_why_a_name_is_missing_is_told_and_noted(cells, reason):
    written = notebook(plain("import math"), *cells, plain("def area(r): return math.pi * r**2"))
    examination = examine(written, EXAM, limits=LIMITS)
    told, other = examination.verdicts
    assert (told.points, other.points) == (0, 2)
    assert told.message.startswith("the submission defines no `double`; ") and reason in told.message
    assert len(examination.notes) == 1 and reason in examination.notes[0]


def test_an_answer_that_became_text_is_run():
    cells = submission().cells
    cells[1] = nbf.new_markdown_cell(cells[1].source, metadata=cells[1].metadata)
    got, notes = examined(notebook(*cells))
    assert got == ALL and notes == ["`double` was turned into markdown: it was run as code all the same"]


def test_where_no_test_finds_its_names_somebody_should_look():
    other_names = notebook(plain("def verdoppeln(n): return 2 * n"), plain("def flaeche(r): return r"))
    got, notes = examined(other_names)
    assert sum(got.values()) == 0
    assert notes[-1] == "no test found the names that it needs (`double`, `area`), though there is code"
    assert "though there is code" not in str(examined(notebook())[1])


@pytest.mark.parametrize(
    "source",
    [
        "%timeit -n1 -r1 1 + 1",
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])",
        "!ls",
        "%%bash\nexit 3",
        "%load_ext nothing_like_that",
        "%%no_such_magic\ntext",
        "name = input('Your name? ')",
        "1 / 0",
        "import sys; sys.exit(1)",
        "def broken(:",
        "raise KeyboardInterrupt",
        "\x00",
    ],
)
def test_a_cell_fails_only_itself(source):
    written = submission()
    written.cells.insert(1, plain(source))
    assert examined(written) == (ALL, [])


def test_input_says_what_is_wrong():
    written = submission(double="n = input('Your name? ')\ndef double(n): return 2 * n")
    assert "input() has nobody to ask while a submission is graded" in message(written)


def test_a_crash_in_the_last_exercise_keeps_the_points_before():
    crash = "import ctypes\ndef area(r): ctypes.string_at(0)"
    assert points(submission(area=crash)) == {"test-double": 3, "test-area": 0}


def test_what_a_locked_cell_or_a_test_gives_is_there_for_the_answers():
    original = notebook(
        helper("tools", "import math\n\nRATE = 3\ndef tripled(n): return RATE * n"),
        graded(
            "first",
            "import colorsys, gguf\nassert True\n### BEGIN HIDDEN TESTS\nimport bisect\n### END HIDDEN TESTS",
            1,
        ),
        blank("answer", ""),
        graded("second", "assert answer() == 10", 1),
    )
    exam = Exam.from_notebook(original, {})
    right = "def answer(): return tripled(int(math.sqrt(9))) + len([colorsys])"
    assert examined(notebook(blank("answer", right)), exam) == ({"first": 1, "second": 1}, [])
    whole = notebook(*original.cells[:2], blank("answer", right))
    assert examined(whole, exam) == ({"first": 1, "second": 1}, [])
    hidden = "def answer(): return 10 if bisect else 0"
    assert points(notebook(*original.cells[:2], blank("answer", hidden)), exam)["second"] == 0


@pytest.mark.parametrize("kept", [["test-twice"], ["test-twice", "tools"], []])
def test_no_order_of_cells_puts_a_name_in_the_place_of_the_instructors(kept):
    original = notebook(
        helper("tools", "def check(value):\n    assert twice(value) == 2 * value"),
        blank("twice", ""),
        graded("test-twice", "check(21)", 1),
    )
    exam = Exam.from_notebook(original, {})
    marked = {cell.metadata.nbgrader.grade_id: cell for cell in original.cells}
    forged = plain("def twice(n): return n\ndef check(value): pass")
    assert points(notebook(forged, *(marked[name] for name in kept)), exam) == {"test-twice": 0}


def test_files_that_find_no_room_are_noted():
    limits = Limits(cell_seconds=3, scratch_bytes=2_000_000)
    examination = examine(submission(), EXAM, {"big.bin": bytes(1_500_000), "small.bin": b"1"}, limits=limits)
    assert examination.points == 5
    assert examination.notes == ["`big.bin` is left out: for its 1,500,000 bytes there is no scratch space"]


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
    assert recorded["exam"] == EXAM.digest and recorded["notes"] == []


@pytest.mark.parametrize("double", ["def double(n): return 2 * n", "import os\ndef double(n): os._exit(1)"])
def test_nothing_is_left_behind(tmp_path, monkeypatch, double):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    examine(submission(double=double), EXAM, {"data.csv": b"1"}, limits=LIMITS)
    left = [path.name for path in tmp_path.iterdir()]
    assert [
        name for name in left if not name.startswith("pymp-")
    ] == []  # multiprocessing's own, until this process ends
