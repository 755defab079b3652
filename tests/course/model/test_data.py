"""From packages to tokens: made once, and the vocabulary is one that a GGUF holds and the tokenizer reads."""

import numpy as np
import pytest

from course.model import data
from course.model.text import Package
from course.model.vocabulary import END_OF_TEXT, train_vocabulary
from quant_kernels.models.tokenizer import Tokenizer

SENTENCE = "the reader opens a page and looks for what a function returns when its argument is an empty list"
WORDS = SENTENCE.split()


def text(seed):
    random = np.random.default_rng(seed)
    return "\n\n".join(" ".join(random.choice(WORDS, 30)) for _ in range(8)) + "\n"


def test_vocabulary_is_read_by_the_tokenizer():
    metadata = train_vocabulary([text(i) for i in range(20)], 300)
    tokens = metadata["tokenizer.ggml.tokens"]
    assert len(tokens) == 300 and tokens[0] == END_OF_TEXT
    assert len(metadata["tokenizer.ggml.merges"]) == 300 - 1 - 256, "a token is a byte, a merge, or the end of text"
    tokenizer = Tokenizer(metadata)
    strange = "naïve 12345\n\n    x = '…'\tend"
    assert tokenizer.decode(tokenizer.encode(strange)) == strange
    assert len(tokenizer.encode(text(99))) < len(text(99)) / 2
    assert 0 not in tokenizer.encode(END_OF_TEXT), "a text cannot end a document"


@pytest.fixture
def shelf(monkeypatch):
    """Two packages of documents that nobody has to download; the list grows with each that is read."""
    read = []

    def documents(archive):
        read.append(archive)
        return [text(seed) for seed in range(100 * len(read), 100 * len(read) + 30)]

    monkeypatch.setattr(data, "packages", lambda: [Package("a", "a-1.tar.gz", "", "MIT")] * 2)
    monkeypatch.setattr(data, "download", lambda package, folder: folder / package.file)
    monkeypatch.setattr(data, "documents", documents)
    return read


def no_bar(items, what):
    return items


def test_tokens_are_made_once(shelf, tmp_path):
    metadata = data.prepare(tmp_path, 300, no_bar)
    train, held_out = (np.fromfile(tmp_path / f"{name}.u16", dtype=np.uint16) for name in ("train", "held_out"))
    assert (train == 0).sum() == 59 and (held_out == 0).sum() == 1, "each document ends in the end of text"
    assert train.max() < 300 and train[-1] == 0
    first = Tokenizer(metadata).decode(train[: train.tolist().index(0)].tolist())
    assert set(first.split()) <= set(WORDS)
    assert (tmp_path / "held_out.txt").read_text().split()[0] in WORDS
    assert data.prepare(tmp_path, 300, no_bar) == metadata
    assert len(shelf) == 2, "the second call reads nothing"


def test_interrupted_preparation_is_made_anew(shelf, tmp_path, monkeypatch):
    def full(tokenizer, texts):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(data, "encode", full)
        data.prepare(tmp_path, 300, no_bar)
    assert not (tmp_path / "train.u16").exists()
    data.prepare(tmp_path, 300, no_bar)
    assert (tmp_path / "train.u16").stat().st_size > 0
