# fails: test-feeds
# says: 127 is added
"""Takes 127 for the offset."""


# %% feeds
def feed_by_sign(w, x):
    return w.abs().view(torch.uint8), w.sign() * x  # int8: |−128| wraps to the byte 0x80, which is 128 unsigned


def feed_by_offset(w, x):
    a = (w.to(torch.int16) + 127).to(torch.uint8)
    acc = -127 * x.to(torch.int32).unflatten(-1, (-1, 4)).sum(-1)  # (..., n)
    return a, x, acc.to(torch.int32)
