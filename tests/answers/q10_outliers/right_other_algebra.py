# fails:
"""Right: other algebra (masked products, clipping as a difference, a constant gain that is not 1), float32 in torch."""


# %% llm_int8
def outlier_columns(x, threshold):
    return x.abs().max(dim=0).values.ge(threshold)


def llm_int8(x, w, threshold=6.0):
    keep = outlier_columns(x, threshold).float()  # 1 for outliers, as a mask that multiplies
    rest = x * (1 - keep)
    scale = rest.abs().amax(1, keepdim=True).clamp(min=1e-30) / 127
    x_hat = torch.round(rest / scale) * scale
    scale = w.abs().amax(1, keepdim=True).clamp(min=1e-30) / 127
    w_hat = torch.round(w / scale) * scale
    return torch.nn.functional.linear(x_hat, w_hat * (1 - keep)) + torch.nn.functional.linear(x * keep, w)


# %% smooth
def smoothing_scales(x_max, w, alpha):
    w_max = w.abs().max(dim=0).values
    s = torch.pow(x_max * w_max, alpha) / w_max
    s[(x_max == 0) | (w_max == 0)] = 1
    return s


def fold_into_norm(gain, bias, weights, s):
    weights = tuple(w @ torch.diag(s) for w in weights)
    return gain.div(s), bias if bias is None else bias.div(s), list(weights)


def smooth_sweep(x, w, alphas):
    errors = []
    for alpha in alphas:
        s = smoothing_scales(x.abs().amax(0), w, alpha)
        gap = w8a8(x / s, w * s) - x @ w.T
        errors.append(100 * (gap.square().sum() / (x @ w.T).square().sum()).sqrt())  # tensors of no dimension
    return errors


# %% awq
def awq_errors(w, x, bits, group):
    h, errors = x.double().T @ x.double(), []
    norm = torch.einsum("mi,ij,mj->", w.double(), h, w.double())
    for i in range(21):
        s = saliency(x, i / 20)
        delta = (group_quantized(w * s, bits, group) / s - w).double()
        errors.append(float(100 * (((delta @ h) * delta).sum() / norm).sqrt()))
    return errors


def awq_scales(w, x, bits, group):
    errors = awq_errors(w, x, bits, group)
    s = saliency(x, errors.index(min(errors)) / 20)
    return s / (s.max() * s.min()).sqrt()


def saliency(x, alpha):
    a = x.abs().sum(0) / len(x)
    return torch.maximum(a, a.max() * 1e-4).pow(alpha)


# %% hadamard
def hadamard(x):
    n = x.shape[-1]
    if n == 0 or bin(n).count("1") != 1:
        raise ValueError(n)
    if n == 1:
        return x.clone()
    half = n // 2
    left, right = hadamard(x[..., :half]), hadamard(x[..., half:])
    return torch.cat([left + right, left - right], -1) / 2**0.5


def rotate_mlp(gain, w_gate, w_up, w_down, online):
    w_down = torch.stack([hadamard(column) for column in w_down.T], 1)
    if online:
        w_down = torch.stack([hadamard(row) for row in w_down])
    strength = gain.mean()
    return strength.expand_as(gain), hadamard(w_gate * gain / strength), hadamard(w_up * gain / strength), w_down


# %% kivi
def kivi_cache(k, v, bits, group, window):
    tokens = k.shape[-2]
    k_hat, v_hat = k.clone(), v.clone()
    for start in range(0, tokens, group):
        if start + group <= tokens - window:
            part = k[..., start : start + group, :]
            k_hat[..., start : start + group, :] = nearest(part, -2, bits)
    for token in range(max(0, tokens - window)):
        for start in range(0, v.shape[-1], group):
            part = v[..., token : token + 1, start : start + group]
            v_hat[..., token : token + 1, start : start + group] = nearest(part, -1, bits)
    return k_hat, v_hat


def nearest(x, dim, bits):
    low, high = x.min(dim, keepdim=True).values, x.max(dim, keepdim=True).values
    step = (high - low).clamp(min=1e-30) / (2**bits - 1)
    zero = -low / step
    return (torch.floor(x / step + zero + 0.5) - zero) * step


# %% clip
def largest_share(sigmas):
    return 1 / max(1, sigmas) ** 2


def clip_errors(x, w, percentile, bits):
    values = x.abs().flatten().sort().values.double()
    place = percentile / 100 * (len(values) - 1)
    below = int(place)
    above = min(below + 1, len(values) - 1)
    c = (values[below] + (place - below) * (values[above] - values[below])).item()
    step = c / (2 ** (bits - 1) - 1)
    limited = x.clamp(-c, c)
    error = torch.round(limited / step) * step - x
    rounding = torch.where(x.abs() <= c, error, 0.0)
    y = torch.linalg.matrix_norm(x @ w.T)
    return torch.stack([100 * torch.linalg.matrix_norm(e @ w.T) / y for e in (rounding, error - rounding, error)])


def best_percentile(x, w, percentiles, bits):
    best, smallest = None, float("inf")
    for percentile in percentiles:
        total = float(clip_errors(x, w, percentile, bits)[2])
        if total < smallest:
            best, smallest = percentile, total
    return best
