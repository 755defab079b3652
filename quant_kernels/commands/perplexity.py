"""`perplexity MODEL.gguf --text FILE`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("perplexity", help="perplexity of a GGUF model on a text, as llama-perplexity does")
    command.add_argument("model", type=Path, metavar="MODEL.gguf")
    command.add_argument("--text", type=Path, required=True, metavar="FILE", help="UTF-8 text")
    command.add_argument("--n-ctx", type=int, default=512, metavar="N", help="tokens per window (512)")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from quant_kernels.measures.perplexity import perplexity
    from quant_kernels.models.gguf_file import load_model

    text = read_text(options.text)
    model = load_model(options.model)
    tokens = model.tokenizer.encode(text, add_special=True)
    with progress_bar("windows") as advance:
        result = perplexity(model, tokens, options.n_ctx, progress=advance)
    if options.json:
        # JSON has no NaN, which a broken model scores
        print(json.dumps({k: v if math.isfinite(v) else None for k, v in dataclasses.asdict(result).items()}))
    else:
        scored = f"{result.tokens_scored} tokens scored in {result.windows} windows of {result.n_ctx}"
        print(f"perplexity {result.value:.4f} +/- {result.standard_error:.5f} ({scored})")


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
