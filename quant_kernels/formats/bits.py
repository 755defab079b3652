"""How small integers share bytes: fp16 scales, pairs of 4-bit codes, rows of single bits."""

import torch

ONE_OF_EIGHT = torch.tensor([1 << j for j in range(8)], dtype=torch.uint8)  # byte j has bit j


def half_bytes(x: torch.Tensor) -> torch.Tensor:
    """(n_blocks, 1) float32, rounded to fp16, to (n_blocks, 2) uint8."""
    return x.to(torch.float16).view(torch.uint8)


def from_half_bytes(data: torch.Tensor) -> torch.Tensor:
    """(n_blocks, 2) uint8 that hold fp16 to (n_blocks, 1) float32."""
    return data.clone(memory_format=torch.contiguous_format).view(torch.float16).float()  # at an even address


def pack_nibbles(codes: torch.Tensor) -> torch.Tensor:
    """(n_blocks, 32) codes below 16 to (n_blocks, 16) uint8.

    Byte j holds weight j and weight j + 16, not two neighbours:

        bit    7 6 5 4      3 2 1 0
               code j+16    code j
    """
    half = codes.shape[-1] // 2
    return codes[:, :half] | (codes << 4)[:, half:]


def unpack_nibbles(qs: torch.Tensor) -> torch.Tensor:
    """(n_blocks, 16) uint8 to (n_blocks, 32) codes below 16, the inverse of `pack_nibbles`."""
    return bit_fields(qs, 4).flatten(1)


def bit_fields(data: torch.Tensor, width: int) -> torch.Tensor:
    """The fields of `width` bits of each byte, the lowest first: (..., m) uint8 to (..., 8 / width, m) uint8."""
    shifts, mask = range(0, 8, width), (1 << width) - 1
    if torch.compiler.is_compiling():  # to one loop over everything; `stack` would ask at every element where it is
        return (data[..., None, :] >> torch.tensor(shifts, dtype=torch.uint8, device=data.device)[:, None]) & mask
    data = data.contiguous()
    return torch.stack([(data >> shift) & mask for shift in shifts], dim=-2)


def pack_bits(bits: torch.Tensor) -> torch.Tensor:
    """(n_blocks, 32) zeros and ones to (n_blocks, 4) uint8.

    Bit j of byte k belongs to weight 8 k + j, as in a little-endian uint32:

        bit    7     6     5     4     3     2     1     0
               8k+7  8k+6  8k+5  8k+4  8k+3  8k+2  8k+1  8k
    """
    place = ONE_OF_EIGHT.to(bits.device, torch.float32)
    return (bits.unflatten(-1, (-1, 8)).float() @ place).to(torch.uint8)


def unpack_bits(qh: torch.Tensor) -> torch.Tensor:
    """(n_blocks, 4) uint8 to (n_blocks, 32) zeros and ones, the inverse of `pack_bits`."""
    if torch.compiler.is_compiling():
        return ((qh[..., None] >> torch.arange(8, dtype=torch.uint8, device=qh.device)) & 1).flatten(1)
    eight_times = qh.to(torch.int64) * 0x0101010101010101  # (n_blocks, 4): each byte eight times
    own_bit = eight_times & ONE_OF_EIGHT.to(qh.device).view(torch.int64)
    return own_bit.view(torch.uint8).clamp_(max=1)
