# fails: test-dot
# says: VPDPBUSDS saturates
"""Forgets the saturating form."""


# %% dot
def vpdpbusd(acc, a, b, saturate=False):
    products = a.view(torch.uint8).long() * b.view(torch.int8).long()  # (..., 4n)
    total = acc.long() + products.unflatten(-1, (-1, 4)).sum(-1)  # (..., n), exact
    return total.to(torch.int32)  # keeps the low 32 bits
