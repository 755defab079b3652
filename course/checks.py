"""The vocabulary of test cells: they say what differs, and name the misconception where the result betrays one.

A failed check raises AssertionError; its text is all that a candidate gets to see, so it names the thing, the place,
both values, and where it can the idea behind them. `mistakes` maps a clause ("the nibbles are swapped") to the value
that this misconception gives, or to a function of no arguments that makes it (called only after a failure).
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

Value = torch.Tensor | float | str
Mistakes = Mapping[str, Value | Callable[[], Value]]


def check_equal(
    got: object, expected: Value, what: str, mistakes: Mistakes | None = None, block: int | None = None
) -> None:
    """Check that a value has the type, dtype, shape and elements of the expected one.

    Bytes are printed in hexadecimal; with `block`, the length of one block, their place in a row is given as
    block and offset. Strides do not matter, and -0.0 equals 0.0.

    >>> check_equal(torch.tensor([2, 1]), torch.tensor([1, 2]), "codes", {"they are turned": torch.tensor([2, 1])})
    Traceback (most recent call last):
        ...
    AssertionError: codes: what you get when they are turned; 2 of 2 values differ, first at [0]: got 2, expected 1.
    """
    fault = _difference(got, expected, 0.0, block)
    if fault:
        raise AssertionError(f"{what}: {_betrayed(got, expected, 0.0, mistakes)}{fault}.")


def check_close(
    got: object,
    expected: Value,
    atol: torch.Tensor | float,
    what: str,
    why: str,
    mistakes: Mistakes | None = None,
) -> None:
    """Check that a tensor or number is within `atol` of the expected one; `why` says where the tolerance comes from.

    `atol` is one number, or a tensor of the expected shape.

    >>> check_close(1.25, 1.0, 0.125, "scale", "half a step")
    Traceback (most recent call last):
        ...
    AssertionError: scale: got 1.25, expected 1 ± 0.125 (half a step).
    """
    fault = _difference(got, expected, atol)
    if fault:
        raise AssertionError(f"{what}: {_betrayed(got, expected, atol, mistakes)}{fault} ({why}).")


def check_raises(error: type[Exception], what: str, function: Callable, *arguments: object) -> None:
    """Check that `function(*arguments)` raises `error`, and no other exception.

    >>> check_raises(ValueError, "int('7')", int, "7")
    Traceback (most recent call last):
        ...
    AssertionError: int('7'): expected ValueError, but it returned a value.
    """
    try:
        function(*arguments)
    except error:
        return
    except Exception as other:
        raise AssertionError(f"{what}: expected {error.__name__}, got {type(other).__name__}: {other}") from None
    raise AssertionError(f"{what}: expected {error.__name__}, but it returned a value.")


class Points:
    """Counts the points of a test cell's parts, so that a part that fails leaves the others their points.

    What is missing is printed, with the reason. The cell's last line is `points.earned`: nbgrader, the examiner and a
    learner's own kernel show, and score, the value of a last expression.

    >>> points = Points()
    >>> with points.part(2, "even numbers"):
    ...     assert 4 % 2 == 0
    >>> with points.part(1, "odd numbers"):
    ...     assert 4 % 2 == 1, "4 is not odd"
    odd numbers, 0 of 1 points: 4 is not odd
    >>> points.earned
    2
    """

    def __init__(self):
        self.earned = 0

    @contextlib.contextmanager
    def part(self, points: float, what: str) -> Iterator[None]:
        """Give the points if the block raises nothing; else print why not, and go on after it."""
        try:
            yield
        except Exception as error:
            named = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            print(f"{what}, 0 of {points:g} points: {named.removesuffix(': ') or 'a check failed'}")
        else:
            self.earned += points


def _betrayed(got: object, expected: Value, atol: torch.Tensor | float, mistakes: Mistakes | None) -> str:
    """The misconception that gives `got`, in words; empty where it is none of them."""
    for name, value in (mistakes or {}).items():
        value = value() if callable(value) else value
        shows = _difference(value, expected, atol) is not None  # else it cannot be told from the right answer here
        if shows and _difference(got, value, _loosened(atol, value)) is None:
            return f"what you get when {name}; "
    return ""


def _loosened(atol: torch.Tensor | float, value: Value) -> torch.Tensor | float:
    """The tolerance for a misconception's value: mistaken sums are larger than right ones, and so is their rounding."""
    if isinstance(value, str) or (isinstance(atol, float) and atol == 0):
        return 0.0
    if isinstance(atol, torch.Tensor) and isinstance(value, torch.Tensor) and atol.shape != value.shape:
        atol = atol.max()
    value = torch.as_tensor(value, dtype=torch.float64).abs()
    return atol + 1e-4 * value.where(value.isfinite(), 0)


