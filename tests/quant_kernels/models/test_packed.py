"""Tensors as bytes, and the model that keeps them."""

import copy
import pickle

import pytest
import torch

from quant_kernels.models.llama import Config, Llama
from quant_kernels.models.packed import pack, unpack
from quant_kernels.models.quantize_model import quantize_model
from quant_kernels.qtypes import quantize

CONFIG = Config(n_layer=1, n_head=2, n_head_kv=2, n_embd=32, n_ff=64, n_ctx=16, vocab=40, head_dim=16)


@pytest.fixture
def small():
    torch.manual_seed(0)
    return quantize_model(Llama(CONFIG), "Q8_0")


@pytest.mark.parametrize(("qtype", "dtype"), [("F32", torch.float32), ("F16", torch.float16), ("BF16", torch.bfloat16)])
def test_floats_are_their_own_bytes(qtype, dtype):
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    data = pack(weight, qtype)
    assert data.dtype == torch.uint8 and data.shape == (3, 8 * dtype.itemsize)
    assert torch.equal(unpack(qtype, data), weight.to(dtype).float())


def test_unpacked_floats_are_in_memory_of_their_own():
    data = pack(torch.ones(4), "F32")
    unpack("F32", data).zero_()
    assert torch.equal(unpack("F32", data), torch.ones(4))


def test_formats_are_those_of_quantize():
    weight = torch.linspace(-1, 1, 64).reshape(2, 32)
    assert torch.equal(pack(weight, "Q4_0"), quantize(weight, "Q4_0"))


def test_float16_does_not_reach_everything():
    with pytest.raises(ValueError, match=r"F16 cannot hold 70000\.0"):
        pack(torch.tensor([1.0, -70000.0]), "F16")


def test_quantized_model_is_a_model(small):
    assert isinstance(small, Llama) and small.config == CONFIG and small.mix == "Q8_0"
    assert not small.training and not any(p.requires_grad for p in small.parameters())
    assert small(torch.tensor([[1, 2, 3]])).shape == (1, 3, 40)
    assert small.n_bytes == sum(tensor.data.numel() for tensor in small.packed.values())
    assert small.bits_per_weight == 8 * small.n_bytes / sum(p.numel() for p in small.parameters() if p.shape != (8,))


def test_it_survives_copying_and_pickling(small):
    for twin in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert twin.packed.keys() == small.packed.keys() and twin.plan == small.plan
        assert torch.equal(twin(torch.tensor([[5]])), small(torch.tensor([[5]])))


def test_changed_weights_are_noticed(small):
    assert small.checked_packed() is small.packed
    small.blk[0].ffn_up.weight.data[0, 0] += 1
    with pytest.raises(ValueError, match=r"blk\.0\.ffn_up\.weight has changed: its Q8_0 bytes stand for other weights"):
        small.checked_packed()


def test_replaced_weights_are_noticed_as_long_as_they_are_there(small):
    name = "blk.0.ffn_up.weight"
    with small.replaced({name: torch.zeros(64, 32)}), pytest.raises(ValueError, match="has changed"):
        small.checked_packed()
    small.checked_packed()
