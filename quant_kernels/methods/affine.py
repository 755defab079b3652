"""Affine integer quantization, x ~ scale * (code - zero_point): what all the other methods of this folder build on.

Left out: storage (codes of 2 to 8 bits take a byte each here; scales stay float32), bits below 2 and above 8.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..qtypes import check_tensor

BITS = range(2, 9)
LIMIT = torch.finfo(torch.float32).max / 2  # so that high - low, and scale * code, stay finite in float32


@dataclass(frozen=True)
class Affine:
    """Codes and what they mean: the tensor is about scale * (codes - zero_point).

    codes: int8 (symmetric) or uint8 (asymmetric), the shape of the quantized tensor, (..., n). scale, float32, and
    zero_point, int32 or float32, have as many dimensions: 1 where all share one, n / g in the last for groups of g.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor
    bits: int

    def dequantize(self) -> Tensor:
        """The tensor that the codes stand for, in the dtype of the scale."""
        n = self.codes.shape[-1]
        return (self.codes.to(self.scale) - per_column(self.zero_point, n)) * per_column(self.scale, n)


def quantize_affine(
    x: Tensor,
    bits: int = 8,
    *,
    symmetric: bool = False,
    full_range: bool = False,
    exact_zero: bool = True,
    per: str | int = "tensor",
    clip: float | Tensor = 1.0,
) -> Affine:
    """Quantizes x to integers of `bits` bits, 2 to 8, whose scale is set by the largest values that share it.

    x: floating point, (..., n). per: what shares a scale: "tensor"; "row" (all of the last dimension: an output channel
    of a weight, a token of activations); "column" (one column of each matrix: a channel of activations); or g, groups
    of g neighbours in the last dimension.
    asymmetric, the default: codes 0 to 2**bits - 1 span the range from the least to the largest value, widened to
    contain 0, and the zero point is an integer, so that 0 is exact. Without exact_zero the range is not widened and the
    zero point is a float, -low / scale: finer steps where 0 need not be exact (as in ggml's Q4_1).
    symmetric: the zero point is 0 and codes span +-(2**(bits-1) - 1); with full_range, -2**(bits-1) is a code too and
    stands for the value of the largest magnitude, for which a scale may be negative (as in ggml's Q4_0).
    clip: both ends of the range are multiplied by it; what lies beyond gets the outermost code.
    x / scale is rounded, halves to even as by torch.round, before an integer zero point is added.

    A block of zeros has scale 1. Raises TypeError or ValueError for input that has no range: empty, NaN, Inf, or a
    magnitude above 1.7e38. Source of the codes: torch.fake_quantize_per_tensor_affine; torch.quantize_per_tensor
    rounds the sum, which differs in halves.

    >>> q = quantize_affine(torch.tensor([-1.0, 0.0, 0.25, 2.0]), bits=4)
    >>> q.codes.tolist(), round(q.scale.item(), 3), q.zero_point.item()
    ([0, 5, 6, 15], 0.2, 5)
    >>> quantize_affine(torch.tensor([-1.0, 0.0, 0.25, 2.0]), bits=4, symmetric=True).codes.tolist()
    [-3, 0, 1, 7]
    """
    check_values(x)
    check_clip(clip)
    low, high = (clip * end for end in value_range(x, per))
    options = {"symmetric": symmetric, "full_range": full_range, "exact_zero": exact_zero}
    scale, zero_point = affine_parameters(low, high, bits, **options)
    return to_codes(x, scale, zero_point, bits, symmetric=symmetric, full_range=full_range)


def fake_quantize(x: Tensor, bits: int = 8, **options: object) -> Tensor:
    """What is left of x after quantizing and dequantizing: same shape and dtype; options as for `quantize_affine`.

    >>> fake_quantize(torch.tensor([-1.0, 0.0, 0.25, 2.0]), bits=4)
    tensor([-1.0000,  0.0000,  0.2000,  2.0000])
    """
    return quantize_affine(x, bits, **options).dequantize().to(x.dtype)


def to_codes(
    x: Tensor, scale: Tensor, zero_point: Tensor, bits: int, *, symmetric: bool = False, full_range: bool = False
) -> Affine:
    """Quantizes x with a scale and zero point that are given (by an observer, by a search), of shapes as in `Affine`.

    Values out of range get the outermost code. It is clamped before it becomes a byte: 200 is 127, not -56.
    Raises ValueError for a scale or zero point with fewer or more dimensions than x.
    """
    for name, values in (("scale", scale), ("zero_point", zero_point)):
        if values.dim() != x.dim():
            raise ValueError(f"{name} has {values.dim()} dimensions, not {x.dim()} as x has")
    lowest, highest = code_range(bits, symmetric=symmetric, full_range=full_range)
    x = x.detach().to(scale.dtype)
    n = x.shape[-1]
    x = x / per_column(scale, n)  # (..., n)
    zero_point_of = per_column(zero_point, n)
    codes = torch.round(x + zero_point_of) if zero_point.is_floating_point() else torch.round(x) + zero_point_of
    codes = codes.clamp(lowest, highest).to(torch.int8 if symmetric else torch.uint8)
    return Affine(codes, scale, zero_point, bits)


