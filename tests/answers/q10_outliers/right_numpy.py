# fails:
"""Right: numpy in float64 throughout, with the matrix of the transform and loops over groups."""

# %% llm_int8
import numpy as np


def outlier_columns(x, threshold):
    return torch.from_numpy(np.abs(x.numpy()).max(axis=0) >= threshold)


def llm_int8(x, w, threshold=6.0):
    x, w = x.numpy().astype(np.float64), w.numpy().astype(np.float64)
    o = np.flatnonzero(np.abs(x).max(axis=0) >= threshold)
    r = np.setdiff1d(np.arange(x.shape[1]), o)
    s_w = np.abs(w).max(axis=1) / 127
    s_w[s_w == 0] = 1
    w_hat = np.rint(w / s_w[:, None]) * s_w[:, None]
    y = np.einsum("tj,mj->tm", x[:, o], w[:, o])
    for t in range(len(x)):
        largest = np.abs(x[t, r]).max(initial=0)
        if largest > 0:
            codes = np.rint(x[t, r] * 127 / largest)
            y[t] += w_hat[:, r] @ codes * (largest / 127)
    return torch.from_numpy(y.astype(np.float32))


# %% smooth
def smoothing_scales(x_max, w, alpha):
    x_max, w_max = x_max.numpy().astype(float), np.abs(w.numpy()).max(axis=0).astype(float)
    s = [a**alpha / b ** (1 - alpha) if a > 0 and b > 0 else 1.0 for a, b in zip(x_max, w_max)]
    return torch.tensor(s, dtype=torch.float32)


def fold_into_norm(gain, bias, weights, s):
    inverse = 1 / s.double()
    scaled = [(w.double() / inverse).float() for w in weights]
    return (gain * inverse).float(), bias if bias is None else (bias * inverse).float(), scaled


def smooth_sweep(x, w, alphas):
    def rounded(v):
        s = np.abs(v).max(axis=1, keepdims=True) / 127
        return np.rint(v / np.where(s == 0, 1, s)) * s

    errors = []
    x, w = x.numpy().astype(float), w.numpy().astype(float)
    y = x @ w.T
    for alpha in alphas:
        a, b = np.abs(x).max(axis=0), np.abs(w).max(axis=0)
        s = np.exp(alpha * np.log(a) - (1 - alpha) * np.log(b))
        difference = rounded(x / s) @ rounded(w * s).T - y
        errors.append(100 * np.sqrt((difference**2).sum() / (y**2).sum()))
    return errors


# %% awq
def awq_errors(w, x, bits, group):
    return [awq_try(w, x, bits, group, step / 20)[0] for step in range(21)]


def awq_scales(w, x, bits, group):
    best = min((awq_try(w, x, bits, group, step / 20) for step in range(21)), key=lambda pair: pair[0])
    return torch.from_numpy(best[1])


def awq_try(w, x, bits, group, alpha):
    w, x = w.numpy().astype(float), x.numpy().astype(float)
    size = np.abs(x).mean(axis=0)
    s = np.maximum(size, 1e-4 * size.max()) ** alpha
    delta = np.zeros_like(w)
    for row in range(len(w)):
        for start in range(0, w.shape[1], group):
            columns = slice(start, start + group)
            v = w[row, columns] * s[columns]
            low, high = min(v.min(), 0), max(v.max(), 0)
            scale = (high - low) / (2**bits - 1) or 1.0
            zero = np.rint(-low / scale)
            codes = np.clip(np.rint(v / scale) + zero, 0, 2**bits - 1)
            delta[row, columns] = (codes - zero) * scale / s[columns] - w[row, columns]
    return float(100 * np.linalg.norm(x @ delta.T) / np.linalg.norm(x @ w.T)), s


# %% hadamard
def hadamard(x):
    n = x.shape[-1]
    if n not in [2**k for k in range(20)]:
        raise ValueError("not a power of two")
    return (x.double() @ torch.from_numpy(sylvester(n))).to(x.dtype)


def sylvester(n):
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return h / np.sqrt(n)


def rotate_mlp(gain, w_gate, w_up, w_down, online):
    n, f = w_down.shape
    q, p = torch.from_numpy(sylvester(n)), torch.from_numpy(sylvester(f)) if online else torch.eye(f).double()
    diagonal = torch.diag(gain.double())
    readers = [(part.double() @ diagonal @ q).float() for part in (w_gate, w_up)]
    return torch.ones(n), *readers, (q.T @ w_down.double() @ p).float()


# %% kivi
def kivi_cache(k, v, bits, group, window):
    k, v = k.numpy().copy(), v.numpy().copy()
    tokens, channels = k.shape[-2:]
    flat_k, flat_v = k.reshape(-1, tokens, channels), v.reshape(-1, tokens, channels)
    old = tokens - window
    for keys, values in zip(flat_k, flat_v):
        for start in range(0, old - group + 1, group):
            for channel in range(channels):
                keys[start : start + group, channel] = on_levels(keys[start : start + group, channel], bits)
        for token in range(old):
            for start in range(0, channels, group):
                values[token, start : start + group] = on_levels(values[token, start : start + group], bits)
    return torch.from_numpy(flat_k.reshape(k.shape)), torch.from_numpy(flat_v.reshape(v.shape))


def on_levels(values, bits):
    values = values.astype(np.float64)
    levels = np.linspace(values.min(), values.max(), 2**bits)
    return levels[np.abs(values[:, None] - levels).argmin(axis=1)]


# %% clip
def largest_share(sigmas):
    return 1.0 if sigmas <= 1 else sigmas**-2.0


def clip_errors(x, w, percentile, bits):
    x, w = x.numpy().astype(float), w.numpy().astype(float)
    c = np.percentile(np.abs(x), percentile)
    top = 2 ** (bits - 1) - 1
    x_hat = np.clip(np.rint(x * top / c), -top, top) * c / top
    inside = np.where(np.abs(x) <= c, x_hat - x, 0)
    outside = x_hat - x - inside
    return [float(100 * np.linalg.norm(e @ w.T) / np.linalg.norm(x @ w.T)) for e in (inside, outside, inside + outside)]


def best_percentile(x, w, percentiles, bits):
    totals = np.array([clip_errors(x, w, p, bits)[2] for p in percentiles])
    return percentiles[int(totals.argmin())]
