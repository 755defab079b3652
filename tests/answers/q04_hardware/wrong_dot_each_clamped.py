# fails: test-dot
# says: every partial sum is clamped
"""Clamps after each of the four products."""


# %% dot
def vpdpbusd(acc, a, b, saturate=False):
    products = a.view(torch.uint8).long() * b.view(torch.int8).long()  # (..., 4n)
    total = acc.long()
    for k in range(4):
        total = total + products[..., k::4]
        if saturate:
            total = total.clamp(-(2**31), 2**31 - 1)
    return total.to(torch.int32)  # keeps the low 32 bits
