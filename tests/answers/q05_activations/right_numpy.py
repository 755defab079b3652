# fails:
"""In numpy and float64, with tokens as rows of one matrix."""


# %% w8a8
def quantize_rows(x):
    a = x.numpy()
    scale = np.max(np.abs(a), axis=-1, keepdims=True) / np.float32(127)
    scale[scale == 0] = 1
    return torch.from_numpy(np.rint(a / scale).astype(np.int8)), torch.from_numpy(scale)


def w8a8_linear(x, w_codes, w_scale):
    codes, scale = quantize_rows(x)
    sums = np.einsum("...c,mc->...m", codes.numpy().astype(np.int64), w_codes.numpy().astype(np.int64))
    return torch.from_numpy((sums * (scale.numpy() * w_scale.numpy().ravel())).astype(np.float32))


def channel_linear(x_codes, s, weight):
    folded = weight.numpy() * s.numpy()[None, :]
    steps = np.abs(folded).max(axis=1).astype(np.float64) / 127
    codes = np.rint(folded / np.where(steps == 0, 1, steps)[:, None]).astype(np.int32)
    y = np.tensordot(x_codes.numpy().astype(np.int32), codes, axes=(-1, 1)) * np.where(steps == 0, 1, steps)
    return torch.tensor(y, dtype=torch.float32)


# %% q4_0_linear
def q8_0_blocks(x):
    t, n = x.shape
    blocks = x.numpy().astype(np.float64).reshape(t, n // 32, 32)
    d = np.abs(blocks).max(-1) / 127
    codes = np.floor(np.divide(blocks, d[..., None], out=np.zeros_like(blocks), where=d[..., None] > 0) + 0.5)
    return torch.from_numpy(codes.astype(np.int8).reshape(t, n)), torch.from_numpy(
        d.astype(np.float32).astype(np.float16)
    )


def q4_0_linear(x, w_codes, w_d):
    codes, d = q8_0_blocks(x)
    q_x, d_x = codes.numpy().astype(np.int32), d.numpy().astype(np.float32)
    q_w, d_w = w_codes.numpy().astype(np.int32), w_d.numpy().astype(np.float32)
    y = np.zeros((len(q_x), len(q_w)), dtype=np.float32)
    for b in range(d_x.shape[1]):
        part = slice(32 * b, 32 * b + 32)
        dots = q_x[:, part] @ q_w[:, part].T - 8 * q_x[:, part].sum(1, keepdims=True)
        y += np.outer(d_x[:, b], d_w[:, b]) * dots
    return torch.from_numpy(y)


def cost_of_q8_0(x, w_codes, w_d):
    weights = np.repeat(w_d.numpy().astype(np.float64), 32, axis=1) * (w_codes.numpy().astype(np.float64) - 8)
    y_float = x.numpy() @ weights.T
    difference = q4_0_linear(x, w_codes, w_d).numpy() - y_float
    return 100 * np.sqrt((difference**2).sum() / (y_float**2).sum())


# %% observers
def calibrate(batches, rule, rate=0.1, percent=99.9):
    if len(batches) == 0 or rule not in ("min-max", "average", "percentile"):
        raise ValueError("nothing to calibrate with")
    arrays = [batch.numpy().ravel() for batch in batches]
    if rule == "percentile":
        values = np.concatenate(arrays)
        return tuple(np.quantile(values, [(1 - percent / 100) / 2, (1 + percent / 100) / 2]))
    low, high = arrays[0].min(), arrays[0].max()
    for array in arrays[1:]:
        if rule == "min-max":
            low, high = min(low, array.min()), max(high, array.max())
        else:
            low, high = (1 - rate) * low + rate * array.min(), (1 - rate) * high + rate * array.max()
    return low, high


def fake_quantize(x, low, high):
    a = x.numpy().astype(np.float64)
    low, high = np.minimum(np.asarray(low, dtype=np.float64), 0), np.maximum(np.asarray(high, dtype=np.float64), 0)
    step = (high - low) / 255
    step = np.where(step == 0, 1, step)
    zero = np.rint(-low / step)
    q = np.clip(np.rint(a / step) + zero, 0, 255)
    return torch.from_numpy(((q - zero) * step).astype(np.float32))


def stream_errors(stream, limits=None):
    def error(x):
        ends = (x.min(1, keepdim=True).values, x.max(1, keepdim=True).values) if limits is None else limits
        return 100 * np.linalg.norm(fake_quantize(x, *ends).numpy() - x.numpy()) / np.linalg.norm(x.numpy())

    return [error(x) for x in stream]


# %% crossover
def step_seconds(params, batch, bits, peak, bandwidth, kv=0.0, tokens=1):
    bytes_moved = params * (bits / 8) + kv * batch
    operations = params * 2.0 * (batch * tokens)
    return np.maximum(bytes_moved / bandwidth, operations / peak)


def activation_gain(params, batch, bits, peaks, bandwidth, kv=0.0, tokens=1):
    times = [step_seconds(params, batch, bits, peak, bandwidth, kv=kv, tokens=tokens) for peak in peaks]
    return times[0] / times[1]


def crossover_batch(params, w4a16, w8a8, bandwidth, kv=0.0, tokens=1):
    batches = np.arange(1, 4097)
    four = step_seconds(params, batches, *w4a16, bandwidth, kv, tokens)
    eight = step_seconds(params, batches, *w8a8, bandwidth, kv, tokens)
    wins = np.flatnonzero(eight < four)
    return int(batches[wins[0]]) if len(wins) else None


# %% hybrid
def outlier_columns(batches, threshold):
    peaks = np.max([np.abs(batch.numpy()).reshape(-1, batch.shape[-1]).max(axis=0) for batch in batches], axis=0)
    return torch.from_numpy(peaks >= threshold)


def split_weight(weight, columns):
    w, out = weight.numpy(), columns.numpy()
    rest = w[:, ~out]
    scale = np.abs(rest).max(1, keepdims=True) / np.float32(127)
    scale = np.where(scale == 0, np.float32(1), scale)
    return torch.from_numpy(np.rint(rest / scale).astype(np.int8)), torch.from_numpy(scale), torch.from_numpy(w[:, out])


def hybrid_linear(x, columns, codes, scale, kept):
    tokens, out = x.numpy().reshape(-1, x.shape[-1]), columns.numpy()
    y = np.empty((len(tokens), len(codes)), dtype=np.float32)
    for t, token in enumerate(tokens):
        rest = token[~out]
        step = np.abs(rest).max() / 127 or 1.0
        sums = codes.numpy().astype(np.int64) @ np.rint(rest / step).astype(np.int64)
        y[t] = sums * step * scale.numpy()[:, 0] + kept.numpy() @ token[out]
    return torch.from_numpy(y.reshape(*x.shape[:-1], len(codes)))


# %% audit
def possible(groups):
    if not groups:
        return True
    share, k = np.array(groups, dtype=float).T
    return share.sum() <= 1 and (share * k * k).sum() <= 1


def error_split(x, weight, weight_bits, activation_bits):
    def there_and_back(a, bits):
        steps = np.abs(a).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
        return np.rint(np.divide(a, steps, out=np.zeros_like(a), where=steps > 0)) * steps

    a, w = x.numpy().astype(np.float64), weight.numpy().astype(np.float64)
    a_hat, w_hat = there_and_back(a, activation_bits), there_and_back(w, weight_bits)
    errors = [np.linalg.norm(p @ q.T - a @ w.T) for p, q in ((a, w_hat), (a_hat, w), (a_hat, w_hat))]
    return [100 * error / np.linalg.norm(a @ w.T) for error in errors]
