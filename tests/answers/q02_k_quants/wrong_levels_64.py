# fails: test-levels
# says: largest of 6 bits is 63
"""Divides by 64."""


# %% levels
def q4_k_fields(x, scale, minimum):
    """Return Q4_K's fields d, dmin, sc, m and q for super-blocks with searched scales and minima.

    `x` is float32 `(n_blocks, 256)`, `scale` and `minimum` are float32 `(n_blocks, 8)`.
    """

    def six_bits(values):
        top = values.amax(1, keepdim=True)  # (n_blocks, 1)
        numbers = torch.where(top > 0, values * (64 / top), 0).round().to(torch.uint8)
        return (top / 64).half(), numbers

    (d, sc), (dmin, m) = six_bits(scale), six_bits(minimum)
    step, offset = (d.float() * sc).unsqueeze(-1), (dmin.float() * m).unsqueeze(-1)  # (n_blocks, 8, 1)
    steps = torch.where(step > 0, (x.unflatten(1, (8, 32)) + offset) / step, 0)
    q = steps.round().clamp(0, 15).to(torch.uint8).flatten(1)
    return d.squeeze(1), dmin.squeeze(1), sc, m, q
