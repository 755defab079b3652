"""The course model that is shipped: its promises, and the figures that its card prints."""

import hashlib
import re

import numpy as np
import pytest
import torch

from course.fetch import COURSE_MODEL, fetch
from course.texts import evaluation_text
from quant_kernels.measures.perplexity import perplexity
from quant_kernels.models.gguf_file import load_model
from quant_kernels.models.mixes import FALLBACKS
from quant_kernels.models.quantize_model import plan_file


@pytest.fixture(scope="module")
def card():
    return COURSE_MODEL.with_name("MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model():
    return load_model(fetch("course-model"))


def test_is_small_and_every_format_fits(model):
    assert COURSE_MODEL.stat().st_size <= 16_000_000
    for name, weight in model.weights().items():
        assert not any(size % 256 for size in weight.shape), name
        assert torch.equal(weight.half().float(), weight), f"{name} is not F16"
    for mix in ("Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "TQ1_0", "IQ1_S", "IQ2_XXS", "IQ3_S", "IQ4_XS"):
        assert not set(plan_file(COURSE_MODEL, mix, imatrix=True).types().values()) & set(FALLBACKS.values()), mix


def test_tokenizer_gives_back_any_text(model):
    text = evaluation_text()[:20_000] + "\r\n\tnaïve ≈ 12345 \N{GRINNING FACE}"
    ids = model.tokenizer.encode(text)
    assert model.tokenizer.decode(ids) == text
    assert max(ids) < 4096 and len(ids) < len(text) / 3


def test_beats_its_yardstick(card):
    rows = dict(re.findall(r"^\| (the course model|a 5-gram model).*?\| ([\d.]+) \|", card, re.M))
    assert float(rows["the course model"]) < 0.85 * float(rows["a 5-gram model"])


def test_perplexity_is_that_of_llama_cpp(model):
    # llama-perplexity -m course-model-F16.gguf -f TEXT -c 512 -b 512 --chunks 4, of llama.cpp 0c1e570
    tokens = model.tokenizer.encode(evaluation_text())[: 4 * 512]
    assert perplexity(model, tokens).value == pytest.approx(19.0572, rel=1e-4)


def test_card_is_of_this_file(card):
    assert hashlib.sha256(COURSE_MODEL.read_bytes()).hexdigest() in card


def test_continues_in_english(model):
    ids = model.tokenizer.encode("The function returns")
    with torch.inference_mode():
        for _ in range(12):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    words = model.tokenizer.decode(ids).split()
    assert len(words) >= 6 and np.mean([word.isascii() for word in words]) == 1
