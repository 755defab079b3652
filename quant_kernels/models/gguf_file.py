"""Reads a Llama out of a GGUF file.

Supported: architecture "llama" without experts, biases or rope scaling; every tensor type that `gguf` dequantizes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from quant_kernels.models.llama import Config, Llama
from quant_kernels.models.tokenizer import leading_bos

if TYPE_CHECKING:
    from gguf import GGUFReader
    from gguf.gguf_reader import ReaderTensor


def load_model(path: str | Path) -> Llama:
    """Reads a Llama-architecture GGUF of any quantization into a float32 model, ready to evaluate.

    The file is memory-mapped and its tensors are dequantized one by one. Raises FileNotFoundError if there is no
    such file, and ValueError if it is not a GGUF, is damaged or truncated, or holds what this package does not
    support: the message names what was found. Format: the GGUF specification, version 2 and 3.
    """
    path = Path(path)
    check_file(path)
    reader = open_reader(path)
    try:
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        with torch.device("meta"):
            model = Llama(read_config(metadata, tensors))
        model.load_state_dict(read_weights(model, tensors), assign=True)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    model.metadata = metadata
    return model.requires_grad_(False).eval()


def check_file(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not path.is_file():
        raise ValueError(f"{path} is not a file but a {'directory' if path.is_dir() else 'device or pipe'}")
    with path.open("rb") as file:
        magic, version = file.read(4), int.from_bytes(file.read(4), "little")
    if magic != b"GGUF":
        raise ValueError(f"{path} is not a GGUF file: it begins with {magic!r}, not b'GGUF'")
    if version not in (2, 3):
        raise ValueError(f"{path} has GGUF version {version}; supported: 2 and 3, little-endian")


def open_reader(path: Path) -> GGUFReader:
    import gguf

    class StrictReader(gguf.GGUFReader):
        # The reader's own slices are silently short at the end of a truncated file, and a damaged length
        # would keep it counting for ever; frombuffer refuses to go past the end.
        def _get(self, offset, dtype, count=1, override_order=None):
            return np.frombuffer(self.data, dtype, int(count), int(offset))

    try:
        return StrictReader(path)
    except Exception as error:  # the reader meets damage with KeyError, OverflowError, UnicodeDecodeError ...
        size = path.stat().st_size
        raise ValueError(f"{path} is damaged or truncated ({size} bytes): {error}") from error


def read_config(metadata: dict, tensors: dict[str, ReaderTensor]) -> Config:
    check_supported(metadata)

    def number(key: str, default: float | None = None) -> float:
        value = metadata.get(f"llama.{key}", default)
        if not isinstance(value, int | float) or value <= 0:
            raise ValueError(f"llama.{key} is {value!r}, not a positive number")
        return value

    n_head, n_embd = number("attention.head_count"), number("embedding_length")
    if n_embd % n_head and "llama.attention.key_length" not in metadata:
        raise ValueError(f"llama.embedding_length {n_embd} is not a multiple of llama.attention.head_count {n_head}")
    if "token_embd.weight" not in tensors:
        raise ValueError("the tensor token_embd.weight is missing")
    config = Config(
        n_layer=number("block_count"),
        n_head=n_head,
        n_head_kv=number("attention.head_count_kv", n_head),
        n_embd=n_embd,
        n_ff=number("feed_forward_length"),
        n_ctx=number("context_length"),
        vocab=int(tensors["token_embd.weight"].shape[-1]),
        head_dim=number("attention.key_length", n_embd // n_head),
        rope_base=number("rope.freq_base", 10000.0),
        rms_eps=number("attention.layer_norm_rms_epsilon"),
        tied="output.weight" not in tensors,
        bos_id=leading_bos(metadata),
    )
    check_heads(config, metadata)
    return config


def check_supported(metadata: dict) -> None:
    """Raises ValueError for an architecture, or a variant of it, that `Llama` does not compute."""
    plain = {
        "general.architecture": ("llama",),
        "llama.rope.scaling.type": ("none", None),
        "llama.rope.scale_linear": (1.0, None),
        "llama.expert_count": (0, None),
        "llama.attention.scale": (0.0, None),
        "split.count": (0, 1, None),
    }
    for key, supported in plain.items():
        if metadata.get(key) not in supported:
            raise ValueError(f"{key} is {metadata.get(key)!r}; supported: {supported[0]!r}")


def check_heads(config: Config, metadata: dict) -> None:
    if config.n_head % config.n_head_kv:
        raise ValueError(f"{config.n_head} query heads cannot share {config.n_head_kv} key heads evenly")
    for key in ("attention.value_length", "rope.dimension_count"):
        if metadata.get(f"llama.{key}", config.head_dim) != config.head_dim:
            raise ValueError(f"llama.{key} is {metadata[f'llama.{key}']}, not the head dimension {config.head_dim}")
    if config.head_dim % 2:
        raise ValueError(f"head dimension {config.head_dim} is odd, rotary positions need pairs")


def read_weights(model: Llama, tensors: dict[str, ReaderTensor]) -> dict[str, torch.Tensor]:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if foreign := [name for name in tensors if name not in expected]:
        raise ValueError(f"{len(foreign)} tensors are not supported, such as {foreign[0]}")
    weights = {"rope_freqs.weight": torch.ones(expected["rope_freqs.weight"])}  # only Llama 3 files have it
    if missing := [name for name in expected if name not in tensors and name not in weights]:
        raise ValueError(f"{len(missing)} tensors are missing, such as {missing[0]}")
    for name, tensor in tensors.items():
        shape = tuple(int(n) for n in reversed(tensor.shape))
        if shape != expected[name]:
            raise ValueError(f"{name} has shape {shape}, not {expected[name]}")
        weights[name] = read_tensor(tensor)
    return weights


def read_tensor(tensor: ReaderTensor) -> torch.Tensor:
    """Returns the tensor dequantized to float32, in memory of its own."""
    from gguf.quants import dequantize

    try:
        values = dequantize(tensor.data, tensor.tensor_type)  # (rows, columns) or (columns,)
    except NotImplementedError as error:
        raise ValueError(f"{tensor.name} has type {tensor.tensor_type.name}, which gguf cannot dequantize") from error
    return torch.from_numpy(np.require(values, np.float32, "W"))  # an F32 tensor is still a view of the file
