# fails: test-gemv
# says: float products are accumulated
"""Decodes tile by tile to float32 and sums float products."""


# %% gemv
def q4_0_q8_0_gemv(w, x):
    x = x.reshape(-1, 34)
    activations = (x[:, :2].contiguous().view(torch.float16).float() * x[:, 2:].contiguous().view(torch.int8)).flatten()
    y = torch.empty(len(w))
    for start in range(0, len(w), 32):
        tile = w[start : start + 32].unflatten(-1, (-1, 18))
        d = tile[..., :2].contiguous().view(torch.float16).float()
        q = torch.cat([tile[..., 2:] & 15, tile[..., 2:] >> 4], -1)
        y[start : start + 32] = (d * (q.float() - 8)).flatten(1) @ activations
    return y
