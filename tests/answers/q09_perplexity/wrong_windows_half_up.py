# fails: test-windows
# says: the half is rounded up
"""Rounds half of an odd window up."""


# %% windows
def llama_windows(ids, n_ctx, bos=None):
    if n_ctx < 3 or len(ids) < n_ctx:
        raise ValueError(f"{len(ids)} tokens in windows of {n_ctx} score nothing")
    inputs = ids[: len(ids) // n_ctx * n_ctx].view(-1, n_ctx).clone()
    targets = torch.full_like(inputs, -100)
    half = (n_ctx + 1) // 2
    targets[:, half:-1] = inputs[:, half + 1 :]
    if bos is not None:
        inputs[:, 0] = bos
    return inputs, targets
