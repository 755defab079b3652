"""Collects an importance matrix: sums of squared activations while a model reads a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from quant_kernels.measures.imatrix import Entry, Imatrix
from quant_kernels.measures.overlap import sketch_text
from quant_kernels.measures.windows import plan_windows
from quant_kernels.models.llama import EVERY_POSITION, Llama

NO_POSITION = slice(0)


def collect_imatrix(
    model: Llama,
    text: str | Sequence[int] | Tensor,
    n_ctx: int = 512,
    *,
    process_output: bool = False,
    dataset: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Imatrix:
    """Returns the sums of the squares of what each matrix of the model's blocks is multiplied with, over a text.

    The text is read in windows of n_ctx tokens that do not overlap, the rest that fills none is dropped, and a BOS
    that the model asks for replaces each first token. Sums are taken in float64 and kept as float32.

    text: what to calibrate on, or its token ids (n,). process_output: collect for `output.weight` too; a model whose
    output is its embedding has none. dataset: the text's name, for the file. progress: called with the windows done
    and their number, after each batch.
    Raises ValueError as `perplexity` does for the text, and for a model whose activations are infinite or NaN.
    Source: tools/imatrix/imatrix.cpp of llama.cpp, which asks for two windows where one is enough here.

    >>> collect_imatrix(None, "A text.")
    Traceback (most recent call last):
    ValueError: a NoneType has no weights by GGUF name: load_model gives a model that has them
    """
    if not isinstance(model, Llama):
        raise ValueError(
            f"a {type(model).__name__} has no weights by GGUF name: load_model gives a model that has them"
        )
    tokens = model.tokenizer.encode(text, add_special=True) if isinstance(text, str) else text
    plan = plan_windows(model, tokens, n_ctx)
    positions = EVERY_POSITION if process_output else NO_POSITION  # of which logits are computed
    done = 0
    with torch.inference_mode(), summed_inputs(model, process_output) as sums:
        for ids, _ in plan.batches():
            model(ids, positions)
            done += len(ids)
            if progress:
                progress(done, len(plan.windows))
    counts = torch.tensor([len(plan.windows) * n_ctx])
    entries = {name: Entry(total.float()[None], counts) for name, total in sums.items()}
    sketch = sketch_text(text if isinstance(text, str) else model.tokenizer.decode(plan.tokens.tolist()))
    return Imatrix(entries, len(plan.windows), n_ctx, (dataset,) if dataset else (), sketch)


@contextmanager
def summed_inputs(model: Llama, process_output: bool) -> Iterator[dict[str, Tensor]]:
    """Gives the sums of squares by weight, float64 (columns,), which grow with each forward pass of the model."""
    sums: dict[str, Tensor] = {}

    def add(weight: str, x: Tensor) -> None:  # x: (B, T, columns)
        squares = x.square().sum((0, 1), dtype=torch.float64)  # (columns,)
        sums[weight] = sums[weight] + squares if weight in sums else squares

    handles = [
        module.register_forward_pre_hook(partial(lambda name, _, inputs: add(f"{name}.weight", inputs[0]), name))
        for name, module in model.blk.named_modules(prefix="blk")
        if isinstance(module, nn.Linear)
    ]
    if process_output and not model.config.tied:
        handles.append(model.output_norm.register_forward_hook(lambda _, inputs, x: add("output.weight", x)))
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()
