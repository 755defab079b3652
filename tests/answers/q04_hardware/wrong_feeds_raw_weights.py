# fails: test-feeds
# says: weights' bytes are passed on as they are
"""Passes the signed weights' bytes, and turns the sign of x besides."""


# %% feeds
def feed_by_sign(w, x):
    return w.contiguous().view(torch.uint8), w.sign() * x  # int8: |−128| wraps to the byte 0x80, which is 128 unsigned


def feed_by_offset(w, x):
    a = (w.to(torch.int16) + 128).to(torch.uint8)
    acc = -128 * x.to(torch.int32).unflatten(-1, (-1, 4)).sum(-1)  # (..., n)
    return a, x, acc.to(torch.int32)
