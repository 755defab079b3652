# fails: test-gemm
# says: bypass it
"""Subtracts the zero points first and multiplies in int64."""


# %% gemm
def int8_gemm(a, b, a_zero, b_zero):
    left, right = a.long() - a_zero.long()[:, None], b.long() - b_zero.long()[:, None]
    return (left @ right.T).to(torch.int32)