def code_range(bits: int, *, symmetric: bool = False, full_range: bool = False) -> tuple[int, int]:
    """The least and the largest code.

    >>> code_range(4), code_range(4, symmetric=True), code_range(4, symmetric=True, full_range=True)
    ((0, 15), (-7, 7), (-8, 7))
    """
    if not isinstance(bits, int) or bits not in BITS:
        raise ValueError(f"bits is {bits!r}, not an integer from {BITS[0]} to {BITS[-1]}")
    if full_range and not symmetric:
        raise ValueError("full_range is an option of symmetric codes: asymmetric ones always use all")
    half = 2 ** (bits - 1)
    return (-half if full_range else 1 - half, half - 1) if symmetric else (0, 2 * half - 1)


def value_range(x: Tensor, per: str | int = "tensor") -> tuple[Tensor, Tensor]:
    """The least and the largest of the values that share a scale; shapes as in `Affine`."""
    if x.dtype != torch.float64:
        x = x.float()
    if per == "tensor":
        low, high = (value.reshape([1] * x.dim()) for value in x.detach().aminmax())
    elif per == "row":
        low, high = x.detach().aminmax(dim=-1, keepdim=True)  # (..., 1)
    elif per == "column" and x.dim() > 1:
        low, high = x.detach().aminmax(dim=-2, keepdim=True)  # (..., 1, n)
    elif isinstance(per, int) and per >= 1 and x.shape[-1] % per == 0:
        low, high = x.detach().unflatten(-1, (-1, per)).aminmax(dim=-1)  # (..., n / g)
    else:
        raise ValueError(refusal(x, per))
    return low, high


def refusal(x: Tensor, per: object) -> str:
    if per == "column":
        return f"x of shape {tuple(x.shape)} has no columns: at least 2 dimensions are needed"
    if isinstance(per, int) and per >= 1:
        return f"last dimension {x.shape[-1]} is not a multiple of the group size {per}"
    return f"per is {per!r}, not 'tensor', 'row' (an output channel, a token), 'column' or a group size of at least 1"


def affine_parameters(
    low: Tensor,
    high: Tensor,
    bits: int,
    *,
    symmetric: bool = False,
    full_range: bool = False,
    exact_zero: bool = True,
) -> tuple[Tensor, Tensor]:
    """Scale and zero point for values from `low` to `high`; shapes and options as in `quantize_affine`."""
    lowest, highest = code_range(bits, symmetric=symmetric, full_range=full_range)
    if symmetric and not exact_zero:
        raise ValueError("exact_zero=False is an option of asymmetric codes: the zero point of symmetric ones is 0")
    if symmetric:
        magnitude = torch.maximum(high, -low)
        # the scale of the full range is negative where the value of the largest magnitude is positive
        scale = torch.where(high > -low, -magnitude, magnitude) / -lowest if full_range else magnitude / highest
        return nonzero(scale), torch.zeros_like(scale, dtype=torch.int32)
    if not exact_zero:
        scale = nonzero((high - low) / highest)
        return scale, -low / scale
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = nonzero((high - low) / highest)
    return scale, torch.round(-low / scale).to(torch.int32)


def nonzero(scale: Tensor) -> Tensor:
    """1 for the scale of a block whose values are all the same, which any scale can hold."""
    return torch.where(scale == 0, 1.0, scale)


def per_column(values: Tensor, n: int) -> Tensor:
    """Repeats what groups have one of until it broadcasts to n columns."""
    return values if values.shape[-1] in (1, n) else values.repeat_interleave(n // values.shape[-1], dim=-1)


def check_values(x: Tensor) -> None:
    """Raises for a tensor that is not of finite floating point numbers, or empty."""
    check_tensor("x", x, torch.float32, torch.float16, torch.bfloat16, torch.float64)
    if x.numel() == 0:
        raise ValueError(f"x of shape {tuple(x.shape)} is empty: it has no range")
    largest = x.detach().abs().max().item()
    if not largest <= LIMIT:
        raise ValueError(f"the largest magnitude in x is {largest}, not at most {LIMIT:.2g}")


def check_clip(clip: float | Tensor) -> None:
    clip = torch.as_tensor(clip)
    if not ((clip > 0) & (clip <= 1)).all():
        raise ValueError(f"clip is from {clip.min().item()} to {clip.max().item()}, not above 0 and at most 1")
