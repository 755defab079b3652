# fails: test-dot
# says: products wrap around at 8 bits
"""Multiplies in 8 bits, and torch keeps the dtype."""


# %% dot
def vpdpbusd(acc, a, b, saturate=False):
    products = (a.view(torch.int8) * b.view(torch.int8)).long()  # (..., 4n)
    total = acc.long() + products.unflatten(-1, (-1, 4)).sum(-1)  # (..., n), exact
    if saturate:
        total = total.clamp(-(2**31), 2**31 - 1)
    return total.to(torch.int32)  # keeps the low 32 bits
