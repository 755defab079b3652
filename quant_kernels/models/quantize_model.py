"""Whole models in the mixes of llama.cpp, in memory and from file to file, byte for byte as llama-quantize."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf.gguf_reader import ReaderTensor
from torch import Tensor

from quant_kernels.measures.imatrix import Imatrix, load_imatrix
from quant_kernels.models.gguf_file import load_model
from quant_kernels.models.gguf_reader import read_gguf
from quant_kernels.models.gguf_writer import file_type_pairs, stored_pairs, stored_weights, typed_pairs, write_gguf
from quant_kernels.models.inspect_gguf import TensorInfo
from quant_kernels.models.llama import Llama
from quant_kernels.models.packed import FLOATS, Packed, QuantizedLlama, pack, unpack
from quant_kernels.models.plan_mix import EMBEDDINGS, Plan, needs_imatrix, plan_mix

OWN_RULES = ("bailingmoe3", "deci", "falcon", "glm5-next", "jais2", "olmo")  # architectures that the mixes treat apart
SLAB = 2**24  # weights in memory as floats at a time
Progress = Callable[[int, int], None]
Cache = MutableMapping[tuple[str, str], Tensor]


def quantize_model(
    model_or_path: Llama | str | Path,
    mix: str,
    imatrix: Imatrix | str | Path | None = None,
    *,
    allow_requantize: bool = False,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> QuantizedLlama:
    """Returns the model in a mix of formats, such as "Q4_K_M", with the bytes that llama-quantize writes.

    model_or_path: a loaded Llama, whose weights count as F32 whatever its file had, or the path of a GGUF. It stays
    as it is. imatrix: the importance of each tensor's columns, or the path of llama.cpp's file of it. A tensor that it
    lacks is quantized without, as by llama-quantize.
    allow_requantize: take a GGUF that is quantized already, too, which adds the errors of both.
    cache: keeps the bytes of each (tensor, type); give the same mapping for several mixes of one model and imatrix.
    progress: called with the tensors done and their number.

    The result is a Llama with the weights that are left, its `plan`, `mix`, `n_bytes` and `bits_per_weight`, and
    `packed`: {tensor name: (type, uint8 (..., rows, bytes of a row))}. Raises ValueError for an unknown mix, one that
    needs an imatrix, NaN or Inf (the message names the tensor), and a quantized file without leave.

    >>> from quant_kernels.models.llama import Config
    >>> model = Llama(Config(n_layer=1, n_head=2, n_head_kv=1, n_embd=64, n_ff=96, n_ctx=32, vocab=50, head_dim=32))
    >>> small = quantize_model(model, "Q4_0")
    >>> small.packed["blk.0.ffn_up.weight"].qtype, round(small.bits_per_weight, 3)
    ('Q4_0', 4.985)
    """
    model = model_or_path if isinstance(model_or_path, Llama) else load_model(model_or_path)
    tensors = model_tensors(model) if model is model_or_path else file_tensors(read_gguf(Path(model_or_path))[1])
    imatrix = as_imatrix(imatrix)
    heads = {"n_head": model.config.n_head, "n_head_kv": model.config.n_head_kv}
    plan = plan_tensors(tensors, mix, imatrix is not None, heads)
    check_sources(plan, tensors, imatrix, allow_requantize)
    packed = dict(pack_tensors(plan, tensors, imatrix, cache, progress))
    result = QuantizedLlama(model.config, plan, packed)
    result.metadata = model.metadata | closing_pairs(mix, imatrix)
    return result


def quantize_file(
    source: str | Path,
    target: str | Path,
    mix: str,
    imatrix: Imatrix | str | Path | None = None,
    *,
    allow_requantize: bool = False,
    progress: Progress | None = None,
) -> Plan:
    """Writes the GGUF that llama-quantize makes of another one, tensor by tensor, and returns its plan.

    source: a GGUF of any architecture that has no rules of its own (OWN_RULES), experts included. target: appears
    whole or not at all. The other arguments are those of `quantize_model`. In memory are one tensor's bytes at a time
    and the floats of 16 million weights.

    Raises ValueError as quantize_model does, and for a target that is the source; OSError for files that cannot be
    read or written.

    >>> quantize_file("model.gguf", "model.gguf", "Q4_K_M")
    Traceback (most recent call last):
    FileNotFoundError: model.gguf does not exist
    """
    source, target = Path(source), Path(target)
    metadata, tensors = read_stored(source)
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the model itself: it cannot be read and replaced at once")
    imatrix = as_imatrix(imatrix)
    plan = plan_tensors(tensors, mix, imatrix is not None, heads_of(metadata))
    check_sources(plan, tensors, imatrix, allow_requantize)
    pairs = stored_pairs(source) | typed_pairs(closing_pairs(mix, imatrix))
    packed = pack_tensors(plan, tensors, imatrix, None, progress)
    write_gguf(target, pairs, plan.tensors.values(), (tensor.data.numpy() for _, tensor in packed))
    return plan


def plan_file(path: str | Path, mix: str, imatrix: bool = False) -> Plan:
    """Returns what `quantize_file` would make of a GGUF; ValueError as there."""
    metadata, tensors = read_stored(Path(path))
    return plan_tensors(tensors, mix, imatrix, heads_of(metadata))


@dataclass(frozen=True)
class Stored:
    """A tensor as it stands in a file or a model: its type, torch's shape, and uint8 (..., rows, bytes of a row)."""

    qtype: str
    shape: tuple[int, ...]
    data: np.ndarray


