"""`python -m quant_kernels`: this package from a shell."""

from __future__ import annotations

import argparse
import os
import sys

from quant_kernels.commands import bench, compare, imatrix, inspect_gguf, mixes, perplexity, quantize

COMMANDS = (inspect_gguf, imatrix, quantize, perplexity, compare, mixes, bench)
EXIT_READER_GONE, EXIT_BAD_INPUT = 1, 2  # the first is rich's too


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; returns 0, 2 after a line on stderr for input that cannot be used, 1 if nobody reads on."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_READER_GONE
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
