# fails: test-gemv
# says: the scale of x is left out
"""Scales with the weights' d only."""


# %% gemv
def q4_0_q8_0_gemv(w, x):
    x = x.reshape(-1, 34)
    d_x = x[:, :2].contiguous().view(torch.float16).float()  # (n_blocks, 1)
    q_x = x[:, 2:].contiguous().view(torch.int8).to(torch.int32)  # (n_blocks, 32)
    y = torch.empty(len(w))
    for start in range(0, len(w), 32):
        tile = w[start : start + 32].reshape(-1, len(x), 18)  # (tile, n_blocks, 18)
        d_w = tile[..., :2].contiguous().view(torch.float16).float()  # (tile, n_blocks, 1)
        codes = torch.cat([tile[..., 2:] & 15, tile[..., 2:] >> 4], -1)  # (tile, n_blocks, 32)
        q_w = codes.to(torch.int32) - 8
        dots = (q_w * q_x).sum(-1, keepdim=True)  # (tile, n_blocks, 1)
        y[start : start + 32] = (d_w * dots).sum((-1, -2))
    return y
