"""The 3-bit formats with a grid: four magnitudes are a point, with codes 0 to 7."""

from typing import ClassVar

import torch

from .bits import from_half_bytes, half_bytes, pack_bits, unpack_bits
from .grid_quants import GridQType
from .iq2 import pack_scales, pack_words, unpack_scales, unpack_words


class IQ3QType(GridQType):
    """64 points to a block, and a scale for 32 weights."""

    sub_block = 32


class IQ3_XXS(IQ3QType):
    """256 points and even signs.

    The first 64 bytes of `qs` are the numbers of the points, the others an integer of 32 bits for each 32 weights:

        bit    31 to 28   27 to 21        20 to 14        13 to 7        6 to 0
               scale      signs of 24-31  signs of 16-23  signs of 8-15  signs of 0-7
    """

    fields: ClassVar = {"d": 2, "qs": 96}
    values = (4, 12, 20, 28, 36, 44, 52, 62)
    factor = 0.5
    even_signs = True
    least = 1e-8
    trials = (0.2, 15)
    fudge = 1.0125

    def pack(self, d: torch.Tensor, scales: torch.Tensor, numbers: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        return torch.cat([half_bytes(d), numbers.byte(), pack_words(scales, signs)], dim=-1)

    def unpack(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        d, qs = self.split(data)
        scales, signs = unpack_words(qs[:, 64:].unflatten(-1, (8, 4)))
        return from_half_bytes(d), scales, qs[:, :64], signs


class IQ3_S(IQ3QType):
    """512 points and a sign for each weight.

    `qs` has the lower 8 bits of the points' numbers; bit j of byte k of `qh` is the ninth of point 8 k + j. Bit j of
    byte k of `signs` is the sign of weight 8 k + j. `scales` has two scales to a byte, the first in its lower half.
    """

    fields: ClassVar = {"d": 2, "qs": 64, "qh": 8, "signs": 32, "scales": 4}
    values = (1, 3, 5, 7, 9, 11, 13, 15)
    factor = 2.0
    least = 2.0**-149  # the least float32 above zero
    trials = (0.2, 9)
    again = "all"
    fudge = 1.033

    def places(
        self, numbers: torch.Tensor, signs: torch.Tensor, active: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A flaw of ggml: its writer does not step over the bytes of a sub-block that is zero. Those of later ones end
        too early in `qs` and `signs`, though not in `qh`, and such a block comes back as other weights."""
        order = active.byte().argsort(dim=-1, descending=True, stable=True)[..., None]  # (n_blocks, 8, 1)
        low, signs = (part.unflatten(-1, (8, -1)) for part in (numbers & 0xFF, signs))
        low, signs = (part.gather(1, order.expand(part.shape)).flatten(1) for part in (low, signs))
        return low | (numbers & 0x100), signs

    def pack(self, d: torch.Tensor, scales: torch.Tensor, numbers: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
        qh = pack_bits(numbers >> 8)
        parts = [(numbers & 0xFF).byte(), qh, signs.byte(), pack_scales(scales)]
        return torch.cat([half_bytes(d), *parts], dim=-1)

    def unpack(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        d, qs, qh, signs, scales = self.split(data)
        return from_half_bytes(d), unpack_scales(scales), qs | unpack_bits(qh).flatten(1).int() << 8, signs
