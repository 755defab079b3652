# fails:
"""Right: numpy in float64, loops where they are plain."""

# %% corpus
import math

import numpy as np
import torch


def corpus_perplexity(chunks):
    losses = []
    for logits, ids in chunks:
        table, wanted = logits.numpy().astype(np.float64), ids.numpy()
        for row in range(wanted.shape[0]):
            for t in range(1, wanted.shape[1]):
                if wanted[row, t] == -100:
                    continue
                x = table[row, t - 1]
                top = x.max()
                losses.append(top + np.log(np.exp(x - top).sum()) - x[wanted[row, t]])
    if not losses:
        raise ValueError("nothing is scored")
    with np.errstate(over="ignore"):
        return np.exp(np.mean(losses)), len(losses)


# %% windows
def llama_windows(ids, n_ctx, bos=None):
    if n_ctx < 3 or ids.numel() < n_ctx:
        raise ValueError("too few tokens")
    text = ids.numpy()
    rows, goals = [], []
    for w in range(len(text) // n_ctx):
        row = text[w * n_ctx : (w + 1) * n_ctx].copy()
        goals.append([row[t + 1] if n_ctx // 2 <= t < n_ctx - 1 else -100 for t in range(n_ctx)])
        if bos is not None:
            row[0] = bos
        rows.append(row)
    return torch.from_numpy(np.stack(rows)), torch.tensor(np.array(goals))


# %% sliding
def sliding_windows(n_tokens, n_ctx, stride):
    if n_ctx < 2:
        raise ValueError("n_ctx")
    if stride < 1 or stride > n_ctx:
        raise ValueError("stride")
    owner = {}
    for start in range(0, max(n_tokens, 1), stride):
        stop = min(start + n_ctx, n_tokens)
        for token in range(start + 1, stop):
            owner.setdefault(token, (start, stop))
        if stop == n_tokens:
            break
    windows = []
    for token, (start, stop) in sorted(owner.items()):
        if not windows or windows[-1][0] != start:
            windows.append((start, token, stop))
    return windows


def mean_context(windows):
    total = sum((stop - scored) * (scored + stop - 1 - 2 * start) / 2 for start, scored, stop in windows)
    count = sum(stop - scored for _, scored, stop in windows)
    if count == 0:
        raise ValueError("nothing is scored")
    return np.float64(total / count)


# %% units
def text_units(pieces, scored):
    import re

    text = b"".join(pieces)
    owner = np.repeat(scored.numpy(), [len(piece) for piece in pieces]) if pieces else np.zeros(0, bool)
    starts = [match.start() for match in re.finditer(rb"[^ \t\n\v\f\r]+", text)]
    return int(owner.sum()), sum(1 for start in starts if owner[start])


def per_text(perplexity, n_tokens, n_bytes, n_words):
    if n_tokens < 1 or n_bytes < 1 or n_words < 1:
        raise ValueError("counts")
    with np.errstate(over="ignore"):
        word = np.power(np.float64(perplexity), n_tokens / n_words)
    return np.log2(perplexity) * n_tokens / n_bytes, word


# %% compare
def paired(base, other):
    x, y = other.numpy(), base.numpy()
    n = len(x)
    big, small = np.exp(x.mean()), np.exp(y.mean())
    d = x - y
    log_se = d.std(ddof=1) / np.sqrt(n)
    weighted = big * (x - x.mean()) - small * (y - y.mean())
    return {
        "difference se": weighted.std(ddof=1) / np.sqrt(n),
        "difference": big - small,
        "ratio": big / small,
        "ratio se": big / small * log_se,
        "log ratio": d.mean(),
        "log ratio se": log_se,
    }


def divergence(base, other):
    def log_softmax(x):
        x = x.numpy().astype(np.float64)
        x = x - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    lp, lq = log_softmax(base), log_softmax(other)
    kl = np.zeros(len(lp))
    for i in range(len(lp)):
        seen = np.exp(lp[i]) > 0
        kl[i] = np.sum(np.exp(lp[i][seen]) * (lp[i][seen] - lq[i][seen]))
    same = base.numpy().argmax(-1) == other.numpy().argmax(-1)
    return torch.from_numpy(kl), torch.from_numpy(same)


# %% conventions
def conventions(losses, n_words):
    table = losses.numpy()
    n, size = table.shape
    half = size // 2

    def picked(length, first):
        return [table[i, i % length] for i in range(n // length * length) if i % length >= first]

    words = 0.0
    for i in range(1, n):
        start = 0 if i < size else (i // half - 1) * half
        words += table[i, i - start]
    return {
        "disjoint": np.exp(np.mean(picked(size, 1))),
        "half context": np.exp(np.mean(picked(half, 1))),
        "second half": np.exp(np.mean(picked(size, half + 1))),
        "per word": np.exp(words / n_words),
    }
