"""Files that are no notebooks, or more than notebooks, made to stop or mislead whoever reads them."""

import json
import os
import shutil
import socket
from pathlib import Path

import nbformat.v4 as nbf

from ..entry import ASSIGNMENT, MAX_POINTS, NOTEBOOK, Entry, Place

MiB = 1 << 20


def with_cells(change):
    """The notebook's JSON with something done to its cells."""

    def raw(text: str) -> bytes:
        notebook = json.loads(text)
        change(notebook)
        return json.dumps(notebook).encode()

    return raw


def linked_file(folder: Path, place: Place) -> None:
    (folder / "data.csv").symlink_to(place.course / "gradebook.db")


def linked_notebook(folder: Path, place: Place) -> None:
    (folder / NOTEBOOK).unlink()
    (folder / NOTEBOOK).symlink_to(place.course / "source" / ASSIGNMENT / NOTEBOOK)


def linked_folder(folder: Path, place: Place) -> None:
    (folder / "data").symlink_to("/")


def linked_submission(folder: Path, place: Place) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(place.course / "source" / ASSIGNMENT)


def hard_linked_file(folder: Path, place: Place) -> None:
    os.link(place.course / "source" / ASSIGNMENT / NOTEBOOK, folder / "data.json")


def pipe_for_notebook(folder: Path, place: Place) -> None:
    (folder / NOTEBOOK).unlink()
    os.mkfifo(folder / NOTEBOOK)


def pipes_beside(folder: Path, place: Place) -> None:
    os.mkfifo(folder / "data.csv")
    (folder / "weights.csv").unlink()
    os.mkfifo(folder / "weights.csv")
    here = os.getcwd()
    os.chdir(folder)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("door")
    os.chdir(here)


def folder_for_notebook(folder: Path, place: Place) -> None:
    (folder / NOTEBOOK).unlink()
    (folder / NOTEBOOK).mkdir()


def folder_for_support_file(folder: Path, place: Place) -> None:
    (folder / "weights.csv").unlink()
    (folder / "weights.csv").mkdir()
    (folder / "weights.csv" / "inner.csv").write_text("1")


def sparse(name: str, size: int, number: int = 1):
    """Files that claim a size and take no space."""

    def write(folder: Path, place: Place) -> None:
        for place_ in range(number):
            with open(folder / name.format(place_), "wb") as file:
                file.truncate(size)

    return write


def many_files(folder: Path, place: Place) -> None:
    (folder / "many").mkdir()
    for number in range(10_000):
        (folder / "many" / f"{number}.txt").touch()


def strange_names(folder: Path, place: Place) -> None:
    for name in (b"line\nbreak.csv", b"latin-\xff.csv", b"-rf", b"$(reboot).csv", "\u202ecsv.x".encode(), b"a" * 250):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text("1")


def deep_folders(folder: Path, place: Path) -> None:
    here = os.getcwd()
    os.chdir(folder)
    for _ in range(60):
        os.mkdir("x" * 100)
        os.chdir("x" * 100)
    os.chdir(here)


def many_cells(notebook):
    notebook.cells += [nbf.new_code_cell("") for _ in range(3000)]


def large_cell(notebook):
    notebook.cells.append(nbf.new_code_cell("# " + "x" * (20 * MiB)))


def large_output(notebook):
    notebook.cells[1].outputs = [nbf.new_output("stream", text="x" * (20 * MiB))]


def in_first_cell(text: str):
    def edit(notebook):
        notebook.cells.append(nbf.new_code_cell(text))

    return edit


def refused(name: str, does: str, says: str = "", **details) -> Entry:
    """It cannot be graded, and is reported so."""
    return Entry(name, does, **{"points": None, "says": says, "right": True, **details})


def harmless(name: str, does: str, **details) -> Entry:
    """The answers are right, and are graded, or the reason why not is told."""
    return Entry(name, does, **{"points": MAX_POINTS, "right": True, "or_look": True, **details})


ENTRIES = [
    harmless("linked-file", "A support file is a link to the gradebook", says="symbolic link", files=linked_file),
    refused("linked-notebook", "The notebook is a link to the instructor's", "symbolic link", files=linked_notebook),
    harmless("linked-folder", "A folder is a link to the machine's root", says="symbolic link", files=linked_folder),
    refused("linked-submission", "What is handed in is a link to source/", "symbolic link", files=linked_submission),
    Entry(
        "hard-linked-file",
        "A support file is the instructor's notebook by another name",
        "gained = 'HIDDEN TESTS' in open('data.json').read()",
        or_look=True,
        files=hard_linked_file,
    ),
    refused("pipe-for-notebook", "The notebook is a pipe, so that reading never ends", files=pipe_for_notebook),
    harmless("pipes-beside", "Support files are pipes and a socket", files=pipes_beside),
    refused("folder-for-notebook", "The notebook is a folder", files=folder_for_notebook),
    harmless("folder-for-support-file", "A support file is a folder", files=folder_for_support_file),
    refused(
        "terabyte-notebook", "The notebook claims a terabyte", "bytes|large|limit", files=sparse(NOTEBOOK, 1 << 40)
    ),
    harmless("terabyte-beside", "A support file claims a terabyte", files=sparse("data.bin", 1 << 40)),
    harmless("many-large-files", "Twelve support files of 60 MB", files=sparse("data-{}.bin", 60 * MiB, 12)),
    harmless("many-files", "Ten thousand files lie beside the notebook", files=many_files),
    harmless("strange-names", "Names with line breaks, other encodings, options and commands", files=strange_names),
    harmless("deep-folders", "Folders within folders, deeper than a path may be", files=deep_folders),
    refused("deep-json", "JSON of 100,000 nested lists", raw=lambda text: b"[" * 100_000),
    refused(
        "cells-are-a-mapping", "The cells are no list", raw=with_cells(lambda nb: nb.update(cells={"0": nb["cells"]}))
    ),
    refused("cells-are-numbers", "The cells are numbers", raw=with_cells(lambda nb: nb.update(cells=[1, 2, 3]))),
    harmless(
        "sources-are-lists-of-numbers",
        "Some sources are lists of numbers",
        raw=with_cells(lambda nb: nb["cells"].append({**nb["cells"][1], "id": "new", "source": [1, None]})),
    ),
    harmless(
        "metadata-is-null",
        "The metadata of cells and notebook are null",
        raw=with_cells(lambda nb: [thing.update(metadata=None) for thing in (nb, *nb["cells"])]),
    ),
    harmless(
        "not-a-number-in-json",
        "Metadata hold NaN, infinity and a number of 4,000 digits",
        raw=lambda text: text.replace(
            '"nbformat_minor"', f'"extra": [NaN, -Infinity, {"9" * 4000}], "nbformat_minor"'
        ).encode(),
    ),
    harmless("lone-surrogates", "A cell holds half a character", edit=in_first_cell("'\ud800'")),
    harmless("null-characters", "A cell holds null and control characters", edit=in_first_cell("'\x00\x1b\x07'")),
    harmless("many-cells", "Three thousand empty cells", edit=many_cells),
    harmless("large-cell", "A cell of 20 MB", edit=large_cell),
    harmless("large-output", "A stored output of 20 MB", edit=large_output),
    refused("empty-file", "The file is empty", raw=lambda text: b""),
    refused("half-a-file", "The file breaks off in its middle", raw=lambda text: text[: len(text) // 2].encode()),
    refused("other-file", "The file is a picture", raw=lambda text: b"\x89PNG\r\n\x1a\n" + bytes(500)),
]
