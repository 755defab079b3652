"""How many bytes and words of a text the scored tokens stand for, exactly: byte-level BPE loses no byte."""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from quant_kernels.measures.windows import Plan

CONTROL, USER_DEFINED = 3, 4  # token types of a GGUF


def count_units(metadata: Mapping[str, object], plan: Plan) -> tuple[int, int]:
    """Returns the bytes of a plan's scored tokens, and the words that begin in one of them.

    metadata: of the GGUF that the tokenizer comes from. Words are what whitespace separates, as `str.split` sees it.
    """
    pieces = token_pieces(metadata, plan.tokens.tolist())
    scored = [False] * len(pieces)
    for window in plan.windows:
        scored[window.scored : window.stop] = [True] * (window.stop - window.scored)
    n_bytes = sum(len(piece) for piece, counts in zip(pieces, scored, strict=True) if counts)
    ends = list(accumulate(map(len, pieces)))
    n_words = sum(scored[bisect(ends, start)] for start in word_starts(b"".join(pieces)))
    return n_bytes, n_words


def token_pieces(metadata: Mapping[str, object], ids: Sequence[int]) -> list[bytes]:
    """The bytes of each token; a control token, such as a BOS, is no part of the text and has none."""
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata.get("tokenizer.ggml.token_type")
    letters = byte_letters()

    def piece(i: int) -> bytes:
        kind = types[i] if types else None
        if kind == CONTROL:
            return b""
        return tokens[i].encode() if kind == USER_DEFINED else bytes(letters[letter] for letter in tokens[i])

    known = {i: piece(i) for i in set(ids)}
    return [known[i] for i in ids]


def byte_letters() -> dict[str, int]:
    """The letters with which byte-level BPE writes bytes: visible Latin-1 for itself, U+0100 and on for the rest."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = sorted(set(range(256)) - set(visible))
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


def word_starts(text: bytes) -> Iterator[int]:
    """The offsets in bytes at which the words begin; a byte that is not UTF-8 is a letter."""
    letters = text.decode(errors="surrogateescape")
    offset = seen = 0
    for word in re.finditer(r"\S+", letters):
        offset += len(letters[seen : word.start()].encode(errors="surrogateescape"))
        seen = word.start()
        yield offset
