"""`course grade`: examines every submission of a course directory on a Dask cluster, and records it as nbgrader would.

Workers examine and return; this process alone writes the gradebook and autograded/. A submission that was examined
before, by the same tests, is left as it is, so that a run that was killed goes on where it stopped.
"""

import contextlib
import glob
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import dask
import nbformat
from distributed import Client, LocalCluster, as_completed
from nbformat import NotebookNode
from nbgrader.api import MissingEntry
from nbgrader.converters import Autograde
from nbgrader.coursedir import CourseDirectory

from .directory import KeepsReason, load_config, open_gradebook, silent_log, step_folder, write_atomically
from .examiner import Exam, Examination, check_sandbox, examine
from .examiner.exam import support_files
from .examiner.examine import submission_digest
from .examiner.nbgrader_plugin import Examine, load_exam

MAX_NOTEBOOK_BYTES = 64 << 20
GRADED, UNCHANGED, NOT_GRADED = "graded", "unchanged", "not graded"


class GradeError(Exception):
    """Grading cannot begin; the message says why."""


class Ungradable(Exception):
    """One submission cannot be examined; the message says why."""


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


@dataclass
class Submission:
    """One candidate's notebooks for one assignment, with the exams they are examined by."""

    student: str
    assignment: str
    exams: dict[str, Exam]  # notebook name -> exam
    notebooks: dict[str, NotebookNode]
    files: dict[str, bytes]
    examinations: dict[str, Examination] = field(default_factory=dict)

    @property
    def is_examined(self) -> bool:
        return len(self.examinations) == len(self.exams)


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
            exams[assignment] = _load_exams(coursedir, assignment)
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


def find_submissions(
    coursedir: CourseDirectory, assignments: list[str] | None, student: str | None
) -> list[tuple[str, str]]:
    """(student, assignment) of the folders below submitted/, sorted; raises GradeError if there is none."""
    step = coursedir.submitted_directory
    pattern = re.compile(coursedir.format_path(step, "(?P<student>[^/]+)", "(?P<assignment>[^/]+)", escape=True))
    found = []
    for path in glob.glob(coursedir.format_path(step, "*", "*")):
        match = pattern.fullmatch(path)
        if match and Path(path).is_dir():
            found.append((match["student"], match["assignment"]))
    found = [(who, what) for who, what in found if student in (None, who) and (not assignments or what in assignments)]
    if not found:
        wanted = coursedir.format_path(step, student or "*", ",".join(assignments or "*"))
        raise GradeError(f"there is no submission at {wanted}")
    return sorted(found)


def _load_exams(coursedir: CourseDirectory, assignment: str) -> dict[str, Exam]:
    with open_gradebook(coursedir) as gradebook:
        try:
            names = sorted(notebook.name for notebook in gradebook.find_assignment(assignment).notebooks)
        except MissingEntry:
            known = ", ".join(sorted(entry.name for entry in gradebook.assignments)) or "none"
            advice = "`course build` or `nbgrader generate_assignment` records an assignment"
            raise GradeError(f"the gradebook has no assignment {assignment!r} (known: {known}); {advice}") from None
    try:
        return {name: load_exam(coursedir, assignment, name) for name in names}
    except FileNotFoundError as error:
        raise GradeError(f"the instructor's notebook {error.filename} is missing; `course build` makes it") from None


def read_submission(coursedir: CourseDirectory, student: str, assignment: str, exams: dict[str, Exam]) -> Submission:
    """A submission as it was handed in; raises Ungradable, with the reason, if it cannot be examined."""
    folder = step_folder(coursedir, "submitted", assignment, student)
    links = [path for path in [folder, *folder.rglob("*")] if path.is_symlink()]
    if links:
        raise Ungradable(f"{links[0].name} is a symbolic link; hand in the file itself")
    notebooks = {name: read_notebook(folder / f"{name}.ipynb") for name in exams}
    return Submission(student, assignment, exams, notebooks, support_files(folder))


def read_notebook(path: Path) -> NotebookNode:
    """A notebook that somebody else wrote; raises Ungradable, with the reason, if it is none."""
    if not path.is_file():
        others = ", ".join(sorted(other.name for other in path.parent.glob("*.ipynb"))) or "no notebook"
        raise Ungradable(f"{path.name} is missing; handed in: {others}")
    if path.stat().st_size > MAX_NOTEBOOK_BYTES:
        raise Ungradable(f"{path.name} has {path.stat().st_size:,} bytes; the limit is {MAX_NOTEBOOK_BYTES:,}")
    try:
        with warnings.catch_warnings(action="ignore"):
            notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
            nbformat.validate(notebook)
    except UnicodeDecodeError as error:
        raise Ungradable(f"{path.name} is not UTF-8 text: {error}") from None
    except nbformat.reader.NotJSONError:
        raise Ungradable(f"{path.name} is not a notebook: it is not JSON") from None
    except Exception as error:  # nbformat passes on whatever a malformed file provokes
        first_line = str(error).strip().split("\n")[0][:200]
        raise Ungradable(f"{path.name} is not a valid notebook: {type(error).__name__}: {first_line}") from None
    return notebook


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


class _Record(KeepsReason, Autograde):
    """nbgrader's autograde of one submission, which keeps its reason when it fails."""

    submission: Submission

    def init_notebooks(self) -> None:
        """nbgrader would glob for them, and miss names that hold brackets."""
        folder = step_folder(self.coursedir, "submitted", self.submission.assignment, self.submission.student)
        self.assignments = {str(folder): [str(folder / f"{name}.ipynb") for name in self.submission.exams]}


def _record(coursedir: CourseDirectory, submission: Submission, outcome: Outcome) -> None:
    """Let nbgrader write the gradebook and autograded/, with the examinations that were made."""
    keys = {name: (submission.student, submission.assignment, name) for name in submission.exams}
    Examine.ready.update({keys[name]: (submission.exams[name], submission.examinations[name]) for name in keys})
    recorder = _Record(
        coursedir=CourseDirectory(config=coursedir.config), config=coursedir.config, log=silent_log(), force=True
    )
    recorder.submission = submission
    try:
        with warnings.catch_warnings(action="ignore"):
            recorder.start()
    except Exception as error:  # one submission that cannot be recorded must not stop the others
        reason = recorder.reason or error
        outcome.reason = f"nbgrader could not record it: {type(reason).__name__}: {reason}"
        return
    finally:
        for key in keys.values():
            Examine.ready.pop(key, None)
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
