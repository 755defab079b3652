# fails:
"""Right: numpy throughout, loops where a loop reads well."""

# %% perplexity
import numpy as np


def corpus_perplexity(documents):
    arrays = [document.numpy().astype(np.float64) for document in documents]
    total = sum(len(array) for array in arrays)
    mean = sum(array.sum() for array in arrays) / total
    squares = sum(((array - mean) ** 2).sum() for array in arrays)
    clusters = sum((array - mean).sum() ** 2 for array in arrays)
    ppl = np.exp(mean)
    count = len(arrays)
    return ppl, ppl * np.sqrt(squares / (total - 1) / total), ppl * np.sqrt(clusters * count / (count - 1)) / total


# %% compare
def compare_logits(base, other, targets):
    def logs(x):
        x = x.numpy().astype(np.float64)
        x = x - x.max(axis=1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    lp, lq = logs(base), logs(other)
    kls, agree, deltas = [], 0, []
    for row_p, row_q, target in zip(lp, lq, targets.tolist()):
        kept = np.isfinite(row_p)
        kls.append(float((np.exp(row_p[kept]) * (row_p[kept] - row_q[kept])).sum()))
        agree += int(row_p.argmax() == row_q.argmax())
        deltas.append(np.exp(row_q[target]) - np.exp(row_p[target]))
    deltas = np.array(deltas)
    return {
        "kl_divergence": np.mean(kls),
        "kl_99": np.quantile(kls, 0.99) if np.isfinite(kls).all() else np.inf,
        "same_top": agree / len(kls),
        "delta_p_rms": np.sqrt(np.mean(deltas**2)),
        "delta_p_percentiles": np.quantile(deltas, [0.01, 0.05, 0.5, 0.95, 0.99]),
    }


# %% paired
from statistics import NormalDist


def paired_log_ratio(base, other):
    a, b = base.numpy().astype(np.float64), other.numpy().astype(np.float64)
    n = a.size
    both = np.cov(a, b)
    paired = both[0, 0] + both[1, 1] - 2 * both[0, 1]
    return b.mean() - a.mean(), np.sqrt(np.var(b - a, ddof=1) / n), np.sqrt((both[0, 0] + both[1, 1]) / n)


def mcnemar(base, other):
    a, b = base.numpy(), other.numpy()
    lost, won = np.count_nonzero(a & ~b), np.count_nonzero(b & ~a)
    n, k = lost + won, min(lost, won)
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(k + 1)]
    return lost, won, min(1.0, 2 * sum(math.exp(term) for term in logs))


def votes_needed(preference, alpha=0.05, power=0.8):
    effect = abs(preference - 0.5)
    if not effect:
        raise ValueError("preference is 0.5")
    null = -NormalDist().inv_cdf(alpha / 2) * math.sqrt(0.25)
    alternative = -NormalDist().inv_cdf(1 - power) * math.sqrt(preference - preference**2)
    return int(np.ceil(((null + alternative) / effect) ** 2))


# %% gate
def interval(metric, estimate, standard_error, z=1.645):
    ends = np.array([estimate - z * standard_error, estimate + z * standard_error])
    if metric == "perplexity":
        ends = (np.exp(ends) - 1) * 100
    elif metric == "accuracy":
        ends = -100 * ends[::-1]
    return tuple(ends)


def release_gate(measured, budgets, z=1.645):
    rank = {"pass": 0, "inconclusive": 1, "fail": 2}
    result = {}
    for application in budgets:
        limits = budgets[application]
        if len(limits) == 0:
            raise ValueError(application)
        worst = "pass"
        for metric, limit in limits.items():
            if metric in measured:
                low, high = interval(metric, measured[metric][0], measured[metric][1], z)
                if np.isnan([low, high]).any():
                    now = "fail"
                elif high <= limit:
                    now = "pass"
                elif low > limit:
                    now = "fail"
                else:
                    now = "inconclusive"
            else:
                now = "inconclusive"
            if rank[now] > rank[worst]:
                worst = now
        result[application] = worst
    return result


# %% score
def quality_efficiency(perplexity, tokens_per_second, base_perplexity, base_tokens_per_second):
    return math.exp(
        0.7 * math.log(base_perplexity / perplexity) + 0.3 * math.log(tokens_per_second / base_tokens_per_second)
    )


def break_even_speed(perplexity, score, base_perplexity, base_tokens_per_second):
    logarithm = (math.log(score) - 0.7 * math.log(base_perplexity / perplexity)) / 0.3
    return base_tokens_per_second * math.exp(logarithm)


def fastest_within(candidates, budget, z=1.645):
    best = None
    for name, build in candidates.items():
        good = True
        for metric in budget:
            if metric not in build:
                good = False
                break
            value, error = build[metric]
            if value + z * error > budget[metric]:
                good = False
        if not good:
            continue
        if best is None:
            best = name
            continue
        now, before = build["tokens_per_second"], candidates[best]["tokens_per_second"]
        if now > before or (now == before and build["kl_divergence"][0] < candidates[best]["kl_divergence"][0]):
            best = name
    return best


# %% harness
def request(encode, context, choice, n_ctx):
    spaces = len(context) - len(context.rstrip())
    tail = (context[-spaces:] if spaces else "") + " " + choice
    head = context[: len(context) - spaces]
    whole, front = encode(head + tail), encode(head)
    continuation = whole[len(front) :]
    fed = (front + continuation)[:-1]
    return fed[max(0, len(fed) - n_ctx) :], continuation


def score_continuation(logits, continuation_ids):
    rows = logits.numpy().astype(np.float64)[len(logits) - len(continuation_ids) :]
    total, greedy = 0.0, True
    for row, token in zip(rows, continuation_ids):
        total += row[token] - (row.max() + np.log(np.exp(row - row.max()).sum()))
        greedy = greedy and int(np.argmax(row)) == token
    return total, greedy


def accuracies(items):
    names = ("acc", "acc_norm", "acc_bytes")
    hits = dict.fromkeys(names, 0)
    for values, choices, answer in items:
        values = np.array(values)
        characters = np.array([float(len(choice)) for choice in choices])
        size = np.array([float(len(choice.encode("utf-8"))) for choice in choices])
        for name, scaled in zip(names, (values, values / characters, values / size)):
            hits[name] += int(np.argmax(scaled)) == answer
    return {name: hits[name] / len(items) for name in names}
