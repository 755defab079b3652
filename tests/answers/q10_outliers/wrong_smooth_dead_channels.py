# fails: test-smooth
# says: dead channels
"""Does not look after dead channels: 0, Inf or NaN."""


# %% smooth
def smoothing_scales(x_max, w, alpha):
    return x_max**alpha / w.abs().amax(0) ** (1 - alpha)


def fold_into_norm(gain, bias, weights, s):
    return gain / s, None if bias is None else bias / s, [w * s for w in weights]


def smooth_sweep(x, w, alphas):
    scales = [smoothing_scales(x.abs().amax(0), w, alpha) for alpha in alphas]
    return [percent(w8a8(x / s, w * s), x @ w.T) for s in scales]
