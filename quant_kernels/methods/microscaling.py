"""Microscaling: blocks of tiny floats with a scale of eight bits, MXFP4 (and its relatives) and NVFP4.

OCP Microscaling Formats v1.0 (arXiv 2310.10537), and NVFP4 as on Blackwell (arXiv 2509.23202 compares both). Left out:
packing (`quantize` with "MXFP4" and "NVFP4" writes ggml's bytes; that NVFP4 has no scale of the tensor), stochastic
rounding, a Hadamard transform before.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..formats.fp4 import from_e2m1
from ..qtypes import check_multiple
from .affine import check_values
from .fp8 import E4M3, E5M2, Minifloat

E2M1 = Minifloat("E2M1", 2, 1, bias=1, largest=6.0)  # 0, 0.5, 1, 1.5, 2, 3, 4, 6
E2M3 = Minifloat("E2M3", 2, 3, bias=1, largest=7.5)
E3M2 = Minifloat("E3M2", 3, 2, bias=3, largest=28.0)
ELEMENTS = {element.name: element for element in (E2M1, E2M3, E3M2, E4M3, E5M2)}
RULES = ("floor", "ceil")
E8M0_BIAS = 127
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Microscaled:
    """x is about element * scale of its block * tensor_scale.

    codes: uint8 (..., n), a code of `element` each. scales: uint8 (..., n / block_size), codes of E8M0 (a power of two,
    2**(code - 127)) or, with `e4m3_scales`, of E4M3.
    """

    codes: Tensor
    scales: Tensor
    element: Minifloat
    block_size: int
    e4m3_scales: bool = False
    tensor_scale: float = 1.0

    def dequantize(self) -> Tensor:
        """Returns float32 (..., n)."""
        values = self.values().unflatten(-1, (-1, self.block_size))  # (..., n / block_size, block_size)
        return (values * (self.block_scales() * self.tensor_scale)[..., None]).flatten(-2)

    def values(self) -> Tensor:
        """The elements before any scale: float32 (..., n)."""
        return from_e2m1(self.codes).float() / 2 if self.element is E2M1 else self.element.decode(self.codes)

    def block_scales(self) -> Tensor:
        """Returns float32 (..., n / block_size)."""
        return E4M3.decode(self.scales) if self.e4m3_scales else power_of_two(self.scales.int() - E8M0_BIAS)

    @property
    def bits_per_weight(self) -> float:
        """Element and block scale; the scale of the tensor weighs nothing."""
        return self.element.bits + 8 / self.block_size


def quantize_mx(x: Tensor, element: str = "E2M1", *, rule: str = "floor") -> Microscaled:
    """Quantizes blocks of 32 to the OCP formats: MXFP4 (E2M1), MXFP6 (E2M3, E3M2) or MXFP8 (E4M3, E5M2).

    x: floating point, (..., n) with n a multiple of 32. rule: how the power of two is chosen.
    "floor" is the specification's: that of the block's largest magnitude, less that of the format's largest number
    (4 = 2**2 in E2M1, so the largest magnitude becomes 4 to below 8, and what is above 6 is cut to 6). ggml's MXFP4 has
    the same rule; it differs in ties, which it rounds to the smaller magnitude, here to the even mantissa.
    "ceil" is the least power of two that cuts off nothing. Raises TypeError or ValueError for other input.

    >>> q = quantize_mx(torch.tensor([7.0, 1.3, 0.2] + [0.0] * 29))
    >>> q.block_scales().tolist(), q.dequantize()[:3].tolist()
    ([1.0], [6.0, 1.5, 0.0])
    >>> quantize_mx(torch.tensor([7.0, 1.3, 0.2] + [0.0] * 29), rule="ceil").dequantize()[:3].tolist()
    [8.0, 1.0, 0.0]
    """
    if element not in ELEMENTS:
        raise ValueError(f"element is {element!r}, not one of {', '.join(ELEMENTS)}")
    layout = ELEMENTS[element]
    blocks = checked_blocks(x, 32)
    exponent = scale_exponent(blocks.abs().amax(-1), layout.largest, rule)  # (..., n / 32)
    codes = layout.encode(blocks / power_of_two(exponent)[..., None])
    return Microscaled(codes.flatten(-2), (exponent + E8M0_BIAS).to(torch.uint8), layout, 32)


def quantize_nvfp4(x: Tensor, *, tensor_scale: float | None = None) -> Microscaled:
    """Quantizes to NVFP4: blocks of 16 of E2M1 with a scale in E4M3, and one float32 scale for the tensor.

    x: floating point, (..., n) with n a multiple of 16. tensor_scale: by default the largest magnitude / (6 * 448),
    which takes the largest block scale to the largest of E4M3; give 1.0 to do without. A block scale below
    E4M3's least normal number, 2**-6, becomes that number, as in torchao.
    Raises TypeError or ValueError for other input.

    >>> q = quantize_nvfp4(torch.tensor([6.0, 1.3] + [0.0] * 14), tensor_scale=1.0)
    >>> q.block_scales().tolist(), q.dequantize()[:2].tolist(), q.bits_per_weight
    ([1.0], [6.0, 1.5], 4.5)
    """
    blocks = checked_blocks(x, 16)
    amax = blocks.abs().amax(-1)  # (..., n / 16)
    if tensor_scale is None:
        tensor_scale = amax.max().item() / (E2M1.largest * E4M3.largest)
        tensor_scale = tensor_scale if tensor_scale > TINY else 1.0
    elif not TINY < tensor_scale < math.inf:
        raise ValueError(f"tensor_scale is {tensor_scale}, not a float32 above {TINY:.2g}")
    scales = E4M3.encode((amax / E2M1.largest / tensor_scale).clamp(min=2.0**-6))
    step = E4M3.decode(scales) * tensor_scale
    return Microscaled(E2M1.encode(blocks / step[..., None]).flatten(-2), scales, E2M1, 16, True, tensor_scale)


def checked_blocks(x: Tensor, size: int) -> Tensor:
    """(..., n) to float32 (..., n / size, size)."""
    check_values(x)
    check_multiple(x, size, f"the block size {size}")
    return x.detach().float().unflatten(-1, (-1, size))


def scale_exponent(amax: Tensor, largest: float, rule: str) -> Tensor:
    """The exponents, int32 and within E8M0's -127 to 127, of the scales of blocks with these largest magnitudes."""
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}, not one of {', '.join(RULES)}")
    if rule == "floor":
        exponent = floor_log2(amax) - floor_log2(torch.tensor(largest))
    else:
        mantissa, exponent = torch.frexp(amax / largest)  # from 1/2 to below 1
        exponent = exponent - (mantissa == 0.5).int()
    return torch.where(amax == 0, -E8M0_BIAS, exponent.clamp(-E8M0_BIAS, E8M0_BIAS))


def floor_log2(x: Tensor) -> Tensor:
    """Exact, as no logarithm in floating point is."""
    _, exponent = torch.frexp(x)
    return exponent - 1


def power_of_two(exponent: Tensor) -> Tensor:
    return torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent)
