"""What a file is said to hold, against gguf's tables, the size on the disk and headers written by hand."""

import json
import struct

import gguf
import numpy as np
import pytest

import quant_kernels as qk
from quant_kernels.models.inspect_gguf import as_json, inspect_gguf

Types = gguf.GGMLQuantizationType


def header(n_tensors, n_pairs):
    return struct.pack("<4sIQQ", b"GGUF", 3, n_tensors, n_pairs)


def tensor_info(name, dims, number, offset=0):
    return struct.pack(f"<Q{len(name)}sI{len(dims)}QIQ", len(name), name, len(dims), *dims, number, offset)


def pair(key, number, value):
    return struct.pack(f"<Q{len(key)}sI", len(key), key, number) + value


@pytest.fixture
def by_hand(tmp_path):
    """A function that writes bytes, up to a size that is not written but claimed, and returns the file's path."""

    def write(data, size=0):
        path = tmp_path / "hand.gguf"
        path.write_bytes(data.ljust(-(-len(data) // 32) * 32, b"\0"))
        if size:
            with path.open("r+b") as file:
                file.truncate(size)
        return path

    return write


def test_every_type_has_the_size_of_gguf_and_of_the_file(tmp_path):
    path = tmp_path / "all.gguf"
    writer = gguf.GGUFWriter(path, "none")
    for qtype, (block_size, type_size) in gguf.GGML_QUANT_SIZES.items():
        writer.add_tensor(qtype.name, np.zeros((3, 512 // block_size * type_size), np.uint8), raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    before = path.stat().st_size
    writer.write_tensors_to_file()
    writer.close()
    contents = inspect_gguf(path)
    assert [tensor.qtype for tensor in contents.tensors] == [qtype.name for qtype in gguf.GGML_QUANT_SIZES]
    for tensor in contents.tensors:
        block_size, type_size = gguf.GGML_QUANT_SIZES[Types[tensor.qtype]]
        assert (tensor.shape, tensor.n_weights) == ((3, 512), 1536)
        assert tensor.n_bytes == 1536 // block_size * type_size
        assert tensor.bits_per_weight == 8 * type_size / block_size
    assert contents.n_bytes == sum(tensor.n_bytes for tensor in contents.tensors)
    assert contents.file_bytes == path.stat().st_size
    infos_and_padding = contents.file_bytes - before - contents.n_bytes
    assert (
        0
        < infos_and_padding
        < 32 * (len(contents.tensors) + 1)
        + sum(len(tensor_info(tensor.qtype.encode(), (512, 3), 0)) for tensor in contents.tensors)
    )


def test_a_model(tiny_gguf):
    claims = {"general.name": "Tiny", "general.file_type": int(gguf.LlamaFileType.MOSTLY_Q8_0)}
    contents = inspect_gguf(tiny_gguf(claims=claims, qtypes={"blk.0.ffn_down.weight": Types.Q8_0}))
    assert (contents.version, contents.file_type) == (3, "mostly Q8_0")
    tensors = {tensor.name: tensor for tensor in contents.tensors}
    assert tensors["blk.0.ffn_down.weight"].shape == (64, 96)
    assert tensors["output_norm.weight"].shape == (64,)
    assert contents.n_weights == sum(p.numel() for p in qk.load_model(contents.path).parameters()) - 8  # rope factors
    quantized = 64 * 96
    assert contents.n_bytes == 4 * (contents.n_weights - quantized) + quantized // 32 * 34
    assert contents.bits_per_weight == 8 * contents.n_bytes / contents.n_weights
    shares = {share.qtype: share for share in contents.by_type()}
    assert list(shares) == ["F32", "Q8_0"]
    assert (shares["Q8_0"].n_tensors, shares["Q8_0"].n_weights, shares["Q8_0"].bits_per_weight) == (1, quantized, 8.5)
    assert shares["F32"].n_tensors == len(tensors) - 1
    assert contents.metadata["general.name"] == "Tiny"
    assert contents.metadata["tokenizer.ggml.token_type"][-3:] == [1, 3, 4]
    assert contents.metadata["tokenizer.ggml.merges"][:2] == ["t h", "th e"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "all F32"), (7, "mostly Q8_0"), (15, "mostly Q4_K_M"), (99, "unknown (99)"), (None, None)],
)
def test_the_mix_has_its_name(tiny_gguf, number, expected):
    assert inspect_gguf(tiny_gguf(claims={"general.file_type": number})).file_type == expected


def test_arrays_are_gguf_s(tmp_path):
    path = tmp_path / "arrays.gguf"
    arrays = {"bytes": b"\x01\xff", "ints": [3, -4], "floats": [0.5, -2.0], "texts": ["", "é"], "flags": [True, False]}
    writer = gguf.GGUFWriter(path, "none")
    for key, values in arrays.items():
        writer.add_array(key, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    metadata = inspect_gguf(path).metadata
    assert metadata == {
        key: field.contents() for key, field in gguf.GGUFReader(path).fields.items() if "GGUF" not in key
    }
    assert metadata == {"general.architecture": "none"} | arrays | {"bytes": [1, 255]}


def test_json_holds_everything(tiny_gguf):
    contents = inspect_gguf(tiny_gguf(claims={"general.name": "Tiny", "odd": float("inf")}))
    data = json.loads(json.dumps(as_json(contents), allow_nan=False))
    assert (data["architecture"], data["name"], data["file_type"]) == ("llama", "Tiny", None)
    assert (data["n_weights"], data["n_bytes"], data["bits_per_weight"]) == (contents.n_weights, contents.n_bytes, 32.0)
    assert data["n_pairs"] == len(data["metadata"]) == 18 and data["n_tensors"] == len(data["tensors"]) == 21
    assert data["tensors"][0] == {
        "name": "token_embd.weight",
        "shape": [264, 64],
        "type": "F32",
        "n_weights": 264 * 64,
        "n_bytes": 4 * 264 * 64,
        "bits_per_weight": 32.0,
    }
    assert data["types"] == [
        {"type": "F32", "n_tensors": 21, **{key: data[key] for key in ("n_weights", "n_bytes", "bits_per_weight")}}
    ]
    assert data["metadata"]["odd"] is None
    assert data["metadata"]["tokenizer.ggml.merges"] == {"length": 6, "first": ["t h", "th e", "Ġ the", "i n"]}


def test_a_file_without_tensors(by_hand):
    contents = inspect_gguf(by_hand(header(0, 0)))
    assert (contents.tensors, contents.by_type(), contents.metadata) == ([], [], {})
    assert (contents.n_weights, contents.n_bytes, contents.bits_per_weight) == (0, 0, None)
    assert as_json(contents)["bits_per_weight"] is None


def test_a_tensor_without_weights(by_hand):
    contents = inspect_gguf(by_hand(header(1, 0) + tensor_info(b"none", (32, 0), Types.Q4_0)))
    assert (contents.tensors[0].shape, contents.bits_per_weight) == ((0, 32), None)


def test_only_the_header_of_a_large_file_is_read(by_hand):
    n_bytes = 4 * 2**20 * 1280
    path = by_hand(header(1, 0) + tensor_info(b"large", (1280, 2**20), Types.F32), size=96 + n_bytes)
    inspect_gguf(path)
    contents, peak = qk.peak_memory(inspect_gguf, path)
    assert contents.n_bytes == n_bytes
    assert peak < 10_000_000


ONE, TWO = header(1, 0), header(2, 0)
ARRAY = header(0, 1) + pair(b"k", 9, b"")
HOSTILE = {
    "tensors": (header(2**60, 0), "1152921504606846976 tensors do not fit"),
    "a few tensors too many": (header(9, 0) + bytes(150), "9 tensors do not fit"),
    "key-value pairs": (header(0, 2**64 - 1), "18446744073709551615 key-value pairs do not fit"),
    "key": (header(0, 1) + struct.pack("<Q", 2**63) + bytes(40), "go on up to byte 9223372036854775840"),
    "numbers": (ARRAY + struct.pack("<IQ", 6, 2**62), "go on up to byte 18446744073709551665"),
    "strings": (ARRAY + struct.pack("<IQ", 8, 2**62), "go on up to byte"),
    "arrays in an array": (ARRAY + struct.pack("<IQ", 9, 2**62), "items of type 9"),
    "type of a value": (header(0, 1) + pair(b"k", 77, b""), " 77 is not a valid GGUFValueType"),
    "dimensions": (ONE + struct.pack("<QsI", 1, b"t", 2**32 - 1) + bytes(40), "go on up to byte 34359738397"),
    "shape": (ONE + tensor_info(b"t", (2**33, 2**33), 0), "tensor t goes on up to byte 295147905179352825952"),
    "offset": (ONE + tensor_info(b"t", (32,), 0, 2**64 - 32), "tensor t goes on up to byte 18446744073709551776"),
    "part of a block": (ONE + tensor_info(b"t", (33,), Types.Q8_0) + bytes(64), "not a multiple of Q8_0 block size"),
    "the same name": (TWO + 2 * tensor_info(b"t", (), Types.F32) + bytes(64), "duplicated tensor with name t"),
    "letters": (ONE + tensor_info(b"\xff", (), Types.F32), "can't decode byte 0xff"),
}


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_headers_are_refused(by_hand, data, message):
    path = by_hand(data)
    with pytest.raises(ValueError, match=message) as caught:
        inspect_gguf(path)
    assert str(caught.value).startswith(f"{path} is damaged or truncated ({path.stat().st_size} bytes): ")


def test_a_type_that_gguf_does_not_know_is_named(by_hand):
    assert 42 not in list(Types)
    path = by_hand(header(1, 0) + tensor_info(b"output.weight", (64, 2), 42) + bytes(64))
    with pytest.raises(ValueError, match=r"gguf: output.weight has type 42, which gguf \d.* does not know"):
        inspect_gguf(path)


def test_smollm2(smollm2_path):
    contents = inspect_gguf(smollm2_path)
    assert (contents.file_type, len(contents.tensors), contents.n_weights) == ("mostly Q4_1", 272, 134_515_008)
    assert {share.qtype: share.n_tensors for share in contents.by_type()} == {"Q4_1": 210, "Q8_0": 1, "F32": 61}
    assert round(contents.bits_per_weight, 4) == 5.7437
