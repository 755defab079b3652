# fails:
"""Right: numpy throughout; a direct search over both ends of the grid with refits; sizes by fractions."""


# %% scales
def pack_scales_mins(sc, m):
    sc, m = sc.numpy().astype(np.int64), m.numpy().astype(np.int64)
    out = np.zeros((*sc.shape[:-1], 12), np.int64)
    for j in range(4):
        out[..., j] = sc[..., j] + 64 * (sc[..., j + 4] // 16)
        out[..., j + 4] = m[..., j] + 64 * (m[..., j + 4] // 16)
        out[..., j + 8] = sc[..., j + 4] % 16 + 16 * (m[..., j + 4] % 16)
    return torch.from_numpy(out.astype(np.uint8))


def unpack_scales_mins(packed):
    three = packed.numpy().reshape(*packed.shape[:-1], 3, 4)
    top = (three[..., :2, :] >> 2) & 0x30
    sc = np.concatenate([three[..., 0, :] & 0x3F, (three[..., 2, :] & 0x0F) | top[..., 0, :]], axis=-1)
    m = np.concatenate([three[..., 1, :] & 0x3F, (three[..., 2, :] >> 4) | top[..., 1, :]], axis=-1)
    return torch.from_numpy(sc), torch.from_numpy(m)


# %% decode
def q6_k_dequantize(data):
    blocks = np.ascontiguousarray(data.numpy()).reshape(-1, 210)
    result = np.empty((len(blocks), 256), np.float32)
    d = blocks[:, 208:].copy().view(np.float16).astype(np.float32)
    step = d * blocks[:, 192:208].copy().view(np.int8)
    for half in range(2):
        ql, qh = blocks[:, 64 * half : 64 * half + 64], blocks[:, 128 + 32 * half : 160 + 32 * half]
        for quarter in range(4):
            low = ql[:, 32 * (quarter % 2) : 32 * (quarter % 2) + 32] >> (4 * (quarter // 2)) & 15
            q = (low | (qh >> (2 * quarter) & 3) << 4).astype(np.int32) - 32
            start = 128 * half + 32 * quarter
            result[:, start : start + 32] = q * np.repeat(step[:, start // 16 : start // 16 + 2], 16, axis=1)
    return torch.from_numpy(result.reshape(*data.shape[:-1], -1))


def q4_k_dequantize(data, sc, m):
    blocks = np.ascontiguousarray(data.numpy()).reshape(-1, 144)
    d, dmin = (blocks[:, i : i + 2].copy().view(np.float16).astype(np.float32) for i in (0, 2))
    step, offset = d * sc.numpy().reshape(-1, 8), dmin * m.numpy().reshape(-1, 8)
    q = np.stack([blocks[:, 16:].reshape(-1, 4, 32) & 15, blocks[:, 16:].reshape(-1, 4, 32) >> 4], axis=2)
    w = step[..., None] * q.reshape(-1, 8, 32).astype(np.float32) - offset[..., None]
    return torch.from_numpy(w.astype(np.float32).reshape(*data.shape[:-1], -1))


# %% mix
def use_more_bits(layer, n_layer):
    first, last = n_layer // 8, (7 * n_layer) // 8
    return bool(layer in range(first) or layer in range(last, n_layer) or layer in range(first + 2, last, 3))


def tensor_types(shapes, mix):
    if mix == "Q4_K_M":
        better = "Q6_K"
    elif mix == "Q4_K_S":
        better = "Q5_K"
    else:
        raise ValueError(mix)
    numbers = sorted({int(name.split(".")[1]) for name in shapes if name.startswith("blk.")})
    n_layer = numbers[-1] + 1
    types = {}
    for name, shape in shapes.items():
        types[name] = "Q4_K" if len(shape) == 2 else "F32"
    for i in numbers:
        v, down = f"blk.{i}.attn_v.weight", f"blk.{i}.ffn_down.weight"
        if mix == "Q4_K_M" and use_more_bits(i, n_layer):
            types[v] = types[down] = better
        if mix == "Q4_K_S" and i < 4:
            types[v] = better
        if mix == "Q4_K_S" and i < n_layer // 8:
            types[down] = better
    types["output.weight" if "output.weight" in shapes else "token_embd.weight"] = "Q6_K"
    for name, shape in shapes.items():
        if types[name] != "F32" and shape[-1] % 32:
            types[name] = "F16"
        elif types[name] != "F32" and shape[-1] % 256:
            types[name] = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}[types[name]]
    return types


def file_size(shapes, types):
    bits = {"F32": 32, "F16": 16, "Q5_0": 5.5, "Q5_1": 6, "Q8_0": 8.5, "Q4_K": 4.5, "Q5_K": 5.5, "Q6_K": 6.5625}
    total = weights = 0
    for name, shape in shapes.items():
        n = 1
        for size in shape:
            n *= size
        weights += n
        total += n * bits[types[name]]
    return int(total / 8), total / weights


# %% search
def fit_sub_blocks(x, weights):
    x, w = x.numpy().astype(np.float64), weights.numpy().astype(np.float64)
    low = np.minimum(x.min(1, keepdims=True), 0)
    high = x.max(1, keepdims=True)

    def codes(s, m):
        return np.clip(np.rint(np.divide(x + m, s, out=np.zeros_like(x), where=s > 0)), 0, 15)

    def loss(s, m, q):
        return (w * (s * q - m - x) ** 2).sum(1, keepdims=True)

    s, m = (high - low) / 15, -low
    q = codes(s, m)
    best = loss(s, m, q)
    for a in np.linspace(0.8, 1.05, 8):
        for b in np.linspace(0.8, 1.05, 8):
            m1 = -low * a
            s1 = np.maximum(high * b + m1, 0) / 15
            for _ in range(2):
                q1 = codes(s1, m1)
                mean_x, mean_q = ((w * v).sum(1, keepdims=True) / w.sum(1, keepdims=True) for v in (x, q1))
                spread = (w * (q1 - mean_q) ** 2).sum(1, keepdims=True)
                slope = (w * (q1 - mean_q) * (x - mean_x)).sum(1, keepdims=True)
                s1 = np.divide(slope, spread, out=np.zeros_like(slope), where=spread > 0)
                m1 = s1 * mean_q - mean_x
                alone = (w * q1 * q1).sum(1, keepdims=True)
                through = np.divide(
                    (w * q1 * x).sum(1, keepdims=True), alone, out=np.zeros_like(alone), where=alone > 0
                )
                s1, m1 = np.maximum(np.where(m1 < 0, through, s1), 0), np.maximum(m1, 0)
                e1 = loss(s1, m1, q1)
                better = e1 < best
                s, m, q = np.where(better, s1, s), np.where(better, m1, m), np.where(better, q1, q)
                best = np.where(better, e1, best)
    return (
        torch.from_numpy(s[:, 0].astype(np.float32)),
        torch.from_numpy(m[:, 0].astype(np.float32)),
        torch.from_numpy(q.astype(np.uint8)),
    )


# %% levels
def q4_k_fields(x, scale, minimum):
    x, scale, minimum = x.numpy(), scale.numpy(), minimum.numpy()
    parts = []
    for values in (scale, minimum):
        top = values.max(axis=1, keepdims=True)
        inverse = np.divide(np.float32(63), top, out=np.zeros_like(top), where=top > 0)
        parts += [(top / np.float32(63)).astype(np.float16), np.rint(values * inverse).astype(np.uint8)]
    d, sc, dmin, m = parts
    step = np.repeat(d.astype(np.float32) * sc, 32, axis=1)
    offset = np.repeat(dmin.astype(np.float32) * m, 32, axis=1)
    q = np.clip(np.rint(np.divide(x + offset, step, out=np.zeros_like(x), where=step > 0)), 0, 15).astype(np.uint8)
    return tuple(torch.from_numpy(part) for part in (d[:, 0], dmin[:, 0], sc, m, q))


# %% importance
def importance(batches):
    everything = np.concatenate([batch.numpy() for batch in batches])
    return torch.from_numpy(np.mean(everything * everything, axis=0, dtype=np.float64).astype(np.float32))


def two_errors(w, w_hat, batches):
    lost = total = 0.0
    for batch in batches:
        y, y_hat = batch.double() @ w.double().T, batch.double() @ w_hat.double().T
        lost, total = lost + (y - y_hat).square().sum().item(), total + y.square().sum().item()
    w, w_hat = w.numpy().astype(np.float64), w_hat.numpy().astype(np.float64)
    return 100 * np.sqrt(((w - w_hat) ** 2).sum() / (w**2).sum()), 100 * (lost / total) ** 0.5
