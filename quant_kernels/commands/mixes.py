"""`mixes MODEL.gguf --text FILE`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from quant_kernels.commands.perplexity import add_text, progress_bar, read_text, without_nan

if TYPE_CHECKING:
    from rich.table import Table

    from quant_kernels.measures.imatrix import Imatrix
    from quant_kernels.measures.mix_table import MixRow

PICTURES = (".svg", ".png", ".pdf")
BASE = "F16"
LINE = 100  # characters, where no terminal has its own


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("mixes", help="size, perplexity and KL divergence of every mix of a GGUF model")
    command.add_argument("model", type=Path, metavar="MODEL.gguf")
    add_text(command)
    source = command.add_mutually_exclusive_group()
    source.add_argument("--imatrix", type=Path, metavar="FILE.gguf", help="importance matrix, for all mixes")
    source.add_argument("--calibrate", type=Path, metavar="FILE", help="text to make an importance matrix from")
    command.add_argument("--mixes", nargs="+", metavar="MIX", help="which (all that can be had without an imatrix)")
    command.add_argument("--windows", type=int, metavar="N", help="read the first N windows of each text only")
    command.add_argument("--plot", type=Path, metavar="FILE", help="save the picture: .svg, .png or .pdf")
    command.add_argument("--workers", type=int, metavar="N", help="processes (one for each core)")
    command.add_argument("--allow-requantize", action="store_true", help="take a model that is quantized already")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from quant_kernels.measures.mix_table import check_counts, mix_table, possible_mixes

    check_counts(windows=options.windows, workers=options.workers)
    text = read_text(options.text)
    check_plot(options.plot, options.mixes)
    imatrix = read_imatrix(options, text)
    mixes = options.mixes or possible_mixes(options.model, imatrix)
    with progress_bar("mixes") as advance:
        rows = mix_table(
            options.model,
            text,
            mixes,
            imatrix=imatrix,
            n_ctx=options.n_ctx,
            max_windows=options.windows,
            allow_requantize=options.allow_requantize,
            workers=options.workers,
            progress=advance,
        )
    if options.plot:
        save_plot(rows, options.plot, options.model.name)
    if options.json:
        print(json.dumps([without_nan(asdict(row)) for row in rows], allow_nan=False))
    else:
        print_table(rows, options.model.name)


def read_imatrix(options: argparse.Namespace, text: str) -> Imatrix | None:
    from quant_kernels.measures.collect_imatrix import collect_imatrix
    from quant_kernels.measures.imatrix import load_imatrix
    from quant_kernels.measures.overlap import check_overlap, sketch_text
    from quant_kernels.models.gguf_file import load_model

    if options.imatrix:
        return load_imatrix(options.imatrix)
    if not options.calibrate:
        return None
    calibration = read_text(options.calibrate)
    check_overlap(sketch_text(calibration), text)
    model = load_model(options.model)
    tokens = model.tokenizer.encode(calibration, add_special=True)[
        : options.windows and options.windows * options.n_ctx
    ]
    with progress_bar("windows of the calibration text") as advance:
        return collect_imatrix(model, tokens, options.n_ctx, progress=advance)


def check_plot(path: Path | None, mixes: Sequence[str] | None) -> None:
    """Raises ValueError before the work is done in vain."""
    if path is None:
        return
    if not path.absolute().parent.is_dir():
        raise ValueError(f"{path.parent} is not a folder")
    if path.suffix not in PICTURES:
        raise ValueError(f"--plot {path} ends in {path.suffix!r}, not in {', '.join(PICTURES)}")
    if mixes and (mixes[0] != BASE or len(mixes) < 2):
        raise ValueError(f"a plot is drawn against {BASE}: --mixes has to begin with it and name others")


def save_plot(rows: Sequence[MixRow], path: Path, model: str) -> None:
    """Writes the picture, its format by the path's ending, whole or not at all."""
    import matplotlib

    matplotlib.use("agg")
    from quant_kernels.models.gguf_writer import replacing
    from quant_kernels.plots import perplexity_against_size

    axes = perplexity_against_size([plotted(row, rows[0]) for row in rows], title=model)
    with replacing(path) as partial:
        axes.figure.savefig(partial, format=path.suffix[1:], bbox_inches="tight", dpi=150)


def plotted(row: MixRow, base: MixRow) -> dict[str, object]:
    """A row with the error of its distance from the base: both read the same text, so it is far below its own."""
    return asdict(row) | {"standard_error": base.perplexity * row.ratio.standard_error}


def print_table(rows: Sequence[MixRow], model: str) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else LINE).print(table(rows, model))


def table(rows: Sequence[MixRow], title: str) -> Table:
    """The rows as text: bits are per weight; change, KL divergence and same top token are from the file's own model."""
    from rich import box
    from rich.table import Table

    drawn = Table(title=title, box=box.SIMPLE_HEAD, padding=0)
    drawn.add_column("mix", no_wrap=True)
    for heading in ("MB", "bits", "perplexity", "change, %", "KL, nats", "same top, %"):
        drawn.add_column(heading, justify="right")
    for row in rows:
        drawn.add_row(
            row.name,
            f"{row.bytes / 1e6:.2f}",
            f"{row.bits_per_weight:.3f}",
            beside(row.perplexity, row.standard_error),
            beside(100 * (row.ratio.value - 1), 100 * row.ratio.standard_error, sign="+"),
            f"{row.kl_divergence.value:.5f} ± {row.kl_divergence.standard_error:.5f}",
            f"{100 * row.same_top.value:.1f} ± {100 * row.same_top.standard_error:.1f}",
        )
    return drawn


def beside(value: float, error: float, sign: str = "") -> str:
    """A number and its error, with fewer digits where there are many in front of the point."""
    digits = 2 if abs(value) < 1000 else 0
    return f"{value:{sign}.{digits}f} ± {error:.{digits}f}"
