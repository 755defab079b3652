"""`python -m quant_kernels mixes`, as a user runs it."""

import json

import pytest

from quant_kernels.__main__ import main

TEXT = "the band in the hand and the thin hat of an ant then than that\n" * 20
OTHER = " ".join(f"and then {i} hands in the {7 * i % 31} hats" for i in range(80))


@pytest.fixture
def files(tiny_gguf, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "other.txt").write_text(OTHER)
    return [str(tiny_gguf(n_embd=256, n_ff=256, n_layer=1)), "--text", str(tmp_path / "text.txt"), "--n-ctx", "64"]


def test_table_and_picture(files, tmp_path, capsys):
    picture = tmp_path / "picture.svg"
    assert main(["mixes", *files, "--mixes", "F16", "Q8_0", "Q4_0", "--workers", "1", "--plot", str(picture)]) == 0
    printed = capsys.readouterr().out
    first_words = [line.split()[0] for line in printed.splitlines() if "±" in line]
    assert first_words == ["F16", "Q8_0", "Q4_0"], "one line each"
    assert "KL, nats" in printed and "±" in printed
    assert picture.read_text().startswith("<?xml") and "Q4_0" in picture.read_text()
    assert not list(tmp_path.glob(".*"))


def test_calibrates_on_another_text(files, tmp_path, capsys):
    chosen = ["--mixes", "IQ2_XXS", "--workers", "1", "--json"]
    assert main(["mixes", *files, *chosen, "--calibrate", str(tmp_path / "other.txt")]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["name"] == "IQ2_XXS" and row["kl_divergence"]["value"] > 0
    assert main(["mixes", *files, *chosen, "--calibrate", str(tmp_path / "text.txt")]) == 2
    assert "calibrat" in capsys.readouterr().err


def test_picture_without_a_base_is_refused_before_the_work(files, tmp_path, capsys):
    assert main(["mixes", *files, "--mixes", "Q4_0", "--plot", str(tmp_path / "p.svg")]) == 2
    assert "F16" in capsys.readouterr().err
    assert main(["mixes", *files, "--plot", str(tmp_path / "nowhere" / "p.svg")]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err
    assert main(["mixes", *files, "--plot", str(tmp_path / "p.doc")]) == 2
    assert ".doc" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["windows", "workers"])
def test_counts_below_1_are_refused(files, option, capsys):
    assert main(["mixes", *files, f"--{option}", "-3"]) == 2
    assert f"{option} is -3, not at least 1" in capsys.readouterr().err
