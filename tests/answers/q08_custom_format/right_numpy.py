# fails:
"""Right: numpy and loops; fractions; a scale search on a grid without extremes; a parser that checks field by field."""


# %% storage
def storage(layout, rows, columns):
    from fractions import Fraction
    from math import ceil

    bits = 0
    for count, width in layout["fields"].values():
        bits += count * width
    size = ceil(Fraction(bits, 8))
    while size % layout["block_align"]:
        size += 1
    per_row = ceil(Fraction(columns, layout["block"]))
    extra = ceil(Fraction(sum(c * b for c, b in layout["tensor"].values()), 8))
    total = rows * per_row * size + extra
    total += -total % layout["align"]
    return size, total, float(Fraction(8 * total, rows * columns))


# %% table
def lloyd_max(samples, k):
    x = np.sort(samples.numpy().astype(np.float64))
    table = np.quantile(x, np.linspace(0.02, 0.98, k))
    for _ in range(300):
        cell = np.searchsorted((table[1:] + table[:-1]) / 2, x)
        count = np.bincount(cell, minlength=k)
        total = np.bincount(cell, weights=x, minlength=k)
        table = np.where(count > 0, total / np.maximum(count, 1), table)
    return torch.from_numpy(table.astype(np.float32))


def table_encode(x, table):
    x, t = x.numpy().astype(np.float32), table.numpy()
    middle = (t[1:] + t[:-1]) / 2
    size = np.abs(x).max(1) / np.abs(t).max()
    best, least, codes = np.zeros(len(x), np.float16), np.full(len(x), np.inf), np.zeros(x.shape, np.uint8)
    for factor in np.concatenate([np.linspace(0.7, 1.5, 60), -np.linspace(0.7, 1.5, 60)]):
        d = (size * factor).astype(np.float16)
        with np.errstate(all="ignore"):
            q = np.searchsorted(middle, np.nan_to_num(x / d.astype(np.float32)[:, None]))
        error = ((d.astype(np.float32)[:, None] * t[q] - x) ** 2).sum(1)
        better = error < least
        best[better], least[better], codes[better] = d[better], error[better], q[better]
    # one least-squares step from the best
    v = t[codes]
    with np.errstate(all="ignore"):
        d = np.nan_to_num((v * x).sum(1) / (v * v).sum(1)).astype(np.float16)
        q = np.searchsorted(middle, np.nan_to_num(x / d.astype(np.float32)[:, None]))
    error = ((d.astype(np.float32)[:, None] * t[q] - x) ** 2).sum(1)
    better = error < least
    best[better], codes[better] = d[better], q[better]
    return torch.from_numpy(best), torch.from_numpy(codes)


# %% two_level
def two_level_encode(x, weights):
    x = np.ascontiguousarray(x.numpy().astype(np.float64)).reshape(-1, 8, 32)
    w = np.ascontiguousarray(weights.numpy().astype(np.float64)).reshape(-1, 8, 32)
    low, high = np.minimum(x.min(2), 0), x.max(2)

    def codes(step, offset):
        step, offset = step[..., None], offset[..., None]
        return np.clip(np.rint(np.divide(x + offset, step, out=np.zeros_like(x), where=step > 0)), 0, 15)

    def error(step, offset):
        return (w * (step[..., None] * codes(step, offset) - offset[..., None] - x) ** 2).sum(2)

    # float search: both ends of the grid, then refits
    step, offset = np.maximum(high - low, 0) / 15, -low
    least = error(step, offset)
    for a in np.linspace(0.8, 1.05, 6):
        for b in np.linspace(0.8, 1.05, 6):
            s, m = np.maximum(high * b - low * a, 0) / 15, -low * a
            for _ in range(2):
                q = codes(s, m)
                mean_x, mean_q = ((w * v).sum(2) / w.sum(2) for v in (x, q))
                var = (w * (q - mean_q[..., None]) ** 2).sum(2)
                cov = (w * (q - mean_q[..., None]) * (x - mean_x[..., None])).sum(2)
                qq = (w * q * q).sum(2)
                s = np.divide(cov, var, out=np.zeros_like(cov), where=var > 1e-12 * w.sum(2))
                m = s * mean_q - mean_x
                alone = np.divide((w * q * x).sum(2), qq, out=np.zeros_like(qq), where=qq > 0)
                s, m = np.maximum(np.where((m < 0) | (s == 0), alone, s), 0), np.where(s == 0, 0, np.maximum(m, 0))
                e = error(s, m)
                better = e < least
                step, offset, least = np.where(better, s, step), np.where(better, m, offset), np.minimum(e, least)
    # second level: several float16 candidates for d and dmin, the best pair of integers for each
    tops = [np.maximum(v.max(1), 0) / 63 for v in (step, offset)]
    best, least = None, np.full(len(x), np.inf)
    for f in (0.97, 1.0, 1.03):
        for g in (0.97, 1.0, 1.03):
            d, dmin = (tops[0] * f).astype(np.float16), (tops[1] * g).astype(np.float16)
            D, M = d.astype(np.float64)[:, None], dmin.astype(np.float64)[:, None]
            sc, m = (
                np.clip(np.rint(np.divide(v, t, out=np.zeros_like(v), where=t > 0)), 0, 63)
                for v, t in ((step, D), (offset, M))
            )
            for part in (0, 1, 0, 1):
                for move in (-1, 1):
                    trial = [sc, m]
                    trial[part] = np.clip(trial[part] + move, 0, 63)
                    better = error(D * trial[0], M * trial[1]) < error(D * sc, M * m)
                    sc, m = np.where(better, trial[0], sc), np.where(better, trial[1], m)
            total = error(D * sc, M * m).sum(1)
            better = total < least
            q = codes(D * sc, M * m).reshape(len(x), 256)
            new = (d, dmin, sc, m, q)
            best = (
                new
                if best is None
                else tuple(np.where(better.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(new, best))
            )
            least = np.minimum(total, least)
    d, dmin, sc, m, q = best
    return torch.from_numpy(d), torch.from_numpy(dmin), *(torch.from_numpy(v.astype(np.uint8)) for v in (sc, m, q))


# %% floats
def _nearest(v):
    levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    q = np.abs(np.abs(v)[..., None] - levels).argmin(-1)  # of equal distances the first, which is the smaller
    return np.where((v < 0) & (q > 0), q + 8, q).astype(np.uint8)


def mxfp4_encode(x):
    blocks = x.numpy().astype(np.float64).reshape(*x.shape[:-1], -1, 32)
    peak = np.abs(blocks).max(-1)
    k = np.frexp(peak)[1] - 3
    q = _nearest(blocks / np.exp2(k)[..., None])
    e = np.where(peak == 0, 0, k + 127).astype(np.uint8)
    return torch.from_numpy(e), torch.from_numpy(q.reshape(x.shape))


def nvfp4_encode(x, tensor_scale):
    blocks = x.numpy().astype(np.float64).reshape(*x.shape[:-1], -1, 16)
    wanted = np.abs(blocks).max(-1) / 6 / tensor_scale
    code = np.arange(127)
    exponent, mantissa = code >> 3, code & 7
    values = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10.0))
    d = np.abs(wanted[..., None] - values).argmin(-1)
    step = (values[d] * tensor_scale)[..., None]
    v = np.divide(blocks, step, out=np.zeros_like(blocks), where=step > 0)
    return torch.from_numpy(d.astype(np.uint8)), torch.from_numpy(_nearest(v).reshape(x.shape))


