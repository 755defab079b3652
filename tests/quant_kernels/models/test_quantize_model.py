"""Quantizing whole models: the bytes of llama-quantize, from a file, to a file and in memory; and what is refused."""

import json
import math
import os
import runpy
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

import quant_kernels as qk
from quant_kernels.measures.imatrix import Entry, Imatrix, save_imatrix
from quant_kernels.models import quantize_model as module
from quant_kernels.models.gguf_file import load_model
from quant_kernels.models.gguf_writer import save_gguf, stored_pairs
from quant_kernels.models.mixes import MIXES
from quant_kernels.models.packed import pack
from quant_kernels.models.quantize_model import plan_file, quantize_file, quantize_model

GOLDEN = Path(__file__).parents[1] / "golden"
MAKER = runpy.run_path(str(GOLDEN / "make_mixes.py"))
DIGESTS = json.loads((GOLDEN / "mixes.json").read_text())["digests"]
Types = gguf.GGMLQuantizationType
DOWN, UP = "blk.1.ffn_down.weight", "blk.0.ffn_up.weight"


@pytest.fixture(scope="module")
def golden_model(tmp_path_factory):
    """The model of mixes.json, and its imatrix."""
    weights, importances = MAKER["tiny_model"]()
    path = tmp_path_factory.mktemp("golden") / "tiny.gguf"
    return MAKER["write_model"](path, weights, MAKER["TINY_HEADS"]), MAKER["imatrix_of"](importances)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.gguf"


def tensors(path):
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def some_imatrix(tensors, *, without=()):
    """Importances, of no text, for the matrices of the layers."""
    random = np.random.RandomState(1)
    columns = {name: x.shape[-1] for name, x in tensors.items() if name.startswith("blk") and x.ndim > 1}
    return MAKER["imatrix_of"](
        {name: random.chisquare(1, n).astype(np.float32) for name, n in columns.items() if name not in without}
    )


@pytest.fixture(scope="module")
def caches():
    """What mixes have in common is quantized once, without an imatrix and with."""
    return {}, {}


@pytest.mark.parametrize("mix", MIXES)
def test_bytes_are_those_of_llama_quantize(golden_model, caches, mix):
    path, imatrix = golden_model
    for key, given, cache in ((mix, None, caches[0]), (f"{mix} with imatrix", imatrix, caches[1])):
        expected = DIGESTS.get(key, DIGESTS[mix])
        if expected.startswith("blk"):
            with pytest.raises(ValueError, match=f"{mix} needs an imatrix: it makes {expected}"):
                plan_file(path, mix)
            continue
        plan = plan_file(path, mix, imatrix=given is not None)
        packed = dict(module.pack_tensors(plan, module.read_stored(path)[1], given, cache, None))
        digests = [MAKER["digest"](data.numpy()) for _, data in packed.values()]
        wrong = [name for name, a, b in zip(packed, expected.split(), digests, strict=True) if a != b]
        assert not wrong, (key, [(name, packed[name].qtype) for name in wrong])


def test_the_golden_digests_differ_between_mixes():
    assert len(set(DIGESTS.values())) > 1.5 * len(MIXES)


@pytest.mark.parametrize("mix", ["F16", "Q4_K_M", "Q8_0"])
def test_in_memory_and_in_a_file_it_is_the_same(tiny_gguf, tmp_path, out, mix):
    path = tiny_gguf()
    plan = quantize_file(path, out, mix)
    from_path, from_model = quantize_model(path, mix), quantize_model(load_model(path), mix)
    assert plan == from_path.plan == plan_file(path, mix)
    assert from_path.packed.keys() == from_model.packed.keys()
    for name, (qtype, data) in from_path.packed.items():
        assert qtype == from_model.packed[name].qtype and torch.equal(data, from_model.packed[name].data)
    save_gguf(from_path, tmp_path / "saved.gguf")
    loaded = load_model(out)
    for name, weight in from_path.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name
    for name, tensor in tensors(tmp_path / "saved.gguf").items():
        assert tensor.data.tobytes() == tensors(out)[name].data.tobytes()


def test_perplexity_of_the_model_is_that_of_the_file(tiny_gguf, out):
    path = tiny_gguf()
    quantize_file(path, out, "Q4_0")
    small, tokens = quantize_model(path, "Q4_0"), list(range(128))
    found = qk.perplexity(small, tokens, 32)
    assert found == qk.perplexity(load_model(out), tokens, 32)
    assert found.value != qk.perplexity(load_model(path), tokens, 32).value


