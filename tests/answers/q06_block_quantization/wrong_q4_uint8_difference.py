# fails: test-q4_0
# says: 8 is subtracted in uint8
"""Subtracts 8 from uint8 codes, where 7 − 8 is 255."""


# %% q4_0
def q4_0_quantize(x):
    if x.shape[-1] % 32:
        raise ValueError(f"last dimension {x.shape[-1]} is not a multiple of Q4_0's block size 32")
    blocks = x.reshape(*x.shape[:-1], -1, 32)  # (..., n_blocks, 32)
    first = blocks.abs().argmax(-1, keepdim=True)  # of equal ones the first
    d = blocks.gather(-1, first) / -8  # (..., n_blocks, 1)
    inverse = torch.where(d == 0, 0, 1 / d)
    q = (blocks * inverse + 8.5).to(torch.uint8).clamp(max=15)
    qs = q[..., :16] | q[..., 16:] << 4  # (..., n_blocks, 16)
    return torch.cat([d.half().view(torch.uint8), qs], -1).flatten(-2)


def q4_0_dequantize(data):
    blocks = data.reshape(*data.shape[:-1], -1, 18)
    d = blocks[..., :2].contiguous().view(torch.float16).float()  # (..., n_blocks, 1)
    q = torch.cat([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], -1)  # (..., n_blocks, 32)
    return (d * (q - 8)).flatten(-2)
