"""y = x W^T from packed weights, which are never unpacked as a whole: in float32, or in integers as ggml on a CPU."""

import math

import torch

from .compilation import is_compiled
from .formats.block import QType
from .formats.search import divide, first_extreme, nearest_int
from .native import function
from .qtypes import QTYPES, check_multiple, check_tensor, known

TILE, GPU_TILE = 2**18, 2**22  # float32 numbers that a tile of rows may take: 1 MB, which stays in cache, and 16 MB
NATIVE = ("Q8_0", "Q4_0", "Q4_K", "Q6_K")  # formats of matmul.cpp
FEW = 32  # more tokens go through tiles of floats: unpacking weights then counts for less than multiplying them


def matmul(x: torch.Tensor, data: torch.Tensor, qtype: str, *, integer: bool = False) -> torch.Tensor:
    """y = x W^T, where the rows of the matrix W are packed in ggml's format `qtype`.

    x: float32, float16 or bfloat16 of shape (..., n), on any device. data: uint8 of shape (m, n_bytes) on the same
    device, as `quantize` makes it of W, (m, n). Beyond x, data and y it takes a few MB of memory, and with
    `integer` up to twice as much as x.

    With `integer`, x is quantized too, as by ggml on a CPU: in blocks of 256 to Q8_K where the format's blocks are of
    256, else in blocks of 32 to Q8_0. The dot products of a block are then of integers, and exact. The
    result is that of the float path but for the error of quantizing x; it is not finite where a magnitude in x is above
    8.3e6, for which Q8_0 has no scale.

    Within `compiled`, Q8_0, Q4_0, Q4_K and Q6_K are multiplied in one pass over their bytes, with the same results to
    rounding: in integers always, in float32 by up to 32 tokens. Compiling that takes some seconds, once per machine.

    Returns float32 of shape (..., m). NaN in x is no error: its row of y becomes NaN. Raises TypeError or ValueError
    for other input, and RuntimeError where compiling fails.

    >>> from quant_kernels import quantize
    >>> data = quantize(torch.eye(2, 32) * 8, "Q4_0")
    >>> matmul(torch.arange(3.0, 35.0), data, "Q4_0")
    tensor([24., 32.])
    >>> matmul(torch.arange(3.0, 35.0), data, "Q4_0", integer=True)  # 3 is 11 steps of 34 / 127, 4 is 15
    tensor([23.5684, 32.1387])
    """
    layout = known(qtype)
    _check_pair(x, data, layout)
    *leading, n = x.shape
    tokens = x.detach().reshape(math.prod(leading), n).float().contiguous()
    y = torch.empty(len(tokens), len(data), device=x.device)
    if n == 0:
        y.zero_()
    elif y.numel():
        path = integer_path if integer else float_path
        path(tokens, data.contiguous(), layout, y)
    return y.view(*leading, len(data))


def float_path(x: torch.Tensor, data: torch.Tensor, layout: QType, y: torch.Tensor) -> None:
    """x W^T into y: x (t, n), data (m, n_bytes), y (t, m)."""
    if len(x) <= FEW and runs_natively(layout, x):
        call_native(layout, "float", x, data, y)
        return
    step = rows_at_a_time(x, x.shape[1])
    weights = torch.empty(min(step, len(data)), x.shape[1], device=x.device)
    for start in range(0, len(data), step):
        rows = data[start : start + step]
        tile = weights[: len(rows)]
        layout.dequantize_blocks(rows.view(-1, layout.type_size), tile.view(-1, layout.block_size))
        torch.mm(x, tile.T, out=y[:, start : start + step])


