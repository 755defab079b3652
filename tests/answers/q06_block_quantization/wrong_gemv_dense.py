# fails: test-gemv
# says: the matrix is unpacked as a whole
"""Decodes the matrix to float32 and calls the float product."""


# %% gemv
def q4_0_q8_0_gemv(w, x):
    x = x.reshape(-1, 34)
    activations = x[:, :2].contiguous().view(torch.float16).float() * x[:, 2:].contiguous().view(torch.int8)
    blocks = w.reshape(len(w), -1, 18)
    d = blocks[..., :2].contiguous().view(torch.float16).float()
    q = torch.cat([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], -1)
    dense = (d * (q.float() - 8)).flatten(1)
    return dense @ activations.flatten()
