# fails: test-dot
# says: first operand's bytes are read as signed
"""Multiplies the tensors' values and ignores that an instruction sees bytes."""


# %% dot
def vpdpbusd(acc, a, b, saturate=False):
    products = a.long() * b.long()  # (..., 4n)
    total = acc.long() + products.unflatten(-1, (-1, 4)).sum(-1)  # (..., n), exact
    if saturate:
        total = total.clamp(-(2**31), 2**31 - 1)
    return total.to(torch.int32)  # keeps the low 32 bits
