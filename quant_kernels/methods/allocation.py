"""Bit allocation: which of several formats each tensor gets, so that the whole fits a budget with the least damage.

Shoham and Gersho, Efficient Bit Allocation for an Arbitrary Set of Quantizers (1988): Lagrange multipliers on the lower
convex hull of each tensor's options. Left out: that damages of several tensors do not quite add up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite


@dataclass(frozen=True)
class Option:
    """One format for one tensor: its size in bytes, and the damage that it does, in any unit that adds up."""

    name: str
    size: int
    damage: float


@dataclass(frozen=True)
class Allocation:
    """An option for each tensor, their sums, and a damage that no choice within the budget falls below."""

    choice: dict[str, Option]
    bound: float

    @property
    def size(self) -> int:
        return sum(option.size for option in self.choice.values())

    @property
    def damage(self) -> float:
        return sum(option.damage for option in self.choice.values())


def allocate(options: Mapping[str, Sequence[Option]], budget: int) -> Allocation:
    """Chooses an option for each tensor: the steps up that save most damage per byte, as long as they fit.

    options: the tensors' names to what each may become. budget: bytes for all. The steps lie on the lower convex hull
    of each tensor's options, where each saves less per byte than the one before. The result's damage exceeds the least
    possible by at most what the first step that does not fit would have saved.
    Raises ValueError for a budget below the sum of the smallest options, a tensor without options, or a damage that is
    no number.

    >>> formats = {"wide": [Option("Q4_0", 4, 9.0), Option("Q8_0", 8, 1.0)],
    ...            "tall": [Option("Q4_0", 4, 3.0), Option("Q8_0", 8, 0.0)]}
    >>> best = allocate(formats, budget=13)
    >>> {name: option.name for name, option in best.choice.items()}, best.size, best.damage, best.bound
    ({'wide': 'Q8_0', 'tall': 'Q4_0'}, 12, 4.0, 3.25)
    """
    check(options, budget)
    hulls = {name: lower_hull(choices) for name, choices in options.items()}
    choice = {name: hull[0] for name, hull in hulls.items()}
    spare = budget - sum(option.size for option in choice.values())
    damage, bound = sum(option.damage for option in choice.values()), None
    steps = [(name, *pair) for name, hull in hulls.items() for pair in pairwise(hull)]
    for name, before, after in sorted(steps, key=lambda step: -saving(step[1], step[2])):  # stable: hulls stay in order
        cost = after.size - before.size
        if cost <= spare and choice[name] is before:
            choice[name], spare, damage = after, spare - cost, damage + after.damage - before.damage
        elif bound is None:  # with a part of this step, as if there were such, the budget is spent best
            bound = damage - spare * saving(before, after)
    return Allocation(choice, damage if bound is None else bound)


def lower_hull(options: Sequence[Option]) -> list[Option]:
    """The options on the lower convex hull of (size, damage), from the smallest to the least damage."""
    hull: list[Option] = []
    for option in sorted(options, key=lambda option: (option.size, option.damage)):
        if hull and option.damage >= hull[-1].damage:
            continue  # larger and no better
        while len(hull) > 1 and saving(hull[-2], hull[-1]) < saving(hull[-1], option):
            hull.pop()
        hull.append(option)
    return hull


def saving(before: Option, after: Option) -> float:
    """Damage saved per byte."""
    return (before.damage - after.damage) / (after.size - before.size)


def allocate_exactly(options: Mapping[str, Sequence[Option]], budget: int) -> Allocation:
    """As `allocate`, with the least damage possible, by dynamic programming over the sizes that sums can have.

    For few tensors or few different sizes: time and memory grow with the number of sums that none is better than.
    """
    check(options, budget)
    rest = minimum(options)
    states = [(0, 0.0, None)]  # size, damage, and the way there: (way before, option)
    for choices in options.values():
        rest -= min(option.size for option in choices)
        sums = [
            (size + option.size, damage + option.damage, (way, option))
            for size, damage, way in states
            for option in choices
            if size + option.size + rest <= budget
        ]
        states = undominated(sums)
    _, damage, way = states[-1]
    chosen = []
    while way is not None:
        way, option = way
        chosen.append(option)
    return Allocation(dict(zip(options, reversed(chosen), strict=True)), damage)


def undominated(sums: list[tuple]) -> list[tuple]:
    """Those with less damage than all that are as small, by size."""
    kept: list[tuple] = []
    for state in sorted(sums, key=lambda state: state[:2]):
        if not kept or state[1] < kept[-1][1]:
            kept.append(state)
    return kept


def minimum(options: Mapping[str, Sequence[Option]]) -> int:
    return sum(min(option.size for option in choices) for choices in options.values())


def check(options: Mapping[str, Sequence[Option]], budget: int) -> None:
    for name, choices in options.items():
        if not choices:
            raise ValueError(f"{name} has no options")
        for option in choices:
            if not isfinite(option.damage) or option.size < 0:
                raise ValueError(f"{name}'s option {option.name} has size {option.size} and damage {option.damage}")
    if not budget >= minimum(options):
        raise ValueError(f"a budget of {budget} bytes is below {minimum(options)}, the sum of the smallest options")
