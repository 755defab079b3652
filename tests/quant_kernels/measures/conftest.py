"""Two tiny models of one tokenizer, with what llama.cpp finds of them."""

import runpy
from pathlib import Path

import pytest

from quant_kernels.models.gguf_file import load_model

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def tiny_pair_files(tmp_path_factory):
    """A base and a coarsened copy as GGUF files, those that the golden figures are of."""
    return runpy.run_path(str(GOLDEN / "make_measures.py"))["write_models"](tmp_path_factory.mktemp("pair"))


@pytest.fixture
def tiny_pair(tiny_pair_files):
    base, other = tiny_pair_files
    return load_model(base), load_model(other)


@pytest.fixture(scope="session")
def golden():
    """The folder of golden results."""
    return GOLDEN
