# fails: test-q8_0
# says: codes come from the scale rounded to float16
"""Rounds the scale to float16 first, and divides by that."""


# %% q8_0
def q8_0_quantize(x):
    if x.shape[-1] % 32:
        raise ValueError(f"last dimension {x.shape[-1]} is not a multiple of Q8_0's block size 32")
    blocks = x.reshape(*x.shape[:-1], -1, 32)  # (..., n_blocks, 32)
    d = blocks.abs().amax(-1, keepdim=True) / 127
    d = d.half().float()
    v = blocks * torch.where(d == 0, 0, 1 / d)
    q = (v.sign() * (v.abs() + 0.5).floor()).to(torch.int8)
    data = torch.cat([d.half().view(torch.uint8), q.view(torch.uint8)], -1)  # (..., n_blocks, 34)
    return data.flatten(-2)


def q8_0_dequantize(data):
    blocks = data.reshape(*data.shape[:-1], -1, 34)
    d = blocks[..., :2].contiguous().view(torch.float16).float()  # (..., n_blocks, 1)
    return (d * blocks[..., 2:].contiguous().view(torch.int8)).flatten(-2)
