"""The model card: its figures are those that were measured."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from course.model.card import curve, ngram_bits_per_byte, write_card
from course.model.ngram import NGram
from quant_kernels.measures.perplexity import TextPerplexity
from quant_kernels.models.llama import Config, Llama

CONFIG = Config(n_layer=1, n_head=2, n_head_kv=2, n_embd=32, n_ff=64, n_ctx=16, vocab=8, head_dim=16, tied=True)


class Letters:
    """A tokenizer of the letters a to h."""

    def encode(self, text):
        return [ord(letter) - ord("a") for letter in text]


def test_bits_per_byte_of_the_ngram():
    ngram = NGram(np.tile([0, 1], 500), vocab=8)
    assert ngram_bits_per_byte(ngram, Letters(), "abab" * 50) < 0.05, "it has seen nothing else"
    assert ngram_bits_per_byte(ngram, Letters(), "hhhh") > 3, "less likely than by chance"


def test_curve_has_the_means_of_equal_stretches():
    losses = list(np.arange(3200) / 100)
    points = curve(losses)
    assert [step for step, _ in points] == list(range(200, 3201, 200))
    assert points[0][1] == pytest.approx(0.995) and points[-1][1] == pytest.approx(30.995)
    assert curve([1.0, 2.0]) == [(1, 1.0), (2, 2.0)]


def test_card_says_what_was_measured(tmp_path):
    whole = TextPerplexity(20.5, 0.25, 100, 4, 512, None, 302.0, 350, 60, 302 / math.log(2) / 350, 153.0)
    found = {"one text": {"the model": 1.25, "a yardstick": 2.5}, "another": {"the model": 1.5, "a yardstick": 3.0}}
    path = tmp_path / "CARD.md"
    training = SimpleNamespace(losses=[3.0] * 16 + [2.0] * 16, tokens=range(1_000_000), n_ctx=512)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    write_card(path, tmp_path / "m.gguf", Llama(CONFIG), training, whole, found)
    card = path.read_text()
    assert "20.500 ± 0.250 per token, 1.245 bits per byte" in card
    assert "| the model | 1.250 | 1.500 |" in card and "| a yardstick | 2.500 | 3.000 |" in card
    assert "32 steps, 0.3 million tokens, 0.26 passes" in card and "| 32 | 2.000 |" in card
    assert "| numpy-" in card and "BSD-3-Clause" in card
    assert "`m.gguf` has sha256 `" in card
    assert not list(tmp_path.glob("*.part"))
