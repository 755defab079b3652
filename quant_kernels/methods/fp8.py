"""FP8: numbers of eight bits, E4M3 for weights and activations and E5M2 for gradients, and linear layers on them.

Micikevicius et al., FP8 Formats for Deep Learning, arXiv 2209.05433. Left out: scales per block of 128 x 128, static
scales of activations (an observer's range gives them), and what tensor cores do not keep of a sum in float32.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from .affine import check_values, value_range

OVERFLOWS = ("saturate", "special")


@dataclass(frozen=True)
class Minifloat:
    """A float of few bits: a sign, a biased exponent, a mantissa; exponent 0 holds the subnormals, equally spaced.

    E4M3, for example:    bit   7   6 5 4 3    2 1 0
                                s   exponent   mantissa    (-1)**s * 2**(exponent - 7) * (1 + mantissa / 8)

    infinity: the code for what is too large, an infinity in E5M2 and a NaN in E4M3; None where the format has neither.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    bias: int
    largest: float
    infinity: int | None = None
    nan: int | None = None

    @cached_property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    @cached_property
    def values(self) -> Tensor:
        """What each code stands for: (2**bits,) float32."""
        codes = torch.arange(2 ** (self.bits - 1))
        field, mantissa = codes >> self.mantissa_bits, codes & (1 << self.mantissa_bits) - 1
        hidden = (field > 0).int() << self.mantissa_bits
        exponent = field.clamp(min=1) - self.bias - self.mantissa_bits
        values = torch.ldexp((hidden + mantissa).float(), exponent)
        values[values > self.largest] = torch.nan
        if self.infinity != self.nan:
            values[self.infinity] = torch.inf
        return torch.cat([values, -values])

    def round(self, x: Tensor) -> Tensor:
        """The nearest of the format's numbers, in a tie that of even mantissa; as if there were no largest number.

        x: float32 of any shape, finite.
        """
        return self.steps(x) * self.step(x)

    def steps(self, x: Tensor) -> Tensor:
        return torch.round(x / self.step(x))

    def step(self, x: Tensor) -> Tensor:
        """The distance between the format's neighbours of x: a power of two, below which x / step is exact."""
        _, exponent = torch.frexp(x)  # x = m * 2**exponent with m from 1/2 to below 1
        least = 2 - self.bias  # the exponent that frexp has for the smallest normal number
        exponent = torch.where(x == 0, least, exponent.clamp(min=least))
        return torch.ldexp(torch.ones_like(x), exponent - 1 - self.mantissa_bits)

    def encode(self, x: Tensor, overflow: str = "saturate") -> Tensor:
        """The codes, uint8, of the numbers nearest to x, ties to even; x is float32 of any shape.

        overflow says what becomes of numbers that round to more than the largest: with "saturate" they become the
        largest, infinities too; with "special", infinity in E5M2 and NaN in E4M3, which has no infinity. The casts
        of torch 2.13 do the first for E4M3 and the second for E5M2. NaN stays NaN.
        Raises ValueError for a NaN or an overflow that the format has no code for.
        """
        if overflow not in OVERFLOWS:
            raise ValueError(f"overflow is {overflow!r}, not one of {', '.join(OVERFLOWS)}")
        special = ~x.isfinite()
        rounded = self.round(x.float().masked_fill(special, 0.0))
        too_large = (rounded.abs() > self.largest) | x.isinf()
        magnitude = rounded.abs().masked_fill(too_large, self.largest)
        codes = self.encode_exact(magnitude)
        if overflow == "special":
            codes = self.with_special(codes, too_large, self.infinity, "infinity")
        codes = self.with_special(codes, x.isnan(), self.nan, "NaN")
        return codes | torch.signbit(x).to(torch.uint8) << self.bits - 1

    def encode_exact(self, magnitude: Tensor) -> Tensor:
        """Numbers >= 0 of the format to codes.

        The count of steps has the hidden bit: added to the exponent's field, it raises that of normal numbers by one.
        """
        step = self.step(magnitude)
        _, exponent = torch.frexp(step)
        field = exponent - 1 + self.mantissa_bits + self.bias - 1
        return ((field << self.mantissa_bits) + (magnitude / step).int()).to(torch.uint8)

    def with_special(self, codes: Tensor, where: Tensor, code: int | None, what: str) -> Tensor:
        if not where.any():
            return codes
        if code is None:
            raise ValueError(f"{self.name} has no code for {what}")
        return codes.masked_fill(where, code)

    def decode(self, codes: Tensor) -> Tensor:
        """uint8 codes of any shape to float32."""
        return self.values.to(codes.device)[codes.int()]


E4M3 = Minifloat("E4M3", 4, 3, bias=7, largest=448.0, infinity=0x7F, nan=0x7F)
E5M2 = Minifloat("E5M2", 5, 2, bias=15, largest=57344.0, infinity=0x7C, nan=0x7F)
FORMATS = {format.name: format for format in (E4M3, E5M2)}


@dataclass(frozen=True)
class FP8:
    """Codes, uint8 (..., n), and the float32 scale that the numbers are to be multiplied by, which broadcasts."""

    codes: Tensor
    scale: Tensor
    format: Minifloat

    def dequantize(self) -> Tensor:
        """Returns float32 (..., n)."""
        return self.format.decode(self.codes) * self.scale


def quantize_fp8(x: Tensor, format: str = "E4M3", *, per: str = "tensor") -> FP8:
    """Quantizes x to FP8 with scales that take the largest magnitude to the largest number of the format.

    x: floating point, (..., n). format: "E4M3" or "E5M2". per: what shares a scale, "tensor" or "row" (an output
    channel of a weight, a token of activations). Raises TypeError or ValueError for other input: empty, NaN, Inf.

    >>> q = quantize_fp8(torch.tensor([0.07, 1.0, -7.0]))
    >>> q.scale.item(), q.dequantize().tolist()
    (0.015625, [0.0703125, 1.0, -7.0])
    """
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}, not one of {', '.join(FORMATS)}")
    if per not in ("tensor", "row"):
        raise ValueError(f"per is {per!r}, not 'tensor' or 'row' (an output channel, a token)")
    check_values(x)
    layout, x = FORMATS[format], x.detach().float()
    low, high = value_range(x, per)
    scale = torch.maximum(high, -low) / layout.largest
    scale = torch.where(scale < torch.finfo(torch.float32).tiny, 1.0, scale)  # of zeros, or too small for float32
    return FP8(layout.encode(x / scale), scale, layout)


def linear_fp8(x: Tensor, weight: FP8, *, per: str = "row") -> Tensor:
    """y = x W^T with x quantized on the fly: products of FP8 numbers, summed in float32, then both scales.

    x: (..., n); weight: W, (m, n), as `quantize_fp8` makes it; per: what shares a scale in x. Returns float32 (..., m).

    >>> weight = quantize_fp8(448 * torch.eye(2), per="row")
    >>> linear_fp8(torch.tensor([[3.1, 448.0]]), weight)  # 3.1 becomes 3, and so the scales stay 1
    tensor([[  1344., 200704.]])
    """
    rows, columns = weight.codes.shape if weight.codes.dim() == 2 else (None, None)
    if rows is None:
        raise ValueError(f"the weight has {weight.codes.dim()} dimensions, not 2")
    if x.shape[-1:] != (columns,):
        raise ValueError(f"x has shape {tuple(x.shape)}, its last dimension is not W's {columns} columns")
    tokens = quantize_fp8(x, weight.format.name, per=per)
    sums = F.linear(tokens.format.decode(tokens.codes), weight.format.decode(weight.codes))  # (..., m)
    return sums * tokens.scale * weight.scale.view(-1)
