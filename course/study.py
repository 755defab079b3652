"""The study folder: a learner's own copies of the released notebooks, and a start page that lists them."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import nbformat
from nbformat.v4 import new_markdown_cell, new_notebook

from .card import Card, read_card
from .directory import write_atomically
from .question import KERNELSPEC, BuildError, find_exercises, is_test, support_files

START = "start.ipynb"
_MANIFEST = ".course.json"  # what each of the learner's files was when it was copied: {path: fingerprint}


@dataclass
class StudyResult:
    """What a run of `study` did to each file, by path relative to the study folder."""

    start: Path
    created: list[str] = field(default_factory=list)
    refreshed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    newer: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Entry:
    """A question on the start page."""

    name: str
    card: Card
    exercises: int
    code_points: float
    rubric_points: float


def study(release_dir: Path, study_dir: Path) -> StudyResult:
    """Copy the questions of `release_dir` into `study_dir`, and write its start page.

    A file that the learner has not changed follows the release; one that the learner has changed is kept, and where the
    release has changed too the new version is put beside it as NAME.new.ipynb (`newer` in the result).
    Raises BuildError where there is nothing to copy.
    """
    release_dir, study_dir = Path(release_dir), Path(study_dir)
    names = sorted(path.stem for path in release_dir.glob("*/*.ipynb") if path.stem == path.parent.name)
    if not names:
        raise BuildError(f"{release_dir} has no question; run `course build` first")
    result = StudyResult(start=study_dir / START)
    manifest = _read_manifest(study_dir / _MANIFEST)
    for name in names:
        for path in [Path(f"{name}.ipynb"), *support_files(release_dir / name)]:
            _place(release_dir / name / path, study_dir, Path(name) / path, manifest, result)
    write_atomically(study_dir / _MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    write_atomically(result.start, start_page([_entry(release_dir / name / f"{name}.ipynb") for name in names]))
    return result


def start_page(entries: list[Entry]) -> str:
    """Return the start page, a notebook of one markdown cell, as the text of its file."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("course"), trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    text = environment.get_template("start.md").render(entries=sorted(entries, key=lambda entry: entry.card.number))
    cell = new_markdown_cell(text.strip(), id="start", metadata={"editable": False, "deletable": False})
    return nbformat.writes(new_notebook(cells=[cell], metadata={"kernelspec": KERNELSPEC})) + "\n"


def fingerprint(path: Path) -> str:
    """Return a hash of what a learner can change: cells and outputs of a notebook, or the bytes of any other file.

    Opening and saving a notebook changes its metadata, which does not count.
    """
    content = path.read_bytes()
    if path.suffix == ".ipynb":
        try:
            cells = json.loads(content)["cells"]
            kept = [[cell["cell_type"], "".join(cell["source"]), cell.get("outputs")] for cell in cells]
            content = json.dumps(kept).encode()
        except (ValueError, KeyError, TypeError):
            pass  # a damaged notebook is compared as bytes
    return hashlib.sha256(content).hexdigest()


def _read_manifest(path: Path) -> dict[str, str]:
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _place(source: Path, study_dir: Path, path: Path, manifest: dict[str, str], result: StudyResult) -> None:
    target, key = study_dir / path, path.as_posix()
    released, copied = fingerprint(source), manifest.get(key)
    mine = fingerprint(target) if target.is_file() else None
    if mine is None or mine == copied != released:
        write_atomically(target, source.read_bytes())
        (result.created if mine is None else result.refreshed).append(key)
    elif mine != released:
        result.kept.append(key)
        if copied != released:
            _place_beside(source, target, released, result)
        return
    manifest[key] = released


def _place_beside(source: Path, target: Path, released: str, result: StudyResult) -> None:
    beside = target.with_name(f"{target.stem}.new{target.suffix}")
    if not beside.is_file() or fingerprint(beside) != released:
        write_atomically(beside, source.read_bytes())
    result.newer.append(beside.relative_to(result.start.parent).as_posix())


def _entry(path: Path) -> Entry:
    notebook = nbformat.read(path, as_version=4)
    points = [
        (is_test(cell), cell.metadata.nbgrader.get("points") or 0)
        for cell in notebook.cells
        if "nbgrader" in cell.metadata
    ]
    code, rubric = (sum(value for test, value in points if test == wanted) for wanted in (True, False))
    return Entry(path.stem, read_card(notebook), len(find_exercises(notebook)), code, rubric)
