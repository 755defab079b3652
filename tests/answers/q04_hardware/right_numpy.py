# fails:
"""Right: numpy throughout, float64 as an exact accumulator, other algebra for the ridge, plain comparisons for the plan."""


# %% dot
def vpdpbusd(acc, a, b, saturate=False):
    a = np.ascontiguousarray(a.numpy()).view(np.uint8).astype(np.float64)
    b = np.ascontiguousarray(b.numpy()).view(np.int8).astype(np.float64)
    total = (a * b).reshape(*acc.shape, 4) @ np.ones(4) + acc.numpy()
    if saturate:
        total = np.clip(total, -2147483648.0, 2147483647.0)
    return torch.from_numpy(total.astype(np.int64).astype(np.uint32).view(np.int32))


# %% feeds
def feed_by_sign(w, x):
    w, x = w.numpy().astype(np.int32), x.numpy().astype(np.int32)
    a = np.abs(w).astype(np.uint8)
    b = np.select([w > 0, w < 0], [x, -x], 0).astype(np.int8)
    return torch.from_numpy(a), torch.from_numpy(b)


def feed_by_offset(w, x):
    a = np.ascontiguousarray(w.numpy()).view(np.uint8) ^ np.uint8(0x80)
    sums = np.add.reduceat(x.numpy().astype(np.int32), np.arange(0, x.shape[-1], 4), axis=-1)
    return torch.from_numpy(a), x.clone(), torch.from_numpy((-128 * sums).astype(np.int32))


# %% older
def older_dot(acc, a, b):
    a = np.ascontiguousarray(a.numpy()).view(np.uint8).astype(np.int32)
    b = np.ascontiguousarray(b.numpy()).view(np.int8).astype(np.int32)
    even, odd = (a * b)[..., ::2], (a * b)[..., 1::2]
    words = np.clip(even + odd, -32768, 32767)
    with np.errstate(over="ignore"):
        return torch.from_numpy((acc.numpy() + (words[..., ::2] + words[..., 1::2])).astype(np.int32))


def exact_ways(w_low, w_high, x_low, x_high, offset):
    w = np.arange(w_low, w_high + 1)[:, None]
    x = np.arange(x_low, x_high + 1)[None, :]
    a, b = np.abs(w), (np.sign(w) * x).astype(np.int8).astype(np.int64)
    sign = np.array_equal(a * b, w * x)
    fits = {}
    for way, products in (("sign", w * x), ("offset", (w + offset) * x)):
        fits[way] = (2 * products.max() <= 32767) & (2 * products.min() >= -32768)
    return {
        "offset + older": fits["offset"],
        "offset + VPDPBUSD": np.True_,
        "sign + older": fits["sign"] & sign,
        "sign + VPDPBUSD": sign,
    }


# %% ridge
def gemm_seconds(scheme, m, n, k, device):
    peak = device["peaks"].get(scheme[2]) or 0
    if not peak:
        raise ValueError(scheme[2])
    n_bytes = n * k * scheme[0] / 8 + m * k * scheme[1] / 8 + m * n * 2
    return np.float64(n_bytes / device["bandwidth"]), np.float64(m * n * k / (peak / 2))


def first_compute_bound(scheme, n, k, device):
    def bound(m):
        memory, compute = gemm_seconds(scheme, m, n, k, device)
        return compute >= memory

    if not bound(2**60):
        return None
    low, high = 0, 2**60  # low is not compute bound, high is
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bound(middle) else (middle, high)
    return high


def fastest(schemes, m, n, k, device):
    best_name, best_time = None, np.inf
    for name in schemes:
        try:
            time = max(gemm_seconds(schemes[name], m, n, k, device))
        except ValueError:
            continue
        if time < best_time:
            best_name, best_time = name, time
    if best_name is None:
        raise ValueError("none")
    return best_name


