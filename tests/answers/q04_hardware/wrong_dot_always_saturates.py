# fails: test-dot
# says: VPDPBUSD wraps around
"""Clamps whatever the instruction is."""


# %% dot
def vpdpbusd(acc, a, b, saturate=False):
    products = a.view(torch.uint8).long() * b.view(torch.int8).long()  # (..., 4n)
    total = acc.long() + products.unflatten(-1, (-1, 4)).sum(-1)  # (..., n), exact
    total = total.clamp(-(2**31), 2**31 - 1)
    return total.to(torch.int32)  # keeps the low 32 bits
