"""CSV files as spreadsheets write them back: other separators, decimal commas, a byte order mark, columns moved."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 64 << 20
_SEPARATORS = (",", ";", "\t")
_NUMBER = re.compile(r"[+-]?[0-9]{1,9}([.,][0-9]{1,9})?")


class SpreadsheetError(Exception):
    """A file is not a table with the columns that are needed; the message says why."""


@dataclass(frozen=True)
class Line:
    """A row of a sheet: its number as the spreadsheet shows it, and its cells by the name of the column."""

    number: int
    cells: dict[str, str]


def csv_text(header: Sequence[str], rows: Iterable[Sequence[str]], line_end: str = "\n") -> str:
    """Return a table as CSV, separated by commas."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=line_end)
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def read_lines(path: Path, required: Sequence[str]) -> list[Line]:
    """Return the rows of a CSV file that are not empty; names of columns are lower case, in any order.

    The separator is the one of comma, semicolon and tab that gives the `required` columns. Cells that are missing at
    the end of a row are empty (Excel leaves them out). Raises SpreadsheetError if it is no such file.
    """
    text = _read(path)
    headers = {separator: _header(text, separator) for separator in _SEPARATORS}
    separator = max(headers, key=lambda separator: len(set(required) & set(headers[separator])))
    header = headers[separator]
    missing = [name for name in required if name not in header]
    if missing:
        shown = ", ".join(header)[:200] or "empty"
        raise SpreadsheetError(f"{path} has no column {', '.join(missing)}; its first row is: {shown}")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise SpreadsheetError(f"{path} has the column {', '.join(twice)} more than once")
    return _lines(path, header, _table(path, text, separator)[1:])


def read_number(cell: str) -> float:
    """Return the number that a cell shows, with a decimal point or comma; raises ValueError for anything else.

    >>> read_number(" 5,5 ")
    5.5
    """
    shown = cell.strip()
    if not _NUMBER.fullmatch(shown):
        raise ValueError(f"{shown[:40]!r} is not a number")
    return float(shown.replace(",", "."))


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SpreadsheetError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise SpreadsheetError(f"{path} has {len(data):,} bytes; the limit is {MAX_BYTES:,}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpreadsheetError(f"{path} is not UTF-8 ({error}); save it as 'CSV UTF-8'") from None
    return re.sub(r"\Asep=.\r?\n", "", text)  # Excel's own mark, which it does not show as a row


def _header(text: str, separator: str) -> list[str]:
    try:
        first = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    except csv.Error:
        return []
    return [name.strip().lower() for name in first]


def _table(path: Path, text: str, separator: str) -> list[list[str]]:
    limit = csv.field_size_limit(MAX_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        return list(reader)
    except csv.Error as error:
        raise SpreadsheetError(f"{path}, line {reader.line_num}: {error}") from None
    finally:
        csv.field_size_limit(limit)


def _lines(path: Path, header: list[str], table: list[list[str]]) -> list[Line]:
    lines = []
    for number, cells in enumerate(table, start=2):
        if any(cell.strip() for cell in cells[len(header) :]):
            raise SpreadsheetError(f"{path}, row {number} has {len(cells)} cells, the first row {len(header)}")
        if any(cell.strip() for cell in cells):
            padded = cells + [""] * (len(header) - len(cells))
            lines.append(Line(number, dict(zip(header, padded, strict=False))))
    return lines
