"""Weights to bytes and back in ggml's block formats: the public boundary, where everything is checked once."""

import math
from collections.abc import Iterator

import numpy as np
import torch

from .compilation import is_compiled
from .formats.block import QType
from .formats.fp4 import MXFP4, NVFP4
from .formats.iq1 import IQ1_M, IQ1_S
from .formats.iq2 import IQ2_S, IQ2_XS, IQ2_XXS
from .formats.iq3 import IQ3_S, IQ3_XXS
from .formats.iq4 import IQ4_NL, IQ4_XS
from .formats.k_quants import Q2_K, Q3_K, Q4_K, Q5_K, Q6_K
from .formats.legacy import Q4_0, Q4_1, Q5_0, Q5_1, Q8_0
from .formats.low_bits import Q1_0, Q2_0
from .formats.ternary import TQ1_0, TQ2_0

FORMATS = (
    *(Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q1_0, Q2_0),
    *(Q2_K, Q3_K, Q4_K, Q5_K, Q6_K),
    *(IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, IQ4_NL, IQ4_XS),
    *(TQ1_0, TQ2_0, MXFP4, NVFP4),
)
QTYPES: dict[str, QType] = {layout.name: layout for layout in (format() for format in FORMATS)}

# Weights worked on at a time. On a CPU the temporaries of a few operations on 2**19 weights stay in cache, which is
# several times faster than one pass over a large matrix. A compiled step is one pass that keeps its temporaries in
# registers; what counts there is that it is called less often.
CHUNK, COMPILED_CHUNK, GPU_CHUNK = 2**19, 2**24, 2**24
COMPILED_SEARCH_CHUNK = 2**17


