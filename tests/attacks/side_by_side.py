"""The corpus against stock nbgrader and against the examiner, side by side.

    python -m tests.attacks.side_by_side                   # all, some 15 minutes on two cores
    python -m tests.attacks.side_by_side checks unlucky    # some categories

Stock nbgrader runs a submission with all that the user who calls it may do, so each submission is graded on its own,
in a copy of the course, inside bubblewrap: no network, no file of the machine writable, limits on time, memory and
processes. It prints a table: who is who, the points deserved, stock nbgrader's, the examiner's, and what happened.
Linux with bubblewrap; under root, the user nobody must be able to read the Python installation.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .canaries import Canaries, everything_below
from .corpus import corpus
from .entry import ASSIGNMENT, NOBODY, Entry, Place, hand_in
from .run import build_course, graded, hand_all_in

SECONDS = 60  # for one submission of stock nbgrader's
STOCK = "c = get_config()\nc.Execute.timeout = 5\n"
LIMITS = ["prlimit", f"--data={3 << 30}", "--nproc=500", f"--fsize={256 << 20}", "--core=0"]
SCORES = """
import sqlite3, sys
query = "SELECT count(auto_score), sum(auto_score) FROM grade"
count, points = sqlite3.connect("gradebook.db").execute(query).fetchone()
print(points if count else "")
"""


@dataclass
class Row:
    """What one submission deserves and got; None where it was not graded."""

    student: str
    deserved: float | None
    stock: float | None
    ours: float | None
    happened: str

    @property
    def verdict(self) -> str:
        return compare(self.deserved, self.stock)

    @property
    def our_verdict(self) -> str:
        return compare(self.deserved, self.ours)


def compare(deserved: float | None, got: float | None) -> str:
    if got is None:
        return "as deserved" if deserved is None else "not graded"
    if got == (deserved or 0):
        return "as deserved"
    return "gains" if got > (deserved or 0) else "loses"


def sandboxed(command: list[str], course: Path, seconds: float) -> subprocess.CompletedProcess:
    """Run a command in the course directory: everything else of the machine is read-only, empty, or not there."""
    view = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    view += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    for folder in ("/tmp", "/var/tmp", "/run", "/dev/shm"):
        view += ["--size", str(256 << 20), "--tmpfs", folder]
    view += ["--bind", str(course), str(course), "--chdir", str(course), "--clearenv"]
    variables = {"HOME": "/tmp", "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    for name, value in variables.items():
        view += ["--setenv", name, value]
    as_nobody = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"] if is_root() else []
    try:
        return subprocess.run(
            [*as_nobody, *view, "--", *LIMITS, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"stopped after {seconds:g} s")


def is_root() -> bool:
    return os.geteuid() == 0


def grade_with_stock(entry: Entry, student: str, built: Path, folder: Path) -> tuple[float | None, str]:
    """The points that stock nbgrader gives one submission, None for none, and what happened."""
    course = Path(shutil.copytree(built, folder / student / "course"))
    (course / "nbgrader_config.py").write_text(STOCK)
    hand_in(entry, student, Place(course, "planted-by-an-attack", 9))
    if is_root():
        for path in everything_below(course):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    command = [sys.executable, "-m", "nbgrader", "autograde", ASSIGNMENT, f"--student={student}"]
    run = sandboxed(command, course, SECONDS)
    scores = sandboxed([sys.executable, "-c", SCORES], course, SECONDS).stdout.strip()
    shutil.rmtree(folder / student, ignore_errors=True)
    return (float(scores) if scores else None), last_error(run)


def last_error(run: subprocess.CompletedProcess) -> str:
    """The last line in which nbgrader names a failure, if it failed."""
    if run.returncode == 0:
        return ""
    lines = [line.strip() for line in run.stderr.splitlines() if "rror" in line or "stopped after" in line]
    return (lines or [f"exit status {run.returncode}"])[-1][-100:]


def rows(categories: list[str], workers: int) -> list[Row]:
    entries = {
        student: entry for student, entry in corpus().items() if not categories or student.split("-")[0] in categories
    }
    with tempfile.TemporaryDirectory(prefix="side-by-side-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        built = build_course(folder / "built" / "course")
        if (trial := sandboxed(["true"], built, SECONDS)).returncode:
            raise SystemExit(f"no sandbox to run stock nbgrader in: {trial.stderr.strip()}")
        with ThreadPoolExecutor(workers) as pool:
            stock = pool.map(lambda pair: grade_with_stock(pair[1], pair[0], built, folder), entries.items())
            stock = dict(zip(entries, stock, strict=True))
        with Canaries(built) as canaries:
            hand_all_in(entries, canaries.place)
            ours = {outcome.student: outcome.points for outcome in graded(built, workers=workers)}
    return [
        Row(student, entry.points, stock[student][0], ours[student], stock[student][1])
        for student, entry in entries.items()
    ]


def table(found: list[Row]) -> Table:
    shown = Table("submission", "deserves", "nbgrader", "", "examiner", "", "what happened in nbgrader")
    for row in found:
        points = ["-" if value is None else f"{value:g}" for value in (row.deserved, row.stock, row.ours)]
        shown.add_row(row.student, points[0], points[1], row.verdict, points[2], row.our_verdict, row.happened)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("category", nargs="*", help="such as checks, forged or unlucky; default: all")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    found = rows(options.category, options.workers)
    console = Console(width=None if sys.stdout.isatty() else 180)
    console.print(table(found))
    for name, verdicts in (
        ("nbgrader", [row.verdict for row in found]),
        ("examiner", [row.our_verdict for row in found]),
    ):
        console.print(f"{name}: " + ", ".join(f"{count} {what}" for what, count in Counter(verdicts).most_common()))


if __name__ == "__main__":
    main()
