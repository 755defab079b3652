"""Each gate on cells fails on the fault that it is there for."""

import pytest

from course.gates.cells import check_blanks, check_card, check_exercises, check_rubric, check_tests, check_width

from .faulty import NAME, load, path_of, problems, replace


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
    (found,) = problems(check_blanks, sample_course, old, new, step="release")
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
    (found,) = problems(check_tests, sample_course, old, new)
    assert message in found


def test_a_test_cell_may_end_in_the_points_that_it_has_counted(sample_course):
    old = 'assert ones(5) == 2, "5 is 101, two ones"'
    assert problems(check_tests, sample_course, old, "points.earned") == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"grade_id": "test-ones"', '"grade_id": "test-width"', "Duplicate grade id: test-width"),
        ('"schema_version": 3', '"schema_version": 2', "nbgrader refuses its metadata"),
        ('"grade_id": "width",', "", "nbgrader refuses its metadata"),
    ],
)
def test_metadata_that_nbgrader_refuses_is_found(sample_course, old, new, message):
    found = problems(check_tests, sample_course, old, new, step="release")
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
    (found,) = problems(check_exercises, sample_course, old, new)
    assert message in found


def test_a_drawing_that_would_be_broken_is_found(sample_course):
    drawing = "How many bits\n#\n# ```\n# {}\n# ```\n#"
    (found,) = problems(check_width, sample_course, "How many bits", drawing.format("─" * 105))
    assert "a line between ``` has 105 characters, more than 104: ──" in found
    replace(path_of(sample_course, "source", ".py"), "─" * 105, "─" * 104)
    assert check_width(load(sample_course)) == []


def test_hidden_tests_may_stand_in_a_block(sample_course):
    old = 'assert ones(2**80 - 1) == 80, "every digit of 2**80 - 1 is a one"'
    visible, hidden = "with points.part(1, 'one'):\n    assert ones(1) == 1\n", f"    {old}"
    region = f"### BEGIN HIDDEN TESTS\n{old}"
    assert problems(check_exercises, sample_course, region, f"{visible}### BEGIN HIDDEN TESTS\n{hidden}") == []


def test_a_part_that_needs_what_another_part_defines_is_found(sample_course):
    old = 'assert ones(5) == 2, "5 is 101, two ones"'
    parts = (
        "points = Points()\nwith points.part(1, 'small'):\n    import math\n    five = 5\n    assert ones(five) == 2\n"
        "with points.part(1, 'large'):\n    assert ones({}) == 2\n"
    )
    (found,) = problems(check_tests, sample_course, old, parts.format("five"))
    assert "the part 'large' uses five, which is missing where the part 'small' fails before it" in found
    replace(
        path_of(sample_course, "source", ".py"),
        "assert ones(five) == 2\nwith",
        "assert ones(five) == 2\nfive = 5\nwith",
    )
    assert check_tests(load(sample_course)) == []


def test_notebook_without_an_exercise_is_found(sample_course):
    question = load(sample_course)
    question.source.cells = [cell for cell in question.source.cells if cell.cell_type == "markdown"]
    assert check_exercises(question) == [f"{NAME}: has no exercise"]


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
    (found,) = problems(check_rubric, sample_course, old, new)
    assert message in found


def test_missing_rubric_is_found(sample_course):
    question = load(sample_course)
    question.source.cells = [cell for cell in question.source.cells if not cell.id.startswith("rubric-")]
    assert check_rubric(question) == [f"{NAME}: has no rubric cell"]


def test_missing_card_is_found(sample_course):
    assert problems(check_card, sample_course, '"number": 90', '"num": 90', step="release") == [
        f"{NAME}: the notebook's metadata has no card (key 'course')"
    ]
