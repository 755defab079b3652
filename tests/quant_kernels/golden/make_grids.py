"""Make quant_kernels/formats/grids.npz: the points of the I-quants' grids, from ggml's source.

    python make_grids.py [--sdist FILE | --source DIR]

The source is that of make_golden.py, which also says how it is found. ggml holds a point as a number, with 2 or 3 bits
to a code, the first code in the lowest bits. The same source gives the same file.
"""

import argparse
import re
import runpy
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
TARGET = HERE.parents[2] / "quant_kernels" / "formats" / "grids.npz"
TABLES = {  # ggml's name of the table, and the number of codes in a point
    "IQ2_XXS": ("kgrid_2bit_256", 8),
    "IQ2_XS": ("kgrid_2bit_512", 8),
    "IQ2_S": ("kgrid_2bit_1024", 8),
    "IQ1_S": ("kgrid_1bit_2048", 8),
    "IQ3_XXS": ("kgrid_256", 4),
    "IQ3_S": ("kgrid_512", 4),
}


def read_points(source: str, table: str, dim: int) -> np.ndarray:
    """The codes of a table in C: (n_points, dim) uint8."""
    numbers = re.search(rf"\buint16_t {table}\[\w+\] = \{{([\d,\s]+)\}}", source)[1]
    packed = np.array([int(number) for number in numbers.split(",") if number.strip()])
    bits = {8: 2, 4: 3}[dim]
    return (packed[:, None] >> (bits * np.arange(dim)) & (1 << bits) - 1).astype(np.uint8)


def main() -> None:
    golden = runpy.run_path(str(HERE / "make_golden.py"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--sdist", type=Path, help=f"the sdist of {golden['SDIST']}")
    where.add_argument("--source", type=Path, help="the folder that this sdist unpacks to")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ggml = args.source / golden["GGML"] if args.source else golden["unpack"](args.sdist, Path(folder))
        source = (ggml / "src" / "ggml-quants.c").read_text()
    golden["save"](TARGET, {name: read_points(source, *table) for name, table in TABLES.items()})


if __name__ == "__main__":
    main()
