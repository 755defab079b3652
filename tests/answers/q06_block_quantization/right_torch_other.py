# fails:
"""Right: torch in other idioms: integer words for the bit stream, 8 · Σx taken off at the end, strided results."""


# %% q8_0
def q8_0_quantize(x):
    if x.size(-1) % 32 > 0:
        raise ValueError("rows must hold whole blocks")
    blocks = x.unfold(-1, 32, 32)
    d = blocks.abs().max(-1).values.div(127)
    inverse = torch.zeros_like(d)
    inverse[d > 0] = d[d > 0].reciprocal()
    v = blocks * inverse[..., None]
    q = torch.where(v < 0, (v - 0.5).ceil(), (v + 0.5).floor()).to(torch.int8)
    out = torch.empty(*d.shape, 34, dtype=torch.uint8)
    out[..., :2] = d.half()[..., None].view(torch.uint8)
    out[..., 2:] = q.view(torch.uint8)
    return out.flatten(-2)


def q8_0_dequantize(data):
    blocks = data.unfold(-1, 34, 34)
    d = blocks[..., :2].contiguous().view(torch.half).to(torch.float32)
    q = blocks[..., 2:].float()
    q = q - 256 * (q > 127)
    return torch.mul(d, q).flatten(-2)


# %% q4_0
def q4_0_quantize(x):
    if x.size(-1) % 32 > 0:
        raise ValueError("rows must hold whole blocks")
    blocks = x.unflatten(-1, (-1, 32))
    low, high = blocks.min(-1, keepdim=True), blocks.max(-1, keepdim=True)
    high_first = blocks.argmax(-1, keepdim=True) < blocks.argmin(-1, keepdim=True)
    use_high = (high.values > -low.values) | ((high.values == -low.values) & high_first)
    d = torch.where(use_high, high.values, low.values) * -0.125
    inverse = torch.nan_to_num(1 / d, posinf=0, neginf=0)
    q = torch.floor(blocks * inverse + 8.5).clamp(0, 15).int()
    qs = (q[..., :16] + 16 * q[..., 16:]).to(torch.uint8)
    half = d.half().view(torch.int16).int() & 0xFFFF
    return torch.cat([(half & 255).to(torch.uint8), (half >> 8).to(torch.uint8), qs], -1).reshape(*x.shape[:-1], -1)


def q4_0_dequantize(data):
    blocks = data.unflatten(-1, (-1, 18))
    bits = blocks[..., 0:1].to(torch.int16) | blocks[..., 1:2].to(torch.int16) << 8
    d = bits.view(torch.float16).float()
    table = torch.arange(-8, 8).float()
    low, high = table[(blocks[..., 2:] & 15).long()], table[(blocks[..., 2:] >> 4).long()]
    return (torch.cat([low, high], dim=-1) * d).flatten(-2)


