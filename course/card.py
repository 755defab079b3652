"""The card of a question: whom it is for, how long it takes, and what it takes to pass.

A card stands in the notebook's metadata under `course`, so that it travels with the notebook.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import nbformat

LEVELS = ("junior", "mid", "senior", "staff", "principal")  # ascending
_KEYS = {
    "number": int,
    "title": str,
    "category": str,
    "difficulty": str,
    "levels": list,
    "companies": list,
    "minutes": Mapping,
    "prerequisites": list,
    "pass": Mapping,
}


class CardError(ValueError):
    """A notebook's card is missing, incomplete or contradicts itself."""


@dataclass(frozen=True)
class PassMark:
    """What one level asks for: points of the rubric, and percent of the code points."""

    rubric: float
    autograded: float


@dataclass(frozen=True)
class Card:
    """The card of one question; `passes` maps each level, in ascending order, to its marks."""

    number: int
    title: str
    category: str
    difficulty: str
    levels: tuple[str, ...]
    companies: tuple[str, ...]
    minutes: dict[str, int]
    prerequisites: tuple[str, ...]
    passes: dict[str, PassMark]

    def level(self, rubric: float | None, code_percent: float) -> str | None:
        """Return the highest level whose two marks are met, or None.

        `rubric` is in points, None where the rubric is not scored yet (then no level is reached yet);
        `code_percent` is the percentage of the code points, 0 to 100.

        >>> marks = {"mid": PassMark(12, 60), "senior": PassMark(18, 80)}
        >>> card = Card(90, "Sample", "Technical", "Mid", ("mid", "senior"), (), {"talk": 15, "code": 30}, (), marks)
        >>> card.level(20, 75), card.level(18, 80), card.level(11, 100), card.level(None, 100)
        ('mid', 'senior', None, None)
        """
        if rubric is None:
            return None
        met = [name for name, mark in self.passes.items() if rubric >= mark.rubric and code_percent >= mark.autograded]
        return met[-1] if met else None


def read_card(notebook: nbformat.NotebookNode | Path | str) -> Card:
    """Return the card of a notebook (given as a node, or as the path of an .ipynb file).

    Raises CardError where the card is missing, lacks a key, has a wrong type or order of levels, or where
    a pass mark lies above what the notebook's rubric cells give.
    """
    if not isinstance(notebook, nbformat.NotebookNode):
        notebook = nbformat.read(notebook, as_version=4)
    raw = notebook.metadata.get("course")
    if not isinstance(raw, Mapping) or "number" not in raw:
        raise CardError("the notebook's metadata has no card (key 'course')")
    card = _parse(raw)
    _check_total(card, rubric_total(notebook))
    return card


def rubric_total(notebook: nbformat.NotebookNode) -> float:
    """Return the points of the notebook's rubric: its task cells."""
    marks = (cell.metadata.get("nbgrader", {}) for cell in notebook.cells)
    return sum(float(mark.get("points", 0)) for mark in marks if mark.get("task"))


def _parse(raw: Mapping) -> Card:
    missing = [key for key in _KEYS if key not in raw]
    if missing:
        raise CardError(f"the card lacks {', '.join(missing)}")
    for key, kind in _KEYS.items():
        if not isinstance(raw[key], kind) or isinstance(raw[key], bool):
            raise CardError(f"the card's {key} is {raw[key]!r}, not a {kind.__name__}")
    _check_minutes(raw["minutes"])
    fields = {key: tuple(map(str, raw[key])) if kind is list else raw[key] for key, kind in _KEYS.items()}
    fields["minutes"] = dict(fields["minutes"])
    passes = fields.pop("pass")
    _check_levels(fields["levels"], tuple(passes))
    # A notebook file sorts its keys by name, so the order of the levels is taken from LEVELS.
    passes = {level: _mark(level, passes[level]) for level in sorted(passes, key=LEVELS.index)}
    _check_passes(passes)
    return Card(passes=passes, **fields)


def _check_minutes(raw: Mapping) -> None:
    if set(raw) != {"talk", "code"}:
        raise CardError(f"the card's minutes are {dict(raw)!r}, not {{talk: MINUTES, code: MINUTES}}")
    for part, minutes in raw.items():
        if isinstance(minutes, bool) or not isinstance(minutes, int) or minutes <= 0:
            raise CardError(f"the card's minutes for {part} are {minutes!r}, not a whole number above 0")


def _mark(level: str, raw: Mapping) -> PassMark:
    if not isinstance(raw, Mapping) or set(raw) != {"rubric", "autograded"}:
        raise CardError(f"the pass mark of {level} is {raw!r}, not {{rubric: POINTS, autograded: PERCENT}}")
    for key, value in raw.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise CardError(f"the pass mark {key} of {level} is {value!r}, not a number from 0")
    if raw["autograded"] > 100:
        raise CardError(f"the pass mark autograded of {level} is {raw['autograded']} percent, above 100")
    return PassMark(raw["rubric"], raw["autograded"])


def _check_levels(levels: tuple[str, ...], passes: tuple[str, ...]) -> None:
    for name in levels + passes:
        if name not in LEVELS:
            raise CardError(f"the card has the unknown level {name!r}; known are {', '.join(LEVELS)}")
    if not levels or list(levels) != sorted(set(levels), key=LEVELS.index):
        raise CardError(f"the card's levels must be in ascending order, not {', '.join(levels) or 'none'}")
    if not passes or set(passes) - set(levels):
        raise CardError(f"the card's pass has {', '.join(passes) or 'no level'}, its levels are {', '.join(levels)}")


def _check_passes(passes: dict[str, PassMark]) -> None:
    for (low, lower), (high, higher) in pairwise(passes.items()):
        if higher.rubric < lower.rubric or higher.autograded < lower.autograded:
            raise CardError(f"the pass mark of {high} asks for less than that of {low}: {higher} after {lower}")


def _check_total(card: Card, total: float) -> None:
    for level, mark in card.passes.items():
        if mark.rubric > total:
            raise CardError(
                f"the pass mark of {level} is {mark.rubric:g} rubric points, but the rubric cells give {total:g}"
            )
