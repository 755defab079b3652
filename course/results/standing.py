"""Where a candidate stands over the whole course: totals, questions passed at each level, and the level reached.

The marks of a level over the course are the sums of the questions' marks, so that a strong question makes up for a weak
one: rubric points, and the code points that the percentages ask for. A question asks for a level by its mark for it, or
else by its highest mark below it (a question that ends at mid asks a senior for mid); one whose lowest mark is above
the level does not count for it. Counted are the questions that anybody handed in. What a candidate did not hand in, and
what is not graded or not scored yet, gives no points; the latter is counted as open. A level is reached when its two
marks and those of all lower levels are met; "so far" stands after it while what is open can still give the next one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby

from ..card import LEVELS, PassMark
from .rows import NO_SUBMISSION, NOT_SCORED, Question, Row

_TOLERANCE = 1e-9  # sums of points are rounded


@dataclass(frozen=True)
class Standing:
    """One candidate over the course; `rows` are the results, one for each question."""

    rows: tuple[Row, ...]
    level: str = "-"  # as it is printed; "-" where no question has marks
    missing: str = ""  # to the next level

    @property
    def student(self) -> str:
        return self.rows[0].student

    @property
    def candidate(self) -> str:
        """The id, fit to be shown."""
        return self.rows[0].candidate

    @property
    def code(self) -> float:
        """Code points reached."""
        return sum(row.code for row in self.rows)

    @property
    def max_code(self) -> float:
        """Code points that the questions give."""
        return sum(row.question.max_code for row in self.rows)

    @property
    def rubric(self) -> float:
        """Rubric points reached so far."""
        return sum(row.rubric or 0.0 for row in self.rows)

    @property
    def max_rubric(self) -> float:
        """Rubric points that the questions give."""
        return sum(row.question.max_rubric for row in self.rows)

    @property
    def open(self) -> int:
        """How many questions are handed in, but not graded or not scored yet."""
        return sum(row.total is None and row.status != NO_SUBMISSION for row in self.rows)

    @property
    def passed(self) -> dict[str, tuple[int, int]]:
        """Level -> how many questions were passed at it, and how many have a mark for it; ascending."""
        counts = {}
        for level in _levels(self.rows):
            asking = [row for row in self.rows if row.question.card and level in row.question.card.passes]
            counts[level] = sum(_reaches(row, level) for row in asking), len(asking)
        return counts

    @property
    def passed_text(self) -> str:
        """The questions passed, as they are printed."""
        return ", ".join(f"{level} {passed} of {asking}" for level, (passed, asking) in self.passed.items())


def standings(rows: Iterable[Row]) -> list[Standing]:
    """Return where each candidate stands; `rows` are sorted by student."""
    return [_standing(tuple(group)) for _, group in groupby(rows, key=lambda row: row.student)]


def course_mark(questions: Iterable[Question], level: str) -> PassMark:
    """Return the marks of a level over questions; `autograded` is in code points here, not in percent."""
    rubric = code = 0.0
    for question in questions:
        mark = _mark(question, level)
        if mark:
            rubric += mark.rubric
            code += mark.autograded / 100 * question.max_code
    return PassMark(rubric, code)


def _standing(rows: tuple[Row, ...]) -> Standing:
    levels = _levels(rows)
    reached, missing, can_rise = "", "", False
    for level in levels:
        missing = _missing(rows, level, Row.earned)
        if missing:
            can_rise = not _missing(rows, level, Row.attainable)
            break
        reached = level
    if not levels:
        return Standing(rows)
    if reached:
        return Standing(rows, f"{reached} so far" if can_rise else reached, missing)
    return Standing(rows, NOT_SCORED if can_rise else f"below {levels[0]}", missing)


def _missing(rows: tuple[Row, ...], level: str, points: Callable[[Row], tuple[float, float]]) -> str:
    """Return what a candidate lacks to a level; empty if nothing. `points` gives code and rubric points of a row."""
    mark = course_mark((row.question for row in rows), level)
    counted = [points(row) for row in rows if _mark(row.question, level)]
    code = mark.autograded - sum(code for code, _ in counted)
    rubric = mark.rubric - sum(rubric for _, rubric in counted)
    lacking = [(rubric, "rubric"), (code, "code")]
    parts = [f"{points:.4g} {kind} points" for points, kind in lacking if points > _TOLERANCE]
    return f"{' and '.join(parts)} to {level}" if parts else ""


def _levels(rows: Iterable[Row]) -> list[str]:
    known = {level for row in rows if row.question.card for level in row.question.card.passes}
    return sorted(known, key=LEVELS.index)


def _mark(question: Question, level: str) -> PassMark | None:
    passes = question.card.passes if question.card else {}
    below = [mark for name, mark in passes.items() if LEVELS.index(name) <= LEVELS.index(level)]
    return below[-1] if below else None


def _reaches(row: Row, level: str) -> bool:
    return row.level in LEVELS and LEVELS.index(row.level) >= LEVELS.index(level)
