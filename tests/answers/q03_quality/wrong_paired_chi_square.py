# fails: test-paired
# says: the chi-square approximation is used
"""Uses the chi-square approximation of McNemar's test."""

# %% paired
from statistics import NormalDist


def paired_log_ratio(base, other):
    """ln of the ratio of two perplexities on the same tokens, its standard error paired, and unpaired."""
    base, other = base.double(), other.double()
    n, differences = len(base), other - base
    unpaired = ((base.var() + other.var()) / n).sqrt().item()
    return differences.mean().item(), differences.std().item() / math.sqrt(n), unpaired


def mcnemar(base, other):
    """Items lost and won by `other`, and McNemar's exact two-sided p-value."""
    lost, won = int((base & ~other).sum()), int((~base & other).sum())
    flips = lost + won
    tail = sum(math.comb(flips, k) for k in range(min(lost, won) + 1))
    return lost, won, math.erfc(abs(lost - won) / math.sqrt(2 * flips)) if flips else 1.0


def votes_needed(preference, alpha=0.05, power=0.8):
    """Votes that tell `preference` from one half; ValueError if it is one half."""
    if preference == 0.5:
        raise ValueError("no number of votes tells 50 % from 50 %")
    quantile = NormalDist().inv_cdf
    spread = quantile(1 - alpha / 2) * 0.5 + quantile(power) * math.sqrt(preference * (1 - preference))
    return math.ceil((spread / (preference - 0.5)) ** 2)
