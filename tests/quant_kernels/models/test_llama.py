"""The architecture, against llama.cpp's figures and against properties that it must have."""

import math

import numpy as np
import pytest
import torch

from quant_kernels.measures.perplexity import perplexity
from quant_kernels.models.gguf_file import load_model
from quant_kernels.models.llama import rotate

# The tiny models' perplexity on lighthouse.txt as printed by llama-perplexity (llama.cpp 0c1e57098, as in the sdist of
# llama-cpp-python 0.3.36): -c 64 -b 64 -ub 64 -ctk f32 -ctv f32 -fa off.
WIDE = {f"llama__{key}": 32 for key in ("attention__key_length", "attention__value_length", "rope__dimension_count")}
LLAMA_CPP = {
    "two query heads per key head": ({}, 837.0199, 33.84017),
    "tied output": ({"tied": True}, 821.7033, 28.74051),
    "as many key heads": ({"n_head_kv": 4}, 917.8844, 35.48920),
    "one key head": ({"n_head_kv": 1}, 1114.9077, 45.67443),
    "Llama 3's rope factors": ({"rope_freqs": True}, 837.1952, 33.62264),
    "another rope base": ({"llama__rope__freq_base": 500000.0}, 832.1991, 33.58354),
    "heads wider than n_embd / n_head": (WIDE, 1042.2359, 42.76420),
    "another epsilon": ({"llama__attention__layer_norm_rms_epsilon": 0.1}, 964.7305, 41.77632),
    "a BOS in each window": ({"tokenizer__ggml__add_bos_token": True}, 838.2600, 33.73875),
}


@pytest.mark.parametrize("variant", LLAMA_CPP)
def test_tiny_models_score_as_in_llama_cpp(tiny_gguf, lighthouse, variant):
    options, value, standard_error = LLAMA_CPP[variant]
    model = load_model(tiny_gguf(**options))
    result = perplexity(model, model.tokenizer.encode(lighthouse, add_special=True), n_ctx=64)
    assert result.value == pytest.approx(value, rel=1e-6)
    assert result.standard_error == pytest.approx(standard_error, rel=1e-6)


def test_smollm2_scores_as_in_llama_cpp(smollm2, lighthouse):
    # The same tool and options (with --chunks) on the file converted to F32: llama.cpp would quantize the activations
    # of a Q4_1 file. On this model its figures stand 1e-5 off a float64 run, from which ours is 1e-6 away at most.
    tokens = smollm2.tokenizer.encode(lighthouse, add_special=True)
    for n_ctx, windows, value, standard_error in [(512, 1, 31.2563, 5.60996), (128, 3, 22.7953, 4.33279)]:
        result = perplexity(smollm2, tokens[: windows * n_ctx], n_ctx)
        assert result.value == pytest.approx(value, rel=3e-5)
        assert result.standard_error == pytest.approx(standard_error, rel=3e-5)


def test_rotation_worked_by_hand():
    x = torch.tensor([[[[1.0, 0.0, 0.0, 2.0]]]])  # (1, 1, 1, 4): two pairs, turned by 90 and 180 degrees
    angles = torch.tensor([[math.pi / 2, math.pi]])
    torch.testing.assert_close(rotate(x, angles.cos(), angles.sin()), torch.tensor([[[[0.0, 1.0, 0.0, -2.0]]]]))


@pytest.fixture
def tiny(tiny_gguf):
    return load_model(tiny_gguf())


def test_logits_do_not_see_later_tokens(tiny):
    tokens = torch.tensor(np.random.RandomState(0).randint(0, 264, (2, 20)))
    changed = tokens.clone()
    changed[:, 12:] = 7
    before, after = tiny(tokens), tiny(changed)
    assert before.shape == (2, 20, 264) and before.dtype == torch.float32
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


def test_windows_of_a_batch_do_not_see_each_other(tiny):
    tokens = torch.tensor(np.random.RandomState(0).randint(0, 264, (3, 16)))
    torch.testing.assert_close(tiny(tokens)[1:2], tiny(tokens[1:2]))


def test_logits_of_some_positions_are_those_of_all(tiny):
    tokens = torch.tensor(np.random.RandomState(0).randint(0, 264, (2, 20)))
    every = tiny(tokens)
    for positions in (slice(10, -1), slice(3), slice(0)):
        torch.testing.assert_close(tiny(tokens, positions), every[:, positions])


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.zeros(5, dtype=torch.long), r"tokens have shape \(5,\), not \(batch, 1 to 128\)"),
        (torch.zeros(1, 129, dtype=torch.long), r"shape \(1, 129\)"),
        (torch.zeros(1, 0, dtype=torch.long), r"shape \(1, 0\)"),
        (torch.tensor([[0, 264]]), "token ids 0 to 264 are not all in 0 to 263"),
        (torch.tensor([[-1, 3]]), "token ids -1 to 3"),
    ],
)
def test_bad_tokens_are_refused(tiny, tokens, message):
    with pytest.raises(ValueError, match=message):
        tiny(tokens)


def test_weights_are_the_matrices_by_gguf_name(tiny):
    weights = tiny.weights()
    assert len(weights) == 2 + 2 * 7
    assert weights["blk.0.attn_k.weight"].shape == (32, 64)
    assert not [name for name in weights if "norm" in name or "rope" in name]


def test_replaced_weights_count_until_the_block_ends(tiny):
    tokens = torch.arange(10)[None]
    before = tiny(tokens)
    zeros = {name: torch.zeros_like(w) for name, w in tiny.weights().items() if name.endswith("attn_output.weight")}
    with tiny.replaced(zeros) as changed:
        assert not torch.allclose(changed(tokens), before)
    assert torch.equal(tiny(tokens), before)


def test_replaced_weights_are_restored_after_an_error(tiny):
    original = tiny.weights()["output.weight"].clone()
    with pytest.raises(RuntimeError, match="stop"), tiny.replaced({"output.weight": torch.zeros(264, 64)}):
        raise RuntimeError("stop")
    assert torch.equal(tiny.weights()["output.weight"], original)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("blk.7.attn_q.weight", (64, 64), "the model has no weight matrix 'blk.7.attn_q.weight'"),
        ("blk.0.attn_k.weight", (64, 32), r"has shape \(32, 64\), its replacement \(64, 32\)"),
    ],
)
def test_wrong_replacements_are_named(tiny, name, shape, message):
    with pytest.raises(ValueError, match=message), tiny.replaced({name: torch.zeros(shape)}):
        pass
