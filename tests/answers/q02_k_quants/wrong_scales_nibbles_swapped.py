# fails: test-scales
# says: scales are in the high nibbles
"""Puts the scales into the high nibbles of the last four bytes."""


# %% scales
def pack_scales_mins(sc, m):
    """Pack scales and minima below 64, uint8 `(..., 8)` each, into uint8 `(..., 12)`."""
    first = torch.cat([sc[..., :4], m[..., :4]], -1)  # (..., 8)
    later = torch.cat([sc[..., 4:], m[..., 4:]], -1)  # (..., 8)
    nibbles = (later[..., 4:] & 15) | (later[..., :4] & 15) << 4  # (..., 4)
    return torch.cat([first | later >> 4 << 6, nibbles], -1)


def unpack_scales_mins(packed):
    """Unpack uint8 `(..., 12)` to scales and minima, uint8 `(..., 8)` each."""
    a, b, c = packed.unflatten(-1, (3, 4)).unbind(-2)  # (..., 4)
    sc = torch.cat([a & 63, c >> 4 | a >> 6 << 4], -1)
    m = torch.cat([b & 63, c & 15 | b >> 6 << 4], -1)
    return sc, m
