"""Bit allocation against every choice there is."""

import itertools
import random

import pytest

from quant_kernels.methods.allocation import Option, allocate, allocate_exactly, lower_hull

SIZES = {"2": 2.6, "3": 3.4, "4": 4.5, "6": 6.6, "8": 8.5}  # bits per weight


def case(seed, tensors=5, options=4):
    """Tensors of several sizes with random options, some of them worse than others in all respects."""
    rng = random.Random(seed)
    return {
        f"t{i}": [
            Option(str(k), rng.randint(1, 40), rng.choice([rng.random() * 10, 0.0, -0.1])) for k in range(options)
        ]
        for i in range(tensors)
    }


def every_choice(options, budget):
    """The least damage within the budget, by trying all."""
    sums = (
        (sum(option.size for option in choice), sum(option.damage for option in choice))
        for choice in itertools.product(*options.values())
    )
    return min(damage for size, damage in sums if size <= budget)


def budgets(options):
    low = sum(min(option.size for option in choices) for choices in options.values())
    high = sum(max(option.size for option in choices) for choices in options.values())
    return {low, low + 1, (low + high) // 2, (low + 3 * high) // 4, high, high + 100}


@pytest.mark.parametrize("seed", range(30))
def test_exact_is_the_best_of_all_and_greedy_within_its_bound(seed):
    options = case(seed)
    for budget in budgets(options):
        least = every_choice(options, budget)
        exact, greedy = allocate_exactly(options, budget), allocate(options, budget)
        for result in (exact, greedy):
            assert result.size <= budget
            assert all(option in options[name] for name, option in result.choice.items())
            assert list(result.choice) == list(options)
        assert exact.damage == pytest.approx(least, abs=1e-9)
        assert greedy.bound - 1e-9 <= least <= greedy.damage + 1e-9
        gains = [a.damage - b.damage for c in options.values() for a, b in itertools.pairwise(lower_hull(c))]
        assert greedy.damage - greedy.bound <= max(gains, default=0.0) + 1e-9


def test_gets_all_that_the_budget_is_worth_on_average():
    excess = []
    for seed in range(30):
        options = case(seed, tensors=40)
        budget = sorted(budgets(options))[2]
        result = allocate(options, budget)
        start = sum(lower_hull(choices)[0].damage for choices in options.values())
        excess.append((result.damage - result.bound) / (start - result.bound))
    assert max(excess) < 0.02


def test_beats_the_same_bits_for_all():
    rng = random.Random(0)
    rows = {f"t{i}": (rng.choice([1, 4, 16]) * 1024, rng.lognormvariate(0, 1.5)) for i in range(30)}
    options = {
        name: [Option(bits, int(n * bpw / 8), sensitivity * n * 4.0**-bpw) for bits, bpw in SIZES.items()]
        for name, (n, sensitivity) in rows.items()
    }
    for k in range(1, len(SIZES)):
        uniform = [choices[k] for choices in options.values()]
        budget, damage = sum(option.size for option in uniform), sum(option.damage for option in uniform)
        result = allocate(options, budget)
        assert result.size <= budget
        assert result.damage < 0.8 * damage or k == len(SIZES) - 1
    assert {option.name for option in result.choice.values()} == {"8"}  # a budget for the best is spent on the best


def test_the_hull_leaves_out_what_is_never_worth_its_bytes():
    small, above, middle, equal, worse = (
        *(Option("small", 1, 10.0), Option("above", 2, 9.5), Option("middle", 3, 2.0)),
        *(Option("equal", 3, 3.0), Option("worse", 9, 2.0)),
    )
    assert lower_hull([worse, above, equal, middle, small]) == [small, middle]


def test_between_two_options_of_one_size_the_better_is_taken():
    options = {"t": [Option("a", 5, 2.0), Option("b", 5, 1.0)]}
    assert allocate(options, 5).choice["t"].name == allocate_exactly(options, 5).choice["t"].name == "b"


@pytest.mark.parametrize("solve", [allocate, allocate_exactly])
def test_other_input_is_refused(solve):
    options = {"a": [Option("x", 7, 1.0), Option("y", 9, 0.0)], "b": [Option("x", 5, 1.0)]}
    with pytest.raises(ValueError, match="budget of 11 bytes is below 12"):
        solve(options, 11)
    with pytest.raises(ValueError, match="budget of nan bytes"):
        solve(options, float("nan"))
    with pytest.raises(ValueError, match="c has no options"):
        solve(options | {"c": []}, 100)
    with pytest.raises(ValueError, match="b's option z has size 5 and damage nan"):
        solve(options | {"b": [Option("z", 5, float("nan"))]}, 100)
    with pytest.raises(ValueError, match="size -1"):
        solve(options | {"b": [Option("z", -1, 0.0)]}, 100)
    assert solve({}, 0).damage == 0
