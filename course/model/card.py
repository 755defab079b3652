"""Measures the trained model beside its yardsticks, and writes its card."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from course.fetch import fetch
from course.model.ngram import NGram
from course.model.text import packages
from course.model.train import SEQUENCES, Training
from course.texts import evaluation_text
from quant_kernels.measures.perplexity import TextPerplexity, perplexity_of_text
from quant_kernels.models.gguf_file import load_model
from quant_kernels.models.llama import Llama
from quant_kernels.models.tokenizer import Tokenizer

N_CTX, STRIDE = 512, 256
EVALUATED = 60_000  # characters of each text
CURVE_POINTS = 16  # rows of the loss curve's table


def measure(model: Llama, folder: Path, progress: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Returns bits per byte by text and model: the trained model, a 5-gram model on the same tokens, and SmolLM2."""
    train = np.fromfile(folder / "train.u16", dtype=np.uint16)
    texts = {"evaluation text": evaluation_text()[:EVALUATED], "held-out documentation": held_out(folder)}
    progress("counting 5-grams")
    ngram = NGram(train, model.config.vocab)
    found = {}
    for name, text in texts.items():
        progress(f"measuring on the {name}")
        smollm2 = load_model(fetch("smollm2"))
        found[name] = {
            "the course model": perplexity_of_text(model, text, N_CTX, stride=STRIDE).bits_per_byte,
            "a 5-gram model of the same tokens": ngram_bits_per_byte(ngram, model.tokenizer, text),
            "SmolLM2-135M-Instruct, Q4_1": perplexity_of_text(smollm2, text, N_CTX, stride=STRIDE).bits_per_byte,
        }
    return found


def held_out(folder: Path) -> str:
    return (folder / "held_out.txt").read_text(encoding="utf-8")[:EVALUATED]


def ngram_bits_per_byte(ngram: NGram, tokenizer: Tokenizer, text: str) -> float:
    log_probabilities = ngram.log_probabilities(np.array(tokenizer.encode(text)))
    return -log_probabilities.sum() / math.log(2) / len(text.encode())


def write_card(
    path: Path,
    file: Path,
    model: Llama,
    training: Training,
    whole: TextPerplexity,
    found: dict[str, dict[str, float]],
) -> None:
    """Writes the model card: what the model is, its data with their licences, its training, and what it reaches.

    file: the model's GGUF. whole: the perplexity of all of the evaluation text. found: what `measure` returns.
    """
    config, size = model.config, sum(weight.numel() for weight in model.weights().values())
    tokens = len(training.losses) * SEQUENCES * training.n_ctx
    sections = [
        CARD.format(
            file=file.name,
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            size=size / 1e6,
            config=config,
            steps=len(training.losses),
            tokens=tokens / 1e6,
            passes=tokens / len(training.tokens),
            whole=whole,
            evaluated=EVALUATED,
            n_ctx=N_CTX,
            stride=STRIDE,
        ),
        "| bits per byte | " + " | ".join(found) + " |\n|:--|" + "--:|" * len(found),
        *(
            f"| {who} | " + " | ".join(f"{values[who]:.3f}" for values in found.values()) + " |"
            for who in next(iter(found.values()))
        ),
        "\n## Training loss\n\nMean over the steps up to each, in nats per token.\n\n| steps | loss |\n|--:|--:|",
        *(f"| {last} | {mean:.3f} |" for last, mean in curve(training.losses)),
        "\n## Data\n\nDocumentation and docstrings of these source distributions on PyPI, each under its licence:\n",
        "| file | licence |\n|:--|:--|",
        *(f"| {package.file} | {package.licence} |" for package in packages()),
    ]
    part = path.with_suffix(".part")
    part.write_text("\n".join(sections) + "\n")
    part.replace(path)


def curve(losses: list[float]) -> list[tuple[int, float]]:
    """The mean loss of each of CURVE_POINTS equal stretches, with the step that it ends at."""
    ends = np.linspace(0, len(losses), CURVE_POINTS + 1).round().astype(int)
    return [(int(b), float(np.mean(losses[a:b]))) for a, b in pairwise(ends) if b > a]


CARD = """# The course model

A Llama of {size:.2f} million weights that the notebooks quantize: {config.n_layer} layers, width {config.n_embd}, \
{config.n_head} heads of {config.head_dim}, feed-forward {config.n_ff}, context {config.n_ctx}, and a byte-level BPE \
vocabulary of {config.vocab} that is both embedding and output (tied). Every matrix dimension is a multiple of 256, so \
that every K- and I-quant of ggml applies. It continues technical English; it knows nothing and answers nothing.

Licence: Apache-2.0. Written by `python -m course.model`, which trains it anew. `{file}` has sha256 `{sha256}`.

## Training

{steps} steps, {tokens:.1f} million tokens, {passes:.2f} passes over the data. Muon for the matrices of the blocks, \
AdamW for the embedding and the gains; matrix products in bfloat16, all else in float32; seeded. No paragraph occurs \
twice, and none shares ten words in a row with the evaluation text.

## Quality

The evaluation text is Python's language reference as `help()` shows it (`pydoc_data.topics`), which is held out from \
all training. On all of it, as llama-perplexity computes it (windows of {whole.n_ctx}, second halves): perplexity \
{whole.value:.3f} ± {whole.standard_error:.3f} per token, {whole.bits_per_byte:.3f} bits per byte.

Beside its yardsticks, on the first {evaluated} characters of each text, windows of {n_ctx} with stride {stride} \
(every token scored once):
"""
