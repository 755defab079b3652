"""Activations with outlier channels, a small model, and one that has learnt something."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from quant_kernels.models.gguf_file import load_model
from quant_kernels.models.llama import Llama

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session", params=range(3))
def outliers(request):
    """Activations (256, 512) of which 5 channels are 60 times as large, a weight (512, 512), and their product."""
    random = torch.Generator().manual_seed(request.param)
    x = torch.randn(256, 512, generator=random)
    channels = torch.randperm(512, generator=random)[:5]
    x[:, channels] *= 60
    weight = torch.randn(512, 512, generator=random)
    return SimpleNamespace(x=x, channels=channels, weight=weight, y=x @ weight.T)


@pytest.fixture
def tiny(tiny_gguf):
    """A random Llama: 2 layers, n_embd 64, 4 heads of 16 on 2 key heads, n_ff 96, an output matrix of its own."""
    return load_model(tiny_gguf())


@pytest.fixture(scope="session")
def tokens():
    """Token ids for the random models, (4, 32)."""
    return torch.randint(0, 264, (4, 32), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def trained():
    """A Llama of 115,000 weights that has learnt to read numpy's docstrings, byte by byte; and its tokens.

    `calibration` and `evaluation` are (n,) ids, the latter of text that it has not seen, where its perplexity is 4.5.
    """
    maker = runpy.run_path(str(GOLDEN / "make_trained.py"))
    model, ids = Llama(maker["CONFIG"]), maker["read_ids"]()
    with np.load(GOLDEN / "trained.npz") as weights:
        model.load_state_dict({name: torch.from_numpy(weights[name]).float() for name in weights})
    cut = len(ids) - maker["HELD_OUT"]
    return SimpleNamespace(model=model.requires_grad_(False), calibration=ids[:cut], evaluation=ids[cut:])
