# fails: test-units
# says: pieces are split one by one
"""Splits each piece by itself."""


# %% units
def text_units(pieces, scored):
    chosen = [piece for piece, counts in zip(pieces, scored.tolist()) if counts]
    return sum(map(len, chosen)), sum(len(piece.split()) for piece in chosen)


def per_text(perplexity, n_tokens, n_bytes, n_words):
    if min(n_tokens, n_bytes, n_words) < 1:
        raise ValueError("each count must be 1 or more")
    nats = n_tokens * math.log(perplexity)
    per_word = nats / n_words
    return nats / math.log(2) / n_bytes, math.exp(per_word) if per_word < 709.78 else math.inf
