"""Importance matrices as data and as files, those of llama.cpp among them."""

import os
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from quant_kernels.measures.imatrix import Entry, Imatrix, load_imatrix, save_imatrix
from quant_kernels.measures.overlap import KEY, calibration_sketch, sketch_text
from quant_kernels.models.gguf_file import load_model
from quant_kernels.models.gguf_reader import read_gguf

NAME = "blk.0.attn_q.weight"


def imatrix(sums=((2.0, 8.0),), counts=(4,), **more):
    return Imatrix({NAME: Entry(torch.tensor(sums), torch.tensor(counts))}, 1, 4, **more)


def experts():
    return imatrix(sums=((2.0, 8.0), (3.0, 0.0), (0.0, 0.0)), counts=(4, 1, 0))


def write_file(path, tensors, **pairs):
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in ({"imatrix.chunk_count": 1, "imatrix.chunk_size": 4} | pairs).items():
        writer.add_key_value(key, value, gguf.GGUFValueType.UINT32)
    for name, values in tensors.items():
        writer.add_tensor(name, np.array(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_importance_is_the_mean_square():
    found = imatrix().importance(NAME)
    assert found.tolist() == [0.5, 2.0] and found.dtype == torch.float32
    assert imatrix().importance("output.weight") is None


def test_experts_have_a_row_each_and_one_without_data_is_named():
    whole = imatrix(sums=((2.0, 8.0), (3.0, 0.0)), counts=(4, 1))
    assert whole.importance(NAME).tolist() == [[0.5, 2.0], [3.0, 0.0]]
    with pytest.raises(ValueError, match=r"no data for blk.0.attn_q.weight: expert 2 of 3 saw no token"):
        experts().importance(NAME)
    with pytest.raises(ValueError, match="the weight saw no token of the calibration text"):
        imatrix(counts=(0,)).importance(NAME)


@pytest.mark.parametrize(
    ("sums", "counts", "message"),
    [
        (((1.0, float("nan"), float("inf")),), (4,), "2 sums of squared inputs are NaN or infinite"),
        (((1.0, -1.0),), (4,), "a sum of squares or a count is negative"),
        (((1.0, 1.0),), (-4,), "a sum of squares or a count is negative"),
        (((1.0, 1.0),), (4, 4), r"sums are \(1, 2\) and counts \(2,\)"),
        ((1.0, 1.0), (4, 4), r"sums are \(2,\)"),
        (((),), (4,), r"sums are \(1, 0\)"),
    ],
)
def test_what_no_text_gives_is_refused(sums, counts, message):
    with pytest.raises(ValueError, match=f"{NAME}: {message}"):
        imatrix(sums, counts)


def test_an_empty_imatrix_is_refused():
    with pytest.raises(ValueError, match="needs the inputs of one weight at least"):
        Imatrix({}, 1, 4)


def test_a_file_gives_back_what_went_in(tmp_path):
    text = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    saved = imatrix(datasets=("a.txt", "b.txt"), sketch=sketch_text(text))
    save_imatrix(saved, tmp_path / "imatrix.gguf")
    loaded = load_imatrix(tmp_path / "imatrix.gguf")
    assert loaded.entries[NAME].sums.equal(saved.entries[NAME].sums)
    assert loaded.entries[NAME].counts.equal(saved.entries[NAME].counts)
    for field in ("chunk_count", "chunk_size", "datasets", "sketch"):
        assert getattr(loaded, field) == getattr(saved, field)
    assert loaded.file == str(tmp_path / "imatrix.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["imatrix.gguf"]


def test_experts_survive_a_file(tmp_path):
    save_imatrix(experts(), tmp_path / "imatrix.gguf")
    loaded = load_imatrix(tmp_path / "imatrix.gguf").entries[NAME]
    assert loaded.sums.tolist() == [[2, 8], [3, 0], [0, 0]] and loaded.counts.tolist() == [4, 1, 0]


def test_a_file_is_laid_out_as_llama_imatrix_lays_it_out(tmp_path, golden):
    path = golden / "tiny_imatrix.gguf"  # written by llama-imatrix, see make_measures.py
    save_imatrix(load_imatrix(path), tmp_path / "imatrix.gguf")
    (pairs, tensors), (expected_pairs, expected) = read_gguf(tmp_path / "imatrix.gguf"), read_gguf(path)
    assert pairs == expected_pairs and list(tensors) == list(expected)
    for name, tensor in tensors.items():
        assert tensor.shape.tolist() == expected[name].shape.tolist()
        assert tensor.tensor_type == expected[name].tensor_type and np.array_equal(tensor.data, expected[name].data)


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "imatrix.gguf"
    path.write_bytes(b"before")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(OSError, match="no space left"):
        save_imatrix(imatrix(), path)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "it is not an imatrix: none of its 0 tensors is called NAME.in_sum2"),
        ({"token_embd.weight": np.zeros((2, 2), "f4")}, "not an imatrix: none of its 1 tensors"),
        ({"w.in_sum2": np.zeros((1, 2), "f4")}, "the tensor w.counts is missing"),
        ({"w.in_sum2": np.zeros((1, 2), "f2"), "w.counts": np.ones((1, 1), "f4")}, "w.in_sum2 has type F16, not F32"),
        ({"w.in_sum2": np.full((1, 2), np.nan, "f4"), "w.counts": np.ones((1, 1), "f4")}, "w: 2 sums .* are NaN"),
        ({"w.in_sum2": np.zeros((1, 2), "f4"), "w.counts": np.full((1, 1), np.nan, "f4")}, "w: a count is NaN"),
        (
            {"w.in_sum2": np.zeros((1, 4), "f4"), "w.counts": np.ones((3, 1), "f4")},
            "w: 4 sums are no 3 rows, one for each count",
        ),
    ],
)
def test_files_that_are_no_imatrix(tmp_path, tensors, message):
    path = write_file(tmp_path / "wrong.gguf", tensors)
    with pytest.raises(ValueError, match=f"wrong.gguf: .*{message}"):
        load_imatrix(path)


