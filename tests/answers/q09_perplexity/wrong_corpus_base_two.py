# fails: test-corpus
# says: 2 to the power of their mean
"""Raises 2 to a mean in nats."""


# %% corpus
def corpus_perplexity(chunks):
    nats, count = 0.0, 0
    for logits, ids in chunks:
        targets = ids[:, 1:]
        scored = targets != -100
        rows = logits[:, :-1][scored].float().log_softmax(-1)
        losses = -rows.gather(1, targets[scored][:, None])
        nats += losses.double().sum().item()
        count += len(losses)
    if count == 0:
        raise ValueError("no token is scored")
    mean = nats / count
    return 2**mean if mean < 709.78 else math.inf, count
