# fails: test-harness
# says: the space in front is counted
"""Counts the space in front of the choice."""


# %% harness
def request(encode, context, choice, n_ctx):
    """Token ids to feed, and token ids of the continuation whose likelihood is asked for."""
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + " " + choice
    context_ids = encode(stripped)
    continuation_ids = encode(stripped + continuation)[len(context_ids) :]
    return (context_ids + continuation_ids)[-(n_ctx + 1) :][:-1], continuation_ids


def score_continuation(logits, continuation_ids):
    """Log-likelihood of a continuation by the last rows of logits `(T, V)`, and whether greedy decoding writes it."""
    rows = logits[-len(continuation_ids) :].double()
    ids = torch.tensor(continuation_ids)
    log_likelihood = rows.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).sum().item()
    return log_likelihood, bool((rows.argmax(-1) == ids).all())


def accuracies(items):
    """Shares of items answered rightly by log-likelihood: plain, per character and per byte."""

    def share(length):
        hits = 0
        for log_likelihoods, choices, answer in items:
            scores = [value / length(choice) for value, choice in zip(log_likelihoods, choices)]
            hits += scores.index(max(scores)) == answer
        return hits / len(items)

    return {
        "acc": share(lambda choice: 1),
        "acc_norm": share(lambda choice: len(" " + choice)),
        "acc_bytes": share(lambda choice: len(choice.encode())),
    }
