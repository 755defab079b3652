"""Trains the course model: Muon for the matrices, AdamW for the embeddings and gains, bfloat16 where the CPU has it.

Seeded. A step's tokens follow from its number alone: a run goes on from its last checkpoint as if never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant_kernels.models.llama import Config, Llama

SEED = 0
SEQUENCES, MICRO_BATCH = 16, 8  # sequences per step, and per forward pass
WARM_UP = 100  # steps
DECAY_FROM = 0.5  # of all steps; from there the learning rates fall to 0 in a straight line
MUON_RATE, ADAM_RATE = 0.02, 3e-3
WEIGHT_DECAY = 0.05  # of the matrices
CHECKPOINT_EVERY = 100  # steps
INITIAL_STD = 0.02


class Training:
    """A model, its optimizers, and how far they have come."""

    def __init__(self, config: Config, tokens: np.ndarray, steps: int):
        if steps < 1:
            raise ValueError(f"steps is {steps}, not at least 1")
        torch.manual_seed(SEED)
        self.tokens, self.steps, self.step = tokens, steps, 0
        self.n_ctx = config.n_ctx
        self.model = initialized(Llama(config))
        matrices = list(self.model.blk.parameters())
        self.optimizers = [
            torch.optim.Muon([p for p in matrices if p.ndim == 2], lr=MUON_RATE, weight_decay=WEIGHT_DECAY),
            torch.optim.AdamW(
                [self.model.token_embd.weight, self.model.output_norm.weight, *(p for p in matrices if p.ndim == 1)],
                lr=ADAM_RATE,
                betas=(0.9, 0.95),
                weight_decay=0.0,
            ),
        ]
        self.losses: list[float] = []  # of every step, in nats per token
        self._loss = torch.compile(self.loss)

    def run(self, checkpoint: Path, progress: Callable[[int, float], None]) -> None:
        """Trains to the last step, from the checkpoint if there is one; calls progress with each step and its loss."""
        if checkpoint.is_file():
            self.load(checkpoint)
        while self.step < self.steps:
            self.losses.append(self.advance())
            progress(self.step, self.losses[-1])
            if self.step % CHECKPOINT_EVERY == 0 or self.step == self.steps:
                self.save(checkpoint)

    def advance(self) -> float:
        rate = learning_rate(self.step, self.steps)
        for optimizer, full in zip(self.optimizers, (MUON_RATE, ADAM_RATE), strict=True):
            optimizer.param_groups[0]["lr"] = full * rate
        total = 0.0
        for batch in self.batch(self.step).split(MICRO_BATCH):  # (MICRO_BATCH, n_ctx + 1)
            loss = self._loss(batch) * (len(batch) / SEQUENCES)
            loss.backward()
            total += loss.item()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return total

    def loss(self, batch: Tensor) -> Tensor:
        """The mean negative log-likelihood of each token but the first, in nats; batch: (B, T + 1) ids."""
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.model(batch[:, :-1])  # (B, T, V)
        return F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())

    def batch(self, step: int) -> Tensor:
        """A step's sequences, (SEQUENCES, n_ctx + 1) ids: each epoch visits all of them, in an order of its own."""
        n_sequences = (len(self.tokens) - 1) // self.n_ctx
        epoch, first = divmod(step, n_sequences // SEQUENCES)
        order = np.random.default_rng([SEED, epoch]).permutation(n_sequences)
        starts = order[first * SEQUENCES : (first + 1) * SEQUENCES] * self.n_ctx
        rows = [self.tokens[start : start + self.n_ctx + 1] for start in starts]
        return torch.from_numpy(np.stack(rows).astype(np.int64))

    def save(self, checkpoint: Path) -> None:
        part = checkpoint.with_suffix(".part")
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        torch.save(
            {"step": self.step, "losses": self.losses, "model": self.model.state_dict(), "optimizers": optimizers}, part
        )
        part.replace(checkpoint)

    def load(self, checkpoint: Path) -> None:
        state = torch.load(checkpoint, weights_only=True)
        self.step, self.losses = state["step"], state["losses"]
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def initialized(model: Llama) -> Llama:
    """Normal weights; zeros in the matrices that write to the residual stream, so that a block begins as a no-op."""
    model.rope_freqs.requires_grad_(False)
    for name, weight in model.weights().items():
        if name.endswith(("attn_output.weight", "ffn_down.weight")):
            nn.init.zeros_(weight)
        elif name.startswith("blk."):
            nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[1]))
        else:
            nn.init.normal_(weight, std=INITIAL_STD)
    return model


def learning_rate(step: int, steps: int) -> float:
    """The share of the full rate: up in a straight line, level, down in a straight line."""
    return min(1.0, (step + 1) / WARM_UP, (steps - step) / (steps * (1 - DECAY_FROM)))
