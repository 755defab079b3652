"""`python -m quant_kernels perplexity`: what it prints, and how it fails."""

import json

import pytest

from quant_kernels.__main__ import main
from quant_kernels.measures.overlap import KEY, sketch_text
from quant_kernels.measures.perplexity import perplexity
from quant_kernels.models.gguf_file import load_model


@pytest.fixture
def text_file(tmp_path, lighthouse):
    path = tmp_path / "text.txt"
    path.write_bytes(lighthouse[:1000].encode() + b"\n")
    return path


def test_json_is_what_the_function_returns(tiny_gguf, text_file, lighthouse, capsys):
    path = tiny_gguf(claims={"tokenizer.ggml.add_bos_token": True})
    assert main(["perplexity", str(path), "--text", str(text_file), "--n-ctx", "64", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    model = load_model(path)
    expected = perplexity(model, model.tokenizer.encode(lighthouse[:1000], add_special=True), 64)
    assert printed["value"] == pytest.approx(expected.value, rel=1e-6)
    assert printed["standard_error"] == pytest.approx(expected.standard_error, rel=1e-6)
    assert (printed["tokens_scored"], printed["windows"], printed["n_ctx"]) == (expected.tokens_scored, 13, 64)


def test_json_of_a_broken_model_is_json(tiny_gguf, text_file, capsys):
    path = tiny_gguf(change=lambda tensors: tensors["output_norm.weight"].fill(float("nan")))
    assert main(["perplexity", str(path), "--text", str(text_file), "--n-ctx", "64", "--json"]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["value"] is None


def test_plain_output_is_two_lines(tiny_gguf, text_file, capsys):
    assert main(["perplexity", str(tiny_gguf()), "--text", str(text_file), "--n-ctx", "100"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("perplexity ") and " +/- " in first
    assert first.endswith("(392 tokens scored in 8 windows of 100)")
    assert second.startswith("bits per byte 8.") and "word perplexity" in second
    assert second.endswith("(455 bytes, 96 words)")


def test_a_stride(tiny_gguf, text_file, lighthouse, capsys):
    path = tiny_gguf()
    command = ["perplexity", str(path), "--text", str(text_file), "--n-ctx", "64", "--stride", "32"]
    assert main(command) == 0
    assert "windows of 64, one every 32)" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    n_tokens = len(load_model(path).tokenizer.encode(lighthouse[:1000]))
    assert (printed["tokens_scored"], printed["stride"]) == (n_tokens - 1, 32)
    assert printed["words_scored"] == len(lighthouse[:1000].split()) - 1  # the first begins in the token not scored
    assert printed["bits_per_byte"] == pytest.approx(printed["nats"] / 0.6931471805599453 / printed["bytes_scored"])


def test_the_calibration_text_is_refused(tiny_gguf, text_file, lighthouse, capsys):
    path = tiny_gguf(claims={KEY: list(sketch_text(lighthouse).hashes)})
    assert main(["perplexity", str(path), "--text", str(text_file), "--n-ctx", "64"]) == 2
    error = capsys.readouterr().err
    assert "share 99% of the shorter one's sequences of 13 words; the limit is 10%" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "n_ctx", "message"),
    [
        (b"", "64", "is empty"),
        (b"\n", "64", "is empty"),
        (b"abc\xff", "64", "is not UTF-8 text: byte 3 is 0xff"),
        (b"too short", "64", "9 tokens do not fill one window of n_ctx 64"),
        (b"long enough " * 50, "500", "n_ctx 500 is above the model's 128"),
    ],
)
def test_bad_text_is_one_line_and_exit_code_2(tiny_gguf, tmp_path, capsys, content, n_ctx, message):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    assert main(["perplexity", str(tiny_gguf()), "--text", str(path), "--n-ctx", n_ctx]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_missing_files_are_named(tiny_gguf, text_file, tmp_path, capsys):
    assert main(["perplexity", str(tmp_path / "none.gguf"), "--text", str(text_file)]) == 2
    assert "none.gguf does not exist" in capsys.readouterr().err
    assert main(["perplexity", str(tiny_gguf()), "--text", str(tmp_path / "none.txt")]) == 2
    assert "none.txt" in capsys.readouterr().err
