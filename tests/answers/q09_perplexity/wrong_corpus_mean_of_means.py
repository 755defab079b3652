# fails: test-corpus
# says: the means of chunks are averaged
"""Averages the mean losses of the chunks, as a loop over batches with `loss.item()` does."""


# %% corpus
def corpus_perplexity(chunks):
    means, count = [], 0
    for logits, ids in chunks:
        targets = ids[:, 1:]
        scored = targets != -100
        if not scored.any():
            continue
        means.append(torch.nn.functional.cross_entropy(logits[:, :-1][scored].float(), targets[scored]).item())
        count += int(scored.sum())
    if not means:
        raise ValueError("no token is scored")
    mean = sum(means) / len(means)
    return (math.exp(mean) if mean < 709 else math.inf), count