def integer_path(x: torch.Tensor, data: torch.Tensor, layout: QType, y: torch.Tensor) -> None:
    """As `float_path`, of x as Q8_0 or Q8_K has it."""
    if runs_natively(layout, x):
        call_native(layout, "integer", x, data, y)
        return
    quantized, size = (quantize_q8_K, 256) if layout.block_size == 256 else (quantize_q8_0, 32)
    d, q = (part.reshape(len(x), -1) for part in quantized(x.view(-1, size)))  # (t, n / size), (t, n)
    q = q.float()
    step = rows_at_a_time(x, max(x.shape[1], y.shape[0] * x.shape[1] // 16))
    for start in range(0, len(data), step):
        rows = data[start : start + step]
        y[:, start : start + step] = integer_tile(rows, layout, d, q)


def integer_tile(data: torch.Tensor, layout: QType, d: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """(r, n_bytes) uint8 times d (t, n / 32 or 256), q (t, n), to (t, r): an integer dot product per part of a row.

    A part is what has one step and one d. The products are of floats that hold integers. They are exact whatever the
    order of the sums, as integers below 2**24 are: codes - zero are below 2**8, q up to 2**7, and a part has up to 2**8
    of them, 2**23 in all. That holds too where torch is told to multiply in bfloat16 or TF32, which have integers up to
    2**8.
    """
    blocks = data.view(-1, layout.type_size)
    step, offset = layout.steps(blocks)
    n_parts = max(step.numel() // len(data), d.shape[1])
    q = q.view(len(q), n_parts, -1)
    codes = layout.codes(blocks).reshape(len(data), n_parts, -1).float() - layout.zero
    y = torch.bmm(q.transpose(0, 1), codes.permute(1, 2, 0))  # (n_parts, t, r)
    y *= per_part(step, len(data), n_parts)[:, None]
    if offset is not None:
        y += q.sum(-1).T[:, :, None] * per_part(offset, len(data), n_parts)[:, None]
    y *= per_part(d, len(d), n_parts)[:, :, None]
    return y.sum(0)


def per_part(values: torch.Tensor, n_rows: int, n_parts: int) -> torch.Tensor:
    """What blocks or sub-blocks of rows have one of, to (n_parts, n_rows)."""
    values = values.reshape(n_rows, -1)
    return values.repeat_interleave(n_parts // values.shape[1], dim=1).T


def quantize_q8_0(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The scales d, (n_blocks, 1) float32, and codes, (n_blocks, 32) int8, of Q8_0: x is about d * q."""
    layout = QTYPES["Q8_0"]
    data = layout.quantize_blocks(x, None)
    return layout.steps(data)[0], layout.codes(data)


def quantize_q8_K(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `quantize_q8_0` for blocks of 256 in Q8_K, ggml's format of activations, whose scale is a float32.

    The element of largest magnitude gets code -127, hence a scale of the opposite sign. Where it is so small that its
    inverse is infinite, codes and scale are 0. Source: `quantize_row_q8_K_ref` of ggml.
    """
    extreme = first_extreme(x)
    inverse = divide(-127.0, extreme)  # (n_blocks, 1)
    q = nearest_int(x * inverse).clamp_(max=127)
    d = torch.where(extreme == 0, 0.0, divide(1.0, inverse))  # and not -0.0, as where a small extreme is positive
    return d, q.to(torch.int8)


def rows_at_a_time(x: torch.Tensor, numbers: int) -> int:
    """How many rows of weights a tile has, if it takes so many float32 numbers per row."""
    return max(1, (TILE if x.device.type == "cpu" else GPU_TILE) // numbers)


def runs_natively(layout: QType, x: torch.Tensor) -> bool:
    return is_compiled() and x.device.type == "cpu" and layout.name in NATIVE


def call_native(layout: QType, path: str, x: torch.Tensor, data: torch.Tensor, y: torch.Tensor) -> None:
    function(f"{layout.name}_{path}")(data, x, y, len(data), *x.shape, torch.get_num_threads())


def _check_pair(x: torch.Tensor, data: torch.Tensor, layout: QType) -> None:
    check_tensor("x", x, torch.float32, torch.float16, torch.bfloat16)
    check_tensor("data", data, torch.uint8)
    if data.dim() != 2:
        raise ValueError(f"data has {data.dim()} dimensions, not 2: one row of bytes per row of W")
    check_multiple(data, layout.type_size, f"{layout.name}'s type size {layout.type_size} (bytes of a block)")
    n = data.shape[1] // layout.type_size * layout.block_size
    if x.shape[-1] != n:
        raise ValueError(
            f"x's last dimension {x.shape[-1]} is not {n}, the weights of a row of data ({data.shape[1]} bytes)"
        )
    if x.device != data.device:
        raise ValueError(f"x is on {x.device}, data on {data.device}")
