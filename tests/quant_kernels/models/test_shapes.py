"""Shapes of Llamas, against a model's own and the published numbers of parameters."""

import math

import pytest
import torch

from quant_kernels.models.llama import Config, Llama
from quant_kernels.models.shapes import ARCHITECTURES, llama_shapes

PUBLISHED = {  # without the factors of rotary frequencies, which are in no count
    "Llama-2-7B": 6_738_415_616,
    "Llama-2-13B": 13_015_864_320,
    "Llama-2-70B": 68_976_648_192,
    "Llama-3-8B": 8_030_261_248,
    "Llama-3-70B": 70_553_706_496,
    "Llama-3.1-405B": 405_853_388_800,
    "Llama-3.2-1B": 1_235_814_400,
    "Llama-3.2-3B": 3_212_749_824,
    "Mistral-7B": 7_241_732_096,
    "Mixtral-8x7B": 46_702_792_704,
    "TinyLlama-1.1B": 1_100_048_384,
    "SmolLM2-135M": 134_515_008,
    "SmolLM2-360M": 361_821_120,
    "SmolLM2-1.7B": 1_711_376_384,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_many_as_published(name):
    shapes = llama_shapes(ARCHITECTURES[name])
    shapes.pop("rope_freqs.weight", None)
    assert sum(map(math.prod, shapes.values())) == PUBLISHED[name]


@pytest.mark.parametrize("tied", [False, True])
def test_shapes_are_those_of_a_model_of_this_config(tied):
    config = Config(n_layer=2, n_head=6, n_head_kv=2, n_embd=48, n_ff=80, n_ctx=16, vocab=50, head_dim=10, tied=tied)
    with torch.device("meta"):
        own = {name: tuple(tensor.shape) for name, tensor in Llama(config).state_dict().items()}
    del own["rope_freqs.weight"]
    assert llama_shapes(config) == own


def test_experts_are_stacked():
    shapes = llama_shapes(ARCHITECTURES["Mixtral-8x7B"])
    assert shapes["blk.31.ffn_down_exps.weight"] == (8, 4096, 14336)
    assert shapes["blk.0.ffn_gate_inp.weight"] == (8, 4096)


def test_heads_can_be_of_any_length():
    assert ARCHITECTURES["Llama-3.2-3B"].head_dim == 128
    assert llama_shapes(ARCHITECTURES["Llama-3.1-8B"])["rope_freqs.weight"] == (64,)
