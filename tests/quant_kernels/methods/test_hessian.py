"""Second moments of inputs, and the identity that makes them worth having."""

import pytest
import torch

from quant_kernels.methods.hessian import Hessian, hessian, input_hessians, output_error


@pytest.fixture
def x():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 50, 16, generator=generator) @ torch.randn(16, 16, generator=generator)


def test_batches_add_up(x):
    moments = Hessian(16)
    for batch in x:
        moments.add(batch)
    flat = x.flatten(0, 1)
    torch.testing.assert_close(moments.mean, flat.T @ flat / 150)
    torch.testing.assert_close(moments.mean, hessian(x))
    assert moments.n_tokens == 150


def test_output_error_is_the_trace(x):
    dw = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    measured = (x.flatten(0, 1) @ dw.T).square().sum(-1).mean().item()
    assert output_error(dw, hessian(x)) == pytest.approx(measured, rel=1e-5)


def test_equal_errors_of_weights_are_not_equal_errors_of_outputs(x):
    h = hessian(x)
    values, vectors = torch.linalg.eigh(h)
    errors = [output_error(vectors[:, i][None], h) for i in (0, -1)]  # both of length 1
    assert errors == pytest.approx([values[0].item(), values[-1].item()], rel=1e-3)
    assert errors[1] > 100 * errors[0]


def test_half_the_second_derivative_is_h(x):
    tokens = x.flatten(0, 1)

    def error(row):
        return (tokens @ row).square().mean()

    second = torch.autograd.functional.hessian(error, torch.zeros(16))
    torch.testing.assert_close(second / 2, hessian(x))


def test_inputs_of_a_model(trained):
    windows = trained.calibration[:1536].view(24, 64)  # more than a batch
    hessians = input_hessians(trained.model, windows)
    assert len(hessians) == 14 and set(hessians) < set(trained.model.weights())
    block = trained.model.blk[0]
    x = block.attn_norm(trained.model.token_embd(windows))
    torch.testing.assert_close(hessians["blk.0.attn_q.weight"], hessian(x), rtol=1e-4, atol=1e-5)
    assert torch.equal(hessians["blk.0.attn_q.weight"], hessians["blk.0.attn_v.weight"])
    assert hessians["blk.1.ffn_down.weight"].shape == (192, 192)


def test_other_input_is_refused(x):
    with pytest.raises(ValueError, match="no tokens were added"):
        _ = Hessian(4).mean
    with pytest.raises(ValueError, match="does not have 4 columns"):
        Hessian(4).add(torch.ones(2, 5))
    with pytest.raises(ValueError, match="nan"):
        hessian(torch.tensor([[float("nan")]]))
    with pytest.raises(ValueError, match="empty"):
        hessian(torch.ones(0, 3))
    h = hessian(x)
    with pytest.raises(ValueError, match=r"\(16, 16\), not \(4, 4\)"):
        output_error(torch.ones(2, 4), h)
    with pytest.raises(ValueError, match="not a matrix"):
        output_error(torch.ones(16), h)
    with pytest.raises(ValueError, match="its diagonal has -"):
        output_error(torch.ones(2, 16), -h)
    with pytest.raises(ValueError, match="differs from its transpose"):
        output_error(torch.ones(2, 16), h + torch.randn(16, 16).triu(1))
