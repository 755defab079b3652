"""Make mixes.json: what llama-quantize of llama.cpp decides, and what it writes, in every mix.

    python make_mixes.py LLAMA_QUANTIZE

The program is the one that cmake builds on x86-64, with no options, from the llama.cpp in the PyPI sdist of
llama-cpp-python 0.3.36. Its `--dry-run` says which type each tensor of a model gets: that is `types`, for models whose
weights are a hole in the file. `digests` are those of the tensors' bytes in the files that it writes of a tiny model.
Both are without and with an importance matrix, if that changes anything; where the program refuses to do without it,
there is the tensor that it names.
"""

import argparse
import hashlib
import json
import math
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import torch

from quant_kernels.measures.imatrix import Entry, Imatrix, save_imatrix
from quant_kernels.models.mixes import MIXES
from quant_kernels.models.plan_mix import layer_of, ranges
from quant_kernels.models.shapes import Architecture, llama_shapes

TARGET = Path(__file__).parent / "mixes.json"
LINE = re.compile(r"\[ *\d+/ *\d+\] +(\S+) +- \[[\d, ]+\], type = +(\w+), size = .*?(?:\((\w+)\))?$", re.MULTILINE)
OFFENDER = re.compile(r"offending tensor: (\S+)")
Q4_K_L = ("--output-tensor-type", "q8_0", "--token-embedding-type", "q8_0", "Q4_K_M")
LLAMA = Architecture(32, n_embd=256, n_ff=512, n_head=8, n_head_kv=8, vocab=256, n_ctx=64)

Shapes = dict[str, tuple[int, ...]]
Heads = dict[str, int]


def architectures() -> dict[str, tuple[Shapes, Heads]]:
    """Shapes and heads by name: layers and heads decide about types, so that the matrices can be small."""
    models = {
        "7B": LLAMA,
        "8B": replace(LLAMA, n_head_kv=2),
        "13B, 2 heads share": replace(LLAMA, n_layer=40, n_head_kv=4),
        "65B": replace(LLAMA, n_layer=80),
        "70B": replace(LLAMA, n_layer=80, n_head_kv=1),
        "70B, 2 heads share": replace(LLAMA, n_layer=80, n_head_kv=4),
        "8 layers, tied": replace(LLAMA, n_layer=8, tied=True),
        "1 layer": replace(LLAMA, n_layer=1, n_head_kv=2),
        "8 experts": replace(LLAMA, n_head_kv=2, n_expert=8),
        "8 experts, 80 layers": replace(LLAMA, n_layer=80, n_head_kv=4, n_expert=8),
        "4 experts": replace(LLAMA, n_layer=16, n_expert=4),
        "576 columns, tied": replace(LLAMA, n_layer=30, n_embd=576, n_ff=1536, n_head=9, n_head_kv=3, tied=True),
        "96 columns": replace(LLAMA, n_layer=16, n_embd=96, n_ff=256, n_head=3, n_head_kv=3),
        "40 columns": replace(LLAMA, n_layer=16, n_embd=40, n_ff=256, n_head=4, n_head_kv=1),
    }
    found = {name: (llama_shapes(model), model.heads) for name, model in models.items()}
    found["8 experts, a tensor each"] = split_experts(found["8 experts"][0]), found["8 experts"][1]
    found["fused attention"] = fused_attention(found["8 layers, tied"][0]), found["8 layers, tied"][1]
    return found


def split_experts(shapes: Shapes) -> Shapes:
    """The first files of Mixtral have blk.0.ffn_down.0.weight to blk.0.ffn_down.7.weight."""
    split = {name: shape for name, shape in shapes.items() if "_exps" not in name}
    for name in shapes.keys() - split.keys():
        split |= {name.replace("_exps", f".{i}"): shapes[name][1:] for i in range(shapes[name][0])}
    return split


def fused_attention(shapes: Shapes) -> Shapes:
    """attn_qkv, and more names that decide whether a matrix is quantized at all."""
    fused = {name.replace("attn_v", "attn_qkv"): shape for name, shape in shapes.items()}
    matrices = ("position_embd.weight", "blk.0.attn_q_norm.weight", "blk.0.foreign.weight", "blk.1.foreign.bias")
    return fused | dict.fromkeys(matrices, (2, 256)) | {"blk.2.row.weight": (1, 256)}


