# fails: test-awq
# says: salient columns are kept in float
"""Keeps 1 % of the columns in float, as mixed precision would."""


# %% awq
def awq_errors(w, x, bits, group):
    y = x @ w.T
    salient = x.abs().mean(0).argsort(descending=True)[: -(-x.shape[1] // 100)]
    errors = []
    for i in range(21):
        rounded = group_quantized(w, bits, group)
        if i:
            rounded[:, salient] = w[:, salient]
        errors.append(percent(x @ rounded.T, y))
    return errors


def awq_scales(w, x, bits, group):
    errors = awq_errors(w, x, bits, group)
    return magnitudes(x) ** (errors.index(min(errors)) / 20)


def magnitudes(x):
    mean = x.abs().mean(0)
    return (mean / mean.max()).clamp(min=1e-4)
