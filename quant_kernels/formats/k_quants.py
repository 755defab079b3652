"""The K-quants of ggml: 256 weights in 8 or 16 sub-blocks, whose scales and minima are small integers themselves.

Every sub-block searches for its scale, with or without error weights. The scales of a block get codes and a common fp16
scale `d`, the minima `dmin`, and then the weights get their codes once more, with the scales as they are stored. The
codes of the search stay only where a stored scale is 0. Subtracting the minimum, `x = d * q - m`, is ggml's convention.
"""

from abc import abstractmethod
from typing import ClassVar

import torch

from ..compilation import compilable, eagerly
from .bits import bit_fields, from_half_bytes, half_bytes, pack_nibbles
from .block import QType
from .k_bits import (
    pack_halves_of_crumbs,
    pack_planes,
    pack_quarters_of_nibbles,
    pack_scales,
    pack_scales_and_mins,
    unpack_scales,
    unpack_scales_and_mins,
)
from .k_search import as_bytes, scale_codes, search_one_by_one, search_positive, signed_scale_codes
from .search import ALL_ZERO, WRAPS, as_code, divide, ordered_sum, search_asymmetric, search_symmetric, sqrt


class KQType(QType):
    """256 weights in sub-blocks, and error weights that grow with the weight itself and with its block."""

    family = "K"
    block_size = 256
    searches = True
    sub_block: int  # weights that share a scale

    def error_weights(self, rows: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
        blocks = rows.reshape(-1, self.block_size)
        squares = blocks * blocks
        return importance * sqrt(self.sigma2(squares) + squares).reshape(rows.shape)

    def sigma2(self, squares: torch.Tensor) -> torch.Tensor:
        """Twice the mean of the squares of a block: (n_blocks, 256) to (n_blocks, 1)."""
        return divide(2 * sum_of_columns(squares), self.block_size)

    def columns(self, x: torch.Tensor) -> torch.Tensor:
        """(n_blocks, 256) to (sub_block, n_blocks * n_sub)."""
        return x.reshape(-1, self.sub_block).T.contiguous()

    def by_block(self, x: torch.Tensor) -> torch.Tensor:
        """What each sub-block has one of, (n_blocks * n_sub,), to (n_blocks, n_sub)."""
        return x.reshape(-1, self.block_size // self.sub_block)


class MinimumKQType(KQType):
    """Levels from a minimum up: x = d * scale * q - dmin * min, with q from 0 to nmax."""

    scales = ("d", "dmin")
    nmax: int  # the highest code of a weight
    scale_nmax: int  # the highest code of a scale and of a minimum

    @abstractmethod
    def search_unweighted(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `search_asymmetric`, with the error weights that ggml makes up where there are none."""

    @abstractmethod
    def pack_scales(self, scales: torch.Tensor, mins: torch.Tensor, weighted: bool) -> torch.Tensor:
        """(n_blocks, n_sub) codes each to the bytes of the field `scales`. Tells if there were error weights."""

    @abstractmethod
    def unpack_scales(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The inverse of `pack_scales`."""

    @abstractmethod
    def pack(self, d: torch.Tensor, dmin: torch.Tensor, scales: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        """The structs, (n_blocks, type_size), from the bytes of three fields and the codes (n_blocks, 256)."""

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        columns = self.columns(x)
        if weights is None:
            s, m, q = self.search_unweighted(columns)
            d, s = scale_codes(self.by_block(s), self.scale_nmax)
            dmin, m = scale_codes(self.by_block(-m), self.scale_nmax)
        else:
            weights = self.columns(weights)
            sums = self.by_block(ordered_sum(weights))
            s, m, q = search_asymmetric(columns, weights, self.nmax)
            d, s = search_positive(self.by_block(s), sums, self.scale_nmax)
            dmin, m = search_positive(self.by_block(-m), sums, self.scale_nmax)
        d, dmin, scales = half_bytes(d), half_bytes(dmin), self.pack_scales(s, m, weighted=weights is not None)
        step, least = (part.flatten() for part in self.scales_and_mins(d, dmin, scales))
        q = round_again(columns, q, step, least, 0, self.nmax)
        return self.pack(d, dmin, scales, q.T.reshape(x.shape))

    def scales_and_mins(
        self, d: torch.Tensor, dmin: torch.Tensor, scales: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The scale and minimum of each sub-block as they are stored, (n_blocks, n_sub) float32."""
        s, m = self.unpack_scales(scales)
        return from_half_bytes(d) * s, from_half_bytes(dmin) * m

    def steps(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fields = dict(zip(self.fields, self.split(data), strict=True))
        step, least = self.scales_and_mins(fields["d"], fields["dmin"], fields["scales"])
        return step, -least


class Q2_K(MinimumKQType):
    """Four levels, and scales and minima of four bits in one byte."""

    fields: ClassVar = {"scales": 16, "qs": 64, "d": 2, "dmin": 2}
    sub_block, nmax, scale_nmax = 16, 3, 15

    def sigma2(self, squares: torch.Tensor) -> torch.Tensor:
        return divide(sum_of_columns(squares), self.block_size)

    def search_unweighted(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return search_asymmetric(x, x.abs(), self.nmax, trials=(-0.5, 0.1, 16), absolute=True)

    def pack_scales(self, scales: torch.Tensor, mins: torch.Tensor, weighted: bool) -> torch.Tensor:
        return scales | (mins << 4)

    def unpack_scales(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return data & 0x0F, data >> 4

    def pack(self, d: torch.Tensor, dmin: torch.Tensor, scales: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return torch.cat([scales, pack_halves_of_crumbs(q), d, dmin], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        _, qs, _, _ = self.split(data)
        return bit_fields(qs.unflatten(1, (2, 32)), 2).unflatten(-1, (2, 16))  # (n_blocks, 2, 4, 2, 16)


class Q4_K(MinimumKQType):
    """Sixteen levels, and scales and minima of six bits."""

    fields: ClassVar = {"d": 2, "dmin": 2, "scales": 12, "qs": 128}
    sub_block, nmax, scale_nmax = 32, 15, 63
    trials = (-1.0, 0.1, 21)  # without error weights

    def search_unweighted(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        weights = sqrt(divide(ordered_sum(x * x), self.sub_block)) + x.abs()
        return search_asymmetric(x, weights, self.nmax, self.trials)

    def pack_scales(self, scales: torch.Tensor, mins: torch.Tensor, weighted: bool) -> torch.Tensor:
        # A negative scale has become a byte above 63. ggml limits it, but not in Q4_K with error weights.
        return pack_scales_and_mins(scales if weighted else scales.clamp(max=63), mins)

    def unpack_scales(self, data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return unpack_scales_and_mins(data)

    def pack(self, d: torch.Tensor, dmin: torch.Tensor, scales: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return torch.cat([d, dmin, scales, pack_quarters_of_nibbles(q)], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        *_, qs = self.split(data)
        return bit_fields(qs.unflatten(1, (4, 32)), 4)  # (n_blocks, 4, 2, 32)


class Q5_K(Q4_K):
    """Thirty-two levels, and scales and minima of six bits. The fifth bits of the codes are in `qh`."""

    fields: ClassVar = {"d": 2, "dmin": 2, "scales": 12, "qh": 32, "qs": 128}
    nmax = 31
    trials = (-0.5, 0.1, 16)

    def pack_scales(self, scales: torch.Tensor, mins: torch.Tensor, weighted: bool) -> torch.Tensor:
        return pack_scales_and_mins(scales.clamp(max=63), mins)

    def pack(self, d: torch.Tensor, dmin: torch.Tensor, scales: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return torch.cat([d, dmin, scales, pack_planes(q >> 4), pack_quarters_of_nibbles(q & 0x0F)], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        *_, qh, qs = self.split(data)
        high = bit_fields(qh, 1).unflatten(1, (4, 2))  # (n_blocks, 4, 2, 32)
        return (high << 4) | bit_fields(qs.unflatten(1, (4, 32)), 4)


class SymmetricKQType(KQType):
    """Levels around zero: x = d * scale * q, with q from -nmax to nmax - 1, stored as q + nmax."""

    scales = ("d",)
    sub_block = 16
    nmax: int

    def final_codes(
        self, columns: torch.Tensor, q: torch.Tensor, d: torch.Tensor, scales: torch.Tensor
    ) -> torch.Tensor:
        """Stored codes (n_blocks, 256) uint8 of columns (16, n_blocks * 16), where the scale is 0 those of the search.

        q: (16, n_blocks * 16), d: (n_blocks, 2) uint8, scales: (n_blocks, 16) signed integers.
        """
        step = (from_half_bytes(d) * scales).flatten()
        q = round_again(columns, q, step, torch.zeros_like(step), -self.nmax, self.nmax - 1)
        return q.T.reshape(-1, self.block_size)


class Q3_K(SymmetricKQType):
    """Eight levels, and signed scales of six bits. The third bits of the codes are in `hmask`."""

    fields: ClassVar = {"hmask": 32, "qs": 64, "scales": 12, "d": 2}
    nmax = zero = 4

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        columns = self.columns(x)
        if weights is None:
            s, q = search_one_by_one(columns, self.nmax)
            d, s = signed_scale_codes(self.by_block(s), 32)
            s = torch.where(d == 0, 0, s + 32)
        else:
            weights = self.columns(weights)
            s, q = search_symmetric(columns, weights, self.nmax)
            d, s = search_symmetric(self.by_block(s).T, self.by_block(ordered_sum(weights)).T, 32)
            d, s = d[:, None], s.T
        d, s = half_bytes(d), s.to(torch.uint8)  # (n_blocks, 16)
        q = self.final_codes(columns, q, d, s.view(torch.int8) - 32)
        return torch.cat([pack_planes(q >> 2), pack_halves_of_crumbs(q & 3), pack_scales(s), d], dim=-1)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        hmask, qs, _, _ = self.split(data)
        high = bit_fields(hmask, 1).unflatten(1, (2, 4))  # (n_blocks, 2, 4, 32)
        return ((high << 2) | bit_fields(qs.unflatten(1, (2, 32)), 2)).unflatten(-1, (2, 16))

    def steps(self, data: torch.Tensor) -> tuple[torch.Tensor, None]:
        _, _, scales, d = self.split(data)
        return from_half_bytes(d) * (unpack_scales(scales).view(torch.int8) - 32), None


class Q6_K(SymmetricKQType):
    """Sixty-four levels, and signed scales of eight bits. The lower four bits of the codes are in `ql`.

    Its error weights are the importances alone, and the squares of the weights where there are none.
    """

    fields: ClassVar = {"ql": 128, "qh": 64, "scales": 16, "d": 2}
    nmax = zero = 32

    def error_weights(self, rows: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
        return importance

    def quantize_blocks(self, x: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        columns = self.columns(x)
        weights = columns * columns if weights is None else self.columns(weights)
        s, q = search_symmetric(columns, weights, self.nmax)
        s = self.by_block(s)
        zero = (~(s.abs() >= ALL_ZERO)).all(-1, keepdim=True)  # NaN does not count either
        d, s = signed_scale_codes(s, 128)
        d = half_bytes(d)
        q = self.final_codes(columns, q, d, s)
        ql = pack_nibbles((q & 0x0F).view(-1, 128)).view(-1, 128)
        data = torch.cat([ql, pack_halves_of_crumbs(q >> 4), as_bytes(s), d], dim=-1)
        return data.masked_fill_(zero, 0)

    def codes(self, data: torch.Tensor) -> torch.Tensor:
        ql, qh, _, _ = self.split(data)
        low = bit_fields(ql.unflatten(1, (2, 64)), 4).unflatten(-1, (2, 32))  # (n_blocks, 2, 2, 2, 32)
        high = bit_fields(qh.unflatten(1, (2, 32)), 2).unflatten(2, (2, 2))
        return (low | (high << 4)).unflatten(-1, (2, 16))

    def steps(self, data: torch.Tensor) -> tuple[torch.Tensor, None]:
        _, _, scales, d = self.split(data)
        return from_half_bytes(d) * scales.view(torch.int8), None


def round_again(
    x: torch.Tensor, q: torch.Tensor, step: torch.Tensor, least: torch.Tensor, low: int, high: int
) -> torch.Tensor:
    """Codes from 0 on, uint8, for scales and minima as they are stored; those of the search, q, where the scale is 0.

    x and q are columns (16 or 32, n), step and least are (n,).
    """
    codes, wild = _round_again(x, q, step, least, low, high, False)
    if wild.any():
        with eagerly():
            codes, _ = _round_again(x, q, step, least, low, high, True)
    return codes


@compilable(dim=-1)
def _round_again(
    x: torch.Tensor, q: torch.Tensor, step: torch.Tensor, least: torch.Tensor, low: int, high: int, by_bits: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    exact = (x + least) / step
    codes = torch.where(step == 0, q, as_code(exact, low, high, by_bits) - low)
    return codes.to(torch.uint8), (step != 0) & ~(exact.abs().amax(0) < WRAPS)


def sum_of_columns(x: torch.Tensor) -> torch.Tensor:
    """The sum of each row in the order of its elements: (n, m) to (n, 1)."""
    return ordered_sum(x.T.contiguous())[:, None]