def _difference(got: object, expected: Value, atol: torch.Tensor | float, block: int | None = None) -> str | None:
    """What differs, in words; None where nothing does. NaN equals NaN, so that a misconception may give one."""
    if isinstance(expected, str):
        return None if isinstance(got, str) and str(got) == expected else f"got {got!r}, expected {expected!r}"
    if not isinstance(expected, torch.Tensor):
        return _number_difference(got, float(expected), float(atol))
    if not isinstance(got, torch.Tensor):
        return f"got a {_type_name(got)}, expected a torch.Tensor"
    for name in ("dtype", "shape"):
        mine, theirs = getattr(got, name), getattr(expected, name)
        if mine != theirs:
            return f"{name} {_plain(mine)}, expected {_plain(theirs)}"
    wrong = (got != expected) & ~(got.isnan() & expected.isnan()) & ~_near(got, expected, atol)
    return _describe(wrong, got, expected, atol, block) if wrong.any() else None


def _near(got: torch.Tensor, expected: torch.Tensor, atol: torch.Tensor | float) -> torch.Tensor:
    return (got.double() - expected.double()).abs() <= atol


def _number_difference(got: object, expected: float, atol: float) -> str | None:
    if isinstance(got, torch.Tensor | np.ndarray) and len(got.reshape(-1)) == 1:
        got = got.item()
    if isinstance(got, bool) or not isinstance(got, int | float | np.number):
        return f"got a {_type_name(got)}, expected a number"
    if got == expected or abs(got - expected) <= atol or (math.isnan(got) and math.isnan(expected)):
        return None
    digits = next((n for n in (6, 9) if f"{got:.{n}g}" != f"{expected:.{n}g}"), 17)
    return f"got {got:.{digits}g}, expected {expected:.{digits}g}{_tolerance(atol)}"


def _describe(wrong: torch.Tensor, got: torch.Tensor, expected: torch.Tensor, atol, block: int | None) -> str:
    place = tuple(wrong.nonzero()[0].tolist())
    margin = atol[place].item() if isinstance(atol, torch.Tensor) else atol
    first = f"got {_element(got[place])}, expected {_element(expected[place])}{_tolerance(margin)}"
    count = f"{int(wrong.sum())} of {wrong.numel()} values differ, first "
    if wrong.ndim == 0:
        return first
    return f"{count}at {_place(place, block)}: {first}"


def _place(place: tuple[int, ...], block: int | None) -> str:
    if block is None:
        return str(list(place))
    row = f"row {', '.join(map(str, place[:-1]))}, " if len(place) > 1 else ""
    return f"{row}block {place[-1] // block}, byte {place[-1] % block}"


def _element(value: torch.Tensor) -> str:
    if value.dtype == torch.uint8:
        return f"0x{value.item():02x}"
    return f"{value.item():.9g}" if value.is_floating_point() else str(value.item())


def _tolerance(atol: float) -> str:
    return f" ± {atol:.3g}" if atol else ""


def _plain(value: object) -> str:
    return str(tuple(value)) if isinstance(value, torch.Size) else str(value)


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