# %% container
KINDS = [None, ("Q8_0", 32, 34), ("Q4_0", 32, 18), ("Q4_K", 256, 144), ("MXFP4", 32, 17)]


def expected_size(number, shape):
    _, block, size = KINDS[number]
    if not 0 < len(shape) <= 4:
        raise ValueError("dimensions")
    for n in shape:
        if n <= 0 or n >> 64:
            raise ValueError("dimension")
    if shape[-1] % block:
        raise ValueError("row")
    rows = 1
    for n in shape[:-1]:
        rows *= n
    return rows * (shape[-1] // block) * size


def save_tensor(kind, shape, payload):
    number = [entry and entry[0] for entry in KINDS].index(kind) if kind else 0
    if not number or expected_size(number, shape) != len(payload):
        raise ValueError("size or kind")
    out = b"\x89QTF" + (1).to_bytes(2, "little") + (0).to_bytes(2, "little") + bytes([number, len(shape)]) + bytes(6)
    for n in [*shape, len(payload)]:
        out += int(n).to_bytes(8, "little")
    while len(out) % 32:
        out += b"\0"
    out += payload
    return out + zlib.crc32(out).to_bytes(4, "little")


class Reader:
    def __init__(self, data):
        self.data, self.place = data, 0

    def take(self, n):
        if n > len(self.data) - self.place:
            raise ValueError(f"cut off at byte {len(self.data)}")
        self.place += n
        return self.data[self.place - n : self.place]

    def number(self, n):
        return int.from_bytes(self.take(n), "little")


def load_tensor(data):
    reader = Reader(data)
    if reader.take(4) != b"\x89QTF" or reader.number(2) != 1 or reader.number(2) != 0:
        raise ValueError("magic, version or flags")
    number, n = reader.number(1), reader.number(1)
    if not 1 <= number <= 4 or not 1 <= n <= 4 or any(reader.take(6)):
        raise ValueError("kind, dimensions or reserved bytes")
    shape = tuple(reader.number(8) for _ in range(n))
    size = reader.number(8)
    if size != expected_size(number, shape) or any(reader.take(-reader.place % 32)):
        raise ValueError("size or padding")
    payload = reader.take(size)
    if zlib.crc32(data[: reader.place]) != reader.number(4) or reader.place != len(data):
        raise ValueError("checksum or trailing bytes")
    return KINDS[number][0], shape, payload


# %% front
def gap_to_bound(x, approximation, bits):
    x, y = x.numpy().astype(np.float64), approximation.numpy().astype(np.float64)
    snr = 10 * np.log10((x**2).sum() / ((x - y) ** 2).sum())
    return float(20 * np.log10(2) * bits - snr)


def entropy_bits(codes):
    from collections import Counter

    counts = Counter(codes.flatten().tolist())
    n = codes.numel()
    return float(np.log2(n) - sum(c * np.log2(c) for c in counts.values()) / n)


def pareto_front(points):
    order = sorted(range(len(points)), key=lambda i: (points[i][1], points[i][2], i))
    names, least = [], None
    for i in order:
        name, bits, distortion = points[i]
        if least is None or distortion < least[1] or (bits, distortion) == least:
            names.append(name)
            least = (bits, distortion)
    return names
