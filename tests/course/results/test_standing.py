"""Where candidates stand over the course."""

import pytest

from course.card import Card, PassMark
from course.results.rows import NO_SUBMISSION, NOT_GRADED, NOT_SCORED, Exercise, Question, Row
from course.results.standing import course_mark, standings


def question(name, number=1, tests=(10,), rubric=20, **passes):
    """A question with marks such as mid=(12, 60): rubric points and percent of the code points."""
    marks = {level: PassMark(*mark) for level, mark in passes.items()}
    card = Card(number, name, "", "", tuple(marks), (), {}, (), marks) if marks else None
    auto = {f"{name}{place}": (name, f"test-{place}", points) for place, points in enumerate(tests)}
    return Question(name, card, auto, {f"{name}-r": rubric})


BOTH = question("q01_both", mid=(12, 60), senior=(16, 80))
SENIOR = question("q02_senior", 2, senior=(10, 50))
MID = question("q03_mid", 3, mid=(10, 50))


def result(of, code, rubric, student="ann", **more):
    return Row(
        student, of, exercises=(Exercise("test-0", code, 10, "" if code == 10 else "why"),), rubric=rubric, **more
    )


@pytest.mark.parametrize(
    "rows, level, missing",
    [
        ([result(BOTH, 8, 16), result(SENIOR, 5, 10), result(MID, 5, 10)], "senior", ""),
        (
            [result(BOTH, 6, 12), result(SENIOR, 0, 0), result(MID, 5, 10)],
            "mid",
            "14 rubric points and 7 code points to senior",
        ),
        ([result(BOTH, 10, 20), result(SENIOR, 0, 10), result(MID, 8, 10)], "senior", ""),  # strong makes up for weak
        ([result(BOTH, 5, 12), result(SENIOR, 10, 20), result(MID, 5, 10)], "below mid", "1 code points to mid"),
        (
            [result(BOTH, 6, 12), Row("ann", MID, status=NO_SUBMISSION)],
            "below mid",
            "10 rubric points and 5 code points to mid",
        ),
        ([result(BOTH, 6, 12), result(MID, 5, None)], NOT_SCORED, "10 rubric points to mid"),
        ([result(BOTH, 2, 12), result(MID, 5, None)], "below mid", "10 rubric points and 4 code points to mid"),
        ([result(BOTH, 8, 12), result(SENIOR, 9, None)], "mid so far", "14 rubric points to senior"),
        (
            [result(BOTH, 6, 12), Row("ann", SENIOR, status=NOT_GRADED)],
            "mid so far",
            "14 rubric points and 7 code points to senior",
        ),
        (
            [result(BOTH, 8, 16), result(MID, 5, 10), result(question("notes"), 0, 0)],
            "senior",
            "",
        ),  # no marks: not counted
        ([result(question("notes"), 10, 20)], "-", ""),
    ],
)
def test_level_over_the_course_is_the_sum_of_the_marks(rows, level, missing):
    (standing,) = standings(rows)
    assert (standing.level, standing.missing) == (level, missing)


def test_marks_over_the_course_and_questions_passed():
    assert course_mark([BOTH, SENIOR, MID], "mid") == PassMark(22, 11)
    assert course_mark([BOTH, SENIOR, MID], "senior") == PassMark(36, 18)
    rows = [result(BOTH, 8, 16), result(SENIOR, 0, 10), result(MID, 5, None)]
    (standing,) = standings(rows)
    assert standing.passed == {"mid": (1, 2), "senior": (1, 2)} and standing.open == 1


def test_rounded_sums_do_not_cost_a_level():
    third = question("q01_thirds", tests=(0.1, 0.2), mid=(0, 100))
    row = Row("ann", third, exercises=(Exercise("a", 0.1, 0.1), Exercise("b", 0.2, 0.2)), rubric=0.0)
    assert standings([row])[0].level == "mid"
