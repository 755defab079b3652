# fails: test-corpus
# says: perplexities of chunks are averaged
"""Averages the perplexities of the chunks."""


# %% corpus
def corpus_perplexity(chunks):
    values, count = [], 0
    for logits, ids in chunks:
        targets = ids[:, 1:]
        scored = targets != -100
        if not scored.any():
            continue
        loss = torch.nn.functional.cross_entropy(logits[:, :-1][scored].float(), targets[scored]).item()
        values.append(math.exp(loss) if loss < 709 else math.inf)
        count += int(scored.sum())
    if not values:
        raise ValueError("no token is scored")
    return sum(values) / len(values), count
