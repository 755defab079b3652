"""`bench [quantize|matmul]`: the benchmarks of the source checkout."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"
BENCHMARKS = ("quantize", "matmul")


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("bench", help="the speed of these kernels beside their peers, as ratios")
    command.add_argument("benchmark", nargs="?", choices=BENCHMARKS, help="(both)")
    command.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds, of which the best counts (5)")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    if options.rounds < 1:
        raise ValueError(f"--rounds is {options.rounds}, at least 1 is needed")
    for name in [options.benchmark] if options.benchmark else BENCHMARKS:
        script = FOLDER / f"bench_{name}.py"
        if not script.is_file():
            raise ValueError(f"there is no {script}: the benchmarks are in the source checkout, not in the package")
        done = subprocess.run([sys.executable, script, "--rounds", str(options.rounds)])
        if done.returncode:
            raise ValueError(f"{script.name} ended with exit code {done.returncode}")