def tiny_model() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights of two layers with a few rows each, and the importance of the columns in the layers."""
    random = np.random.RandomState(0)  # whose stream numpy has frozen
    shapes = llama_shapes(replace(LLAMA, n_layer=2, n_head=4, n_head_kv=1))
    shapes = {name: (4, shape[-1]) if len(shape) > 1 else shape for name, shape in shapes.items()}
    weights = {name: random.standard_normal(shape).astype(np.float32) / 16 for name, shape in shapes.items()}
    columns = {name: shape[-1] for name, shape in shapes.items() if name.startswith("blk") and len(shape) > 1}
    return weights, {name: random.chisquare(1, n).astype(np.float32) for name, n in columns.items()}


TINY_HEADS = {"n_head": 4, "n_head_kv": 1, "n_expert": 0}


def write_model(path: Path, tensors: Mapping[str, np.ndarray | tuple[int, ...]], heads: Heads) -> Path:
    """Writes a GGUF in F32. Tensors of which there is only a shape become a hole in the file."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1 + max(map(layer_of, tensors)))
    writer.add_context_length(LLAMA.n_ctx)
    writer.add_embedding_length(LLAMA.n_embd)
    writer.add_feed_forward_length(LLAMA.n_ff)
    writer.add_head_count(heads["n_head"])
    writer.add_head_count_kv(heads["n_head_kv"])
    writer.add_layer_norm_rms_eps(1e-5)
    if heads["n_expert"]:
        writer.add_expert_count(heads["n_expert"])
        writer.add_expert_used_count(2)
    for name, tensor in tensors.items():
        shape = getattr(tensor, "shape", tensor)
        writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * math.prod(shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors.values():
        if isinstance(tensor, np.ndarray):
            writer.write_tensor_data(tensor)
    writer.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + sum(4 * math.prod(getattr(x, "shape", x)) + 32 for x in tensors.values()))
    return path


def imatrix_of(importances: Mapping[str, np.ndarray]) -> Imatrix:
    one = torch.ones(1, dtype=torch.int64)
    entries = {name: Entry(torch.from_numpy(values)[None], one) for name, values in importances.items()}
    return Imatrix(entries, chunk_count=3, chunk_size=64, datasets=("calibration.txt",))


def run(program: Path, *arguments: object) -> str:
    """What the program says, whether it does as it is told or refuses."""
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    return done.stdout + done.stderr


def arguments(mix: str, imatrix: Path | None, *files: Path) -> list[object]:
    *options, name = Q4_K_L if mix == "Q4_K_L" else (mix,)
    return [*options, *(("--imatrix", imatrix) if imatrix else ()), *files, name, "1"]


def types_of(program: Path, model: Path, mix: str, imatrix: Path | None) -> dict[str, str] | str:
    said = run(program, "--dry-run", *arguments(mix, imatrix, model))
    if "will require an imatrix" in said:
        return OFFENDER.findall(run(program, *arguments(mix, imatrix, model, model.with_suffix(".out"))))[0]
    return brief({name: (after or now).upper() for name, now, after in LINE.findall(said)})


def brief(types: Mapping[str, str]) -> dict[str, str]:
    """The most frequent type, and where the others are, for each kind of tensor that has them; F32 left out."""
    most = Counter(qtype for qtype in types.values() if qtype != "F32").most_common(1)[0][0]
    layers: dict[str, dict[str, list[int]]] = {}
    for name, qtype in types.items():
        layers.setdefault(re.sub(r"^blk\.\d+\.", "", name), {}).setdefault(qtype, []).append(layer_of(name))
    parts = {kind: [f"{qtype} {ranges(at)}" for qtype, at in found.items()] for kind, found in layers.items()}
    return {"most": most} | {kind: "; ".join(parts[kind]) for kind in parts if set(layers[kind]) - {most, "F32"}}


def digests_of(program: Path, model: Path, mix: str, imatrix: Path | None) -> str:
    """Eight hexadecimal digits for each tensor, in the order of the file; or the tensor that needs an imatrix."""
    out = model.with_suffix(".out")
    said = run(program, *arguments(mix, imatrix, model, out))
    refused = OFFENDER.findall(said)
    return refused[0] if refused else " ".join(digest(tensor.data) for tensor in gguf.GGUFReader(out).tensors)


def digest(data: np.ndarray) -> str:
    return hashlib.sha256(data.tobytes()).hexdigest()[:8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("program", type=Path, metavar="LLAMA_QUANTIZE")
    program = parser.parse_args().program
    weights, importances = tiny_model()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_imatrix(imatrix_of(importances), imatrix := folder / "imatrix.gguf")
        types = {}
        for name, (shapes, heads) in architectures().items():
            model = write_model(folder / "shapes.gguf", shapes, heads)
            types[name] = in_every_mix(lambda *case, model=model: types_of(program, model, *case), imatrix)
        model = write_model(folder / "tiny.gguf", weights, TINY_HEADS)
        digests = in_every_mix(lambda *case: digests_of(program, model, *case), imatrix)
    partial = TARGET.with_suffix(".partial")
    partial.write_text(json.dumps({"types": types, "digests": digests}, indent=0) + "\n")
    partial.replace(TARGET)


def in_every_mix(function, imatrix: Path) -> dict[str, object]:
    found = {mix: function(mix, None) for mix in MIXES}
    with_imatrix = {f"{mix} with imatrix": function(mix, imatrix) for mix in MIXES}
    return found | {key: value for key, value in with_imatrix.items() if value != found[key.partition(" ")[0]]}


if __name__ == "__main__":
    main()
