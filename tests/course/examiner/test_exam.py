"""The instructor's cells, and how an exam changes its digest."""

import dataclasses

import nbformat
from nbgrader.api import Gradebook

from course.directory import open_course
from course.examiner import Exam
from course.examiner.exam import ExamCell, import_statements, support_files
from course.examiner.nbgrader_plugin import load_exam

from .notebooks import EXAM, ORIGINAL, blank, graded, helper, notebook, plain


def test_cells_and_points_of_an_instructors_notebook():
    original = notebook(plain("x = 1"), helper("tools", "def same(a, b): return a == b"), *ORIGINAL.cells)
    exam = Exam.from_notebook(original, {})
    assert [(cell.grade_id, cell.points) for cell in exam.cells] == [
        ("tools", None),
        ("test-double", 3),
        ("test-area", 2),
    ]
    assert [cell.is_test for cell in exam.cells] == [False, True, True]
    assert (
        exam.find("test-area").source.startswith("assert math")
        and exam.find("nothing") is None
        and exam.find(None) is None
    )


def test_the_gradebook_gives_the_same_exam_as_the_notebook(sample_course):
    coursedir = open_course(sample_course)
    from_gradebook = load_exam(coursedir, "q90_sample", "q90_sample")
    original = nbformat.read(sample_course / "source/q90_sample/q90_sample.ipynb", as_version=4)
    from_notebook = Exam.from_notebook(original, support_files(sample_course / "release/q90_sample"))
    assert from_gradebook.digest == from_notebook.digest and from_gradebook.cells == from_notebook.cells
    assert from_gradebook.prose == from_notebook.prose
    flags = [(place.grade_id, place.cell_type, place.points, place.mark.solution) for place in from_notebook.places]
    assert flags == [
        (place.grade_id, place.cell_type, place.points, place.mark.solution) for place in from_gradebook.places
    ]
    assert "BEGIN HIDDEN TESTS" in from_gradebook.find("test-width").source
    assert set(from_gradebook.files) == {"bits.svg"}


def test_points_come_from_the_gradebook(sample_course):
    coursedir = open_course(sample_course)
    with Gradebook(coursedir.db_url) as gradebook:
        gradebook.update_or_create_grade_cell("test-width", "q90_sample", "q90_sample", max_score=9)
    assert load_exam(coursedir, "q90_sample", "q90_sample").find("test-width").points == 9


def test_hidden_lines():
    cell = ExamCell("t", "a\n### BEGIN HIDDEN TESTS\nb\n### END HIDDEN TESTS\nc", 1)
    assert [cell.hides(line) for line in range(1, 6)] == [False, True, True, True, False]


def test_import_statements_of_all_cells_but_broken_ones():
    found = import_statements(
        notebook(
            plain("%matplotlib inline\nimport numpy as np, os.path\nfrom math import pi as PI"),
            plain("def broken(:"),
            blank("b", "if True:\n    import json"),
            graded("t", "import re", 1),
        )
    )
    assert set(found) == {"np", "os", "PI", "re"} and found["PI"] == "from math import pi as PI"


def test_support_files_leave_out_links_notebooks_and_hidden_folders(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / ".ipynb_checkpoints").mkdir()
    for name in ("data/a.csv", "helper.py", "book.ipynb", ".ipynb_checkpoints/b.csv"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link.txt").symlink_to("/etc/hostname")
    assert support_files(tmp_path) == {"data/a.csv": b"data/a.csv", "helper.py": b"helper.py"}


def test_the_digest_changes_with_whatever_could_change_a_score():
    other_points = dataclasses.replace(EXAM.cells[0], points=4)
    changes = [
        dataclasses.replace(EXAM, cells=(other_points, *EXAM.cells[1:])),
        dataclasses.replace(EXAM, imports={}),
        dataclasses.replace(EXAM, files={"a.csv": b""}),
    ]
    assert len({EXAM.digest, *(exam.digest for exam in changes)}) == 4
    assert EXAM.digest == Exam.from_notebook(ORIGINAL, {}).digest
