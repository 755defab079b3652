"""`python -m quant_kernels imatrix`: what it writes, and how it fails."""

import pytest
import torch

from quant_kernels.__main__ import main
from quant_kernels.measures.collect_imatrix import collect_imatrix
from quant_kernels.measures.imatrix import load_imatrix
from quant_kernels.models.gguf_file import load_model


@pytest.fixture
def texts(tmp_path, lighthouse):
    """A text and what else is left of the story, as paths."""
    half = len(lighthouse) // 2
    (tmp_path / "text.txt").write_bytes(lighthouse[:half].encode() + b"\n")
    (tmp_path / "rest.txt").write_bytes(lighthouse[half:].encode())
    return str(tmp_path / "text.txt"), str(tmp_path / "rest.txt")


def test_the_file_holds_what_the_function_collects(tiny_gguf, texts, tmp_path, lighthouse, capsys):
    path, out = tiny_gguf(), tmp_path / "imatrix.gguf"
    command = ["imatrix", str(path), "--text", texts[0], "--out", str(out), "--n-ctx", "64", "--exclude", texts[1]]
    assert main(command) == 0
    found, expected = load_imatrix(out), collect_imatrix(load_model(path), lighthouse[: len(lighthouse) // 2], 64)
    assert found.entries.keys() == expected.entries.keys()
    for name, entry in found.entries.items():
        torch.testing.assert_close(entry.sums, expected.entries[name].sums)
    assert (found.datasets, found.sketch, found.chunk_size) == ((texts[0],), expected.sketch, 64)
    windows = expected.chunk_count
    line = f"{out}: importance of the columns of 14 weights, from {64 * windows} tokens in {windows} windows\n"
    assert capsys.readouterr().out == line


def test_the_output_on_demand(tiny_gguf, texts, tmp_path):
    out = tmp_path / "imatrix.gguf"
    command = ["imatrix", str(tiny_gguf()), "--text", texts[0], "--out", str(out), "--n-ctx", "64"]
    assert main([*command, "--process-output"]) == 0
    assert load_imatrix(out).importance("output.weight").shape == (64,)


def test_an_excluded_text_that_overlaps_is_refused(tiny_gguf, texts, tmp_path, capsys):
    out = tmp_path / "imatrix.gguf"
    command = ["imatrix", str(tiny_gguf()), "--text", texts[0], "--out", str(out), "--exclude", texts[1], texts[0]]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "text.txt: the evaluation text and the calibration text share 100%" in error and error.count("\n") == 1
    assert not out.exists()


def test_failures_are_one_line_and_write_nothing(tiny_gguf, texts, tmp_path, capsys):
    model, out = str(tiny_gguf()), tmp_path / "imatrix.gguf"
    (tmp_path / "empty.txt").write_bytes(b"")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for text, target, message in [
        (texts[0], out, "n_ctx 512 is above the model's 128"),
        (str(tmp_path / "empty.txt"), out, "is empty"),
        (str(tmp_path / "none.txt"), out, "none.txt"),
        (texts[0], tmp_path / "none" / "imatrix.gguf", "none is not a folder"),
        (texts[0], tmp_path / "tiny.gguf", "would replace"),
        (texts[0], tmp_path / "text.txt", "would replace"),
    ]:
        assert main(["imatrix", model, "--text", text, "--out", str(target)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("quant_kernels imatrix: ") and message in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
