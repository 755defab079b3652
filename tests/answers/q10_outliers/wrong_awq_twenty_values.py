# fails: test-awq
# says: awq_errors gives 20 errors, expected 21
"""Tries alpha = 0, 1/20, … 19/20, as AWQ's own search does."""


# %% awq
def awq_errors(w, x, bits, group):
    y = x @ w.T
    errors = []
    for i in range(20):
        s = magnitudes(x) ** (i / 20)
        errors.append(percent(x @ (group_quantized(w * s, bits, group) / s).T, y))
    return errors


def awq_scales(w, x, bits, group):
    errors = awq_errors(w, x, bits, group)
    return magnitudes(x) ** (errors.index(min(errors)) / 20)


def magnitudes(x):
    mean = x.abs().mean(0)
    return (mean / mean.max()).clamp(min=1e-4)
