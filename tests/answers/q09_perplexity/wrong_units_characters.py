# fails: test-units
# says: characters are counted, not bytes
"""Decodes the pieces and counts characters."""


# %% units
def text_units(pieces, scored):
    n_bytes = n_words = 0
    inside = False
    for piece, counts in zip(pieces, scored.tolist()):
        n_bytes += len(piece.decode(errors="replace")) * counts
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
    return nats / math.log(2) / n_bytes, math.exp(per_word) if per_word < 709.78 else math.inf
