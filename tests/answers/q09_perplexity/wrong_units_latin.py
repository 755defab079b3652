# fails: test-units
# says: bytes above 127 are taken for whitespace
"""Asks chr(byte).isspace(), which knows Latin-1's no-break space."""


# %% units
def text_units(pieces, scored):
    n_bytes = n_words = 0
    inside = False
    for piece, counts in zip(pieces, scored.tolist()):
        n_bytes += len(piece) * counts
        for byte in piece:
            space = chr(byte).isspace()
            n_words += counts and not space and not inside
            inside = not space
    return n_bytes, n_words


def per_text(perplexity, n_tokens, n_bytes, n_words):
    if min(n_tokens, n_bytes, n_words) < 1:
        raise ValueError("each count must be 1 or more")
    nats = n_tokens * math.log(perplexity)
    per_word = nats / n_words
    return nats / math.log(2) / n_bytes, math.exp(per_word) if per_word < 709.78 else math.inf
