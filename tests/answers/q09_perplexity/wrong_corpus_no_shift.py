# fails: test-corpus
# says: logits[t] score ids[t], not ids[t + 1]
"""Scores each token with the logits at its own place."""


# %% corpus
def corpus_perplexity(chunks):
    nats, count = 0.0, 0
    for logits, ids in chunks:
        targets = ids[:, 1:]
        scored = targets != -100
        rows = logits[:, 1:][scored].float().log_softmax(-1)
        losses = -rows.gather(1, targets[scored][:, None])
        nats += losses.double().sum().item()
        count += len(losses)
    if count == 0:
        raise ValueError("no token is scored")
    mean = nats / count
    return math.exp(mean) if mean < 709.78 else math.inf, count
