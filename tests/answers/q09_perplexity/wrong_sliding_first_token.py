# fails: test-sliding
# says: the first token of a window is scored
"""Scores a window's first token, which nothing predicts."""


# %% sliding
def sliding_windows(n_tokens, n_ctx, stride):
    if n_ctx < 2 or not 1 <= stride <= n_ctx:
        raise ValueError(f"stride {stride} does not suit windows of {n_ctx}")
    windows, start, done = [], 0, 0
    while done < n_tokens:
        stop = min(start + n_ctx, n_tokens)
        scored = done
        if scored < stop:
            windows.append((start, scored, stop))
        start, done = start + stride, stop
    return windows


def mean_context(windows):
    contexts = [token - start for start, scored, stop in windows for token in range(scored, stop)]
    if not contexts:
        raise ValueError("no token is scored")
    return sum(contexts) / len(contexts)