def file_tensors(tensors: dict[str, ReaderTensor]) -> dict[str, Stored]:
    return {
        name: Stored(tensor.tensor_type.name, tuple(tensor.shape.tolist()[::-1]), tensor.data.view(np.uint8))
        for name, tensor in tensors.items()
    }


def model_tensors(model: Llama) -> dict[str, Stored]:
    if isinstance(model, QuantizedLlama):
        packed = model.checked_packed()
    else:
        weights = stored_weights(model).items()
        packed = {name: Packed("F32", weight.contiguous().view(torch.uint8)) for name, weight in weights}
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    return {name: Stored(tensor.qtype, shapes[name], tensor.data.numpy(force=True)) for name, tensor in packed.items()}


def read_stored(path: Path) -> tuple[dict[str, Any], dict[str, Stored]]:
    metadata, tensors = read_gguf(path)
    if metadata.get("split.count", 0) > 1:
        raise ValueError(f"{path} is one of {metadata['split.count']} files of a model: merge them first")
    return metadata, file_tensors(tensors)


def heads_of(metadata: dict[str, Any]) -> dict[str, int]:
    """What `plan_mix` asks for beside the shapes. Where layers differ the first one counts, as in llama.cpp."""
    name = metadata.get("general.architecture")
    if name in OWN_RULES:
        raise ValueError(f"the architecture {name} has rules of its own in llama.cpp, which are not supported")
    n_head, n_expert = metadata.get(f"{name}.attention.head_count"), metadata.get(f"{name}.expert_count", 0)
    n_head_kv = metadata.get(f"{name}.attention.head_count_kv", n_head)
    if n_head is None:
        raise ValueError(f"{name}.attention.head_count is missing")
    first = [value[0] if isinstance(value, list) and value else value for value in (n_head, n_head_kv)]
    return {"n_head": first[0], "n_head_kv": first[1], "n_expert": n_expert}


def plan_tensors(tensors: dict[str, Stored], mix: str, imatrix: bool, heads: dict[str, int]) -> Plan:
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    kept = {name: tensor.qtype for name, tensor in tensors.items()}
    return plan_mix(shapes, mix, **heads, imatrix=imatrix, kept_types=kept)


def check_sources(plan: Plan, tensors: dict[str, Stored], imatrix: Imatrix | None, allow_requantize: bool) -> None:
    """Raises ValueError before any work is done."""
    if imatrix and plan.tensors.keys().isdisjoint(imatrix.entries):
        raise ValueError(
            f"the imatrix is of another model: it has {next(iter(imatrix.entries))}, and no tensor of this"
        )
    for name, info in plan.tensors.items():
        now = tensors[name].qtype
        if now == info.qtype:
            continue
        if now not in FLOATS and not allow_requantize:
            raise ValueError(
                f"{name} is quantized already: {info.qtype} on top of {now} has the errors of both. "
                "Allow it with allow_requantize=True, --allow-requantize in a shell"
            )
        if needs_imatrix(name, info.qtype, plan.mix) and importance_of(imatrix, name, info.shape) is None:
            raise ValueError(f"the imatrix lacks {name}, which {plan.mix} makes {info.qtype}, useless without it")