# %% gemm
def int8_gemm(a, b, a_zero, b_zero):
    M, K = a.shape
    N = b.shape[0]
    up = lambda size, tile: (size + tile - 1) // tile * tile
    wide = up(K, 32)
    # padded with the zero points themselves: each padded column adds (z − z)(t − t) = 0, so the padded K is right
    big_a = np.zeros((up(M, 16), wide), np.uint8)
    big_b = np.zeros((up(N, 8), wide), np.int8)
    big_a[:M] = a_zero.numpy()[:, None].astype(np.uint8)
    big_b[:N] = b_zero.numpy()[:, None].astype(np.int8)
    big_a[:M, :K], big_b[:N, :K] = a.numpy(), b.numpy()
    out = np.zeros((len(big_a), len(big_b)), np.int64)
    for k in range(0, wide, 32):
        for i in range(0, len(big_a), 16):
            for j in range(0, len(big_b), 8):
                c = torch.from_numpy(out[i : i + 16, j : j + 8].astype(np.int32))
                tile = mma(
                    c, torch.from_numpy(big_a[i : i + 16, k : k + 32]), torch.from_numpy(big_b[j : j + 8, k : k + 32])
                )
                out[i : i + 16, j : j + 8] = tile.numpy()
    za, zb = a_zero.numpy().astype(np.int64), b_zero.numpy().astype(np.int64)
    sum_a, sum_b = big_a[:M].astype(np.int64).sum(1), big_b[:N].astype(np.int64).sum(1)
    y = out[:M, :N] - np.outer(za, sum_b) - np.outer(sum_a, zb) + wide * np.outer(za, zb)
    return torch.from_numpy(y.astype(np.int32))


# %% plan
def plan(weights, activations, target):
    order = ["INT4", "FP4", "INT8", "FP8", "FP16", "FP32"]
    if weights.startswith("FP"):
        order = ["FP4", "INT4", "FP8", "INT8", "FP16", "FP32"]
    for name in order:
        able = name in target["multiplies"] and name not in target["no_kernel"]
        if able and weights in HOLDS[name] and activations in HOLDS[name]:
            break
    else:
        raise ValueError("nothing fits")
    if name != "INT8" or target["operands"] in ("any", "s8 × s8", None):
        return [name, "as they are"]
    if target["operands"] == "u8 × s8 in int16 pairs" and weights == "INT8":
        return [name, "sign"]
    return [name, "offset"]


def best(checkpoints, target, bound):
    rows = []
    for place, (name, (weights, activations)) in enumerate(checkpoints.items()):
        try:
            bits = BITS[plan(weights, activations, target)[0]]
        except ValueError:
            pass
        else:
            rows.append((BITS[weights], bits, place, name) if bound == "memory" else (bits, BITS[weights], place, name))
    if not rows:
        raise ValueError("nothing runs")
    return sorted(rows)[0][-1]


# %% limit
def speed_limit(row, devices):
    try:
        device = devices[row["device"]]
    except KeyError:
        raise ValueError(row["device"]) from None
    moved = np.maximum(row["file"] - row["lookup"] - device["cache"], 0.0)
    seconds = moved / device["bandwidth"]
    return float("inf") if seconds == 0 else np.float64(row["batch"] / seconds)


# %% audit
def audit(row, devices):
    device = devices.get(row["device"])
    found = dict(limit=None, needs=None, flags=["device"] if device is None else [])
    if device is not None:
        moved = max(row["file"] - row["lookup"] - device["cache"], 0)
        found["needs"] = row["tokens_per_second"] * moved / row["batch"]
        found["limit"] = row["batch"] * device["bandwidth"] / moved if moved else math.inf
        found["flags"] += ["unit"] * (row["unit"] not in device["units"])
        found["flags"] += ["bandwidth"] * (found["needs"] > device["bandwidth"])
    if row["watts"]:
        joules = row["watts"] / row["tokens_per_second"]
        found["flags"] += ["efficiency"] * (abs(1 / joules - row["tokens_per_joule"]) > 0.005)
    return found
