"""The 4-bit float formats: codes are numbers of E2M1 (a sign, two bits of exponent, one of mantissa), the scales
are short floats too. No scale is searched for, so error weights change nothing.

As ggml does, E2M1 is held doubled, so that it is an integer, and the scales are held halved.
"""

from typing import ClassVar

import torch

from .bits import bit_fields, pack_nibbles
from .block import QType
from .search import divide

E2M1_DOUBLED = torch.tensor([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], dtype=torch.int8)


def ue4m3_halved() -> torch.Tensor:
    """What each byte of UE4M3 stands for, halved: (256,) float32.

    Four bits of exponent with bias 7, three of mantissa, steps of 2**-9 below 2**-6. ggml reads the NaN 0x7f as 0, and
    ignores the top bit of all other bytes.
    """
    byte = torch.arange(256)
    exponent, mantissa = byte >> 3 & 0xF, (byte & 7).float()
    value = torch.where(exponent == 0, mantissa * 2.0**-10, torch.ldexp(8 + mantissa, exponent - 11))
    return value.index_fill_(0, torch.tensor(0x7F), 0.0)


UE4M3_HALVED = ue4m3_halved()


class MXFP4(QType):
    """32 weights with a power of two as scale, 2**(e - 127): x = 2**(e - 127) * E2M1.

    The byte e is that of the largest magnitude, less the 2 that E2M1's exponent adds: 4 to 8 times the scale, of which
    E2M1 holds up to 6. The largest float32 has e = 253. Magnitudes below 2**-125 would need a negative e, for which C
    leaves the result undefined; as on x86 it wraps around, and all codes are 0. That is 254 and less below 2**-126.
    Between the two it is 255, E8M0's NaN: ggml refuses a file with that, and `finite_scales` the block.
    """

    family = "float"
    block_size = 32
    fields: ClassVar = {"e": 1, "qs": 16}
    refusal = "the scale of its block is E8M0's NaN, as where the largest magnitude is from 2**-126 to below 2**-125"

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        e = e8m0(x.abs().amax(-1, keepdim=True))
        return torch.cat([e, pack_nibbles(nearest_e2m1(x, from_e8m0_halved(e)))], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        _, qs = self.split(data)
        return from_e2m1(bit_fields(qs, 4))  # (n_blocks, 2, 16)

    def steps(self, data: torch.Tensor) -> tuple[torch.Tensor, None]:
        e, _ = self.split(data)
        return from_e8m0_halved(e), None

    def finite_scales(self, data: torch.Tensor) -> torch.Tensor:
        return data[:, 0] != 0xFF


class NVFP4(QType):
    """64 weights, each 16 with a UE4M3 scale: x = d * E2M1. Weight j shares a byte with weight j + 8.

    A scale is the largest magnitude / 6. Above 248 it becomes 448, the largest of UE4M3, and weights beyond 6 * 448
    are cut off; below 2**-10 it becomes 0, and so do the weights. NaN is never written.
    """

    family = "float"
    block_size = 64
    fields: ClassVar = {"d": 4, "qs": 32}

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        x = x.reshape(-1, 16)  # (4 n_blocks, 16)
        d = ue4m3(divide(x.abs().amax(-1, keepdim=True), 6))
        qs = pack_nibbles(nearest_e2m1(x, from_ue4m3_halved(d)))  # (4 n_blocks, 8)
        return torch.cat([d.view(-1, 4), qs.view(-1, 32)], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        _, qs = self.split(data)
        return from_e2m1(bit_fields(qs.unflatten(1, (4, 8)), 4))  # (n_blocks, 4, 2, 8)

    def steps(self, data: torch.Tensor) -> tuple[torch.Tensor, None]:
        d, _ = self.split(data)
        return from_ue4m3_halved(d), None


def nearest_e2m1(x: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """The codes, uint8, of the numbers of E2M1 nearest to x / d; d >= 0 is halved and broadcasts to x.

    On a tie the smaller magnitude, and 0 is code 0, never 8. The errors are rounded to float32, which counts where x
    is so far beyond the largest number that all errors are equal: then the code is 0. Source: `best_index_mxfp4`.
    """
    magnitude = x.abs()
    code, least = torch.zeros_like(x, dtype=torch.uint8), magnitude
    for k, value in enumerate(E2M1_DOUBLED[1:8].tolist(), start=1):
        error = (d * value - magnitude).abs_()
        code = torch.where(error < least, k, code)
        least = torch.minimum(error, least)
    return code + ((x < 0) & (code > 0)).to(torch.uint8) * 8


def from_e2m1(codes: torch.Tensor) -> torch.Tensor:
    """Codes below 16 to int8, doubled."""
    return E2M1_DOUBLED.to(codes.device)[codes.int()]


def e8m0(amax: torch.Tensor) -> torch.Tensor:
    """The scale's byte for the largest magnitude of a block: (n_blocks, 1) float32 to uint8.

    The logarithm is rounded to float32 before its floor, as C's log2f: just below a power of two it is one more.
    """
    exponent = amax.double().log2().float().floor() - 2
    return torch.where(amax > 0, exponent + 127, 0.0).to(torch.int32).to(torch.uint8)


def from_e8m0_halved(e: torch.Tensor) -> torch.Tensor:
    """2**(e - 128), uint8 to float32; 255 is no NaN here, but 2**127, as in ggml."""
    return torch.ldexp(torch.ones_like(e, dtype=torch.float32), e.int() - 128)


def ue4m3(x: torch.Tensor) -> torch.Tensor:
    """The nearest UE4M3, float32 >= 0 to uint8: halves away from zero, and more than 248 is 448 (0x7e).

    A normal number is the float32 with 20 of its 23 bits of mantissa rounded away and another bias.
    """
    normal = (x.view(torch.int32) + (1 << 19) >> 20) - (127 - 7 << 3)
    subnormal = (x * 512 + 0.5).clamp(max=7)
    code = torch.where(x < 2.0**-6, subnormal.to(torch.int32), normal)
    return torch.where(code >= 15 << 3, 0x7E, code).to(torch.uint8)


def from_ue4m3_halved(d: torch.Tensor) -> torch.Tensor:
    """uint8 to float32."""
    return UE4M3_HALVED.to(d.device)[d.int()]
