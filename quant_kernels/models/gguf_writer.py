"""Writes models as GGUF files, with the `gguf` package: whole or not at all."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, LlamaFileType
from gguf import GGUFValueType as Kind
from gguf.constants import GGML_QUANT_VERSION
from torch import Tensor

from quant_kernels.models.gguf_reader import StrictReader
from quant_kernels.models.inspect_gguf import COUNTS, TensorInfo
from quant_kernels.models.llama import Config, Llama
from quant_kernels.models.packed import FLOATS, Packed, QuantizedLlama
from quant_kernels.models.tokenizer import leading_bos

NOT_COPIED = (  # what a file says of itself
    *COUNTS,
    *("split.no", "split.count", "split.tensors.count"),
    *("general.alignment", "general.quantization_version", "general.file_type"),
)
LENGTHS_OF_A_HEAD = ("llama.attention.key_length", "llama.attention.value_length")
KINDS = {bool: Kind.BOOL, float: Kind.FLOAT32, str: Kind.STRING}


class Pair(NamedTuple):
    """A value of a GGUF's metadata with its type there, and that of its items."""

    value: Any
    kind: Kind
    item: Kind | None = None


def save_gguf(model: Llama, path: str | Path, dtype: str | None = None) -> None:
    """Writes a model as a GGUF that `load_model` and llama.cpp read.

    dtype: "F32" or "F16", the type of the matrices; norms are F32. By default nothing is lost: a quantized model is
    written as its packed bytes, another as F16 if that holds every weight exactly, and else as F32.

    The key-value pairs are those of `model.metadata`, and `model.config` has the last word on sizes. They are written
    as strings, booleans, unsigned integers and floats of 32 bits, and arrays of these. Without a tokenizer llama.cpp
    loads the file too, for token ids. The file appears whole or not at all.
    Raises ValueError for another dtype, weights that it cannot hold, a quantized model whose weights have changed, and
    metadata that do not suit the config; OSError where the file cannot be written.

    >>> import tempfile
    >>> from quant_kernels import load_model
    >>> model = Llama(Config(n_layer=1, n_head=2, n_head_kv=1, n_embd=8, n_ff=16, n_ctx=32, vocab=50, head_dim=4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_gguf(model, f"{folder}/small.gguf")
    ...     torch.equal(load_model(f"{folder}/small.gguf").token_embd.weight, model.token_embd.weight)
    True
    """
    if dtype not in (None, "F32", "F16"):
        raise ValueError(f"dtype is {dtype!r}, not 'F32' or 'F16'")
    if dtype is None and isinstance(model, QuantizedLlama):
        packed, file_type = model.checked_packed(), file_type_pairs(model.mix)
    else:
        dtype = dtype or lossless_type(model)
        packed, file_type = pack_plain(model, dtype), file_type_pairs(dtype)
    pairs = model_pairs(model) | file_type
    infos = [info_of(name, tensor) for name, tensor in packed.items()]
    write_gguf(path, typed_pairs(pairs), infos, (tensor.data.numpy(force=True) for tensor in packed.values()))


def stored_weights(model: Llama) -> dict[str, Tensor]:
    """The float32 tensors that a file has of a model: factors of rotary frequencies only if they are not all one."""
    weights = {name: weight.detach().float().cpu() for name, weight in model.state_dict().items()}
    return {name: w for name, w in weights.items() if name != "rope_freqs.weight" or (w != 1).any()}


def lossless_type(model: Llama) -> str:
    weights = model.weights().values()
    return "F16" if all(torch.equal(weight.half().to(weight), weight) for weight in weights) else "F32"


def pack_plain(model: Llama, dtype: str) -> dict[str, Packed]:
    packed = {}
    for name, weight in stored_weights(model).items():
        qtype = dtype if weight.ndim > 1 else "F32"
        stored = weight.to(FLOATS[qtype])
        if not stored.isinf().equal(weight.isinf()):
            raise ValueError(f"{name} holds {weight[stored.isinf()][0].item()}, too much for {qtype}")
        packed[name] = Packed(qtype, stored.contiguous().view(torch.uint8))
    return packed