def test_the_model_itself_stays_as_it_is(tiny_gguf):
    model = load_model(tiny_gguf())
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    small = quantize_model(model, "Q4_0")
    small.output_norm.weight.zero_()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert "general.file_type" not in model.metadata and small.metadata["general.file_type"] == 2


def test_metadata_are_kept_with_their_types(tiny_gguf, out):
    path = tiny_gguf(claims={"general.file_type": 0, "general.tags": ["a", "b"], "split.count": 1})
    quantize_file(path, out, "Q4_K_L")
    before, after = stored_pairs(path), stored_pairs(out)
    assert before == after
    said = load_model(out).metadata
    assert said["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q4_K_M and said["general.quantization_version"] == 2
    assert "split.count" not in said


def test_the_imatrix_is_named_in_the_file(tiny_gguf, tmp_path, out):
    path = tiny_gguf()
    imatrix = some_imatrix(load_model(path).state_dict())
    save_imatrix(imatrix, tmp_path / "imatrix.gguf")
    quantize_file(path, out, "Q4_0", tmp_path / "imatrix.gguf")
    said = load_model(out).metadata
    assert said["quantize.imatrix.file"] == str(tmp_path / "imatrix.gguf")
    assert said["quantize.imatrix.dataset"] == "calibration.txt"
    assert (said["quantize.imatrix.entries_count"], said["quantize.imatrix.chunks_count"]) == (14, 3)
    small = quantize_model(path, "Q4_0", imatrix)
    assert {tensor.data.tobytes() for tensor in tensors(out).values()} == {
        data.numpy().tobytes() for _, data in small.packed.values()
    }


def test_a_tensor_that_the_imatrix_lacks_is_quantized_without(tiny_gguf):
    path = tiny_gguf()
    weights = load_model(path).state_dict()
    plain = quantize_model(path, "Q4_1").packed
    all_but_one = quantize_model(path, "Q4_1", some_imatrix(weights, without=[UP])).packed
    same = {name for name in plain if torch.equal(plain[name].data, all_but_one[name].data)}
    assert {name for name in same if name.startswith("blk") and "norm" not in name} == {UP}


def test_a_tensor_that_cannot_do_without_is_named_before_any_work(golden_model, out):
    path, imatrix = golden_model
    partial = Imatrix({name: e for name, e in imatrix.entries.items() if name != DOWN}, 3, 64)
    with pytest.raises(ValueError, match=r"the imatrix lacks blk\.1\.ffn_down\.weight, which IQ2_XXS makes IQ2_XXS"):
        quantize_file(path, out, "IQ2_XXS", partial, progress=lambda *_: pytest.fail("it has begun"))


def test_an_imatrix_of_another_model(tiny_gguf):
    def entry(n):
        return Entry(torch.ones(1, n), torch.ones(1, dtype=torch.int64))

    path = tiny_gguf()
    with pytest.raises(ValueError, match=rf"the imatrix has 32 values for {UP}, whose shape is \(96, 64\)"):
        quantize_model(path, "Q4_0", Imatrix({UP: entry(32)}, 1, 64))
    with pytest.raises(ValueError, match=r"the imatrix is of another model: it has blk\.9\.attn_q\.weight"):
        quantize_model(path, "Q4_0", Imatrix({"blk.9.attn_q.weight": entry(64)}, 1, 64))
    # llama-quantize leaves that of the embeddings aside
    odd = quantize_model(path, "Q4_0", Imatrix({"token_embd.weight": entry(32), UP: entry(64)}, 1, 64))
    assert torch.equal(
        odd.packed["token_embd.weight"].data, quantize_model(path, "Q4_0").packed["token_embd.weight"].data
    )


def test_experts_have_an_importance_each(tmp_path, out):
    random = np.random.RandomState(0)
    experts = random.standard_normal((4, 2, 64)).astype(np.float32)
    model = {"token_embd.weight": np.ones((4, 64), np.float32), "blk.0.ffn_up_exps.weight": experts}
    path = MAKER["write_model"](tmp_path / "m.gguf", model, {"n_head": 2, "n_head_kv": 2, "n_expert": 4})
    importance = torch.from_numpy(random.chisquare(1, (4, 64)).astype(np.float32))
    entry = Entry(importance, torch.ones(4, dtype=torch.int64))
    quantize_file(path, out, "Q4_0", Imatrix({"blk.0.ffn_up_exps.weight": entry}, 1, 64))
    for i, stored in enumerate(tensors(out)["blk.0.ffn_up_exps.weight"].data):
        assert np.array_equal(stored, qk.quantize(torch.from_numpy(experts[i]), "Q4_0", importance[i]).numpy())


def test_large_tensors_are_quantized_in_slabs(golden_model, out, monkeypatch):
    path, imatrix = golden_model
    quantize_file(path, out, "Q4_0", imatrix)
    whole = out.read_bytes()
    monkeypatch.setattr(module, "SLAB", 3 * 256)
    quantize_file(path, out, "Q4_0", imatrix)
    assert out.read_bytes() == whole


def test_slabs_do_not_cross_matrices(monkeypatch):
    monkeypatch.setattr(module, "SLAB", 40)
    assert [(m, part.start, part.stop) for m, part in module.slabs((2, 3, 20))] == [
        *((0, 0, 2), (0, 2, 3), (1, 3, 5), (1, 5, 6))
    ]


def test_what_is_quantized_already_is_taken_only_with_leave(tiny_gguf, out):
    path = tiny_gguf(qtypes={UP: Types.Q4_1})
    message = rf"{UP} is quantized already: Q8_0 on top of Q4_1 has the errors of both"
    with pytest.raises(ValueError, match=message):
        quantize_file(path, out, "Q8_0")
    with pytest.raises(ValueError, match=message):
        quantize_model(path, "Q8_0")
    again = quantize_model(path, "Q8_0", allow_requantize=True).packed[UP]
    assert torch.equal(again.data, qk.quantize(load_model(path).weights()[UP], "Q8_0"))


def test_what_has_its_type_already_is_copied(tiny_gguf, out):
    path = tiny_gguf(qtypes={UP: Types.Q4_1})
    quantize_file(path, out, "Q4_1")  # without leave: nothing is quantized twice
    assert tensors(out)[UP].data.tobytes() == tensors(path)[UP].data.tobytes()


def test_a_quantized_model_counts_as_quantized(tiny_gguf):
    small = quantize_model(tiny_gguf(), "Q4_0")
    with pytest.raises(ValueError, match="is quantized already: Q5_1 on top of Q4_0"):
        quantize_model(small, "Q5_1")
    twice = quantize_model(small, "Q5_1", allow_requantize=True)
    expected = qk.quantize(small.weights()[UP], "Q5_1")
    assert twice.mix == "Q5_1" and torch.equal(twice.packed[UP].data, expected)


@pytest.mark.parametrize("name", [UP, "token_embd.weight", "blk.1.attn_norm.weight"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mix", ["Q4_0", "F16"])
def test_weights_that_are_no_numbers_are_named(tiny_gguf, out, name, value, mix):
    path = tiny_gguf(change=lambda tensors: tensors[name][..., 3].fill(value))
    index = r"\(3,\)" if "norm" in name else r"\(0, 3\)"
    for quantize in (lambda: quantize_file(path, out, mix), lambda: quantize_model(load_model(path), mix)):
        with pytest.raises(ValueError, match=rf"{name}: not finite: {value} at index {index}"):
            quantize()
    assert not out.exists()


def test_the_index_counts_from_the_beginning_of_the_tensor(tiny_gguf, monkeypatch):
    monkeypatch.setattr(module, "SLAB", 128)
    model = load_model(tiny_gguf())
    model.blk[0].ffn_up.weight.data[77, 5] = math.nan
    with pytest.raises(ValueError, match=r"nan at index \(77, 5\)"):
        quantize_model(model, "Q4_0")


def test_weights_beyond_a_format_are_named(tiny_gguf, out):
    with pytest.raises(ValueError, match=rf"{UP}: Q4_0 cannot hold 1000000\.0"):
        quantize_file(tiny_gguf(change=lambda tensors: tensors[UP].fill(1e6)), out, "Q4_0")
    with pytest.raises(ValueError, match=rf"{UP}: F16 cannot hold 1000000\.0"):
        quantize_file(tiny_gguf(change=lambda tensors: tensors[UP].fill(1e6)), out, "F16")


@pytest.mark.parametrize("value", [0.0, 1.0, -1e-30])
def test_constant_weights(tiny_gguf, value):
    small = quantize_model(tiny_gguf(change=lambda tensors: tensors[UP].fill(value)), "Q4_K_M")
    assert torch.allclose(small.weights()[UP], torch.tensor(value), atol=1e-6, rtol=1e-2)


def test_progress_counts_the_tensors(tiny_gguf, out):
    seen = []
    quantize_file(tiny_gguf(), out, "Q4_0", progress=lambda *at: seen.append(at))
    assert seen == [(i, 21) for i in range(1, 22)]


def test_a_cache_spares_what_other_mixes_have_done(tiny_gguf, monkeypatch):
    model, cache = load_model(tiny_gguf()), {}
    first = quantize_model(model, "Q4_K_M", cache=cache)
    assert cache[UP, "Q5_0"] is first.packed[UP].data
    done = []
    monkeypatch.setattr(module, "pack", lambda weights, qtype, _: done.append(qtype) or pack(weights, qtype))
    second = quantize_model(model, "Q4_K_S", cache=cache)
    assert sorted(done) == ["Q5_0", "Q5_1", "Q5_1"]  # ffn_down of the second layer, attn_v of both
    assert second.packed[UP].data is first.packed[UP].data


def test_a_failure_leaves_what_was_there(tiny_gguf, out):
    def stop(done, total):
        if done == 9:
            raise KeyboardInterrupt

    path = tiny_gguf()
    out.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        quantize_file(path, out, "Q4_0", progress=stop)
    assert out.read_bytes() == b"before" and {file.name for file in out.parent.iterdir()} == {"out.gguf", path.name}


def test_a_model_is_not_written_over_itself(tiny_gguf, tmp_path):
    path = tiny_gguf()
    (link := tmp_path / "link.gguf").symlink_to(path)
    for target in (path, link):
        with pytest.raises(ValueError, match="is the model itself"):
            quantize_file(path, target, "Q4_0")


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"llama.attention.head_count": None}, "llama.attention.head_count is missing"),
        ({"llama.attention.head_count_kv": 3}, "4 query heads cannot share 3 key-value heads evenly"),
        ({"llama.attention.head_count": "four"}, "n_head is 'four', not an integer"),
        ({"general.architecture": "falcon"}, "the architecture falcon has rules of its own"),
        ({"split.count": 2}, "is one of 2 files of a model"),
    ],
)
def test_files_that_cannot_be_planned_for(tiny_gguf, out, claims, message):
    with pytest.raises(ValueError, match=message):
        quantize_file(tiny_gguf(claims=claims), out, "Q4_0")


