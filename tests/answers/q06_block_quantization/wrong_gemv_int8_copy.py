# fails: test-gemv
# says: the matrix is unpacked as a whole
"""Keeps integers, but unpacks all of them at once into an int8 matrix."""


# %% gemv
def q4_0_q8_0_gemv(w, x):
    x = x.reshape(-1, 34)
    d_x = x[:, :2].contiguous().view(torch.float16).float()
    q_x = x[:, 2:].contiguous().view(torch.int8)
    blocks = w.reshape(len(w), -1, 18)
    q_w = torch.cat([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], -1).view(torch.int8) - 8
    d_w = blocks[..., :2].contiguous().view(torch.float16).float()
    y = torch.empty(len(w))
    for r in range(len(w)):
        dots = (q_w[r].int() * q_x).sum(-1, keepdim=True)
        y[r] = (d_w[r] * d_x * dots).sum()
    return y
