# fails: test-corpus
# says: a small number is added to p
"""Guards the logarithm with 1e-10."""


# %% corpus
def corpus_perplexity(chunks):
    nats, count = 0.0, 0
    for logits, ids in chunks:
        targets = ids[:, 1:]
        scored = targets != -100
        rows = logits[:, :-1][scored].double().softmax(-1).add(1e-10).log()
        losses = -rows.gather(1, targets[scored][:, None])
        nats += losses.double().sum().item()
        count += len(losses)
    if count == 0:
        raise ValueError("no token is scored")
    mean = nats / count
    return math.exp(mean) if mean < 709.78 else math.inf, count
