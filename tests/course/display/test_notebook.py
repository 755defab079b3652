import base64

import nbformat
import pytest
from nbformat import NotebookNode

from course.display.notebook import AS_TYPED, LEFT_OVER, ROOM, shown_notebook

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


def cell(kind="code", source="", **more):
    return {"cell_type": kind, "source": source, "metadata": {}, "outputs": [], **more}


def shown(*cells, **metadata):
    notebook = shown_notebook(nbformat.from_dict({"cells": list(cells), "metadata": metadata}))
    nbformat.validate(notebook)
    return notebook


def shown_output(output):
    return shown(cell(outputs=[output])).cells[0].outputs[0]


def test_only_what_is_shown_is_left():
    mark = {"grade_id": "a", "grade": True}
    notebook = shown(
        cell(id="x", metadata={"nbgrader": mark, "tags": ["t"]}, execution_count="<b>"), title="<b>", widgets={}
    )
    assert notebook.metadata == {"language_info": {"name": "ipython3"}}
    assert notebook.cells[0].metadata == {"nbgrader": mark} and notebook.cells[0].execution_count is None


@pytest.mark.parametrize("metadata", [{"language_info": 3}, {"language_info": {"pygments_lexer": ["<b>"]}}])
def test_odd_metadata_do_no_harm(metadata):
    assert shown(cell(metadata=None), **metadata).metadata.language_info.name == "ipython3"


@pytest.mark.parametrize("kind", ["raw", "<b>", None])
def test_cells_of_other_types_are_text_as_it_was_typed(kind):
    (text,) = shown(cell(kind, ["<b>", "x"], type="<script>")).cells
    assert text.cell_type == "markdown" and text.source == "<b>x" and text.metadata[AS_TYPED]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"text/html": "<style>p{}</style><p onclick=run()>x", "text/plain": "y"}, {"text/html": "<p>x</p>"}),
        ({"image/png": PNG, "text/plain": "y"}, {"image/png": PNG}),
        ({"image/png": '"><script>', "text/plain": "y"}, {"text/plain": "y"}),
        ({"image/svg+xml": "<svg/>"}, {"image/svg+xml": "<svg/>"}),
        ({"text/markdown": "*a*<script>"}, {"text/html": "<p><em>a</em>&lt;script&gt;</p>\n"}),
        ({"text/latex": "$x$"}, {"text/html": "<p><math><mi>x</mi></math></p>\n"}),
        ({"application/javascript": "run()", "text/plain": ["<a", ">"]}, {"text/plain": "<a>"}),
        ({"application/javascript": "run()"}, {"text/plain": "an output that is not shown: application/javascript"}),
    ],
)
def test_the_best_safe_representation_is_shown(data, expected):
    output = shown_output(
        {"output_type": "display_data", "data": data, "metadata": {"image/png": {"width": "1 onload=x"}}}
    )
    assert output.data == expected and output.metadata == {}


def test_printed_text_and_errors_stay_text():
    assert shown_output({"output_type": "stream", "name": "<b>", "text": "\x1b[31m<b>"}).text == "\x1b[31m<b>"
    error = shown_output({"output_type": "error", "ename": "E", "evalue": "m", "traceback": "not a list"})
    assert error.traceback == ["E: m"]


def test_a_very_long_notebook_is_shown_in_part():
    long = "x" * (ROOM["markdown"] // 2 + 1)
    code = "x" * (ROOM["code"] // 4 + 1)
    notebook = shown(*[cell("markdown", long)] * 3, *[cell(source=code)] * 5, cell("markdown", "end"))
    typed = [AS_TYPED in text.metadata for text in notebook.cells if text.cell_type == "markdown"]
    assert typed == [False, True, True, True]
    assert notebook.cells[3].source == code
    assert notebook.cells[7].source.startswith("x" * LEFT_OVER + "\n... ")


def test_the_notebook_itself_is_not_changed():
    notebook = nbformat.from_dict({"cells": [cell("raw", "<b>")], "metadata": {"title": "t"}})
    shown_notebook(notebook)
    assert notebook == NotebookNode({"cells": [cell("raw", "<b>")], "metadata": {"title": "t"}})
