"""GGUF files made on the fly, the real model where it has been fetched, and what bytes are compared with."""

import os
import runpy
import shutil
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import settings

import quant_kernels as qk
from course.fetch import SOURCES, cache_folder, is_whole
from quant_kernels import compilation, native

# pytest tests/quant_kernels/test_against_ggml.py --hypothesis-profile thorough
settings.register_profile("thorough", max_examples=10_000, deadline=None)

DATA = Path(__file__).parent / "data"
GOLDEN = Path(__file__).parent / "golden"
MERGES = ["t h", "th e", "Ġ the", "i n", "a n", "an d"]
CONTROL, USER_DEFINED = "<|end|>", "<tool>"


def tiny_metadata(n_layer=2, n_head=4, n_head_kv=2, n_embd=64, n_ff=96, **more):
    """The key-value pairs of a tiny Llama; `more` has keys with __ for dots."""
    tokens = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokens += [merge.replace(" ", "") for merge in MERGES] + [CONTROL, USER_DEFINED]
    pairs = {
        "general.architecture": "llama",
        "llama.block_count": n_layer,
        "llama.context_length": 128,
        "llama.embedding_length": n_embd,
        "llama.feed_forward_length": n_ff,
        "llama.attention.head_count": n_head,
        "llama.attention.head_count_kv": n_head_kv,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * (len(tokens) - 2) + [3, 4],
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": len(tokens) - 2,
        "tokenizer.ggml.eos_token_id": len(tokens) - 2,
    }
    return pairs | {key.replace("__", "."): value for key, value in more.items()}


