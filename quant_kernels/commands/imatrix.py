"""`imatrix MODEL.gguf --text FILE --out FILE.gguf`."""

from __future__ import annotations

import argparse
from pathlib import Path

from quant_kernels.commands.perplexity import progress_bar, read_text


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("imatrix", help="importance matrix of a GGUF model on a text, as llama-imatrix does")
    command.add_argument("model", type=Path, metavar="MODEL.gguf")
    command.add_argument("--text", type=Path, required=True, metavar="FILE", help="UTF-8 text to calibrate on")
    command.add_argument("--out", type=Path, required=True, metavar="FILE.gguf", help="the imatrix, llama.cpp's GGUF")
    command.add_argument(
        "--exclude", type=Path, nargs="+", default=[], metavar="FILE", help="texts kept to evaluate on"
    )
    command.add_argument("--n-ctx", type=int, default=512, metavar="N", help="tokens per window (512)")
    command.add_argument("--process-output", action="store_true", help="collect for output.weight too")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from quant_kernels.measures.collect_imatrix import collect_imatrix
    from quant_kernels.measures.imatrix import save_imatrix
    from quant_kernels.models.gguf_file import load_model

    check_out(options)
    text = read_text(options.text)
    check_excluded(text, options.exclude)
    model = load_model(options.model)
    with progress_bar("windows") as advance:
        imatrix = collect_imatrix(
            *(model, text, options.n_ctx),
            process_output=options.process_output,
            dataset=str(options.text),
            progress=advance,
        )
    save_imatrix(imatrix, options.out)
    read = f"{imatrix.chunk_count * imatrix.chunk_size} tokens in {imatrix.chunk_count} windows"
    print(f"{options.out}: importance of the columns of {len(imatrix.entries)} weights, from {read}")


def check_out(options: argparse.Namespace) -> None:
    """Raises ValueError before the work is done in vain, or over one of its sources."""
    if not options.out.parent.is_dir():
        raise ValueError(f"{options.out.parent} is not a folder")
    for source in (options.model, options.text, *options.exclude):
        if options.out.exists() and source.exists() and options.out.samefile(source):
            raise ValueError(f"--out {options.out} would replace {source}")


def check_excluded(text: str, excluded: list[Path]) -> None:
    from quant_kernels.measures.overlap import check_overlap, sketch_text

    sketch = sketch_text(text) if excluded else None
    for path in excluded:
        try:
            check_overlap(sketch, read_text(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
