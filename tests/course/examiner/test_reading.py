"""Notebooks as editors, browsers and people leave them: read where anything is to be read, else refused by reason."""

import json

import nbformat
import nbformat.v4 as nbf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course.examiner import reading
from course.examiner.files import Refused
from course.examiner.reading import parse_notebook

from .notebooks import submission

CODE = "grüße = 'é'"


def written(**changes) -> str:
    notebook = submission(double=CODE)
    notebook.cells.append(nbf.new_markdown_cell("text"))
    return json.dumps({**notebook, **changes}, ensure_ascii=False)


def sources(data: bytes) -> list[str]:
    return [cell.source for cell in parse_notebook(data)[0].cells]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_encodings_that_say_what_they_are_need_no_note(encoding):
    notebook, notes = parse_notebook(written().encode(encoding))
    assert notebook.cells[1].source == CODE and notes == []


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_an_encoding_that_is_guessed_is_noted(encoding):
    notebook, notes = parse_notebook(written().encode(encoding))
    assert notebook.cells[1].source == CODE
    assert notes == ["is not UTF-8 text; it was read as Windows-1252, look at letters such as é"]


@pytest.mark.parametrize("version", [2, 3])
def test_old_formats_are_upgraded_with_their_marks(version):
    old = nbformat.writes(nbformat.convert(nbformat.from_dict(json.loads(written())), version), version=version)
    notebook, _ = parse_notebook(old.encode())
    assert notebook.cells[1].source == CODE and notebook.nbformat == 4
    if version == 3:
        assert notebook.cells[2].metadata.nbgrader.grade_id == "test-double"


def test_a_minor_version_of_the_future_is_read():
    assert sources(written(nbformat_minor=99).encode())[1] == CODE


def damaged(change) -> bytes:
    content = json.loads(written())
    for cell in content["cells"]:
        change(cell)
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda cell: cell.pop("id"),
        lambda cell: cell.update(id="same"),
        lambda cell: cell.update(id="not an id!"),
        lambda cell: cell.update(metadata=None),
        lambda cell: cell.pop("metadata"),
        lambda cell: cell.update(metadata={"tags": "text", "nbgrader": "text", "name": 7, "collapsed": "no"}),
        lambda cell: cell.update(outputs=None, execution_count="one", unknown={"key": 1}),
        lambda cell: cell.update(outputs=[{"output_type": "stream", "name": 5}]),
        lambda cell: cell.update(attachments={"a.png": {"image/png": "AAAA"}, "b": None, "c": {"text/html": "<x>"}}),
        lambda cell: cell.update(source=[*cell["source"]]),
    ],
)
def test_damage_that_changes_no_source_is_repaired(change):
    notebook, notes = parse_notebook(damaged(change))
    nbformat.validate(notebook)
    assert notebook.cells[1].source == CODE and notes == []
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_only_pictures_stay_attached():
    attach = {"a.png": {"image/png": "AAAA"}, "c": {"text/html": "<script>"}}
    notebook, _ = parse_notebook(damaged(lambda cell: cell.update(attachments=attach)))
    assert notebook.cells[-1].attachments == {"a.png": {"image/png": "AAAA"}} and "attachments" not in notebook.cells[0]


def test_a_missing_source_is_an_empty_one():
    assert set(sources(damaged(lambda cell: cell.pop("source")))) == {""}


def test_nan_and_huge_numbers_in_metadata_do_no_harm():
    text = written().replace('"nbformat_minor": 5', '"nbformat_minor": 1e999, "x": [NaN, -Infinity, 1E400]')
    assert sources(text.encode())[1] == CODE


def test_halves_of_characters_are_replaced():
    text = json.dumps(json.loads(written())).replace("\\u00e9", "\\ud800")
    notebook, _ = parse_notebook(text.encode())
    assert notebook.cells[1].source == "grüße = '\ufffd'"
    nbformat.writes(notebook).encode()


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"{}", "no notebook"),
        (b"[1, 2]", "no object with cells"),
        (b'{"nbformat": 4, "cells": {}}', "no list of cells"),
        (b'{"nbformat": 4, "cells": [7]}', "its cell 1 is no object"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "poem"}]}', "its cell 1 has the type poem"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": [1]}]}', "the source of its cell 1 is no text"),
        (b'{"nbformat": 99, "cells": []}', "its nbformat is 99, not one from 1 to 4"),
        (b'{"nbformat": 3, "worksheets": 7}', "as nbformat 3 it is damaged"),
        (b"\xff\xfe\x00", "is not the utf-16 text that its first bytes announce"),
        (b'{"cells": [', "only a part of it was saved"),
        (b"\x89PNG\r\n\x1a\n", "is not JSON"),
        (b"PK\x03\x04....", "is a ZIP archive; unpack it"),
        (b"%PDF-1.7", "is a PDF"),
        (b"<!DOCTYPE html>", "is a web page"),
        (b'{"cells": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
        (b'{"cells": [], "x": ' + b"9" * 10_000 + b"}", "is not JSON"),
    ],
)
def test_what_is_no_notebook_is_refused_with_its_reason(data, reason):
    with pytest.raises(Refused, match=reason):
        parse_notebook(data)


def test_half_a_file_is_refused():
    text = written().encode()
    with pytest.raises(Refused, match="not JSON, or only a part"):
        parse_notebook(text[: len(text) // 2])


def test_limits_of_cells_and_text_name_themselves(monkeypatch):
    monkeypatch.setattr(reading, "MAX_CELLS", 5)
    with pytest.raises(Refused, match="has 6 cells; the limit is 5"):
        parse_notebook(written().encode())
    monkeypatch.setattr(reading, "MAX_CELLS", 9)
    monkeypatch.setattr(reading, "MAX_TEXT", 50)
    with pytest.raises(Refused, match="characters in its cells; the limit is 50"):
        parse_notebook(written().encode())


def test_deep_metadata_is_not_kept():
    deep = json.loads("[" * 500 + "]" * 500)
    notebook, _ = parse_notebook(damaged(lambda cell: cell.update(metadata={"nbgrader": deep, "x": deep})))
    assert {str(cell.metadata) for cell in notebook.cells} == {"{}"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["cells", "cell_type", "source", "metadata", "nbgrader", "tags", "id", "nbformat"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(content=VALUES, cell=VALUES, version=st.sampled_from([1, 2, 3, 4, "4", None, True, 4.5]))
def test_anything_is_read_or_refused(content, cell, version):
    cell = {"cell_type": "code", **cell} if isinstance(cell, dict) else cell
    for data in (
        content,
        {"nbformat": version, "cells": [cell], "metadata": content},
        {"nbformat": version, "worksheets": [{"cells": [cell]}]},
    ):
        try:
            nbformat.validate(parse_notebook(json.dumps(data).encode())[0])
        except Refused:
            continue
