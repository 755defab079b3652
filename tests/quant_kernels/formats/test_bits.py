"""Packing, bit by bit."""

import torch

from quant_kernels.formats.bits import from_half_bytes, half_bytes, pack_bits, pack_nibbles, unpack_bits, unpack_nibbles


def test_a_nibble_shares_its_byte_with_the_one_sixteen_further():
    codes = torch.zeros(1, 32, dtype=torch.uint8)
    codes[0, 3], codes[0, 19] = 0x5, 0xA
    packed = pack_nibbles(codes)
    assert packed[0, 3] == 0xA5
    assert packed.sum() == 0xA5


def test_each_bit_has_its_place():
    for j in range(32):
        bits = torch.zeros(1, 32, dtype=torch.uint8)
        bits[0, j] = 1
        packed = pack_bits(bits)
        assert packed.view(torch.int32).item() & 0xFFFFFFFF == 1 << j
        assert torch.equal(unpack_bits(packed), bits)


def test_unpacking_inverts_packing():
    codes = torch.randint(0, 16, (100, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(unpack_nibbles(pack_nibbles(codes)), codes)
    assert torch.equal(unpack_bits(pack_bits(codes & 1)), codes & 1)


def test_half_precision_bytes():
    x = torch.tensor([[1.0], [-0.0], [65504.0], [6e-8]])
    assert half_bytes(x).tolist() == [[0x00, 0x3C], [0x00, 0x80], [0xFF, 0x7B], [0x01, 0x00]]
    assert from_half_bytes(half_bytes(x)).tolist() == [[1.0], [-0.0], [65504.0], [2.0**-24]]
