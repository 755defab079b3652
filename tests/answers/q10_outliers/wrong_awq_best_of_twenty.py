# fails: test-awq
# says: awq_scales, 3 bits in groups of 64
"""Gives 21 errors, but searches alpha = 0 … 19/20 only."""


# %% awq
def awq_errors(w, x, bits, group):
    y = x @ w.T
    errors = []
    for i in range(21):
        s = magnitudes(x) ** (i / 20)
        errors.append(percent(x @ (group_quantized(w * s, bits, group) / s).T, y))
    return errors


def awq_scales(w, x, bits, group):
    errors = awq_errors(w, x, bits, group)[:20]
    return magnitudes(x) ** (errors.index(min(errors)) / 20)


def magnitudes(x):
    mean = x.abs().mean(0)
    return (mean / mean.max()).clamp(min=1e-4)
