# fails: test-clip
# says: each token has a limit
"""Clips each token at its own percentile."""


# %% clip
def largest_share(sigmas):
    return min(1.0, 1 / sigmas**2)


def clip_errors(x, w, percentile, bits):
    c = torch.quantile(x.abs(), percentile / 100, dim=1, keepdim=True)
    levels = 2 ** (bits - 1) - 1
    s = c / levels
    error = s * (x / s).round().clamp(-levels, levels) - x
    clipped = x.abs() > c
    size = (x @ w.T).norm()
    parts = (error * ~clipped, error * clipped, error)
    return tuple(100 * ((part @ w.T).norm() / size).item() for part in parts)


def best_percentile(x, w, percentiles, bits):
    return min(percentiles, key=lambda percentile: clip_errors(x, w, percentile, bits)[2])
