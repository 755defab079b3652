"""Hadamard transforms, against an independent matrix, and what rotating a model changes: nothing but its outliers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.linalg import norm

from quant_kernels.measures.errors import relative_rmse
from quant_kernels.methods.linears import block_linears, calibrate
from quant_kernels.methods.outliers import inject_outliers
from quant_kernels.methods.rotation import base_order, hadamard_transform, incoherence, random_signs, rotate_llama
from quant_kernels.methods.w8a8 import PER_TOKEN, w8a8_linear
from quant_kernels.models.gguf_file import load_model

# Powers of two, Paley's first construction (12, 20, 24, 60), his second (28, 36), and products with powers of two
ORDERS = [1, 2, 4, 64, 12, 20, 24, 60, 28, 36, 96, 576, 768]


def matrix(n):
    return hadamard_transform(torch.eye(n, dtype=torch.float64)) * math.sqrt(n)


@pytest.mark.parametrize("n", ORDERS)
def test_entries_are_signs_and_rows_are_orthogonal(n):
    h = matrix(n)
    torch.testing.assert_close(h.abs(), torch.ones_like(h))
    torch.testing.assert_close(h @ h.T, n * torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-9)


def test_powers_of_two_against_sylvesters_formula():
    # the sign is the parity of the bits that row and column have in common
    expected = [[(-1) ** (i & j).bit_count() for j in range(32)] for i in range(32)]
    torch.testing.assert_close(matrix(32), torch.tensor(expected, dtype=torch.float64))


def test_order_12_by_hand():
    # Paley: the first row is 1 and 1 everywhere; below it the identity plus the residues modulo 11 (1, 3, 4, 5, 9)
    h = matrix(12)
    assert h[0].tolist() == [1] * 12 and h[1:, 0].tolist() == [-1] * 11
    assert [(i - 1) % 11 for i in range(1, 12) if h[i, 1] > 0] == [0, 1, 3, 4, 5, 9]


@given(st.sampled_from(ORDERS), st.integers(0, 100))
def test_lengths_and_products_are_kept(n, seed):
    x, y = torch.randn(2, 3, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(hadamard_transform(x) @ hadamard_transform(y).T, x @ y.T)
    torch.testing.assert_close(norm(hadamard_transform(x), dim=-1), norm(x, dim=-1))


def test_leading_dimensions_and_dtype():
    x = torch.randn(2, 3, 96, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hadamard_transform(x)[1, 2], hadamard_transform(x[1, 2]))
    assert hadamard_transform(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("n", [0, 3, 6, 92, 100])  # a matrix of order 92 exists, but is not Paley's
def test_unknown_orders_are_refused(n):
    with pytest.raises(ValueError, match=f"no Hadamard matrix of order {n} is known here"):
        hadamard_transform(torch.ones(2, n))


def test_the_sizes_of_models():
    orders = {64: 1, 576: 36, 768: 12, 960: 60, 1536: 12, 2560: 20, 4096: 1, 14336: 28}
    assert {n: base_order(n) for n in orders} == orders


def test_one_outlier_is_spread_evenly():
    x = torch.zeros(576)
    x[7] = 10
    assert incoherence(x) == pytest.approx(24) and incoherence(hadamard_transform(x)) == pytest.approx(1)


def test_a_row_of_the_matrix_needs_the_random_signs():
    # What is aligned with a row of H becomes one outlier; with random signs that is as unlikely as any vector.
    aligned = hadamard_transform(torch.eye(64)[5])
    assert incoherence(hadamard_transform(aligned)) == pytest.approx(8)
    assert incoherence(hadamard_transform(aligned * random_signs(64))) < 4


def test_figures_on_outlier_channels(outliers):
    # In %, from a numpy program of its own: 8 bits with rotation 0.89; 4 bits without 21.6, with 16.3
    x, weight, y = outliers.x, outliers.weight, outliers.y
    turned_x, turned_w = hadamard_transform(x), hadamard_transform(weight)

    def four_bits(x, weight):
        return w8a8_linear(x, PER_TOKEN(weight, 4), lambda x: PER_TOKEN(x, 4))

    assert 100 * relative_rmse(y, w8a8_linear(turned_x, turned_w)) == pytest.approx(0.89, rel=0.05)
    assert 100 * relative_rmse(y, four_bits(x, weight)) == pytest.approx(21.6, rel=0.06)
    assert 100 * relative_rmse(y, four_bits(turned_x, turned_w)) == pytest.approx(16.3, rel=0.06)


@pytest.mark.parametrize("online_down", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tied": True},
        {"n_head_kv": 4},
        {"llama__attention__key_length": 32, "llama__attention__value_length": 32, "llama__rope__dimension_count": 32},
    ],
)
def test_a_llama_keeps_its_function(tiny_gguf, tokens, options, online_down):
    model = load_model(tiny_gguf(**options))
    before = {name: weight.clone() for name, weight in model.weights().items()}
    rotated = rotate_llama(model, online_down=online_down)
    torch.testing.assert_close(rotated(tokens), model(tokens), rtol=1e-3, atol=2e-4)
    assert all(torch.equal(weight, before[name]) for name, weight in model.weights().items())
    assert model.config.tied is options.get("tied", False) and not rotated.config.tied
    assert torch.equal(rotated.blk[0].attn_norm.weight, torch.ones(64))


def test_a_rotation_without_folded_gains_would_not_keep_it(tiny, tokens):
    gains = tiny.blk[0].attn_norm.weight
    x = tiny.token_embd(tokens)
    turned = tiny.blk[0].attn_norm(hadamard_transform(x))
    assert not torch.allclose(turned, hadamard_transform(tiny.blk[0].attn_norm(x)), atol=0.01)
    unit = tiny.blk[0].attn_norm(x) / gains
    torch.testing.assert_close(tiny.blk[0].attn_norm(hadamard_transform(x)) / gains, hadamard_transform(unit))


def largest_incoherence(model, tokens):
    found = {}
    calibrate(model, tokens, lambda name, x: found.__setitem__(name, incoherence(x)))
    return max(value for name, value in found.items() if name.endswith(("attn_q", "ffn_up"))), found


def test_outliers_are_gone_from_the_inputs(tiny, tokens):
    model = inject_outliers(tiny, 60.0, 2)
    before, _ = largest_incoherence(model, tokens)
    after, inputs = largest_incoherence(rotate_llama(model), tokens)
    assert before > 8 and after < 5
    assert "blk.0.ffn_down.1" in largest_incoherence(rotate_llama(model, online_down=True), tokens)[1]
    assert "blk.0.ffn_down" in inputs


def test_another_seed_is_another_rotation(tiny, tokens):
    weights = [rotate_llama(tiny, seed).blk[0].attn_q.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.allclose(weights[0], weights[2])
    assert len(block_linears(rotate_llama(tiny, online_down=True))) == 14


def test_a_width_without_a_matrix_is_refused(tiny_gguf):
    model = load_model(tiny_gguf(n_embd=184, n_head=4, n_head_kv=4, llama__rope__dimension_count=46))
    with pytest.raises(ValueError, match="no Hadamard matrix of order 184"):
        rotate_llama(model)
