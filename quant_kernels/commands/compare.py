"""`compare BASE.gguf OTHER.gguf --text FILE`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from quant_kernels.commands.perplexity import add_text, progress_bar, read_text, to_json

if TYPE_CHECKING:
    from quant_kernels.measures.compare import Comparison, Estimate


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("compare", help="how far a GGUF model strays from its base: KL divergence, top-1 ...")
    command.add_argument("base", type=Path, metavar="BASE.gguf")
    command.add_argument("other", type=Path, metavar="OTHER.gguf")
    add_text(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from quant_kernels.measures.compare import compare
    from quant_kernels.measures.overlap import calibration_sketch, check_overlap
    from quant_kernels.models.gguf_file import load_model

    text = read_text(options.text)
    base, other = load_model(options.base), load_model(options.other)
    for model in (base, other):
        check_overlap(calibration_sketch(model.metadata), text)
    tokens = base.tokenizer.encode(text, add_special=True)
    with progress_bar("windows") as advance:
        result = compare(base, other, tokens, options.n_ctx, progress=advance)
    print(to_json(result) if options.json else "\n".join(lines(result)))


def lines(result: Comparison) -> Iterator[str]:
    """What llama-perplexity --kl-divergence prints, in its order."""
    base = result.base
    yield f"{base.tokens_scored} tokens scored in {base.windows} windows of {base.n_ctx}"
    if result.tokens_undefined:
        yield f"the logits of {result.tokens_undefined} of them are NaN, and so is each figure"
    yield "\nperplexity"
    yield measured("other", result.other)
    yield measured("base", result.base)
    yield f"{'correlation of losses':<24}{100 * result.correlation:>12.2f} %"
    yield measured("ln(other / base)", result.log_ratio)
    yield measured("other / base", result.ratio)
    yield measured("other - base", result.difference)
    yield "\nKL divergence of other from base, nats"
    yield measured("mean", result.kl_divergence)
    yield from (f"{percentile(at):<24}{value:>12.6f}" for at, value in reversed(result.kl_percentiles.items()))
    yield "\nchange of the probability of the text's token, percentage points"
    yield measured("mean", result.delta_p, scale=100)
    yield measured("root mean square", result.delta_p_rms, scale=100)
    yield from (
        f"{percentile(at):<24}{100 * value:>12.6f}" for at, value in reversed(result.delta_p_percentiles.items())
    )
    yield "\nsame most likely token, percent"
    yield measured("mean", result.same_top, scale=100)


def measured(label: str, estimate: Estimate, scale: float = 1) -> str:
    return f"{label:<24}{scale * estimate.value:>12.6f} +/- {scale * estimate.standard_error:.6f}"


def percentile(at: float) -> str:
    return {0: "minimum", 50: "median", 100: "maximum"}.get(at, f"{at:g} %")
