"""`python -m quant_kernels compare`: what it prints, and how it fails."""

import json
import re

import pytest

from quant_kernels.__main__ import main
from quant_kernels.measures.compare import compare
from quant_kernels.measures.overlap import KEY, sketch_text
from quant_kernels.models.gguf_file import load_model


@pytest.fixture
def files(tiny_gguf, tmp_path, lighthouse):
    """A base, a model of other weights and a text, as paths."""
    (tmp_path / "text.txt").write_bytes(lighthouse[:2000].encode() + b"\n")

    def write(name, **options):
        return str(tiny_gguf(**options).rename(tmp_path / name))

    write.text = ["--text", str(tmp_path / "text.txt"), "--n-ctx", "64"]
    return write


def test_json_is_what_the_function_returns(files, lighthouse, capsys):
    base, other = files("base.gguf"), files("other.gguf", seed=1)
    assert main(["compare", base, other, *files.text, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    model = load_model(base)
    expected = compare(model, load_model(other), model.tokenizer.encode(lighthouse[:2000]), 64)
    assert printed["kl_divergence"] == {
        "value": pytest.approx(expected.kl_divergence.value),
        "standard_error": pytest.approx(expected.kl_divergence.standard_error),
    }
    assert printed["base"]["tokens_scored"] == expected.base.tokens_scored
    assert printed["kl_percentiles"]["99.9"] == pytest.approx(expected.kl_percentiles[99.9])


def test_the_summary(files, capsys):
    base, other = files("base.gguf"), files("other.gguf", seed=1)
    assert main(["compare", base, other, *files.text]) == 0
    out = capsys.readouterr().out
    assert re.match(r"\d+ tokens scored in \d+ windows of 64\n\nperplexity\nother  ", out)
    labels = [line.partition("  ")[0] for line in out.splitlines() if "  " in line]
    assert labels[:6] == ["other", "base", "correlation of losses", "ln(other / base)", "other / base", "other - base"]
    assert labels.count("mean") == 3 and labels.count("median") == labels.count("maximum") == 2
    assert "99.9 %" in labels and "root mean square" in labels
    assert "NaN" not in out


def test_a_broken_model_is_said_to_be_broken(files, capsys):
    base = files("base.gguf")
    other = files("other.gguf", change=lambda tensors: tensors["output_norm.weight"].fill(float("nan")))
    assert main(["compare", base, other, *files.text]) == 0
    out = capsys.readouterr().out
    assert re.search(r"the logits of (\d+) of them are NaN, and so is each figure", out)
    assert main(["compare", base, other, *files.text, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert printed["kl_divergence"]["value"] is printed["same_top"]["value"] is None
    assert printed["tokens_undefined"] == printed["base"]["tokens_scored"]


@pytest.mark.parametrize("calibrated", ["base.gguf", "other.gguf"])
def test_the_calibration_text_of_either_is_refused(files, lighthouse, capsys, calibrated):
    sketch = {KEY: list(sketch_text(lighthouse[500:1500]).hashes)}
    paths = [files(name, claims=sketch if name == calibrated else None) for name in ("base.gguf", "other.gguf")]
    assert main(["compare", *paths, *files.text]) == 2
    error = capsys.readouterr().err
    assert re.search(r"share 9\d% of the shorter one's", error) and error.count("\n") == 1


def test_other_failures_are_one_line(files, tmp_path, capsys):
    base, other = files("base.gguf"), files("other.gguf", tokenizer__ggml__add_bos_token=True)
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9 " * 100)
    for arguments, message in [
        ((base, other, *files.text), "do not share a tokenizer: BOS differ"),
        ((base, base, "--text", str(tmp_path / "short.txt")), "n_ctx 512 is above the model's 128"),
        ((base, base, "--text", str(tmp_path / "short.txt"), "--n-ctx", "64"), "9 tokens do not fill one window"),
        ((base, base, "--text", str(tmp_path / "latin1.txt")), "is not UTF-8 text: byte 3 is 0xe9"),
        ((base, str(tmp_path / "none.gguf"), *files.text), "none.gguf does not exist"),
    ]:
        assert main(["compare", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("quant_kernels compare: ") and message in error and error.count("\n") == 1
