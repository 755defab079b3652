# fails: test-windows
# says: the tail is padded to one more window
"""Pads the last window and keeps it."""


# %% windows
def llama_windows(ids, n_ctx, bos=None):
    if n_ctx < 3 or len(ids) < n_ctx:
        raise ValueError("too short")
    ids = torch.cat([ids, torch.zeros(-len(ids) % n_ctx, dtype=torch.int64)])
    inputs = ids.view(-1, n_ctx).clone()
    targets = torch.full_like(inputs, -100)
    targets[:, n_ctx // 2 : -1] = inputs[:, n_ctx // 2 + 1 :]
    if bos is not None:
        inputs[:, 0] = bos
    return inputs, targets
