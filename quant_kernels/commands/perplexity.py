"""`perplexity MODEL.gguf --text FILE`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("perplexity", help="perplexity of a GGUF model on a text, as llama-perplexity does")
    command.add_argument("model", type=Path, metavar="MODEL.gguf")
    add_text(command)
    command.add_argument("--stride", type=int, metavar="N", help="windows begin every N tokens and score what is new")
    command.set_defaults(run=run)


def add_text(command: argparse.ArgumentParser) -> None:
    command.add_argument("--text", type=Path, required=True, metavar="FILE", help="UTF-8 text")
    command.add_argument("--n-ctx", type=int, default=512, metavar="N", help="tokens per window (512)")
    command.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> None:
    from quant_kernels.measures.perplexity import perplexity_of_text
    from quant_kernels.models.gguf_file import load_model

    text = read_text(options.text)
    model = load_model(options.model)
    with progress_bar("windows") as advance:
        result = perplexity_of_text(model, text, options.n_ctx, stride=options.stride, progress=advance)
    if options.json:
        print(to_json(result))
        return
    stride = f", one every {result.stride}" if result.stride else ""
    scored = f"{result.tokens_scored} tokens scored in {result.windows} windows of {result.n_ctx}{stride}"
    print(f"perplexity {result.value:.4f} +/- {result.standard_error:.5f} ({scored})")
    units = f"{result.bytes_scored} bytes, {result.words_scored} words"
    print(f"bits per byte {result.bits_per_byte:.4f}, word perplexity {result.word_perplexity:.4f} ({units})")


def to_json(result: Any) -> str:
    """A dataclass as JSON, which has no NaN: that is null, as is what has no value."""
    return json.dumps(without_nan(dataclasses.asdict(result)), allow_nan=False)


def without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_text(path: Path) -> str:
    """Returns a file's text as llama.cpp's tools read it: without one newline at its end."""
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from error
    if not text.removesuffix("\n"):
        raise ValueError(f"{path} is empty")
    return text.removesuffix("\n")


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Gives advance(done, total), which draws a bar on stderr if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(unit, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
