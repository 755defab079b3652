# fails: test-two_level
# says: (3) better than ggml's
"""Rounds the second level and leaves it at that."""


# %% two_level
def two_level_encode(x, weights):
    """Return d, dmin, sc, m and q for super-blocks `(n_blocks, 256)`, with a small weighted squared error."""
    x, w = x.double().unflatten(1, (8, 32)), weights.double().unflatten(1, (8, 32))

    def total(v):
        return v.sum(-1, keepdim=True)  # (n_blocks, 8, 1)

    def codes(step, offset):
        return torch.where(step > 0, (x + offset) / step, 0).round().clamp(0, 15)

    def error(step, offset, q):
        return total(w * (step * q - offset - x) ** 2)

    def line(q):
        """The weighted straight line through codes and numbers; through zero where its offset would be negative."""
        sum_w, sum_x, sum_q, qx, qq = total(w), total(w * x), total(w * q), total(w * q * x), total(w * q * q)
        determinant = sum_w * qq - sum_q**2
        usable = determinant > 1e-9 * sum_w * qq
        offset = torch.where(usable, (sum_q * qx - qq * sum_x) / determinant, 0)
        step = torch.where(usable & (offset > 0), (sum_w * qx - sum_x * sum_q) / determinant, qx / qq)
        return step.nan_to_num().clamp(min=0), offset.clamp(min=0)

    low = x.amin(-1, keepdim=True).clamp(max=0)
    span = (x.amax(-1, keepdim=True) - low).clamp(min=0)
    step, offset = span / 15, -low
    least = error(step, offset, codes(step, offset))
    for factor in torch.linspace(0.82, 1.04, 12).tolist():
        s, o = line(codes(span / 15 * factor, offset))
        s, o = line(codes(s, o))
        found = error(s, o, codes(s, o))
        better = found < least
        step, offset, least = torch.where(better, s, step), torch.where(better, o, offset), torch.minimum(found, least)

    def six_bits(v):
        top = (v.amax(1, keepdim=True) / 63).half().double()  # (n_blocks, 1, 1)
        return top, torch.where(top > 0, v / top, 0).round().clamp(0, 63)

    (d, sc), (dmin, m) = six_bits(step), six_bits(offset)
    for _ in range(0):
        # the integers: the neighbours of each pair
        centre, q = (sc, m), codes(d * sc, dmin * m)
        least = error(d * sc, dmin * m, q)
        for i, j in ((a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b):
            s, o = (centre[0] + i).clamp(0, 63), (centre[1] + j).clamp(0, 63)
            q_new = codes(d * s, dmin * o)
            found = error(d * s, dmin * o, q_new)
            better = found < least
            sc, m, q = torch.where(better, s, sc), torch.where(better, o, m), torch.where(better, q_new, q)
            least = torch.minimum(found, least)
        # the float16 numbers: two unknowns per super-block, by least squares
        u, v = sc * q, m.expand_as(q)
        uu, uv, vv, ux, vx = (
            (w * a * b).sum((1, 2), keepdim=True) for a, b in ((u, u), (u, v), (v, v), (u, x), (v, x))
        )
        determinant = uu * vv - uv**2
        new_d, new_dmin = (ux * vv - uv * vx) / determinant, (uv * ux - uu * vx) / determinant
        usable = (determinant > 1e-9 * uu * vv) & (new_d > 0) & (new_dmin >= 0)
        new_d = torch.where(usable, new_d, d).half().double()
        new_dmin = torch.where(usable, new_dmin, dmin).half().double()
        found = error(new_d * sc, new_dmin * m, codes(new_d * sc, new_dmin * m)).sum(1, keepdim=True)
        better = found < least.sum(1, keepdim=True)
        d, dmin = torch.where(better, new_d, d), torch.where(better, new_dmin, dmin)
    q = codes(d * sc, dmin * m)
    fields = (part.flatten(1).to(torch.uint8) for part in (sc, m, q))
    return d.flatten().half(), dmin.flatten().half(), *fields
