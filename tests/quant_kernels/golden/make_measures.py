"""Make tiny_compare.json and tiny_imatrix.gguf: what llama-perplexity and llama-imatrix find of two tiny models.

    python make_measures.py FOLDER_WITH_LLAMA_CPP_PROGRAMS

The programs are built from the sources in the PyPI sdist of llama-cpp-python 0.3.36, with cmake's default flags on
x86-64.
"""

import argparse
import json
import re
import runpy
import subprocess
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
TEXT = HERE.parent / "data" / "lighthouse.txt"
EXACT = ("-b", "64", "-ub", "64", "-c", "64", "-ctk", "f32", "-ctv", "f32", "-fa", "off", "-t", "1")
LINE = re.compile(r"^ *(\S.*?) *: +(-?[\d.]+)%?(?: ± +(-?[\d.]+) ?%?)?$", re.MULTILINE)


def coarsen(tensors):
    """What stands for quantization here: each weight matrix rounded to multiples of 1/32, still F32."""
    for name, values in tensors.items():
        if values.ndim == 2:
            tensors[name] = np.round(values * 32) / 32


def write_models(folder: Path) -> tuple[Path, Path]:
    tools = runpy.run_path(str(HERE.parent / "conftest.py"))
    pairs = tools["tiny_metadata"](tokenizer__ggml__add_bos_token=True)
    tensors = tools["tiny_tensors"](pairs)
    base = tools["write_gguf"](folder / "base.gguf", pairs, tensors)
    coarsen(tensors)
    return base, tools["write_gguf"](folder / "other.gguf", pairs, tensors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("programs", type=Path, help="folder with llama-perplexity and llama-imatrix")
    programs = parser.parse_args().programs

    def run(program, model, *options):
        command = [programs / program, "-m", model, "-f", TEXT.name, *EXACT, *options]
        return subprocess.run(command, cwd=TEXT.parent, check=True, capture_output=True, text=True).stdout

    with tempfile.TemporaryDirectory() as folder:
        base, other = write_models(Path(folder))
        file = Path(folder) / "base.kld"
        run("llama-perplexity", base, "--kl-divergence-base", file)
        printed = run("llama-perplexity", other, "--kl-divergence-base", file, "--kl-divergence")
        run("llama-imatrix", base, "--no-ppl", "-o", HERE / "tiny_imatrix.gguf")
    figures = {label: [float(n) for n in numbers if n] for label, *numbers in LINE.findall(printed)}
    (HERE / "tiny_compare.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
