# fails:
"""Right: Python integers and loops, one lane, one pair, one tile at a time; Fractions; sorted lists."""

from fractions import Fraction


# %% dot
def vpdpbusd(acc, a, b, saturate=False):
    unsigned = [v % 256 for v in a.flatten().tolist()]
    signed = [(v + 128) % 256 - 128 for v in b.flatten().tolist()]
    result = []
    for i, start in enumerate(acc.flatten().tolist()):
        total = start + sum(unsigned[4 * i + k] * signed[4 * i + k] for k in range(4))
        if saturate:
            total = min(max(total, -(2**31)), 2**31 - 1)
        result.append((total + 2**31) % 2**32 - 2**31)
    return torch.tensor(result, dtype=torch.int32).view(acc.shape)


# %% feeds
def feed_by_sign(w, x):
    a = torch.empty(w.shape, dtype=torch.uint8)
    b = torch.empty(w.shape, dtype=torch.int8)
    flat_w, flat_x = w.flatten().tolist(), x.flatten().tolist()
    a.view(-1)[:] = torch.tensor([abs(v) for v in flat_w])
    turned = [0 if v == 0 else u if v > 0 else -u for v, u in zip(flat_w, flat_x)]
    b.view(-1)[:] = torch.tensor([-128 if v == 128 else v for v in turned])
    return a, b


