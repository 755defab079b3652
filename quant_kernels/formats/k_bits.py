"""How the codes and scales of K-quants share bytes: quarters of bytes, planes of bits, scales of 6 bits."""

import torch

from .bits import bit_fields, pack_nibbles, unpack_nibbles


def pack_crumbs(codes: torch.Tensor) -> torch.Tensor:
    """(n_blocks, 4 * m) codes below 4 to (n_blocks, m) uint8.

    Byte j holds four codes that are m apart:

        bit    7 6          5 4          3 2        1 0
               code j+3m    code j+2m    code j+m   code j
    """
    first, second, third, fourth = codes.chunk(4, dim=-1)
    return first | (second << 2) | (third << 4) | (fourth << 6)


def unpack_crumbs(data: torch.Tensor) -> torch.Tensor:
    """(n_blocks, m) uint8 to (n_blocks, 4 * m) codes below 4, the inverse of `pack_crumbs`."""
    return bit_fields(data, 2).flatten(1)


def pack_halves_of_crumbs(codes: torch.Tensor) -> torch.Tensor:
    """(n_blocks, 256) codes below 4 to (n_blocks, 64) uint8, for each half of a block by itself."""
    return pack_crumbs(codes.view(-1, 128)).view(-1, 64)


def pack_quarters_of_nibbles(codes: torch.Tensor) -> torch.Tensor:
    """(n_blocks, 256) codes below 16 to (n_blocks, 128) uint8, for each quarter of a block by itself."""
    return pack_nibbles(codes.view(-1, 64)).view(-1, 128)


def pack_planes(bits: torch.Tensor) -> torch.Tensor:
    """(n_blocks, 256) bits to (n_blocks, 32) uint8: bit k of byte j is that of weight j + 32 * k."""
    first, *others = bits.chunk(8, dim=-1)
    data = first.clone()
    for k, plane in enumerate(others, start=1):
        data |= plane << k
    return data


def pack_scales_and_mins(scales: torch.Tensor, mins: torch.Tensor) -> torch.Tensor:
    """Twice (n_blocks, 8) codes below 64 to (n_blocks, 12) uint8.

        byte j       SSssssss    s: scale j        S: bits 4 and 5 of scale j + 4     for j below 4
        byte j + 4   MMmmmmmm    m: minimum j      M: bits 4 and 5 of minimum j + 4
        byte j + 8   mmmmssss    s: bits 0 to 3 of scale j + 4, m: those of minimum j + 4

    A scale above 63 spills into the two bits above it, as in ggml.
    """
    codes = torch.cat([scales[:, :4], mins[:, :4]], dim=-1)
    later = torch.cat([scales[:, 4:], mins[:, 4:]], dim=-1)  # (n_blocks, 8)
    return torch.cat([codes | ((later >> 4) << 6), pack_nibbles(later & 0x0F)], dim=-1)


def unpack_scales_and_mins(data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n_blocks, 12) uint8 to scales and mins, (n_blocks, 8) each, the inverse of `pack_scales_and_mins`."""
    codes = data[:, :8] & 0x3F
    later = ((data[:, :8] >> 6) << 4) | unpack_nibbles(data[:, 8:])
    return torch.cat([codes[:, :4], later[:, :4]], dim=-1), torch.cat([codes[:, 4:], later[:, 4:]], dim=-1)


def pack_scales(scales: torch.Tensor) -> torch.Tensor:
    """(n_blocks, 16) codes below 64 to (n_blocks, 12) uint8.

    byte j       hhhhllll             l: bits 0 to 3 of scale j, h: those of scale j + 8     for j below 8
    byte j + 8   DDCCBBAA             A to D: bits 4 and 5 of the scales j, j + 4, j + 8, j + 12     for j below 4
    """
    return torch.cat([pack_nibbles(scales & 0x0F), pack_crumbs(scales >> 4)], dim=-1)


def unpack_scales(data: torch.Tensor) -> torch.Tensor:
    """(n_blocks, 12) uint8 to (n_blocks, 16) codes below 64, the inverse of `pack_scales`."""
    return unpack_nibbles(data[:, :8]) | (unpack_crumbs(data[:, 8:]) << 4)
