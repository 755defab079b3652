# fails: test-sliding
# says: windows go on after one has reached the end
"""Lets a window begin at every stride up to the end of the text."""


# %% sliding
def sliding_windows(n_tokens, n_ctx, stride):
    if n_ctx < 2 or not 1 <= stride <= n_ctx:
        raise ValueError("stride")
    windows, done = [], 0
    for start in range(0, n_tokens, stride):
        stop = min(start + n_ctx, n_tokens)
        windows.append((start, max(done, start + 1), stop))
        done = stop
    return windows


def mean_context(windows):
    contexts = [token - start for start, scored, stop in windows for token in range(scored, stop)]
    if not contexts:
        raise ValueError("no token is scored")
    return sum(contexts) / len(contexts)
