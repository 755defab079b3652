"""The table of mixes: every name in it is a format, and every condition says what it should."""

from dataclasses import replace

import gguf
import pytest

from quant_kernels.models import mixes
from quant_kernels.models.mixes import FALLBACKS, MIXES, Place, choose, known_mix, use_more_bits

PLACE = Place(layer=0, n_layer=32, gqa=1, n_expert=0, is_70b=False, imatrix=False)
KINDS = ("attn_v", "ffn_down", "attn_output", "attn_q", "attn_k", "ffn_gate", "ffn_up", "token_embd", "output", "other")


def place(**changes):
    return replace(PLACE, **changes)


def test_all_types_of_all_mixes_are_ggmls():
    layers = [place(layer=i, gqa=gqa, n_expert=n) for i in range(32) for gqa in (1, 4) for n in (0, 4, 8)]
    chosen = {choose(mix, kind, at) for mix in MIXES.values() for kind in KINDS for at in layers}
    assert chosen | FALLBACKS.keys() | set(FALLBACKS.values()) <= set(gguf.GGMLQuantizationType.__members__)
    assert len(chosen) > 15


def test_every_condition_is_in_use():
    used = {
        condition
        for mix in MIXES.values()
        for choice in vars(mix).values()
        if isinstance(choice, dict)
        for condition in choice
    }
    conditions = {f for f in vars(mixes).values() if getattr(f, "__annotations__", {}).get("place") == "Place"}
    assert used == conditions - {choose}


@pytest.mark.parametrize("n_layer", [1, 2, 7, 8, 22, 30, 32, 80])
def test_more_bits_go_to_the_ends_and_to_a_third_of_the_middle(n_layer):
    chosen = [i for i in range(n_layer) if use_more_bits(i, n_layer)]
    eighth, last = n_layer // 8, 7 * n_layer // 8
    assert set(chosen) >= {*range(eighth), *range(last, n_layer)}
    assert [i for i in chosen if eighth <= i < last] == list(range(eighth + 2, last, 3))


def test_values_that_queries_share_get_more_bits():
    assert choose(MIXES["Q2_K"], "attn_v", place(gqa=3)) == "Q3_K"
    assert choose(MIXES["Q2_K"], "attn_v", place(gqa=4)) == "Q4_K"
    assert choose(MIXES["Q2_K"], "attn_v", place(gqa=8, is_70b=True)) == "Q5_K"
    assert choose(MIXES["IQ2_XS"], "attn_v", place(gqa=8, is_70b=True)) == "Q4_K"


def test_q4_k_l_differs_from_q4_k_m_outside_the_layers_alone():
    differing = {
        kind
        for kind in KINDS
        for i in range(32)
        if choose(MIXES["Q4_K_L"], kind, place(layer=i)) != choose(MIXES["Q4_K_M"], kind, place(layer=i))
    }
    assert differing == {"token_embd", "output"}


@pytest.mark.parametrize("name", ["Q4_K", "q4_k_m", "", None, ["Q4_K_M"]])
def test_unknown_mix_is_refused_with_the_list(name):
    with pytest.raises(ValueError, match=r"unknown mix .*; known are F16, .*Q4_K_M.*IQ1_S"):
        known_mix(name)
