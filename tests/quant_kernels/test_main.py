"""`python -m quant_kernels`: its commands, and what it does not need to answer at once."""

import subprocess
import sys

import pytest


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("command", ["inspect", "perplexity"])
def test_a_command_without_traceback(tmp_path, command):
    path = tmp_path / "text.txt"
    path.write_text("no model")
    run = python("-m", "quant_kernels", command, path, *(["--text", path] if command == "perplexity" else []))
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"quant_kernels {command}: {path} is not a GGUF file: it begins with b'no m', not b'GGUF'\n"


def test_help_needs_no_slow_import():
    code = "import runpy, sys; sys.argv[1:] = ['--help']; runpy.run_module('quant_kernels', run_name='__main__')"
    run = python("-X", "importtime", "-c", code)
    assert run.returncode == 0 and "inspect" in run.stdout and "perplexity" in run.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in run.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {"torch", "numpy", "gguf", "rich"}


def test_inspect_needs_no_torch(tiny_gguf):
    run = python("-X", "importtime", "-m", "quant_kernels", "inspect", tiny_gguf())
    assert "token_embd.weight" in run.stdout
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "gguf" in imported and "torch" not in imported


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_reader_that_has_gone_gets_no_message(tiny_gguf, option):
    command = [sys.executable, "-m", "quant_kernels", "inspect", tiny_gguf(), *option]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 1
