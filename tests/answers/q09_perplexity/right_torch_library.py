# fails:
"""Right: torch's own losses and reductions, float32 where the contract allows it, tensors of one element for numbers."""

# %% corpus
import math

import torch
import torch.nn.functional as F


def corpus_perplexity(chunks):
    total, count = torch.zeros(()), 0
    for logits, ids in chunks:
        shifted = logits[:, :-1].reshape(-1, logits.shape[-1]).to(torch.float32)
        labels = ids[:, 1:].reshape(-1)
        total = total + F.cross_entropy(shifted, labels, ignore_index=-100, reduction="sum")
        count = count + (labels != -100).sum()
    if count == 0:
        raise ValueError("no labels")
    return torch.exp(total.double() / count), count


# %% windows
def llama_windows(ids, n_ctx, bos=None):
    if not 3 <= n_ctx <= len(ids):
        raise ValueError("windows")
    windows = torch.stack(ids.split(n_ctx)[: len(ids) // n_ctx])
    following = windows.roll(-1, 1)
    place = torch.arange(n_ctx)
    counts = (place >= n_ctx // 2) & (place < n_ctx - 1)
    targets = torch.where(counts, following, -100)
    inputs = windows if bos is None else torch.where(place == 0, bos, windows)
    return inputs, targets


# %% sliding
def sliding_windows(n_tokens, n_ctx, stride):
    if not (n_ctx >= 2 and 0 < stride <= n_ctx):
        raise ValueError("windows")
    if n_tokens < 2:
        return []
    count = 1 + max(0, -(-(n_tokens - n_ctx) // stride))
    windows = []
    for k in range(count):
        start = k * stride
        previous = start - stride + n_ctx if k else 0
        scored, stop = max(previous, start + 1), min(start + n_ctx, n_tokens)
        if stop > scored:
            windows += [[start, scored, stop]]
    return windows


def mean_context(windows):
    parts = [torch.arange(scored - start, stop - start) for start, scored, stop in windows]
    if not sum(map(len, parts)):
        raise ValueError("nothing is scored")
    return torch.cat(parts).double().mean()


# %% units
def text_units(pieces, scored):
    flags = scored.tolist()
    n_bytes = sum(len(piece) for piece, flag in zip(pieces, flags) if flag)
    n_words, before = 0, b" "
    for piece, flag in zip(pieces, flags):
        joined = before + piece
        if flag:
            # words of this piece, less the one that goes on from before
            n_words += len(piece.split()) - bool(piece and not joined[:1].isspace() and not piece[:1].isspace())
        before = joined[-1:]
    return n_bytes, n_words


def per_text(perplexity, n_tokens, n_bytes, n_words):
    if not all(count > 0 for count in (n_tokens, n_bytes, n_words)):
        raise ValueError("counts")
    bits = torch.log2(torch.tensor(perplexity, dtype=torch.float64)) * n_tokens
    return bits / n_bytes, torch.exp2(bits / n_words)


# %% compare
def paired(base, other):
    (vb, c), (_, vo) = torch.cov(torch.stack([base, other]))
    n = base.numel()
    p, q = base.mean().exp(), other.mean().exp()
    log_se = ((vo + vb - 2 * c).clamp(min=0) / n).sqrt()
    return {
        "log ratio": other.mean() - base.mean(),
        "log ratio se": log_se,
        "ratio": q / p,
        "ratio se": q / p * log_se,
        "difference": q - p,
        "difference se": ((q**2 * vo + p**2 * vb - 2 * p * q * c) / n).clamp(min=0).sqrt(),
    }


def divergence(base, other):
    p = base.double().softmax(-1)
    log_q = F.log_softmax(other.double(), dim=-1)
    kl = F.kl_div(log_q, p, reduction="none")  # pointwise p (ln p − ln q), 0 where p is 0 …
    kl = torch.where(p > 0, kl, torch.zeros_like(kl))  # … but NaN where q is 0 too
    return kl.sum(-1), base.max(-1).indices == other.max(-1).indices


# %% conventions
def conventions(losses, n_words):
    n, size = losses.shape
    token = torch.arange(n)

    def mean(length, first):
        keep = (token < n - n % length) & (token % length >= first)
        return math.exp(losses[token[keep], token[keep] % length].mean())

    half = size // 2
    start = ((token // half - 1) * half).clamp(min=0)
    start[:size] = 0
    nats = losses[token, token - start][1:].sum()
    return {
        "per word": math.exp(nats / n_words),
        "second half": mean(size, half + 1),
        "half context": mean(half, 1),
        "disjoint": mean(size, 1),
    }
