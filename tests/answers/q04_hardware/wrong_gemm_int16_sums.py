# fails: test-gemm
# says: kept in 16 bits
"""Keeps the accumulated products in 16 bits."""


# %% gemm
def int8_gemm(a, b, a_zero, b_zero):
    (M, K), N = a.shape, len(b)
    pad = torch.nn.functional.pad
    a_tiles = pad(a, (0, -K % 32, 0, -M % 16)).unflatten(0, (-1, 16)).unflatten(-1, (-1, 32))  # (m, 16, k, 32)
    b_tiles = pad(b, (0, -K % 32, 0, -N % 8)).unflatten(0, (-1, 8)).unflatten(-1, (-1, 32))  # (n, 8, k, 32)
    products = torch.empty(len(a_tiles) * 16, len(b_tiles) * 8, dtype=torch.int32)
    for i, rows in enumerate(a_tiles):
        for j, columns in enumerate(b_tiles):
            c = torch.zeros(16, 8, dtype=torch.int32)
            for k in range(rows.shape[1]):
                c = mma(c, rows[:, k], columns[:, k])
            products[16 * i : 16 * i + 16, 8 * j : 8 * j + 8] = c
    a_sum, b_sum = a.sum(1, dtype=torch.int32), b.sum(1, dtype=torch.int32)  # (M,), (N,): zeros add nothing
    correction = a_zero[:, None] * b_sum + a_sum[:, None] * b_zero - K * a_zero[:, None] * b_zero
    return products[:M, :N].to(torch.int16).to(torch.int32) - correction
