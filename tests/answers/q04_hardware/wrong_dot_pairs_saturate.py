# fails: test-dot
# says: pairs saturate in int16
"""Saturates pairs in int16, as the older VPMADDUBSW does."""


# %% dot
def vpdpbusd(acc, a, b, saturate=False):
    products = a.view(torch.uint8).long() * b.view(torch.int8).long()  # (..., 4n)
    total = acc.long() + products.unflatten(-1, (-1, 2, 2)).sum(-1).clamp(-(2**15), 2**15 - 1).sum(
        -1
    )  # (..., n), exact
    if saturate:
        total = total.clamp(-(2**31), 2**31 - 1)
    return total.to(torch.int32)  # keeps the low 32 bits
