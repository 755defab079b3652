"""The arithmetic that ggml's bytes depend on: roundings, orders, ties."""

import numpy as np
import torch

from quant_kernels.formats.search import (
    divide,
    first_extreme,
    first_minimum,
    inverse,
    mean_square,
    nearest,
    ordered_sum,
    round_half_away,
    sqrt,
)


def random_floats(*shape):
    return torch.from_numpy(np.random.default_rng(4).standard_normal(shape).astype(np.float32))


def test_division_is_rounded_once():
    x = random_floats(10_000)
    assert np.array_equal(divide(15, x).numpy(), np.float32(15) / x.numpy())
    assert np.array_equal(divide(x, 15).numpy(), x.numpy() / np.float32(15))
    assert not np.array_equal((15 / x).numpy(), np.float32(15) / x.numpy()), "then `divide` is no longer needed"


def test_square_root_is_rounded_correctly():
    x = random_floats(100_000).abs()
    assert np.array_equal(sqrt(x).numpy(), np.sqrt(x.numpy()))


def test_inverse_of_zero_and_of_what_overflows_is_zero():
    assert inverse(torch.tensor([0.0, -0.0, 2.0**-128, -(2.0**-127), 4.0])).tolist() == [0, 0, 0, -(2.0**127), 0.25]


def test_sums_are_taken_in_order():
    column = torch.tensor([1.0, 2.0**24, -(2.0**24), 1.0])[:, None]  # 1 + 2**24 is 2**24 in float32
    assert ordered_sum(column).tolist() == [1.0]
    assert ordered_sum(column[[0, 2, 1, 3]]).tolist() == [2.0]
    assert ordered_sum(column[[1, 0, 3, 2]]).tolist() == [0.0]


def test_a_sum_of_negative_zeros_keeps_the_sign_of_its_start():
    zeros = -torch.zeros(3, 1)
    assert not ordered_sum(zeros).signbit().item()
    assert ordered_sum(zeros, start=-0.0).signbit().item()


def test_mean_square_adds_from_left_to_right():
    x = random_floats(3, 4096)
    total = np.zeros(3, np.float32)
    for column in (x * x).numpy().T:
        total = total + column
    assert np.array_equal(mean_square(x).numpy()[:, 0], total / np.float32(4096))


def test_halves_go_away_from_zero():
    x = torch.tensor([0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997, -0.49999997, 126.5, -126.5, 0.0])
    assert round_half_away(x).tolist() == [1, -1, 2, 3, -3, 0, 0, 127, -127, 0]


def test_nearest_rounds_halves_to_even_and_limits():
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 7.6, -9.0])
    assert nearest(x, -8, 7).tolist() == [0, 2, 2, 0, -2, 7, -8]


def test_nearest_wraps_around_as_in_ggml():
    # 2**22 + 12582912 is 2**24, whose mantissa is all zeros: -2**22, and so the low limit
    assert nearest(torch.tensor([2.0**22, 2.0**22 - 1]), 0, 15).tolist() == [0, 15]


def test_the_first_of_equal_extremes():
    x = torch.zeros(4, 32)
    x[0, 5], x[0, 6] = 3.0, -3.0
    x[1, 5], x[1, 6] = -3.0, 3.0
    x[2, 1] = -2.0
    extremes = first_extreme(x)
    assert extremes.tolist() == [[3.0], [-3.0], [-2.0], [0.0]]
    assert not first_extreme(-torch.zeros(1, 32)).signbit().item()


def test_the_first_zero_gives_its_sign_to_the_minimum():
    x = torch.rand(3, 32) + 1
    x[0, 4], x[0, 9] = -0.0, 0.0
    x[1, 4], x[1, 9] = 0.0, -0.0
    minima = first_minimum(x)
    assert minima[:2].tolist() == [[0.0], [0.0]]
    assert minima[:2].signbit().tolist() == [[True], [False]]
    assert minima[2] == x[2].min()
