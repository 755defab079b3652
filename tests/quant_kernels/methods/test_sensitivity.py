"""What a matrix is worth, measured and estimated."""

import pytest
import torch
import torch.nn.functional as F

from quant_kernels.methods.affine import fake_quantize
from quant_kernels.methods.hessian import input_hessians
from quant_kernels.methods.sensitivity import cross_entropy, divergence, hessian_damages, sensitivity


@pytest.fixture(scope="module")
def windows(trained):
    return trained.evaluation[:2048].view(32, 64)


@pytest.fixture(scope="module")
def replacements(trained):
    """The matrices of the blocks, in 2 bits."""
    own = trained.model.weights()
    return {name: fake_quantize(own[name], 2, per=32) for name in own if name.startswith("blk.")}


@pytest.fixture(scope="module")
def damages(trained, windows, replacements):
    return sensitivity(trained.model, replacements, divergence(trained.model, windows))


def test_cross_entropy_is_that_of_torch(trained, windows):
    logits = trained.model(windows)
    expected = F.cross_entropy(logits[:, :-1].mT, windows[:, 1:]).item()
    assert cross_entropy(windows)(trained.model) == pytest.approx(expected, rel=1e-5)


def test_divergence_is_zero_until_something_changes(trained, windows, replacements):
    loss = divergence(trained.model, windows)
    assert loss(trained.model) == pytest.approx(0, abs=1e-6)
    base = trained.model(windows).softmax(-1)
    with trained.model.replaced(replacements):
        logits = trained.model(windows)
        measured = loss(trained.model)
    expected = (base * (base.log() - logits.log_softmax(-1))).sum(-1).mean().item()
    assert measured == pytest.approx(expected, rel=1e-4)
    assert loss(trained.model) == pytest.approx(0, abs=1e-6)


def test_every_matrix_is_measured_alone(trained, windows, replacements, damages):
    assert list(damages) == list(replacements)
    assert min(damages.values()) > 0
    name, loss = "blk.1.ffn_down.weight", divergence(trained.model, windows)
    with trained.model.replaced({name: replacements[name]}):
        assert damages[name] == pytest.approx(loss(trained.model), abs=1e-6)
    steps, loss = [], cross_entropy(windows)
    only = {name: replacements[name]}
    with trained.model.replaced(only):
        expected = loss(trained.model)
    expected -= loss(trained.model)
    grown = sensitivity(trained.model, only, loss, progress=lambda *step: steps.append(step))
    assert grown[name] == pytest.approx(expected, abs=1e-6) and steps == [(1, 1)]


def test_fewer_bits_do_more_damage(trained, windows, damages):
    own, loss = trained.model.weights(), divergence(trained.model, windows)
    finer = sensitivity(trained.model, {name: fake_quantize(own[name], 4, per=32) for name in damages}, loss)
    assert all(finer[name] < damages[name] / 3 for name in damages)


def test_damages_nearly_add_up_while_they_are_small(trained, windows, replacements, damages):
    own, loss = trained.model.weights(), divergence(trained.model, windows)
    finer = {name: fake_quantize(own[name], 4, per=32) for name in damages}
    with trained.model.replaced(finer):
        together = loss(trained.model)
    assert sum(sensitivity(trained.model, finer, loss).values()) == pytest.approx(together, rel=0.3)


def test_the_estimate_is_the_layers_own_output_error(trained, replacements):
    hessians = input_hessians(trained.model, trained.calibration[:2048].view(32, 64))
    estimated = hessian_damages(trained.model, replacements, hessians)
    own = trained.model.weights()
    layer, x = trained.model.blk[0], trained.model.token_embd(trained.calibration[:2048].view(32, 64))
    name = "blk.0.attn_k.weight"
    error = layer.attn_norm(x) @ (replacements[name] - own[name]).T
    assert estimated[name] == pytest.approx(error.square().sum(-1).mean().item(), rel=1e-4)
    with pytest.raises(ValueError, match=r"no H for blk\.0\.attn_k\.weight"):
        hessian_damages(trained.model, replacements, {key: h for key, h in hessians.items() if key != name})


def test_other_input_is_refused(trained):
    with pytest.raises(ValueError, match=r"shape \(8,\), not"):
        divergence(trained.model, torch.zeros(8, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"shape \(2, 1\), not \(at least 1, at least 2\)"):
        cross_entropy(torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"no weight matrix 'blk\.9"):
        sensitivity(trained.model, {"blk.9.attn_q.weight": torch.ones(1)}, lambda model: 0.0)
