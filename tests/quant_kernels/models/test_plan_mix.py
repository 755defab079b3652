"""Plans: the types that llama-quantize chooses, the sizes it prints, and what it could not plan either."""

import json
import runpy
from pathlib import Path

import pytest

from quant_kernels.models.mixes import MIXES
from quant_kernels.models.plan_mix import plan_mix
from quant_kernels.models.shapes import ARCHITECTURES, llama_shapes

GOLDEN = Path(__file__).parents[1] / "golden"
MAKER = runpy.run_path(str(GOLDEN / "make_mixes.py"))
CASES = MAKER["architectures"]()
TYPES = json.loads((GOLDEN / "mixes.json").read_text())["types"]


def plan(name, mix, **options):
    return plan_mix(llama_shapes(ARCHITECTURES[name]), mix, **ARCHITECTURES[name].heads, **options)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("imatrix", [False, True])
def test_every_type_is_llama_quantizes_choice(name, imatrix):
    shapes, heads = CASES[name]
    for mix in MIXES:
        if (name, mix) == ("40 columns", "Q4_K_L"):
            continue  # an explicit --output-tensor-type q8_0 has no fallback there: llama-quantize aborts
        expected = TYPES[name].get(f"{mix} with imatrix" if imatrix else mix, TYPES[name][mix])
        if isinstance(expected, str):
            with pytest.raises(ValueError, match=f"{mix} needs an imatrix: it makes {expected} I?Q"):
                plan_mix(shapes, mix, **heads, imatrix=imatrix)
        else:
            assert MAKER["brief"](plan_mix(shapes, mix, **heads, imatrix=imatrix).types()) == expected, mix


def test_golden_types_are_of_all_mixes_and_architectures():
    assert TYPES.keys() == CASES.keys()
    for types in TYPES.values():
        assert types.keys() >= MIXES.keys()
        assert any("with imatrix" in key for key in types)


# What llama-quantize prints for these models, or their published files come to.
@pytest.mark.parametrize(
    ("name", "mix", "bits_per_weight"),
    [
        ("Llama-2-7B", "Q4_K_M", 4.8442),
        ("Llama-2-7B", "Q3_K_M", 3.9146),
        ("Llama-3.1-8B", "F16", 16.0005),
        ("Llama-3.1-8B", "Q8_0", 8.5008),
        ("Llama-3.1-8B", "Q6_K", 6.5633),
        ("Llama-3.1-8B", "Q5_K_M", 5.7036),
        ("Llama-3.1-8B", "Q4_K_M", 4.8944),
        ("Llama-3.1-8B", "Q4_K_S", 4.6672),
        ("Llama-3.1-8B", "Q3_K_L", 4.2979),
        ("Llama-3.1-8B", "Q2_K", 3.1593),
        ("Llama-3.1-8B", "IQ4_XS", 4.4597),
        ("Llama-3.1-8B", "IQ3_M", 3.7628),
        ("Llama-3.1-8B", "IQ2_XXS", 2.3824),
        ("Llama-3.1-8B", "IQ1_S", 2.0042),
    ],
)
def test_bits_per_weight_are_the_published_ones(name, mix, bits_per_weight):
    assert round(plan(name, mix, imatrix=mix.startswith(("IQ1", "IQ2"))).bits_per_weight, 4) == bits_per_weight


@pytest.mark.parametrize(
    ("name", "mix", "mebibytes"),
    [
        ("Llama-3-8B", "Q4_K_M", 4685),
        ("Llama-2-7B", "IQ4_XS", 3478),
        ("Mixtral-8x7B", "Q4_K_M", 27130),
        ("Mixtral-8x7B", "Q2_K", 16509),
    ],
)
def test_sizes_are_what_a_dry_run_prints(name, mix, mebibytes):
    assert round(plan(name, mix).n_bytes / 2**20) == mebibytes


