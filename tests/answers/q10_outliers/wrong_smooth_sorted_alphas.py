# fails: test-smooth
# says: alpha 0.6: got
"""Gives the sweep's errors in the order of alpha, not in the order asked for."""


# %% smooth
def smoothing_scales(x_max, w, alpha):
    w_max = w.abs().amax(0)
    return torch.where((x_max > 0) & (w_max > 0), x_max**alpha / w_max ** (1 - alpha), 1.0)


def fold_into_norm(gain, bias, weights, s):
    return gain / s, None if bias is None else bias / s, [w * s for w in weights]


def smooth_sweep(x, w, alphas):
    scales = [smoothing_scales(x.abs().amax(0), w, alpha) for alpha in sorted(alphas)]
    return [percent(w8a8(x / s, w * s), x @ w.T) for s in scales]
