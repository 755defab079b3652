"""Candidates' objects as tests use them: classes, modules, planners, generators, and objects that lie."""

import copy
import gc
import math
import pickle
import time

import numpy as np
import pytest
import torch

from course.examiner.candidate import Candidate, CandidateError
from course.examiner.inside.codec import BadMessage
from course.examiner.process import CandidateFailure
from course.examiner.proxies import Border
from course.examiner.sandbox import Limits

CODE = """
import itertools, time, torch
from collections import namedtuple
from dataclasses import dataclass, field

class Net(torch.nn.Module):
    def __init__(self, n_in, n_out=2):
        super().__init__()
        self.linear = torch.nn.Linear(n_in, n_out, bias=False)
        self.scale = torch.nn.Parameter(torch.ones(n_out))
        self.n_in = n_in

    def forward(self, x):
        return self.linear(x) * self.scale

@dataclass
class Plan:
    budget: int
    layers: list = field(default_factory=list)

    def add(self, name, bits):
        if bits > self.budget:
            raise ValueError(f"{bits} bits are over {self.budget}")
        self.budget -= bits
        self.layers.append((name, bits))
        return self

    def __len__(self): return len(self.layers)
    def __getitem__(self, key): return self.layers[key]
    def __setitem__(self, key, value): self.layers[key] = value
    def __delitem__(self, key): del self.layers[key]
    def __contains__(self, name): return name in dict(self.layers)
    def __enter__(self): self.layers.append("entered"); return self
    def __exit__(self, *error): self.layers.append(f"left {error[0]}"); return True

class Sub(Plan): pass

class Again:
    def __init__(self, n): self.n = n
    def __iter__(self): self.at = 0; return self
    def __next__(self):
        self.at += 1
        if self.at > self.n: raise StopIteration
        return self.at

def blocks(x, size):
    for start in itertools.count(0, size):
        yield x[start : start + size]

def broken():
    yield 1
    raise ValueError("in the middle")

def stop(n): raise StopIteration
def object_array(): return __import__("numpy").array([object()])
def same(*args, **kwargs): return args[0] if args else kwargs
def many(n): return [Plan(i) for i in range(n)]
def held(): return sum(isinstance(o, Plan) for o in __import__("gc").get_objects())
Bits = namedtuple("Bits", "bits error")
def best(): return Bits(4, torch.tensor(0.5))

class Liar:
    __eq__ = __ne__ = __lt__ = __gt__ = __le__ = __ge__ = lambda *a: True
    __hash__ = None
    __bool__ = lambda self: True
    __float__ = lambda self: 4.0
    __int__ = __index__ = lambda self: 4
    __array__ = lambda self, *a, **k: torch.ones(2).numpy()
    __len__ = lambda self: 2
    __getitem__ = lambda self, key: 4
    __iter__ = lambda self: iter([4, 4])
    __contains__ = lambda self, item: True
    __repr__ = __str__ = lambda self: "4"
    __torch_function__ = classmethod(lambda *a, **k: True)
    def __getattr__(self, name): return 4
    @property
    def __class__(self): return int
liar = Liar()

class Slow:
    @property
    def never(self):
        while True: pass
    def __len__(self, *arguments): time.sleep(60)
    __iter__ = __contains__ = __getitem__ = __call__ = __getattr__ = __setattr__ = __len__
slow = Slow()
class SlowIterator:
    def __iter__(self): return self
    def __next__(self): time.sleep(60)
slow_iterator = SlowIterator()
"""


@pytest.fixture(scope="module")
def shared():
    with Candidate({}, "none", Limits(cell_seconds=20)) as candidate:
        assert candidate.run(CODE).error is None
        yield candidate


@pytest.fixture
def borrow(shared):
    shared.begin_test()
    return lambda name: shared.look_up({name})[name][1]


@pytest.fixture
def plan(borrow):
    return borrow("Plan")(10)