def tiny_tensors(pairs, tied=False, rope_freqs=False, seed=0):
    """Random weights of the shapes that the metadata ask for, the same on every machine: {name: float32 array}."""
    random = np.random.RandomState(seed)  # whose stream numpy has frozen
    width, ff = pairs["llama.embedding_length"], pairs["llama.feed_forward_length"]
    heads, kv_heads = pairs["llama.attention.head_count"], pairs["llama.attention.head_count_kv"]
    head_dim = pairs.get("llama.attention.key_length", width // heads)
    vocab = len(pairs["tokenizer.ggml.tokens"])
    shapes = {"token_embd.weight": (vocab, width), "output_norm.weight": (width,)}
    shapes |= {} if tied else {"output.weight": (vocab, width)}
    for i in range(pairs["llama.block_count"]):
        block = {
            "attn_norm": (width,),
            "attn_q": (heads * head_dim, width),
            "attn_k": (kv_heads * head_dim, width),
            "attn_v": (kv_heads * head_dim, width),
            "attn_output": (width, heads * head_dim),
            "ffn_norm": (width,),
            "ffn_gate": (ff, width),
            "ffn_up": (ff, width),
            "ffn_down": (width, ff),
        }
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in block.items()}
    tensors = {name: random_tensor(random, shape) for name, shape in shapes.items()}
    if rope_freqs:
        tensors["rope_freqs.weight"] = np.linspace(1, 8, head_dim // 2, dtype=np.float32)
    return tensors


def random_tensor(random, shape):
    values = random.standard_normal(shape)
    values = 1 + values / 4 if len(shape) == 1 else values * 1.5 / np.sqrt(shape[-1])
    return values.astype(np.float32)


def write_gguf(path, pairs, tensors, qtypes=None):
    """Writes a GGUF; `qtypes` maps a tensor's name to the type that it is quantized to."""
    writer = gguf.GGUFWriter(path, pairs["general.architecture"])
    for key, value in pairs.items():
        if key != "general.architecture" and value is not None:
            add_pair(writer, key, value)
    for name, values in tensors.items():
        qtype = (qtypes or {}).get(name, gguf.GGMLQuantizationType.F32)
        writer.add_tensor(name, gguf.quantize(values, qtype), raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_pair(writer, key, value):
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    add |= {str: writer.add_string, list: writer.add_array}
    add[type(value)](key, value)


@pytest.fixture
def tiny_gguf(tmp_path):
    """A function that writes a tiny Llama and returns its path.

    `metadata` and the options of tiny_tensors shape it; `change` alters its tensors in place, and `claims` alters
    what the file says of itself (None: says nothing) without changing the tensors.
    """

    def write(tied=False, rope_freqs=False, seed=0, qtypes=None, change=None, claims=None, **metadata):
        pairs = tiny_metadata(**metadata)
        tensors = tiny_tensors(pairs, tied, rope_freqs, seed)
        if change:
            change(tensors)
        return write_gguf(tmp_path / "tiny.gguf", pairs | (claims or {}), tensors, qtypes)

    return write


@pytest.fixture(scope="session")
def smollm2_path():
    """The fetched SmolLM2; tests that need it are skipped until `course fetch smollm2` has run."""
    source = SOURCES["smollm2"]
    path = cache_folder() / source.file_name
    if not is_whole(path, source):
        pytest.skip("SmolLM2 has not been fetched: course fetch smollm2")
    return path


@pytest.fixture(scope="session")
def smollm2(smollm2_path):
    """The real model, loaded once."""
    from quant_kernels.models.gguf_file import load_model

    return load_model(smollm2_path)


@pytest.fixture
def lighthouse():
    """A short story, written for these tests: about 1,000 of SmolLM2's tokens."""
    return (DATA / "lighthouse.txt").read_bytes().decode().removesuffix("\n")


# What the tests of formats compare with: ggml's golden bytes, the gguf package, and ggml itself where it is compiled


def blocks_of(data, qtype):
    return np.ascontiguousarray(data).reshape(-1, qk.QTYPES[qtype].type_size)


def same_blocks(expected, x, qtype, importance=None):
    """Asserts that quantize writes the expected bytes, and refuses x where these hold a scale that is no number."""
    expected = blocks_of(expected, qtype)
    importance = None if importance is None else torch.from_numpy(importance)
    finite = qk.QTYPES[qtype].finite_scales(torch.from_numpy(expected)).numpy()
    if not finite.all():
        with pytest.raises(ValueError, match=f"{qtype} cannot hold"):
            qk.quantize(torch.from_numpy(x), qtype, importance)
        # What is left has to be right: blocks, or with importance, which may know of its whole row, rows.
        kept = finite.reshape(-1, 1 if importance is None else x.shape[-1] // qk.QTYPES[qtype].block_size).all(-1)
        x = x.reshape(len(kept), -1)[kept]
        expected = expected.reshape(len(kept), -1)[kept].reshape(-1, expected.shape[-1])
    actual = blocks_of(qk.quantize(torch.from_numpy(x), qtype, importance).numpy(), qtype)
    wrong = np.flatnonzero((expected != actual).any(-1))
    first = wrong[:1].tolist()
    assert not first, f"{len(wrong)} of {len(expected)} differ; {first}: {expected[first]}, not {actual[first]}"


def golden_bytes(qtype, least_kinds):
    """Asserts that quantize writes the golden bytes of every case, with and without importance."""
    cases, golden = np.load(GOLDEN / "cases.npz"), np.load(GOLDEN / f"{qtype}.npz")
    assert len({name.partition("/")[0] for name in golden}) >= least_kinds, "a golden file has lost its cases"
    groups = defaultdict(list)  # rows of the same length and importance are quantized at once, which is quicker
    for name, expected in golden.items():
        kind, _, importance = name.partition("/")
        weights = f"{importance}-{cases[kind].shape[1]}" if importance else None
        groups[expected.shape[1], weights].append((expected, cases[kind]))
    for (_, weights), pairs in groups.items():
        expected, x = map(np.concatenate, zip(*pairs, strict=True))
        same_blocks(expected, x, qtype, cases[weights] if weights else None)


def dequantize_as_gguf(data, qtype):
    """Asserts that dequantize agrees with the gguf package to the sign of zero."""
    with np.errstate(over="ignore"):
        expected = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[qtype]).astype(np.float32)
    actual = qk.dequantize(torch.from_numpy(data), qtype).numpy()
    assert np.array_equal(expected.view(np.int32), actual.view(np.int32))


@pytest.fixture(scope="session")
def ggml():
    """The compiled library; skips where there is none."""
    if "GGML_LIBRARY" not in os.environ:
        pytest.skip("GGML_LIBRARY does not name a ggml library; make_golden.py --keep-library makes one")
    return runpy.run_path(str(GOLDEN / "make_golden.py"))["Ggml"](os.environ["GGML_LIBRARY"])


@pytest.fixture(scope="session")
def check():
    """The assertions on bytes and weights."""
    return SimpleNamespace(same_blocks=same_blocks, golden_bytes=golden_bytes, dequantize_as_gguf=dequantize_as_gguf)


@pytest.fixture(scope="module")
def machine_code(tmp_path_factory):
    """Compiles matmul.cpp anew, into a folder of its own."""
    if not any(map(shutil.which, compilation.COMPILERS)):
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        native.library.cache_clear()
        yield folder
    native.library.cache_clear()
