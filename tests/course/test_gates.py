"""Each gate passes on the sample question, and fails on the fault that it is there for."""

import json

import nbformat
import pytest

from course import gates
from course.gates import check_release, load_question

NAME = "q90_sample"


def path_of(course, step, suffix=".ipynb"):
    return course / step / NAME / f"{NAME}{suffix}"


def replace(path, old, new):
    text = path.read_text()
    assert old in text, old
    path.write_text(text.replace(old, new, 1))


def load(course):
    return load_question(NAME, source_dir=course / "source", course_dir=course)


def problems(gate, course, old, new, step="source"):
    """What a gate says when the sample's text, or the notebook made of it, is changed."""
    replace(path_of(course, step, ".py" if step == "source" else ".ipynb"), old, new)
    return gate(load(course))


def insert_line(course, grade_id, line):
    path = path_of(course, "release")
    notebook = nbformat.read(path, as_version=4)
    (cell,) = (cell for cell in notebook.cells if cell.id == grade_id)
    cell.source += f"\n{line}"
    nbformat.write(notebook, path)


def test_sample_passes_every_gate(built_once):
    assert check_release(None, source_dir=built_once / "source", course_dir=built_once) == []


def test_release_that_was_not_rebuilt_has_drifted(sample_course):
    replace(path_of(sample_course, "source", ".py"), "How many bits", "How many digits")
    found = check_release(["q90"], source_dir=sample_course / "source", course_dir=sample_course, run=False)
    assert found == [f"{NAME}/{NAME}.ipynb: differs from what the source gives; run `course build {NAME}`"]


def test_drift_sees_missing_and_foreign_files(sample_course):
    folder = sample_course / "release" / NAME
    (folder / "bits.svg").rename(folder / "helper.py")
    (sample_course / "release/q91_gone").mkdir()
    found = check_release(None, source_dir=sample_course / "source", course_dir=sample_course, run=False)
    assert found == [
        f"{NAME}/bits.svg: is missing in release/; run `course build {NAME}`",
        f"{NAME}/helper.py: is in release/ but the source does not give it",
        "q91_gone: is in release/ but has no source",
        f"{NAME}: release/ has the file helper.py, which is not beside the source",
    ]


def test_missing_or_broken_release_is_a_problem(sample_course):
    for content in ("{", None):
        path = path_of(sample_course, "release")
        path.write_text(content) if content else path.unlink()
        found = check_release(None, source_dir=sample_course / "source", course_dir=sample_course, run=False)
        assert len(found) == 2 and "cannot be read" in found[1]


def test_text_that_does_not_build_is_a_problem(sample_course):
    replace(path_of(sample_course, "source", ".py"), "    ### END SOLUTION", "")
    found = check_release(None, source_dir=sample_course / "source", course_dir=sample_course, run=False)
    assert [problem.split(":")[0] for problem in found] == ["cannot be built", NAME]


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        ("width", "    return digits"),
        ("width", "    while n:"),
        ("width", "    # n, digits = n // 2, digits + 1, in a comment"),
        ("ones", 'bin(n).count("1")  # return bin(n).count("1")'),
        ("test-width", "assert width(1000) == math.floor(math.log2(1000)) + 1"),
        ("test-ones-hidden", 'assert ones(2**80 - 1) == 80, "every digit of 2**80 - 1 is a one"'),
        ("rubric-depth", "**Middling (4):** says that fewer bits save memory."),
        ("model-answer", "A number n from 1 needs floor(log2(n)) + 1 digits."),
        ("width", "    ### BEGIN SOLUTION"),
        ("rubric-depth", "=== END MARK SCHEME ==="),
    ],
)
def test_leaked_line_is_found(sample_course, cell, line):
    insert_line(sample_course, cell, line)
    assert gates.check_leaks(load(sample_course))


@pytest.mark.parametrize("line", ["    import math", "raise NotImplementedError()", "`width(n)` is the name", ""])
def test_lines_of_the_visible_text_are_no_leak(sample_course, line):
    insert_line(sample_course, "width", line)
    assert gates.check_leaks(load(sample_course)) == []


