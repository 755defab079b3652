# fails: test-units
# says: a word is a piece that begins with a space
"""Takes a leading space for the mark of a word."""


# %% units
def text_units(pieces, scored):
    chosen = [piece for piece, counts in zip(pieces, scored.tolist()) if counts]
    return sum(map(len, chosen)), sum(piece.startswith(b" ") for piece in chosen)


def per_text(perplexity, n_tokens, n_bytes, n_words):
    if min(n_tokens, n_bytes, n_words) < 1:
        raise ValueError("each count must be 1 or more")
    nats = n_tokens * math.log(perplexity)
    per_word = nats / n_words
    return nats / math.log(2) / n_bytes, math.exp(per_word) if per_word < 709.78 else math.inf
