# fails: test-windows
# says: windows overlap by half
"""Moves the window by half of its length."""


# %% windows
def llama_windows(ids, n_ctx, bos=None):
    if n_ctx < 3 or len(ids) < n_ctx:
        raise ValueError(f"{len(ids)} tokens in windows of {n_ctx} score nothing")
    inputs = ids.unfold(0, n_ctx, n_ctx // 2).clone()
    targets = torch.full_like(inputs, -100)
    targets[:, n_ctx // 2 : -1] = inputs[:, n_ctx // 2 + 1 :]
    if bos is not None:
        inputs[:, 0] = bos
    return inputs, targets