def test_heads_of_each_layer(tiny_gguf, out):
    path = tiny_gguf(claims={"llama.attention.head_count": [4, 4], "llama.attention.head_count_kv": [1, 2]})
    assert quantize_file(path, out, "Q2_K").tensors["blk.0.attn_v.weight"].qtype == "Q5_0"  # as Q4_K: 4 share a head


def test_a_damaged_file(tiny_gguf, out):
    path = tiny_gguf()
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="damaged or truncated"):
        quantize_file(path, out, "Q4_0")
    with pytest.raises(FileNotFoundError):
        quantize_file(out, out, "Q4_0")


def test_a_folder_that_is_not_there(tiny_gguf, tmp_path):
    with pytest.raises(FileNotFoundError, match="none is not a folder"):
        quantize_file(tiny_gguf(), tmp_path / "none" / "out.gguf", "Q4_0")


@pytest.mark.skipif("LLAMA_CPP" not in os.environ, reason="LLAMA_CPP does not name the folder of llama-quantize")
@pytest.mark.parametrize("mix", ["F16", "Q8_0", "Q4_1", "Q4_0", "Q4_K_M", "Q4_K_L", "Q2_K", "IQ4_XS"])
def test_a_real_model_becomes_the_same_file(smollm2_path, tmp_path, out, mix):
    expected = tmp_path / "expected.gguf"
    arguments = map(str, MAKER["arguments"](mix, None, smollm2_path, expected))
    program = Path(os.environ["LLAMA_CPP"]) / "llama-quantize"
    subprocess.run([program, "--allow-requantize", *arguments], check=True, capture_output=True)
    quantize_file(smollm2_path, out, mix, allow_requantize=True)
    assert out.read_bytes() == expected.read_bytes()
