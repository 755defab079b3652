"""W8A8, against sums in int64, torch's own int8 product and the bound of its error."""

from functools import partial

import pytest
import torch
from torch import nn

from quant_kernels.measures.errors import relative_rmse
from quant_kernels.methods.affine import quantize_affine
from quant_kernels.methods.linears import calibrate, replace_linears
from quant_kernels.methods.observers import MinMax
from quant_kernels.methods.w8a8 import (
    PER_TENSOR,
    PER_TOKEN,
    W8A8Linear,
    integer_linear,
    integer_matmul,
    w8a8_linear,
)
from quant_kernels.models.gguf_file import load_model


@pytest.fixture(scope="module")
def pair():
    random = torch.Generator().manual_seed(0)
    return torch.randn(3, 5, 70, generator=random) + 0.3, torch.randn(11, 70, generator=random)


def codes(random, shape, dtype):
    low = -128 if dtype == torch.int8 else 0
    return torch.randint(low, low + 256, shape, generator=random, dtype=torch.int16).to(dtype)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_sums_are_those_of_int64(dtype):
    random = torch.Generator().manual_seed(0)
    a, b = codes(random, (7, 300), dtype), codes(random, (5, 300), torch.int8)
    y = integer_matmul(a, b)
    assert y.dtype == torch.int32 and torch.equal(y.long(), a.long() @ b.long().T)


def test_the_largest_sum_is_exact():
    a, b = torch.full((1, 65_793), 255, dtype=torch.uint8), torch.full((1, 65_793), -128, dtype=torch.int8)
    assert integer_matmul(a, b).item() == -65_793 * 255 * 128
    with pytest.raises(ValueError, match="sums over 65794 columns can overflow int32, which holds those over 65793"):
        integer_matmul(torch.zeros(1, 65_794, dtype=torch.int8), torch.zeros(1, 65_794, dtype=torch.int8))


@pytest.mark.parametrize("x_options", [{"symmetric": True, "per": "row"}, {"per": "row"}, {"per": "tensor"}])
@pytest.mark.parametrize("w_options", [{"symmetric": True, "per": "row"}, {"per": "row"}, {"per": "tensor"}])
def test_equals_the_product_of_what_the_codes_stand_for(pair, x_options, w_options):
    x, weight = pair
    qx, qw = quantize_affine(x, 8, **x_options), quantize_affine(weight, 8, **w_options)
    integers = (qx.codes.long() - qx.zero_point) @ (qw.codes.long() - qw.zero_point).T
    assert torch.equal(integer_linear(qx, qw), integers.float() * qx.scale * qw.scale.T)
    expected = qx.dequantize().double() @ qw.dequantize().double().T
    torch.testing.assert_close(integer_linear(qx, qw).double(), expected, rtol=1e-6, atol=1e-5)


def test_forgetting_the_zero_point_is_seen(pair):
    x, weight = pair
    q = quantize_affine(x, 8, per="row")
    forgotten = integer_matmul(q.codes, PER_TOKEN(weight).codes) * q.scale * PER_TOKEN(weight).scale.T
    assert relative_rmse(x @ weight.T, forgotten) > 0.5
    assert relative_rmse(x @ weight.T, integer_linear(q, PER_TOKEN(weight))) < 0.01


@pytest.mark.parametrize("activation", [PER_TOKEN, PER_TENSOR, partial(quantize_affine, per="row")])
def test_the_error_is_within_its_bound(pair, activation):
    x, weight = pair
    qx, qw = activation(x), PER_TOKEN(weight)
    # |x w - x' w'| <= |x| |w - w'| + |x - x'| |w'|, each rounding being half a step; with a zero point that is rounded
    # too, the outermost value of x can be half a step beyond the last code
    x_step = qx.scale * (0.5 if qx.codes.dtype == torch.int8 else 1.0)
    bound = x.abs().sum(-1, keepdim=True) * qw.scale.T / 2 + x_step * qw.dequantize().abs().sum(-1)
    error = (w8a8_linear(x, weight, activation) - x @ weight.T).abs()
    assert (error <= bound * 1.0001).all() and error.max() > bound.min() / 100


def test_scales_inside_the_sum_are_refused(pair):
    x, weight = pair
    with pytest.raises(ValueError, match="x has 70 scales along its 70 columns: they do not factor out of the sum"):
        w8a8_linear(x, weight, partial(quantize_affine, per="column"))
    with pytest.raises(ValueError, match="weight has 7 scales along its 70 columns"):
        w8a8_linear(x, quantize_affine(weight, 8, symmetric=True, per=10))
    with pytest.raises(ValueError, match="the zero point of x is a float"):
        w8a8_linear(x, weight, partial(quantize_affine, per="row", exact_zero=False))


def test_wrong_shapes_are_refused(pair):
    x, weight = pair
    with pytest.raises(ValueError, match=r"x has 70 columns, a weight of shape \(70, 11\) does not fit"):
        w8a8_linear(x, weight.T)
    with pytest.raises(ValueError, match="is empty"):
        w8a8_linear(x[:0], weight)
    with pytest.raises(ValueError, match="magnitude in x is nan"):
        w8a8_linear(x * float("nan"), weight)


def test_a_vector_is_one_token(pair):
    x, weight = pair
    torch.testing.assert_close(w8a8_linear(x[0, 0], weight), w8a8_linear(x, weight)[0, 0])


def test_the_layer_is_the_function(pair):
    x, _ = pair
    linear = nn.Linear(70, 11)
    layer = W8A8Linear.from_linear(linear)
    torch.testing.assert_close(layer(x), w8a8_linear(x, linear.weight) + linear.bias)
    other = W8A8Linear.from_linear(nn.Linear(70, 11))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x)) and layer.codes.dtype == torch.int8
    assert not list(layer.parameters())


def test_a_whole_model_in_8_bits(tiny_gguf):
    model = load_model(tiny_gguf())
    tokens = torch.arange(60).view(2, 30)
    logits = model(tokens)
    errors = {}
    for bits in (8, 4):
        activation = partial(PER_TOKEN, bits=bits)
        quantized = replace_linears(model, lambda _, linear: W8A8Linear.from_linear(linear, bits, activation))  # noqa: B023
        errors[bits] = relative_rmse(logits, quantized(tokens))
    assert 0.001 < errors[8] < 0.1 < 5 * errors[8] < errors[4]  # random weights: an error grows from layer to layer
    assert torch.equal(model(tokens), logits)


def test_a_whole_model_with_static_scales(tiny_gguf):
    model = load_model(tiny_gguf())
    tokens = torch.arange(60).view(2, 30)
    observers = {name: MinMax(symmetric=True) for name in ("blk.0.ffn_down", "blk.1.attn_q")}
    calibrate(model, tokens, lambda name, x: observers[name].observe(x) if name in observers else None)

    def make(name, linear):
        if name not in observers:
            return linear
        return W8A8Linear.from_linear(linear, activation=observers[name].quantize)

    assert relative_rmse(model(tokens), replace_linears(model, make)(tokens)) < 0.1
