# fails: test-units
# says: words count where they end
"""Counts a word where whitespace or the text's end follows it."""


# %% units
def text_units(pieces, scored):
    text = b"".join(pieces) + b" "
    owner = [counts for piece, counts in zip(pieces, scored.tolist()) for _ in piece]
    space = [text[i : i + 1].isspace() for i in range(len(text))]
    return sum(owner), sum(owner[i] and not space[i] and space[i + 1] for i in range(len(owner)))


def per_text(perplexity, n_tokens, n_bytes, n_words):
    if min(n_tokens, n_bytes, n_words) < 1:
        raise ValueError("each count must be 1 or more")
    nats = n_tokens * math.log(perplexity)
    per_word = nats / n_words
    return nats / math.log(2) / n_bytes, math.exp(per_word) if per_word < 709.78 else math.inf
