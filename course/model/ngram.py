"""A 5-gram model over tokens, the yardstick that a trained model has to beat.

Interpolated Witten-Bell: P(w | h) = (count(hw) + kinds(h) P(w | h')) / (count(h) + kinds(h)), where kinds(h) is the
number of different tokens seen behind h, and h' is h without its first token (Witten and Bell, 1991).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOKEN_BITS = 12  # five tokens fit an int64


@dataclass(frozen=True)
class Counts:
    """How often each n-gram occurs, and how often and before how many different tokens each of its histories does."""

    keys: np.ndarray  # (k,) sorted packed n-grams
    counts: np.ndarray  # (k,)
    histories: np.ndarray  # (m,) sorted packed n-grams without their last token
    totals: np.ndarray  # (m,)
    kinds: np.ndarray  # (m,)


class NGram:
    """Counts the n-grams of up to `order` tokens; tokens: (n,) ids below 2**12."""

    def __init__(self, tokens: np.ndarray, vocab: int, order: int = 5):
        if vocab > 1 << TOKEN_BITS or order * TOKEN_BITS > 62:
            raise ValueError(f"{order} tokens of a vocabulary of {vocab} do not fit 62 bits, {TOKEN_BITS} each")
        self.vocab = vocab
        self.orders = [count(packed(tokens, n)) for n in range(1, order + 1)]

    def log_probabilities(self, tokens: np.ndarray) -> np.ndarray:
        """Returns the natural logarithm of each token's probability given those before it: (n,) float64."""
        p = np.full(len(tokens), 1 / self.vocab)
        for n, counts in enumerate(self.orders, start=1):
            keys = packed(tokens, n)  # the n-gram that ends at token n - 1, n, ...
            seen = look_up(keys, counts.keys, counts.counts)
            total, kinds = (look_up(keys >> TOKEN_BITS, counts.histories, of) for of in (counts.totals, counts.kinds))
            behind = p[n - 1 :]
            p[n - 1 :] = np.where(total > 0, (seen + kinds * behind) / np.maximum(total + kinds, 1), behind)
        return np.log(p)


def packed(tokens: np.ndarray, n: int) -> np.ndarray:
    """Every run of n tokens as one integer, the first token in the highest bits: (len(tokens) - n + 1,) int64."""
    tokens = tokens.astype(np.int64)
    keys = np.zeros(max(0, len(tokens) - n + 1), dtype=np.int64)
    for i in range(n):
        keys = keys << TOKEN_BITS | tokens[i : i + len(keys)]
    return keys


def count(keys: np.ndarray) -> Counts:
    keys, counts = np.unique(keys, return_counts=True)
    histories, first, kinds = np.unique(keys >> TOKEN_BITS, return_index=True, return_counts=True)
    return Counts(keys, counts, histories, np.add.reduceat(counts, first), kinds)


def look_up(keys: np.ndarray, table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The value of each key in the sorted table, 0 where it is not there."""
    places = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return np.where(table[places] == keys, values[places], 0)
