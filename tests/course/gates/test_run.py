"""Faults of model answers that run, and of the experiment."""

import pytest

from course.gates import run
from course.gates.run import check_experiment, check_run

from .faulty import NAME, load, path_of, problems, replace


@pytest.mark.parametrize(
    ("old", "new", "messages"),
    [
        ('# %% tags=["experiment"]', "# %%", ["without the tag experiment", "has no experiment cell"]),
        (
            '# %% nbgrader={"grade": true, "solution": false, "locked": true, "task": false, "points": 4,',
            '# %% tags=["experiment"] nbgrader={"grade": true, "solution": false, "locked": true, "task": false,'
            ' "points": 4,',
            ["is graded"],
        ),
    ],
)
def test_fault_of_an_experiment_is_found(sample_course, old, new, messages):
    found = problems(check_experiment, sample_course, old, new)
    assert len(found) == len(messages) and all(text in line for text, line in zip(messages, found, strict=True))


def test_cells_after_the_experiment_need_no_tag(sample_course):
    path = path_of(sample_course, "source", ".py")
    path.write_text(path.read_text() + "\n# %% [markdown]\n# ## Later\n\n# %%\nx = 1\n")
    assert check_experiment(load(sample_course)) == []


def test_run_finds_errors_and_stderr(sample_course):
    path = path_of(sample_course, "source", ".py")
    replace(path, "while n:", "while n > 1:")  # a wrong model answer
    replace(path, "assert ones(5) == 2", "import warnings; warnings.warn('old'); assert ones(5) == 2")
    found = check_run(load(sample_course))
    assert [problem.split(": ")[0] for problem in found] == [f"{NAME}, cell test-width", f"{NAME}, cell test-ones"]
    assert "AssertionError: 5 is 101, three digits" in found[0] and "writes to stderr" in found[1]


def test_run_finds_slow_test_cells(sample_course, monkeypatch):
    monkeypatch.setattr(run, "TEST_SECONDS", 0.0)
    found = check_run(load(sample_course))
    slow = ["test-width", "test-ones", "test-ones-hidden"]
    assert [problem.split(": ")[0] for problem in found] == [f"{NAME}, cell {cell}" for cell in slow]
    assert all("more than 0 s" in problem for problem in found)


def test_run_finds_a_notebook_that_never_ends(sample_course, monkeypatch):
    monkeypatch.setattr(run, "CELL_SECONDS", 1)
    (found,) = problems(check_run, sample_course, "digits = 0\n", "digits = 0\n    while True: pass\n")
    assert "do not run" in found
