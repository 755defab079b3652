# fails: test-units
# says: Unicode's whitespace separates words too
"""Decodes the text and splits at Unicode's whitespace."""

# %% units
import re


def text_units(pieces, scored):
    text = b"".join(pieces).decode("utf8", errors="surrogateescape")
    owner = [i for i, p in enumerate(pieces) for _ in p]
    s = scored.tolist()
    nb = sum(len(p) for p, f in zip(pieces, s) if f)
    nw = sum(
        bool(s[owner[len(text[: m.start()].encode("utf8", errors="surrogateescape"))]])
        for m in re.finditer(r"\S+", text)
    )
    return nb, nw


def per_text(perplexity, n_tokens, n_bytes, n_words):
    if min(n_tokens, n_bytes, n_words) < 1:
        raise ValueError
    nats = n_tokens * math.log(perplexity)
    try:
        w = math.exp(nats / n_words)
    except OverflowError:
        w = math.inf
    return nats / math.log(2) / n_bytes, w
