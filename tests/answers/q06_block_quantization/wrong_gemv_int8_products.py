# fails: test-gemv
# says: products wrap around at 8 bits
"""Multiplies int8 by int8, and torch keeps int8."""


# %% gemv
def q4_0_q8_0_gemv(w, x):
    x = x.reshape(-1, 34)
    d_x = x[:, :2].contiguous().view(torch.float16).float()  # (n_blocks, 1)
    q_x = x[:, 2:].contiguous().view(torch.int8)
    y = torch.empty(len(w))
    for start in range(0, len(w), 32):
        tile = w[start : start + 32].reshape(-1, len(x), 18)  # (tile, n_blocks, 18)
        d_w = tile[..., :2].contiguous().view(torch.float16).float()  # (tile, n_blocks, 1)
        codes = torch.cat([tile[..., 2:] & 15, tile[..., 2:] >> 4], -1)  # (tile, n_blocks, 32)
        q_w = codes.to(torch.int8) - 8
        dots = (q_w * q_x).sum(-1, keepdim=True)  # (tile, n_blocks, 1)
        y[start : start + 32] = (d_w * d_x * dots).sum((-1, -2))
    return y
