# fails: test-sliding
# says: the means of windows are averaged
"""Averages over windows, though the first scores more tokens."""


# %% sliding
def sliding_windows(n_tokens, n_ctx, stride):
    if n_ctx < 2 or not 1 <= stride <= n_ctx:
        raise ValueError(f"stride {stride} does not suit windows of {n_ctx}")
    windows, start, done = [], 0, 0
    while done < n_tokens:
        stop = min(start + n_ctx, n_tokens)
        scored = max(done, start + 1)
        if scored < stop:
            windows.append((start, scored, stop))
        start, done = start + stride, stop
    return windows


def mean_context(windows):
    if not windows:
        raise ValueError("no token is scored")
    return sum((scored + stop - 1) / 2 - start for start, scored, stop in windows) / len(windows)