def test_leak_in_metadata_or_beside_the_notebook_is_found(sample_course):
    secret = "assert width(0) == 0"
    path = path_of(sample_course, "release")
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.course.title = f'{secret}, "0 needs no digit"'
    nbformat.write(notebook, path)
    assert any(secret in problem for problem in gates.check_leaks(load(sample_course)))
    notebook.metadata.course.title = "a title"
    nbformat.write(notebook, path)
    (sample_course / "release" / NAME / "bits.svg").write_text(f'<!-- {secret}, "0 needs no digit" -->')
    assert any(secret in problem for problem in gates.check_leaks(load(sample_course)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("outputs", [{"output_type": "stream", "name": "stdout", "text": "3"}]),
        ("execution_count", 1),
        ("attachments", {"a.png": {"image/png": ""}}),
    ],
)
def test_outputs_counts_and_attachments_are_leaks(sample_course, key, value):
    path = path_of(sample_course, "release")
    raw = json.loads(path.read_text())
    cell = next(cell for cell in raw["cells"] if (cell["cell_type"] == "markdown") == (key == "attachments"))
    cell[key] = value
    path.write_text(json.dumps(raw))
    assert any(f"release/ carries {key}" in problem for problem in gates.check_leaks(load(sample_course)))


def test_hidden_test_that_is_not_hidden_is_found(sample_course):
    hidden = 'assert ones(2**80 - 1) == 80, "every digit of 2**80 - 1 is a one"'
    found = problems(gates.check_leaks, sample_course, 'assert ones(5) == 2, "5 is 101, two ones"', hidden)
    assert found == [f"{NAME}, cell test-ones-hidden: all that is cut out stands in the visible text too"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("raise NotImplementedError()", "pass", "width does not end in raise NotImplementedError"),
        ("raise NotImplementedError()", "raise ValueError()", "width does not end in raise NotImplementedError"),
        ("# YOUR CODE HERE", "if n: return 1", "width returns a value"),
        ("# YOUR CODE HERE", "return (", "is not Python"),
    ],
)
def test_blank_that_does_not_raise_is_found(sample_course, old, new, message):
    (found,) = problems(gates.check_blanks, sample_course, old, new, step="release")
    assert found.startswith(f"{NAME}, cell width: ") and message in found


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"points": 4,', '"points": 0,', "cell test-width: a test cell has 0 points"),
        ('"locked": true, "task": false, "points": 4', '"locked": false, "task": false, "points": 4', "is not locked"),
        ('assert ones(5) == 2, "5 is 101, two ones"', "ones(5) == 2", "cell test-ones: a test cell must be Python"),
        ('assert ones(5) == 2, "5 is 101, two ones"', "%time ones(5)", "cell test-ones: a test cell must be Python"),
        ("assert width(1000) == math.floor(math.log2(1000)) + 1", "width(1)", "cell test-width: a test cell must be"),
    ],
)
def test_fault_of_a_test_cell_is_found(sample_course, old, new, message):
    (found,) = problems(gates.check_tests, sample_course, old, new)
    assert message in found


def test_a_test_cell_may_end_in_the_points_that_it_has_counted(sample_course):
    old = 'assert ones(5) == 2, "5 is 101, two ones"'
    assert problems(gates.check_tests, sample_course, old, "points.earned") == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"grade_id": "test-ones"', '"grade_id": "test-width"', "Duplicate grade id: test-width"),
        ('"schema_version": 3', '"schema_version": 2', "nbgrader refuses its metadata"),
        ('"grade_id": "width",', "", "nbgrader refuses its metadata"),
    ],
)
def test_metadata_that_nbgrader_refuses_is_found(sample_course, old, new, message):
    found = problems(gates.check_tests, sample_course, old, new, step="release")
    assert message in found[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "# <details><summary>Hint 2: an approach</summary>",
            "# Halve.",
            "cell width: the exercise has 2 folded hints",
        ),
        ("# <details><summary>Hint 3</summary>", "# <details open><summary>", "cell ones: the exercise has 2 folded"),
        ('assert ones(5) == 2, "5 is 101, two ones"', "x = 1", "cell ones: the exercise has no visible test"),
        ('assert ones(2**80 - 1) == 80, "every digit of 2**80 - 1 is a one"', "x = 1", "has no hidden test"),
    ],
)
def test_exercise_that_lacks_something_is_found(sample_course, old, new, message):
    (found,) = problems(gates.check_exercises, sample_course, old, new)
    assert message in found


def test_a_drawing_that_would_be_broken_is_found(sample_course):
    drawing = "How many bits\n#\n# ```\n# {}\n# ```\n#"
    (found,) = problems(gates.check_width, sample_course, "How many bits", drawing.format("─" * 105))
    assert "a line between ``` has 105 characters, more than 104: ──" in found
    replace(path_of(sample_course, "source", ".py"), "─" * 105, "─" * 104)
    assert gates.check_width(load(sample_course)) == []


