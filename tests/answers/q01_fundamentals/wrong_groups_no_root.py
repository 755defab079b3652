# fails: test-groups
# says: the square root is missing
"""Forgets the square root."""


# %% groups
def group_error(x, bits, group, scheme):
    if x.shape[-1] % group:
        raise ValueError(f"groups of {group} do not divide rows of {x.shape[-1]}")
    groups = x.reshape(-1, group)  # (n_groups, group)
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)  # (n_groups, 1)
    half = 2 ** (bits - 1)
    offset = 0.0
    if scheme == "absmax":
        step, first, last = torch.maximum(high, -low) / (half - 1), 1 - half, half - 1
    elif scheme == "signed":
        step, first, last = torch.where(high > -low, high, low) / -half, -half, half - 1
    else:
        step, first, last, offset = (high - low) / (2 * half - 1), 0, 2 * half - 1, low
    step = torch.where(step == 0, 1.0, step)
    decoded = ((groups - offset) / step).round().clamp(first, last) * step + offset
    return 100 * ((groups - decoded).square().sum() / groups.square().sum()).item()


def best_split(x, budget):
    pairs = [(bits, group) for bits in range(2, 9) for group in (16, 32, 64, 128, 256) if bits + 16 / group <= budget]
    if not pairs:
        raise ValueError(f"no pair costs at most {budget} bits per weight")
    return min(pairs, key=lambda pair: group_error(x, *pair, "absmax"))