def test_a_module_is_made_called_and_looked_into(borrow):
    Net = borrow("Net")
    net = Net(3, n_out=4)
    net.load_state_dict({"linear.weight": torch.eye(4, 3), "scale": torch.full((4,), 2.0)})
    assert torch.equal(net(torch.tensor([[1.0, 2, 3]])), torch.tensor([[2.0, 4, 6, 0]]))
    assert [tuple(parameter.shape) for parameter in net.parameters()] == [(4,), (4, 3)]
    assert {name: value.dtype for name, value in net.state_dict().items()}["scale"] is torch.float32
    assert net.linear.in_features == net.n_in == 3 and net.linear.bias is None
    assert isinstance(net, Net) and not isinstance(net.linear, Net) and not isinstance(3, Net)
    assert net.train() == net and callable(net) and not net.eval().training
    assert dict(net.named_parameters()).keys() == {"scale", "linear.weight"}
    assert torch.nn.utils.parameters_to_vector(net.parameters()).shape == (16,)


def test_a_planner_keeps_its_state(plan, borrow):
    assert plan.add("q", 4).add("k", 3) == plan and plan.budget == 3
    with pytest.raises(ValueError, match="8 bits are over 3"):
        plan.add("v", 8)
    plan.budget = 20
    plan[0] = ("q", 5)
    assert len(plan) == 2 and plan[0] == ("q", 5) and plan[-1] == ("k", 3) and plan[0:1] == [("q", 5)]
    assert "q" in plan and "v" not in plan and list(plan) == [("q", 5), ("k", 3)] and plan.budget == 20
    del plan[0]
    del plan.budget
    assert plan.layers == [("k", 3)] and not hasattr(plan, "budget") and getattr(plan, "bits", 7) == 7
    twin = copy.deepcopy(plan)
    twin.add = None
    assert plan.add is not None and borrow("same")(twin).layers == [("k", 3)]


def test_a_generator_gives_its_items_one_by_one(borrow):
    x = torch.arange(6)
    blocks = borrow("blocks")(x, 2)
    first, second = next(blocks), next(blocks)
    assert torch.equal(torch.cat([first, second]), x[:4])
    sizes = [len(block) for block, _ in zip(blocks, range(3), strict=False)]
    assert sizes == [2, 0, 0]
    assert list(borrow("Again")(3)) == [1, 2, 3]
    again = borrow("Again")(2)
    assert [list(again), list(again), list(iter(again))] == [[1, 2]] * 3


def test_only_the_end_of_an_iterator_ends_a_loop(borrow):
    seen = []
    with pytest.raises(ValueError, match="in the middle"):
        for item in borrow("broken")():
            seen.append(item)
    assert seen == [1]
    with pytest.raises(CandidateError, match="StopIteration"):
        list(map(borrow("stop"), [1]))


def test_an_object_in_an_object_is_an_object(borrow):
    plans = borrow("many")(3)
    assert [plan.budget for plan in plans] == [0, 1, 2]
    plans[0].layers.append(plans[1])  # the list came by value: this is not seen over there
    assert plans[0].layers == []
    plans[0].inner = plans[1]
    assert plans[0].inner == plans[1] and plans[0].inner.budget == 1
    assert borrow("same")({"plan": (plans[2], 5)})["plan"][0] == plans[2]


def test_a_context_manager_is_left_and_cannot_swallow_a_failure(plan):
    with pytest.raises(AssertionError, match="the test's own"), plan as entered:
        assert entered == plan
        raise AssertionError("the test's own")
    assert plan.layers == ["entered", "left None"]


def test_a_named_tuple_comes_by_value(borrow):
    best = borrow("best")()
    assert best.bits == 4 and best.error == 0.5 and type(best.error) is torch.Tensor


def test_names_of_arguments_are_free(borrow):
    keywords = {"self": 1, "operation": 2, "proxy": 3, "function": 4, "target": 5}
    assert borrow("same")(**keywords) == keywords


