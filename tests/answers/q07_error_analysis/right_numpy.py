# fails:
"""Right: numpy in float64, loops over groups, rows and tokens."""


# %% noise
def noise_budget(w, bits, group, clip=1.0):
    rows, n = w.shape
    if n % group != 0:
        raise ValueError("groups must fill the rows")
    top = 2 ** (bits - 1) - 1
    granular = overload = predicted = energy = 0.0
    for row in w.numpy().astype(np.float64):
        for block in np.split(row, n // group):
            limit = clip * np.max(np.abs(block))
            energy += float(block @ block)
            if limit == 0:
                continue
            step = limit / top
            codes = np.clip(np.floor(block / step + 0.5), -top, top)
            squares = (codes * step - block) ** 2
            inside = np.abs(block) <= limit
            granular += squares[inside].sum()
            overload += squares[~inside].sum()
            predicted += inside.sum() * step**2 / 12
    noise = granular + overload
    sqnr = np.inf if noise == 0 else 10 * np.log10(energy / noise)
    count = rows * n
    return dict(granular=granular / count, overload=overload / count, predicted=predicted / count, sqnr=sqnr)


def pooled_sqnr(energies, sqnrs):
    if len(energies) == 0:
        raise ValueError("empty report")
    energies, sqnrs = np.array(energies), np.array(sqnrs)
    relative = np.sum(energies / np.sum(energies) * np.power(10.0, -sqnrs / 10))
    return float("inf") if relative == 0 else -10 * np.log10(relative)


# %% clip
def best_clip(w, bits, group):
    top = 2 ** (bits - 1) - 1
    clips = np.arange(20, 101) / 100
    blocks = w.numpy().astype(np.float64).reshape(-1, group)
    result = []
    for block in blocks:
        peak = np.abs(block).max()
        if peak == 0:
            result.append(1.0)
            continue
        steps = clips[:, None] * peak / top
        errors = ((np.clip(np.rint(block / steps), -top, top) * steps - block) ** 2).sum(1)
        result.append(clips[len(clips) - 1 - np.argmin(errors[::-1])])
    return torch.tensor(result, dtype=torch.float32).reshape(w.shape[0], -1)


# %% output
def second_moment(batches):
    if not batches:
        raise ValueError("no batches")
    tokens = np.concatenate([batch.numpy().reshape(-1, batch.shape[-1]) for batch in batches]).astype(np.float64)
    if len(tokens) == 0:
        raise ValueError("no tokens")
    return torch.from_numpy(np.einsum("ti,tj->ij", tokens, tokens) / len(tokens))


def output_error(dw, h):
    total = 0.0
    for row in dw.numpy().astype(np.float64):
        total += row @ h.numpy() @ row
    return total


def pick(w, candidates, h):
    weight = [((candidate - w).numpy().astype(np.float64) ** 2).sum() for candidate in candidates]
    output = [output_error(candidate - w, h) for candidate in candidates]
    return int(np.argmin(weight)), int(np.argmin(output))


# %% swap
def softmax64(logits):
    z = logits.numpy().astype(np.float64)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def swap_one(run, weights, replacements, x):
    unknown = set(replacements) - set(weights)
    if unknown:
        raise ValueError(f"unknown: {unknown}")
    if any(tuple(matrix.shape) != tuple(weights[name].shape) for name, matrix in replacements.items()):
        raise ValueError("a matrix of another shape")
    p = softmax64(run(weights, x))
    result = {}
    for name in replacements:
        model = weights.copy()
        model[name] = replacements[name]
        q = softmax64(run(model, x))
        result[name] = float(np.mean([np.sum(a * np.log(a / b)) for a, b in zip(p, q)]))
    return result


# %% joint
def log_softmax64(z):
    shifted = z - z.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def divergence_between(z, other):
    a, b = log_softmax64(z), log_softmax64(other)
    return float((np.exp(a) * (a - b)).sum() / len(z))


def forecast(base, singles):
    z = base.numpy().astype(np.float64)
    logits = {name: value.numpy().astype(np.float64) for name, value in singles.items()}
    alone = {name: divergence_between(z, value) for name, value in logits.items()}
    names, best, pair = list(logits), -1.0, None
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            a, b = names[i], names[j]
            gap = abs(divergence_between(z, logits[a] + logits[b] - z) - alone[a] - alone[b])
            if gap > best:
                best, pair = gap, (a, b)
    together = sum(logits.values()) - (len(logits) - 1) * z
    return {"additive": sum(alone.values()), "superposed": divergence_between(z, together), "pair": pair}


def verdict(base, singles, joint, tolerance):
    z = base.numpy().astype(np.float64)
    j = divergence_between(z, joint.numpy().astype(np.float64))
    guess = forecast(base, singles)
    for key, word in (("additive", "additive"), ("superposed", "superposed")):
        if j - tolerance * j <= guess[key] <= j + tolerance * j:
            return word
    return "interacting"


# %% rounding
NAMES = ["nearest", "stochastic", "toward zero", "away from zero", "down", "up"]
POINTS = np.array(
    [
        [0, 0, np.sqrt(1 / 12)],
        [0, 0, np.sqrt(1 / 6)],
        [-0.5, 0.5, np.sqrt(1 / 3)],
        [0.5, -0.5, np.sqrt(1 / 3)],
        [-0.5, -0.5, np.sqrt(1 / 3)],
        [0.5, 0.5, np.sqrt(1 / 3)],
    ]
)


def rounding_report(x, q, d):
    x, q = x.numpy().astype(np.float64), q.numpy().astype(np.float64)
    e = q - x / d
    above = e[x > 0].sum() / max(1, (x > 0).sum())
    below = e[x < 0].sum() / max(1, (x < 0).sum())
    rms = np.sqrt(np.mean(e * e))
    distance = np.linalg.norm(POINTS - [above, below, rms], axis=1)
    return {"positive": above, "negative": below, "rms": rms, "mode": np.array(NAMES)[distance.argmin()]}


def dot_drift(a, x, d, mode):
    line = POINTS[NAMES.index(mode)]
    mean = np.where(x.numpy() > 0, line[0], np.where(x.numpy() < 0, line[1], 0.0))
    variance = (line[2] ** 2 - line[0] ** 2) * (x.numpy() != 0)
    a = a.numpy().astype(np.float64)
    return d * float(a @ mean), d * float(np.sqrt((a * a) @ variance))
