# fails: test-decode
# says: high nibbles come before low nibbles
"""Takes Q4_K's high nibbles first."""


# %% decode
def q6_k_dequantize(data):
    """Decode Q6_K super-blocks, uint8 `(..., n_blocks * 210)`, to float32 `(..., n_blocks * 256)`."""
    blocks = data.unflatten(-1, (-1, 210))
    ql, qh, scales, d = blocks.split([128, 64, 16, 2], -1)
    low = ql.unflatten(-1, (2, 1, 64)) >> torch.tensor([[0], [4]]) & 15  # (..., n_blocks, 2, 2, 64)
    top = qh.unflatten(-1, (2, 1, 32)) >> torch.tensor([[0], [2], [4], [6]]) & 3  # (..., n_blocks, 2, 4, 32)
    q = low.flatten(-3) + 16 * top.flatten(-3) - 32  # (..., n_blocks, 256)
    d = d.contiguous().view(torch.float16).float()  # (..., n_blocks, 1)
    step = d * scales.contiguous().view(torch.int8)  # (..., n_blocks, 16)
    return (step.repeat_interleave(16, -1) * q).flatten(-2)


def q4_k_dequantize(data, sc, m):
    """Decode Q4_K super-blocks, uint8 `(..., n_blocks * 144)`, to float32 `(..., n_blocks * 256)`.

    `sc` and `m`, uint8 `(..., n_blocks, 8)`, are the blocks' unpacked scales and minima.
    """
    blocks = data.unflatten(-1, (-1, 144))
    d, dmin = blocks[..., :4].contiguous().view(torch.float16).float().split(1, -1)  # (..., n_blocks, 1)
    qs = blocks[..., 16:].unflatten(-1, (4, 32))  # (..., n_blocks, 4, 32)
    q = torch.stack([qs >> 4, qs & 15], -2).flatten(-3, -2)  # (..., n_blocks, 8, 32)
    w = (d * sc).unsqueeze(-1) * q - (dmin * m).unsqueeze(-1)
    return w.flatten(-3)
