# fails: test-feeds
# says: VPSIGNB wraps around to −128
"""Lets the negation of -128 saturate at 127."""


# %% feeds
def feed_by_sign(w, x):
    return w.abs().view(torch.uint8), (w.sign().short() * x).clamp(-128, 127).to(
        torch.int8
    )  # int8: |−128| wraps to the byte 0x80, which is 128 unsigned


def feed_by_offset(w, x):
    a = (w.to(torch.int16) + 128).to(torch.uint8)
    acc = -128 * x.to(torch.int32).unflatten(-1, (-1, 4)).sum(-1)  # (..., n)
    return a, x, acc.to(torch.int32)
