"""The part of a notebook that a page shows, built anew: of its other fields, and of odd types, nothing is left."""

import re

import nbformat.v4 as nbf
from nbformat import NotebookNode
from nbgrader.utils import is_locked

from .markdown import text_length, to_html
from .pictures import is_base64
from .sanitize import clean, shortened

AS_TYPED = "as_typed"  # in the metadata of a text cell: it is not Markdown
ROOM = {"markdown": 100_000, "code": 500_000}  # characters of all cells that are not locked, besides pictures
LEFT_OVER = 200  # characters that are shown of a code cell for which there is no room
_STYLE_ELEMENT = re.compile(r"<style\b.*?</style\s*>", re.IGNORECASE | re.DOTALL)


def shown_notebook(notebook: NotebookNode) -> NotebookNode:
    """Return a notebook of what is shown of one; its outputs are safe HTML, pictures or text.

    Text cells stay Markdown, for `to_html`; those that are none, or for which there is no room, are marked AS_TYPED.
    """
    cells = [_cell(cell) for cell in notebook.get("cells", ()) if isinstance(cell, dict)]
    _limit(cells)
    return nbf.new_notebook(cells=cells, metadata={"language_info": {"name": _language(notebook)}})


def _limit(cells: list[NotebookNode]) -> None:
    room = dict(ROOM)
    for cell in cells:
        if not is_locked(cell):
            room[cell.cell_type] -= text_length(cell.source)
            if room[cell.cell_type] < 0 and cell.cell_type == "code":
                cell.source = shortened(cell.source, LEFT_OVER)
            elif room[cell.cell_type] < 0:
                cell.metadata[AS_TYPED] = True


def _language(notebook: NotebookNode) -> str:
    info = _part(_part(notebook, "metadata"), "language_info")
    name = info.get("pygments_lexer", info.get("name"))
    return name if isinstance(name, str) and re.fullmatch(r"[\w+#-]{1,40}", name) else "ipython3"


def _cell(cell: NotebookNode) -> NotebookNode:
    source, kind = _joined(cell.get("source", "")), cell.get("cell_type")
    mark = _part(_part(cell, "metadata"), "nbgrader")
    metadata = {"nbgrader": mark} if mark else {}
    if kind == "code":
        outputs = cell.get("outputs") if isinstance(cell.get("outputs"), list) else []
        shown = [_output(output) for output in outputs if isinstance(output, dict)]
        return nbf.new_code_cell(shortened(source), metadata=metadata, outputs=shown)
    if kind != "markdown":
        return nbf.new_markdown_cell(source, metadata={**metadata, AS_TYPED: True})
    return nbf.new_markdown_cell(source, metadata=metadata, attachments=_part(cell, "attachments"))


def _output(output: NotebookNode) -> NotebookNode:
    kind = output.get("output_type")
    if kind == "stream":
        name = "stderr" if output.get("name") == "stderr" else "stdout"
        return nbf.new_output("stream", name=name, text=_text(output.get("text", "")))
    if kind == "error":
        lines = output.get("traceback")
        lines = [_text(line) for line in lines] if isinstance(lines, list) else []
        name, value = (_text(output.get(key, "")) for key in ("ename", "evalue"))
        return nbf.new_output("error", ename=name, evalue=value, traceback=lines or [f"{name}: {value}"])
    return nbf.new_output("display_data", _shown_data(_part(output, "data")))


def _shown_data(data: dict) -> dict[str, str]:
    """Return the best representation that can be shown, under its MIME type."""
    texts = {mime_type: _text(value) for mime_type, value in data.items() if mime_type.startswith("text/")}
    if "text/html" in texts:
        return {"text/html": clean(_STYLE_ELEMENT.sub("", texts["text/html"]))}
    if "image/svg+xml" in data:
        return {"image/svg+xml": _text(data["image/svg+xml"])}
    for mime_type in ("image/png", "image/jpeg"):
        if is_base64(data.get(mime_type)):
            return {mime_type: data[mime_type]}
    for mime_type in ("text/markdown", "text/latex"):
        if mime_type in texts:
            return {"text/html": to_html(texts[mime_type])}
    return {"text/plain": texts.get("text/plain", f"an output that is not shown: {', '.join(map(str, data))}")}


def _part(whole: dict, name: str) -> dict:
    part = whole.get(name)
    return part if isinstance(part, dict) else {}


def _text(value: object) -> str:
    return shortened(_joined(value))


def _joined(value: object) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value)
