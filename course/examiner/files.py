"""Files that somebody else handed in: only regular ones are read, never through a link, and within limits."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..plain_text import clean

MAX_FILE_BYTES = 64 << 20
MAX_ALL_BYTES = 128 << 20  # of all files of a folder
MAX_FILES = 1_000
MAX_DEPTH = 16  # folders inside folders
MAX_NAME = 120  # characters that are shown
LEFT_OUT = {"__pycache__", "__MACOSX"}  # folders that other programs make


class Refused(Exception):
    """A file is not read; the message says why, as what follows the file's name."""


def read_file(path: Path | str, limit: int = MAX_FILE_BYTES) -> bytes:
    """The content of a regular file of at most `limit` bytes; raises Refused for anything else, and never waits."""
    try:
        status = os.lstat(path)
        if problem := _problem(status, limit):
            raise Refused(problem)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            return file.read(limit)
    except OSError as error:
        raise Refused(f"cannot be read: {error.strerror}") from None


def _problem(status: os.stat_result, limit: int) -> str:
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link; hand in the file itself"
    if stat.S_ISDIR(status.st_mode):
        return "is a folder that cannot be looked into here"
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file"
    return f"has {status.st_size:,} bytes; the limit is {limit:,}" if status.st_size > limit else ""


def walk(folder: Path | str, depth: int = MAX_DEPTH) -> Iterator[Path]:
    """All that is no folder in a folder, and then below; folders that cannot be entered stand for themselves.

    Hidden folders, and those that other programs make, are passed over; links are named and never followed.
    """
    try:
        with os.scandir(folder) as entries:
            entries = sorted(entries, key=lambda entry: (entry.is_dir(follow_symlinks=False), entry.name))
    except OSError:
        yield Path(folder)
        return
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            yield Path(entry.path)
        elif not entry.name.startswith(".") and entry.name not in LEFT_OUT:
            yield from walk(entry.path, depth - 1) if depth else [Path(entry.path)]


def collect(folder: Path | str) -> tuple[dict[str, bytes], list[str]]:
    """Relative path -> content of the files beside the notebooks, and a sentence for each that is left out."""
    files, left_out, total = {}, [], 0
    others = (path for path in walk(folder) if path.suffix.lower() != ".ipynb") if os.path.isdir(folder) else ()
    for number, path in enumerate(others):
        name = path.relative_to(folder).as_posix()
        if number == MAX_FILES:
            left_out.append(f"{shown(name)} and what follows is left out: the limit is {MAX_FILES:,} files")
            break
        try:
            files[_plain(name)] = data = _read_alone(path, MAX_ALL_BYTES - total)
            total += len(data)
        except Refused as reason:
            left_out.append(f"{shown(name)} is left out: it {reason}")
    return files, left_out


def apart_from(given: dict[str, bytes], files: dict[str, bytes]) -> tuple[dict[str, bytes], list[str]]:
    """Those of a submission's files that leave the instructor's their places, and a sentence for each of the others."""
    taken = {str(parent) for name in given for parent in Path(name).parents} | given.keys()
    blocked = [
        name
        for name in files
        if name not in given and (name in taken or any(str(parent) in given for parent in Path(name).parents))
    ]
    kept = {name: data for name, data in files.items() if name not in blocked}
    return kept, [f"{shown(name)} is left out: it stands where a file of the course has to lie" for name in blocked]


def fitting(files: dict[str, bytes], room: int, largest: int) -> tuple[dict[str, bytes], list[str]]:
    """The files that fit into `room` bytes, none over `largest`, and a sentence for each of the others."""
    kept, left_out = {}, []
    for name, data in files.items():
        if len(data) <= min(room, largest):
            kept[name] = data
            room -= len(data)
        else:
            left_out.append(f"{shown(name)} is left out: for its {len(data):,} bytes there is no scratch space")
    return kept, left_out


def _read_alone(path: Path, left: int) -> bytes:
    """A support file; one with a second name elsewhere may be somebody else's, and is refused."""
    data = read_file(path)
    if len(data) > left:
        raise Refused(f"has {len(data):,} bytes; with it the files have more than {MAX_ALL_BYTES:,} bytes")
    if (links := hard_links(path)) > 1:
        raise Refused(f"is one of {links} hard links to a file")
    return data


def hard_links(path: Path) -> int:
    """How many names a file has, this one included."""
    return os.lstat(path).st_nlink


def _plain(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise Refused("has a name that is not UTF-8") from None
    return name


def shown(name: str) -> str:
    """A file's name as notes quote it: short, on one line, without characters that change how a line is read."""
    return f"`{clean(name, MAX_NAME).replace(chr(10), chr(0xFFFD))}`"
