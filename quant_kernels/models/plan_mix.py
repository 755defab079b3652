"""What a mix makes of a model: the type and the bytes of every tensor, from names and shapes alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from quant_kernels.models.inspect_gguf import Share, TensorInfo, totals
from quant_kernels.models.mixes import FALLBACKS, Mix, Place, choose, known_mix

# The kind of a tensor, by the first of these that its name contains.
KINDS = {
    "attn_qkv.weight": "attn_v",
    "attn_kv_b.weight": "attn_v",
    "attn_v.weight": "attn_v",
    "attn_k.weight": "attn_k",
    "attn_q.weight": "attn_q",
    "attn_output.weight": "attn_output",
    "ffn_up": "ffn_up",
    "ffn_gate": "ffn_gate",
    "ffn_down": "ffn_down",
}
EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")

# Matrices that are small, or no matrices of a product, stay as they are: whatever has this in its name.
KEPT = (
    *("_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "attn_rel_b.weight"),
    *("altup", "laurel", "per_layer_model_proj", "ssm_conv1d", "shortconv.conv.weight"),
    *("indexer.k_proj.weight", "indexer.q_proj.weight"),
    *(f"time_mix_{letter}{i}.weight" for letter in "wva" for i in range(3)),
    *("time_mix_first.weight", "time_mix_g1.weight", "time_mix_g2.weight", "time_mix_lerp_fused.weight"),
    *("time_mix_decay_w1.weight", "time_mix_decay_w2.weight"),
    *(".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos"),
    *(".patch_embd", ".patch_merger", "a.rvq.codebook", "mm.a.code_embd"),
)
IS_KEPT = re.compile("|".join(map(re.escape, KEPT))).search
KEPT_NAMES = ("position_embd.weight", "token_types.weight")

NEED_IMATRIX = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS")  # though not in embeddings and output


@dataclass(frozen=True)
class Plan(Share):
    """What `plan_mix` decided: `tensors` by name, in the order in which llama.cpp writes them; str() sums it up.

    `n_weights`, `n_bytes` and `bits_per_weight` count all tensors, norms included. `fallbacks` has the type that the
    mix wanted for each tensor whose columns do not divide into its blocks.
    """

    mix: str
    tensors: dict[str, TensorInfo]
    fallbacks: dict[str, str]

    def types(self) -> dict[str, str]:
        return {name: tensor.qtype for name, tensor in self.tensors.items()}

    def __str__(self) -> str:
        size = f"{self.n_bytes:,} bytes ({self.n_bytes / 2**20:,.2f} MiB)"
        head = f"{self.mix}: {self.n_weights:,} weights in {size}, {self.bits_per_weight:.4f} bits per weight"
        return "\n".join([head, *summary_lines(self.types())])


def plan_mix(
    shapes: Mapping[str, Sequence[int]],
    mix: str,
    *,
    n_head: int,
    n_head_kv: int,
    n_expert: int = 0,
    imatrix: bool = False,
    kept_types: Mapping[str, str] | None = None,
) -> Plan:
    """Decides for every tensor of a model which type it gets in a mix, as llama-quantize does, without its weights.

    shapes: tensor name, as in a GGUF, to torch's shape: (rows, columns), (columns,) or (experts, rows, columns).
    mix: a name out of `mixes.MIXES`. They are llama.cpp's, but for Q4_K_L: that is the community's recipe of Q4_K_M
    with embeddings and output in Q8_0.
    n_head, n_head_kv: query heads and key-value heads. n_expert: experts of each layer.
    imatrix: whether an importance matrix will be at hand, which some mixes need and others take into account.
    kept_types: the types of tensors that are not quantized, such as norms (F32).

    Raises ValueError for an unknown mix, shapes or heads that no model has, and a type that needs an imatrix.
    Source: src/llama-quant.cpp of llama.cpp, for the architecture llama and those without rules of their own.

    >>> from quant_kernels.models.shapes import ARCHITECTURES, llama_shapes
    >>> plan = plan_mix(llama_shapes(ARCHITECTURES["Llama-2-7B"]), "Q4_K_M", n_head=32, n_head_kv=32)
    >>> plan.tensors["blk.0.attn_v.weight"].qtype, plan.n_bytes, round(plan.bits_per_weight, 4)
    ('Q6_K', 4080263168, 4.8442)
    """
    rules = known_mix(mix)
    check_heads(n_head, n_head_kv, n_expert)
    check_shapes(shapes)
    places = Places(shapes, n_head, n_head_kv, n_expert, imatrix)
    tensors, fallbacks = {}, {}
    for name in sorted(shapes, key=in_file_order):
        shape = tuple(map(int, shapes[name]))
        if is_quantized(name, shape):
            wanted = wanted_type(rules, name, shape[-1], places)
            qtype = fitting_type(wanted, shape[-1])
            check_imatrix(name, qtype, mix, imatrix)
            if qtype != wanted:
                fallbacks[name] = wanted
        else:
            qtype = (kept_types or {}).get(name, "F32")
        tensors[name] = TensorInfo(math.prod(shape), count_bytes(shape, qtype), name, shape, qtype)
    return Plan(*totals(list(tensors.values())), mix, tensors, fallbacks)


class Places:
    """Tells each tensor's place. The layer is a count of the tensors of its kind, which are asked for in order."""

    def __init__(self, names: Collection[str], n_head: int, n_head_kv: int, n_expert: int, imatrix: bool):
        self.kinds = {name: kind_of(name, tied="output.weight" not in names) for name in names}
        self.n_layer = 1 + max(map(layer_of, names))
        self.n_attn_v = list(self.kinds.values()).count("attn_v")
        self.seen = Counter()
        is_70b = self.n_layer == 80 and n_head != n_head_kv and n_expert != 8
        self.model = {"gqa": n_head // n_head_kv, "n_expert": n_expert, "is_70b": is_70b, "imatrix": imatrix}

    def find(self, name: str, smallest: bool) -> Place:
        kind = self.kinds[name]
        layer = self.seen[kind]
        self.seen[kind] += 1
        if kind.startswith("ffn") and self.model["n_expert"] > 1 and not smallest:
            layer = layer_of(name)  # a layer can have a tensor for each expert
            if layer < 0:
                raise ValueError(f"{name} is in no layer: with experts its name should begin with blk.0. or the like")
        return Place(layer, self.n_attn_v if kind == "attn_v" else self.n_layer, **self.model)


def wanted_type(rules: Mix, name: str, columns: int, places: Places) -> str:
    kind = places.kinds[name]
    if kind == "output" and rules.base != "F16" and columns % block_size(rules.base):
        return "Q8_0"
    return choose(rules, kind, places.find(name, rules.smallest))


def fitting_type(wanted: str, columns: int) -> str:
    """The type itself, or what llama.cpp puts in its place where the columns do not divide into its blocks."""
    fallback = FALLBACKS.get(wanted, wanted)
    return next((qtype for qtype in (wanted, fallback) if columns % block_size(qtype) == 0), "F16")


def kind_of(name: str, tied: bool) -> str:
    if name == "output.weight" or (tied and name in EMBEDDINGS):
        return "output"
    if name in EMBEDDINGS:
        return "token_embd"
    return next((kind for part, kind in KINDS.items() if part in name), "other")


def is_quantized(name: str, shape: tuple[int, ...]) -> bool:
    n_dims = len(shape) - next((i for i, size in enumerate(shape) if size > 1), len(shape))
    kept = name in KEPT_NAMES or IS_KEPT(name)
    return n_dims >= 2 and name.endswith("weight") and not kept


def layer_of(name: str) -> int:
    """The layer that a name speaks of; -1 for what is outside the layers."""
    found = re.match(r"blk\.(\d+)", name)
    return int(found[1]) if found else -1


def in_file_order(name: str) -> tuple[int, str]:
    return layer_of(name), name


def block_size(qtype: str) -> int:
    return GGML_QUANT_SIZES[GGMLQuantizationType[qtype]][0]


def count_bytes(shape: tuple[int, ...], qtype: str) -> int:
    block, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[qtype]]
    return math.prod(shape) // block * n_bytes


