# fails: test-windows
# says: the second half of the ids stands there unshifted
"""Copies the second half of the ids into the targets."""


# %% windows
def llama_windows(ids, n_ctx, bos=None):
    if n_ctx < 3 or len(ids) < n_ctx:
        raise ValueError(f"{len(ids)} tokens in windows of {n_ctx} score nothing")
    inputs = ids[: len(ids) // n_ctx * n_ctx].view(-1, n_ctx).clone()
    targets = torch.full_like(inputs, -100)
    targets[:, n_ctx // 2 :] = inputs[:, n_ctx // 2 :]
    if bos is not None:
        inputs[:, 0] = bos
    return inputs, targets
