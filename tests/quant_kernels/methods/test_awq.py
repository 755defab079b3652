"""AWQ: never worse than round to nearest on what it calibrates on, better where channels are salient."""

import pytest
import torch
import torch.nn.functional as F

from quant_kernels.measures.errors import mse, relative_rmse
from quant_kernels.methods.affine import fake_quantize
from quant_kernels.methods.awq import Moments, awq_llama, collect, round_weight, search_clips, search_scales
from quant_kernels.methods.folding import find, fold, read_weights
from quant_kernels.methods.hessian import input_hessians, output_error
from quant_kernels.methods.linears import block_linears, clone
from quant_kernels.methods.outliers import inject_outliers
from quant_kernels.models.gguf_file import load_model


@pytest.fixture(scope="module")
def salient():
    """Inputs (300, 256) with 1 % salient channels, 20 times as large, and a weight (64, 256)."""
    random = torch.Generator().manual_seed(0)
    x, weight = torch.randn(300, 256, generator=random), torch.randn(64, 256, generator=random)
    x[:, [3, 100, 201]] *= 20
    return x, weight


def test_the_search_against_brute_force(salient):
    x, weight = salient
    found = search_scales(weight, x, 3, 64)
    y, errors = F.linear(x, weight), []
    for i in range(21):
        s = x.abs().mean(0) ** (i / 20)
        s = s / (s.max() * s.min()).sqrt()
        errors.append(64 * mse(y, F.linear(x / s, fake_quantize(weight * s, 3, per=64))))
    assert found.alpha == errors.index(min(errors)) / 20
    assert found.error == pytest.approx(min(errors), rel=1e-4) and found.rtn_error == pytest.approx(errors[0], rel=1e-4)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_salient_channels_are_protected(salient, bits):
    x, weight = salient
    found = search_scales(weight, x, bits, 64)
    assert found.error < found.rtn_error / 2 and 0 < found.alpha < 1
    assert found.scales[[3, 100, 201]].min() > 1.5 * found.scales.median()


def test_scales_without_salient_channels_do_no_harm():
    random = torch.Generator().manual_seed(0)
    for seed in range(5):
        x, weight = torch.randn(50, 64, generator=random) * seed, torch.randn(16, 64, generator=random)
        if seed == 0:
            x[0, 0] = 1e-20  # all but dead
        found = search_scales(weight, x, 4, 32)
        assert found.error <= found.rtn_error and found.scales.isfinite().all() and (found.scales > 0).all()


def test_dead_channels_and_dead_inputs(salient):
    x, weight = salient
    x = x.clone()
    x[:, 7] = 0
    found = search_scales(weight, x, 4, 64)
    assert found.scales.isfinite().all() and found.scales.min() > 0 and found.error < found.rtn_error
    nothing = search_scales(weight, torch.zeros(5, 256), 4, 64)
    assert nothing.alpha == 0 and nothing.error == 0 and torch.equal(nothing.scales, torch.ones(256))


def test_clips_help_each_group_and_the_whole(salient):
    x, weight = salient
    clips = search_clips(weight, x, 3, 64)
    assert clips.shape == (64, 4) and 0.5 <= clips.min() < clips.max() <= 1

    def group_errors(rounded):
        delta = (rounded - weight).unflatten(-1, (4, 64))
        return torch.einsum("tGj,mGj->mGt", x.unflatten(-1, (4, 64)), delta).square().sum(-1)

    plain, clipped = fake_quantize(weight, 3, per=64), fake_quantize(weight, 3, per=64, clip=clips)
    assert (group_errors(clipped) <= group_errors(plain) * 1.0001).all()
    moments = Moments(256)
    moments.add(x)
    rounded = round_weight(weight, moments, 3, 64, clip=True)
    assert mse(x @ weight.T, x @ rounded.T) < 0.9 * mse(x @ weight.T, x @ plain.T)


def test_moments_of_batches_are_those_of_all_tokens(salient):
    x, _ = salient
    moments = Moments(256)
    for batch in x.view(3, 10, 10, 256):
        moments.add(batch)
    torch.testing.assert_close(moments.magnitude, x.abs().mean(0))
    torch.testing.assert_close(moments.mean, x.T @ x / 300)
    s = torch.rand(256) + 1
    torch.testing.assert_close(moments.divided(s).mean, (x / s).T @ (x / s) / 300)
    torch.testing.assert_close(moments.divided(s).magnitude, (x / s).abs().mean(0))


def rtn(model, bits, group):
    other = clone(model)
    for linear in block_linears(other).values():
        linear.weight = torch.nn.Parameter(fake_quantize(linear.weight, bits, per=group))
    return other


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("n_head_kv", [2, 4])
def test_a_llama_with_salient_channels(tiny_gguf, tokens, n_head_kv, clip):
    model = inject_outliers(load_model(tiny_gguf(n_head_kv=n_head_kv)), 20.0, 3)
    logits = model(tokens)
    quantized = awq_llama(model, tokens, 4, 32, clip=clip)
    assert torch.equal(model(tokens), logits)
    assert relative_rmse(logits, quantized(tokens)) < 0.8 * relative_rmse(logits, rtn(model, 4, 32)(tokens))
    weight = quantized.blk[0].attn_q.weight.detach()
    assert max(len(row.unique()) for row in weight.view(-1, 32)) <= 16


def test_clips_are_searched_on_the_inputs_that_the_folded_model_has(tiny_gguf, tokens):
    model = inject_outliers(load_model(tiny_gguf(n_head_kv=4)), 20.0, 3)
    plain, clipped = (block_linears(awq_llama(model, tokens, 3, 32, clip=clip)) for clip in (False, True))
    scales = {}
    for name, moments in collect(model, tokens).items():
        block, producer = find(model, name)[0], name.rpartition(".")[2]
        scales[name] = search_scales(read_weights(block, producer), moments, 3, 32).scales
    folded = fold(model, scales)
    h, gains = input_hessians(folded, tokens), []
    for name, linear in block_linears(folded).items():
        before, after = (
            output_error(quantized[name].weight.detach() - linear.weight.detach(), h[f"{name}.weight"])
            for quantized in (plain, clipped)
        )
        assert after <= before * 1.0001
        gains.append(after / before)
    assert min(gains) < 0.9 and gains[:2] == [1, 1]  # not attn_q and attn_k


def test_refused(salient, tiny, tokens):
    x, weight = salient
    with pytest.raises(ValueError, match="magnitude in x is nan"):
        search_scales(weight, x * float("nan"))
    with pytest.raises(ValueError, match="is empty"):
        search_scales(weight, x[:0])
    with pytest.raises(ValueError, match=r"does not have 256 columns"):
        search_scales(weight, x[:, :64])
    with pytest.raises(ValueError, match="last dimension 64 is not a multiple of the group size 128"):
        awq_llama(tiny, tokens)
