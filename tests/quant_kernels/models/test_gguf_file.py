"""Loading: every tensor type, and a clear message for whatever is not a Llama's GGUF."""

import gguf
import numpy as np
import pytest
import torch

from quant_kernels.models.gguf_file import load_model

MATRIX = "blk.1.ffn_down.weight"  # (64, 96): its rows divide by 32
Types = gguf.GGMLQuantizationType


def test_config_and_weights_are_the_files(tiny_gguf):
    path = tiny_gguf(llama__rope__freq_base=500000.0)
    model = load_model(path)
    config = model.config
    assert (config.n_layer, config.n_head, config.n_head_kv, config.head_dim) == (2, 4, 2, 16)
    assert (config.n_embd, config.n_ff, config.n_ctx, config.vocab) == (64, 96, 128, 264)
    assert (config.rope_base, config.tied, config.bos_id) == (500000.0, False, None)
    assert config.rms_eps == pytest.approx(1e-5)
    for tensor in gguf.GGUFReader(path).tensors:
        np.testing.assert_array_equal(model.get_parameter(tensor.name).numpy(), tensor.data)
    assert not model.training and not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("qtype", [Types.F16, Types.BF16, Types.Q4_0, Types.Q4_1, Types.Q5_0, Types.Q5_1, Types.Q8_0])
def test_quantized_tensors_load_dequantized(tiny_gguf, qtype):
    path = tiny_gguf(qtypes={MATRIX: qtype})
    stored = next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == MATRIX)
    loaded = load_model(path).weights()[MATRIX]
    assert loaded.dtype == torch.float32 and loaded.shape == (64, 96)
    np.testing.assert_array_equal(loaded.numpy(), gguf.dequantize(stored.data, qtype))


def test_weights_do_not_hang_on_to_the_file(tiny_gguf):
    path = tiny_gguf()
    model = load_model(path)
    before = model.weights()[MATRIX].clone()
    model.weights()[MATRIX].mul_(2)
    assert torch.equal(load_model(path).weights()[MATRIX], before)


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"general.architecture": "gpt2"}, "general.architecture is 'gpt2'; supported: 'llama'"),
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type is 'yarn'; supported: 'none'"),
        ({"llama.expert_count": 8}, "llama.expert_count is 8; supported: 0"),
        ({"split.count": 3}, "split.count is 3; supported: 1"),
        ({"llama.block_count": None}, "llama.block_count is None, not a positive number"),
        ({"llama.block_count": 9}, "llama.block_count is 9, but the tensor blk.8.attn_q.weight is missing"),
        ({"llama.block_count": 1}, "9 tensors are not supported, such as blk.1.attn_norm.weight"),
        ({"llama.context_length": 12.5}, "llama.context_length is 12.5, not an integer"),
        ({"llama.attention.head_count_kv": 3}, "4 query heads cannot share 3 key heads evenly"),
        ({"llama.attention.key_length": 7}, "head dimension 7 is odd"),
        ({"llama.rope.dimension_count": 8}, "llama.rope.dimension_count is 8, not the head dimension 16"),
        ({"llama.feed_forward_length": 128}, r"blk.0.ffn_gate.weight has shape \(96, 64\), not \(128, 64\)"),
        (
            {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": 5000},
            "tokenizer.ggml.bos_token_id is 5000, not in 0 to 263",
        ),
    ],
)
def test_unsupported_metadata_are_named(tiny_gguf, claims, message):
    path = tiny_gguf(claims=claims)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blk.0.attn_v.weight"), "1 tensors are missing, such as blk.0.attn_v.weight"),
        (lambda t: t.pop("token_embd.weight"), "token_embd.weight is missing"),
        (
            lambda t: t.update({"blk.0.attn_q.bias": np.zeros(64, np.float32)}),
            "not supported, such as blk.0.attn_q.bias",
        ),
        (lambda t: t.update({"output_norm.weight": np.zeros(65, np.float32)}), r"has shape \(65,\), not \(64,\)"),
    ],
)
def test_wrong_tensors_are_named(tiny_gguf, change, message):
    with pytest.raises(ValueError, match=message):
        load_model(tiny_gguf(change=change))


def test_type_that_gguf_cannot_dequantize(tiny_gguf):
    with pytest.raises(ValueError, match=r"output_norm\.weight has type I8, which gguf cannot dequantize"):
        load_model(with_int8_norm(tiny_gguf()))


def with_int8_norm(path):
    field = next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == "output_norm.weight").field
    return overwritten(path, field, 4, int(Types.I8).to_bytes(4, "little"))


def overwritten(path, field, part, data):
    """The file with other bytes where one part of a header field stands."""
    at = field.offset + sum(before.nbytes for before in field.parts[:part])
    damaged = bytearray(path.read_bytes())
    damaged[at : at + len(data)] = data
    path.write_bytes(damaged)
    return path


def test_array_of_endless_length_is_refused_at_the_end_of_the_file(tiny_gguf):
    path = tiny_gguf()
    field = gguf.GGUFReader(path).get_field("tokenizer.ggml.token_type")
    overwritten(path, field, 4, (1 << 50).to_bytes(8, "little"))
    with pytest.raises(ValueError, match="damaged or truncated"):
        load_model(path)


def test_not_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.gguf does not exist"):
        load_model(tmp_path / "none.gguf")
    with pytest.raises(ValueError, match="is not a file but a directory"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a GGUF file: it is empty"),
        (b"PK\x03\x04 a zip archive", r"it begins with b'PK\\x03\\x04'"),
        (b"GGUF\x01\x00\x00\x00", "has GGUF version 1; supported: 2 and 3"),
        (b"GGUF\x00\x00\x00\x03", "has GGUF version 50331648; supported: 2 and 3, little-endian"),
        (b"GGUF\x03\x00\x00\x00", r"damaged or truncated \(8 bytes\)"),
    ],
)
def test_foreign_file(tmp_path, content, message):
    path = tmp_path / "foreign.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_model(path)


def test_every_truncation_is_refused(tiny_gguf):
    path = tiny_gguf()
    whole = path.read_bytes()
    last = max(tensor.data_offset + tensor.n_bytes for tensor in gguf.GGUFReader(path).tensors)
    lengths = [*range(8, 600, 31), *range(600, last, last // 40), last - 1]
    for length in lengths:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="damaged or truncated"):
            load_model(path)
    path.write_bytes(whole[:last])
    load_model(path)


def test_damaged_header_never_hangs_or_escapes(tiny_gguf):
    path = tiny_gguf()
    whole = path.read_bytes()
    header = min(tensor.data_offset for tensor in gguf.GGUFReader(path).tensors)
    random = np.random.RandomState(1)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for at in random.randint(8, header, size=random.randint(1, 4)):
            damaged[at] = random.randint(256)
        path.write_bytes(damaged)
        try:
            load_model(path)
        except ValueError:
            refused += 1
    assert refused > 30


def test_smollm2_has_its_shape(smollm2):
    config = smollm2.config
    assert (config.n_layer, config.n_head, config.n_head_kv, config.n_embd) == (30, 9, 3, 576)
    assert (config.n_ff, config.n_ctx, config.vocab, config.rope_base) == (1536, 8192, 49152, 100000.0)
    assert config.tied and config.bos_id is None
    weights = smollm2.weights()
    assert len(weights) == 211 and weights["blk.29.attn_k.weight"].shape == (192, 576)
    assert sum(p.numel() for p in smollm2.parameters()) == 134_515_008 + 32  # and the 32 rope factors, all 1
