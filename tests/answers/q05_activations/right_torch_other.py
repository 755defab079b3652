# fails:
"""In torch with int32 products, closed forms, and halves away from zero."""


# %% w8a8
def quantize_rows(x):
    scale = x.norm(p=float("inf"), dim=-1, keepdim=True).div(127)
    scale = scale.masked_fill(scale == 0, 1.0)
    v = x * (1 / scale)
    return (v.sign() * (v.abs() + 0.5).floor()).char(), scale


def w8a8_linear(x, w_codes, w_scale):
    codes, scale = quantize_rows(x)
    sums = torch.matmul(codes.int(), w_codes.int().t())
    return sums.float() * (scale * w_scale.flatten())


def channel_linear(x_codes, s, weight):
    codes, scale = quantize_rows(torch.einsum("mc,c->mc", weight, s))
    return torch.matmul(x_codes.long(), codes.long().t()).float() * scale.flatten()


# %% q4_0_linear
def q8_0_blocks(x):
    t, n = x.shape
    blocks = x.reshape(t * n // 32, 32)
    d = blocks.abs().max(1).values / 127
    inverse = torch.zeros_like(d)
    inverse[d > 0] = 1 / d[d > 0]
    v = blocks * inverse[:, None]
    codes = (v.abs() + 0.5).floor().copysign(v).to(torch.int8)
    return codes.view(t, n), d.half().view(t, n // 32)


def q4_0_linear(x, w_codes, w_d):
    codes, d = q8_0_blocks(x)
    t, m, n_blocks = len(codes), len(w_codes), d.shape[1]
    a = codes.view(t, n_blocks, 32).transpose(0, 1).int()
    b = (w_codes.reshape(m, n_blocks, 32).int() - 8).permute(1, 2, 0)
    dots = torch.bmm(a, b).double()
    y = dots * d.T.double()[:, :, None] * w_d.T.double()[:, None, :]
    return y.sum(0).float()


def cost_of_q8_0(x, w_codes, w_d):
    m = len(w_codes)
    decoded = ((w_codes.float() - 8).view(m, -1, 32) * w_d.float()[..., None]).view(m, -1)
    y_float = torch.nn.functional.linear(x, decoded)
    return 100 * torch.linalg.matrix_norm(q4_0_linear(x, w_codes, w_d) - y_float) / torch.linalg.matrix_norm(y_float)


# %% observers
def calibrate(batches, rule, rate=0.1, percent=99.9):
    if not batches:
        raise ValueError("no data")
    match rule:
        case "min-max":
            everything = torch.cat([batch.reshape(-1) for batch in batches])
            return everything.aminmax()
        case "average":
            ends = torch.stack([torch.stack(batch.aminmax()) for batch in batches]).double()
            weights = rate * (1 - rate) ** torch.arange(len(batches) - 1, -1, -1).double()
            weights[0] /= rate
            return tuple((weights[:, None] * ends).sum(0).tolist())
        case "percentile":
            everything = torch.cat([batch.reshape(-1) for batch in batches])
            tail = (1 - percent / 100) / 2
            return torch.quantile(everything, torch.tensor([tail, 1 - tail]))
    raise ValueError(f"unknown rule {rule}")


def fake_quantize(x, low, high):
    low, high = (end if torch.is_tensor(end) else torch.full((1,), float(end)) for end in (low, high))
    low, high = low.clamp_max(0), high.clamp_min(0)
    span = high - low
    inverse = torch.where(span > 0, 255 / span, 1.0)
    zero = torch.floor(0.5 - low * inverse)
    q = (torch.floor(x * inverse + 0.5) + zero).clamp(0, 255).to(torch.uint8)
    return (q.float() - zero) / inverse


def stream_errors(stream, limits=None):
    results = []
    for x in stream:
        if limits is None:
            decoded = torch.stack([fake_quantize(token, token.min(), token.max()) for token in x])
        else:
            decoded = fake_quantize(x, limits[0], limits[1])
        results.append(100 * torch.sqrt((decoded - x).pow(2).sum() / x.pow(2).sum()))
    return results


# %% crossover
def step_seconds(params, batch, bits, peak, bandwidth, kv=0.0, tokens=1):
    read = (params * bits + 8 * kv * batch) / (8 * bandwidth)
    computed = batch * tokens * params / (peak / 2)
    return read if read > computed else computed


def activation_gain(params, batch, bits, peaks, bandwidth, kv=0.0, tokens=1):
    sixteen, eight = peaks
    read = (params * bits / 8 + kv * batch) / bandwidth
    operations = 2 * batch * tokens * params
    return max(read, operations / sixteen) / max(read, operations / eight)


def crossover_batch(params, w4a16, w8a8, bandwidth, kv=0.0, tokens=1):
    # the curves cross at most once: bisect for the first batch where W8A8 wins
    def wins(batch):
        return step_seconds(params, batch, *w8a8, bandwidth, kv, tokens) < step_seconds(
            params, batch, *w4a16, bandwidth, kv, tokens
        )

    if not wins(4096):
        return None
    low, high = 0, 4096
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wins(middle) else (middle, high)
    return high


# %% hybrid
def outlier_columns(batches, threshold):
    found = torch.zeros(batches[0].shape[-1], dtype=torch.bool)
    for batch in batches:
        for token in batch.flatten(0, -2):
            found |= (token >= threshold) | (token <= -threshold)
    return found


def split_weight(weight, columns):
    inner = weight.T[columns.logical_not()].T
    scale = inner.abs().max(dim=1).values / 127
    scale[scale == 0] = 1
    return torch.round(inner / scale[:, None]).to(torch.int8), scale[:, None], weight.T[columns].T.contiguous()


def hybrid_linear(x, columns, codes, scale, kept):
    places = columns.nonzero().flatten()
    inner = x[..., (~columns).nonzero().flatten()]
    steps = inner.abs().max(-1, keepdim=True).values.clamp_min(1e-30) / 127
    q = torch.round(inner / steps).to(torch.int32)
    y = torch.matmul(q, codes.int().T).float() * (steps * scale.view(-1))
    return y + torch.nn.functional.linear(x.index_select(-1, places), kept)


# %% audit
def possible(groups):
    room, left = 1.0, 1.0
    for share, k in groups:
        room -= share * k * k
        left -= share
    return room >= 0 and left >= 0


def error_split(x, weight, weight_bits, activation_bits):
    def error_of(values, bits):
        top = 2 ** (bits - 1) - 1
        peak = values.abs().max(dim=1, keepdim=True).values
        codes = torch.nan_to_num(values * top / peak).round().clamp(-top, top)
        return codes * peak / top - values

    dx, dw = error_of(x.double(), activation_bits), error_of(weight.double(), weight_bits)
    x, weight = x.double(), weight.double()
    size = (x @ weight.T).norm() / 100
    by_weights, by_x = x @ dw.T, dx @ weight.T
    return tuple(float(part.norm() / size) for part in (by_weights, by_x, by_weights + by_x + dx @ dw.T))
