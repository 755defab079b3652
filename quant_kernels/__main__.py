"""`python -m quant_kernels`: this package from a shell."""

from __future__ import annotations

import argparse
import sys

from quant_kernels.commands import bench, compare, imatrix, inspect_gguf, mixes, perplexity, quantize

COMMANDS = (inspect_gguf, imatrix, quantize, perplexity, compare, mixes, bench)
EXIT_BAD_INPUT = 2


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; returns 0, or 2 after a one-line message on stderr for input that cannot be used."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"quant_kernels {options.command}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="quant_kernels", description="Quantized models: their files and their measures.")
    commands = top.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add(commands)
    return top


if __name__ == "__main__":
    sys.exit(main())
