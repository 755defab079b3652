# fails: test-clip
# says: 99 % of the weights, whatever the bits
"""Clips at a percentile."""


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
    share = x.abs().quantile(0.99, dim=-1) / peak.squeeze(-1).clamp(min=1e-30)
    return torch.where(peak.squeeze(-1) == 0, 1.0, (share * 100).round().clamp(20, 100) / 100)
