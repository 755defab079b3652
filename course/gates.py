"""What must hold of a built release: it equals its source, leaks nothing, and its cells can be graded.

Every gate returns its problems as sentences that name the file, the cell and what is wrong; no problem, no sentence.
"""

import ast
import asyncio
import copy
import os
import re
import shutil
import symtable
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbgrader.nbgraderformat import MetadataValidator, SchemaTooNewError, SchemaTooOldError, ValidationError

from .build import find_assignments, known_assignments, stage_release
from .card import CardError, read_card
from .directory import open_course, step_folder
from .examiner.exam import ExamCell
from .question import (
    DELIMITER,
    BuildError,
    find_exercises,
    is_test,
    label,
    read_source,
    split_regions,
    support_files,
    tree,
)

TEST_SECONDS = 5.0
CELL_SECONDS = 240
EXPERIMENT = "experiment"
HINTS = 3
FENCED_WIDTH = 104  # what a notebook shows unbroken on a screen of 1440 points
SAMPLES = ("strong", "middling", "weak")
_STUBS = "# YOUR CODE HERE\nraise NotImplementedError()\nYOUR ANSWER HERE"  # nbgrader's, in place of a solution
_TELLING = 8  # characters from which on a line is looked for inside other lines too


@dataclass(frozen=True)
class Question:
    """One question as the instructor has it, and as candidates get it."""

    name: str
    source_folder: Path
    release_folder: Path
    source: NotebookNode
    release: NotebookNode

    def problem(self, cell: NotebookNode | None, what: str) -> str:
        """Return a sentence that names the question, the cell and what is wrong."""
        return f"{self.name}{f', cell {label(cell)}' if cell else ''}: {what}"


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
    gates = [
        check_leaks,
        check_blanks,
        check_tests,
        check_exercises,
        check_rubric,
        check_card,
        check_width,
        check_experiment,
    ]
    gates += [check_run] if run else []

    def check(name: str) -> list[str]:
        try:
            question = load_question(name, source_dir=source_dir, course_dir=course_dir)
        except (BuildError, OSError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
            return [f"{name}: cannot be read: {error}"]
        return [problem for gate in gates for problem in gate(question)]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return problems + list(chain.from_iterable(pool.map(check, names)))


def load_question(name: str, *, source_dir: Path, course_dir: Path) -> Question:
    """Return a question with both of its notebooks read."""
    source, release = Path(source_dir) / name, step_folder(open_course(course_dir), "release", name)
    notebook = nbformat.read(release / f"{name}.ipynb", as_version=4)
    return Question(name, source, release, read_source(source / f"{name}.py"), notebook)


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


def check_leaks(question: Question) -> list[str]:
    """Find solutions, hidden tests, mark schemes, outputs, attachments and files that candidates must not get."""
    return [*_leaked_files(question), *_leaked_lines(question), *_leaked_results(question)]


def check_blanks(question: Question) -> list[str]:
    """Find solution cells that do not raise NotImplementedError until they are solved."""
    problems = []
    for cell in _cells(question.release, "solution"):
        if cell.cell_type == "markdown":
            fault = None if "YOUR ANSWER HERE" in cell.source else "is not blank"
        else:
            fault = _blank_fault(cell.source)
        problems += [question.problem(cell, fault)] if fault else []
    return problems


def check_tests(question: Question) -> list[str]:
    """Find test cells that nbgrader refuses or scores wrongly: metadata, ids, points, a last line with a value."""
    problems = _metadata_faults(question)
    for notebook in (question.source, question.release):
        for cell in _tests(notebook):
            mark = cell.metadata.nbgrader
            faults = [
                (mark.get("points", 0) <= 0, f"a test cell has {mark.get('points', 0)} points"),
                (not mark.get("locked"), "a test cell is not locked"),
                (not _ends_in_statement(cell.source), "a test cell must be Python that ends in a statement"),
                *((True, what) for what in _borrowed_names(cell.source)),
            ]
            problems += [question.problem(cell, what) for failed, what in faults if failed]
    return list(dict.fromkeys(problems))


def check_exercises(question: Question) -> list[str]:
    """Find exercises without a visible test, hidden tests, or three folded hints."""
    exercises = find_exercises(question.source)
    problems = [] if exercises else [question.problem(None, "has no exercise")]
    for exercise in exercises:
        tested = {is_hidden for cell in exercise.tests for is_hidden in _tested(cell)}
        hints = sum(len(re.findall(r"<details\s*>", cell.source)) for cell in exercise.texts)
        faults = [
            (False not in tested, "the exercise has no visible test"),
            (True not in tested, "the exercise has no hidden test"),
            (hints < HINTS, f"the exercise has {hints} folded hints (<details>), not {HINTS}"),
        ]
        problems += [question.problem(exercise.blanks[0], what) for failed, what in faults if failed]
    return problems


def check_rubric(question: Question) -> list[str]:
    """Find rubric cells that are no task cells, or whose mark scheme lacks one of the three sample answers."""
    rubric = [cell for cell in question.source.cells if _is_rubric(cell)]
    problems = [] if rubric else [question.problem(None, "has no rubric cell")]
    for cell in rubric:
        mark = cell.metadata.nbgrader
        scheme = "\n".join(split_regions(cell)[1])
        absent = [sample for sample in SAMPLES if not re.search(rf"\b{sample}\b.*\d", scheme, re.IGNORECASE)]
        faults = [
            (not mark.get("task"), "a rubric cell must be a task cell"),
            (not mark.grade_id.startswith("rubric-"), "the grade_id of a task cell with points begins with rubric-"),
            (mark.get("points", 0) <= 0, f"a rubric cell has {mark.get('points', 0)} points"),
            (absent, f"the mark scheme has no scored sample answer: {', '.join(absent)}"),
        ]
        problems += [question.problem(cell, what) for failed, what in faults if failed]
    return problems


def check_card(question: Question) -> list[str]:
    """Find a card that is missing, incomplete or contradicts itself."""
    try:
        read_card(question.release)
    except CardError as error:
        return [question.problem(None, str(error))]
    return []


def check_width(question: Question) -> list[str]:
    """Find lines of drawings, contracts and hints that are so long that JupyterLab breaks them."""
    return [
        question.problem(
            cell, f"a line between ``` has {len(line)} characters, more than {FENCED_WIDTH}: {line.strip()}"
        )
        for cell in question.source.cells
        if cell.cell_type == "markdown"
        for block in re.findall(r"^```.*?^```", cell.source, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
        if len(line) > FENCED_WIDTH
    ]


def check_experiment(question: Question) -> list[str]:
    """Find cells of the experiment without its tag, and graded or solution cells that carry it."""
    problems, tagged = [], 0
    for section, cell in _sections(question.source):
        if cell.cell_type != "code":
            continue
        tag, mark = EXPERIMENT in cell.metadata.get("tags", []), cell.metadata.get("nbgrader", {})
        tagged += tag
        if tag and (mark.get("grade") or mark.get("solution")):
            problems.append(question.problem(cell, "is graded, so grading must run it, but carries the experiment tag"))
        if section and not tag and not mark:
            problems.append(question.problem(cell, "stands in the experiment without the tag experiment"))
    return problems if tagged else [*problems, question.problem(None, "has no experiment cell")]


def check_run(question: Question) -> list[str]:
    """Run the notebook without its experiment; find errors, and test cells that are slow or write to stderr."""
    notebook = without_experiment(question.source)
    try:
        run_source(notebook, question.source_folder)
    except (DeadKernelError, CellTimeoutError) as error:
        return [question.problem(None, f"the model answers do not run: {error}")]
    return [question.problem(cell, what) for cell in notebook.cells for what in _run_faults(cell)]


def without_experiment(notebook: NotebookNode) -> NotebookNode:
    """Return a copy of a notebook without the cells that grading does not run."""
    kept = [cell for cell in notebook.cells if EXPERIMENT not in cell.metadata.get("tags", [])]
    return copy.deepcopy(NotebookNode(notebook, cells=kept))


def run_source(notebook: NotebookNode, source_folder: Path) -> None:
    """Run a notebook in a fresh kernel, beside copies of its support files; a cell that fails does not end it.

    Torch gets one thread, since notebooks run side by side.
    """
    with tempfile.TemporaryDirectory() as folder:
        for path in support_files(source_folder):
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source_folder / path, Path(folder) / path)
        client = NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            allow_errors=True,
            resources={"metadata": {"path": folder}},
            extra_arguments=["--log-level=ERROR"],  # of the kernel itself; what cells print is kept
        )
        asyncio.run(client.async_execute(env={**os.environ, "OMP_NUM_THREADS": "1"}))


