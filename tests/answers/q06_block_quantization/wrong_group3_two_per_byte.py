# fails: test-group3
# says: each byte holds two codes
"""Keeps each code within a nibble, two to a byte, so that none crosses a byte border."""


# %% group3
def group3_quantize(x):
    rows, n = x.shape
    n_groups = -(-n // 128)
    filler = x[:, -1:].expand(rows, n_groups * 128 - n)
    groups = torch.cat([x, filler], 1).reshape(rows, n_groups, 128)
    lo, hi = groups.amin(-1), groups.amax(-1)
    scale, low = ((hi - lo) / 7).half(), lo.half()
    step = scale.float().unsqueeze(-1)
    steps = torch.where(step == 0, 0, (groups - low.float().unsqueeze(-1)) / step)
    q = steps.round().clamp(0, 7).to(torch.uint8).reshape(rows, -1)[:, :n]
    q = torch.nn.functional.pad(q, (0, n % 2))
    return q[:, ::2] | q[:, 1::2] << 4, scale, low


def group3_dequantize(packed, scale, low, n):
    q = torch.stack([packed & 7, packed >> 4 & 7], -1).flatten(1)[:, :n]
    group = torch.arange(n) // 128
    return scale.float()[:, group] * q + low.float()[:, group]
