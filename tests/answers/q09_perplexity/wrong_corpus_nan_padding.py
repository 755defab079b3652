# fails: test-corpus
# says: or a position that is not scored takes part
"""Multiplies the losses of unscored places by 0, NaN included."""


# %% corpus
def corpus_perplexity(chunks):
    nats, count = 0.0, 0
    for logits, ids in chunks:
        targets = ids[:, 1:]
        mask = (targets != -100).float()
        log_p = logits[:, :-1].float().log_softmax(-1)
        losses = -log_p.gather(2, targets.clamp(min=0)[..., None])[..., 0]
        nats += (losses * mask).double().sum().item()
        count += int(mask.sum())
    if count == 0:
        raise ValueError("no token is scored")
    mean = nats / count
    return (math.inf if mean > 709 else math.exp(mean)), count