def info_of(name: str, tensor: Packed) -> TensorInfo:
    block, type_size = GGML_QUANT_SIZES[GGMLQuantizationType[tensor.qtype]]
    *leading, n_bytes = tensor.data.shape
    shape = (*leading, n_bytes // type_size * block)
    return TensorInfo(math.prod(shape), tensor.data.numel(), name, shape, tensor.qtype)


def file_type_pairs(mix: str) -> dict[str, int]:
    """What a file says of its types. llama.cpp has no number for Q4_K_L; the community's files call it Q4_K_M."""
    name = {"F32": "ALL_F32", "Q4_K_L": "MOSTLY_Q4_K_M"}.get(mix, f"MOSTLY_{mix}")
    return {"general.quantization_version": GGML_QUANT_VERSION, "general.file_type": int(LlamaFileType[name])}


def model_pairs(model: Llama) -> dict[str, Any]:
    """The metadata of a model's file; ValueError where they do not suit its config."""
    config = model.config
    pairs = {key: value for key, value in model.metadata.items() if key not in NOT_COPIED}
    sizes = config_pairs(config)
    if config.head_dim == config.n_embd // config.n_head:  # goes without saying
        sizes = {key: value for key, value in sizes.items() if key in pairs or key not in LENGTHS_OF_A_HEAD}
    pairs = {"general.architecture": "llama"} | pairs | sizes
    if not any(key.startswith("tokenizer.") for key in pairs):
        pairs["tokenizer.ggml.model"] = "no_vocab"
        if config.bos_id is not None:
            pairs |= {"tokenizer.ggml.bos_token_id": config.bos_id, "tokenizer.ggml.add_bos_token": True}
    tokens = pairs.get("tokenizer.ggml.tokens")
    if tokens is not None and len(tokens) != config.vocab:
        raise ValueError(f"tokenizer.ggml.tokens are {len(tokens)}, the model's vocabulary {config.vocab}")
    if (bos_id := leading_bos(pairs)) != config.bos_id:
        raise ValueError(f"a text begins with the token {bos_id} by the metadata, with {config.bos_id} by the config")
    return pairs


def config_pairs(config: Config) -> dict[str, int | float]:
    values = {
        "block_count": config.n_layer,
        "context_length": config.n_ctx,
        "embedding_length": config.n_embd,
        "feed_forward_length": config.n_ff,
        "vocab_size": config.vocab,
        "attention.head_count": config.n_head,
        "attention.head_count_kv": config.n_head_kv,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": float(config.rms_eps),
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": float(config.rope_base),
    }
    return {f"llama.{key}": value for key, value in values.items()}


def typed_pairs(pairs: Mapping[str, Any]) -> dict[str, Pair]:
    """The pairs with the types that llama.cpp expects; an empty list, which `gguf` cannot write, is left out."""
    return {key: typed(key, value) for key, value in pairs.items() if value != []}


def typed(key: str, value: Any) -> Pair:
    if isinstance(value, list):
        if len(types := {type(item) for item in value}) > 1:
            raise ValueError(f"{key} is a list of {' and '.join(sorted(t.__name__ for t in types))}, not of one type")
        integers = Kind.INT32 if int in types and max(map(abs, value)) < 2**31 else Kind.INT64
        return Pair(value, Kind.ARRAY, integers if int in types else typed(key, value[0]).kind)
    if type(value) is int:
        return Pair(value, Kind.UINT32 if 0 <= value < 2**32 else Kind.INT64)
    if type(value) not in KINDS:
        raise ValueError(f"{key} is a {type(value).__name__}, which GGUF metadata cannot hold")
    return Pair(value, KINDS[type(value)])


def stored_pairs(path: Path) -> dict[str, Pair]:
    """The pairs of a file with their types, as far as they hold for a file made from it."""
    fields = StrictReader(path).fields
    pairs = {key: Pair(field.contents(), *field.types) for key, field in fields.items() if key not in NOT_COPIED}
    return {key: pair for key, pair in pairs.items() if pair.value != []}


def write_gguf(
    path: str | Path, pairs: Mapping[str, Pair], infos: Iterable[TensorInfo], data: Iterable[np.ndarray]
) -> None:
    """Writes a GGUF, its tensors one by one as `data` yields them in the order of `infos`."""
    with replacing(Path(path)) as partial:
        writer = GGUFWriter(partial, pairs["general.architecture"].value)
        for key, pair in pairs.items():
            if key != "general.architecture":
                writer.add_key_value(key, pair.value, pair.kind, pair.item)
        for info in infos:
            writer.add_tensor_info(
                info.name, info.shape, np.dtype("f4"), info.n_bytes, GGMLQuantizationType[info.qtype]
            )
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for array in data:
                writer.write_tensor_data(array)
        finally:
            writer.close()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives the path of a new file beside `path`, which takes its place at the end of the block unless that fails."""
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a folder")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.filename is None:  # a full disk, which numpy calls "69632 requested and 48160 written"
            raise OSError(f"{path} could not be written: {error}") from error
        raise
    finally:
        partial.unlink(missing_ok=True)
