"""Saving: what is loaded again is the same, and what cannot be the same is refused."""

from dataclasses import replace

import gguf
import pytest
import torch

from quant_kernels.models import gguf_writer
from quant_kernels.models.gguf_file import load_model
from quant_kernels.models.gguf_writer import save_gguf, stored_pairs, typed
from quant_kernels.models.llama import Config, Llama
from quant_kernels.models.quantize_model import quantize_model

CONFIG = Config(n_layer=2, n_head=4, n_head_kv=2, n_embd=64, n_ff=96, n_ctx=32, vocab=50, head_dim=16)
Kind = gguf.GGUFValueType


@pytest.fixture
def path(tmp_path):
    return tmp_path / "saved.gguf"


def random_llama(**changes):
    torch.manual_seed(0)
    return Llama(replace(CONFIG, **changes)).requires_grad_(False)


def same_weights(a, b):
    return a.state_dict().keys() == b.state_dict().keys() and all(
        torch.equal(weight, b.state_dict()[name]) for name, weight in a.state_dict().items()
    )


def types(path):
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tied": True},
        {"rope_freqs": True},
        {"llama__attention__key_length": 24},
        {"claims": {"tokenizer.ggml.add_bos_token": True, "general.tags": ["a", "b"], "llama.rope.freq_base": 5e5}},
    ],
)
def test_a_loaded_model_comes_back_as_it_was(tiny_gguf, path, options):
    model = load_model(tiny_gguf(**options))
    save_gguf(model, path)
    again = load_model(path)
    assert same_weights(model, again) and model.config == again.config
    said_of_itself = {"GGUF.kv_count", "GGUF.tensor_count", "GGUF.version", "general.file_type"}
    added = {"general.quantization_version", "llama.vocab_size", "llama.rope.dimension_count"}
    added |= {"llama.attention.value_length"} if "llama.attention.key_length" in model.metadata else set()
    assert again.metadata.keys() - model.metadata.keys() <= said_of_itself | added
    assert {k: v for k, v in model.metadata.items() if again.metadata[k] != v}.keys() <= said_of_itself
    assert again.tokenizer.encode("the hand") == model.tokenizer.encode("the hand")


def test_float16_if_that_loses_nothing(path):
    model = random_llama()
    save_gguf(model, path)
    assert types(path)["blk.0.attn_q.weight"] == "F32" and load_model(path).metadata["general.file_type"] == 0
    for weight in model.weights().values():
        weight.data = weight.half().float()
    save_gguf(model, path)
    assert types(path)["blk.0.attn_q.weight"] == "F16" and load_model(path).metadata["general.file_type"] == 1
    assert types(path)["blk.0.attn_norm.weight"] == "F32"
    assert same_weights(model, load_model(path))


def test_the_type_that_is_asked_for(path):
    model = random_llama()
    save_gguf(model, path, dtype="F16")
    assert torch.equal(load_model(path).weights()["token_embd.weight"], model.token_embd.weight.half().float())
    with pytest.raises(ValueError, match="dtype is 'Q8_0', not 'F32' or 'F16'"):
        save_gguf(model, path, dtype="Q8_0")


def test_nothing_is_clipped(path):
    model = random_llama()
    model.blk[1].ffn_up.weight.data[3, 4] = -1e6
    with pytest.raises(ValueError, match=r"blk\.1\.ffn_up\.weight holds -1000000\.0, too much for F16"):
        save_gguf(model, path, dtype="F16")
    assert not path.exists()
    save_gguf(model, path)
    assert same_weights(model, load_model(path))


def test_a_broken_model_is_saved_as_it_is(path):
    model = random_llama()
    model.output_norm.weight.data[0] = float("nan")
    model.blk[0].ffn_up.weight.data[0, 0] = float("inf")
    save_gguf(model, path)
    assert load_model(path).output_norm.weight.isnan().sum() == 1
    assert load_model(path).blk[0].ffn_up.weight[0, 0] == float("inf")