def test_hidden_tests_may_stand_in_a_block(sample_course):
    old = 'assert ones(2**80 - 1) == 80, "every digit of 2**80 - 1 is a one"'
    visible, hidden = "with points.part(1, 'one'):\n    assert ones(1) == 1\n", f"    {old}"
    region = f"### BEGIN HIDDEN TESTS\n{old}"
    assert problems(gates.check_exercises, sample_course, region, f"{visible}### BEGIN HIDDEN TESTS\n{hidden}") == []


def test_a_part_that_needs_what_another_part_defines_is_found(sample_course):
    old = 'assert ones(5) == 2, "5 is 101, two ones"'
    parts = (
        "points = Points()\nwith points.part(1, 'small'):\n    import math\n    five = 5\n    assert ones(five) == 2\n"
        "with points.part(1, 'large'):\n    assert ones({}) == 2\n"
    )
    (found,) = problems(gates.check_tests, sample_course, old, parts.format("five"))
    assert "the part 'large' uses five, which is missing where the part 'small' fails before it" in found
    replace(
        path_of(sample_course, "source", ".py"),
        "assert ones(five) == 2\nwith",
        "assert ones(five) == 2\nfive = 5\nwith",
    )
    assert gates.check_tests(load(sample_course)) == []


def test_notebook_without_an_exercise_is_found(sample_course):
    question = load(sample_course)
    question.source.cells = [cell for cell in question.source.cells if cell.cell_type == "markdown"]
    assert gates.check_exercises(question) == [f"{NAME}: has no exercise"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("**Weak (1):**", "**Poor (1):**", "cell rubric-depth: the mark scheme has no scored sample answer: weak"),
        ("**Weak (1):** repeats", "**Weak:** repeats", "no scored sample answer: weak"),
        ('"grade_id": "rubric-depth"', '"grade_id": "depth"', "begins with rubric-"),
        ('"points": 7, "grade_id": "rubric-depth"', '"points": 0, "grade_id": "rubric-depth"', "has 0 points"),
    ],
)
def test_fault_of_a_rubric_cell_is_found(sample_course, old, new, message):
    (found,) = problems(gates.check_rubric, sample_course, old, new)
    assert message in found


def test_missing_rubric_is_found(sample_course):
    question = load(sample_course)
    question.source.cells = [cell for cell in question.source.cells if not cell.id.startswith("rubric-")]
    assert gates.check_rubric(question) == [f"{NAME}: has no rubric cell"]


def test_missing_card_is_found(sample_course):
    assert problems(gates.check_card, sample_course, '"number": 90', '"num": 90', step="release") == [
        f"{NAME}: the notebook's metadata has no card (key 'course')"
    ]


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
    found = problems(gates.check_experiment, sample_course, old, new)
    assert len(found) == len(messages) and all(text in line for text, line in zip(messages, found, strict=True))


def test_cells_after_the_experiment_need_no_tag(sample_course):
    path = path_of(sample_course, "source", ".py")
    path.write_text(path.read_text() + "\n# %% [markdown]\n# ## Later\n\n# %%\nx = 1\n")
    assert gates.check_experiment(load(sample_course)) == []


def test_run_finds_errors_and_stderr(sample_course):
    path = path_of(sample_course, "source", ".py")
    replace(path, "while n:", "while n > 1:")  # a wrong model answer
    replace(path, "assert ones(5) == 2", "import warnings; warnings.warn('old'); assert ones(5) == 2")
    found = gates.check_run(load(sample_course))
    assert [problem.split(": ")[0] for problem in found] == [f"{NAME}, cell test-width", f"{NAME}, cell test-ones"]
    assert "AssertionError: 5 is 101, three digits" in found[0] and "writes to stderr" in found[1]


def test_run_finds_slow_test_cells(sample_course, monkeypatch):
    monkeypatch.setattr(gates, "TEST_SECONDS", 0.0)
    found = gates.check_run(load(sample_course))
    slow = ["test-width", "test-ones", "test-ones-hidden"]
    assert [problem.split(": ")[0] for problem in found] == [f"{NAME}, cell {cell}" for cell in slow]
    assert all("more than 0 s" in problem for problem in found)


def test_run_finds_a_notebook_that_never_ends(sample_course, monkeypatch):
    monkeypatch.setattr(gates, "CELL_SECONDS", 1)
    (found,) = problems(gates.check_run, sample_course, "digits = 0\n", "digits = 0\n    while True: pass\n")
    assert "do not run" in found
