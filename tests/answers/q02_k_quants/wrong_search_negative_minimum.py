# fails: test-search
# says: cannot be below 0
"""Lets the grid begin above zero."""


# %% search
def fit_sub_blocks(x, weights):
    """Find scale, minimum and codes of sub-blocks of 32 with a small weighted squared error.

    `x` and `weights` are float32 `(n, 32)`; returns float32 `(n,)`, float32 `(n,)`, uint8 `(n, 32)`.
    """
    x, w = x.double(), weights.double()
    low = x.amin(1, keepdim=True)
    span = x.amax(1, keepdim=True) - low  # (n, 1)
    sum_w, sum_x = w.sum(1, keepdim=True), (w * x).sum(1, keepdim=True)

    def codes(scale, minimum):
        return torch.where(scale > 0, (x + minimum) / scale + 0.5, 0).floor().clamp(0, 15)

    def refit(q):
        """The weighted least-squares scale and minimum of codes; not finite where the codes do not determine them."""
        wq = w * q
        sum_q, sum_qx, sum_qq = (part.sum(1, keepdim=True) for part in (wq, wq * x, wq * q))
        determinant = sum_w * sum_qq - sum_q**2
        scale = (sum_w * sum_qx - sum_x * sum_q) / determinant
        minimum = (sum_q * sum_qx - sum_qq * sum_x) / determinant
        return scale, minimum

    def error(scale, minimum, q):
        return (w * (scale * q - minimum - x) ** 2).sum(1, keepdim=True)

    best = [span / 15, -low, codes(span / 15, -low)]
    least = error(*best)
    for steps in torch.arange(14, 16.1, 0.1).tolist():
        q = codes(span / steps, best[1])
        trial = [*refit(q), q]
        better = (error(*trial) < least) & (trial[0] >= 0)  # false for NaN
        best = [torch.where(better, new, old) for new, old in zip(trial, best, strict=True)]
        least = error(*best)
    scale, minimum, q = best
    return scale.squeeze(1).float(), minimum.squeeze(1).float(), q.to(torch.uint8)
