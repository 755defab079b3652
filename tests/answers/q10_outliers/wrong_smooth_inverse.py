# fails: test-smooth
# says: the direction is turned round
"""Computes 1 / s, and multiplies by it: the outliers grow."""


# %% smooth
def smoothing_scales(x_max, w, alpha):
    w_max = w.abs().amax(0)
    return torch.where((x_max > 0) & (w_max > 0), w_max ** (1 - alpha) / x_max**alpha, 1.0)


def fold_into_norm(gain, bias, weights, s):
    return gain / s, None if bias is None else bias / s, [w * s for w in weights]


def smooth_sweep(x, w, alphas):
    scales = [smoothing_scales(x.abs().amax(0), w, alpha) for alpha in alphas]
    return [percent(w8a8(x / s, w * s), x @ w.T) for s in scales]