def _cells(notebook: NotebookNode, flag: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get(flag)]


def _tests(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if is_test(cell)]


def _is_rubric(cell: NotebookNode) -> bool:
    mark = cell.metadata.get("nbgrader", {})
    return bool(mark.get("task") and mark.get("points")) or mark.get("grade_id", "").startswith("rubric-")


def _differences(old: Path, new: Path) -> Iterator[str]:
    mine, given = tree(old) if old.is_dir() else {}, tree(new)
    for path in sorted(mine.keys() | given.keys()):
        if path not in mine:
            yield f"{old.name}/{path}: is missing in release/; run `course build {old.name}`"
        elif path not in given:
            yield f"{old.name}/{path}: is in release/ but the source does not give it"
        elif mine[path] != given[path]:
            yield f"{old.name}/{path}: differs from what the source gives; run `course build {old.name}`"


def _leaked_files(question: Question) -> list[str]:
    allowed = {f"{question.name}.ipynb", *(path.as_posix() for path in support_files(question.source_folder))}
    extra = sorted(set(tree(question.release_folder)) - allowed)
    return [question.problem(None, f"release/ has the file {path}, which is not beside the source") for path in extra]


def _leaked_results(question: Question) -> list[str]:
    problems = []
    for cell in question.release.cells:
        carried = [key for key in ("outputs", "execution_count", "attachments") if cell.get(key)]
        problems += [question.problem(cell, f"release/ carries {key}") for key in carried]
    return problems


