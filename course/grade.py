"""`course grade`: examines every submission of a course directory on a Dask cluster, and records it as nbgrader would.

Workers examine and return; this process alone writes the gradebook and autograded/. A submission that was examined
before, by the same tests, is left as it is, so that a run that was killed goes on where it stopped.
"""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import dask
import nbformat
from distributed import Client, LocalCluster, as_completed
from nbgrader.coursedir import CourseDirectory

from .directory import load_config, step_folder, write_atomically
from .examiner import check_sandbox, examine
from .examiner.examine import submission_digest
from .examiner.nbgrader_plugin import Examine
from .record import RecordError, record
from .submissions import GradeError, Submission, Ungradable, find_submissions, load_exams, read_submission

GRADED, UNCHANGED, NOT_GRADED = "graded", "unchanged", "not graded"


@dataclass
class Outcome:
    """What became of one submission."""

    student: str
    assignment: str
    status: str = NOT_GRADED
    points: float | None = None
    max_points: float | None = None
    reason: str = ""  # why it was not graded
    exercises: list[dict] = field(default_factory=list)  # grade_id, points, max_points, message

    @property
    def is_graded(self) -> bool:
        return self.status != NOT_GRADED


def grade(
    course_dir: Path,
    assignments: list[str] | None = None,
    *,
    student: str | None = None,
    workers: int = 2,
    sandbox: str | None = None,
    force: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """Grade the submissions of a course directory, and return what became of each, sorted.

    `assignments` are full names (None: all), `student` one candidate's id. Raises GradeError if there is nothing to
    grade or the gradebook does not know an assignment, SandboxError if candidates' code cannot be run safely.
    """
    if workers < 1:
        raise GradeError(f"{workers} workers can grade nothing; at least 1 is needed")
    config = load_config(course_dir)
    if sandbox:
        config.Examine.sandbox = sandbox
    settings = Examine(config=config).settings
    check_sandbox(settings["sandbox"])
    coursedir = CourseDirectory(config=config)
    outcomes, waiting = [], []
    exams = {}
    for student_id, assignment in find_submissions(coursedir, assignments, student):
        if assignment not in exams:
            exams[assignment] = load_exams(coursedir, assignment)
        outcome = Outcome(student_id, assignment)
        outcomes.append(outcome)
        try:
            submission = read_submission(coursedir, student_id, assignment, exams[assignment])
        except Ungradable as error:
            outcome.reason = str(error)
            continue
        if not force and _take_up(coursedir, submission, outcome):
            continue
        waiting.append((submission, outcome))
    done = len(outcomes) - len(waiting)
    on_progress(done, len(outcomes))
    for submission, outcome in _examine_all(waiting, workers, settings):
        if submission.is_examined:
            _record(coursedir, submission, outcome)
        done += 1
        on_progress(done, len(outcomes))
    _write_ungraded(coursedir, outcomes)
    return outcomes


def _take_up(coursedir: CourseDirectory, submission: Submission, outcome: Outcome) -> bool:
    """Whether the submission was graded already, as it is now and by the tests of now; the outcome then says how."""
    folder = step_folder(coursedir, "autograded", submission.assignment, submission.student)
    points = max_points = 0.0
    exercises = []
    for name, exam in submission.exams.items():
        try:
            metadata = nbformat.read(folder / f"{name}.ipynb", as_version=4).metadata["course"]["examination"]
        except (OSError, KeyError, ValueError, nbformat.reader.NotJSONError):
            return False
        digests = (submission_digest(submission.notebooks[name], exam), exam.digest)
        if (metadata.get("submission"), metadata.get("exam")) != digests:
            return False
        exercises += metadata["exercises"]
    points = sum(exercise["points"] for exercise in exercises)
    max_points = sum(exercise["max_points"] for exercise in exercises)
    outcome.status, outcome.points, outcome.max_points, outcome.exercises = UNCHANGED, points, max_points, exercises
    return True


def _examine_all(
    waiting: list[tuple[Submission, Outcome]], workers: int, settings: dict
) -> Iterator[tuple[Submission, Outcome]]:
    """Examine on a local Dask cluster; yields each submission when its last notebook is done or has failed."""
    if not waiting:
        return
    with _cluster(min(workers, len(waiting))) as client:
        jobs = {}
        for submission, outcome in waiting:
            for name, exam in submission.exams.items():
                notebook = submission.notebooks[name]
                future = client.submit(examine, notebook, exam, submission.files, **settings, pure=False, retries=1)
                jobs[future] = (submission, outcome, name)
        for future in as_completed(list(jobs)):
            submission, outcome, name = jobs.pop(future)
            error = future.exception()
            if error is not None:
                outcome.reason = f"the examination failed: {error}"
                yield submission, outcome
                continue
            submission.examinations[name] = future.result()
            future.release()
            if submission.is_examined:
                yield submission, outcome


@contextlib.contextmanager
def _cluster(workers: int) -> Iterator[Client]:
    # an examination starts processes of its own, which daemonic workers may not
    with (
        dask.config.set({"distributed.worker.daemon": False}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=None,
            dashboard_address="127.0.0.1:0",  # any free port: several runs may stand side by side
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _record(coursedir: CourseDirectory, submission: Submission, outcome: Outcome) -> None:
    try:
        record(coursedir, submission)
    except RecordError as error:  # one submission that cannot be recorded must not stop the others
        outcome.reason = str(error)
        return
    examinations = submission.examinations.values()
    outcome.status = GRADED
    outcome.points = sum(examination.points for examination in examinations)
    outcome.max_points = sum(examination.max_points for examination in examinations)
    outcome.exercises = [asdict(verdict) for examination in examinations for verdict in examination.verdicts]


def _write_ungraded(coursedir: CourseDirectory, outcomes: list[Outcome]) -> None:
    """Keep the reasons of what was not graded beside what was, for the report."""
    path = Path(coursedir.root, coursedir.autograded_directory, "ungraded.json")
    known = json.loads(path.read_text()) if path.is_file() else {}
    for outcome in outcomes:
        key = f"{outcome.student}/{outcome.assignment}"
        known.pop(key, None)
        if not outcome.is_graded:
            known[key] = outcome.reason
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(known, indent=1, sort_keys=True) + "\n")
