# fails: test-units
# says: the perplexity is multiplied by the tokens per word
"""Multiplies the perplexity by the tokens per word."""


# %% units
def text_units(pieces, scored):
    n_bytes = n_words = 0
    inside = False
    for piece, counts in zip(pieces, scored.tolist()):
        n_bytes += len(piece) * counts
        for byte in piece:
            space = byte in b" \t\n\v\f\r"
            n_words += counts and not space and not inside
            inside = not space
    return n_bytes, n_words


def per_text(perplexity, n_tokens, n_bytes, n_words):
    if min(n_tokens, n_bytes, n_words) < 1:
        raise ValueError("each count must be 1 or more")
    nats = n_tokens * math.log(perplexity)
    per_word = nats / n_words
    return nats / math.log(2) / n_bytes, perplexity * n_tokens / n_words
