# fails: test-corpus
# says: the first token of a row is counted
"""Leaves the shift to the library, which does none."""


# %% corpus
def corpus_perplexity(chunks):
    nats, count = 0.0, 0
    for logits, ids in chunks:
        flat, targets = logits.float().flatten(0, 1), ids.flatten()
        keep = targets != -100
        nats += torch.nn.functional.cross_entropy(flat[keep], targets[keep], reduction="sum").item()
        count += int(keep.sum())
    if count == 0 or all(ids.shape[1] < 2 for _, ids in chunks):
        raise ValueError("no token is scored")
    return (math.exp(nats / count) if nats / count < 709 else math.inf), count
