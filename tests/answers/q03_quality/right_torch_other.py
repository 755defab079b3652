# fails:
"""Right: torch with kl_div, quantile, segment sums and 0-dimensional tensors as results."""


# %% perplexity
def corpus_perplexity(documents):
    lengths = torch.tensor([len(document) for document in documents])
    owner = torch.repeat_interleave(torch.arange(len(documents)), lengths)
    losses = torch.cat([document.to(torch.float64) for document in documents])
    mean, n = losses.sum() / lengths.sum(), int(lengths.sum())
    sums = torch.zeros(len(documents), dtype=torch.float64).index_add(0, owner, losses - mean)
    ppl = torch.exp(mean)
    # the residuals of all documents add up to 0, so that their variance needs no mean
    return ppl, ppl * torch.sqrt(losses.var(unbiased=True) / n), ppl * sums.std() * math.sqrt(len(documents)) / n


# %% compare
def compare_logits(base, other, targets):
    log_p = torch.log_softmax(base.to(torch.float64), 1)
    log_q = torch.log_softmax(other.to(torch.float64), 1)
    gap = torch.nan_to_num(log_p, neginf=0.0) - torch.where(log_p.isinf(), 0.0, log_q)
    kl = (log_p.exp() * gap).sum(1)
    rows = torch.arange(len(targets))
    change = torch.softmax(other.double(), 1)[rows, targets] - torch.softmax(base.double(), 1)[rows, targets]
    at = torch.tensor([0.01, 0.05, 0.5, 0.95, 0.99], dtype=torch.float64)
    return {
        "kl_divergence": kl.mean(),
        "kl_99": torch.quantile(kl, 0.99),
        "same_top": (log_p.max(1).indices == log_q.max(1).indices).float().mean().double(),
        "delta_p_rms": change.norm() / math.sqrt(len(change)),
        "delta_p_percentiles": torch.quantile(change, at),
    }


# %% paired
from statistics import NormalDist


def paired_log_ratio(base, other):
    d = other - base  # float32 is good enough for these inputs
    n = d.numel()
    unpaired = (base.double().var() / n + other.double().var() / n) ** 0.5
    return d.double().mean(), d.double().std() / n**0.5, unpaired


def mcnemar(base, other):
    lost = (base.int() - other.int() == 1).sum().item()
    won = (other.int() - base.int() == 1).sum().item()
    n = lost + won
    ways, below = 1, 0  # comb(n, k) by its recurrence
    for k in range(min(lost, won) + 1):
        below += ways
        ways = ways * (n - k) // (k + 1)
    from fractions import Fraction

    return lost, won, float(min(Fraction(1), Fraction(2 * below, 2**n)))


def votes_needed(preference, alpha=0.05, power=0.8):
    if abs(preference - 0.5) < 1e-12:
        raise ValueError("one half")
    z = lambda p: math.sqrt(2) * torch.erfinv(torch.tensor(2 * p - 1, dtype=torch.float64)).item()
    top = z(1 - alpha / 2) * math.sqrt(0.25) + z(power) * math.sqrt(preference * (1 - preference))
    return -int(-(top**2) // (preference - 0.5) ** 2)


# %% gate
def interval(metric, estimate, standard_error, z=1.645):
    half = z * standard_error
    if metric == "perplexity":
        return 100 * math.exp(estimate - half) - 100, 100 * math.exp(estimate + half) - 100
    if metric == "accuracy":
        return -100 * (estimate + half), -100 * (estimate - half)
    return estimate - half, estimate + half


def release_gate(measured, budgets, z=1.645):
    def one(metric, limit):
        if metric not in measured:
            return 1
        low, high = interval(metric, *measured[metric], z=z)
        if not low <= limit:  # NaN too
            return 2
        return int(not high <= limit)

    if not all(budgets.values()):
        raise ValueError("an empty budget")
    words = ("pass", "inconclusive", "fail")
    return {name: words[max(one(*item) for item in budget.items())] for name, budget in budgets.items()}


# %% score
def quality_efficiency(perplexity, tokens_per_second, base_perplexity, base_tokens_per_second):
    return pow(perplexity / base_perplexity, -0.7) * pow(base_tokens_per_second / tokens_per_second, -0.3)


def break_even_speed(perplexity, score, base_perplexity, base_tokens_per_second):
    quality = (base_perplexity / perplexity) ** 0.7
    return (score / quality) ** (10 / 3) * base_tokens_per_second


def fastest_within(candidates, budget, z=1.645):
    ranked = sorted(candidates, key=lambda n: (-candidates[n]["tokens_per_second"], candidates[n]["kl_divergence"][0]))
    for name in ranked:
        build = candidates[name]
        if set(budget) <= set(build) and all(build[m][0] + z * build[m][1] <= budget[m] for m in budget):
            return name
    return None


# %% harness
def request(encode, context, choice, n_ctx):
    bare = context.rstrip()
    whole = encode(f"{context} {choice}")
    n = len(encode(bare))
    # the ids of the context by itself come first, as in the harness, should the border have merged
    return [*encode(bare), *whole[n:]][:-1][-n_ctx:], whole[n:]


def score_continuation(logits, continuation_ids):
    n = len(continuation_ids)
    targets = torch.tensor(continuation_ids)
    loss = torch.nn.functional.cross_entropy(logits[len(logits) - n :], targets, reduction="sum")
    return -loss, torch.equal(logits[len(logits) - n :].argmax(1), targets)


def accuracies(items):
    def winner(values):
        best = 0
        for i, value in enumerate(values):
            if value > values[best]:
                best = i
        return best

    right = [[], [], []]
    for values, choices, answer in items:
        right[0].append(winner(values) == answer)
        right[1].append(winner([v / len(c) for v, c in zip(values, choices)]) == answer)
        right[2].append(winner([v / len(bytes(c, "utf-8")) for v, c in zip(values, choices)]) == answer)
    return dict(zip(("acc", "acc_norm", "acc_bytes"), (sum(r) / len(r) for r in right)))
