# fails: test-corpus
# says: log-softmax is computed in float16
"""Takes log-softmax in the dtype of the logits."""


# %% corpus
def corpus_perplexity(chunks):
    nats, count = 0.0, 0
    for logits, ids in chunks:
        targets = ids[:, 1:]
        scored = targets != -100
        rows = logits[:, :-1][scored].log_softmax(-1)
        losses = -rows.gather(1, targets[scored][:, None])
        nats += losses.double().sum().item()
        count += len(losses)
    if count == 0:
        raise ValueError("no token is scored")
    mean = nats / count
    return math.exp(mean) if mean < 709.78 else math.inf, count
