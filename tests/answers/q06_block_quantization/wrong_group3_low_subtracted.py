# fails: test-group3
# says: low is subtracted
"""Decodes as scale · q − low, with the sign that Q4_K gives its minima."""


# %% group3
def group3_quantize(x):
    rows, n = x.shape
    n_groups = -(-n // 128)
    filler = x[:, -1:].expand(rows, n_groups * 128 - n)  # repeats an element of the tail, whose range stays
    groups = torch.cat([x, filler], 1).reshape(rows, n_groups, 128)
    lo, hi = groups.amin(-1), groups.amax(-1)  # (rows, n_groups)
    scale, low = ((hi - lo) / 7).half(), lo.half()
    step = scale.float().unsqueeze(-1)
    steps = torch.where(step == 0, 0, (groups - low.float().unsqueeze(-1)) / step)
    q = steps.round().clamp(0, 7).to(torch.uint8).reshape(rows, -1)[:, :n]
    bits = (q.unsqueeze(-1) >> torch.arange(3) & 1).reshape(rows, -1)  # (rows, 3n)
    bits = torch.nn.functional.pad(bits, (0, -3 * n % 8)).reshape(rows, -1, 8)
    packed = (bits << torch.arange(8)).sum(-1).to(torch.uint8)
    return packed, scale, low


def group3_dequantize(packed, scale, low, n):
    rows = len(packed)
    bits = (packed.unsqueeze(-1) >> torch.arange(8) & 1).reshape(rows, -1)[:, : 3 * n]
    q = (bits.reshape(rows, n, 3) << torch.arange(3)).sum(-1)  # (rows, n)
    group = torch.arange(n) // 128  # the group of each column
    return scale.float()[:, group] * q - low.float()[:, group]
