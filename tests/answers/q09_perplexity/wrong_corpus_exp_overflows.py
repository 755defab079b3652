# fails: test-corpus
# says: exp overflows
"""Exponentiates the logits as they are."""


# %% corpus
def corpus_perplexity(chunks):
    nats, count = 0.0, 0
    for logits, ids in chunks:
        targets = ids[:, 1:]
        scored = targets != -100
        exps = logits[:, :-1][scored].float().exp()
        rows = (exps / exps.sum(-1, keepdim=True)).log()
        losses = -rows.gather(1, targets[scored][:, None])
        nats += losses.double().sum().item()
        count += len(losses)
    if count == 0:
        raise ValueError("no token is scored")
    mean = nats / count
    return math.exp(mean) if not mean > 709.78 else math.inf, count
