"""`python -m quant_kernels inspect`: its tables, its JSON, and one line for what is no GGUF."""

import json
import re
import struct
import sys

import gguf
import pytest

from quant_kernels.__main__ import main
from quant_kernels.models.inspect_gguf import as_json, inspect_gguf

LONG = "a_tensor_with_the_longest_name_that_llama_cpp_allows_ffn_gate.63"
Types = gguf.GGMLQuantizationType


def printed(capsys, *arguments):
    assert main(["inspect", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def table(out, first):
    """The cells below the headings of the table that begins with this one."""
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(first + " "))
    rows = [*lines[start + 2 :], ""]
    return [row.split() for row in rows[: rows.index("")]]


def test_the_tables(tiny_gguf, capsys):
    claims = {"general.name": "Tiny [red]Llama[/]", "general.file_type": 15}
    path = tiny_gguf(claims=claims, qtypes={"output.weight": Types.Q4_0})
    out = printed(capsys, path)
    contents = inspect_gguf(path)
    lines = dict(line.split(maxsplit=1) for line in out.partition("\n\n")[0].splitlines() if line[:3] in ("fil", "nam"))
    assert lines["name"] == "Tiny [red]Llama[/]"
    assert "file type        mostly Q4_K_M\n" in out and "architecture     llama\n" in out
    assert f"size             {path.stat().st_size:,} bytes\n" in out
    assert f"parameters       {contents.n_weights:,}\n" in out
    assert f"bits per weight  {8 * contents.n_bytes / contents.n_weights:.4f}\n" in out
    tensors = table(out, "tensor")
    assert tensors[0] == ["token_embd.weight", "264", "x", "64", "F32", "32.0000", "67,584"]
    assert ["output.weight", "264", "x", "64", "Q4_0", "4.5000", "9,504"] in tensors
    assert [row[0] for row in tensors] == [tensor.name for tensor in contents.tensors]
    types = table(out, "type")
    assert [row[0] for row in types] == ["F32", "Q4_0"]
    assert types[1][1:5] == ["1", "16,896", "4.5000", "9,504"]
    assert sum(float(row[5]) for row in types) == pytest.approx(100, abs=0.1)
    assert "general.name" not in out


def test_metadata_are_listed_and_arrays_abbreviated(tiny_gguf, capsys):
    claims = {"general.name": "a\x1b[2Jb", "tokenizer.chat_template": "{% x %}" * 50}
    out = printed(capsys, tiny_gguf(claims=claims), "--metadata")
    rows = {row[0]: " ".join(row[1:]) for row in table(out, "key")}
    assert rows["llama.block_count"] == "2"
    assert rows["tokenizer.ggml.merges"] == "array of 6: t h, th e, Ġ the, ..."
    assert rows["general.name"] == r"'a\x1b[2Jb'" and "\x1b" not in out
    assert rows["tokenizer.chat_template"].endswith("... (350 characters)")


def test_names_are_whole_where_the_output_is_no_terminal(tiny_gguf, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = printed(capsys, tiny_gguf(change=lambda tensors: tensors.update({LONG: tensors["output.weight"]})))
    assert [LONG, "264", "x", "64", "F32", "32.0000", "67,584"] in table(out, "tensor")


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_is_not_overrun(tiny_gguf, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    path = tiny_gguf(change=lambda tensors: tensors.update({LONG: tensors["output.weight"]}))
    tables = re.sub(r"\x1b\[\d*m", "", printed(capsys, path, "--metadata").partition("\n\n")[2])
    assert max(map(len, tables.splitlines())) <= columns
    if columns == 80:
        folded = next(line.split()[0] for line in tables.splitlines() if line.startswith(LONG[:30]))
        assert LONG.removeprefix(folded) in tables


def test_json_is_what_the_function_returns(tiny_gguf, capsys):
    path = tiny_gguf(claims={"general.name": "Tiny"})
    assert json.loads(printed(capsys, path, "--json")) == json.loads(json.dumps(as_json(inspect_gguf(path))))


def test_a_file_without_tensors(tmp_path, capsys):
    path = tmp_path / "none.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 0).ljust(32, b"\0"))
    out = printed(capsys, path, "--metadata")
    assert "parameters       0\n" in out and "bits per weight  -\n" in out and "architecture     not given\n" in out
    assert table(out, "tensor") == table(out, "type") == table(out, "key") == []


def one_line(capsys, path):
    assert main(["inspect", str(path)]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and error.startswith(f"quant_kernels inspect: {path} ")
    return error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a GGUF file: it is empty"),
        (b"GG", "is not a GGUF file: it begins with b'GG'"),
        (b"PK\x03\x04", "is not a GGUF file: it begins with b'PK"),
        (b"GGUF\x03\x00\x00\x00", r"is damaged or truncated (8 bytes)"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 2**60, 0), "1152921504606846976 tensors do not fit in it"),
    ],
)
def test_what_is_no_gguf_is_one_line(tmp_path, capsys, content, message):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    assert message in one_line(capsys, path)


def test_a_truncated_file_a_directory_and_none_are_one_line(tiny_gguf, tmp_path, capsys):
    assert "is not a file but a directory" in one_line(capsys, tmp_path)
    assert "does not exist" in one_line(capsys, tmp_path / "none.gguf")
    path = tiny_gguf()
    path.write_bytes(path.read_bytes()[:-1000])
    assert "is damaged or truncated" in one_line(capsys, path)
