# fails: test-compare
# says: base and other are swapped
"""Divides the base's perplexity by the other's."""


# %% compare
def paired(base, other):
    n = len(base)
    p, q = base.mean().exp().item(), other.mean().exp().item()
    log_ratio = (base.mean() - other.mean()).item()
    centred = torch.stack([base - base.mean(), other - other.mean()])
    (var_base, cov), (_, var_other) = (centred @ centred.T / (n - 1)).tolist()

    def error(a, b):
        return math.sqrt(max(0.0, a * a * var_other + b * b * var_base - 2 * a * b * cov) / n)

    return {
        "log ratio": log_ratio,
        "log ratio se": error(1, 1),
        "ratio": math.exp(log_ratio),
        "ratio se": math.exp(log_ratio) * error(1, 1),
        "difference": q - p,
        "difference se": error(q, p),
    }


def divergence(base, other):
    log_p, log_q = base.double().log_softmax(-1), other.double().log_softmax(-1)
    p = log_p.exp()
    terms = torch.where(p == 0, 0, p * (log_p - log_q))
    return terms.sum(-1), base.argmax(-1) == other.argmax(-1)
