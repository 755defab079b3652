"""GPTQ against round-to-nearest, an independent solver, and itself in other words."""

import pytest
import torch

from quant_kernels.measures.errors import relative_rmse
from quant_kernels.measures.perplexity import perplexity
from quant_kernels.methods import gptq as module
from quant_kernels.methods.affine import fake_quantize, quantize_affine
from quant_kernels.methods.gptq import gptq, gptq_llama, inverse_factor
from quant_kernels.methods.hessian import hessian, output_error

GRIDS = [{}, {"symmetric": True}, {"symmetric": True, "full_range": True}, {"exact_zero": False}]


def correlated(n_tokens, columns, generator, decay=0.73, spread=0.2):
    """Inputs whose principal components fall off as k**-decay, and whose channels differ in size."""
    basis = torch.linalg.qr(torch.randn(columns, columns, generator=generator)).Q
    sizes = torch.arange(1, columns + 1.0) ** -decay
    x = torch.randn(n_tokens, columns, generator=generator) * sizes @ basis
    return x * torch.exp(spread * torch.randn(columns, generator=generator))


@pytest.fixture(scope="module")
def case():
    generator = torch.Generator().manual_seed(0)
    w, x = torch.randn(256, 512, generator=generator), correlated(2048, 512, generator)
    return w, x, hessian(x)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("group", [32, 128, None])
def test_without_correlation_it_rounds_to_nearest(group, grid):
    w = torch.randn(16, 256, generator=torch.Generator().manual_seed(0))
    q = gptq(w, torch.eye(256) * 3, 4, group=group, **grid)
    plain = quantize_affine(w, 4, per=group or "row", **grid)
    for name in ("codes", "scale", "zero_point"):
        assert torch.equal(getattr(q.affine, name), getattr(plain, name)), name
    assert torch.equal(q.dequantize(), plain.dequantize())


# Relative errors of the outputs in %: round-to-nearest, GPTQ and with act-order, from another program (in numpy) with
# 256 x 512 weights, groups of 128 and inputs of its own. The spectrum here was chosen to come near its 4-bit figures.
PERCENT = {4: (10.07, 3.25, 2.94), 3: (21.7, 7.2, 6.4), 2: (49.8, 19.9, 15.9)}


@pytest.mark.parametrize("bits", PERCENT)
def test_errors_on_correlated_inputs(case, bits):
    w, x, h = case
    results = (
        fake_quantize(w, bits, per=128),
        gptq(w, h, bits).dequantize(),
        gptq(w, h, bits, act_order=True).dequantize(),
    )
    errors = [100 * relative_rmse(x @ w.T, x @ result.T) for result in results]
    assert errors == pytest.approx(PERCENT[bits], rel=0.15)
    assert errors[0] > 2 * errors[1] > 2.1 * errors[2]


def column_by_column(w, h, bits, group, damping):
    """The same in the words of Optimal Brain Surgeon: after each column, the inverse of what is left of H."""
    w = w.double().clone()
    h = h.double() + damping * h.double().diagonal().mean() * torch.eye(len(h))
    result = torch.empty_like(w)
    for i in range(w.shape[1]):
        if i % group == 0:
            plain = quantize_affine(w[:, i : i + group].float(), bits, per="row")
        codes = torch.round(w[:, i : i + 1].float() / plain.scale) + plain.zero_point
        result[:, i : i + 1] = (codes.clamp(0, 2**bits - 1) - plain.zero_point) * plain.scale
        inverse = torch.linalg.inv(h[i:, i:])
        error = (w[:, i] - result[:, i]) / inverse[0, 0]
        w[:, i:] -= error[:, None] * inverse[0]
    return result.float()


@pytest.mark.parametrize("group", [16, 48])
def test_agrees_with_inverting_what_is_left(group):
    generator = torch.Generator().manual_seed(0)
    w, h = torch.randn(8, 96, generator=generator), hessian(correlated(400, 96, generator))
    expected = column_by_column(w, h, 3, group, 0.01)
    torch.testing.assert_close(gptq(w, h, 3, group=group).dequantize(), expected, rtol=1e-4, atol=1e-4)


def test_the_size_of_a_block_changes_nothing(case, monkeypatch):
    w, _, h = case
    w, h = w[:16, :256], h[:256, :256]
    expected = gptq(w, h, 3).dequantize()
    monkeypatch.setattr(module, "BLOCK", 32)
    torch.testing.assert_close(gptq(w, h, 3).dequantize(), expected, rtol=1e-4, atol=1e-4)


def test_the_factor_is_one_of_the_inverse(case):
    h = case[2][:128, :128]
    factor = inverse_factor(h, 0.01).double()
    damped = h.double() + 0.01 * h.diagonal().mean() * torch.eye(128)
    assert torch.equal(factor, factor.triu())
    torch.testing.assert_close(factor.T @ factor @ damped, torch.eye(128, dtype=torch.float64), rtol=0, atol=1e-5)