def test_equal_is_what_is_the_same_object(borrow):
    Plan, same = borrow("Plan"), borrow("same")
    first, second = Plan(1), Plan(1)
    assert same(first) == first and hash(same(first)) == hash(first) and {first: 1}[same(first)] == 1
    assert first in [first] and Plan != borrow("Sub") and same != borrow("many") and first is not None
    with pytest.raises(TypeError, match=r"`Plan\(…\)` is an object of the submission's class `Plan` and cannot be"):
        assert first != second
    assert issubclass(borrow("Sub"), Plan) and isinstance(borrow("Sub")(1), Plan) and not issubclass(int, Plan)


NO_VALUE = {
    "truth": bool,
    "not": lambda proxy: not proxy,
    "equal": lambda proxy: proxy == 4,
    "equal, turned": lambda proxy: 4 == proxy,  # noqa: SIM300
    "unequal": lambda proxy: proxy != 4,
    "equal to None": lambda proxy: proxy == None,  # noqa: E711
    "in a list": lambda proxy: [4] == [proxy],  # noqa: SIM300
    "less": lambda proxy: proxy < 5,
    "greater, turned": lambda proxy: 5 >= proxy,  # noqa: SIM300
    "sorted": lambda proxy: sorted([proxy, 3]),
    "float": float,
    "int": int,
    "index": lambda proxy: range(proxy),
    "isclose": lambda proxy: math.isclose(proxy, 4),
    "sum": lambda proxy: sum([proxy]),
    "product": lambda proxy: 2 * proxy,
    "abs": abs,
    "array": np.asarray,
    "array of objects": lambda proxy: np.array([proxy]),
    "numpy equal": lambda proxy: np.ones(2) == proxy,
    "numpy less": lambda proxy: np.less(np.ones(2), proxy),
    "numpy allclose": lambda proxy: np.allclose(proxy, np.ones(2)),
    "assert_allclose": lambda proxy: np.testing.assert_allclose(proxy, np.ones(2)),
    "torch equal": lambda proxy: torch.ones(2) == proxy,
    "torch sum": lambda proxy: torch.ones(2) + proxy,
    "allclose": lambda proxy: torch.allclose(proxy, torch.ones(2)),
    "torch.equal": lambda proxy: torch.equal(torch.ones(2), proxy),
    "assert_close": lambda proxy: torch.testing.assert_close(proxy, torch.ones(2)),
    "tensor": torch.tensor,
    "as_tensor": torch.as_tensor,
    "norm": lambda proxy: torch.linalg.norm(proxy),
    "module": lambda proxy: torch.nn.functional.mse_loss(proxy, torch.ones(2)),
    "copy": copy.copy,
    "pickle": pickle.dumps,
    "subclass": lambda proxy: type("Own", (proxy,), {}),
}


@pytest.mark.parametrize("use", NO_VALUE)
@pytest.mark.parametrize("name", ["plan", "liar"])
def test_an_object_has_no_value_that_it_could_lie_about(borrow, name, use):
    proxy = borrow("liar") if name == "liar" else borrow("Plan")(4)
    with pytest.raises(TypeError):
        NO_VALUE[use](proxy)


def test_a_liar_is_shown_by_its_class_and_its_data_is_data(borrow):
    liar = borrow("liar")
    assert repr(liar) == str(liar) == f"{liar}" == "<Liar of the submission>" and type(liar).__name__ == "Liar"
    assert liar.anything == 4 and list(liar) == [4, 4] and not isinstance(liar, int) and len(liar) == 2
    with pytest.raises(AttributeError, match="`__wrapped__` is not asked for"):
        liar.__wrapped__  # noqa: B018


