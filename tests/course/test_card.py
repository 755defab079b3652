import copy

import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from course.card import CardError, PassMark, read_card

RAW = {
    "number": 90,
    "title": "Counting bits",
    "category": "Technical",
    "difficulty": "Mid-Senior",
    "levels": ["mid", "senior", "staff"],
    "companies": ["Any"],
    "minutes": {"talk": 12, "code": 8},
    "prerequisites": ["Python"],
    "pass": {"senior": {"rubric": 10, "autograded": 80}, "mid": {"rubric": 6, "autograded": 60}},
}


def make_notebook(**changes):
    raw = copy.deepcopy(RAW) | changes
    task = {"task": True, "points": 14, "grade_id": "rubric-a"}
    cell = new_markdown_cell("rubric", metadata={"nbgrader": task})
    return new_notebook(metadata={"course": {k: v for k, v in raw.items() if v is not None}}, cells=[cell])


def test_card_of_the_built_release(built_once):
    card = read_card(built_once / "release/q90_sample/q90_sample.ipynb")
    assert (card.number, card.title, card.minutes["talk"]) == (90, "Counting bits: a sample", 12)
    assert card.passes == {"mid": PassMark(6, 60), "senior": PassMark(10, 80)}


def test_passes_are_in_the_order_of_the_levels_not_of_their_names():
    assert list(read_card(make_notebook()).passes) == ["mid", "senior"]


@pytest.mark.parametrize(
    ("rubric", "percent", "level"),
    [
        (14, 100, "senior"),
        (10, 80, "senior"),
        (9.5, 100, "mid"),
        (14, 79.9, "mid"),
        (5.5, 100, None),
        (14, 59, None),
        (None, 100, None),
    ],
)
def test_level_needs_both_marks(rubric, percent, level):
    assert read_card(make_notebook()).level(rubric, percent) == level


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minutes": None}, "lacks minutes"),
        ({"title": None, "pass": None}, "lacks title, pass"),
        ({"minutes": 20}, "minutes is 20, not a Mapping"),
        ({"minutes": {"talk": 12}}, "not {talk: MINUTES, code: MINUTES}"),
        ({"minutes": {"talk": 12, "code": "8"}}, "minutes for code are '8'"),
        ({"minutes": {"talk": 0, "code": 8}}, "minutes for talk are 0"),
        ({"levels": ["mid", "L5"]}, "unknown level 'L5'; known are junior, mid"),
        ({"levels": ["senior", "mid"]}, "ascending order, not senior, mid"),
        ({"levels": ["senior"]}, "pass has senior, mid, its levels are senior"),
        ({"pass": {}}, "pass has no level"),
        ({"pass": {"mid": {"rubric": 6}}}, "pass mark of mid is {'rubric': 6}"),
        ({"pass": {"mid": {"rubric": 6, "autograded": 101}}}, "101 percent, above 100"),
        ({"pass": {"mid": {"rubric": "6", "autograded": 60}}}, "rubric of mid is '6'"),
        ({"pass": {"mid": {"rubric": 15, "autograded": 60}}}, "15 rubric points, but the rubric cells give 14"),
        (
            {"pass": {"mid": {"rubric": 9, "autograded": 60}, "senior": {"rubric": 8, "autograded": 80}}},
            "senior asks for less than that of mid",
        ),
    ],
)
def test_bad_cards_are_refused_by_reason(changes, message):
    with pytest.raises(CardError) as caught:
        read_card(make_notebook(**changes))
    assert message in str(caught.value)


def test_notebook_without_a_card():
    with pytest.raises(CardError, match="has no card"):
        read_card(new_notebook(metadata={"course": {"examination": {}}}))
