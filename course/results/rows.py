"""The result of one candidate for one question: points, reasons, notes, and the level reached."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..card import Card
from ..plain_text import clean

GRADED, NOT_GRADED, NO_SUBMISSION = "graded", "not graded", "no submission"
NOT_SCORED = "not scored yet"


@dataclass(frozen=True)
class Exercise:
    """The points of one test cell, and why some are missing; full points have no message."""

    name: str
    points: float
    max_points: float
    message: str = ""


@dataclass(frozen=True)
class Question:
    """What the gradebook and the release say about an assignment."""

    name: str
    card: Card | None = None
    auto: Mapping[str, tuple[str, str, float]] = field(default_factory=dict)  # cell id -> notebook, grade_id, points
    manual: Mapping[str, float] = field(default_factory=dict)  # cell id -> points

    @property
    def title(self) -> str:
        return f"{self.card.number}. {self.card.title}" if self.card else clean(self.name)

    @property
    def label(self) -> str:
        """A few letters that stand for the question where there is little room."""
        number = re.match(r"q\d+(?=_)", self.name)
        return number[0] if number else clean(self.name, 12)

    @property
    def max_code(self) -> float:
        """Code points that the question gives."""
        return sum(points for _, _, points in self.auto.values())

    @property
    def max_rubric(self) -> float:
        """Rubric points that the question gives."""
        return sum(self.manual.values())

    def level(self, code: float, rubric: float | None) -> str:
        """Return the level reached with these points, as it is printed."""
        if self.card is None:
            return "-"
        if rubric is None:
            return NOT_SCORED
        percent = 100 * code / self.max_code if self.max_code else 100
        return self.card.level(rubric, percent) or f"below {next(iter(self.card.passes))}"


@dataclass(frozen=True)
class Row:
    """One candidate's result for one question; `rubric` is None while a rubric cell is not scored yet."""

    student: str  # the id, as it is
    question: Question
    team: str = ""  # the team that handed in, if it is group work
    status: str = GRADED
    reason: str = ""  # why it is not graded
    notes: tuple[str, ...] = ()  # what an instructor should look at
    exercises: tuple[Exercise, ...] = ()
    rubric: float | None = None
    penalty: float = 0.0  # for handing in late, as nbgrader took it off

    @property
    def candidate(self) -> str:
        """The id, fit to be shown in a line."""
        return clean(self.student).replace("\n", "\N{REPLACEMENT CHARACTER}")

    @property
    def is_graded(self) -> bool:
        """Whether the points say anything."""
        return self.status == GRADED

    @property
    def code(self) -> float:
        """Code points reached."""
        return sum(exercise.points for exercise in self.exercises)

    @property
    def total(self) -> float | None:
        """Code and rubric points without the penalty; None while they can still grow."""
        if not self.is_graded or self.rubric is None:
            return None
        return max(0.0, self.code + self.rubric - self.penalty)

    def earned(self) -> tuple[float, float]:
        """Return code and rubric points so far; the penalty does not count for levels."""
        return self.code, self.rubric or 0.0

    def attainable(self) -> tuple[float, float]:
        """Return code and rubric points if everything that is open turns out best."""
        if self.status == NOT_GRADED:
            return self.question.max_code, self.question.max_rubric
        is_open = self.is_graded and self.rubric is None
        return self.code, self.question.max_rubric if is_open else self.rubric or 0.0

    @property
    def rubric_text(self) -> str:
        """Rubric points as they are printed."""
        if not self.is_graded or not self.question.max_rubric:
            return "-"
        return NOT_SCORED if self.rubric is None else f"{self.rubric:g} / {self.question.max_rubric:g}"

    @property
    def level(self) -> str:
        """The level reached in this question; the penalty does not count."""
        return self.question.level(self.code, self.rubric) if self.is_graded else "-"

    @property
    def looks(self) -> tuple[str, ...]:
        """Everything that an instructor should look at: why it is not graded, and the notes."""
        return ((f"not graded: {self.reason}",) if self.status == NOT_GRADED else ()) + self.notes
