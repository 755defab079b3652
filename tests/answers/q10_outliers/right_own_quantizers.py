# fails:
"""Right: quantizers of one's own, reciprocals in place of divisions, halves away from zero, integers where they are integers."""


# %% llm_int8
def to_int8(v):
    peak = v.abs().amax(-1, keepdim=True)
    inverse = torch.where(peak > 0, 127 / peak, torch.zeros_like(peak))
    scaled = v * inverse
    codes = torch.sign(scaled) * torch.floor(scaled.abs() + 0.5)
    return codes.to(torch.int8), peak / 127


def outlier_columns(x, threshold):
    return torch.any(torch.abs(x) >= threshold, dim=0)


def llm_int8(x, w, threshold=6.0):
    large = outlier_columns(x, threshold).nonzero().flatten().tolist()
    small = [j for j in range(x.shape[1]) if j not in large]
    total = torch.zeros(len(x), len(w), dtype=torch.float64)
    for j in large:
        total += torch.outer(x[:, j].double(), w[:, j].double())
    if small:
        codes_w, scale_w = to_int8(w)
        codes_x, scale_x = to_int8(x[:, small])
        integers = codes_x.to(torch.int32) @ codes_w[:, small].to(torch.int32).T
        total += integers * scale_x.double() * scale_w.double().T
    return total.float()


# %% smooth
def smoothing_scales(x_max, w, alpha):
    s = torch.ones_like(x_max)
    for j in range(len(s)):
        largest = w[:, j].abs().max()
        if x_max[j] != 0 and largest != 0:
            s[j] = x_max[j] ** alpha * largest ** (alpha - 1)
    return s


def fold_into_norm(gain, bias, weights, s):
    new = [None if part is None else part * s.reciprocal() for part in (gain, bias)]
    return new[0], new[1], [torch.einsum("mn,n->mn", w, s) for w in weights]


def smooth_sweep(x, w, alphas):
    out = []
    for alpha in alphas:
        s = smoothing_scales(x.abs().amax(0), w, alpha)
        gain, _, (weight,) = fold_into_norm(torch.ones_like(s), None, [w], s)
        (q_x, s_x), (q_w, s_w) = (int8_rows(part) for part in (x * gain, weight))
        y = (s_x * q_x) @ (s_w * q_w).T
        out.append((100 * torch.dist(y, x @ w.T) / (x @ w.T).norm()).item())
    return out


# %% awq
def awq_errors(w, x, bits, group):
    a = x.abs().mean(0)
    a = a.clamp(min=float(a.max()) * 1e-4)
    y, result = x @ w.T, []
    for alpha in torch.linspace(0, 1, 21):
        s = torch.exp(alpha * torch.log(a))
        s = s / s.mean()
        result.append(percent((x / s) @ group_quantized(w * s, bits, group).T, y))
    return result


def awq_scales(w, x, bits, group):
    alpha = torch.tensor(awq_errors(w, x, bits, group)).argmin() / 20
    a = x.abs().mean(0)
    return 3 * a.clamp(min=float(a.max()) * 1e-4).double() ** alpha


# %% hadamard
def hadamard(x):
    n = x.shape[-1]
    k = n.bit_length() - 1
    if n <= 0 or 2**k != n:
        raise ValueError(f"{n} is not a power of two")
    y = x.clone().reshape(-1, *[2] * k)
    for axis in range(1, k + 1):
        a, b = y.select(axis, 0), y.select(axis, 1)
        y = torch.stack([a + b, a - b], axis) * 0.5**0.5
    return y.reshape(x.shape)


def rotate_mlp(gain, w_gate, w_up, w_down, online):
    def columns(w):
        return hadamard(w.contiguous())

    down = columns(w_down) if online else w_down
    down = columns(down.T).T
    return gain * 0 + 1, columns(gain * w_gate), columns(gain * w_up), down


# %% kivi
def kivi_cache(k, v, bits, group, window):
    steps = 2**bits - 1
    tokens = torch.arange(k.shape[-2])
    old = tokens < len(tokens) - window
    last = tokens // group * group + group - 1
    keys_old = last < len(tokens) - window
    out_k, out_v = k.clone(), v.clone()
    for g in range(len(tokens) // group):
        rows = slice(g * group, (g + 1) * group)
        if keys_old[g * group]:
            low, high = torch.aminmax(k[..., rows, :], dim=-2, keepdim=True)
            width = torch.where(high > low, high - low, 1)
            out_k[..., rows, :] = ((k[..., rows, :] - low) * steps / width).round() * width / steps + low
            out_k[..., rows, :] = torch.where(high > low, out_k[..., rows, :], low)
    for c in range(v.shape[-1] // group):
        part = v[..., c * group : (c + 1) * group]
        low, high = torch.aminmax(part, dim=-1, keepdim=True)
        width = torch.where(high > low, high - low, 1)
        hat = ((part - low) * steps / width).round() * width / steps + low
        out_v[..., c * group : (c + 1) * group] = torch.where(old[:, None], hat, part)
    return out_k, out_v


# %% clip
def largest_share(sigmas):
    return min(1, (1 / sigmas) ** 2)


def clip_errors(x, w, percentile, bits):
    limit = x.abs().double().quantile(percentile / 100)
    levels = 2 ** (bits - 1) - 1
    codes = (x.double() / limit * levels).round()
    codes = torch.minimum(torch.maximum(codes, torch.tensor(-levels)), torch.tensor(levels))
    e = codes * limit / levels - x.double()
    far = x.abs() > limit
    sizes = {
        name: percent(x.double() @ w.double().T + part @ w.double().T, x.double() @ w.double().T)
        for name, part in (("r", e.masked_fill(far, 0)), ("c", e.masked_fill(~far, 0)), ("t", e))
    }
    return sizes["r"], sizes["c"], sizes["t"]


def best_percentile(x, w, percentiles, bits):
    return sorted(percentiles, key=lambda p: clip_errors(x, w, p, bits)[-1])[0]
