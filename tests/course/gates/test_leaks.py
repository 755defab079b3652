"""Whatever nbgrader cuts out is found wherever candidates could get it."""

import json

import nbformat
import pytest

from course.gates.leaks import check_leaks

from .faulty import NAME, insert_line, load, path_of, problems


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        ("width", "    return digits"),
        ("width", "    while n:"),
        ("width", "    # n, digits = n // 2, digits + 1, in a comment"),
        ("ones", 'bin(n).count("1")  # return bin(n).count("1")'),
        ("test-width", "assert width(1000) == math.floor(math.log2(1000)) + 1"),
        ("test-ones-hidden", 'assert ones(2**80 - 1) == 80, "every digit of 2**80 - 1 is a one"'),
        ("rubric-depth", "**Middling (4):** says that fewer bits save memory."),
        ("model-answer", "A number n from 1 needs floor(log2(n)) + 1 digits."),
        ("width", "    ### BEGIN SOLUTION"),
        ("rubric-depth", "=== END MARK SCHEME ==="),
    ],
)
def test_leaked_line_is_found(sample_course, cell, line):
    insert_line(sample_course, cell, line)
    assert check_leaks(load(sample_course))


@pytest.mark.parametrize("line", ["    import math", "raise NotImplementedError()", "`width(n)` is the name", ""])
def test_lines_of_the_visible_text_are_no_leak(sample_course, line):
    insert_line(sample_course, "width", line)
    assert check_leaks(load(sample_course)) == []


def test_leak_in_metadata_or_beside_the_notebook_is_found(sample_course):
    secret = "assert width(0) == 0"
    path = path_of(sample_course, "release")
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.course.title = f'{secret}, "0 needs no digit"'
    nbformat.write(notebook, path)
    assert any(secret in problem for problem in check_leaks(load(sample_course)))
    notebook.metadata.course.title = "a title"
    nbformat.write(notebook, path)
    (sample_course / "release" / NAME / "bits.svg").write_text(f'<!-- {secret}, "0 needs no digit" -->')
    assert any(secret in problem for problem in check_leaks(load(sample_course)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("outputs", [{"output_type": "stream", "name": "stdout", "text": "3"}]),
        ("execution_count", 1),
        ("attachments", {"a.png": {"image/png": ""}}),
    ],
)
def test_outputs_counts_and_attachments_are_leaks(sample_course, key, value):
    path = path_of(sample_course, "release")
    raw = json.loads(path.read_text())
    cell = next(cell for cell in raw["cells"] if (cell["cell_type"] == "markdown") == (key == "attachments"))
    cell[key] = value
    path.write_text(json.dumps(raw))
    assert any(f"release/ carries {key}" in problem for problem in check_leaks(load(sample_course)))


def test_hidden_test_that_is_not_hidden_is_found(sample_course):
    hidden = 'assert ones(2**80 - 1) == 80, "every digit of 2**80 - 1 is a one"'
    found = problems(check_leaks, sample_course, 'assert ones(5) == 2, "5 is 101, two ones"', hidden)
    assert found == [f"{NAME}, cell test-ones-hidden: all that is cut out stands in the visible text too"]
