"""The vocabulary of test cells: what it accepts, what it refuses, and what it says then."""

import re

import numpy as np
import pytest
import torch

from course.checks import Points, check_close, check_equal, check_raises

CODES = torch.arange(12, dtype=torch.uint8).reshape(2, 6)


def message(check, *arguments, **keywords) -> str:
    with pytest.raises(AssertionError) as failure:
        check(*arguments, **keywords)
    return str(failure.value)


@pytest.mark.parametrize(
    "got",
    [
        CODES.clone(),
        CODES.T.contiguous().T,
        torch.stack([CODES, CODES], -1)[..., 0],
        torch.nn.Parameter(CODES, requires_grad=False),
    ],
)
def test_equal_values_pass_whatever_their_strides(got):
    check_equal(got, CODES, "codes")


@pytest.mark.parametrize(
    ("got", "says"),
    [
        (None, "codes: got a NoneType, expected a torch.Tensor."),
        (CODES.numpy(), "codes: got a numpy.ndarray, expected a torch.Tensor."),
        (CODES.int(), "codes: dtype torch.int32, expected torch.uint8."),
        (CODES.T, "codes: shape (6, 2), expected (2, 6)."),
        (CODES[:1], "codes: shape (1, 6), expected (2, 6)."),
        (CODES + 1, "codes: 12 of 12 values differ, first at [0, 0]: got 0x01, expected 0x00."),
    ],
)
def test_a_difference_is_described(got, says):
    assert message(check_equal, got, CODES, "codes") == says


def test_bytes_are_placed_by_row_block_and_offset():
    got = CODES.clone()
    got[1, 4] = 0xFF
    says = "codes: 1 of 12 values differ, first at row 1, block 1, byte 1: got 0xff, expected 0x0a."
    assert message(check_equal, got, CODES, "codes", block=3) == says
    says = "codes: 1 of 6 values differ, first at block 1, byte 1: got 0xff, expected 0x0a."
    assert message(check_equal, got[1], CODES[1], "codes", block=3) == says


def test_zeros_of_either_sign_are_equal_and_a_nan_is_not():
    check_equal(torch.tensor([-0.0]), torch.tensor([0.0]), "zero")
    assert "got nan, expected 0" in message(check_equal, torch.tensor([torch.nan]), torch.tensor([0.0]), "zero")
    check_equal(torch.tensor([torch.inf]), torch.tensor([torch.inf]), "infinity")
    far = torch.tensor([torch.inf, -torch.inf])
    assert "2 of 2" in message(check_close, far, torch.tensor([1.0, 1.0]), 1e9, "far", "any")


def test_a_misconception_is_named():
    mistakes = {"it is shifted": CODES + 1, "it is turned": lambda: CODES.flip(1)}
    says = "codes: what you get when it is turned; 12 of 12 values differ, first at [0, 0]: got 0x05, expected 0x00."
    assert message(check_equal, CODES.flip(1), CODES, "codes", mistakes) == says
    assert "what you get" not in message(check_equal, CODES + 2, CODES, "codes", mistakes)


def test_a_misconception_is_named_by_shape_and_dtype_too():
    mistakes = {"rows and columns are exchanged": CODES.T, "codes are signed": CODES.to(torch.int8)}
    assert "rows and columns are exchanged; shape (6, 2)" in message(check_equal, CODES.T, CODES, "codes", mistakes)
    assert "codes are signed; dtype" in message(check_equal, CODES.to(torch.int8), CODES, "codes", mistakes)


def test_misconceptions_are_worked_out_only_after_a_failure():
    check_equal(CODES, CODES, "codes", {"never": lambda: pytest.fail("was called")})


def test_a_misconception_that_does_not_show_is_not_named():
    right = torch.tensor([1000.0])
    mistakes = {"the blocks share a scale": right.clone(), "the sign is lost": -right}
    assert "what you get" not in message(check_close, right + 0.01, right, 1e-3, "sum", "rounding", mistakes)


def test_mistaken_sums_are_recognised_in_spite_of_their_rounding():
    mistakes = {"the offset is left out": torch.tensor([5e6, 1.0])}
    got = torch.tensor([5e6 + 2, 1.0])
    assert "the offset is left out" in message(check_close, got, torch.tensor([1.0, 1.0]), 1e-6, "sum", "u", mistakes)


def test_each_element_may_have_its_own_tolerance():
    expected, atol = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.01])
    check_close(torch.tensor([1.4, 2.009]), expected, atol, "sum", "rounding")
    says = "sum: 1 of 2 values differ, first at [1]: got 2.25, expected 2 ± 0.01 (rounding)."
    assert message(check_close, torch.tensor([1.4, 2.25]), expected, atol, "sum", "rounding") == says


