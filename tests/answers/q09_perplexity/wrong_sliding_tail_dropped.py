# fails: test-sliding
# says: the tail that fills no window is dropped
"""Uses whole windows only."""


# %% sliding
def sliding_windows(n_tokens, n_ctx, stride):
    if n_ctx < 2 or not 1 <= stride <= n_ctx:
        raise ValueError(f"stride {stride} does not suit windows of {n_ctx}")
    windows, start, done = [], 0, 0
    while start + n_ctx <= n_tokens:
        stop = start + n_ctx
        scored = max(done, start + 1)
        if scored < stop:
            windows.append((start, scored, stop))
        start, done = start + stride, stop
    return windows


def mean_context(windows):
    contexts = [token - start for start, scored, stop in windows for token in range(scored, stop)]
    if not contexts:
        raise ValueError("no token is scored")
    return sum(contexts) / len(contexts)
