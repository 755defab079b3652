# fails: test-sliding
# says: the last window is moved back
"""Moves the last window back until it is full."""


# %% sliding
def sliding_windows(n_tokens, n_ctx, stride):
    if n_ctx < 2 or not (0 < stride <= n_ctx):
        raise ValueError
    out, a, e = [], 0, 0
    while e < n_tokens and n_tokens > 1:
        d, e = e, min(a + n_ctx, n_tokens)
        b = max(0, e - n_ctx)
        if max(d, b + 1) < e:
            out.append((b, max(d, b + 1), e))
        a += stride
    return out


def mean_context(windows):
    x = [t - a for a, b, c in windows for t in range(b, c)]
    if not x:
        raise ValueError
    return sum(x) / len(x)
