"""How matmul.cpp becomes machine code: once, for this machine, or with the compiler's own words why not."""

import pytest

from quant_kernels import compilation, native


def test_it_is_compiled_once_per_machine(machine_code, monkeypatch):
    native.library.cache_clear()
    native.library()
    before = list(machine_code.glob("matmul-*.so"))
    native.library.cache_clear()
    monkeypatch.setattr(native, "build", None)
    native.library()
    assert len(before) == 1 and list(machine_code.glob("*matmul*")) == before


def test_another_source_flag_or_compiler_has_another_name(machine_code, monkeypatch, tmp_path):
    program = compilation.compiler()
    names = [native.digest(program)]
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, "-DNDEBUG"))
    names.append(native.digest(program))
    other = tmp_path / "matmul.cpp"
    other.write_text("int main() {}")
    monkeypatch.setattr(native, "SOURCE", other)
    names.append(native.digest(program))
    monkeypatch.setattr(native, "run", lambda command: "#define __AVX10__ 1")
    names.append(native.digest(program))
    assert len(set(names)) == 4


def test_without_openmp_it_is_compiled_for_one_thread(monkeypatch, tmp_path):
    commands = []

    def run(command):
        commands.append(command)
        if "-fopenmp" in command:
            raise RuntimeError("unsupported option '-fopenmp'")
        return ""

    monkeypatch.setattr(native, "run", run)
    native.build("c++", tmp_path / "matmul.so")
    assert len(commands) == 2 and "-fopenmp" not in commands[1]
    assert list(tmp_path.iterdir()) == [tmp_path / "matmul.so"]


def test_what_a_compiler_says_is_passed_on(machine_code, monkeypatch, tmp_path):
    source = tmp_path / "matmul.cpp"
    source.write_text("this is no C++\n")
    monkeypatch.setattr(native, "SOURCE", source)
    native.library.cache_clear()
    with pytest.raises(RuntimeError, match=r"failed with exit code 1: .*matmul\.cpp:1"):
        native.library()
    assert not list(tmp_path.glob("*.so"))
