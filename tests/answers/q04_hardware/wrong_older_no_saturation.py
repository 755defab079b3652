# fails: test-older
# says: sum of a pair does not saturate
"""Leaves the saturation out."""


# %% older
def older_dot(acc, a, b):
    products = a.view(torch.uint8).long() * b.view(torch.int8).long()  # (..., 4n)
    pairs = products.unflatten(-1, (-1, 2, 2)).sum(-1)
    return (acc.long() + pairs.sum(-1)).to(torch.int32)


def exact_ways(w_low, w_high, x_low, x_high, offset):
    def pairs_fit(shift):
        corners = [(w + shift) * x for w in (w_low, w_high) for x in (x_low, x_high)]
        return 2 * min(corners) >= -(2**15) and 2 * max(corners) < 2**15

    sign_turns = not (w_low < 0 and x_low == -128)
    return {
        "sign + VPDPBUSD": sign_turns,
        "offset + VPDPBUSD": True,
        "sign + older": sign_turns and pairs_fit(0),  # |w| · (sign · x) is w · x
        "offset + older": pairs_fit(offset),
    }
