"""Text that others wrote, made fit for terminals, pages and spreadsheets: shown as it is, never executed."""

import re

MAX_CHARACTERS = 1000
# Excel, LibreOffice and Google Sheets take a cell that begins with one of these for a formula, or skip it and look on.
_FORMULA = "=+-@＝＋－＠\t\r\n"
# Where a program that expects another separator would begin a new cell.
_INNER_CELL = re.compile(rf"([;\t\n])([ \"]*)(?=[{re.escape(_FORMULA[:8])}])")


def clean(text: object, limit: int = MAX_CHARACTERS) -> str:
    """Return text without control characters and reversed writing, cut after `limit` characters.

    >>> clean("a\\x1b[31mb\\tc")
    'a\ufffd[31mb    c'
    """
    text = str(text)
    shown = text[: limit + 1].replace("\t", "    ").replace("\r\n", "\n")
    if not shown.isprintable():
        shown = "".join(
            letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in shown
        )
    return shown if len(text) <= limit else shown[:limit] + " ..."


def harmless(text: str) -> str:
    """Return text that a spreadsheet takes for text; an apostrophe is put before what it would take for a formula.

    `restore` undoes it.

    >>> harmless("=1+1"), harmless("-"), harmless("it's"), harmless("'quoted'")
    ("'=1+1", '-', "it's", "''quoted'")
    """
    return f"'{text}" if _is_quoted(text) else text


def harmless_inside(text: str) -> str:
    """Return `harmless` text that stays so where a program divides the file at semicolons, tabs or line ends.

    >>> harmless_inside('x;=1')
    "x;'=1"
    """
    return harmless(_INNER_CELL.sub(r"\1\2'", text))


def restore(cell: str) -> str:
    """Return the text that `harmless` made a cell of; a program may have dropped the apostrophe meanwhile.

    >>> restore("'=1+1"), restore("=1+1"), restore("'twas")
    ('=1+1', '=1+1', "'twas")
    """
    return cell[1:] if cell[:1] == "'" and _is_quoted(cell[1:]) else cell


def _is_quoted(text: str) -> bool:
    first = text.lstrip(" ")[:1]
    return first == "'" or (first != "" and first in _FORMULA and text != "-")