def pack_tensors(
    plan: Plan, tensors: dict[str, Stored], imatrix: Imatrix | None, cache: Cache | None, progress: Progress | None
) -> Iterator[tuple[str, Packed]]:
    """Yields every tensor of the plan by name, packed."""
    for done, (name, info) in enumerate(plan.tensors.items(), 1):
        data = None if cache is None else cache.get((name, info.qtype))
        if data is None:
            importance = importance_of(imatrix, name, info.shape)
            try:
                data = pack_tensor(tensors[name], info, importance)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        if cache is not None:
            cache[name, info.qtype] = data
        yield name, Packed(info.qtype, data)
        if progress:
            progress(done, len(plan.tensors))


def pack_tensor(stored: Stored, info: TensorInfo, importance: Tensor | None) -> Tensor:
    """Returns uint8 (..., rows, bytes of a row): those that are stored, if the type stays as it is.

    importance: float32 (n_matrices, columns), for each expert its own.
    """
    rows = stored.data.reshape(-1, stored.data.shape[-1])  # of all matrices
    packed = []
    for matrix, part in slabs(info.shape):
        data = torch.from_numpy(np.array(rows[part]))  # (n, bytes of a row), out of the file
        if stored.qtype != info.qtype or stored.qtype in FLOATS:
            weights = unpack(stored.qtype, data)  # (n, columns)
            check_finite(info, weights, part.start)
        if stored.qtype != info.qtype:
            data = pack(weights, info.qtype, None if importance is None else importance[matrix])
        packed.append(data)
    return torch.cat(packed).reshape(*info.shape[:-1], -1)


def slabs(shape: tuple[int, ...]) -> Iterator[tuple[int, slice]]:
    """Yields rows to work on at a time, counted through all matrices, each with its matrix."""
    *leading, n_rows, columns = (1, *shape)
    step = max(1, SLAB // columns)
    for matrix in range(math.prod(leading)):
        end = (matrix + 1) * n_rows
        for start in range(matrix * n_rows, end, step):
            yield matrix, slice(start, min(start + step, end))


def check_finite(info: TensorInfo, weights: Tensor, first_row: int) -> None:
    if math.isfinite(weights.sum()):  # which is quicker to see than that each is
        return
    if (refused := ~weights.isfinite()).any():
        row, column = refused.nonzero()[0].tolist()
        index = tuple(map(int, np.unravel_index((first_row + row) * info.shape[-1] + column, info.shape)))
        raise ValueError(f"not finite: {weights[row, column].item()} at index {index}")


def importance_of(imatrix: Imatrix | None, name: str, shape: tuple[int, ...]) -> Tensor | None:
    """Returns a tensor's importance as (n_matrices, columns), or None where the imatrix has none.

    One of another size is an error, but for token_embd, where llama.cpp leaves it aside.
    """
    importance = None if imatrix is None else imatrix.importance(name)
    if importance is None:
        return None
    *leading, _, columns = (1, *shape)
    if importance.numel() != math.prod(leading) * columns:
        if name in EMBEDDINGS:
            return None
        raise ValueError(f"the imatrix has {importance.numel()} values for {name}, whose shape is {shape}")
    return importance.reshape(-1, columns)


def as_imatrix(imatrix: Imatrix | str | Path | None) -> Imatrix | None:
    return load_imatrix(imatrix) if isinstance(imatrix, str | Path) else imatrix


def closing_pairs(mix: str, imatrix: Imatrix | None) -> dict[str, Any]:
    """What llama-quantize puts behind the model's own metadata."""
    return file_type_pairs(mix) | (imatrix.quantization_metadata() if imatrix else {})
