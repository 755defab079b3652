"""Each cell is as nbgrader, the examiner and the form of a question need it."""

import ast
import re
import symtable
from collections.abc import Iterator

import nbformat
from nbformat import NotebookNode
from nbgrader.nbgraderformat import MetadataValidator, SchemaTooNewError, SchemaTooOldError, ValidationError

from ..card import CardError, read_card
from ..examiner.exam import ExamCell
from ..question import find_exercises, is_test, label, split_regions
from .notebooks import Question

HINTS = 3
FENCED_WIDTH = 104  # what a notebook shows unbroken on a screen of 1440 points
SAMPLES = ("strong", "middling", "weak")


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


def _cells(notebook: NotebookNode, flag: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get(flag)]


def _tests(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if is_test(cell)]


def _is_rubric(cell: NotebookNode) -> bool:
    mark = cell.metadata.get("nbgrader", {})
    return bool(mark.get("task") and mark.get("points")) or mark.get("grade_id", "").startswith("rubric-")


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
