# fails: test-noise
# says: all met exactly
"""Thinks that only zeros are met exactly."""


# %% noise
def noise_budget(w, bits, group, clip=1.0):
    """The noise of group-wise quantization of float32 `(rows, n)`, split and predicted.

    Returns a dict with "granular", "overload", "predicted" (means of squares) and "sqnr" (dB).
    ValueError if n is not a multiple of `group`.
    """
    if w.shape[1] % group:
        raise ValueError(f"{w.shape[1]} columns are not a multiple of the group size {group}")
    m = 2 ** (bits - 1) - 1
    x = w.double().reshape(-1, group)  # (n_groups, group)
    limit = clip * x.abs().amax(1, keepdim=True)  # (n_groups, 1)
    d = limit / m
    q = torch.where(d == 0, 0, x / d).round().clamp(-m, m)
    noise = (d * q - x).square()
    within = x.abs() <= limit
    total = noise.sum().item()
    return {
        "granular": (noise * within).mean().item(),
        "overload": (noise * ~within).mean().item(),
        "predicted": (d.square() / 12 * within).mean().item(),
        "sqnr": 10 * math.log10(x.square().sum().item() / total) if w.any() else math.inf,
    }


def pooled_sqnr(energies, sqnrs):
    """SQNR in dB of several layers as one, from the energy and the SQNR (dB) of each; ValueError for none."""
    if not energies:
        raise ValueError("no layers")
    noise = sum(energy * 10 ** (-sqnr / 10) for energy, sqnr in zip(energies, sqnrs, strict=True))
    return 10 * math.log10(sum(energies) / noise) if noise else math.inf