def feed_by_offset(w, x):
    a = w.contiguous().view(torch.uint8) ^ 0x80
    acc = torch.zeros(*x.shape[:-1], x.shape[-1] // 4, dtype=torch.int32)
    for k in range(4):
        acc -= 128 * x[..., k::4].int()
    return [a, x, acc]


# %% older
def older_dot(acc, a, b):
    def clamp16(v):
        return min(32767, max(-32768, v))

    u = a.contiguous().view(torch.uint8).reshape(-1, 4).tolist()
    s = b.contiguous().view(torch.int8).reshape(-1, 4).tolist()
    out = acc.clone()
    flat = out.view(-1)
    for i, (p, q) in enumerate(zip(u, s)):
        flat[i] += clamp16(p[0] * q[0] + p[1] * q[1]) + clamp16(p[2] * q[2] + p[3] * q[3])
    return out


def exact_ways(w_low, w_high, x_low, x_high, offset):
    result = {}
    for way in ("sign", "offset"):
        operands = set()
        right = True
        for w in {w_low, w_high, min(max(0, w_low), w_high)}:
            for x in {x_low, x_high, min(max(0, x_low), x_high)}:
                if way == "sign":
                    pair = abs(w), (0 if w == 0 else x if w > 0 else (-x + 128) % 256 - 128)
                    right = right and pair[0] * pair[1] == w * x
                else:
                    pair = w + offset, x
                operands.add(pair[0] * pair[1])
        fits = all(-(2**15) <= p + q < 2**15 for p in operands for q in operands)
        result[f"{way} + VPDPBUSD"] = right
        result[f"{way} + older"] = right and fits
    return result


# %% ridge
def gemm_seconds(scheme, m, n, k, device):
    weight_bits, activation_bits, name = scheme
    if name not in device["peaks"] or device["peaks"][name] is None:
        raise ValueError(f"no {name}")
    seconds_per_bit = 1 / device["bandwidth"] / 8
    memory = (n * k * weight_bits + m * (k * activation_bits + 16 * n)) * seconds_per_bit
    return [memory, 2.0 * m * n * k / device["peaks"][name]]


def first_compute_bound(scheme, n, k, device):
    from fractions import Fraction

    weight_bits, activation_bits, name = scheme
    if device["peaks"].get(name) is None:
        raise ValueError(f"no {name}")
    # operations per bit at batch m reach peak / bandwidth (per bit): 2 m n k · 8 B ≥ P · (w n k + m (a k + 16 n))
    bandwidth, peak = Fraction(8 * device["bandwidth"]), Fraction(device["peaks"][name])
    left = 2 * n * k * bandwidth - peak * (Fraction(activation_bits) * k + 16 * n)
    if left <= 0:
        return None
    need = peak * Fraction(weight_bits) * n * k / left
    return max(1, -(-need.numerator // need.denominator))


def fastest(schemes, m, n, k, device):
    runs = [name for name, scheme in schemes.items() if device["peaks"].get(scheme[2])]
    if len(runs) == 0:
        raise ValueError("no scheme runs")
    return sorted(runs, key=lambda name: max(gemm_seconds(schemes[name], m, n, k, device)))[0]


# %% gemm
def int8_gemm(a, b, a_zero, b_zero):
    M, K, N = a.size(0), a.size(1), b.size(0)
    y = torch.zeros(M, N, dtype=torch.int32)
    for i in range(0, M, 16):
        for j in range(0, N, 8):
            c = torch.zeros((16, 8), dtype=torch.int32)
            rows, columns = min(16, M - i), min(8, N - j)
            for k in range(0, K, 32):
                depth = min(32, K - k)
                left = torch.zeros(16, 32, dtype=torch.uint8)
                right = torch.full((8, 32), 77, dtype=torch.int8)  # any codes: those of the left side are 0 there
                left[:rows, :depth] = a[i : i + 16, k : k + 32]
                right[:columns, :depth] = b[j : j + 8, k : k + 32]
                c = mma(c, left, right)
            y[i : i + 16, j : j + 8] = c[:rows, :columns]
    # Σ (a − z) (b − t) = Σ a b − t Σ a − z Σ (b − t)
    rest = b.int().sum(1) - K * b_zero
    y -= (a.int().sum(1)[:, None] * b_zero[None] + a_zero[:, None] * rest[None]).int()
    return y


# %% plan
def plan(weights, activations, target):
    found = None
    for name in target["multiplies"]:
        if name in target["no_kernel"] or weights not in HOLDS[name] or activations not in HOLDS[name]:
            continue
        same = name[0] == weights[0]
        if found is None or BITS[name] < BITS[found] or (BITS[name] == BITS[found] and same):
            found = name
    if found is None:
        raise ValueError(f"{weights} with {activations}: no multiplication")
    feed = "as they are"
    operands = target.get("operands") or ""
    if found == "INT8" and "u8" in operands:
        feed = "offset"
        span = {"INT8": 255, "INT4": 15}[weights]
        if "pairs" in operands and span * 127 + span * 127 >= 2**15:
            feed = "sign"
    return found, feed


def best(checkpoints, target, bound):
    winner = None
    for name, pair in checkpoints.items():
        try:
            bits = (BITS[pair[0]], BITS[plan(*pair, target)[0]])
        except ValueError:
            continue
        score = bits[0] * 100 + bits[1] if bound == "memory" else bits[1] * 100 + bits[0]
        if winner is None or score < winner[0]:
            winner = (score, name)
    if winner is None:
        raise ValueError("no checkpoint runs")
    return winner[1]


# %% limit
def speed_limit(row, devices):
    if row["device"] not in devices.keys():
        raise ValueError("unknown")
    streamed = row["file"] - row["lookup"] - devices[row["device"]]["cache"]
    if streamed <= 0:
        return math.inf
    steps_per_second = devices[row["device"]]["bandwidth"] / streamed
    return steps_per_second * row["batch"]


# %% audit
def audit(row, devices):
    known = row["device"] in devices
    flags = []
    limit = needs = None
    if known:
        limit = speed_limit(row, devices)
        needs = 0.0
        if limit != math.inf:
            needs = devices[row["device"]]["bandwidth"] * row["tokens_per_second"] / limit
    tests = [
        ("device", not known),
        ("unit", known and row["unit"] not in devices[row["device"]]["units"]),
        ("bandwidth", known and row["tokens_per_second"] > limit),
    ]
    flags = [name for name, bad in tests if bad]
    if row["watts"] is not None:
        difference = row["tokens_per_second"] / row["watts"] - row["tokens_per_joule"]
        if difference > 0.005 or difference < -0.005:
            flags.append("efficiency")
    return {"flags": tuple(flags), "limit": limit, "needs": needs}
