"""Small notebooks for the tests of the examiner."""

import nbformat.v4 as nbf
from nbformat import NotebookNode

from course.examiner import Exam


def plain(source: str, **metadata) -> NotebookNode:
    return nbf.new_code_cell(source, metadata=metadata)


def blank(grade_id: str, source: str) -> NotebookNode:
    return plain(source, nbgrader={"grade": False, "solution": True, "locked": False, "grade_id": grade_id})


def graded(grade_id: str, source: str, points: float) -> NotebookNode:
    mark = {"grade": True, "solution": False, "locked": True, "grade_id": grade_id, "points": points}
    return plain(source, nbgrader=mark)


def helper(grade_id: str, source: str) -> NotebookNode:
    return plain(source, nbgrader={"grade": False, "solution": False, "locked": True, "grade_id": grade_id})


def notebook(*cells: NotebookNode) -> NotebookNode:
    return nbf.new_notebook(cells=list(cells))


DOUBLE = """
assert double(2) == 4, "double(2) is not 4"
### BEGIN HIDDEN TESTS
assert double(10**30) == 2 * 10**30
### END HIDDEN TESTS
"""
ORIGINAL = notebook(
    plain("import math"),
    blank("double", "def double(n):\n    return 2 * n"),
    graded("test-double", DOUBLE, 3),
    blank("area", "def area(r):\n    return math.pi * r * r"),
    graded("test-area", "assert math.isclose(area(2), 4 * math.pi)", 2),
)
EXAM = Exam.from_notebook(ORIGINAL, {})


def submission(double: str = "def double(n):\n    return 2 * n", area: str = "def area(r): return math.pi * r**2"):
    """What a candidate hands in: the test cells are the release's, without hidden tests."""
    return notebook(
        plain("import math"),
        blank("double", double),
        graded("test-double", "assert double(2) == 4", 3),
        blank("area", area),
        graded("test-area", "assert True", 2),
    )
