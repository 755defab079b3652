# fails: test-scales
# says: divided as 2 low and 4 high ones
"""Stores the low two bits apart, not the top two."""


# %% scales
def pack_scales_mins(sc, m):
    """Pack scales and minima below 64, uint8 `(..., 8)` each, into uint8 `(..., 12)`."""
    first = torch.cat([sc[..., :4], m[..., :4]], -1)  # (..., 8)
    later = torch.cat([sc[..., 4:], m[..., 4:]], -1)  # (..., 8)
    nibbles = later[..., :4] >> 2 | later[..., 4:] >> 2 << 4  # (..., 4)
    return torch.cat([first | later << 6, nibbles], -1)


def unpack_scales_mins(packed):
    """Unpack uint8 `(..., 12)` to scales and minima, uint8 `(..., 8)` each."""
    a, b, c = packed.unflatten(-1, (3, 4)).unbind(-2)  # (..., 4)
    sc = torch.cat([a & 63, (c & 15) << 2 | a >> 6], -1)
    m = torch.cat([b & 63, c >> 4 << 2 | b >> 6], -1)
    return sc, m
