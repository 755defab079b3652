"""`quantize MODEL.gguf OUT.gguf --mix MIX`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quant_kernels.models.plan_mix import Plan


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "quantize", help="write a GGUF model in another mix of formats, as llama-quantize does"
    )
    command.add_argument("model", type=Path, metavar="MODEL.gguf")
    command.add_argument("out", type=Path, nargs="?", metavar="OUT.gguf", help="not with --dry-run")
    command.add_argument(
        "--mix", required=True, metavar="MIX", help="which type each tensor gets: Q4_K_M, Q8_0, IQ4_XS ..."
    )
    command.add_argument("--imatrix", type=Path, metavar="FILE", help="importance matrix, llama.cpp's GGUF")
    command.add_argument("--allow-requantize", action="store_true", help="take a model that is quantized already")
    command.add_argument("--dry-run", action="store_true", help="only say what each tensor would become")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from quant_kernels.models.quantize_model import plan_file, quantize_file

    if (options.out is None) != options.dry_run:
        raise ValueError("--dry-run writes no OUT.gguf" if options.dry_run else "OUT.gguf is missing")
    if options.dry_run:
        plan = plan_file(options.model, options.mix, imatrix=options.imatrix is not None)
    else:
        from quant_kernels.commands.perplexity import progress_bar

        with progress_bar("tensors") as advance:
            plan = quantize_file(
                *(options.model, options.out, options.mix, options.imatrix),
                allow_requantize=options.allow_requantize,
                progress=advance,
            )
    if options.json:
        print(json.dumps(as_json(plan)))
        return
    if options.dry_run:
        print_tensors(plan)
    print(plan)


def print_tensors(plan: Plan) -> None:
    from rich.console import Console

    from quant_kernels.commands.inspect_gguf import NARROWEST, UNBOUNDED, shape, sizes, table

    console = Console(markup=False, highlight=False, emoji=False)
    console.width = max(console.width, NARROWEST) if sys.stdout.isatty() else UNBOUNDED
    headings = ("tensor", "shape", "type", "bits/weight", "bytes")
    tensors = plan.tensors.values()
    console.print(table(headings, ((t.name, shape(t.shape), t.qtype, *sizes(t)) for t in tensors)))


def as_json(plan: Plan) -> dict[str, Any]:
    from quant_kernels.models.inspect_gguf import sizes

    tensors = [{"name": t.name, "shape": t.shape, "type": t.qtype, **sizes(t)} for t in plan.tensors.values()]
    return {"mix": plan.mix, **sizes(plan), "fallbacks": plan.fallbacks, "tensors": tensors}
