"""Things to be looked at: what a person, a browser or a terminal shows must be shown, and never run."""

import nbformat.v4 as nbf

from ..entry import MAX_POINTS, Entry, find

SCRIPT = "<script>document.title = '$TOKEN'</script>"
HARMFUL = f"""{SCRIPT}
<img src="x" onerror="document.title = '$TOKEN'"> <iframe srcdoc="$TOKEN"></iframe>
<svg onload="document.title = '$TOKEN'"></svg> <a href="javascript:document.title='$TOKEN'">$TOKEN</a>
<style>body {{ --x: $TOKEN; display: none }}</style> <form action="//example.org/$TOKEN"><button>x</button></form>
<object data="//example.org/$TOKEN"></object>
<base href="//example.org/$TOKEN"><meta http-equiv="refresh" content="0;$TOKEN">
[a link](javascript:document.title='$TOKEN') </div></div>{SCRIPT}
"""


def shown(name: str, does: str, code: str = "", **details) -> Entry:
    """Right answers, and something to see."""
    return Entry(name, does, code, **{"points": MAX_POINTS, "right": True, **details})


def written(notebook):
    """In the answer, in text cells of the candidate's own, and in a title."""
    find(notebook, "answer").source = HARMFUL
    notebook.cells.insert(1, nbf.new_markdown_cell(HARMFUL))
    notebook.metadata.title = HARMFUL
    notebook.metadata.authors = [{"name": HARMFUL}]


def raw_cells(notebook):
    for kind in ("text/html", "text/latex", "text/restructuredtext", ""):
        notebook.cells.append(nbf.new_raw_cell(HARMFUL, metadata={"raw_mimetype": kind, "format": kind}))


def attachments(notebook):
    cell = find(notebook, "answer")
    cell.source = "![picture](attachment:picture.svg)"
    cell.attachments = {"picture.svg": {"image/svg+xml": HARMFUL, "text/html": HARMFUL}}


def stored(notebook):
    data = {"text/html": HARMFUL, "image/svg+xml": HARMFUL, "application/javascript": "document.title='$TOKEN'"}
    data["text/plain"] = data["text/markdown"] = data["text/latex"] = data["image/png"] = HARMFUL
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [nbf.new_output("display_data", data)]


ENTRIES = [
    shown(
        "html",
        "HTML with scripts is displayed, in all its kinds",
        f"""
from IPython.display import HTML, IFrame, Javascript, Latex, Markdown, SVG, display
TEXT = '''{HARMFUL}'''
display(HTML(TEXT), Markdown(TEXT), Latex(TEXT), Javascript("document.title = '$TOKEN'"))
display({{"image/svg+xml": TEXT, "text/html": TEXT, "application/json": {{}}}}, raw=True)
display({{"image/png": TEXT, "image/jpeg": TEXT, "text/plain": TEXT}}, raw=True)
""",
    ),
    shown(
        "rich-object",
        "The last line of a cell is an object with every representation",
        f"""
class Rich:
    def __repr__(self): return '''{HARMFUL}'''
    _repr_html_ = _repr_svg_ = _repr_markdown_ = _repr_latex_ = _repr_javascript_ = __repr__
    def _repr_mimebundle_(self, *a, **k): return {{"text/html": repr(self), "text/plain": repr(self)}}
""",
        cells={"sketch": "Rich()"},
    ),
    shown(
        "printed",
        "Scripts are printed on both streams",
        f"import sys\nprint('''{HARMFUL}''')\nprint('''{HARMFUL}''', file=sys.stderr)",
    ),
    shown(
        "raised",
        "The message of a failed test is a script",
        points=14,
        cells={
            "span": f"""
Evil = type('''{SCRIPT}''', (Exception,), {{}})
def span(values): raise Evil('''{HARMFUL}''')
"""
        },
    ),
    shown(
        "escape-sequences",
        "A terminal is told to change its title, clear itself and take a file",
        "print('\\x1b]0;$TOKEN\\x07\\x1b[2J\\x1b]52;c;$TOKEN\\x07\\x1bP+q\\x1b\\\\ \\x9b31m \\u202e \\r \\x00 \\x08')",
    ),
    shown("written", "The written answer and the notebook's title hold scripts", edit=written),
    shown("raw-cells", "Raw cells hold HTML, which converters pass on as it is", edit=raw_cells),
    shown("attachments", "The written answer carries a picture that is a script", edit=attachments),
    shown("stored", "The file holds scripts as outputs", edit=stored),
    shown(
        "gigantic-picture",
        "A small picture claims 60,000 rows and columns",
        """
import base64, struct, zlib
from IPython.display import display
def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 6, 0, 0, 0))
picture = b"\\x89PNG\\r\\n\\x1a\\n" + header + chunk(b"IDAT", zlib.compress(bytes(1_000_000))) + chunk(b"IEND", b"")
display({"image/png": base64.b64encode(picture).decode(), "text/plain": "picture"}, raw=True)
""",
    ),
]