def quantize(x: torch.Tensor, qtype: str, importance: torch.Tensor | None = None) -> torch.Tensor:
    """Quantize the last dimension of `x` to ggml's format `qtype`, byte for byte as ggml's C reference.

    x: float32, float16 or bfloat16 of shape (..., n), on any device; n is a multiple of the format's block size.
    importance: float of shape (n,), or broadcastable to x: how much the squared error of each weight counts, as in
    llama.cpp's importance matrix. IQ1_S, IQ2_XXS and IQ2_XS need it; Q8_0, Q1_0, Q2_0, TQ1_0, TQ2_0, MXFP4 and NVFP4,
    which search for no scale, have no use for it.

    Returns uint8 of shape (..., n / block_size * type_size). Raises TypeError or ValueError for input that the format
    cannot hold, NaN, Inf and scales beyond fp16 included. Source: `ggml_quantize_chunk` of ggml.

    >>> quantize(torch.tensor([-8.0, -7.0, 0.0, 7.0]).repeat(8), "Q4_0").tolist()  # d = 1.0 is 0x3c00 in fp16
    [0, 60, 0, 17, 136, 255, 0, 17, 136, 255, 0, 17, 136, 255, 0, 17, 136, 255]
    """
    layout = known(qtype)
    check_tensor("x", x, torch.float32, torch.float16, torch.bfloat16)
    check_multiple(x, layout.block_size, f"{layout.name}'s block size {layout.block_size}")
    if importance is not None:
        importance = _checked_importance(importance, x)
    elif layout.needs_importance:
        raise ValueError(f"{layout.name} needs importance: with so few bits ggml does not quantize without it")
    *leading, n = x.shape
    out = _empty((*leading, n // layout.block_size * layout.type_size), torch.uint8, x.device)
    if x.numel() == 0:
        return out
    # Without importance a block knows nothing of its row: each block is a row of its own.
    rows = x.detach().reshape(-1, layout.block_size if importance is None else n)
    out_rows = out.view(len(rows), -1)
    searches = layout.searches or importance is not None
    for part in _parts(rows, *((layout.search_chunk, COMPILED_SEARCH_CHUNK) if searches else (CHUNK, CHUNK))):
        chunk = rows[part].float().contiguous()
        if not _all_finite(chunk):
            raise ValueError(f"x is not finite: {_first(x, ~x.isfinite())}")
        out_rows[part] = layout.quantize_rows(chunk, None if importance is None else importance[part])
    _check_scales(out, x, layout)
    return out


def dequantize(data: torch.Tensor, qtype: str) -> torch.Tensor:
    """The weights that bytes in ggml's format `qtype` stand for, equal to ggml's to the last bit.

    data: uint8 of shape (..., n_bytes), on any device; n_bytes is a multiple of the format's type size.

    Returns float32 of shape (..., n_bytes / type_size * block_size). Raises TypeError or ValueError for other input.
    Source: the `dequantize_row_` functions of ggml.

    >>> dequantize(quantize(torch.arange(-16.0, 16.0), "Q8_0"), "Q8_0")[:3]  # d = 16 / 127, in fp16 0.12597656
    tensor([-15.9990, -14.9912, -13.9834])
    """
    layout = known(qtype)
    check_tensor("data", data, torch.uint8)
    check_multiple(data, layout.type_size, f"{layout.name}'s type size {layout.type_size} (bytes of a block)")
    *leading, n_bytes = data.shape
    out = _empty((*leading, n_bytes // layout.type_size * layout.block_size), torch.float32, data.device)
    if data.numel() == 0:
        return out
    blocks, out_blocks = data.reshape(-1, layout.type_size), out.view(-1, layout.block_size)
    for part in _parts(out_blocks, CHUNK, COMPILED_CHUNK if layout.fuses else CHUNK):
        layout.dequantize_blocks(blocks[part].contiguous(), out_blocks[part])
    return out


def _parts(rows: torch.Tensor, eager: int, compiled: int) -> Iterator[slice]:
    """Slices of rows to work on at a time: of so many weights on a CPU, if the steps are eager or compiled."""
    chunk = GPU_CHUNK if rows.device.type != "cpu" else compiled if is_compiled() else eager
    step = max(1, chunk // rows.shape[-1])
    return (slice(start, start + step) for start in range(0, len(rows), step))


def _empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """As torch.empty. numpy asks for huge pages, which makes the first write to much memory three times faster."""
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.empty(shape, dtype=str(dtype).removeprefix("torch.")))


def known(qtype: str) -> QType:
    if not isinstance(qtype, str) or qtype not in QTYPES:
        raise ValueError(f"unknown qtype {qtype!r}; known are {', '.join(QTYPES)}")
    return QTYPES[qtype]


def check_tensor(name: str, value: torch.Tensor, *dtypes: torch.dtype) -> None:
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}, not a torch.Tensor")
    if value.dtype not in dtypes:
        raise TypeError(f"{name} is {value.dtype}, not {' or '.join(map(str, dtypes))}")
    if value.dim() == 0:
        raise ValueError(f"{name} has 0 dimensions, at least 1 is needed")


def check_multiple(value: torch.Tensor, size: int, what: str) -> None:
    if value.shape[-1] % size:
        raise ValueError(f"last dimension {value.shape[-1]} is not a multiple of {what}")


def _checked_importance(importance: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The importance of every weight, float32 (n_rows, n) on x's device, without copying what is broadcast."""
    check_tensor("importance", importance, torch.float32, torch.float16, torch.bfloat16, torch.float64)
    importance = importance.detach().to(x.device, torch.float32)
    refused = ~importance.isfinite() | (importance < 0)
    if refused.any():
        raise ValueError(f"importance is not finite and at least 0: {_first(importance, refused)}")
    try:
        importance = importance.expand(x.shape)
    except RuntimeError:
        shape = tuple(importance.shape)
        raise ValueError(f"importance of shape {shape} cannot be broadcast to x's shape {tuple(x.shape)}") from None
    return importance.reshape(-1, x.shape[-1]) if x.numel() else importance


def _all_finite(x: torch.Tensor) -> bool:
    # One Inf or NaN makes the sum one. A sum can also overflow without them: only then is each element looked at.
    return math.isfinite(x.sum()) or bool(x.isfinite().all())


def _check_scales(out: torch.Tensor, x: torch.Tensor, layout: QType) -> None:
    finite = layout.finite_scales(out.view(-1, layout.type_size))
    if finite.all():
        return
    block = int((~finite).nonzero()[0, 0])
    offset = int(x.reshape(-1, layout.block_size)[block].abs().argmax())
    index = tuple(map(int, np.unravel_index(block * layout.block_size + offset, x.shape)))
    raise ValueError(f"{layout.name} cannot hold {x[index].item()} at index {index}: {layout.refusal}")


def _first(x: torch.Tensor, mask: torch.Tensor) -> str:
    index = tuple(mask.nonzero()[0].tolist())
    return f"{x[index].item()} at index {index}"
