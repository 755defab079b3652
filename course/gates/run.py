"""The model answers run; their tests are silent and in time; what grading leaves out is marked as the experiment."""

import asyncio
import copy
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from ..question import is_test, support_files
from .notebooks import Question

TEST_SECONDS = 5.0
CELL_SECONDS = 240
EXPERIMENT = "experiment"


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
