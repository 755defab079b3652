"""The table of mixes: its rows are what quantizing and comparing one by one gives, whatever the number of processes."""

import pytest

from quant_kernels.measures.collect_imatrix import collect_imatrix
from quant_kernels.measures.compare import compare
from quant_kernels.measures.mix_table import mix_table, possible_mixes
from quant_kernels.models.gguf_file import load_model
from quant_kernels.models.mixes import MIXES
from quant_kernels.models.quantize_model import quantize_model

TEXT = "the band in the hand and the thin hat of an ant then than that\n" * 20
OTHER = " ".join(f"and then {i} hands in the {7 * i % 31} hats" for i in range(80))


@pytest.fixture
def path(tiny_gguf):
    return tiny_gguf(n_embd=256, n_ff=256, n_layer=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_equal_one_comparison_each(path, workers):
    seen = []
    rows = mix_table(
        path, TEXT, ["F16", "Q4_0", "Q2_K"], n_ctx=64, workers=workers, progress=lambda *counts: seen.append(counts)
    )
    base = load_model(path)
    tokens = base.tokenizer.encode(TEXT, add_special=True)
    for row, mix in zip(rows, ("F16", "Q4_0", "Q2_K"), strict=True):
        quantized = quantize_model(path, mix)
        expected = compare(base, quantized, tokens, 64)
        assert (row.name, row.bytes, row.bits_per_weight) == (mix, quantized.n_bytes, quantized.bits_per_weight)
        assert row.perplexity == pytest.approx(expected.other.value, rel=1e-5)
        assert row.kl_divergence.value == pytest.approx(expected.kl_divergence.value, rel=1e-3, abs=1e-9)
        assert row.same_top == expected.same_top
    assert rows[0].kl_divergence.value < rows[1].kl_divergence.value < rows[2].kl_divergence.value
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_windows_are_counted_from_the_beginning(path):
    (first,) = mix_table(path, TEXT, ["Q8_0"], n_ctx=64, max_windows=2, workers=1)
    (whole,) = mix_table(path, TEXT, ["Q8_0"], n_ctx=64, workers=1)
    (twice,) = mix_table(path, TEXT * 2, ["Q8_0"], n_ctx=64, max_windows=2, workers=1)
    assert first.perplexity == twice.perplexity != whole.perplexity


def test_what_needs_an_imatrix_is_possible_with_one(path):
    without = possible_mixes(path, None)
    assert set(MIXES) - set(without) == {
        *("IQ3_XXS", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"),
        *("IQ3_XS",),
    }
    imatrix = collect_imatrix(load_model(path), OTHER, 64)
    assert possible_mixes(path, imatrix) == list(MIXES)
    with pytest.raises(ValueError, match="IQ2_XXS needs an imatrix"):
        mix_table(path, TEXT, ["IQ2_XXS"], n_ctx=64, workers=1)
    (row,) = mix_table(path, TEXT, ["IQ2_XXS"], imatrix=imatrix, n_ctx=64, workers=1)
    assert row.bits_per_weight < 8


def test_text_that_was_calibrated_on_is_refused(path):
    imatrix = collect_imatrix(load_model(path), TEXT, 64)
    with pytest.raises(ValueError, match="calibrat"):
        mix_table(path, TEXT, ["Q4_0"], imatrix=imatrix, n_ctx=64)


def test_unknown_mix_is_refused_before_any_work(path):
    with pytest.raises(ValueError, match="unknown mix 'Q4_K_XL'; known are F16"):
        mix_table(path, TEXT, ["Q4_0", "Q4_K_XL"], n_ctx=64)


@pytest.mark.parametrize("option", ["max_windows", "workers"])
def test_counts_below_1_are_refused(path, option):
    with pytest.raises(ValueError, match=f"{option} is -1, not at least 1"):
        mix_table(path, TEXT, ["Q4_0"], n_ctx=64, **{option: -1})
    with pytest.raises(ValueError, match="mixes is 0, not at least 1"):
        mix_table(path, TEXT, [], n_ctx=64)
