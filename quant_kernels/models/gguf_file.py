"""Reads a Llama out of a GGUF file.

Supported: architecture "llama" without experts, biases or rope scaling; every tensor type that `gguf` dequantizes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf.gguf_reader import ReaderTensor

from quant_kernels.models.gguf_reader import read_gguf
from quant_kernels.models.llama import Config, Llama
from quant_kernels.models.tokenizer import leading_bos

# What Llama computes: the first value of each key; None stands for a key that is not there.
SUPPORTED = {
    "general.architecture": ("llama",),
    "llama.rope.scaling.type": ("none", None),
    "llama.rope.scale_linear": (1.0, None),
    "llama.expert_count": (0, None),
    "llama.attention.scale": (0.0, None),
    "split.count": (1, 0, None),
}


def load_model(path: str | Path) -> Llama:
    """Reads a Llama-architecture GGUF of any quantization into a float32 model, ready to evaluate.

    The file is memory-mapped and its tensors are dequantized one by one; the matrices are (rows, columns), one row per
    output channel. The model maps token ids (B, T) to logits (B, T, V) and has the file's `config`, `metadata` and
    `tokenizer`.

    Raises FileNotFoundError if there is no such file, and ValueError if it is not a GGUF, is damaged or truncated, or
    holds what this package does not support: the message names what was found. Format: the GGUF specification,
    versions 2 and 3.

    >>> import sys
    >>> load_model(sys.executable)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ... is not a GGUF file: it begins with ..., not b'GGUF'
    """
    path = Path(path)
    metadata, tensors = read_gguf(path)
    try:
        with torch.device("meta"):
            model = Llama(read_config(metadata, tensors))
        model.load_state_dict(read_weights(model, tensors), assign=True)
    except (ValueError, RuntimeError) as error:  # RuntimeError: sizes beyond 64 bits
        raise ValueError(f"{path}: {error}") from error
    model.metadata = metadata
    return model.requires_grad_(False).eval()


def read_config(metadata: dict[str, Any], tensors: dict[str, ReaderTensor]) -> Config:
    for key, supported in SUPPORTED.items():
        if metadata.get(key) not in supported:
            raise ValueError(f"{key} is {metadata.get(key)!r}; supported: {supported[0]!r}")
    if "token_embd.weight" not in tensors:
        raise ValueError("the tensor token_embd.weight is missing")
    n_head, n_embd = size(metadata, "attention.head_count"), size(metadata, "embedding_length")
    config = Config(
        n_layer=size(metadata, "block_count"),
        n_head=n_head,
        n_head_kv=size(metadata, "attention.head_count_kv", n_head),
        n_embd=n_embd,
        n_ff=size(metadata, "feed_forward_length"),
        n_ctx=size(metadata, "context_length"),
        vocab=int(tensors["token_embd.weight"].shape[-1]),
        head_dim=size(metadata, "attention.key_length", n_embd // n_head),
        rope_base=number(metadata, "rope.freq_base", 10000.0),
        rms_eps=number(metadata, "attention.layer_norm_rms_epsilon"),
        tied="output.weight" not in tensors,
        bos_id=leading_bos(metadata),
    )
    check_config(config, metadata, tensors)
    return config


def number(metadata: dict[str, Any], key: str, default: float | None = None) -> float:
    value = metadata.get(f"llama.{key}", default)
    if not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"llama.{key} is {value!r}, not a positive number")
    return value


def size(metadata: dict[str, Any], key: str, default: int | None = None) -> int:
    value = number(metadata, key, default)
    if not isinstance(value, int):
        raise ValueError(f"llama.{key} is {value!r}, not an integer")
    return value


def check_config(config: Config, metadata: dict[str, Any], tensors: dict[str, ReaderTensor]) -> None:
    if config.head_dim % 2:
        raise ValueError(f"head dimension {config.head_dim} is odd, rotary positions need pairs")
    if config.n_head % config.n_head_kv:
        raise ValueError(f"{config.n_head} query heads cannot share {config.n_head_kv} key heads evenly")
    for key in ("llama.attention.value_length", "llama.rope.dimension_count"):
        if metadata.get(key, config.head_dim) != config.head_dim:
            raise ValueError(f"{key} is {metadata[key]}, not the head dimension {config.head_dim}")
    if (last := f"blk.{config.n_layer - 1}.attn_q.weight") not in tensors:
        raise ValueError(f"llama.block_count is {config.n_layer}, but the tensor {last} is missing")
    if config.bos_id is not None and config.bos_id not in range(config.vocab):
        raise ValueError(f"tokenizer.ggml.bos_token_id is {config.bos_id}, not in 0 to {config.vocab - 1}")


def read_weights(model: Llama, tensors: dict[str, ReaderTensor]) -> dict[str, torch.Tensor]:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if foreign := [name for name in tensors if name not in expected]:
        raise ValueError(f"{len(foreign)} tensors are not supported, such as {foreign[0]}")
    if missing := [name for name in expected if name not in tensors and name != "rope_freqs.weight"]:
        raise ValueError(f"{len(missing)} tensors are missing, such as {missing[0]}")
    for name, tensor in tensors.items():
        if (shape := tuple(tensor.shape.tolist()[::-1])) != expected[name]:
            raise ValueError(f"{name} has shape {shape}, not {expected[name]}")
    weights = {name: read_tensor(tensor) for name, tensor in tensors.items()}
    return {"rope_freqs.weight": torch.ones(model.config.head_dim // 2), **weights}  # only Llama 3 files have it


def read_tensor(tensor: ReaderTensor) -> torch.Tensor:
    """Returns the tensor dequantized to float32, in memory of its own."""
    from gguf.quants import dequantize

    try:
        values = dequantize(tensor.data, tensor.tensor_type)  # (rows, columns) or (columns,)
    except NotImplementedError as error:
        raise ValueError(f"{tensor.name} has type {tensor.tensor_type.name}, which gguf cannot dequantize") from error
    return torch.from_numpy(np.require(values, np.float32, "W"))  # F32 is still a view of the file, and read-only
