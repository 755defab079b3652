# fails: test-scales
# says: top bits of sub-blocks 4–7 are lost
"""Forgets the two top bits of the later sub-blocks."""


# %% scales
def pack_scales_mins(sc, m):
    """Pack scales and minima below 64, uint8 `(..., 8)` each, into uint8 `(..., 12)`."""
    first = torch.cat([sc[..., :4], m[..., :4]], -1)  # (..., 8)
    later = torch.cat([sc[..., 4:], m[..., 4:]], -1)  # (..., 8)
    nibbles = (later[..., :4] & 15) | (later[..., 4:] & 15) << 4  # (..., 4)
    return torch.cat([first, nibbles], -1)


def unpack_scales_mins(packed):
    """Unpack uint8 `(..., 12)` to scales and minima, uint8 `(..., 8)` each."""
    a, b, c = packed.unflatten(-1, (3, 4)).unbind(-2)  # (..., 4)
    sc = torch.cat([a & 63, c & 15], -1)
    m = torch.cat([b & 63, c >> 4], -1)
    return sc, m
