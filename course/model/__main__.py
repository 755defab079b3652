"""`python -m course.model`: makes the course model anew: text, vocabulary, training, GGUF and card.

Brings 300 MB of packages, then trains for an hour or more on two cores; a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn, track

from course.fetch import COURSE_MODEL
from course.model.card import measure, write_card
from course.model.data import prepare, write
from course.model.train import Training
from course.texts import evaluation_text
from quant_kernels.measures.perplexity import perplexity_of_text
from quant_kernels.models.gguf_file import load_model
from quant_kernels.models.gguf_writer import save_gguf
from quant_kernels.models.llama import Config, Llama

CONFIG = Config(n_layer=8, n_head=4, n_head_kv=4, n_embd=256, n_ff=768, n_ctx=512, vocab=4096, head_dim=64, tied=True)
STEPS = 2400
ABOUT = {
    "general.name": "LLM quantization course model",
    "general.license": "apache-2.0",
    "general.description": "A small Llama for exercises in quantization, trained on documentation of Python packages",
}
console = Console(stderr=True)


def main() -> None:
    options = parse()
    torch._logging.set_logs(dynamo=logging.ERROR)  # not each place where compiling stops for a check of the tokens
    options.folder.mkdir(parents=True, exist_ok=True)
    metadata = prepare(options.folder, CONFIG.vocab, with_bar)
    training = Training(CONFIG, np.fromfile(options.folder / "train.u16", dtype=np.uint16), options.steps)
    train_with_bar(training, options.folder / "training.pt")
    draft = options.folder / options.out.name
    save_f16(training.model, metadata, draft)

    model = load_model(draft)  # what is measured is what is shipped
    whole = perplexity_of_text(model, evaluation_text())
    found = measure(model, options.folder, console.print)
    card = options.out.with_name("MODEL_CARD.md")
    write(options.out, draft.read_bytes())
    write_card(card, options.out, model, training, whole, found)
    console.print(f"{options.out}\n{card}", highlight=False, soft_wrap=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m course.model", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/course-model"), help="work folder (%(default)s)")
    parser.add_argument("--out", type=Path, default=COURSE_MODEL, help="the GGUF that is written (%(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps (%(default)s)")
    options = parser.parse_args()
    if options.steps < 1:
        parser.error(f"--steps is {options.steps}, not at least 1")
    return options


def with_bar(items: Sequence, what: str) -> Iterable:
    return track(items, what, console=console)


def train_with_bar(training: Training, checkpoint: Path) -> None:
    columns = (SpinnerColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.3f}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=training.steps, loss=float("nan"))
        training.run(checkpoint, lambda step, loss: progress.update(task, completed=step, loss=loss))


def save_f16(model: Llama, metadata: dict[str, object], path: Path) -> None:
    model.metadata = ABOUT | metadata
    with torch.no_grad():
        for weight in model.weights().values():
            weight.copy_(weight.half())
    save_gguf(model, path)


if __name__ == "__main__":
    main()