@pytest.mark.parametrize(
    "value, advice",
    [
        (lambda x: x, "the function <lambda> of the test cannot be passed .* define it in a cell of the notebook"),
        (torch.Generator(), "this Generator of the test cannot .* pass a seed"),
        (torch.nn.ReLU(), r"this ReLU .* pass its state_dict\(\)"),
        (torch.nn.ReLU, "the type ReLU .* define it in a cell"),
        (iter([1]), "this list_iterator .* pass a list"),
        (object(), "this object .* pass data"),
        ([{"deep": object()}], "this object .* pass data"),
    ],
)
def test_what_cannot_be_passed_says_what_to_do_instead(borrow, value, advice):
    same = borrow("same")
    with pytest.raises(TypeError, match=advice):
        same(value)
    assert same(1) == 1


def test_what_a_candidate_cannot_return_says_what_to_do_instead(borrow):
    with pytest.raises(TypeError, match="an array of dtype object cannot be passed by value"):
        borrow("object_array")()


SLOW = {
    "an attribute": lambda slow: slow.never,
    "any attribute": lambda slow: slow.other,
    "a write": lambda slow: setattr(slow, "x", 1),
    "len": len,
    "iteration": iter,
    "an item": lambda slow: slow[0],
    "in": lambda slow: 1 in slow,
    "a call": lambda slow: slow(),
}


@pytest.mark.parametrize("use", SLOW)
def test_time_limits_hold_in_all_that_is_asked(shared, borrow, use):
    slow = borrow("slow")
    shared.deadline = time.monotonic() + 0.2
    with pytest.raises(CandidateFailure, match="stopped: it ran longer than"):
        SLOW[use](slow)
    assert "did not return" in str(shared.last_call)


def test_an_iterator_that_gives_nothing_and_one_without_end_are_stopped(shared, borrow):
    for items in (borrow("slow_iterator"), borrow("blocks")(torch.ones(3), 1)):
        shared.deadline = time.monotonic() + 0.3
        with pytest.raises(CandidateFailure, match=r"ran longer|was reached"):
            for _ in items:
                pass


def test_objects_are_given_back_when_no_proxy_is_left(shared, borrow):
    held = borrow("held")
    before = held()
    plans = borrow("many")(100_000)
    assert held() == before + 100_000
    del plans
    gc.collect()
    shared.last_call = None
    assert held() == before
    for _ in range(2000):
        borrow_again = shared.look_up({"held"})["held"][1]
    assert borrow_again == held


def test_objects_are_given_back_though_a_request_could_not_be_made(borrow):
    held = borrow("held")
    before, plan = held(), borrow("Plan")(1)
    del plan
    with pytest.raises(TypeError):
        held(object())
    assert held() == before


@pytest.mark.parametrize("sandbox", ["bubblewrap", "none"])
def test_an_object_does_not_outlive_its_process(sandbox):
    with Candidate({}, sandbox, Limits(cell_seconds=5)) as candidate:
        candidate.run(CODE)
        candidate.begin_test()
        names = candidate.look_up({"Plan", "same"})
        plan = names["Plan"][1](4)
        assert plan.budget == 4
        assert candidate.run("import os\nos._exit(1)").error is not None
        reborn = candidate.look_up({"Plan", "same"})
        for use in (lambda: plan.budget, lambda: reborn["same"][1](plan), lambda: reborn["same"][1]([plan])):
            with pytest.raises(CandidateFailure, match=r"Plan\(…\) is gone: the process that held it has ended"):
                use()
        assert reborn["Plan"][1](5).budget == 5


@pytest.mark.parametrize(
    "handle", [(), (1,), ("1", "object", "A"), (1, "chair", "A"), (1, ["object"], "A"), (True, "object", "A"), (1,) * 4]
)
def test_forged_handles_are_refused(handle):
    with pytest.raises((BadMessage, TypeError)):
        Border(None, None).take(*handle)


def test_class_names_are_cleaned_and_cut():
    border = Border(None, None)
    assert repr(border.take(1, "object", "A\x1b[31m\n" + "x" * 10**6)).startswith("<A[31mxx")
    assert len(repr(border.take(1, "class", "x" * 10**6))) < 130
    assert repr(border.take(1, "object", 5)) == "< of the submission>"
