"""`inspect FILE.gguf`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from quant_kernels.models.inspect_gguf import Contents, Share

NARROWEST = 80  # columns: below that the terminal folds lines itself
UNBOUNDED = 10_000  # columns of what is not a terminal: a table is as wide as it needs to be
LONGEST = 60  # characters of a key's value in a table
TEXT = ("tensor", "shape", "type", "key", "value")  # headings of columns that stand on the left


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("inspect", help="what a GGUF file holds: tensors, types, sizes, bits per weight")
    command.add_argument("model", type=Path, metavar="FILE.gguf")
    command.add_argument("--metadata", action="store_true", help="list the key-value pairs too")
    command.add_argument("--json", action="store_true", help="print everything as one JSON object")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from quant_kernels.models.inspect_gguf import as_json, inspect_gguf

    contents = inspect_gguf(options.model)
    if options.json:
        print(json.dumps(as_json(contents), allow_nan=False))
        return
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False)
    console.width = max(console.width, NARROWEST) if sys.stdout.isatty() else UNBOUNDED
    for label, value in summary(contents).items():
        console.print(f"{label:<17}{value}", soft_wrap=True)
    for table in tables(contents, options.metadata):
        console.print()
        console.print(table)


def summary(contents: Contents) -> dict[str, str]:
    architecture, name = (contents.metadata.get(f"general.{key}") for key in ("architecture", "name"))
    return {
        "file": printable(str(contents.path)),
        "size": f"{contents.file_bytes:,} bytes",
        "GGUF version": str(contents.version),
        "architecture": "not given" if architecture is None else abbreviated(architecture),
        "name": "not given" if name is None else abbreviated(name),
        "file type": contents.file_type or "not given",
        "parameters": f"{contents.n_weights:,}",
        "bits per weight": bits(contents),
        "key-value pairs": str(len(contents.metadata)),
        "tensors": str(len(contents.tensors)),
    }


def tables(contents: Contents, metadata: bool) -> Iterator[Table]:
    if metadata:
        yield table(("key", "value"), ((key, abbreviated(value)) for key, value in contents.metadata.items()))
    yield table(
        ("tensor", "shape", "type", "bits/weight", "bytes"),
        ((tensor.name, shape(tensor.shape), tensor.qtype, *sizes(tensor)) for tensor in contents.tensors),
    )
    yield table(
        ("type", "tensors", "weights", "bits/weight", "bytes", "share"),
        (
            (share.qtype, str(share.n_tensors), f"{share.n_weights:,}", *sizes(share), percent(share, contents))
            for share in contents.by_type()
        ),
    )


def table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    """Where a terminal is narrow names and values fold; no other column does."""
    from rich import box
    from rich.table import Table

    result = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        is_text, may_fold = heading in TEXT, heading in ("tensor", "key", "value")
        result.add_column(heading, justify="left" if is_text else "right", overflow="fold", no_wrap=not may_fold)
    for first, *others in rows:
        result.add_row(printable(first), *others)
    return result


def shape(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes)) or "scalar"


def sizes(share: Share) -> tuple[str, str]:
    return bits(share), f"{share.n_bytes:,}"


def bits(share: Share) -> str:
    return "-" if share.bits_per_weight is None else f"{share.bits_per_weight:.4f}"


def percent(share: Share, of: Share) -> str:
    return f"{100 * share.n_bytes / of.n_bytes:.1f} %" if of.n_bytes else "-"


def abbreviated(value: Any) -> str:
    if isinstance(value, list):
        return f"array of {len(value)}: {', '.join(map(abbreviated, value[:3]))}{', ...' if len(value) > 3 else ''}"
    text = str(value)
    return printable(text) if len(text) <= LONGEST else f"{printable(text[:LONGEST])}... ({len(text)} characters)"


def printable(text: str) -> str:
    """Without what would move a terminal's cursor or change its colours."""
    return text if text.isprintable() else repr(text)
