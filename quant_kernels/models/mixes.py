"""The mixes of llama.cpp: which format each tensor of a model gets in, say, a "Q4_K_M" file.

A format (Q4_K) says how a block of weights is stored; a mix (Q4_K_M) says which tensor gets which format. `MIXES` has a
row for each: a base format, and what else the tensors get that suffer most, by the layer in which they stand.
Left out: the mixes F32, BF16, MXFP4_MOE, Q1_0 and Q2_0. Source: src/llama-quant.cpp of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a tensor stands: what the conditions of a mix ask for."""

    layer: int
    n_layer: int
    gqa: int  # query heads that share a key-value head
    n_expert: int
    is_70b: bool  # 80 layers with grouped queries
    imatrix: bool


def use_more_bits(layer: int, n_layer: int) -> bool:
    """Whether this layer belongs to the half with more bits: the outer eighths, and every third one between them.

    >>> [layer for layer in range(32) if use_more_bits(layer, 32)]
    [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    """
    eighth = n_layer // 8
    return layer < eighth or layer >= 7 * n_layer // 8 or (layer - eighth) % 3 == 2


def always(place: Place) -> bool:
    return True


def more_bits(place: Place) -> bool:
    return use_more_bits(place.layer, place.n_layer)


def more_bits_of_8_experts(place: Place) -> bool:
    return place.n_expert == 8 and more_bits(place)


def first_2(place: Place) -> bool:
    return place.layer < 2


def first_4(place: Place) -> bool:
    return place.layer < 4


def first_16th(place: Place) -> bool:
    return place.layer < place.n_layer // 16


def first_8th(place: Place) -> bool:
    return place.layer < place.n_layer // 8


def between_8ths(place: Place) -> bool:
    return place.n_layer // 8 <= place.layer < 7 * place.n_layer // 8


def with_imatrix(place: Place) -> bool:
    return place.imatrix


def without_imatrix(place: Place) -> bool:
    return not place.imatrix


def first_8th_with_imatrix(place: Place) -> bool:
    return place.imatrix and first_8th(place)


def first_8th_without_imatrix(place: Place) -> bool:
    return not place.imatrix and first_8th(place)


def shared_by_4(place: Place) -> bool:
    """Where 4 or more query heads share a value head, attn_v is so small that its bits cost next to nothing."""
    return place.gqa >= 4


def shared_by_4_or_experts(place: Place) -> bool:
    return place.gqa >= 4 or place.n_expert >= 4


Choice = str | Mapping[Callable[[Place], bool], str]  # a type, or that of the first condition that holds


@dataclass(frozen=True)
class Mix:
    """A base format, and what the kinds of tensors get instead; where no condition holds, it is the base."""

    base: str
    attn_v: Choice = ""
    ffn_down: Choice = ""
    attn_output: Choice = ""
    attn_output_8x: str = ""  # in models of 8 experts
    attn_q: Choice = ""
    attn_k: Choice = ""
    ffn_gate: Choice = ""
    ffn_up: Choice = ""
    token_embd: Choice = ""  # if there is an output matrix: a tied one is `output`
    output: Choice = "Q6_K"
    smallest: bool = False  # below 3 bits, where models of 70B and those of 8 experts are treated otherwise


def smallest(base: str, better: str, attn_output: str = "") -> Mix:
    """A mix below 3 bits, with `better` for attn_v, for the first eighth of ffn_down, and for token_embd."""
    return Mix(
        base,
        attn_v={shared_by_4_or_experts: "Q4_K", always: better},
        ffn_down={first_8th: better},
        attn_output=attn_output,
        attn_output_8x="Q5_K",
        token_embd=better,
        output="Q5_K",
        smallest=True,
    )