# %% group3
def group3_quantize(x):
    rows, n = x.shape
    parts = x.split(128, dim=1)
    lo = torch.stack([part.min(1).values for part in parts], 1)
    hi = torch.stack([part.max(1).values for part in parts], 1)
    scale, low = ((hi - lo) / 7).to(torch.float16), lo.to(torch.float16)
    codes = torch.zeros(rows, -(-n // 8) * 8, dtype=torch.int64)
    for g, part in enumerate(parts):
        s, m = scale[:, g : g + 1].float(), low[:, g : g + 1].float()
        q = torch.nan_to_num((part - m) / s, nan=0.0).round().clamp(0, 7)
        codes[:, g * 128 : g * 128 + part.shape[1]] = torch.where(s > 0, q, torch.zeros(())).long()
    words = (codes.view(rows, -1, 8) * 8 ** torch.arange(8)).sum(-1)  # 24 bits of 8 codes
    packed = torch.stack([words & 255, words >> 8 & 255, words >> 16], -1).to(torch.uint8).view(rows, -1)
    return packed[:, : -(-3 * n // 8)], scale, low  # a view with gaps between the rows


def group3_dequantize(packed, scale, low, n):
    rows, size = packed.shape
    padded = torch.zeros(rows, -(-size // 3) * 3, dtype=torch.int64)
    padded[:, :size] = packed
    words = (padded.view(rows, -1, 3) * 256 ** torch.arange(3)).sum(-1, keepdim=True)
    codes = (words // 8 ** torch.arange(8) % 8).view(rows, -1)[:, :n]
    out = torch.empty(n, rows)
    for start in range(0, n, 128):
        g = start // 128
        part = codes[:, start : start + 128] * scale[:, g : g + 1].float() + low[:, g : g + 1].float()
        out[start : start + 128] = part.T
    return out.T


# %% q4_k
def q4_k_dequantize(data):
    blocks = data.long().unflatten(-1, (-1, 144))
    d = (blocks[..., 0:4:2] + 256 * blocks[..., 1:4:2]).to(torch.uint16).view(torch.float16).float()
    sub = []
    for j in range(8):
        s = blocks[..., 4:16]
        if j < 4:
            sc, m = s[..., j] % 64, s[..., j + 4] % 64
        else:
            sc = s[..., j + 4] % 16 + s[..., j - 4] // 64 * 16
            m = s[..., j + 4] // 16 + s[..., j] // 64 * 16
        q = blocks[..., 16 + j // 2 * 32 : 48 + j // 2 * 32] >> 4 * (j % 2) & 15
        sub.append((d[..., 0] * sc)[..., None] * q - (d[..., 1] * m)[..., None])
    return torch.stack(sub, -2).flatten(-3)


# %% gemv
def q4_0_q8_0_gemv(w, x):
    x = x.unflatten(-1, (-1, 34))
    d_x = x[:, :2].clone().view(torch.float16).float().squeeze(-1)
    q_x = x[:, 2:].clone().view(torch.int8).float()  # whole numbers below 2 to the 24
    eight_sums = 8 * q_x.sum(-1)

    def tile(rows):
        blocks = rows.unflatten(-1, (-1, 18))
        d_w = blocks[..., :2].clone().view(torch.float16).float().squeeze(-1)
        low, high = (blocks[..., 2:] & 15).float(), (blocks[..., 2:] >> 4).float()
        dots = torch.einsum("rbi,bi->rb", low, q_x[:, :16]) + torch.einsum("rbi,bi->rb", high, q_x[:, 16:])
        return torch.einsum("rb,rb->r", d_w * d_x, dots - eight_sums)

    return torch.cat([tile(rows) for rows in w.split(50)])


# %% errors
def error_table(x):
    b = x.double().view(-1, 32)
    small, large = b.min(1).values, b.max(1).values
    peak = b.abs().max(1).values
    signed = b[torch.arange(len(b)), b.abs().argmax(1)]

    def rmse(codes, d, offset=None):
        y = codes * d[:, None] + (0 if offset is None else offset[:, None])
        return torch.linalg.vector_norm(y - b) / torch.linalg.vector_norm(b) * 100

    def codes(v, d, first, last):
        return torch.nan_to_num(v / d[:, None], nan=0.0, posinf=0.0, neginf=0.0).round().clamp(first, last)

    return {
        "absmax/7": rmse(codes(b, peak / 7, -7, 7), peak / 7),
        "Q4_0": rmse(codes(b, -signed / 8, -8, 7), -signed / 8),
        "min-max": rmse(codes(b - small[:, None], (large - small) / 15, 0, 15), (large - small) / 15, small),
        "Q8_0": rmse(codes(b, peak / 127, -127, 127), peak / 127),
    }


def cheapest(x, target):
    table = error_table(x)
    for names in (["absmax/7", "Q4_0"], ["min-max"], ["Q8_0"]):
        best = min(names, key=lambda name: float(table[name]))
        if table[best] <= target:
            return best
    raise ValueError("out of reach")
