"""`course regrade`: examines again what older tests graded; tells whose score changes before anything is written."""

import contextlib
import pickle
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nbgrader import api
from nbgrader.coursedir import CourseDirectory
from rich.markup import escape
from rich.table import Table

from ..directory import load_config, only_writer, open_gradebook
from .cluster import Where
from .earlier import Earlier, Pile
from .grade import examined_exercises, record_examined
from .submissions import Submission, Ungradable


@dataclass(frozen=True)
class Change:
    """An exercise whose points are others by the tests of now."""

    student: str
    assignment: str
    notebook: str
    grade_id: str
    old: float | None  # points; None: the exercise is new
    new: float | None  # None: it is gone
    old_max: float | None
    new_max: float | None
    by_hand: float | None  # what the instructor gave for it, and what counts
    reason: str


@dataclass
class Regrading:
    """What examining again found out, and what it takes to record it."""

    coursedir: CourseDirectory
    folder: Path  # holds the examined submissions, one file each
    current: int = 0  # graded by the tests of now
    left: int = 0  # new, changed or never completely graded: for `course grade`
    examined: list[tuple[str, str, str, Path]] = field(default_factory=list)  # student, assignment, digest, file
    changes: list[Change] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)  # student, assignment, why: keeps its score

    @property
    def changed(self) -> int:
        """How many submissions get another score."""
        return len({(change.student, change.assignment) for change in self.changes if change.by_hand is None})

    @property
    def summary(self) -> str:
        """What was found, in a sentence or two."""
        text = f"{len(self.examined)} examined again, {self.changed} with another score"
        if not self.examined and not self.failures:
            text = "nothing was graded by older tests"
        text += f"; {self.current} were graded by the tests of now"
        return text + (f"; {self.left} wait for `course grade`" if self.left else "")

    def keep(self, submission: Submission, digest: str) -> None:
        """Put an examined submission aside."""
        path = self.folder / f"{len(self.examined)}.pickle"
        path.write_bytes(pickle.dumps(submission))
        self.examined.append((submission.student, submission.assignment, digest, path))

    def record(self, on_progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Write what was examined to the gradebook and autograded/; `failures` tells what could not be."""
        for done, (student, assignment, digest, path) in enumerate(self.examined):
            on_progress(done, len(self.examined))
            submission = pickle.loads(path.read_bytes())
            if reason := record_examined(self.coursedir, submission, digest, reviewed=True):
                self.failures.append((student, assignment, reason))


@contextlib.contextmanager
def regrade(
    course_dir: Path,
    assignments: list[str] | None = None,
    *,
    student: str | None = None,
    workers: int = 2,
    scheduler: str | None = None,
    sandbox: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Regrading]:
    """Examine the submissions that older tests graded; nothing is written until `record` of what this yields is called.

    The course directory is held until the context is left. Arguments and errors are those of `grade`.
    """
    where = Where(workers, scheduler, sandbox, say)
    coursedir = CourseDirectory(config=load_config(course_dir))
    settings = where.settings(coursedir)
    pile = Pile(coursedir, assignments, student)
    with only_writer(coursedir), tempfile.TemporaryDirectory(prefix="regrade-") as folder:
        regrading = Regrading(coursedir, Path(folder))
        older = _sort(pile, regrading)
        by_hand = _points_by_hand(coursedir)
        for submission, reason in where.examine(_read(pile, older, regrading), settings):
            key = submission.student, submission.assignment
            if reason:
                regrading.failures.append((*key, reason))
            else:
                regrading.changes += _changes(older[key], submission, by_hand)
                regrading.keep(submission, older[key].handed_in)
            on_progress(len(regrading.examined) + len(regrading.failures), len(older))
        regrading.changes.sort(key=lambda change: (change.student, change.assignment))
        yield regrading


def _sort(pile: Pile, regrading: Regrading) -> dict[tuple[str, str], Earlier]:
    """The records that older tests made; the other submissions are counted."""
    older = {}
    for student, assignment in pile.found:
        earlier = pile.earlier(student, assignment)
        if earlier is None:
            regrading.left += 1
        elif pile.is_current(assignment, earlier):
            regrading.current += 1
        else:
            older[student, assignment] = earlier
    return older


def _read(pile: Pile, older: dict[tuple[str, str], Earlier], regrading: Regrading) -> Iterator[Submission]:
    for key in older:
        try:
            yield pile.read(*key)
        except Ungradable as error:
            regrading.failures.append((*key, str(error)))


def _changes(earlier: Earlier, submission: Submission, by_hand: dict) -> Iterator[Change]:
    """The exercises whose points differ."""
    before = {(entry["notebook"], entry["grade_id"]): entry for entry in earlier.exercises}
    after = {(entry["notebook"], entry["grade_id"]): entry for entry in examined_exercises(submission)}
    for key in {**before, **after}:
        old, new = before.get(key, {}), after.get(key, {})
        points = old.get("points"), new.get("points"), old.get("max_points"), new.get("max_points")
        if points[0] != points[1] or points[2] != points[3]:
            hand = by_hand.get((submission.student, submission.assignment, *key))
            yield Change(submission.student, submission.assignment, *key, *points, hand, _why(old, new))


def _why(old: dict, new: dict) -> str:
    if not old or not new:
        return "a new exercise" if new else "the exercise is gone"
    if new["message"]:
        return new["message"]
    return f"passes now; it failed before: {old['message']}" if old["message"] else "its points changed"


def _points_by_hand(coursedir: CourseDirectory) -> dict[tuple[str, str, str, str], float]:
    """(student, assignment, notebook, grade id) -> points that the instructor gave, which nbgrader lets win."""
    with open_gradebook(coursedir) as gradebook:
        grades = gradebook.db.query(api.Grade).filter(api.Grade.manual_score.is_not(None))
        return {
            (grade.student.id, grade.assignment.name, grade.notebook.name, grade.name): grade.manual_score
            for grade in grades
        }


def regrade_table(regrading: Regrading) -> Table:
    """Whose score changes, and why."""
    table = Table("candidate", "question", "exercise", "points now", "then", "reason")
    for change in regrading.changes:
        reason = escape(" ".join(change.reason.split())[:200])
        if change.by_hand is not None:
            reason += f" [yellow](the {change.by_hand:g} points given by hand stay)[/]"
        points = _points(change.old, change.old_max), _points(change.new, change.new_max)
        table.add_row(escape(change.student), change.assignment, change.grade_id, *points, reason)
    return table


def _points(points: float | None, max_points: float | None) -> str:
    return "-" if points is None else f"{points:g} / {max_points:g}"
