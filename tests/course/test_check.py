"""A learner's own copy, checked with the hidden tests."""

import io
import shutil

import pytest
from rich.console import Console

from course.check import check, find_copy, verdict_table
from course.grading.submissions import GradeError

NAME = "q90_sample"


def test_the_copy_is_looked_for_in_order(tmp_path):
    folders = [tmp_path, tmp_path / "study"]
    with pytest.raises(GradeError, match=r"there is no q90_sample\.ipynb in"):
        find_copy(NAME, folders)
    (tmp_path / "study" / NAME).mkdir(parents=True)
    inner = tmp_path / "study" / NAME / f"{NAME}.ipynb"
    inner.write_text("{}")
    assert find_copy(NAME, folders) == inner
    here = tmp_path / f"{NAME}.ipynb"
    here.write_text("{}")
    assert find_copy(NAME, folders) == here


def test_an_untouched_copy_and_a_solved_one(sample_course, sample_source, tmp_path):
    copy = tmp_path / f"{NAME}.ipynb"
    shutil.copy(sample_course / "release" / NAME / copy.name, copy)
    examination = check(NAME, copy, source_dir=sample_source)
    assert examination.points == 0 and {verdict.message for verdict in examination.verdicts} == {"not implemented"}
    shutil.copy(sample_course / "source" / NAME / copy.name, copy)
    assert check(NAME, copy, source_dir=sample_source).points == 6


def test_no_notebook_is_an_error(tmp_path, sample_source):
    broken = tmp_path / "x.ipynb"
    broken.write_text("no")
    with pytest.raises(GradeError, match="not JSON"):
        check(NAME, broken, source_dir=sample_source)


def test_the_table_shows_reasons_as_text_not_as_markup(sample_course, sample_source, tmp_path):
    text = (sample_course / "source" / NAME / f"{NAME}.ipynb").read_text()
    copy = tmp_path / f"{NAME}.ipynb"
    copy.write_text(text.replace('return bin(n).count(\\"1\\")', "raise ValueError('[red]x[/] [link=a]')"))
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(verdict_table("title", check(NAME, copy, source_dir=sample_source)))
    assert "[red]x[/] [link=a]" in console.export_text()