def check_heads(n_head: int, n_head_kv: int, n_expert: int) -> None:
    for name, value, least in (("n_head", n_head, 1), ("n_head_kv", n_head_kv, 1), ("n_expert", n_expert, 0)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}, not an integer of at least {least}")
    if n_head % n_head_kv:
        raise ValueError(f"{n_head} query heads cannot share {n_head_kv} key-value heads evenly")


def check_shapes(shapes: Mapping[str, Sequence[int]]) -> None:
    if not shapes:
        raise ValueError("there are no tensors to plan for")
    for name, shape in shapes.items():
        if not len(shape) or min(shape) < 1:
            raise ValueError(f"{name} has shape {tuple(shape)}: at least one dimension, and none below 1, is needed")


def check_imatrix(name: str, qtype: str, mix: str, imatrix: bool) -> None:
    if not imatrix and needs_imatrix(name, qtype, mix):
        raise ValueError(f"{mix} needs an imatrix: it makes {name} {qtype}, which is useless without one")


def needs_imatrix(name: str, qtype: str, mix: str) -> bool:
    if name == "output.weight" or name in EMBEDDINGS:
        return False
    return qtype in NEED_IMATRIX or (qtype == "Q2_K" and mix == "Q2_K_S")


def summary_lines(types: Mapping[str, str]) -> Iterator[str]:
    """A line for each kind of tensor: which type it has, and in which layers where they differ."""
    groups: dict[str, dict[str, list[int]]] = {}
    for name, qtype in types.items():
        kind = re.sub(r"^blk\.\d+\.", "", name).removesuffix(".weight")
        groups.setdefault(kind, {}).setdefault(qtype, []).append(layer_of(name))
    for kind, layers in groups.items():
        parts = [qtype if len(layers) == 1 else f"{qtype} in {ranges(where)}" for qtype, where in layers.items()]
        yield f"  {kind:<18} {'; '.join(parts)}"


def ranges(layers: list[int]) -> str:
    """
    >>> ranges([0, 1, 2, 3, 6, 9, 28, 29])
    '0-3, 6, 9, 28-29'
    """
    runs = [[layer for _, layer in run] for _, run in groupby(enumerate(layers), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
