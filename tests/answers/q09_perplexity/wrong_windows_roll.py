# fails: test-windows
# says: their own window's first token
"""Shifts by torch.roll, so that the last logits score the window's first token."""


# %% windows
def llama_windows(ids, n_ctx, bos=None):
    if n_ctx < 3 or len(ids) < n_ctx:
        raise ValueError
    W = len(ids) // n_ctx
    x = ids[: W * n_ctx].reshape(W, n_ctx).clone()
    t = torch.full((W, n_ctx), -100)
    t[:, n_ctx // 2 :] = x.roll(-1, 1)[:, n_ctx // 2 :]
    if bos is not None:
        x[:, 0] = bos
    return x, t