MIXES: dict[str, Mix] = {
    "F16": Mix("F16"),
    "Q8_0": Mix("Q8_0", output="Q8_0"),
    "Q6_K": Mix("Q6_K"),
    "Q5_K_M": Mix("Q5_K", attn_v={more_bits: "Q6_K"}, ffn_down={more_bits: "Q6_K"}),
    "Q5_K_S": Mix("Q5_K"),
    "Q5_1": Mix("Q5_1"),
    "Q5_0": Mix("Q5_0", ffn_down={first_8th_with_imatrix: "Q5_1"}),
    "Q4_K_L": Mix(  # of the community, not of llama.cpp: Q4_K_M with more bits for embeddings and output
        "Q4_K",
        attn_v={more_bits: "Q6_K"},
        ffn_down={more_bits: "Q6_K"},
        attn_output_8x="Q5_K",
        token_embd="Q8_0",
        output="Q8_0",
    ),
    "Q4_K_M": Mix("Q4_K", attn_v={more_bits: "Q6_K"}, ffn_down={more_bits: "Q6_K"}, attn_output_8x="Q5_K"),
    "Q4_K_S": Mix("Q4_K", attn_v={first_4: "Q5_K"}, ffn_down={first_8th: "Q5_K"}, attn_output_8x="Q5_K"),
    "Q4_1": Mix("Q4_1"),
    "Q4_0": Mix("Q4_0", ffn_down={first_8th_with_imatrix: "Q4_1"}),
    "IQ4_NL": Mix(
        "IQ4_NL", attn_v={shared_by_4: "Q5_K"}, ffn_down={first_8th_without_imatrix: "Q5_K"}, attn_output_8x="Q5_K"
    ),
    "IQ4_XS": Mix(
        "IQ4_XS", attn_v={shared_by_4: "Q5_K"}, ffn_down={first_8th_without_imatrix: "Q5_K"}, attn_output_8x="Q5_K"
    ),
    "Q3_K_L": Mix("Q3_K", attn_v="Q5_K", ffn_down="Q5_K", attn_output="Q5_K"),
    "Q3_K_M": Mix(
        "Q3_K",
        attn_v={first_2: "Q5_K", always: "Q4_K"},
        ffn_down={first_16th: "Q5_K", always: "Q4_K"},
        attn_output="Q4_K",
        attn_output_8x="Q5_K",
    ),
    "Q3_K_S": Mix("Q3_K", attn_output_8x="Q5_K"),
    "IQ3_M": Mix(
        "IQ3_S",
        attn_v="Q4_K",
        ffn_down={first_8th: "Q4_K", more_bits_of_8_experts: "Q4_K"},
        attn_output="Q4_K",
        attn_output_8x="Q5_K",
    ),
    "IQ3_S": Mix("IQ3_S", attn_v={shared_by_4: "Q4_K"}, attn_output_8x="Q5_K"),
    "IQ3_XS": Mix(
        "IQ3_S",
        attn_v={shared_by_4: "Q4_K"},
        attn_output_8x="Q5_K",
        attn_q="IQ3_XXS",
        attn_k="IQ3_XXS",
        ffn_gate={between_8ths: "IQ3_XXS"},
        ffn_up={between_8ths: "IQ3_XXS"},
    ),
    "IQ3_XXS": Mix(
        "IQ3_XXS",
        attn_v={shared_by_4: "Q4_K", without_imatrix: "IQ3_S"},
        ffn_down={with_imatrix: "IQ3_XXS", first_8th: "Q4_K", always: "Q3_K"},
        attn_output="IQ3_S",
        attn_output_8x="Q5_K",
        attn_q="IQ2_S",
        attn_k="IQ2_S",
        token_embd="IQ3_S",
        output="Q5_K",
    ),
    "Q2_K": Mix(
        "Q2_K",
        attn_v={shared_by_4: "Q4_K", always: "Q3_K"},
        ffn_down="Q3_K",
        attn_output="Q3_K",
        attn_output_8x="Q5_K",
    ),
    "Q2_K_S": Mix("Q2_K", attn_v={shared_by_4: "Q4_K"}, ffn_down={first_8th: "Q4_K"}),
    "IQ2_M": smallest("IQ2_S", better="IQ3_S", attn_output="IQ3_S"),
    "IQ2_S": smallest("IQ2_XS", better="IQ3_S", attn_output="IQ3_S"),
    "IQ2_XS": smallest("IQ2_XS", better="Q2_K"),
    "IQ2_XXS": smallest("IQ2_XXS", better="Q2_K"),
    "TQ2_0": Mix("TQ2_0", token_embd="Q4_K"),
    "TQ1_0": Mix("TQ1_0", token_embd="Q4_K"),
    "IQ1_M": smallest("IQ1_M", better="Q2_K", attn_output="IQ2_XXS"),
    "IQ1_S": smallest("IQ1_S", better="Q2_K", attn_output="IQ2_XXS"),
}

# Where the columns do not divide into the format's blocks; where not even these fit, it is F16.
FALLBACKS = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}


def known_mix(name: str) -> Mix:
    if not isinstance(name, str) or name not in MIXES:
        raise ValueError(f"unknown mix {name!r}; known are {', '.join(MIXES)}")
    return MIXES[name]


def choose(mix: Mix, kind: str, place: Place) -> str:
    """Returns the format that a mix gives to a tensor of this kind, for example "attn_v", in this place."""
    if mix.base == "F16":
        return "F16"
    if place.n_expert == 8 and (qtype := choose_8x(mix, kind)):
        return qtype
    choice = getattr(mix, kind, "")
    if isinstance(choice, Mapping):
        choice = next((qtype for condition, qtype in choice.items() if condition(place)), "")
    qtype = choice or mix.base
    if kind == "attn_v" and place.is_70b and not mix.smallest and qtype in ("Q3_K", "Q4_K"):
        return "Q5_K"  # 8 query heads share each of its rows: it is an eighth of attn_q
    return qtype


def choose_8x(mix: Mix, kind: str) -> str:
    """In a model of 8 experts (Mixtral) attention is so small that llama.cpp spares no bits on it."""
    if kind == "attn_output":
        return mix.attn_output_8x or mix.base
    if mix.smallest:
        return "Q4_K" if kind == "attn_k" else ""
    return "Q8_0" if kind in ("attn_k", "attn_v") else ""
