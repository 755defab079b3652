# fails:
"""Right: whole arrays in numpy, with packbits and strided views, in the manner of the gguf package."""


# %% q8_0
def as_blocks(x, size):
    return np.ascontiguousarray(x.numpy()).reshape(-1, size)


def half_away(v):
    whole = np.trunc(v)
    return whole + np.trunc(2 * (v - whole))


def q8_0_quantize(x):
    if x.shape[-1] % 32:
        raise ValueError("not a multiple of 32")
    blocks = as_blocks(x, 32)
    d = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore"):
        inverse = np.where(d == 0, np.float32(0), 1 / d)
    q = half_away(blocks * inverse).astype(np.int8)
    data = np.concatenate([d.astype("<f2").view(np.uint8), q.view(np.uint8)], axis=1)
    return torch.from_numpy(data.reshape(*x.shape[:-1], -1))


def q8_0_dequantize(data):
    d, q = np.split(as_blocks(data, 34), [2], axis=1)
    values = np.ascontiguousarray(d).view("<f2").astype(np.float32) * np.ascontiguousarray(q).view(np.int8)
    return torch.from_numpy(values.astype(np.float32).reshape(*data.shape[:-1], -1))


# %% q4_0
def q4_0_quantize(x):
    if x.shape[-1] % 32:
        raise ValueError("not a multiple of 32")
    blocks = as_blocks(x, 32)
    places = np.abs(blocks).argmax(axis=1, keepdims=True)
    d = np.take_along_axis(blocks, places, axis=1) / np.float32(-8)
    inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
    q = np.minimum(np.trunc(blocks * inverse + np.float32(8.5)).astype(np.uint8), 15)
    halves = q.reshape(-1, 2, 16)
    qs = halves[:, 0] | (halves[:, 1] << 4)
    return torch.from_numpy(np.hstack([d.astype(np.float16).view(np.uint8), qs]).reshape(*x.shape[:-1], -1))


def q4_0_dequantize(data):
    blocks = as_blocks(data, 18)
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    q = (blocks[:, None, 2:] >> np.array([[0], [4]], dtype=np.uint8)) & 15
    return torch.from_numpy(
        (d * (q.reshape(-1, 32).astype(np.int8) - 8).astype(np.float32)).reshape(*data.shape[:-1], -1)
    )


# %% group3
def group3_quantize(x):
    rows, n = x.shape
    edges = list(range(0, n, 128))
    values = x.numpy()
    lo = np.minimum.reduceat(values, edges, axis=1)
    hi = np.maximum.reduceat(values, edges, axis=1)
    scale, low = ((hi - lo) / np.float32(7)).astype(np.float16), lo.astype(np.float16)
    group = np.arange(n) // 128
    s, m = scale.astype(np.float32)[:, group], low.astype(np.float32)[:, group]
    steps = np.divide(values - m, s, out=np.zeros_like(values), where=s != 0)
    q = np.clip(np.rint(steps), 0, 7).astype(np.uint8)
    bits = np.unpackbits(q[..., None], axis=2, bitorder="little")[..., :3].reshape(rows, -1)
    return (
        torch.from_numpy(np.packbits(bits, axis=1, bitorder="little")),
        torch.from_numpy(scale),
        torch.from_numpy(low),
    )


def group3_dequantize(packed, scale, low, n):
    bits = np.unpackbits(packed.numpy(), axis=1, bitorder="little")[:, : 3 * n].reshape(-1, n, 3)
    q = (bits @ np.array([1, 2, 4])).astype(np.float32)
    s, m = (np.repeat(part.numpy().astype(np.float32), 128, axis=1)[:, :n] for part in (scale, low))
    return torch.from_numpy(s * q + m)


# %% q4_k
def q4_k_dequantize(data):
    blocks = as_blocks(data, 144)
    d, dmin = (blocks[:, i : i + 2].copy().view(np.float16).astype(np.float32) for i in (0, 2))
    three = blocks[:, 4:16].reshape(-1, 3, 4)
    top = (three[:, :2] >> 2) & 0x30
    sc = np.concatenate([three[:, 0] & 0x3F, (three[:, 2] & 0x0F) | top[:, 0]], axis=1)
    m = np.concatenate([three[:, 1] & 0x3F, (three[:, 2] >> 4) | top[:, 1]], axis=1)
    q = (blocks[:, 16:].reshape(-1, 4, 1, 32) >> np.array([[0], [4]], dtype=np.uint8) & 15).reshape(-1, 8, 32)
    w = (d * sc)[..., None] * q - (dmin * m)[..., None]
    return torch.from_numpy(w.astype(np.float32).reshape(*data.shape[:-1], -1))


# %% gemv
def q4_0_q8_0_gemv(w, x):
    xb = as_blocks(x, 34)
    d_x = xb[:, :2].copy().view(np.float16).astype(np.float32)[:, 0]
    q_x = xb[:, 2:].copy().view(np.int8).astype(np.float32)
    parts = []
    for rows in np.array_split(w.numpy(), max(1, len(w) // 16)):
        blocks = rows.reshape(len(rows), -1, 18)
        d_w = blocks[..., :2].copy().view(np.float16).astype(np.float32)[..., 0]
        low, high = (blocks[..., 2:] & 15).astype(np.float32) - 8, (blocks[..., 2:] >> 4).astype(np.float32) - 8
        dots = np.einsum("rbi,bi->rb", low, q_x[:, :16]) + np.einsum("rbi,bi->rb", high, q_x[:, 16:])
        parts.append((d_w * d_x * dots).sum(axis=1))
    return torch.from_numpy(np.concatenate(parts))


# %% errors
def error_table(x):
    b = x.numpy().reshape(-1, 32)
    low, high = b.min(1, keepdims=True), b.max(1, keepdims=True)
    peak = np.maximum(high, -low)
    rules = {
        "Q8_0": (peak / 127, -127, 127, 0),
        "min-max": ((high - low) / 15, 0, 15, low),
        "Q4_0": (np.where(high >= -low, high, low) / -8, -8, 7, 0),
        "absmax/7": (peak / 7, -7, 7, 0),
    }
    table = {}
    for name, (d, first, last, offset) in rules.items():
        d = d.astype(np.float16).astype(np.float32)  # as stored
        safe = np.where(d == 0, 1, d)
        decoded = np.clip(np.rint((b - offset) / safe), first, last) * d + offset
        table[name] = np.sqrt(np.square(decoded - b).sum(dtype=np.float64) / np.square(b).sum(dtype=np.float64)) * 100
    return table


def cheapest(x, target):
    table = error_table(x)
    order = sorted(table, key=lambda name: ({"Q8_0": 8.5, "min-max": 5}.get(name, 4.5), table[name]))
    for name in order:
        if table[name] <= target:
            return name
    raise ValueError(target)
