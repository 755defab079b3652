"""The sample class: what each candidate hands in, and that an undeserved score is noticed."""

import nbformat
import pytest

from course.answers import Answer
from course.demo import CONFIG, ENDLESS, DemoError, _check, _make_room, _replaced, sample_class
from course.grading.grade import Outcome
from course.question import read_source

NAME = "q90_sample"


@pytest.fixture
def samples(sample_source, sample_course):
    original = read_source(sample_source / NAME / f"{NAME}.py")
    release = (sample_course / "release" / NAME / f"{NAME}.ipynb").read_text()
    other_way = Answer("right", "formats", frozenset(), "", {"ones": "def ones(n): return f'{n:b}'.count('1')"})
    return {sample.student: sample for sample in sample_class(original, release, [other_way])}


def code(text: str, grade_id: str) -> str:
    cells = nbformat.reads(text, as_version=4).cells
    return next(cell.source for cell in cells if cell.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


def test_the_class_hands_in_what_its_names_say(samples):
    assert len(samples) == 8
    assert "NotImplementedError" in code(samples["dia-empty"].text, "width")
    assert "f'{n:b}'" in code(samples["ben-another-way"].text, "ones")
    assert "digits + 1" in code(samples["ben-another-way"].text, "width")
    assert "digits + 1" in code(samples["cem-half-right"].text, "width")
    assert "NotImplementedError" in code(samples["cem-half-right"].text, "ones")
    assert "torch.allclose = " in code(samples["eve-patches-checks"].text, "ones")
    with pytest.raises(ValueError):
        nbformat.reads(samples["hal-not-json"].text, as_version=4)


def test_no_hidden_test_is_handed_in(samples):
    assert not any("HIDDEN" in sample.text for sample in samples.values())


def test_every_function_of_a_cell_is_replaced():
    assert _replaced("import re\ndef f(): ...\ndef g(): ...", ENDLESS).endswith("\nf = g = endless")


@pytest.mark.parametrize("points, status", [(6, "graded"), (3, "graded"), (None, "not graded")])
def test_an_undeserved_score_is_an_error(samples, points, status):
    empty = samples["dia-empty"]
    _check([empty], [Outcome(empty.student, NAME, "graded", 0, 6)])
    with pytest.raises(DemoError, match="dia-empty was not graded as deserved"):
        _check([empty], [Outcome(empty.student, NAME, status, points, 6)])


def test_only_an_earlier_demo_is_cleared_away(tmp_path):
    mine = tmp_path / "thesis.txt"
    mine.write_text("three years of work")
    with pytest.raises(DemoError, match="no demo made it"):
        _make_room(tmp_path)
    assert mine.read_text() == "three years of work"
    _make_room(tmp_path / "demo")
    (tmp_path / "demo" / "old").write_text("")
    _make_room(tmp_path / "demo")
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["nbgrader_config.py"]
    assert (tmp_path / "demo" / "nbgrader_config.py").read_text() == CONFIG
