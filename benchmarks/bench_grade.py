"""Grading beside its peer: `course grade` and stock `nbgrader autograde` on the same submissions.

    python benchmarks/bench_grade.py [--submissions 30] [--workers 1 2]

The submissions are of the assignment that the tests of the examiner attack: torch and numpy, four exercises, hidden
tests, half of the answers right. Times are of the whole command, its start included. CPU and memory are the machine's,
less what they were before: let nothing else run. The sandbox alone is the time to start a candidate's process, run a
cell that prints, and end it with all that it started; `no sandbox` forks it from the same warm parent, unprotected.

The ratio is how many times a command takes less than stock nbgrader.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
from nbgrader.api import Gradebook
from rich.console import Console
from rich.table import Table

from course.answers import fill_in
from course.build import build
from course.examiner.candidate import Candidate
from course.examiner.sandbox import Limits

ASSIGNMENT = "q95_attacked"
SOURCES = Path(__file__).parents[1] / "tests/attacks/assignment"
CONFIG = "from course.examiner.nbgrader_plugin import configure\n\nconfigure(get_config())\n"
WRONG = {"span": "def span(values):\n    return 0.0"}
STARTS = 30  # of a candidate's process
SAMPLE_SECONDS = 0.1


@dataclass
class Cost:
    """What a command took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def make_course(root: Path, submissions: int) -> Path:
    """A course directory with an assignment and submissions, nothing of it graded."""
    course = root / "course"
    question = course / "source" / ASSIGNMENT
    question.mkdir(parents=True)
    for path in SOURCES.iterdir():
        shutil.copy(path, question / (f"{path.stem}.py" if path.suffix == ".txt" else path.name))
    (release,) = build([ASSIGNMENT], source_dir=course / "source", course_dir=course)
    original = nbformat.read(course / "source" / ASSIGNMENT / release.name, as_version=4)
    marks = [(cell, cell.metadata.get("nbgrader", {})) for cell in original.cells]
    right = {mark["grade_id"]: cell.source for cell, mark in marks if mark.get("solution")}
    for number in range(submissions):
        folder = course / "submitted" / f"candidate{number:03}" / ASSIGNMENT
        shutil.copytree(release.parent, folder)
        cells = {**right, **(WRONG if number % 2 else {})}
        nbformat.write(fill_in(nbformat.read(release, as_version=4), cells), folder / release.name)
    return course


def busy_seconds() -> float:
    times = psutil.cpu_times()
    return sum(times[:3])  # user, nice, system


def measure(command: Sequence[str], folder: Path) -> Cost:
    """What a command takes, of the whole machine."""
    done = threading.Event()
    used = [psutil.virtual_memory().available]

    def watch() -> None:
        while not done.wait(SAMPLE_SECONDS):
            used.append(psutil.virtual_memory().available)

    watcher = threading.Thread(target=watch)
    watcher.start()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    cpu, began = busy_seconds(), time.perf_counter()
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": path})
    seconds, cpu = time.perf_counter() - began, busy_seconds() - cpu
    done.set()
    watcher.join()
    if run.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{run.stdout}{run.stderr}")
    return Cost(seconds, cpu, used[0] - min(used))


def scores(course: Path) -> dict[str, float]:
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        return {entry.student.id: entry.score for entry in gradebook.find_assignment(ASSIGNMENT).submissions}


def compare(submissions: int, workers: Sequence[int]) -> dict[str, Cost]:
    """Name of a way to grade -> its cost; all give the same scores."""
    grade = [sys.executable, "-m", "course.cli", "grade", "--workers"]
    ways = {"nbgrader autograde": ([sys.executable, "-m", "nbgrader", "autograde", ASSIGNMENT], "")}
    ways |= {f"course grade --workers {number}": ([*grade, str(number)], CONFIG) for number in workers}
    ways["the same, --sandbox none"] = ([*grade, str(workers[-1]), "--sandbox", "none"], CONFIG)
    costs, found = {}, []
    with tempfile.TemporaryDirectory() as root:
        course = make_course(Path(root), submissions)
        for number, (name, (command, config)) in enumerate(ways.items()):
            Console(stderr=True).print(f"{name} ...")
            own = Path(shutil.copytree(course, Path(root) / str(number)))
            (own / "nbgrader_config.py").write_text(config)
            costs[name] = measure(command, own)
            found.append(scores(own))
    if any(other != found[0] for other in found):
        raise SystemExit(f"the scores differ: {found}")
    return costs


def start_seconds(sandbox: str) -> float:
    """Seconds to start a candidate's process, run a cell and end it, from a parent that is warm already."""
    times = []
    for _ in range(STARTS + 1):
        began = time.perf_counter()
        with Candidate({}, sandbox, Limits()) as candidate:
            candidate.run("print(1)")
        times.append(time.perf_counter() - began)
    return sum(times[1:]) / STARTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--submissions", type=int, default=30)
    cores = os.cpu_count() or 1
    parser.add_argument("--workers", type=int, nargs="+", default=sorted({1, cores, 2 * cores}))
    options = parser.parse_args()
    console = Console(width=110)
    costs = compare(options.submissions, options.workers)
    stock = next(iter(costs.values()))
    table = Table(title=f"{options.submissions} submissions, {cores} cores", title_justify="left")
    for column in ("", "seconds", "each", "CPU seconds", "peak MB", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    for name, cost in costs.items():
        each = f"{cost.seconds / options.submissions:.2f}"
        figures = (f"{cost.seconds:.1f}", each, f"{cost.cpu_seconds:.1f}", f"{cost.peak_bytes / 1e6:.0f}")
        table.add_row(name, *figures, f"{stock.seconds / cost.seconds:.1f}x")
    console.print(table)
    none, bubblewrap = start_seconds("none"), start_seconds("bubblewrap")
    console.print(
        f"a candidate's process: {1e3 * bubblewrap:.0f} ms in the sandbox, {1e3 * none:.0f} ms with no sandbox: "
        f"the sandbox costs {1e3 * (bubblewrap - none):.0f} ms ({bubblewrap / none:.1f}x)"
    )


if __name__ == "__main__":
    main()
