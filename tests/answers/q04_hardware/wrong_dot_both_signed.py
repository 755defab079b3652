# fails: test-dot
# says: first operand's bytes are read as signed
"""Takes both operands for signed bytes, as the weights' dtype suggests."""


# %% dot
def vpdpbusd(acc, a, b, saturate=False):
    products = a.view(torch.int8).long() * b.view(torch.int8).long()  # (..., 4n)
    total = acc.long() + products.unflatten(-1, (-1, 4)).sum(-1)  # (..., n), exact
    if saturate:
        total = total.clamp(-(2**31), 2**31 - 1)
    return total.to(torch.int32)  # keeps the low 32 bits
