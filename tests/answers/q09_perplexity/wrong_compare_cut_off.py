# fails: test-compare
# says: less likely than e⁻¹⁶ is left out
"""Leaves out what the base holds less likely than e⁻¹⁶."""


# %% compare
def paired(base, other):
    n = len(base)
    d = other - base
    m, M = base.mean(), other.mean()
    p, P = m.exp(), M.exp()
    s = (d.std() / n**0.5).item()
    r = (M - m).exp().item()
    return {
        "log ratio": (M - m).item(),
        "log ratio se": s,
        "ratio": r,
        "ratio se": r * s,
        "difference": (P - p).item(),
        "difference se": ((P * other - p * base).std() / n**0.5).item(),
    }


def divergence(base, other):
    lp, lq = base.double().log_softmax(-1), other.double().log_softmax(-1)
    return torch.where(lp <= -16, 0, lp.exp() * (lp - lq)).sum(-1), base.argmax(-1) == other.argmax(-1)
