"""All gates over a release, and those on its files: what the source gives now, and nothing else."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import nbformat

from ..build import find_assignments, known_assignments, stage_release
from ..directory import open_course, step_folder
from ..question import BuildError, tree
from .cells import check_blanks, check_card, check_exercises, check_rubric, check_tests, check_width
from .leaks import check_leaks
from .notebooks import load_question
from .run import check_experiment, check_run

GATES = (
    check_leaks,
    check_blanks,
    check_tests,
    check_exercises,
    check_rubric,
    check_card,
    check_width,
    check_experiment,
)


def check_release(
    assignments: Sequence[str] | None, *, source_dir: Path, course_dir: Path, run: bool = True
) -> list[str]:
    """Return the problems of the named questions (None: all), built into `course_dir`; `run` runs the model answers.

    Raises BuildError for an unknown name.
    """
    source_dir, course_dir = Path(source_dir), Path(course_dir)
    names = find_assignments(assignments, source_dir)
    problems = check_drift(names, source_dir=source_dir, course_dir=course_dir)
    if assignments is None:
        problems += check_strays(source_dir=source_dir, course_dir=course_dir)
    questions = []
    for name in names:
        try:
            questions.append(load_question(name, source_dir=source_dir, course_dir=course_dir))
        except (BuildError, OSError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
            problems.append(f"{name}: cannot be read: {error}")
    problems += [problem for question in questions for gate in GATES for problem in gate(question)]
    if run:  # only the waiting for kernels is done in threads: Python 3.11's ast.parse is not safe in them
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            problems += chain.from_iterable(pool.map(check_run, questions))
    return problems


def check_drift(names: Sequence[str], *, source_dir: Path, course_dir: Path) -> list[str]:
    """Find files of the release that differ from what the source gives now."""
    release = open_course(course_dir)
    with tempfile.TemporaryDirectory() as folder:
        stage = open_course(course_dir, root=folder)
        try:
            stage_release(names, source_dir, stage)
        except BuildError as error:
            return [f"cannot be built: {error}"]
        folders = [(step_folder(release, "release", name), step_folder(stage, "release", name)) for name in names]
        return [problem for old, new in folders for problem in _differences(old, new)]


def check_strays(*, source_dir: Path, course_dir: Path) -> list[str]:
    """Find folders of the release that no source gives."""
    release = step_folder(open_course(course_dir), "release", ".")
    known = set(known_assignments(source_dir))
    folders = sorted(path.name for path in release.iterdir() if path.is_dir()) if release.is_dir() else []
    return [f"{name}: is in release/ but has no source" for name in folders if name not in known and name[0] != "."]


def _differences(old: Path, new: Path) -> Iterator[str]:
    mine, given = tree(old) if old.is_dir() else {}, tree(new)
    for path in sorted(mine.keys() | given.keys()):
        if path not in mine:
            yield f"{old.name}/{path}: is missing in release/; run `course build {old.name}`"
        elif path not in given:
            yield f"{old.name}/{path}: is in release/ but the source does not give it"
        elif mine[path] != given[path]:
            yield f"{old.name}/{path}: differs from what the source gives; run `course build {old.name}`"
