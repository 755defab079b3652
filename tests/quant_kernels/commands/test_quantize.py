"""`python -m quant_kernels quantize`: what it writes and prints, and how it fails."""

import json

import pytest

from quant_kernels.__main__ import main
from quant_kernels.measures.imatrix import Entry, Imatrix, save_imatrix
from quant_kernels.models.gguf_file import load_model
from quant_kernels.models.quantize_model import plan_file, quantize_file

MATRIX = "blk.1.ffn_down.weight"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.gguf"


def test_the_file_is_what_the_function_writes(tiny_gguf, tmp_path, out, capsys):
    path, expected = tiny_gguf(), tmp_path / "expected.gguf"
    assert main(["quantize", str(path), str(out), "--mix", "Q4_K_M"]) == 0
    plan = quantize_file(path, expected, "Q4_K_M")
    printed = capsys.readouterr()
    assert out.read_bytes() == expected.read_bytes()
    assert printed.out == f"{plan}\n" and printed.err == ""


def test_dry_run_prints_a_row_for_each_tensor_and_writes_nothing(tiny_gguf, capsys):
    path = tiny_gguf()
    assert main(["quantize", str(path), "--mix", "Q4_K_M", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(f"{plan_file(path, 'Q4_K_M')}\n")
    (row,) = [line for line in printed.splitlines() if line.startswith(MATRIX)]
    assert row.split() == [MATRIX, "64", "x", "96", "Q8_0", "8.5000", "6,528"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("dry_run", [False, True])
def test_json(tiny_gguf, out, capsys, dry_run):
    path = tiny_gguf()
    assert main(["quantize", str(path), *(["--dry-run"] if dry_run else [str(out)]), "--mix", "Q4_0", "--json"]) == 0
    printed, plan = json.loads(capsys.readouterr().out), plan_file(path, "Q4_0")
    assert (printed["mix"], printed["n_bytes"]) == ("Q4_0", plan.n_bytes)
    assert printed["bits_per_weight"] == plan.bits_per_weight
    assert {tensor["name"]: tensor["type"] for tensor in printed["tensors"]} == plan.types()
    assert printed["fallbacks"] == {"output.weight": "Q6_K"}


def test_imatrix_file(tiny_gguf, tmp_path, out, capsys):
    path, imatrix = tiny_gguf(), tmp_path / "imatrix.gguf"
    weight = load_model(path).weights()[MATRIX]
    entry = Entry(weight.square().sum(0, keepdim=True), weight.new_ones(1).long())
    save_imatrix(Imatrix({MATRIX: entry}, 1, 64), imatrix)
    assert main(["quantize", str(path), str(out), "--mix", "Q4_0", "--imatrix", str(imatrix)]) == 0
    assert load_model(out).metadata["quantize.imatrix.entries_count"] == 1
    capsys.readouterr()


def test_a_quantized_model_needs_leave(tiny_gguf, tmp_path, out, capsys):
    quantize_file(tiny_gguf(), tmp_path / "q4.gguf", "Q4_0")
    command = ["quantize", str(tmp_path / "q4.gguf"), str(out), "--mix", "Q5_0"]
    assert main(command) == 2
    assert "is quantized already" in capsys.readouterr().err and not out.exists()
    assert main([*command, "--allow-requantize"]) == 0 and out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{model}", "{model}", "--mix", "Q4_0"], "is the model itself"),
        (["{model}", "--mix", "Q4_0"], "OUT.gguf is missing"),
        (["{model}", "{out}", "--mix", "Q4_0", "--dry-run"], "--dry-run writes no OUT.gguf"),
        (["{model}", "{out}", "--mix", "Q4_X"], "unknown mix 'Q4_X'; known are F16, "),
        (["{out}", "{model}", "--mix", "Q4_0"], "out.gguf does not exist"),
        (["{model}", "{out}", "--mix", "Q4_0", "--imatrix", "{out}"], "out.gguf does not exist"),
        (["{model}", "{model}/out.gguf", "--mix", "Q4_0"], "is not a folder"),
    ],
)
def test_failures_are_one_line_and_exit_code_2(tiny_gguf, out, capsys, arguments, message):
    path = tiny_gguf()
    before = path.read_bytes()
    assert main(["quantize", *(text.format(model=path, out=out) for text in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("quant_kernels quantize: ")
    assert not out.exists() and path.read_bytes() == before


def test_low_bits_without_an_imatrix_name_the_tensor(tiny_gguf, out, capsys):
    path = tiny_gguf(n_embd=256, n_ff=256, n_head_kv=4)
    assert main(["quantize", str(path), str(out), "--mix", "IQ2_XXS"]) == 2
    assert "IQ2_XXS needs an imatrix: it makes blk.0.attn_k.weight IQ2_XXS" in capsys.readouterr().err