def test_a_config_is_enough(path):
    model = random_llama(head_dim=24, rope_base=5e5, rms_eps=1e-6, tied=True, bos_id=7)
    save_gguf(model, path)
    again = load_model(path)
    assert again.config == replace(model.config, rms_eps=again.config.rms_eps)  # which is rounded to 32 bits
    assert again.config.rms_eps == pytest.approx(1e-6)
    assert again.metadata["tokenizer.ggml.model"] == "no_vocab"


def test_the_config_has_the_last_word_on_sizes(tiny_gguf, path):
    model = random_llama(vocab=264, rms_eps=2**-20)
    model.metadata = load_model(tiny_gguf()).metadata | {"llama.block_count": 9, "llama.attention.key_length": 8}
    save_gguf(model, path)
    assert load_model(path).config == model.config


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"tokenizer.ggml.tokens": ["a"] * 49}, "tokenizer.ggml.tokens are 49, the model's vocabulary 50"),
        (
            {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": 3},
            "begins with the token 3 by the metadata, with None by the config",
        ),
        ({"x": None}, "x is a NoneType, which GGUF metadata cannot hold"),
        ({"x": {"y": 1}}, "x is a dict"),
        ({"x": [1, "a"]}, "x is a list of int and str, not of one type"),
    ],
)
def test_metadata_that_do_not_suit_are_refused(path, metadata, message):
    model = random_llama()
    model.metadata = metadata
    with pytest.raises(ValueError, match=message):
        save_gguf(model, path)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize(
    ("value", "kind", "item"),
    [
        (True, Kind.BOOL, None),
        (7, Kind.UINT32, None),
        (-7, Kind.INT64, None),
        (2**40, Kind.INT64, None),
        (0.5, Kind.FLOAT32, None),
        ("é", Kind.STRING, None),
        ([1, -2], Kind.ARRAY, Kind.INT32),
        ([1, 2**31], Kind.ARRAY, Kind.INT64),
        ([0.5], Kind.ARRAY, Kind.FLOAT32),
        ([True], Kind.ARRAY, Kind.BOOL),
        (["a"], Kind.ARRAY, Kind.STRING),
    ],
)
def test_types_of_metadata(path, value, kind, item):
    assert typed("key", value) == (value, kind, item)
    model = random_llama()
    model.metadata = {"key": value}
    save_gguf(model, path)
    assert stored_pairs(path)["key"] == (value, kind, item)


def test_an_empty_list_is_left_out(path):
    model = random_llama()
    model.metadata = {"empty": []}
    save_gguf(model, path)
    assert "empty" not in load_model(path).metadata


def test_a_quantized_model_is_saved_as_its_bytes(tiny_gguf, path):
    model = quantize_model(load_model(tiny_gguf()), "Q4_K_M")
    save_gguf(model, path)
    for tensor in gguf.GGUFReader(path).tensors:
        qtype, data = model.packed[tensor.name]
        assert (tensor.tensor_type.name, tensor.data.tobytes()) == (qtype, data.numpy().tobytes())
    again = load_model(path)
    assert same_weights(model, again)
    assert again.metadata["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q4_K_M


def test_a_quantized_model_that_has_changed_is_saved_only_as_floats(tiny_gguf, path):
    model = quantize_model(load_model(tiny_gguf()), "Q4_0")
    model.blk[1].attn_k.weight.data[0, 0] += 1
    with pytest.raises(ValueError, match=r"blk\.1\.attn_k\.weight has changed"):
        save_gguf(model, path)
    save_gguf(model, path, dtype="F32")
    assert same_weights(model, load_model(path))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_what_was_there(path, monkeypatch, error):
    path.write_bytes(b"before")

    def fail(*_):
        assert len(list(path.parent.iterdir())) == 2  # the file being written stands beside the old one
        raise error

    monkeypatch.setattr(gguf_writer.GGUFWriter, "write_tensor_data", fail)
    with pytest.raises(type(error), match="saved.gguf could not be written: .*No space left" if error.args else None):
        save_gguf(random_llama(), path)
    assert [file.name for file in path.parent.iterdir()] == [path.name] and path.read_bytes() == b"before"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        save_gguf(random_llama(), tmp_path / "none" / "model.gguf")
