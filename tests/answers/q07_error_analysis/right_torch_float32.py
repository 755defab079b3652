# fails:
"""Right: torch in float32 wherever the contract's tolerances allow it, and other algebra."""


# %% noise
def noise_budget(w, bits, group, clip=1.0):
    if w.size(-1) % group:
        raise ValueError("not a whole number of groups")
    blocks = w.contiguous().view(w.size(0), -1, group)
    a = blocks.abs().max(dim=-1).values[..., None] * clip
    d = a.div(2 ** (bits - 1) - 1)
    tiny = torch.finfo(torch.float32).tiny
    decoded = torch.clamp(blocks, -a, a).div(d.clamp(min=tiny)).round().mul(d)
    squares = (decoded - blocks) ** 2
    overload = torch.where(blocks.abs() > a, squares, torch.zeros_like(squares)).mean()
    mse = squares.mean()
    predicted = (blocks.abs().le(a).float().mean(-1, keepdim=True) * d**2 / 12).mean()
    sqnr = math.inf if mse == 0 else (10 * torch.log10(blocks.square().mean() / mse)).item()
    return {
        "granular": (mse - overload).item(),
        "overload": overload.item(),
        "predicted": predicted.item(),
        "sqnr": sqnr,
    }


def pooled_sqnr(energies, sqnrs):
    if not len(energies):
        raise ValueError
    energy = torch.tensor(energies, dtype=torch.float64)
    noise = energy * torch.exp(-torch.tensor(sqnrs, dtype=torch.float64) * math.log(10) / 10)
    ratio = energy.sum() / noise.sum()
    return 10 * ratio.log10().item()


# %% clip
def best_clip(w, bits, group):
    top = 2 ** (bits - 1) - 1
    blocks = w.reshape(w.shape[0], -1, 1, group)
    clips = torch.linspace(1.0, 0.2, 81)
    step = blocks.abs().amax(-1, keepdim=True) * clips[:, None] / top
    step = torch.where(step == 0, torch.ones_like(step), step)
    codes = torch.clamp(torch.round(blocks / step), -top, top)
    errors = torch.linalg.vector_norm(codes * step - blocks, dim=-1)  # (rows, n_groups, 81)
    return clips[errors.argmin(-1)]


# %% output
def second_moment(batches):
    if not batches:
        raise ValueError("empty")
    n = batches[0].shape[-1]
    flat = [batch.reshape(-1, n) for batch in batches]
    count = sum(part.shape[0] for part in flat)
    if count == 0:
        raise ValueError("empty")
    h = torch.zeros(n, n)
    for part in flat:
        h += part.t() @ part
    return (h / count).double()


def output_error(dw, h):
    return float(torch.trace(dw @ h.float() @ dw.T))


def pick(w, candidates, h):
    stack = torch.stack(list(candidates)).double() - w.double()
    weight = stack.pow(2).sum((1, 2))
    output = torch.einsum("cri,ij,crj->c", stack, h.double(), stack)
    return weight.argmin().item(), output.argmin().item()


# %% swap
def swap_one(run, weights, replacements, x):
    for name in replacements:
        if name not in weights:
            raise ValueError(name)
        if replacements[name].size() != weights[name].size():
            raise ValueError(f"{name}: {tuple(replacements[name].size())}")
    model = dict(weights)
    target = torch.nn.functional.log_softmax(run(model, x), -1)
    damage = {}
    for name, matrix in replacements.items():
        try:
            model[name] = matrix
            guess = torch.nn.functional.log_softmax(run(model, x), -1)
        finally:
            model[name] = weights[name]
        damage[name] = float(torch.nn.functional.kl_div(guess, target, reduction="batchmean", log_target=True))
    return damage


# %% joint
def damage_of(base, other):
    p, q = (torch.distributions.Categorical(logits=z.double()) for z in (base, other))
    return torch.distributions.kl_divergence(p, q).mean().item()


def forecast(base, singles):
    names = list(singles)
    alone = [damage_of(base, singles[name]) for name in names]
    table = torch.zeros(len(names), len(names), dtype=torch.float64)
    for i, one in enumerate(names):
        for j, other in enumerate(names):
            if i < j:
                table[i, j] = abs(damage_of(base, singles[one] - base + singles[other]) - alone[i] - alone[j])
    i, j = divmod(int(table.argmax()), len(names))
    every = base.double() + torch.stack([singles[name].double() - base.double() for name in names]).sum(0)
    return {"additive": math.fsum(alone), "superposed": damage_of(base, every), "pair": [names[i], names[j]]}


def verdict(base, singles, joint, tolerance):
    guess, measured = forecast(base, singles), damage_of(base, joint)
    fits = {key: abs(guess[key] - measured) <= tolerance * measured for key in ("additive", "superposed")}
    if fits["additive"]:
        return "additive"
    return "superposed" if fits["superposed"] else "interacting"


# %% rounding
def rounding_report(x, q, d):
    e = q - x / d
    up, down = e[x > 0], e[x < 0]
    positive = up.mean().item() if len(up) else 0.0
    negative = down.mean().item() if len(down) else 0.0
    rms = (e.norm() / len(e) ** 0.5).item()
    table = [
        ("nearest", 0, 0, 0.288675),
        ("stochastic", 0, 0, 0.408248),
        ("toward zero", -0.5, 0.5, 0.577350),
        ("away from zero", 0.5, -0.5, 0.577350),
        ("down", -0.5, -0.5, 0.577350),
        ("up", 0.5, 0.5, 0.577350),
    ]
    table.sort(key=lambda line: math.dist(line[1:], (positive, negative, rms)))
    return {"mode": table[0][0], "rms": rms, "negative": negative, "positive": positive}


def dot_drift(a, x, d, mode):
    s = x.sign()
    mean = {
        "nearest": 0 * s,
        "stochastic": 0 * s,
        "toward zero": -s / 2,
        "away from zero": s / 2,
        "down": -s.abs() / 2,
        "up": s.abs() / 2,
    }[mode]
    spread = d * (a * s).norm() * math.sqrt((2 if mode == "stochastic" else 1) / 12)
    return (d * torch.dot(a, mean)).item(), spread.item()
