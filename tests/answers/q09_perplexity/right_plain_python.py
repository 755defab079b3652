# fails:
"""Right: no array code at all beyond reading the values: lists, the statistics module, Welford-like sums."""

# %% corpus
import math
import statistics

import torch


def corpus_perplexity(chunks):
    losses = []
    for logits, ids in chunks:
        for row, labels in zip(logits.tolist(), ids.tolist()):
            for scores, label in zip(row, labels[1:]):
                if label != -100:
                    top = max(scores)
                    losses.append(math.log(math.fsum(math.exp(s - top) for s in scores)) + top - scores[label])
    if len(losses) == 0:
        raise ValueError("no token")
    try:
        return math.exp(math.fsum(losses) / len(losses)), len(losses)
    except OverflowError:
        return math.inf, len(losses)


# %% windows
def llama_windows(ids, n_ctx, bos=None):
    text = ids.tolist()
    if len(text) < n_ctx or n_ctx <= 2:
        raise ValueError("no window")
    inputs, targets = [], []
    for start in range(0, len(text) - n_ctx + 1, n_ctx):
        window = text[start : start + n_ctx]
        skipped = n_ctx // 2
        targets.append([-100] * skipped + window[skipped + 1 :] + [-100])
        inputs.append(window if bos is None else [bos, *window[1:]])
    return torch.tensor(inputs), torch.tensor(targets)


# %% sliding
def sliding_windows(n_tokens, n_ctx, stride):
    if n_ctx < 2 or stride not in range(1, n_ctx + 1):
        raise ValueError("stride")
    seen, windows, start = {0}, [], 0
    while n_tokens:
        stop = min(start + n_ctx, n_tokens)
        fresh = [token for token in range(start + 1, stop) if token not in seen]
        if fresh:
            windows.append((start, fresh[0], stop))
        seen.update(fresh)
        if stop == n_tokens:
            break
        start += stride
    return windows


def mean_context(windows):
    return statistics.fmean(i - a for a, b, c in windows for i in range(b, c))  # StatisticsError is a ValueError


# %% units
def text_units(pieces, scored):
    owners = [flag for piece, flag in zip(pieces, scored.tolist()) for _ in range(len(piece))]
    text = b"".join(pieces)
    words = place = 0
    for word in text.split():
        place = text.index(word, place)
        words += owners[place]
        place += len(word)
    return sum(owners), words


def per_text(perplexity, n_tokens, n_bytes, n_words):
    for count in (n_tokens, n_bytes, n_words):
        if count <= 0:
            raise ValueError("count")
    try:
        word = perplexity ** (n_tokens / n_words)
    except OverflowError:
        word = math.inf
    return n_tokens * math.log2(perplexity) / n_bytes, word


# %% compare
def paired(base, other):
    x, y = base.tolist(), other.tolist()
    n = len(x)
    p, q = math.exp(statistics.fmean(x)), math.exp(statistics.fmean(y))
    log_ratio = statistics.fmean(b - a for a, b in zip(x, y))
    log_se = math.sqrt(statistics.variance([b - a for a, b in zip(x, y)]) / n)
    var_x, var_y, cov = statistics.variance(x), statistics.variance(y), statistics.covariance(x, y)
    square = (q * q * var_y + p * p * var_x - 2 * p * q * cov) / n
    return {
        "log ratio": log_ratio,
        "log ratio se": log_se,
        "ratio": math.exp(log_ratio),
        "ratio se": math.exp(log_ratio) * log_se,
        "difference": q - p,
        "difference se": math.sqrt(square) if square > 0 else 0.0,
    }


def divergence(base, other):
    kl = []
    for row_p, row_q in zip(base.double().tolist(), other.double().tolist()):
        shift_p, shift_q = max(row_p), max(row_q)
        lse_p = shift_p + math.log(math.fsum(math.exp(x - shift_p) for x in row_p))
        lse_q = shift_q + math.log(math.fsum(math.exp(x - shift_q) for x in row_q))
        total = 0.0
        for a, b in zip(row_p, row_q):
            p = math.exp(a - lse_p)
            if p > 0:
                total += p * ((a - lse_p) - (b - lse_q))
        kl.append(total)
    same = [p.index(max(p)) == q.index(max(q)) for p, q in zip(base.tolist(), other.tolist())]
    return torch.tensor(kl, dtype=torch.float64), torch.tensor(same)


# %% conventions
def conventions(losses, n_words):
    table = losses.tolist()
    n, size = len(table), len(table[0])

    def windows(length, step):
        start = 0
        while start + length <= n:
            yield start, start + length
            start += step

    def exp_mean(values):
        return math.exp(statistics.fmean(values))

    half = size // 2
    nats, reached = 0.0, 1
    start = 0
    while reached < n:
        stop = min(start + size, n)
        nats += sum(table[i][i - start] for i in range(reached, stop))
        start, reached = start + half, stop
    return {
        "disjoint": exp_mean(table[i][i - a] for a, b in windows(size, size) for i in range(a + 1, b)),
        "half context": exp_mean(table[i][i - a] for a, b in windows(half, half) for i in range(a + 1, b)),
        "second half": exp_mean(table[i][i - a] for a, b in windows(size, size) for i in range(a + half + 1, b)),
        "per word": math.exp(nats / n_words),
    }
