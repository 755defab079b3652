# fails: test-corpus
# says: padding is counted
"""Masks the padding's loss and divides by all places."""


# %% corpus
def corpus_perplexity(chunks):
    nats, count = 0.0, 0
    for logits, ids in chunks:
        targets = ids[:, 1:]
        scored = targets != -100
        rows = logits[:, :-1][scored].float().log_softmax(-1)
        losses = -rows.gather(1, targets[scored][:, None])
        nats += losses.double().sum().item()
        count += targets.numel()
    if nats == 0:
        raise ValueError("no token is scored")
    mean = nats / count
    return math.exp(mean) if mean < 709.78 else math.inf, count
