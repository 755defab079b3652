"""Training: it learns, its batches are an order of the text, and a stopped run goes on as if it had not."""

import numpy as np
import pytest
import torch

from course.model import train
from course.model.train import Training, learning_rate
from quant_kernels.models.llama import Config

CONFIG = Config(n_layer=2, n_head=2, n_head_kv=2, n_embd=32, n_ff=64, n_ctx=16, vocab=8, head_dim=16, tied=True)


@pytest.fixture
def tokens():
    return np.tile(np.arange(8, dtype=np.uint16), 2000)  # 0 1 2 ... 7 0 1 2 ...


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(train, "WARM_UP", 5)


def silent(step, loss):
    pass


def test_learns_to_count(tokens, tmp_path):
    training = Training(CONFIG, tokens, steps=60)
    training.run(tmp_path / "run.pt", silent)
    assert training.losses[0] == pytest.approx(np.log(8), abs=0.2), "an untrained model knows nothing"
    assert training.losses[-1] < 0.3


def test_stopped_run_goes_on_as_if_it_had_not(tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 4)
    whole = Training(CONFIG, tokens, steps=10)
    whole.run(tmp_path / "whole.pt", silent)

    def stop(step, loss):
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Training(CONFIG, tokens, steps=10).run(tmp_path / "half.pt", stop)
    resumed = Training(CONFIG, tokens, steps=10)
    resumed.run(tmp_path / "half.pt", silent)
    assert resumed.losses == whole.losses
    for name, weight in whole.model.weights().items():
        assert torch.equal(weight, resumed.model.weights()[name]), name


def test_epoch_visits_every_sequence_once(tokens):
    training = Training(CONFIG, np.arange(33 * 16 + 1) % 60000, steps=1)
    starts = [row[0].item() for step in (0, 1) for row in training.batch(step)]
    assert len(set(starts)) == 32 and all(start % 16 == 0 for start in starts)
    assert [row[0].item() for step in (2, 3) for row in training.batch(step)] != starts, "each epoch has its order"


def test_learning_rate_rises_stays_and_falls():
    rates = [learning_rate(step, 100) for step in range(100)]
    assert rates[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert rates[5:50] == [1.0] * 45
    assert rates[75] == pytest.approx(0.5) and 0 < rates[-1] < 0.03


def test_no_steps_are_refused(tokens):
    with pytest.raises(ValueError, match="steps is 0, not at least 1"):
        Training(CONFIG, tokens, steps=0)
