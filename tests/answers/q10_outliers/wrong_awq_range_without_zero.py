# fails: test-awq
# says: a group's range is not made to hold 0
"""Takes each group's range from its smallest to its largest weight, whether it holds 0 or not."""


# %% awq
def rounded(w, bits, group):
    blocks = w.reshape(len(w), -1, group)
    low, high = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale == 0, 1, scale)
    zero = (-low / scale).round()
    codes = ((blocks / scale).round() + zero).clamp(0, 2**bits - 1)
    return ((codes - zero) * scale).reshape(w.shape)


def awq_errors(w, x, bits, group):
    y = x @ w.T
    errors = []
    for i in range(21):
        s = magnitudes(x) ** (i / 20)
        errors.append(percent(x @ (rounded(w * s, bits, group) / s).T, y))
    return errors


def awq_scales(w, x, bits, group):
    errors = awq_errors(w, x, bits, group)
    return magnitudes(x) ** (errors.index(min(errors)) / 20)


def magnitudes(x):
    mean = x.abs().mean(0)
    return (mean / mean.max()).clamp(min=1e-4)
