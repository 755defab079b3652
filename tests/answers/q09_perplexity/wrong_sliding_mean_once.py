# fails: test-sliding
# says: windows that score tokens twice
"""Counts a token that two windows score once."""


# %% sliding
def sliding_windows(n_tokens, n_ctx, stride):
    if n_ctx < 2 or not (0 < stride <= n_ctx):
        raise ValueError
    out, a, e = [], 0, 0
    while e < n_tokens and n_tokens > 1:
        d, e = e, min(a + n_ctx, n_tokens)
        if max(d, a + 1) < e:
            out.append((a, max(d, a + 1), e))
        a += stride
    return out


def mean_context(windows):
    d = {}
    for a, b, c in windows:
        for t in range(b, c):
            d.setdefault(t, t - a)
    if not d:
        raise ValueError
    return sum(d.values()) / len(d)
