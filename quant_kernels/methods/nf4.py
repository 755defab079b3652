"""NF4: sixteen levels that are quantiles of the normal distribution, in blocks of 64 with their largest magnitude.

Dettmers et al., QLoRA, arXiv 2305.14314. Left out: the adapters that QLoRA trains, and bitsandbytes' own 8-bit code for
the scales of double quantization, which are E4M3 here, a float of eight bits as in the paper.
"""

from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from ..formats.bits import bit_fields
from .affine import check_values
from .fp8 import E4M3

LARGEST_PROBABILITY = 0.9677083  # 1 - (1/30 + 1/32) / 2, as bitsandbytes writes it
DOUBLE_BLOCK = 256  # scales that share a scale


def normal_float() -> Tensor:
    """The sixteen levels of NF4, ascending, from -1 to 1: (16,) float32.

    Seven quantiles of N(0, 1) below zero, zero, and eight above: equally spaced in probability between 1/2 and the
    largest one, on each side, then divided by the outermost. The probabilities are rounded to float32, then the
    quantiles, then the quotients: so the levels equal the published ones to the last bit.

    >>> normal_float()[[0, 1, 7, 8, 15]].tolist()
    [-1.0, -0.6961928009986877, 0.0, 0.07958029955625534, 1.0]
    """
    above, below = (quantiles(torch.linspace(LARGEST_PROBABILITY, 0.5, n + 1)[:-1]) for n in (8, 7))
    levels = torch.cat([-below, torch.zeros(1), above.flip(0)])
    return levels / levels[-1]


def quantiles(probabilities: Tensor) -> Tensor:
    return torch.special.ndtri(probabilities.double()).float()


LEVELS = normal_float()
MIDPOINTS = (LEVELS[1:] + LEVELS[:-1]) / 2


@dataclass(frozen=True)
class DoubleScales:
    """Scales that are quantized themselves: mean + E4M3 number * the scale of their block of 256."""

    codes: Tensor  # (n_blocks,) uint8
    scale: Tensor  # (ceil(n_blocks / 256),) float32
    mean: float

    def dequantize(self) -> Tensor:
        """Returns float32 (n_blocks,)."""
        steps = self.scale.repeat_interleave(DOUBLE_BLOCK)[: len(self.codes)]
        return E4M3.decode(self.codes) * steps + self.mean


@dataclass(frozen=True)
class NF4:
    """Packed codes and what they are to be multiplied by.

    qs: uint8 (n_blocks, block_size / 2); as in bitsandbytes the first of two neighbours is the high nibble:

        bit    7 6 5 4      3 2 1 0
               code 2 j     code 2 j + 1
    """

    qs: Tensor
    absmax: Tensor | DoubleScales  # (n_blocks,) float32
    shape: torch.Size

    def codes(self) -> Tensor:
        """Returns uint8 (n_blocks, block_size), each below 16."""
        low, high = bit_fields(self.qs, 4).unbind(-2)
        return torch.stack([high, low], dim=-1).flatten(-2)

    def dequantize(self) -> Tensor:
        """Returns float32 of the quantized tensor's shape."""
        absmax = self.absmax.dequantize() if isinstance(self.absmax, DoubleScales) else self.absmax
        return (LEVELS.to(self.qs.device)[self.codes().int()] * absmax[:, None]).view(self.shape)

    @property
    def bits_per_weight(self) -> float:
        """All that is stored; what double quantization stores once per tensor, a mean of 32 bits, included."""
        scale_bits = 32 * len(self.qs)
        if isinstance(self.absmax, DoubleScales):
            scale_bits = 8 * len(self.qs) + 32 * len(self.absmax.scale) + 32
        return 4 + scale_bits / prod(self.shape)


def quantize_nf4(w: Tensor, block_size: int = 64, *, double: bool = False) -> NF4:
    """Quantizes w to the nearest levels of NF4, times the largest magnitude of each block; ties to the lower level.

    w: floating point, any shape with a multiple of block_size elements, which are taken in order. double: the scales
    less their mean are quantized to E4M3, in blocks of 256: 8 / 64 + 32 / (64 * 256) = 0.127 bits per weight instead
    of 32 / 64 = 0.5. Raises TypeError or ValueError for other input.

    >>> q = quantize_nf4(torch.tensor([-2.0, 0.0, 0.2, 1.0] * 16))
    >>> q.codes()[0, :4].tolist(), [round(x, 3) for x in q.dequantize()[:4].tolist()]
    ([0, 7, 8, 12], [-2.0, 0.0, 0.159, 0.881])
    """
    if block_size < 2 or block_size % 2:
        raise ValueError(f"block_size is {block_size}, not an even number of at least 2")
    check_values(w)
    if w.numel() % block_size:
        raise ValueError(f"w's {w.numel()} elements are not a multiple of the block size {block_size}")
    blocks = w.detach().float().reshape(-1, block_size).contiguous()  # (n_blocks, block_size)
    absmax = blocks.abs().amax(-1)
    levels = blocks / torch.where(absmax > 0, absmax, 1.0)[:, None]
    codes = torch.bucketize(levels, MIDPOINTS.to(w.device)).to(torch.uint8)
    qs = codes[:, 0::2] << 4 | codes[:, 1::2]
    return NF4(qs, quantize_scales(absmax) if double else absmax, w.shape)


def quantize_scales(absmax: Tensor) -> DoubleScales:
    """(n_blocks,) float32. The mean is taken off first because all scales are positive, the codes are not."""
    mean = absmax.mean().item()
    n = len(absmax)
    padded = F.pad(absmax - mean, (0, -n % DOUBLE_BLOCK)).view(-1, DOUBLE_BLOCK)
    scale = padded.abs().amax(-1) / E4M3.largest  # (ceil(n_blocks / 256),)
    codes = E4M3.encode(padded / torch.where(scale > 0, scale, 1.0)[:, None])
    return DoubleScales(codes.flatten()[:n], scale, mean)
