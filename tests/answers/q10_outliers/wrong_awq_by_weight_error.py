# fails: test-awq
# says: the error of the weights decides
"""Chooses alpha by the error of the weights."""


# %% awq
def awq_errors(w, x, bits, group):
    y = x @ w.T
    errors = []
    for i in range(21):
        s = magnitudes(x) ** (i / 20)
        errors.append(percent(x @ (group_quantized(w * s, bits, group) / s).T, y))
    return errors


def awq_scales(w, x, bits, group):
    scales = [magnitudes(x) ** (i / 20) for i in range(21)]
    return min(scales, key=lambda s: percent(group_quantized(w * s, bits, group) / s, w))


def magnitudes(x):
    mean = x.abs().mean(0)
    return (mean / mean.max()).clamp(min=1e-4)
