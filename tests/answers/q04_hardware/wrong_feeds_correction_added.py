# fails: test-feeds
# says: correction is added
"""Adds 128 times the sum of x."""


# %% feeds
def feed_by_sign(w, x):
    return w.abs().view(torch.uint8), w.sign() * x  # int8: |−128| wraps to the byte 0x80, which is 128 unsigned


def feed_by_offset(w, x):
    a = (w.to(torch.int16) + 128).to(torch.uint8)
    acc = 128 * x.to(torch.int32).unflatten(-1, (-1, 4)).sum(-1)  # (..., n)
    return a, x, acc.to(torch.int32)
