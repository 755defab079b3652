# fails: test-channel
# says: s is left out
"""Drops the channel scales."""


# %% w8a8
def quantize_rows(x):
    peak = x.abs().amax(-1, keepdim=True)
    scale = torch.where(peak == 0, 1.0, peak / 127)
    return (x / scale).round().to(torch.int8), scale


def w8a8_linear(x, w_codes, w_scale):
    x_codes, x_scale = quantize_rows(x)
    sums = x_codes.double() @ w_codes.double().T
    return (sums * x_scale * w_scale.T).float()


def channel_linear(x_codes, s, weight):
    w_codes, w_scale = quantize_rows(weight)
    sums = x_codes.double() @ w_codes.double().T
    return (sums * w_scale.T).float()