@pytest.mark.parametrize(
    "got", [7.8, 7.79, np.float32(7.8), torch.tensor(7.8), torch.tensor([7.8]), np.array([[7.8]]), 8]
)
def test_numbers_of_any_kind_pass(got):
    check_close(got, 7.8, 0.25, "error", "1 %")


@pytest.mark.parametrize(
    ("got", "says"),
    [
        (9.7, "error: what you get when it is max / 7; got 9.7, expected 7.8 ± 0.1 (1 %)."),
        (float("nan"), "error: got nan, expected 7.8 ± 0.1 (1 %)."),
        (True, "error: got a bool, expected a number (1 %)."),
        ("7.8", "error: got a str, expected a number (1 %)."),
        (torch.tensor([7.8, 7.8]), "error: got a torch.Tensor, expected a number (1 %)."),
        (torch.tensor([]), "error: got a torch.Tensor, expected a number (1 %)."),
        (float("inf"), "error: got inf, expected 7.8 ± 0.1 (1 %)."),
        (None, "error: got a NoneType, expected a number (1 %)."),
    ],
)
def test_other_numbers_are_refused(got, says):
    assert message(check_close, got, 7.8, 0.1, "error", "1 %", {"it is max / 7": 9.7}) == says


def test_an_infinite_number_is_near_no_other():
    check_close(float("inf"), float("inf"), 0.1, "error", "1 %")
    overflow = {"float16 overflows": float("inf"), "it is 0 / 0": float("nan")}
    assert message(check_close, 5.0, 8.0, 0.1, "error", "1 %", overflow) == "error: got 5, expected 8 ± 0.1 (1 %)."
    assert "what you get when float16 overflows; got inf" in message(
        check_close, float("inf"), 8.0, 0.1, "error", "1 %", overflow
    )
    assert "what you get when it is 0 / 0; got nan" in message(
        check_close, float("nan"), 8.0, 0.1, "error", "1 %", overflow
    )
    row, infinite = torch.tensor([1.0, 2.0]), torch.tensor([1.0, float("inf")])
    assert "overflows" not in message(check_close, row, row + 1, 0.1, "row", "1 %", {"float16 overflows": infinite})


def test_numbers_that_differ_are_printed_so_that_they_do():
    says = message(check_close, 22.13621, 22.13622, 1e-8, "perplexity", "float64")
    assert says == "perplexity: got 22.13621, expected 22.13622 ± 1e-08 (float64)."
    assert message(check_equal, 8192000128, 8192000129.0, "bytes") == "bytes: got 8192000128, expected 8192000129."


def test_names_are_compared_as_text():
    check_equal("Q4_0", "Q4_0", "choice")
    check_equal(np.str_("Q4_0"), "Q4_0", "choice")
    says = "choice: what you get when size is ignored; got 'Q8_0', expected 'Q4_0'."
    assert message(check_equal, "Q8_0", "Q4_0", "choice", {"size is ignored": "Q8_0"}) == says
    assert message(check_equal, None, "Q4_0", "choice") == "choice: got None, expected 'Q4_0'."


def test_the_right_exception_passes_and_others_are_reported():
    check_raises(ValueError, "int of x", int, "x")
    check_raises(LookupError, "a subclass", {}.__getitem__, "x")
    says = message(check_raises, ValueError, "int of None", int, None)
    assert re.match(r"int of None: expected ValueError, got TypeError: int\(\) argument", says)
    assert message(check_raises, ValueError, "int of 7", int, 7) == (
        "int of 7: expected ValueError, but it returned a value."
    )


def test_points_are_counted_part_by_part_and_what_is_missing_is_printed(capsys):
    points = Points()
    errors = [None, AssertionError("2 is not 4"), ValueError("no"), NotImplementedError(), AssertionError()]
    for n, error in enumerate(errors):
        with points.part(0.5 + n, f"part {n}"):
            if error:
                raise error
    assert points.earned == 0.5
    assert capsys.readouterr().out.splitlines() == [
        "part 1, 0 of 1.5 points: 2 is not 4",
        "part 2, 0 of 2.5 points: ValueError: no",
        "part 3, 0 of 3.5 points: NotImplementedError",
        "part 4, 0 of 4.5 points: a check failed",
    ]


def test_points_let_through_what_ends_the_cell():
    points = Points()
    with pytest.raises(KeyboardInterrupt), points.part(1, "part"):
        raise KeyboardInterrupt
    assert points.earned == 0
