"""Reads a notebook that somebody else wrote, forgiving all that does not change what is graded.

Only what grading and showing need is kept: sources, the cells' marks and tags, pictures pasted into text, the language.
"""

import json
import re
import warnings

import nbformat
from nbformat import NotebookNode

from .files import Refused

MAX_NOTEBOOK_BYTES = 64 << 20
MAX_CELLS = 5_000
MAX_TEXT = 8 << 20  # characters of all cells
NO_NOTEBOOKS = {
    b"PK\x03\x04": "a ZIP archive; unpack it and hand in what is in it",
    b"\x1f\x8b": "a gzip archive; unpack it and hand in what is in it",
    b"7z\xbc\xaf": "a 7z archive; unpack it and hand in what is in it",
    b"Rar!": "a RAR archive; unpack it and hand in what is in it",
    b"%PDF": "a PDF; hand in the .ipynb file itself",
    b"<": "a web page; hand in the .ipynb file itself",
}
GUESSED = "is not UTF-8 text; it was read as Windows-1252, look at letters such as é"
CELL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
SURROGATE = re.compile("[\ud800-\udfff]")


def parse_notebook(data: bytes) -> tuple[NotebookNode, list[str]]:
    """A valid notebook of nbformat 4, and what an instructor should know of how it was read; Refused if it is none."""
    text, notes = _decode(data)
    content = _parse(text)
    if not isinstance(content, dict):
        raise Refused("is no notebook: it holds no object with cells")
    version = content.get("nbformat", 4 if "cells" in content else None)
    if version in (1, 2, 3):
        content = _upgrade(content, version)
    elif version != 4:
        raise Refused(f"is no notebook: its nbformat is {str(version)[:20]}, not one from 1 to 4")
    notebook = _rebuild(content)
    nbformat.validate(notebook)
    return notebook, notes


def _decode(data: bytes) -> tuple[str, list[str]]:
    if not data.strip():
        raise Refused("is empty")
    for beginning, kind in NO_NOTEBOOKS.items():
        if data.startswith(beginning):
            raise Refused(f"is {kind}")
    encoding = json.detect_encoding(data)
    try:
        return data.decode(encoding, errors="surrogatepass"), []
    except UnicodeDecodeError:
        if not encoding.startswith("utf-8"):
            raise Refused(f"is not the {encoding} text that its first bytes announce") from None
    try:
        return data.decode("cp1252"), [GUESSED]
    except UnicodeDecodeError:
        return data.decode("latin-1"), [GUESSED]


def _parse(text: str) -> object:
    try:
        return json.loads(text, parse_constant=lambda name: None)  # NaN is no JSON, though Python writes it
    except RecursionError:
        raise Refused("is nested too deeply") from None
    except ValueError as error:
        raise Refused(f"is not JSON, or only a part of it was saved: {str(error)[:200]}") from None


def _upgrade(content: dict, version: int) -> dict:
    try:
        with warnings.catch_warnings(action="ignore"):
            return nbformat.reads(json.dumps(content), as_version=4)
    except Exception as error:  # nbformat passes on whatever a malformed file provokes
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise Refused(f"is no notebook: as nbformat {version} it is damaged ({reason})") from None


def _rebuild(content: dict) -> NotebookNode:
    cells = content.get("cells")
    if not isinstance(cells, list):
        raise Refused("is no notebook: it has no list of cells")
    if len(cells) > MAX_CELLS:
        raise Refused(f"has {len(cells):,} cells; the limit is {MAX_CELLS:,}")
    seen = set()
    rebuilt = [_cell(number, cell, seen) for number, cell in enumerate(cells, 1)]
    size = sum(len(cell["source"]) for cell in rebuilt)
    if size > MAX_TEXT:
        raise Refused(f"has {size:,} characters in its cells; the limit is {MAX_TEXT:,}")
    metadata = _languages(content.get("metadata"))
    return nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": rebuilt})


def _cell(number: int, cell: object, seen: set[str]) -> dict:
    if not isinstance(cell, dict):
        raise Refused(f"is damaged: its cell {number} is no object")
    kind = cell.get("cell_type")
    if kind not in ("code", "markdown", "raw"):
        raise Refused(f"is damaged: its cell {number} has the type {str(kind)[:20]}, not code, markdown or raw")
    source = _text(number, cell.get("source"))
    kept = {"id": _cell_id(number, cell.get("id"), seen), "cell_type": kind, "source": source}
    kept["metadata"] = _marks(cell.get("metadata"))
    if kind == "code":
        return {**kept, "outputs": [], "execution_count": None}
    if pictures := _pictures(cell.get("attachments")):
        kept["attachments"] = pictures
    return kept


def _text(number: int, source: object) -> str:
    lines = source if isinstance(source, list) else [source or ""]
    if not all(isinstance(line, str) for line in lines):
        raise Refused(f"is damaged: the source of its cell {number} is no text")
    return _whole("".join(lines))


def _whole(text: str) -> str:
    """Text that can be written: JSON can hold halves of characters."""
    return SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def _cell_id(number: int, given: object, seen: set[str]) -> str:
    """The cell's id, or one made of its number where it has none, a malformed one, or another cell's."""
    found = given if isinstance(given, str) and CELL_ID.fullmatch(given) and given not in seen else f"cell-{number}"
    while found in seen:
        found += "-"
    seen.add(found)
    return found


def _marks(metadata: object) -> dict:
    metadata = metadata if isinstance(metadata, dict) else {}
    mark, tags = metadata.get("nbgrader"), metadata.get("tags")
    grade_id = mark.get("grade_id") if isinstance(mark, dict) else None
    kept = {"nbgrader": {"grade_id": _whole(grade_id)}} if isinstance(grade_id, str) else {}
    if isinstance(tags, list):
        kept["tags"] = sorted({_whole(tag) for tag in tags if isinstance(tag, str) and tag and "," not in tag})
    return kept


def _pictures(attachments: object) -> dict:
    """Pictures that were pasted into a text; anything else that is attached could be a script."""
    if not isinstance(attachments, dict):
        return {}
    pictures = {
        _whole(name): {kind: _whole(data) for kind, data in bundle.items() if _is_picture(kind, data)}
        for name, bundle in attachments.items()
        if isinstance(bundle, dict)
    }
    return {name: bundle for name, bundle in pictures.items() if bundle}


def _is_picture(kind: str, data: object) -> bool:
    return kind.startswith("image/") and kind.isascii() and isinstance(data, str)


def _languages(metadata: object) -> dict:
    """The metadata that says which language the notebook is in."""
    metadata = metadata if isinstance(metadata, dict) else {}
    kept = {}
    for key, needed in (("kernelspec", {"name", "display_name"}), ("language_info", {"name"})):
        entry = metadata.get(key)
        if isinstance(entry, dict):
            entry = {_whole(name): _whole(value) for name, value in entry.items() if isinstance(value, str)}
            if needed <= entry.keys():
                kept[key] = entry
    return kept
