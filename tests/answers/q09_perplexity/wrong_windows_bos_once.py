# fails: test-windows
# says: the BOS goes into the first window only
"""Replaces the first token of the text only."""


# %% windows
def llama_windows(ids, n_ctx, bos=None):
    if n_ctx < 3 or len(ids) < n_ctx:
        raise ValueError(f"{len(ids)} tokens in windows of {n_ctx} score nothing")
    inputs = ids[: len(ids) // n_ctx * n_ctx].view(-1, n_ctx).clone()
    targets = torch.full_like(inputs, -100)
    targets[:, n_ctx // 2 : -1] = inputs[:, n_ctx // 2 + 1 :]
    if bos is not None:
        inputs[0, 0] = bos
    return inputs, targets
