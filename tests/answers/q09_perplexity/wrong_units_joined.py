# fails: test-units
# says: the scored pieces are joined and split
"""Joins the scored pieces and splits them."""


# %% units
def text_units(pieces, scored):
    text = b"".join(piece for piece, counts in zip(pieces, scored.tolist()) if counts)
    return len(text), len(text.split())


def per_text(perplexity, n_tokens, n_bytes, n_words):
    if min(n_tokens, n_bytes, n_words) < 1:
        raise ValueError("each count must be 1 or more")
    nats = n_tokens * math.log(perplexity)
    per_word = nats / n_words
    return nats / math.log(2) / n_bytes, math.exp(per_word) if per_word < 709.78 else math.inf
