# fails: test-windows
# says: the BOS 3 among them
"""Leaves targets out that equal the BOS, as a collator for training would."""


# %% windows
def llama_windows(ids, n_ctx, bos=None):
    if n_ctx < 3 or len(ids) < n_ctx:
        raise ValueError
    W = len(ids) // n_ctx
    x = ids[: W * n_ctx].reshape(W, n_ctx).clone()
    t = torch.full((W, n_ctx), -100)
    t[:, n_ctx // 2 : -1] = x[:, n_ctx // 2 + 1 :]
    if bos is not None:
        t[t == bos] = -100
        x[:, 0] = bos
    return x, t
