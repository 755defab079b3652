# fails: test-dot
# says: bytes n apart
"""Sums bytes that are a quarter of the row apart."""


# %% dot
def vpdpbusd(acc, a, b, saturate=False):
    products = a.view(torch.uint8).long() * b.view(torch.int8).long()  # (..., 4n)
    total = acc.long() + products.unflatten(-1, (4, -1)).sum(-2)  # (..., n), exact
    if saturate:
        total = total.clamp(-(2**31), 2**31 - 1)
    return total.to(torch.int32)  # keeps the low 32 bits
