"""The sample question with a fault: what the gates' tests share."""

import nbformat

from course.gates.notebooks import load_question

NAME = "q90_sample"


def path_of(course, step, suffix=".ipynb"):
    return course / step / NAME / f"{NAME}{suffix}"


def replace(path, old, new):
    text = path.read_text()
    assert old in text, old
    path.write_text(text.replace(old, new, 1))


def load(course):
    return load_question(NAME, source_dir=course / "source", course_dir=course)


def problems(gate, course, old, new, step="source"):
    """What a gate says when the sample's text, or the notebook made of it, is changed."""
    replace(path_of(course, step, ".py" if step == "source" else ".ipynb"), old, new)
    return gate(load(course))


def insert_line(course, grade_id, line):
    path = path_of(course, "release")
    notebook = nbformat.read(path, as_version=4)
    (cell,) = (cell for cell in notebook.cells if cell.id == grade_id)
    cell.source += f"\n{line}"
    nbformat.write(notebook, path)