def _leaked_lines(question: Question) -> Iterator[str]:
    """Look for every removed line that the instructor's visible text does not have in all that candidates get."""
    shown = [_STUBS, *("\n".join(split_regions(cell)[0]) for cell in question.source.cells)]
    shown_text, shown_lines = "\n".join(shown), _lines("\n".join(shown))
    given_text = "\n".join(_release_texts(question))
    given_lines = _lines(given_text)
    for match in dict.fromkeys(DELIMITER.findall(given_text)):
        yield question.problem(None, f"release/ has the delimiter {' '.join(match)}")
    for cell in question.source.cells:
        removed = _lines("\n".join(split_regions(cell)[1]))
        secret = {line for line in removed if line not in shown_lines}
        telling = {line for line in secret if len(line) >= _TELLING and line not in shown_text}
        leaked = {line for line in telling if line in given_text} | (secret & given_lines)
        yield from (question.problem(cell, f"release/ has the line {line!r}") for line in sorted(leaked))
        if removed and not secret:
            yield question.problem(cell, "all that is cut out stands in the visible text too")


def _lines(text: str) -> set[str]:
    return {line.strip() for line in text.split("\n")} - {""}


def _release_texts(question: Question) -> Iterator[str]:
    yield from _strings(question.release)
    for path, content in tree(question.release_folder).items():
        if path != f"{question.name}.ipynb":
            yield content.decode(errors="replace")


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from chain.from_iterable(map(_strings, value.values()))
    elif isinstance(value, list):
        yield from chain.from_iterable(map(_strings, value))


def _blank_fault(source: str) -> str | None:
    try:
        module = ast.parse(source)
    except SyntaxError as error:
        return f"is not Python: {error}"
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    blanks = [node for node in ast.walk(module) if isinstance(node, kinds)] or [module]
    for node in blanks:
        name = getattr(node, "name", "the cell")
        if not node.body or not _raises_not_implemented(node.body[-1]):
            return f"{name} does not end in raise NotImplementedError"
        if any(isinstance(child, ast.Return) and child.value for child in ast.walk(node)):
            return f"{name} returns a value"
    return None