def test_bad_numbers_of_windows(tmp_path):
    tensors = {"w.in_sum2": np.zeros((1, 2), "f4"), "w.counts": np.ones((1, 1), "f4")}
    assert load_imatrix(write_file(tmp_path / "right.gguf", tensors)).datasets == ()
    writer = gguf.GGUFWriter(tmp_path / "none.gguf", "llama")
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"imatrix.chunk_count is None, not a number"):
        load_imatrix(tmp_path / "none.gguf")


def test_other_files(tmp_path, tiny_gguf):
    with pytest.raises(FileNotFoundError, match=r"none.gguf does not exist"):
        load_imatrix(tmp_path / "none.gguf")
    (tmp_path / "old.dat").write_bytes(b"\xd2\0\0\0" * 10)
    with pytest.raises(ValueError, match=r"old.dat is not a GGUF file"):
        load_imatrix(tmp_path / "old.dat")
    with pytest.raises(ValueError, match="it is not an imatrix"):
        load_imatrix(tiny_gguf())


def test_a_quantized_file_says_what_it_was_calibrated_on():
    text = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    pairs = imatrix(datasets=("a.txt", "b.txt"), sketch=sketch_text(text), file="i.gguf").quantization_metadata()
    assert calibration_sketch(pairs) == sketch_text(text)
    del pairs[KEY]
    assert pairs == {
        "quantize.imatrix.file": "i.gguf",
        "quantize.imatrix.dataset": "a.txt",
        "quantize.imatrix.entries_count": 1,
        "quantize.imatrix.chunks_count": 1,
    }
    assert set(imatrix().quantization_metadata()) == {"quantize.imatrix.entries_count", "quantize.imatrix.chunks_count"}


@pytest.mark.skipif("LLAMA_CPP" not in os.environ, reason="LLAMA_CPP does not name the folder of llama-quantize")
def test_llama_quantize_reads_the_file(tiny_pair_files, golden, tmp_path):
    found = load_imatrix(golden / "tiny_imatrix.gguf")
    save_imatrix(found, tmp_path / "imatrix.gguf")
    base, _ = tiny_pair_files
    command = [Path(os.environ["LLAMA_CPP"]) / "llama-quantize", "--imatrix", tmp_path / "imatrix.gguf"]
    run = subprocess.run([*command, base, tmp_path / "q4_0.gguf", "Q4_0"], capture_output=True, text=True, check=True)
    assert "loaded 14 importance matrix entries" in run.stdout and "computed on 60 chunks" in run.stdout
    theirs, ours = load_model(tmp_path / "q4_0.gguf").metadata, found.quantization_metadata()
    for key in ("dataset", "entries_count", "chunks_count"):
        assert theirs[f"quantize.imatrix.{key}"] == ours[f"quantize.imatrix.{key}"]
