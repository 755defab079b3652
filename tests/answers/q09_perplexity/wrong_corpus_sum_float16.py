# fails: test-corpus
# says: the sum of the losses is kept in float16
"""Adds the losses up in float16, which stalls."""


# %% corpus
def corpus_perplexity(chunks):
    nats, count = torch.zeros((), dtype=torch.float16), 0
    for logits, ids in chunks:
        targets = ids[:, 1:]
        scored = targets != -100
        rows = logits[:, :-1][scored].float().log_softmax(-1)
        for loss in -rows.gather(1, targets[scored][:, None])[:, 0]:
            nats = nats + loss.half()
        count += int(scored.sum())
    if count == 0:
        raise ValueError("no token is scored")
    mean = nats.item() / count
    return math.exp(mean) if mean < 709.78 else math.inf, count
