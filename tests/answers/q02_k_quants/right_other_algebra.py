# fails:
"""Right: bit streams and lookups for the layouts, regular expressions, ggml's moving minimum in float32."""


# %% scales
def pack_scales_mins(sc, m):
    numbers = torch.cat([sc, m], -1).int()  # (..., 16)
    out = torch.zeros(*sc.shape[:-1], 12, dtype=torch.int32)
    for i in range(16):
        kind, j = divmod(i, 8)
        for bit in range(6):
            byte, place = (
                (j + 4 * kind, bit) if j < 4 else (j + 4, bit + 4 * kind) if bit < 4 else (j - 4 + 4 * kind, bit + 2)
            )
            out[..., byte] += (numbers[..., i] >> bit & 1) << place
    return out.to(torch.uint8)


def unpack_scales_mins(packed):
    def number(j, kind):
        p = packed.to(torch.int16)
        if j < 4:
            return p[..., j + 4 * kind] % 64
        return p[..., j + 4] // 16**kind % 16 + p[..., j - 4 + 4 * kind] // 64 * 16

    return tuple(torch.stack([number(j, kind) for j in range(8)], -1).to(torch.uint8) for kind in range(2))


# %% decode
def q6_k_dequantize(data):
    element = torch.arange(256)
    half, l, quarter = element // 128, element % 32, element % 128 // 32
    blocks = data.reshape(*data.shape[:-1], -1, 210).long()
    low = blocks[..., 64 * half + l + 32 * (quarter % 2)] >> 4 * (quarter // 2)
    top = blocks[..., 128 + 32 * half + l] >> 2 * quarter
    scale = blocks[..., 192 + element // 16]
    scale = scale - 256 * (scale > 127)
    d = blocks[..., 208:].to(torch.uint8).contiguous().view(torch.float16).double()
    return (d * scale * (low % 16 + top % 4 * 16 - 32)).float().flatten(-2)


def q4_k_dequantize(data, sc, m):
    element = torch.arange(256)
    blocks = data.reshape(*data.shape[:-1], -1, 144)
    q = blocks[..., 16 + element // 64 * 32 + element % 32].int() >> (element // 32 % 2 * 4) & 15
    pair = blocks[..., :4].contiguous().view(torch.float16).float()
    step, offset = pair[..., :1] * sc.float(), pair[..., 1:] * m.float()
    return (step[..., element // 32] * q - offset[..., element // 32]).flatten(-2)


# %% mix
import re


def use_more_bits(layer, n_layer):
    eighth = n_layer // 8
    if layer < eighth:
        return True
    if layer >= n_layer * 7 // 8:
        return True
    return (layer - eighth) % 3 == 2


def tensor_types(shapes, mix):
    rules = {
        "Q4_K_M": [(r"blk\.(\d+)\.(attn_v|ffn_down)\.weight", use_more_bits, "Q6_K")],
        "Q4_K_S": [
            (r"blk\.(\d+)\.attn_v\.weight", lambda i, n: i < 4, "Q5_K"),
            (r"blk\.(\d+)\.ffn_down\.weight", lambda i, n: i < n // 8, "Q5_K"),
        ],
    }
    if mix not in rules:
        raise ValueError(f"no mix {mix}")
    n_layer = len({re.match(r"blk\.\d+\.", name)[0] for name in shapes if name.startswith("blk")})
    result = {}
    for name in sorted(shapes):
        shape = shapes[name]
        if len(shape) < 2:
            result[name] = "F32"
            continue
        six = name == "output.weight" or (name == "token_embd.weight" and "output.weight" not in shapes)
        qtype = "Q6_K" if six else "Q4_K"
        for pattern, condition, better in rules[mix]:
            found = re.fullmatch(pattern, name)
            if found and condition(int(found[1]), n_layer):
                qtype = better
        columns = shape[1]
        if columns % 32 != 0:
            qtype = "F16"
        elif columns % 256 != 0:
            qtype = dict(Q4_K="Q5_0", Q5_K="Q5_1", Q6_K="Q8_0")[qtype]
        result[name] = qtype
    return result


def file_size(shapes, types):
    import math

    n_bytes = 0
    for name in shapes:
        per_block, size = BLOCKS[types[name]]
        n_bytes += math.prod(shapes[name]) * size // per_block
    return n_bytes, n_bytes * 8 / sum(math.prod(shape) for shape in shapes.values())


# %% search
def fit_sub_blocks(x, weights):
    low, high = x.amin(1).clamp(max=0), x.amax(1)
    m = -low
    s = (high - low) / 15
    q = torch.where(s > 0, ((x.T + m) / s), 0).round().clamp(0, 15)  # (32, n)
    x, w = x.T, weights.T
    least = (w * (s * q - m - x) ** 2).sum(0)
    total, sum_x = w.sum(0), (w * x).sum(0)
    for step in range(37):
        numerator = 15 - 0.9 + 0.05 * step
        inverse = torch.where(high + m > 0, numerator / (high + m), 0)
        q1 = ((x + m) * inverse).round().clamp(0, 15)
        wq = w * q1
        sum_q, sum_qq, sum_qx = wq.sum(0), (wq * q1).sum(0), (wq * x).sum(0)
        det = total * sum_qq - sum_q * sum_q
        ok = det > 1e-6 * total * sum_qq
        det = torch.where(ok, det, 1)
        s1 = (total * sum_qx - sum_x * sum_q) / det
        m1 = -(sum_qq * sum_x - sum_q * sum_qx) / det
        s1 = torch.where(m1 < 0, sum_qx / sum_qq.clamp(min=1e-30), s1)
        m1 = m1.clamp(min=0)
        e1 = (w * (s1 * q1 - m1 - x) ** 2).sum(0)
        better = ok & (e1 < least) & (s1 > 0)
        least, s, m = torch.where(better, e1, least), torch.where(better, s1, s), torch.where(better, m1, m)
        q = torch.where(better, q1, q)
    return s, m, q.T.to(torch.uint8)


# %% levels
def q4_k_fields(x, scale, minimum):
    result = []
    for block, s, m in zip(x.double(), scale, minimum):
        top, bottom = s.max(), m.max()
        sc = torch.floor(63 * s.double() / top.double() + 0.5) if top > 0 else torch.zeros(8)
        mc = torch.floor(63 * m.double() / bottom.double() + 0.5) if bottom > 0 else torch.zeros(8)
        d, dmin = (top / 63).half(), (bottom / 63).half()
        q = torch.zeros(8, 32)
        for j in range(8):
            step, offset = d.double() * sc[j], dmin.double() * mc[j]
            if step > 0:
                q[j] = torch.floor((block[32 * j : 32 * j + 32] + offset) / step + 0.5).clamp(0, 15)
        result.append((d, dmin, sc.byte(), mc.byte(), q.byte().flatten()))
    return tuple(torch.stack(parts) for parts in zip(*result))


# %% importance
def importance(batches):
    total, count = 0, 0
    for batch in batches:
        total = total + torch.einsum("tc,tc->c", batch, batch)
        count += batch.shape[0]
    return total / count


def two_errors(w, w_hat, batches):
    lost = [(batch @ (w_hat - w).T).square().sum() for batch in batches]
    whole = [(batch @ w.T).square().sum() for batch in batches]
    weight = (w_hat - w).square().sum() / w.square().sum()
    return 100 * weight.sqrt().item(), 100 * (sum(lost) / sum(whole)).sqrt().item()