def test_act_order_says_where_each_column_went(case):
    w, _, h = case
    q = gptq(w, h, 4, act_order=True)
    assert torch.equal(q.order, h.diagonal().argsort(descending=True))
    groups = q.group_of()
    assert groups.bincount().tolist() == [128] * 4 and groups[h.diagonal().argmax()] == 0
    scale, zero_point = (values[:, groups] for values in (q.affine.scale, q.affine.zero_point))
    codes = torch.empty_like(q.affine.codes)
    codes[:, q.order] = q.affine.codes
    assert torch.equal((codes - zero_point) * scale, q.dequantize())  # as a file with g_idx is read
    assert gptq(w, h, 4).group_of().tolist() == [i // 128 for i in range(512)]


def test_columns_without_input_are_rounded_and_left_alone():
    generator = torch.Generator().manual_seed(0)
    w, x = torch.randn(8, 64, generator=generator), correlated(200, 64, generator)
    x[:, 16:32] = 0  # a group of its own
    q = gptq(w, hessian(x), 4, group=16).dequantize()
    assert torch.equal(q[:, 16:32], fake_quantize(w, 4, per=16)[:, 16:32])
    assert torch.equal(gptq(w, torch.zeros(64, 64), 4, group=16).dequantize(), fake_quantize(w, 4, per=16))


def test_fewer_tokens_than_columns_need_damping():
    generator = torch.Generator().manual_seed(0)
    w, x = torch.randn(8, 64, generator=generator), torch.randn(10, 64, generator=generator)
    h = hessian(x)
    with pytest.raises(ValueError, match="not positive definite with damping 0"):
        gptq(w, h - 1e-3 * torch.eye(64) * (h.diagonal() > 1), damping=0, group=64)
    assert output_error(w - gptq(w, h, 3, group=64).dequantize(), h) < 0.5 * output_error(
        w - fake_quantize(w, 3, per=64), h
    )


def test_other_input_is_refused(case):
    w, _, h = case
    with pytest.raises(ValueError, match="512 columns are not a multiple of the group size 100"):
        gptq(w, h, group=100)
    with pytest.raises(ValueError, match="group size 0"):
        gptq(w, h, group=0)
    with pytest.raises(ValueError, match="bits is 9"):
        gptq(w, h, 9)
    with pytest.raises(ValueError, match="damping is nan"):
        gptq(w, h, damping=float("nan"))
    with pytest.raises(ValueError, match=r"\(512, 512\), not \(256, 256\)"):
        gptq(w[:, :256], h)
    with pytest.raises(ValueError, match="not a matrix"):
        gptq(w[0], h)
    with pytest.raises(ValueError, match="nan"):
        gptq(w * float("nan"), h)
    with pytest.raises(ValueError, match="nan"):
        gptq(w, h * float("nan"))


@pytest.mark.parametrize("bits", [2, 3])
def test_a_llama_keeps_more_of_what_it_learnt(trained, bits):
    windows = trained.calibration[:4096].view(-1, 64)
    steps = []
    quantized = gptq_llama(trained.model, windows, bits, 32, progress=lambda *step: steps.append(step))
    own = trained.model.weights()
    plain = {name: fake_quantize(own[name], bits, per=32) for name in quantized}
    values = []
    for weights in ({}, plain, quantized):
        with trained.model.replaced(weights):
            values.append(perplexity(trained.model, trained.evaluation[:8192], n_ctx=64).value)
    base, nearest, compensated = values
    assert base < compensated < base + 0.7 * (nearest - base)
    assert len(quantized) == 14 and steps == [(1, 2), (2, 2)]


def test_a_llama_is_quantized_on_what_its_quantized_prefix_makes(trained):
    windows, model = trained.calibration[:4096].view(-1, 64), trained.model
    quantized, own = gptq_llama(model, windows, 2, 32), model.weights()
    inputs = {}
    for name, layer in (("blk.0.ffn_down", model.blk[0].ffn_down), ("blk.1.attn_k", model.blk[1].attn_k)):
        hook = layer.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0]}))
        # the weights of the layer itself and of those after it do not matter to its input
        with model.replaced(quantized):
            model(windows)
        hook.remove()
        expected = gptq(own[f"{name}.weight"], hessian(inputs[name]), 2, group=32).dequantize()
        wrong = (quantized[f"{name}.weight"] - expected).abs() > 1e-4
        assert wrong.float().mean() < 0.01  # batches of windows add up in another order


def test_a_llama_refuses_what_it_cannot_quantize(trained):
    with pytest.raises(ValueError, match="64 columns are not a multiple of the group size 48"):
        gptq_llama(trained.model, trained.calibration[:64].view(1, 64), 4, 48)
    none = torch.zeros(0, 64, dtype=torch.int64)
    for tokens, message in (
        (none, "are none"),
        (trained.calibration[:64], r"\(64,\), not"),
        (none.new_full((1, 4), 128), "ids 128"),
    ):
        with pytest.raises(ValueError, match=message):
            gptq_llama(trained.model, tokens)
