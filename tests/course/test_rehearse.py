"""The rehearsal gives each sample answer what it deserves, and can fail."""

import io

import pytest
from rich.console import Console

from course.answers import Answer
from course.cli import ROOT
from course.question import is_test, read_source
from course.rehearse import MODEL, UNTOUCHED, concerned_tests, grade_id_of, kill_table, rehearse, with_tests

NAME = "q90_sample"


@pytest.fixture
def rehearsed(sample_course, sample_source, tmp_path):
    def rehearsed(**answers: str) -> dict[str, str]:
        folder = tmp_path / "answers" / NAME
        folder.mkdir(parents=True)
        for name, text in answers.items():
            (folder / f"{name}.py").write_text(text)
        results = rehearse(
            NAME, source_dir=sample_source, release_dir=sample_course / "release", answers_dir=folder.parent
        )
        console = Console(width=300, record=True, file=io.StringIO())
        console.print(kill_table(NAME, results))
        table = console.export_text()
        assert all(result.answer.name in table for result in results)
        assert ("WRONG" in table) == any(result.problem for result in results)
        return {result.answer.name: result.problem for result in results}

    return rehearsed


def test_what_is_as_it_must_be_has_no_problem(rehearsed):
    problems = rehearsed(
        right_format='# fails:\n"""Formats."""\n# %% ones\ndef ones(n): return f"{n:b}".count("1")\n',
        wrong_zeros='# fails: test-ones, test-ones-hidden\n# says: two ones\n"""Zeros."""\n# %% ones\n'
        'def ones(n): return bin(n).count("1") + 1\n',
    )
    assert problems == {MODEL: "", UNTOUCHED: "", "right_format": "", "wrong_zeros": ""}


def test_a_wrong_answer_that_passes_and_a_right_one_that_fails_are_problems(rehearsed):
    problems = rehearsed(
        wrong_but_right='# fails: test-ones\n"""Is right."""\n# %% ones\ndef ones(n): return bin(n).count("1")\n',
        right_but_wrong='# fails:\n"""Is wrong."""\n# %% ones\ndef ones(n): return 2\n',
        wrong_unnamed='# fails: test-ones, test-ones-hidden\n# says: zeros\n"""Zeros."""\n# %% ones\n'
        'def ones(n): return bin(n).count("1") + 1\n',
    )
    assert problems["wrong_but_right"] == "passes test-ones"
    assert problems["right_but_wrong"] == "fails test-ones-hidden: every digit of 2**80 - 1 is a one"
    assert problems["wrong_unnamed"].startswith("no message says 'zeros'")


def test_an_answer_sits_the_exercises_that_it_fills_in_and_those_that_it_must_fail():
    notebook = read_source(ROOT / "source/q06_block_quantization/q06_block_quantization.py")
    answer = Answer("wrong", "", frozenset({"test-gemv"}), "", {"q4_0": "pass"})
    assert concerned_tests(notebook, answer) == {"test-q4_0", "test-gemv"}
    kept = with_tests(notebook, {"test-q4_0"})
    assert [grade_id_of(cell) for cell in kept.cells if is_test(cell)] == ["test-q4_0"]
    assert [cell for cell in notebook.cells if not is_test(cell)] == [cell for cell in kept.cells if not is_test(cell)]
