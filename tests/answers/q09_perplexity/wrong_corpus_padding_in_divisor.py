# fails: test-corpus
# says: padding counts in the divisor
"""Counts the scored tokens, and divides by all places."""


# %% corpus
def corpus_perplexity(chunks):
    nats, places, count = 0.0, 0, 0
    for logits, ids in chunks:
        targets = ids[:, 1:]
        scored = targets != -100
        losses = torch.nn.functional.cross_entropy(logits[:, :-1][scored].float(), targets[scored], reduction="none")
        nats, places, count = nats + losses.sum().item(), places + targets.numel(), count + len(losses)
    if count == 0:
        raise ValueError("no token is scored")
    mean = nats / places
    return (math.exp(mean) if mean < 709 else math.inf), count
