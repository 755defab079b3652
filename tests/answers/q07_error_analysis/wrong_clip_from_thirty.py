# fails: test-clip
# says: one weight far out
"""Never tries a clip below 0.30."""


# %% clip
def best_clip(w, bits, group):
    """The clip of 0.20, 0.21 … 1.00 with the least squared error, for each group of float32 `(rows, n)`.

    Returns float32 `(rows, n // group)`.
    """
    m = 2 ** (bits - 1) - 1
    x = w.reshape(len(w), -1, group)  # (rows, n_groups, group)
    peak = x.abs().amax(-1, keepdim=True)  # (rows, n_groups, 1)
    least = torch.full(peak.shape[:-1], math.inf)
    best = torch.ones(peak.shape[:-1])
    for percent in range(100, 29, -1):
        d = peak * (percent / 100) / m
        q = torch.where(d == 0, 0, x / d).round().clamp(-m, m)
        error = (d * q - x).square().sum(-1)  # (rows, n_groups)
        better = error < least
        least[better], best[better] = error[better], percent / 100
    return best