def test_bytes_are_whole_blocks_of_every_tensor():
    found = plan("SmolLM2-135M", "Q4_K_M")
    assert found.tensors["blk.0.attn_q.weight"].n_bytes == 576 * 576 // 32 * 22  # Q5_0: 576 is no multiple of 256
    assert found.tensors["blk.0.ffn_down.weight"].n_bytes == 576 * 1536 // 256 * 210  # Q6_K
    assert found.tensors["blk.0.attn_norm.weight"].n_bytes == 576 * 4
    assert found.n_bytes == sum(tensor.n_bytes for tensor in found.tensors.values())
    assert found.n_weights == 134_515_008


def test_fallbacks_are_told():
    found = plan("SmolLM2-135M", "Q4_K_M")
    assert len(found.fallbacks) == 180  # the number that llama-quantize warns of
    assert found.fallbacks["blk.0.attn_v.weight"] == "Q6_K"
    assert found.tensors["blk.0.attn_v.weight"].qtype == "Q8_0"
    assert not plan("Llama-2-7B", "Q4_K_M").fallbacks


def test_summary_has_a_line_for_each_kind_of_tensor():
    lines = str(plan("Llama-3.1-8B", "Q4_K_M")).splitlines()
    assert lines[0] == "Q4_K_M: 8,030,261,312 weights in 4,912,898,304 bytes (4,685.30 MiB), 4.8944 bits per weight"
    assert len(lines) == 14
    (line,) = [line for line in lines if "attn_v" in line]
    assert line.split(None, 1)[1] == (
        "Q6_K in 0-3, 6, 9, 12, 15, 18, 21, 24, 27-31; Q4_K in 4-5, 7-8, 10-11, 13-14, 16-17, 19-20, 22-23, 25-26"
    )


def test_order_of_the_names_makes_no_difference():
    shapes, heads = CASES["8 experts, a tensor each"]
    backwards = dict(reversed(shapes.items()))
    assert plan_mix(backwards, "IQ2_M", **heads, imatrix=True) == plan_mix(shapes, "IQ2_M", **heads, imatrix=True)


def test_what_is_not_quantized_keeps_its_type():
    shapes, heads = CASES["1 layer"]
    kept = plan_mix(shapes, "Q8_0", **heads, kept_types={"output_norm.weight": "BF16", "output.weight": "BF16"})
    assert kept.tensors["output_norm.weight"].qtype == "BF16"
    assert kept.tensors["output_norm.weight"].n_bytes == 512
    assert kept.tensors["output.weight"].qtype == "Q8_0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mix": "Q4_K"}, "unknown mix 'Q4_K'"),
        ({"shapes": {}}, "there are no tensors"),
        ({"shapes": {"a.weight": ()}}, r"a.weight has shape \(\)"),
        ({"shapes": {"a.weight": (4, 0)}}, r"a.weight has shape \(4, 0\)"),
        ({"n_head": 6, "n_head_kv": 4}, "6 query heads cannot share 4 key-value heads evenly"),
        ({"n_head_kv": 0}, "n_head_kv is 0, not an integer of at least 1"),
        ({"n_head": None}, "n_head is None, not an integer"),
        ({"n_expert": -1}, "n_expert is -1, not an integer of at least 0"),
        ({"shapes": {"ffn_up.weight": (2, 256)}, "n_expert": 8}, "ffn_up.weight is in no layer"),
    ],
)
def test_impossible_models_are_refused(change, message):
    options = {"shapes": {"a.weight": (2, 256)}, "mix": "Q4_K_M", "n_head": 8, "n_head_kv": 8, "n_expert": 0} | change
    shapes, mix = options.pop("shapes"), options.pop("mix")
    with pytest.raises(ValueError, match=message):
        plan_mix(shapes, mix, **options)


def test_unknown_tensors_get_the_base_type():
    found = plan_mix({"mystery.weight": (2, 256), "mystery": (2, 256)}, "Q3_K_M", n_head=1, n_head_kv=1)
    assert found.types() == {"mystery": "F32", "mystery.weight": "Q3_K"}
