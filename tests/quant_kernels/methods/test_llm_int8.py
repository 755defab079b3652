"""LLM.int8(): what is split off, and what that is worth where channels have outliers."""

import pytest
import torch
from torch import nn

from quant_kernels.measures.errors import relative_rmse
from quant_kernels.methods.linears import replace_linears
from quant_kernels.methods.llm_int8 import LLMInt8Linear, llm_int8_linear, outlier_columns
from quant_kernels.methods.w8a8 import PER_TENSOR, PER_TOKEN, w8a8_linear


def test_figures_on_outlier_channels(outliers):
    # In %, from a numpy program of its own: N(0, 1) but for 5 of 512 channels times 60; symmetric, weights per row.
    # The scale per tensor follows one value, the largest of all: over seeds it varies by a fifth.
    x, weight, y = outliers.x, outliers.weight, outliers.y
    assert 100 * relative_rmse(y, w8a8_linear(x, weight, PER_TENSOR)) == pytest.approx(8.24, rel=0.25)
    assert 100 * relative_rmse(y, w8a8_linear(x, weight)) == pytest.approx(3.79, rel=0.05)
    assert 100 * relative_rmse(y, llm_int8_linear(x, weight)) == pytest.approx(0.17, abs=0.01)


def test_only_the_outlier_channels_are_split_off(outliers):
    assert outlier_columns(outliers.x).nonzero().flatten().tolist() == sorted(outliers.channels.tolist())
    assert outlier_columns(torch.tensor([[[6.0, 5.9, -7.0]]])).tolist() == [True, False, True]


def test_without_outliers_it_is_w8a8():
    random = torch.Generator().manual_seed(0)
    x, weight = torch.rand(3, 4, 32, generator=random), torch.randn(8, 32, generator=random)
    assert torch.equal(llm_int8_linear(x, weight), w8a8_linear(x, weight))


def test_with_outliers_alone_it_is_the_float_layer():
    random = torch.Generator().manual_seed(0)
    x, weight = torch.randn(4, 32, generator=random), torch.randn(8, 32, generator=random)
    assert torch.equal(llm_int8_linear(x, weight, threshold=0.0), x @ weight.T)


def test_a_threshold_between_gives_an_error_between(outliers):
    x, weight, y = outliers.x, outliers.weight, outliers.y
    errors = [relative_rmse(y, llm_int8_linear(x, weight, threshold=threshold)) for threshold in (0.0, 6.0, 1000.0)]
    assert errors[0] < errors[1] < errors[2] / 10


def test_a_token_changes_the_result_of_others():
    # One token with an outlier moves a column of the whole batch to the float part.
    random = torch.Generator().manual_seed(0)
    x, weight = torch.rand(2, 32, generator=random), torch.randn(8, 32, generator=random)
    alone = llm_int8_linear(x[:1], weight)
    x[1, 3] = 50.0
    assert not torch.equal(llm_int8_linear(x, weight)[:1], alone)


def test_the_layer_is_the_function(tiny, tokens):
    linear = nn.Linear(64, 8)
    x = 4 * torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(0))
    layer = LLMInt8Linear.from_linear(linear)
    expected = llm_int8_linear(x, linear.weight, PER_TOKEN(linear.weight)) + linear.bias
    torch.testing.assert_close(layer(x), expected)
    model = replace_linears(tiny, lambda _, linear: LLMInt8Linear.from_linear(linear))
    assert relative_rmse(tiny(tokens), model(tokens)) < 0.1


def test_refused(outliers):
    with pytest.raises(ValueError, match=r"x has 512 columns, a weight of shape \(512, 500\) does not fit"):
        llm_int8_linear(outliers.x, outliers.weight[:, :500])
    with pytest.raises(ValueError, match="magnitude in x is nan"):
        llm_int8_linear(outliers.x * float("nan"), outliers.weight)
    with pytest.raises(ValueError, match="threshold is -1, not at least 0"):
        llm_int8_linear(outliers.x, outliers.weight, threshold=-1)
