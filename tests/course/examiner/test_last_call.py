"""How the last call is put into words."""

import numpy as np
import pytest
import torch

from course.examiner.last_call import MAX_CHARACTERS, LastCall, brief


class Named:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name


plan = Named("plan")


@pytest.mark.parametrize(
    "call, words",
    [
        (LastCall("call", (plan, 2), {"bits": 4}, 5), "plan(2, bits=4) returned 5"),
        (LastCall("call", (plan,), {}, ending="raised ValueError: no"), "plan() raised ValueError: no"),
        (LastCall("getattr", (plan, "bits"), {}, 4), "plan.bits is 4"),
        (LastCall("setattr", (plan, "bits", 4), {}), "plan.bits = 4"),
        (LastCall("getitem", (plan, (1, ...)), {}, "x"), "plan[(1, Ellipsis)] is 'x'"),
        (LastCall("len", (plan,), {}, 3), "len(plan) gave 3"),
        (LastCall("contains", (plan, 3), {}, True), "3 in plan gave True"),
        (LastCall("next", (plan,), {}, [1.5]), "next(plan) gave 1.5"),
        (LastCall("next", (plan,), {}, []), "next(plan) ended"),
        (LastCall("next", (plan,), {}, {"forged": 1}), "next(plan) gave {'forged': 1}"),
        (LastCall("isinstance", (plan, 3), {}, False), "isinstance(3, plan) gave False"),
    ],
)
def test_each_operation_is_written_as_the_test_wrote_it(call, words):
    assert str(call) == words


@pytest.mark.parametrize(
    "value, words",
    [
        (torch.arange(8.0).reshape(2, 4) / 3, "float32 tensor (2, 4) [0, 0.333333, 0.666667, 1, 1.33333, 1.66667, …]"),
        (torch.tensor(3), "int64 tensor () [3]"),
        (torch.zeros(0, 5), "float32 tensor (0, 5) []"),
        (torch.ones(2, dtype=torch.float8_e5m2), "float8_e5m2 tensor (2,) [1, 1]"),
        (np.array([True, False]), "bool array (2,) [True, False]"),
        (np.array(["ab"]), "<U2 array (1,) ['ab']"),
        (np.float32(1.5), "1.5"),
        ([1, [2, [3, [4]]]], "[1, [2, [3, [...]]]]"),
        (10**400, "an integer of 1329 bits"),
        ("a\x1b[31m" * 100, "'a\\x1b[31ma\\x1b[31ma\\x1b[31m...ma\\x1b[31ma\\x1b[31ma\\x1b[31m'"),
    ],
)
def test_values_are_shown_by_what_tells_most(value, words):
    assert brief(value) == words


LARGE = [list(range(10**6)), dict.fromkeys(range(1000), "x" * 1000), torch.randn(10**6), "x" * 10**6]


@pytest.mark.parametrize("value", LARGE, ids=["list", "dict", "tensor", "string"])
def test_a_description_is_short(value):
    assert len(str(LastCall("call", (plan, *[value] * 50), {"key": value}, value))) <= MAX_CHARACTERS + 1
