"""The training tokens: made once from the packages' text, then kept in the work folder as two files of uint16."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from course.model.text import Cleaner, documents, download, packages, split
from course.model.vocabulary import END_OF_TEXT_ID, train_vocabulary
from course.texts import evaluation_text
from quant_kernels.models.tokenizer import Tokenizer

VOCABULARY_SHARE = 4  # the vocabulary is trained on every fourth document


def prepare(folder: Path, vocab: int, track: Callable[[Sequence, str], Iterable]) -> dict[str, object]:
    """Returns the tokenizer's metadata; makes vocabulary.json, train.u16 and held_out.u16 if they are not there yet.

    folder: the work folder. track: draws a bar over a sequence, and yields its items.
    """
    (folder / "packages").mkdir(parents=True, exist_ok=True)
    if not (folder / "train.u16").is_file():
        cleaner = Cleaner(evaluation_text())
        archives = [download(package, folder / "packages") for package in track(packages(), "downloading")]
        texts = [cleaner.clean(text) for archive in track(archives, "reading") for text in documents(archive)]
        train, held_out = split(filter(None, texts))
        metadata = train_vocabulary(train[::VOCABULARY_SHARE], vocab)
        write(folder / "vocabulary.json", json.dumps(metadata).encode())
        tokenizer = Tokenizer(metadata)
        write(folder / "held_out.u16", encode(tokenizer, held_out).tobytes())
        write(folder / "held_out.txt", "".join(held_out).encode())
        write(folder / "train.u16", encode(tokenizer, track(train, "encoding")).tobytes())
    return json.loads((folder / "vocabulary.json").read_bytes())


def encode(tokenizer: Tokenizer, texts: Iterable[str]) -> np.ndarray:
    """Returns the tokens of all texts, each followed by END_OF_TEXT: (n,) uint16."""
    tokens: list[int] = []
    for text in texts:
        tokens += tokenizer.encode(text)
        tokens.append(END_OF_TEXT_ID)
    return np.array(tokens, dtype=np.uint16)


def write(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)
