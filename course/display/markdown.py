"""Markdown as HTML that is safe to show, with its formulas and pictures inside."""

import re

from mistune import HTMLRenderer
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from .formulas import FORMULAS
from .pictures import picture_uri
from .sanitize import as_text, clean

MAX_SOURCE = 20_000  # characters besides the pictures; longer text is shown as it was typed
HIGHLIGHTED = {"bash", "c", "console", "cpp", "ipython3", "json", "py", "python", "python3", "sh", "yaml"}
_DATA_URI = re.compile(r"data:image/[\w+]+;base64,[\w+/=]*")
_PICTURE = re.compile(r"""(<img\b[^<>]*?\bsrc\s*=\s*)(["'])([^"'<>]*)\2""", re.IGNORECASE)


def to_html(source: str, attachments: object = None, folder: str = "") -> str:
    """Return a Markdown text as safe HTML; text that a Markdown parser cannot take is shown as it was typed.

    `attachments` are the cell's, name -> MIME type -> base64; relative pictures are files in `folder`.
    """
    if text_length(source) > MAX_SOURCE:
        return as_text(source)
    renderer = Renderer(escape=False, exclude_anchor_links=True, attachments=attachments, path=folder)
    try:
        return clean(MarkdownWithMath(renderer=renderer).render(source))
    except Exception:  # a parser's own, for text that its author did not think of
        return as_text(source)


def text_length(source: str) -> int:
    """Return the characters of a Markdown text besides its pictures."""
    return len(_DATA_URI.sub("", source))


class Renderer(IPythonRenderer):
    """nbconvert's, with formulas as MathML and nothing left for a script to do."""

    def inline_math(self, body: str) -> str:
        return FORMULAS.mathml(body, block=False)

    def block_math(self, body: str) -> str:
        return FORMULAS.mathml(body, block=True)

    def latex_environment(self, name: str, body: str) -> str:
        return FORMULAS.mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", block=True)

    def block_code(self, code: str, info: str | None = None) -> str:
        language = (info or "").strip().split(maxsplit=1)[:1]
        if language and language[0] in HIGHLIGHTED:
            return super().block_code(code, language[0])
        return HTMLRenderer.block_code(self, code)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        uri = picture_uri(url, self.attachments, self.path)
        return HTMLRenderer.image(self, text, uri, title) if uri else self.link(text or url, url, title)

    def block_html(self, html: str) -> str:
        return self._with_pictures(html)

    def inline_html(self, html: str) -> str:
        return self._with_pictures(html)

    def task_list_item(self, text: str, checked: bool = False) -> str:
        return f"<li>{'☑' if checked else '☐'} {text}</li>\n"

    def _with_pictures(self, html: str) -> str:
        def embed(match: re.Match) -> str:
            uri = picture_uri(match[3], self.attachments, self.path)
            return f"{match[1]}{match[2]}{uri}{match[2]}" if uri else match[0]

        return _PICTURE.sub(embed, html)
