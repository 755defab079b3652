# fails: test-feeds
# says: corrected by the sum over all lanes
"""Corrects every lane by the sum of the whole row."""


# %% feeds
def feed_by_sign(w, x):
    return w.abs().view(torch.uint8), w.sign() * x  # int8: |−128| wraps to the byte 0x80, which is 128 unsigned


def feed_by_offset(w, x):
    a = (w.to(torch.int16) + 128).to(torch.uint8)
    acc = -128 * x.to(torch.int32).sum(-1, keepdim=True).expand(*x.shape[:-1], x.shape[-1] // 4)  # (..., n)
    return a, x, acc.to(torch.int32)
