"""Cells and marks: what a submission claims about its own cells, points and grading."""

import copy

import nbformat.v4 as nbf

from ..entry import MAX_POINTS, WRONG, Entry, find, graded_cells


def mark(**changes):
    """Change the nbgrader metadata of all test cells."""

    def edit(notebook):
        for cell in graded_cells(notebook):
            cell.metadata.nbgrader.update(changes)

    return edit


def tag(*tags):
    def edit(notebook):
        for cell in graded_cells(notebook):
            cell.metadata.tags = list(tags)

    return edit


def marks_become(value):
    """Replace the nbgrader metadata of all cells."""

    def edit(notebook):
        for cell in notebook.cells:
            cell.metadata.nbgrader = value

    return edit


def unlocked(notebook):
    mark(grade=True, solution=True, locked=False)(notebook)
    for cell in graded_cells(notebook):
        cell.source = "pass"


def not_tests(notebook):
    for kind, cell in zip(("markdown", "raw", "markdown", "raw"), graded_cells(notebook), strict=True):
        cell.cell_type = kind
        cell.pop("outputs"), cell.pop("execution_count")


def ids_exchanged(notebook):
    first, *_, last = graded_cells(notebook)
    names = first.metadata.nbgrader.grade_id, last.metadata.nbgrader.grade_id
    last.metadata.nbgrader.grade_id, first.metadata.nbgrader.grade_id = names


def duplicates_first(notebook):
    for cell in graded_cells(notebook):
        twin = copy.deepcopy(cell)
        twin.id, twin.source = f"{cell.id}-first", "pass"
        notebook.cells.insert(0, twin)


def answers_claim_tests(notebook):
    for name in WRONG:
        find(notebook, name).metadata.nbgrader = find(notebook, f"test-{name}").metadata.nbgrader
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith(("assert", "import", "x ="))]


def tests_deleted(notebook):
    notebook.cells = [cell for cell in notebook.cells if cell not in graded_cells(notebook)]


def all_deleted(notebook):
    notebook.cells = []


def helper_claimed(notebook):
    fake = copy.deepcopy(find(notebook, "tools"))
    fake.id, fake.source = "mine", "TOLERANCE = float('inf')\nabs = lambda value: 0"
    notebook.cells.insert(3, fake)


def manual_becomes_test(notebook):
    cell = find(notebook, "sketch")
    cell.metadata.nbgrader.update(solution=False, locked=False, points=3)
    cell.source = "3"


def bonus_cells(notebook):
    for name, kind in (("bonus", "code"), ("rubric-bonus", "markdown")):
        new = nbf.new_code_cell if kind == "code" else nbf.new_markdown_cell
        claim = {"grade": True, "solution": False, "locked": False, "task": False, "points": 1000, "cell_type": kind}
        notebook.cells.append(new("1000", metadata={"nbgrader": {**claim, "grade_id": name, "schema_version": 3}}))


def foreign_kernel(notebook):
    notebook.metadata.kernelspec = {"name": "bash", "display_name": "Bash", "language": "bash"}
    notebook.metadata.language_info = {"name": "bash", "file_extension": ".sh"}


def graded_already(notebook):
    exercises = [
        {"grade_id": cell.metadata.nbgrader.grade_id, "points": 15.0, "max_points": 15.0, "message": ""}
        for cell in graded_cells(notebook)
    ]
    examination = {"submission": "*", "exam": "*", "seconds": 0.1, "exercises": exercises}
    notebook.metadata.course = {"examination": examination, "pass": {}}


def strange_ids(notebook):
    for cell in notebook.cells:
        cell.metadata.nbgrader = {
            **cell.metadata.get("nbgrader", {}),
            "grade_id": "../../gradebook\n'; DROP TABLE grade",
        }


ENTRIES = [
    Entry(
        "tests-tagged-to-skip", "Jupyter's tag says to skip the tests", edit=tag("skip-execution", "raises-exception")
    ),
    Entry("tests-tagged-experiment", "The course's tag says that the tests are experiments", edit=tag("experiment")),
    Entry("tests-not-code", "The test cells become text and raw cells", edit=not_tests),
    Entry(
        "points-raised",
        "The tests that pass claim a hundred times their points",
        points=7,
        cells={"quantize": WRONG["quantize"]},
        edit=mark(points=1000),
    ),
    Entry("tests-not-graded", "The tests say that they are not graded", edit=mark(grade=False, points=0)),
    Entry("tests-unlocked", "The tests say that they are answers, and hold `pass`", edit=unlocked),
    Entry(
        "ids-exchanged",
        "A test that passes claims the id of one that fails, which gives more",
        points=7,
        cells={"quantize": WRONG["quantize"]},
        edit=ids_exchanged,
    ),
    Entry("duplicates-first", "Copies of the tests that hold `pass` stand before them", edit=duplicates_first),
    Entry("answers-claim-tests", "The answers claim to be the tests, which are gone", edit=answers_claim_tests),
    Entry("tests-deleted", "There are no tests", edit=tests_deleted),
    Entry("cells-deleted", "There is no cell", or_look=True, edit=all_deleted),
    Entry("helper-claimed", "A second cell claims to be the instructor's locked one", edit=helper_claimed),
    Entry(
        "manual-becomes-test", "An answer for a person to score becomes a test that passes", edit=manual_becomes_test
    ),
    Entry("bonus-cells", "Cells of the candidate's own claim 1000 points each", edit=bonus_cells),
    Entry(
        "marks-are-text",
        "nbgrader's metadata is a string in every cell",
        points=MAX_POINTS,
        or_look=True,
        right=True,
        edit=marks_become("all points"),
    ),
    Entry("marks-are-a-list", "nbgrader's metadata is a list of lists in every cell", edit=marks_become([[1], 2])),
    Entry("marks-are-null", "nbgrader's metadata is null in every cell", edit=marks_become(None)),
    Entry(
        "schema-of-the-future",
        "The tests are of a format that is to come, which ends a whole batch of nbgrader's",
        points=MAX_POINTS,
        right=True,
        edit=mark(schema_version=99),
    ),
    Entry(
        "schema-is-text",
        "The version of the format, points and ids are of other types",
        points=MAX_POINTS,
        right=True,
        edit=mark(schema_version="three", points=[1], checksum=5, cell_type=None),
    ),
    Entry("ids-are-strange", "Grade ids hold paths and SQL", edit=strange_ids),
    Entry(
        "foreign-kernel",
        "The notebook asks for a kernel of another language",
        points=MAX_POINTS,
        right=True,
        edit=foreign_kernel,
    ),
    Entry("graded-already", "The metadata say that the submission was graded, with full points", edit=graded_already),
]
