import nbformat.v4 as nbf
import pytest

from course.display.hiding import HideMarkSchemes, HideTests

TEST = "assert f(1)\n### BEGIN HIDDEN TESTS\nassert f(2)\n### END HIDDEN TESTS"
SCHEME = "Answer.\n=== BEGIN MARK SCHEME ===\nStrong: all.\n=== END MARK SCHEME ==="


def hidden(hide, new_cell, source, **mark):
    cell = new_cell(source, metadata={"nbgrader": {"grade_id": "a", **mark}} if mark else {})
    notebook, _ = hide().preprocess(nbf.new_notebook(cells=[cell]), {})
    return notebook.cells[0].source


def test_hidden_tests_and_mark_schemes_go_from_the_instructors_cells():
    assert hidden(HideTests, nbf.new_code_cell, TEST, grade=True, solution=False, locked=True) == "assert f(1)"
    assert hidden(HideMarkSchemes, nbf.new_markdown_cell, SCHEME, task=True, locked=True) == "Answer."


@pytest.mark.parametrize("source", [TEST, "### BEGIN HIDDEN TESTS", SCHEME, "=== BEGIN MARK SCHEME ==="])
@pytest.mark.parametrize("hide", [HideTests, HideMarkSchemes])
def test_a_candidates_cell_may_hold_the_marks(hide, source):
    assert hidden(hide, nbf.new_code_cell, source) == source
    assert hidden(hide, nbf.new_code_cell, source, grade=False, solution=True, locked=False) == source
    assert hidden(hide, nbf.new_markdown_cell, source, grade=True, solution=True, locked=False) == source
