"""`python -m quant_kernels bench`: which scripts it runs, and what it says where it cannot."""

import subprocess
import sys

import pytest

from quant_kernels.__main__ import main
from quant_kernels.commands import bench


@pytest.fixture
def runs(monkeypatch):
    commands = []

    def run(command):
        commands.append(command)
        return subprocess.CompletedProcess(command, returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_all_benchmarks_are_run_unless_one_is_named(runs):
    assert main(["bench", "--rounds", "2"]) == 0
    assert [command[1].name for command in runs] == ["bench_quantize.py", "bench_matmul.py"]
    assert all(command[0] == sys.executable and command[2:] == ["--rounds", "2"] for command in runs)
    assert main(["bench", "quantize"]) == 0
    assert runs[2][1].name == "bench_quantize.py" and len(runs) == 3


def test_without_the_checkout_there_is_one_line(runs, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    assert main(["bench"]) == 2
    assert "source checkout" in capsys.readouterr().err
    assert main(["bench", "--rounds", "0"]) == 2
    assert "--rounds is 0" in capsys.readouterr().err
    assert not runs


def test_a_benchmark_that_fails_is_named(monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "run", lambda command: subprocess.CompletedProcess(command, returncode=3))
    assert main(["bench", "matmul"]) == 2
    assert "bench_matmul.py ended with exit code 3" in capsys.readouterr().err


def test_the_table_of_one_format():
    """On few weights: that every line of the benchmark can be computed."""
    script = bench.FOLDER / "bench_quantize.py"
    options = ["--types", "Q4_0", "IQ4_NL", "--millions", "0.0625", "--rounds", "1", "--threads", "1", "--eager"]
    out = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, check=True).stdout
    assert "IQ4_NL" in out and "with importance" in out and "write only" in out
