"""Keeps calibration and evaluation apart: a sketch of the one text, and how much of it the other repeats.

A text is the set of its sequences of 13 words, the field's usual measure of contamination, each hashed to 31 bits. Of
a long text the sketch keeps the 4096 lowest hashes, a sample to which the same cut of another text can be compared. It
weighs 16 kB and travels in the files of the imatrix and of the models quantized with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

KEY = "quant_kernels.calibration.sketch"
SEQUENCE = 13  # words
SIZE = 4096  # hashes
HIGHEST = 2**31 - 1  # the hashes are signed 32-bit numbers in a GGUF

# Of all 1,891 pairs of chapters of Node's API reference none shares more than 9 % of the shorter one, and only 4 share
# 5 %; of the 548 pairs of Python's language reference that are not one within the other, none shares 2 %. A text in
# another shares 100 %.
LIMIT = 0.1
LEAST_SHARED = 5  # sampled sequences: fewer may be chance where few were sampled

# Letters and digits make a word, and so does each letter of the scripts that put no spaces between words.
WORD = re.compile(r"[\u2e80-\U0010ffff]|[^\W\u2e80-\U0010ffff]+")


@dataclass(frozen=True)
class Sketch:
    """The lowest hashes of a text's word sequences, ascending."""

    hashes: tuple[int, ...]

    @property
    def highest(self) -> int:
        """The hash up to which the sketch is complete."""
        return self.hashes[-1] if len(self.hashes) == SIZE else HIGHEST


def sketch_text(text: str) -> Sketch:
    """Returns a text's sketch.

    >>> len(sketch_text("one two three four five six seven eight nine ten eleven twelve thirteen fourteen").hashes)
    2
    """
    return Sketch(tuple(sequence_hashes(text)[:SIZE].tolist()))


def calibration_sketch(metadata: Mapping[str, object]) -> Sketch | None:
    """Returns the sketch of the text that a file's imatrix, or the file itself, was made with; None if it has none.

    Raises ValueError if what the file has is no sketch.
    """
    hashes = metadata.get(KEY)
    if hashes is None:
        return None
    if not isinstance(hashes, list) or not all(isinstance(h, int) and 0 <= h <= HIGHEST for h in hashes):
        raise ValueError(f"{KEY} is not a list of numbers in 0 to {HIGHEST}")
    return Sketch(tuple(sorted(set(hashes))))


def overlap(sketch: Sketch, text: str) -> float:
    """Returns the share of the shorter text's word sequences that the longer one has too, as far as the sketch tells.

    It is 0 where too few of the sampled sequences are shared to tell. Upper and lower case, punctuation and line
    breaks do not matter.

    >>> manual = " ".join(f"word{i} and" for i in range(100))
    >>> overlap(sketch_text(manual), manual.upper()), overlap(sketch_text("Title " + manual + " and so on"), manual)
    (1.0, 1.0)
    """
    others = sequence_hashes(text)
    others = others[others <= sketch.highest]
    shared = len(np.intersect1d(others, sketch.hashes))
    shorter = min(len(others), len(sketch.hashes))
    return shared / shorter if shared and shared >= min(LEAST_SHARED, shorter) else 0.0


def check_overlap(calibration: Sketch | None, text: str) -> None:
    """Raises ValueError if an evaluation text repeats too much of a calibration text, or the other way round."""
    if calibration is not None and (share := overlap(calibration, text)) > LIMIT:
        raise ValueError(
            f"the evaluation text and the calibration text share {share:.0%} of the shorter one's sequences of "
            f"{SEQUENCE} words; the limit is {LIMIT:.0%}"
        )


def sequence_hashes(text: str) -> np.ndarray:
    """The ascending hashes of a text's sequences of words; a text of fewer words is one sequence."""
    words = WORD.findall(text.casefold()) or text.split()
    known = {word: int.from_bytes(blake2b(word.encode(), digest_size=8).digest()) for word in set(words)}
    numbers = np.array([known[word] for word in words], np.uint64)  # (n,)
    length = min(SEQUENCE, len(words))
    n_sequences = len(words) - length + 1 if words else 0
    mixed = np.zeros(n_sequences, np.uint64)
    for i in range(length):  # a polynomial of the words, modulo 2^64
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + numbers[i : i + n_sequences]
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return np.unique((mixed >> np.uint64(33)).astype(np.int64))
