"""The straight-through estimator by hand, and a small model that learns to live with few bits."""

import pytest
import torch

from quant_kernels.measures.perplexity import perplexity
from quant_kernels.methods.affine import fake_quantize
from quant_kernels.methods.qat import StraightThrough, distillation, fake_quantize_ste, fake_quantized, rate, train_qat


def test_gradient_worked_by_hand():
    w = torch.tensor([-3.0, -2.6, -2.4, -0.4, 0.0, 1.4, 1.6, 9.0], requires_grad=True)
    q = StraightThrough.apply(w, torch.tensor(1.0), torch.tensor(2), 0, 3)  # codes 0 to 3 are -2 to 1
    assert q.tolist() == [-2.0, -2.0, -2.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    q.backward(torch.arange(1.0, 9.0))
    assert w.grad.tolist() == [0.0, 0.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0]


def test_away_from_the_ends_it_is_the_gradient_of_a_clamp():
    w = torch.randn(64, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    scale, zero_point = torch.tensor(0.25).double(), torch.tensor(4)
    upstream = torch.randn(64, generator=torch.Generator().manual_seed(1)).double()
    StraightThrough.apply(w, scale, zero_point, 0, 7).backward(upstream)
    clamped = w.detach().clone().requires_grad_()
    (clamped.clamp(-4.5 * 0.25, 3.5 * 0.25) * upstream).sum().backward()  # what rounds to a code that there is
    assert 0 < (w.grad == 0).sum() < 64
    assert torch.equal(w.grad, clamped.grad)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("clip", [0.7, 1.0])
@pytest.mark.parametrize("per", [32, "row"])
def test_values_are_those_of_quantize_affine(symmetric, clip, per):
    w = torch.randn(8, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    q = fake_quantize_ste(w, 3, per=per, symmetric=symmetric, clip=clip)
    assert torch.equal(q, fake_quantize(w.detach(), 3, per=per, symmetric=symmetric, clip=clip))
    q.sum().backward()
    assert (w.grad == 1).all() if clip == 1.0 else 0 < (w.grad == 0).sum() < w.numel() / 4


def test_gradients_reach_the_weights_of_a_model(trained):
    model = trained.model
    weights = fake_quantized(model, 3, 32)
    assert len(weights) == 14 and not any("embd" in name for name in weights)
    own = model.weights()
    assert all(torch.equal(weight, fake_quantize(own[name], 3, per=32)) for name, weight in weights.items())


@pytest.mark.parametrize("bits", [2, 3])
def test_training_beats_rounding_after_training(trained, bits):
    model, tokens = trained.model, trained.evaluation[:8192]
    losses = []
    options = {"n_ctx": 64, "progress": lambda *step: losses.append(step)}
    better = train_qat(model, trained.calibration, 25, bits, 32, **options)
    base = perplexity(model, tokens, n_ctx=64).value
    with model.replaced({name: weight.detach() for name, weight in fake_quantized(model, bits, 32).items()}):
        rounded = perplexity(model, tokens, n_ctx=64).value
    assert perplexity(better, tokens, n_ctx=64).value < base + 0.6 * (rounded - base)
    assert [step[:2] for step in losses] == [(i, 25) for i in range(1, 26)]
    assert losses[-1][2] < 0.7 * losses[0][2]


def test_the_result_is_quantized_and_the_model_as_before(trained):
    model = trained.model
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    results = [train_qat(model, trained.calibration, 2, 2, 32, n_ctx=16, batch=2, seed=seed) for seed in (0, 0, 1)]
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    for name in fake_quantized(model, 2, 32):
        groups = results[0].get_parameter(name).detach().view(-1, 32)
        assert max(len(group.unique()) for group in groups) <= 4
    weights = [result.blk[1].ffn_up.weight for result in results]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert not torch.equal(results[0].token_embd.weight, model.token_embd.weight)


def test_without_distillation_it_learns_the_text(trained):
    tokens = torch.tensor([65, 66, 67, 68]).repeat(50)  # a text that it has never seen
    before = perplexity(trained.model, tokens, n_ctx=32).value
    options = {"n_ctx": 32, "batch": 4, "learning_rate": 3e-3, "distill": False}
    assert perplexity(train_qat(trained.model, tokens, 10, 3, 32, **options), tokens, n_ctx=32).value < before / 3


def test_distillation_of_a_model_from_itself_is_zero(trained):
    windows = trained.calibration[:64].view(2, 32)
    assert distillation(trained.model(windows[:, :-1]), trained.model, windows).item() == pytest.approx(0, abs=1e-6)


def test_rate_rises_and_falls():
    rates = [rate(step, 100) for step in range(100)]
    assert rates.index(max(rates)) == 9 and max(rates) == 1.0
    assert 0 < rates[0] <= 0.1 and 0 < rates[-1] < 0.02
    assert rate(0, 1) > 0


def test_other_input_is_refused(trained):
    tokens = trained.calibration[:100]
    for options, message in (
        ({"n_ctx": 100}, "100 tokens do not fill a window of n_ctx 100"),
        ({"n_ctx": 129}, "n_ctx 129 is not from 1 to the model's 128"),
        ({"n_ctx": 16, "steps": 0}, "steps is 0"),
        ({"n_ctx": 16, "bits": 1}, "bits is 1"),
        ({"n_ctx": 16, "group": 48}, "last dimension 64 is not a multiple of the group size 48"),
    ):
        with pytest.raises(ValueError, match=message):
            train_qat(trained.model, tokens, **{"steps": 1} | options)
    with pytest.raises(ValueError, match=r"not \(n,\) integer ids"):
        train_qat(trained.model, tokens.view(10, 10), 1)
    with pytest.raises(ValueError, match="nan"):
        fake_quantize_ste(torch.tensor([float("nan")]), per="row")
