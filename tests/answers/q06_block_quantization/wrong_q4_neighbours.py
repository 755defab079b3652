# fails: test-q4_0, test-gemv
# says: neighbours 2i and 2i + 1 share a byte
"""Puts the neighbours 2i and 2i + 1 into one byte, everywhere."""


# %% q4_0
def q4_0_quantize(x):
    if x.shape[-1] % 32:
        raise ValueError(f"last dimension {x.shape[-1]} is not a multiple of Q4_0's block size 32")
    blocks = x.reshape(*x.shape[:-1], -1, 32)  # (..., n_blocks, 32)
    first = blocks.abs().argmax(-1, keepdim=True)  # of equal ones the first
    d = blocks.gather(-1, first) / -8  # (..., n_blocks, 1)
    inverse = torch.where(d == 0, 0, 1 / d)
    q = (blocks * inverse + 8.5).to(torch.uint8).clamp(max=15)
    qs = q[..., ::2] | q[..., 1::2] << 4
    return torch.cat([d.half().view(torch.uint8), qs], -1).flatten(-2)


def q4_0_dequantize(data):
    blocks = data.reshape(*data.shape[:-1], -1, 18)
    d = blocks[..., :2].contiguous().view(torch.float16).float()  # (..., n_blocks, 1)
    q = torch.stack([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], -1).flatten(-2)
    return (d * (q.float() - 8)).flatten(-2)


# %% gemv
def q4_0_q8_0_gemv(w, x):
    x = x.reshape(-1, 34)
    d_x = x[:, :2].contiguous().view(torch.float16).float()  # (n_blocks, 1)
    q_x = x[:, 2:].contiguous().view(torch.int8).to(torch.int32)  # (n_blocks, 32)
    y = torch.empty(len(w))
    for start in range(0, len(w), 32):
        tile = w[start : start + 32].reshape(-1, len(x), 18)  # (tile, n_blocks, 18)
        d_w = tile[..., :2].contiguous().view(torch.float16).float()  # (tile, n_blocks, 1)
        codes = torch.stack([tile[..., 2:] & 15, tile[..., 2:] >> 4], -1).flatten(-2)
        q_w = codes.to(torch.int32) - 8
        dots = (q_w * q_x).sum(-1, keepdim=True)  # (tile, n_blocks, 1)
        y[start : start + 32] = (d_w * d_x * dots).sum((-1, -2))
    return y
