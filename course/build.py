"""From the text of a question to the notebook that candidates open.

source/NAME/NAME.py --jupytext--> source/NAME/NAME.ipynb --nbgrader--> release/NAME/NAME.ipynb

The same text gives the same bytes: cell ids come from the cells' grade ids or text, nothing carries a time or
a version. All work happens in a folder beside release/, which is put in place only when all of it succeeded.
"""

import copy
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import nbformat
from nbgrader.api import MissingEntry
from nbgrader.converters import GenerateAssignment
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory

from .card import CardError, read_card
from .directory import KeepsReason, open_course, open_gradebook, silent_log, step_folder, write_atomically
from .question import BuildError, read_source, support_files, tree


def build(assignments: Sequence[str] | None, *, source_dir: Path, course_dir: Path) -> list[Path]:
    """Build the named questions (None: all) into `course_dir`, and return the paths of their release notebooks.

    Writes source/NAME/NAME.ipynb and release/NAME/NAME.ipynb, copies the files beside the text, and records the
    cells in the gradebook of `course_dir`. Raises BuildError, and then leaves the release of that question as it was.
    """
    source_dir, course_dir = Path(source_dir).resolve(), Path(course_dir).resolve()
    names = find_assignments(assignments, source_dir)
    course_dir.mkdir(parents=True, exist_ok=True)
    target = open_course(course_dir)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=course_dir) as folder:
        stage = open_course(course_dir, root=folder)
        stage_release(names, source_dir, stage)
        for name in names:
            _record(name, stage, target)
            _publish(name, stage, target)
    return [step_folder(target, "release", name) / f"{name}.ipynb" for name in names]


def stage_release(names: Sequence[str], source_dir: Path, stage: CourseDirectory) -> None:
    """Build questions, given by their full names, into a course directory without a gradebook."""
    for name in names:
        _stage_source(name, source_dir, stage)
        _generate(name, stage, db_url=None)


def known_assignments(source_dir: Path) -> list[str]:
    """Return the names of the questions whose text is NAME/NAME.py in `source_dir`, sorted."""
    return sorted(path.stem for path in Path(source_dir).glob("*/*.py") if path.stem == path.parent.name)


def find_assignments(assignments: Sequence[str] | None, source_dir: Path) -> list[str]:
    """Return full names for names or unique beginnings of names (None: all); raises BuildError for any other."""
    known = known_assignments(source_dir)
    if not known:
        raise BuildError(f"{source_dir} has no question (a folder NAME with NAME.py)")
    return known if assignments is None else [full_name(given, known) for given in assignments]


def full_name(given: str, known: Iterable[str]) -> str:
    """Return the one known name that equals or begins with `given`.

    >>> full_name("q06", ["q05_perplexity", "q06_block_quantization"])
    'q06_block_quantization'
    """
    known = sorted(known)
    matches = [given] if given in known else [name for name in known if given and name.startswith(given)]
    if len(matches) == 1:
        return matches[0]
    problem = "names several questions" if matches else "is not a question"
    raise BuildError(f"{given!r} {problem}; known are {', '.join(matches or known) or 'none'}")


def _stage_source(name: str, source_dir: Path, stage: CourseDirectory) -> None:
    folder = step_folder(stage, "source", name)
    notebook = read_source(source_dir / name / f"{name}.py")
    try:
        read_card(notebook)
    except CardError as error:
        raise BuildError(f"{name}: {error}") from None
    write_atomically(folder / f"{name}.ipynb", nbformat.writes(notebook) + "\n")
    _copy_support(source_dir / name, folder)


def _copy_support(source: Path, target: Path) -> None:
    for path in support_files(source):
        write_atomically(target / path, (source / path).read_bytes())


class _Generate(KeepsReason, GenerateAssignment):
    """nbgrader's generate_assignment, which keeps its reason when it fails."""


def _generate(name: str, stage: CourseDirectory, db_url: str | None) -> None:
    """Run nbgrader's generate_assignment in the stage; without `db_url` nothing is recorded."""
    config = copy.deepcopy(stage.config)
    config.CourseDirectory.db_url = db_url or "sqlite://"
    config.SaveCells.enabled = db_url is not None
    config.GenerateAssignment.no_database = db_url is None
    converter = _Generate(coursedir=CourseDirectory(config=config), config=config, log=silent_log(), force=True)
    converter.coursedir.assignment_id = name
    try:
        converter.start()
    except NbGraderException as error:
        reason = converter.reason or error
        raise BuildError(f"{name}: {reason.__context__ or reason}") from error


def _record(name: str, stage: CourseDirectory, target: CourseDirectory) -> None:
    _check_submissions(name, stage, target)
    _generate(name, stage, db_url=target.db_url)


def _check_submissions(name: str, stage: CourseDirectory, target: CourseDirectory) -> None:
    """Say which cells came or went, where nbgrader would refuse because candidates were graded on the old ones."""
    notebook = nbformat.read(step_folder(stage, "release", name) / f"{name}.ipynb", as_version=4)
    marks = (cell.metadata.get("nbgrader", {}) for cell in notebook.cells)
    new = {mark["grade_id"] for mark in marks if any(map(mark.get, ("grade", "solution", "locked", "task")))}
    with open_gradebook(target) as gradebook:
        try:
            recorded = gradebook.find_notebook(name, name)
        except MissingEntry:
            return
        old = {cell.name for cell in recorded.source_cells}
        if not recorded.submissions or new == old:
            return
        raise BuildError(
            f"{name}: {len(recorded.submissions)} submissions in the gradebook were graded on other cells "
            f"(new: {', '.join(sorted(new - old)) or 'none'}; gone: {', '.join(sorted(old - new)) or 'none'}). "
            f"Build into a fresh course directory, or forget their scores with "
            f"`nbgrader db assignment remove {name} --force`."
        )


def _publish(name: str, stage: CourseDirectory, target: CourseDirectory) -> None:
    staged, source = step_folder(stage, "source", name), step_folder(target, "source", name)
    for relative, content in tree(staged).items():
        if not (source / relative).is_file() or (source / relative).read_bytes() != content:
            write_atomically(source / relative, content)
    _replace_folder(step_folder(target, "release", name), step_folder(stage, "release", name))


def _replace_folder(old: Path, new: Path) -> None:
    """Put folder `new` where `old` is, in two renames; where nothing changed nothing is touched."""
    if old.is_dir() and tree(old) == tree(new):
        return
    old.parent.mkdir(parents=True, exist_ok=True)
    backup = new.with_name(f"{new.name}.old")
    if old.is_dir():
        old.rename(backup)
    try:
        new.rename(old)
    except OSError:
        if backup.is_dir():
            backup.rename(old)
        raise
