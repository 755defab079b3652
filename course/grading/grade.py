"""`course grade`: examines every submission of a course directory on Dask, and records it as nbgrader would.

Workers examine and return; this process alone writes the gradebook and autograded/. A submission that was graded
before is left as it is, so that a run that was killed goes on where it stopped; one that was graded by older tests is
left to `course regrade`, which tells first whose score changes.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nbgrader import api
from nbgrader.coursedir import CourseDirectory

from ..directory import load_config, only_writer, open_gradebook, write_atomically
from .cluster import Where
from .earlier import Earlier, Pile, stamp
from .record import RecordError, record
from .submissions import Submission, Ungradable

GRADED, UNCHANGED, OLDER, NOT_GRADED = "graded", "unchanged", "graded by older tests", "not graded"


@dataclass
class Outcome:
    """What became of one submission."""

    student: str
    assignment: str
    status: str = NOT_GRADED
    points: float | None = None
    max_points: float | None = None
    reason: str = ""  # why it was not graded
    exercises: list[dict] = field(default_factory=list)  # notebook, grade_id, points, max_points, message
    notes: list[str] = field(default_factory=list)  # what needs a look

    @property
    def is_graded(self) -> bool:
        return self.status != NOT_GRADED

    def set_result(self, status: str, exercises: list[dict], notes: list[str]) -> None:
        self.status, self.exercises, self.notes = status, exercises, notes
        self.points = sum(exercise["points"] for exercise in exercises)
        self.max_points = sum(exercise["max_points"] for exercise in exercises)


def grade(
    course_dir: Path,
    assignments: list[str] | None = None,
    *,
    student: str | None = None,
    workers: int = 2,
    scheduler: str | None = None,
    sandbox: str | None = None,
    force: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda _: None,
) -> list[Outcome]:
    """Grade the submissions of a course directory, and return what became of each, sorted.

    `assignments` are full names (None: all), `student` one candidate's id; `workers` and the rest are those of Where.
    Raises GradeError if there is nothing to grade, the gradebook does not know an assignment, or the cluster is lost;
    SandboxError if candidates' code cannot be run safely; DirectoryError if another process grades this course
    directory. What was recorded until then stays.
    """
    where = Where(workers, scheduler, sandbox, say)
    coursedir = CourseDirectory(config=load_config(course_dir))
    settings = where.settings(coursedir)
    pile = Pile(coursedir, assignments, student)
    outcomes = {key: Outcome(*key) for key in pile.found}
    with only_writer(coursedir):
        try:
            _grade(pile, outcomes, where, settings, force, on_progress)
        finally:
            _write_ungraded(coursedir, list(outcomes.values()))
    return list(outcomes.values())


def _grade(pile: Pile, outcomes: dict, where: Where, settings: dict, force: bool, on_progress: Callable) -> None:
    on_the_way = {}  # (student, assignment) -> digest of the files, and whether they were graded before
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        on_progress(done, len(outcomes))

    def waiting() -> Iterator[Submission]:
        for key, outcome in outcomes.items():
            earlier = pile.earlier(*key)
            if earlier and not force:
                _take_up(pile, earlier, outcome)
                tell(1)
                continue
            try:
                submission = pile.read(*key)
                on_the_way[key] = pile.hand_in_digest(*key), earlier is not None
                yield submission
            except Ungradable as error:
                outcome.reason = str(error)
                tell(1)

    tell(0)
    with contextlib.closing(where.examine(waiting(), settings)) as examined:
        for submission, reason in examined:
            key = submission.student, submission.assignment
            outcome = outcomes[key]
            outcome.reason = reason or record_examined(pile.coursedir, submission, *on_the_way.pop(key))
            if not outcome.reason:
                outcome.set_result(GRADED, examined_exercises(submission), submission.notes)
            tell(1)


def _take_up(pile: Pile, earlier: Earlier, outcome: Outcome) -> None:
    status = UNCHANGED if pile.is_current(outcome.assignment, earlier) else OLDER
    outcome.set_result(status, earlier.exercises, earlier.notes)


def record_examined(coursedir: CourseDirectory, submission: Submission, handed_in: str, reviewed: bool) -> str:
    """Record an examined submission; returns why that failed, or "".

    `reviewed`: it is the one that the instructor's own points were given for, so that they need no second look.
    """
    try:
        with _reviews_kept(coursedir, submission) if reviewed else contextlib.nullcontext():
            record(coursedir, submission)
    except RecordError as error:  # one submission that cannot be recorded must not stop the others
        return str(error)
    stamp(coursedir, submission, handed_in)
    return ""


@contextlib.contextmanager
def _reviews_kept(coursedir: CourseDirectory, submission: Submission) -> Iterator[None]:
    """nbgrader asks for a second look at all points given by hand whenever it grades again."""
    with open_gradebook(coursedir) as gradebook:
        query = gradebook.db.query(api.Grade).join(api.SubmittedNotebook).join(api.SubmittedAssignment)
        grades = query.filter(api.SubmittedAssignment.student_id == submission.student)
        reviewed = [grade.id for grade in grades if grade.manual_score is not None and not grade.needs_manual_grade]
    yield
    with open_gradebook(coursedir) as gradebook:
        for grade in gradebook.db.query(api.Grade).filter(api.Grade.id.in_(reviewed)):
            grade.needs_manual_grade = False
        gradebook.db.commit()


def examined_exercises(submission: Submission) -> list[dict]:
    """The verdicts of all notebooks of an examined submission."""
    return [
        {"notebook": name, **asdict(verdict)}
        for name, examination in submission.examinations.items()
        for verdict in examination.verdicts
    ]


def _write_ungraded(coursedir: CourseDirectory, outcomes: list[Outcome]) -> None:
    """Keep the reasons of what was not graded beside what was, for the report."""
    path = Path(coursedir.root, coursedir.autograded_directory, "ungraded.json")
    known = json.loads(path.read_text()) if path.is_file() else {}
    for outcome in outcomes:
        key = f"{outcome.student}/{outcome.assignment}"
        if outcome.is_graded:
            known.pop(key, None)
        elif outcome.reason:
            known[key] = outcome.reason
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(known, indent=1, sort_keys=True) + "\n")
