# fails: test-corpus
# says: in float32 beyond e^88.7
"""Takes exp of the mean in float32, which ends at e^88.7."""


# %% corpus
def corpus_perplexity(chunks):
    losses = []
    for logits, ids in chunks:
        targets = ids[:, 1:]
        scored = targets != -100
        rows = logits[:, :-1][scored].float().log_softmax(-1)
        losses.append(-rows.gather(1, targets[scored][:, None])[:, 0])
    count = sum(map(len, losses))
    if count == 0:
        raise ValueError("no token is scored")
    return torch.cat(losses).mean().exp().item(), count
