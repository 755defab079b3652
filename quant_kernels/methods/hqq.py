"""HQQ: chooses zero points for the weights alone, so that many are hit well and a few are missed by more; in seconds.

Badri and Shaji, Half-Quadratic Quantization of Large Machine Learning Models (2023, github.com/mobiusml/hqq). Left out:
a search for the scale, and the packing and quantizing of scales and zero points.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .affine import Affine, check_values, per_column, quantize_affine, to_codes

GROWTH = 1.01  # of the strength, per step


@dataclass(frozen=True)
class HQQ:
    """What `hqq` found: codes with zero points that are floats, the best of all steps for each group.

    errors: the mean of |error / scale|**p of the zero points of each step, float32 (steps + 1,). The first are those of
    round-to-nearest. A single step may raise the error.
    """

    affine: Affine
    errors: Tensor

    def dequantize(self) -> Tensor:
        """Returns float32 (rows, columns)."""
        return self.affine.dequantize()


def hqq(w: Tensor, bits: int = 4, *, group: int = 64, p: float = 0.7, strength: float = 10.0, steps: int = 20) -> HQQ:
    """Quantizes w to asymmetric codes whose zero points lower the sum of |error|**p, which few large errors rule less
    than they rule the squared error.

    w: (..., n), floating point, n a multiple of group. p: above 0, at most 1.
    Errors are in units of the scale, which stays that of the group's range, and so `strength` means the same for any
    weights. A step solves two easy problems in turn (hence half-quadratic): which errors e to allow, at the price of
    |e|**p / p + strength / 2 * (error - e)**2, where small ones become 0 and large ones stay; then which zero point
    leaves the least sum of (error - e)**2, a mean.
    Raises TypeError or ValueError for other input.

    >>> w = torch.tensor([[0.0] + [0.3] * 6 + [7.0]])  # round-to-nearest has steps of 1 from 0 on
    >>> hqq(w, 3, group=8).dequantize()[0, [0, 1, 7]]  # the mean of the errors would be taken off at 0.225
    tensor([0.2584, 0.2584, 7.2584])
    """
    check_values(w)
    if not 0 < p <= 1:
        raise ValueError(f"p is {p}, not above 0 and at most 1")
    if not strength > 0:
        raise ValueError(f"strength is {strength}, not above 0")
    if steps < 1:
        raise ValueError(f"steps is {steps}, not at least 1")
    w = w.detach().float()
    plain = quantize_affine(w, bits, per=group, exact_zero=False)
    scale = plain.scale  # (..., n / group)
    places = w / per_column(scale, w.shape[-1])  # (..., n), in units of the scale
    zero_point = best = plain.zero_point
    least, errors = torch.full_like(scale, torch.inf), []
    for _ in range(steps + 1):
        codes = to_codes(w, scale, zero_point, bits).codes
        error = places - (codes - per_column(zero_point, w.shape[-1]))
        cost = group_mean(error.abs().pow(p), group)  # (..., n / group)
        errors.append(cost.mean())
        best, least = torch.where(cost < least, zero_point, best), torch.minimum(cost, least)
        zero_point = group_mean(codes - places + shrink(error, p, strength), group)
        strength *= GROWTH
    return HQQ(to_codes(w, scale, best, bits), torch.stack(errors))


def shrink(error: Tensor, p: float, strength: float) -> Tensor:
    """The e of the least |e|**p / p + strength / 2 * (error - e)**2: exact for p = 1, else near it for large errors.

    >>> shrink(torch.tensor([-0.5, 0.0, 0.05, 0.5]), 1.0, 10.0)
    tensor([-0.4000,  0.0000,  0.0000,  0.4000])
    """
    size = error.abs()
    return error.sign() * (size - size.clamp(min=1e-12).pow(p - 1) / strength).clamp(min=0)


def group_mean(x: Tensor, group: int) -> Tensor:
    """(..., n) to (..., n / group)."""
    return x.unflatten(-1, (-1, group)).mean(-1)
