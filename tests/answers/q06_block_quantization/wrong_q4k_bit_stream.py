# fails: test-q4_k
# says: one stream of 6-bit numbers
"""Reads the 12 bytes as sixteen 6-bit numbers in a row."""


# %% q4_k
def q4_k_dequantize(data):
    blocks = data.reshape(*data.shape[:-1], -1, 144)
    pair = blocks[..., :4].contiguous().view(torch.float16).float()
    d, dmin = pair[..., :1], pair[..., 1:]  # (..., n_blocks, 1)
    bits = blocks[..., 4:16].unsqueeze(-1) >> torch.arange(8) & 1
    numbers = (bits.flatten(-2).unflatten(-1, (16, 6)) << torch.arange(6)).sum(-1)  # (..., n_blocks, 16)
    sc, m = numbers[..., :8], numbers[..., 8:]
    qs = blocks[..., 16:].unflatten(-1, (4, 32))  # (..., n_blocks, 4, 32)
    q = torch.stack([qs & 15, qs >> 4], -2).flatten(-3, -2)  # (..., n_blocks, 8, 32)
    w = (d * sc).unsqueeze(-1) * q - (dmin * m).unsqueeze(-1)
    return w.flatten(-3)