def _raises_not_implemented(node: ast.stmt) -> bool:
    raised = node.exc if isinstance(node, ast.Raise) else None
    raised = raised.func if isinstance(raised, ast.Call) else raised
    return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"


def _ends_in_statement(source: str) -> bool:
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return False
    last = body[-1] if body else None
    counts = isinstance(last, ast.Expr) and isinstance(last.value, ast.Attribute) and last.value.attr == "earned"
    return counts or not isinstance(last, ast.Expr)  # the former is the points that a checks.Points has counted


def _borrowed_names(source: str) -> Iterator[str]:
    """Yield what is wrong with the parts of a checks.Points that use names which a part before them defines."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return
    parts = [node for node in body if isinstance(node, ast.With) and ".part(" in ast.unparse(node.items[0])]
    shared, _ = _names([node for node in body if node not in parts])
    before: dict[str, str] = {}  # name -> the part that defines it
    for part in parts:
        title = ast.unparse(part.items[0].context_expr.args[-1])
        own, used = _names([part])
        for name in sorted(used & before.keys() - own - shared):
            yield f"the part {title} uses {name}, which is missing where the part {before[name]} fails before it"
        before |= dict.fromkeys(own, title)


def _names(statements: list[ast.stmt]) -> tuple[set[str], set[str]]:
    """The global names that statements bind, and those that they or the functions in them use."""
    table = symtable.symtable(ast.unparse(ast.Module(statements, [])), "test cell", "exec")
    bound = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    used = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    inner = table.get_children()
    while inner:
        scope = inner.pop()
        used |= {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global()}
        inner += scope.get_children()
    return bound, used


def _tested(cell: NotebookNode) -> Iterator[bool]:
    """Yield for each assertion, call and raise of a test cell whether it stands among the hidden tests."""
    try:
        tree = ast.parse(cell.source)
    except SyntaxError:
        return
    own = ExamCell(label(cell), cell.source, None)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert | ast.Call | ast.Raise):
            yield own.hides(node.lineno)


def _metadata_faults(question: Question) -> list[str]:
    try:
        MetadataValidator().validate_nb(nbformat.from_dict(question.release))
    except (ValidationError, SchemaTooOldError, SchemaTooNewError) as error:
        return [question.problem(None, f"nbgrader refuses its metadata: {error}")]
    ids = [cell.metadata.nbgrader.get("grade_id") for cell in question.release.cells if "nbgrader" in cell.metadata]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    return [question.problem(None, f"the grade_id {name} stands twice") for name in twice]


def _sections(notebook: NotebookNode) -> Iterator[tuple[bool, NotebookNode]]:
    """Yield each cell with whether it stands under a heading that says "experiment"."""
    level = 0  # of the heading that opened the experiment; 0 outside
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"^```.*?^```", "", cell.source, flags=re.DOTALL | re.MULTILINE)
            for marks, title in re.findall(r"^(#+) (.*)", text, re.MULTILINE):
                if not level or len(marks) <= level:
                    level = len(marks) if re.search(r"\bexperiment", title, re.IGNORECASE) else 0
        yield bool(level), cell


def _run_faults(cell: NotebookNode) -> Iterator[str]:
    for output in cell.get("outputs", []):
        if output.output_type == "error":
            yield f"the model answers give {output.ename}: {output.evalue}"
        elif is_test(cell) and output.output_type == "stream" and output.name == "stderr":
            yield f"a test cell writes to stderr: {output.text.strip()[:200]}"
    seconds = _seconds(cell)
    if is_test(cell) and seconds > TEST_SECONDS:
        yield f"a test cell takes {seconds:.1f} s, more than {TEST_SECONDS:g} s"


def _seconds(cell: NotebookNode) -> float:
    times = cell.metadata.get("execution", {})
    ends = [times.get(key) for key in ("iopub.status.busy", "iopub.status.idle")]
    if not all(ends):
        return 0.0
    start, end = (datetime.fromisoformat(text) for text in ends)
    return (end - start).total_seconds()
