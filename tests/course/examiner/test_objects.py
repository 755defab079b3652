"""How long the candidate's objects are kept, and what the examiner is told of them."""

import itertools
import weakref

import pytest

from course.examiner.inside.objects import OPERATIONS, Handles, handle


class Thing:
    pass


class Liar:
    @property
    def __class__(self):
        raise RuntimeError("no class for you")

    def __eq__(self, other):
        return True

    def __hash__(self):
        raise RuntimeError("no hash for you")


def test_an_object_has_one_number_as_long_as_it_is_held():
    handles, thing, other = Handles(), Thing(), Thing()
    assert handles.give(thing) == handles.give(thing) == [1, "object", "Thing"]
    assert handles.give(other)[0] == 2 and handles.take(1) is thing
    handles.release([1, 1])
    assert handles.give(thing)[0] == 3


def test_an_object_is_let_go_when_all_of_it_is_given_back():
    handles, thing = Handles(), Thing()
    alive = weakref.ref(thing)
    for _ in range(3):
        handles.give(thing)
    del thing
    handles.release([1, 1])
    assert alive() is handles.take(1)
    handles.release([1])
    assert alive() is None and not handles.held and not handles.numbers


def test_equal_and_unhashable_objects_are_told_apart():
    handles, first, second = Handles(), Liar(), Liar()
    assert handles.give(first)[0] != handles.give(second)[0]
    assert handles.take(1) is first


@pytest.mark.parametrize(
    "value, kind, name",
    [
        pytest.param(Thing, "class", "Thing", id="class"),
        pytest.param(len, "callable", "builtin_function_or_method", id="function"),
        pytest.param(iter([]), "iterator", "list_iterator", id="iterator"),
        pytest.param((n for n in ()), "iterator", "generator", id="generator"),
        pytest.param(Liar(), "object", "Liar", id="liar"),
        pytest.param(type("x" * 1000, (), {}), "class", "x" * 100, id="long name"),
    ],
)
def test_a_handle_tells_number_kind_and_class(value, kind, name):
    assert handle(7, value) == [7, kind, name]


def test_next_tells_an_item_from_the_end():
    numbers = iter([None])
    assert (OPERATIONS["next"](numbers), OPERATIONS["next"](numbers)) == ([None], [])
    assert OPERATIONS["next"](itertools.count(5)) == [5]
