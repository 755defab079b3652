"""Sample answers: how a file is read, and how it fills in a notebook."""

import pytest

from course.answers import fill_in, model_cells, read_answer, read_answers
from course.question import read_source

WRONG = '''# fails: test-ones, test-ones-hidden
# says: two ones
"""Counts zeros
instead of ones."""
import math
# %% ones
def ones(n):
    # %%not a section
    return bin(n).count("0")
# %% width
def width(n):
    return 1
'''


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_an_answer_says_what_it_fails_and_why(write):
    answer = read_answer(write("wrong_zeros.py", WRONG))
    assert (answer.name, answer.idea, answer.says) == ("wrong_zeros", "Counts zeros instead of ones.", "two ones")
    assert answer.fails == {"test-ones", "test-ones-hidden"} and not answer.is_right
    assert list(answer.cells) == ["ones", "width"] and "not a section" in answer.cells["ones"]


def test_right_answers_come_first(write, tmp_path):
    write("wrong_zeros.py", WRONG)
    write("right_loop.py", '# fails:\n"""A loop."""\n# %% ones\ndef ones(n): ...\n')
    assert [answer.is_right for answer in read_answers(tmp_path)] == [True, False]


@pytest.mark.parametrize(
    "missing", ["# fails: test-ones, test-ones-hidden\n", '"""Counts zeros\ninstead of ones."""\n']
)
def test_an_incomplete_answer_is_refused(write, missing):
    with pytest.raises(ValueError, match="an answer needs a line"):
        read_answer(write("wrong.py", WRONG.replace(missing, "")))


def test_fill_in_replaces_solution_cells_only(sample_source):
    original = read_source(sample_source / "q90_sample" / "q90_sample.py")
    filled = fill_in(original, {"ones": "def ones(n): return 0"})
    changed = [new.source for old, new in zip(original.cells, filled.cells, strict=True) if old != new]
    assert changed == ["def ones(n): return 0"]
    assert set(model_cells(original)) == {"width", "ones"}
    with pytest.raises(KeyError, match="test-ones"):
        fill_in(original, {"test-ones": "assert True"})
