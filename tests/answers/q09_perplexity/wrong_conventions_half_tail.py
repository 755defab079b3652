# fails: test-conventions
# says: here it is C // 2
"""Drops the tail of windows of C from the half windows too."""


# %% conventions
def conventions(losses, n_words):
    n, C = losses.shape
    h = C // 2

    def v(L, lo):
        i = torch.arange(n // C * C)
        c = i % L
        return losses[i[c >= lo], c[c >= lo]].mean().exp().item()

    i = torch.arange(1, n)
    s = torch.where(i < C, 0, (i // h - 1) * h)
    return {
        "disjoint": v(C, 1),
        "half context": v(h, 1),
        "second half": v(C, h + 1),
        "per word": (losses[i, i - s].sum() / n_words).exp().item(),
    }
