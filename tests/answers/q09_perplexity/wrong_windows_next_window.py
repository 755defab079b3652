# fails: test-windows
# says: the last logits score the next window's first token
"""Lets the last logits of a window score the first token of the next."""


# %% windows
def llama_windows(ids, n_ctx, bos=None):
    if n_ctx < 3 or len(ids) < n_ctx:
        raise ValueError("too short")
    n = len(ids) // n_ctx * n_ctx
    following = torch.cat([ids[1:], torch.tensor([-100])])[:n].view(-1, n_ctx)
    inputs = ids[:n].view(-1, n_ctx).clone()
    targets = torch.full_like(inputs, -100)
    targets[:, n_ctx // 2 :] = following[:, n_ctx // 2 :]
    if bos is not None:
        inputs[:, 0] = bos
    return inputs, targets
