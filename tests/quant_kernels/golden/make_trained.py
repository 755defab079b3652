"""Make trained.npz: the weights of a small Llama that has learnt to read numpy's docstrings, byte by byte.

    python make_trained.py

Half a minute on one core. The tests of methods use it: what quantization damages is there only after training.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from course.texts import calibration_text
from quant_kernels.models.llama import Config, Llama

TARGET = Path(__file__).parent / "trained.npz"
CONFIG = Config(n_layer=2, n_head=2, n_head_kv=2, n_embd=64, n_ff=192, n_ctx=128, vocab=128, head_dim=32)
HELD_OUT = 20_000  # tokens at the end that it does not see
STEPS, BATCH, N_CTX = 1500, 16, 64


def read_ids() -> Tensor:
    """The text as bytes below 128: (n,) int64."""
    text = bytearray(calibration_text().encode())
    return torch.frombuffer(text, dtype=torch.uint8).long().clamp(max=127)


def train() -> Llama:
    torch.manual_seed(0)
    model, ids = Llama(CONFIG), read_ids()[:-HELD_OUT]
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=STEPS, pct_start=0.1)
    for _ in range(STEPS):
        windows = ids[torch.randint(len(ids) - N_CTX, (BATCH, 1)) + torch.arange(N_CTX + 1)]
        loss = F.cross_entropy(model(windows[:, :-1]).mT, windows[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


def main() -> None:
    weights = {name: parameter.detach().half().numpy() for name, parameter in train().named_parameters()}
    np.savez_compressed(TARGET, **weights)


if __name__ == "__main__":
    main()
