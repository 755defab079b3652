# fails: test-w8a8
# says: one scale serves all tokens
"""One scale for the whole batch of activations."""


# %% w8a8
def quantize_rows(x):
    peak = x.abs().amax().expand(*x.shape[:-1], 1)
    scale = torch.where(peak == 0, 1.0, peak / 127)
    return (x / scale).round().to(torch.int8), scale


def w8a8_linear(x, w_codes, w_scale):
    x_codes, x_scale = quantize_rows(x)
    sums = x_codes.double() @ w_codes.double().T
    return (sums * x_scale * w_scale.T).float()


def channel_linear(x_codes, s, weight):
    w_codes, w_scale = (
        ((weight * s) / ((weight * s).abs().amax(1, keepdim=True) / 127)).round(),
        (weight * s).abs().amax(1, keepdim=True) / 127,
    )
    sums = x_codes.double() @ w_codes.double().T
    return (sums * w_scale.T).float()
