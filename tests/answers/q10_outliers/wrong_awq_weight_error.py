# fails: test-awq
# says: it is the error of the weights
"""Measures the error of the weights."""


# %% awq
def awq_errors(w, x, bits, group):
    y = x @ w.T
    errors = []
    for i in range(21):
        s = magnitudes(x) ** (i / 20)
        errors.append(percent(group_quantized(w * s, bits, group) / s, w))
    return errors


def awq_scales(w, x, bits, group):
    errors = awq_errors(w, x, bits, group)
    return magnitudes(x) ** (errors.index(min(errors)) / 20)


def magnitudes(x):
    mean = x.abs().mean(0)
    return (mean / mean.max()).clamp(min=1e-4)
