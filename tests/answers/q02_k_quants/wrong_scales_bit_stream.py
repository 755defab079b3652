# fails: test-scales
# says: one stream of 6 bits each
"""Packs the sixteen numbers one after the other, 6 bits each."""


# %% scales
def pack_scales_mins(sc, m):
    """Pack scales and minima below 64, uint8 `(..., 8)` each, into uint8 `(..., 12)`."""
    numbers = torch.cat([sc, m], -1)  # (..., 16)
    bits = (numbers.unsqueeze(-1) >> torch.arange(6) & 1).flatten(-2).unflatten(-1, (12, 8))
    return (bits << torch.arange(8)).sum(-1).to(torch.uint8)


def unpack_scales_mins(packed):
    """Unpack uint8 `(..., 12)` to scales and minima, uint8 `(..., 8)` each."""
    bits = (packed.unsqueeze(-1) >> torch.arange(8) & 1).flatten(-2).unflatten(-1, (16, 6))
    numbers = (bits << torch.arange(6)).sum(-1).to(torch.uint8)
    return numbers[..., :8], numbers[..., 8:]
