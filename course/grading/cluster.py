"""Examines many submissions on Dask: in threads of this process, or on the workers of a cluster that exists.

An examination only waits for processes of its own, so that on one machine a thread for each is as fast as a process,
is there at once instead of after 2 s, and needs half the memory. Workers of a cluster need this package, the sandbox,
and no file of the course's: notebooks, exams and files travel with the task.
"""

import asyncio
import contextlib
import functools
import hashlib
import importlib.metadata
import itertools
import logging
import multiprocessing
import queue
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dask
from distributed import CancelledError, Client, Future, KilledWorker, LocalCluster, Reschedule, Security
from distributed.comm import connect
from nbformat import NotebookNode
from nbgrader.coursedir import CourseDirectory

from .. import examiner
from ..examiner import Exam, Examination, SandboxError, check_sandbox, examine, prepare
from ..examiner.nbgrader_plugin import Examine
from .submissions import GradeError, Submission

RETRIES = 2  # of an examination that fails for reasons of the machine
CONNECT_SECONDS = 5.0
LOOK_SECONDS = 2.0  # between two looks at the cluster's workers
NO_WORKER_SECONDS = 60.0  # that a run waits for a worker that can examine
UNFIT_SECONDS = 1.0  # before a worker that cannot examine hands a task back


class ClusterError(GradeError):
    """A cluster cannot be used; the message says why."""


class ClusterLost(ClusterError):
    """A cluster went away in the middle of a run; what was recorded stays."""

    exit_code = 1  # of the command: not all was graded


class UnfitWorker(Exception):
    """A worker cannot examine; the message says why."""


def fingerprint() -> dict[str, str]:
    """What must be the same where a submission is examined: the versions of Python, torch and the examiner's source."""
    folder = Path(examiner.__file__).parent
    sources = [path.read_bytes() for path in sorted(folder.rglob("*.py"))]
    return {
        "Python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "torch": importlib.metadata.version("torch").split("+")[0],
        "this package": importlib.metadata.version("llm-quantization-course"),
        "the examiner's source": hashlib.sha256(b"\0".join(sources)).hexdigest()[:12],
    }


@functools.cache  # a success; what raises is tried again
def check_worker(wanted: tuple[tuple[str, str], ...], sandbox: str) -> None:
    """Raise UnfitWorker, with the reason, if this process cannot examine as the one that sent `wanted` would."""
    own = fingerprint()
    differing = [f"{name}: {own[name]} there, {value} here" for name, value in wanted if own[name] != value]
    if differing:
        raise UnfitWorker("; ".join(differing))
    try:
        check_sandbox(sandbox)
    except SandboxError as error:
        raise UnfitWorker(str(error)) from None
    # Dask starts workers as daemons, which may not start processes; an examination does
    multiprocessing.current_process()._config["daemon"] = False


def examine_submission(
    notebooks: dict[str, NotebookNode],
    exams: dict[str, Exam],
    files: dict[str, bytes],
    settings: dict,
    wanted: tuple[tuple[str, str], ...] | None,
) -> dict[str, Examination]:
    """Examine the notebooks of a submission, on a worker; one that cannot gives the task to another."""
    if wanted is not None:
        try:
            check_worker(wanted, settings["sandbox"])
        except UnfitWorker:
            time.sleep(UNFIT_SECONDS)
            raise Reschedule from None
    return {name: examine(notebook, exams[name], files, **settings) for name, notebook in notebooks.items()}


@dataclass
class Cluster:
    """A connected Dask cluster, which examines submissions with the given `settings` of `examine`."""

    client: Client
    settings: dict
    say: Callable[[str], None] = lambda _: None
    address: str | None = None  # of an existing cluster, whose workers are checked
    task: Callable = examine_submission
    fit: dict[str, int] = field(default_factory=dict)  # address of a worker that can examine -> its threads
    unfit: dict[str, str] = field(default_factory=dict)  # address -> why a worker cannot
    exams: dict[str, Future] = field(default_factory=dict)  # assignment -> its exams, on the cluster
    looked: float = 0.0  # when the workers were looked at

    def __post_init__(self):
        self.wanted = tuple(fingerprint().items()) if self.address else None

    def examine(self, submissions: Iterable[Submission]) -> Iterator[tuple[Submission, str]]:
        """Take submissions as the cluster gets to them, and yield each with the reason why it failed, or "".

        A submission whose worker died again and again is tried once more alone, so that none is blamed for another.
        """
        suspects = []
        for submission, error in self._fly(submissions, lambda: 2 * sum(self.fit.values())):
            if isinstance(error, KilledWorker):
                suspects.append(submission)
            else:
                yield submission, _reason(error)
        for submission, error in self._fly(suspects, lambda: 1):
            yield submission, _reason(error)

    def _fly(
        self, submissions: Iterable[Submission], window: Callable[[], int]
    ) -> Iterator[tuple[Submission, Exception | None]]:
        """Keep at most `window()` submissions on the cluster, and yield each as it comes back."""
        waiting, flying, landed = iter(submissions), {}, queue.SimpleQueue()
        while True:
            self.look()
            while len(flying) < window() and (submission := next(waiting, None)):
                future = self._send(submission)
                flying[future] = submission
                future.add_done_callback(landed.put)
            if not flying:
                return
            future = self._next(landed)
            submission = flying.pop(future)
            error = self._fetch(future, submission)
            future.release()
            yield submission, error

    def _send(self, submission: Submission) -> Future:
        exams = self.exams.get(submission.assignment)
        options = {"retries": RETRIES, "pure": False}
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # that a task is large
            if exams is None:
                # a task of its own: a worker that lacks the result gets it from another, or makes it again
                exams = self.exams[submission.assignment] = self.client.submit(dict, submission.exams, **options)
            content = submission.notebooks, exams, submission.files
            return self.client.submit(self.task, *content, self.settings, self.wanted, **options)

    def _next(self, landed: queue.SimpleQueue) -> Future:
        """The next submission that is done; raises ClusterLost if there will be none."""
        while True:
            with contextlib.suppress(queue.Empty):
                future = landed.get(timeout=LOOK_SECONDS)
                if future.cancelled():
                    raise self._lost()
                return future
            self.look()

    def _fetch(self, future: Future, submission: Submission) -> Exception | None:
        """Put the examinations into the submission; returns the error of one that failed."""
        try:
            if (error := future.exception()) is None:
                submission.examinations = future.result()
            return error
        except (OSError, CancelledError):  # not of the examination, but on the way here
            raise self._lost() from None

    def look(self) -> None:
        """See which workers there are; wait while none can examine, and raise ClusterLost when that lasts too long."""
        if self.address is None or time.monotonic() < self.looked + LOOK_SECONDS:
            return
        deadline = time.monotonic() + NO_WORKER_SECONDS
        told = False
        while not self._find_fit():
            if time.monotonic() > deadline:
                raise ClusterLost(f"for {NO_WORKER_SECONDS:g} s {self._why_none()}")
            if not told:
                self.say(f"waiting up to {NO_WORKER_SECONDS:g} s: {self._why_none()}")
                told = True
            time.sleep(LOOK_SECONDS)
        self.looked = time.monotonic()

    def _find_fit(self) -> bool:
        """Whether a worker that can examine is there; those that are new are checked."""
        threads = self._ask(self.client.nthreads)
        new = sorted(threads.keys() - self.fit.keys() - self.unfit.keys())
        if new:
            arguments = (check_worker, self.wanted, self.settings["sandbox"])
            answers = self._ask(self.client.run, *arguments, workers=new, on_error="return")
            found = {worker: _text(error) for worker, error in answers.items() if error is not None}
            self._tell_unfit(found)
            self.unfit |= found
        self.unfit = {worker: reason for worker, reason in self.unfit.items() if worker in threads}
        self.fit = {worker: count for worker, count in threads.items() if worker not in self.unfit}
        return bool(self.fit)

    def _tell_unfit(self, found: dict[str, str]) -> None:
        text = "; ".join(f"{worker}: {reason}" for worker, reason in found.items())
        if found and not self.looked:
            raise ClusterError(f"workers of {self.address} cannot examine; make them fit, or remove them: {text}")
        if found:
            self.say(f"workers joined that cannot examine, and hand on what they get: {text}")

    def _ask(self, question: Callable, *arguments, **options) -> dict:
        """What the scheduler answers; raises ClusterLost if it does not."""
        if self.client.status != "running":
            raise self._lost()
        try:
            return question(*arguments, **options)
        except OSError:
            raise self._lost() from None

    def _lost(self) -> ClusterLost:
        return ClusterLost(
            f"the connection to the scheduler at {self.address} was lost; what was graded is kept, "
            "the same command goes on from there"
        )

    def _why_none(self) -> str:
        if not self.unfit:
            return f"the cluster at {self.address} has no worker; start some with `dask worker {self.address}`"
        return f"no worker of the cluster at {self.address} can examine"


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, UnfitWorker) else f"{type(error).__name__}: {error}"


def _reason(error: Exception | None) -> str:
    if error is None:
        return ""
    if isinstance(error, KilledWorker):
        return f"{error.allowed_failures + 1} workers died while they examined it; did they run out of memory?"
    return f"the examination failed: {error}"


@contextlib.contextmanager
def threads_here(count: int, settings: dict) -> Iterator[Cluster]:
    """A cluster of threads in this process."""
    prepare(settings["sandbox"], settings["absent"])
    no_pages = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
    with (
        dask.config.set(no_pages),
        tempfile.TemporaryDirectory(prefix="grade-") as folder,
        LocalCluster(
            n_workers=1,
            threads_per_worker=count,
            processes=False,
            memory_limit=None,
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            local_directory=folder,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield Cluster(client, settings, fit={"here": count})


@contextlib.contextmanager
def existing_cluster(address: str, settings: dict, say: Callable[[str], None]) -> Iterator[Cluster]:
    """The cluster of the scheduler at `address`; raises ClusterError if none answers there."""
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is raised or said
    try:
        asyncio.run(_knock(address))  # a Client that cannot connect stays behind, and may block the next one
    except (OSError, ValueError, ImportError) as error:
        raise ClusterError(f"no Dask scheduler answers at {address} within {CONNECT_SECONDS:g} s: {error}") from None
    with Client(address, timeout=CONNECT_SECONDS, set_as_default=False) as client:
        yield Cluster(client, settings, say, address)


async def _knock(address: str) -> None:
    comm = await connect(address, timeout=CONNECT_SECONDS, **Security().get_connection_args("client"))
    await comm.close()


@dataclass(frozen=True)
class Where:
    """Where submissions are examined."""

    workers: int = 2  # examinations at a time, on this machine
    scheduler: str | None = None  # address of a Dask cluster, which then examines instead
    sandbox: str | None = None  # None: as the course directory sets it
    say: Callable[[str], None] = lambda _: None  # takes messages about the cluster

    def settings(self, coursedir: CourseDirectory) -> dict:
        """The keyword arguments of `examine`; raises SandboxError if candidates' code cannot be run safely here."""
        if self.workers < 1:
            raise GradeError(f"{self.workers} workers can grade nothing; at least 1 is needed")
        settings = Examine(config=coursedir.config).settings
        settings["sandbox"] = self.sandbox or settings["sandbox"]
        if not self.scheduler:
            check_sandbox(settings["sandbox"])
        return settings

    def cluster(self, settings: dict) -> contextlib.AbstractContextManager[Cluster]:
        """The cluster, connected."""
        if self.scheduler:
            return existing_cluster(self.scheduler, settings, self.say)
        return threads_here(self.workers, settings)

    def examine(self, submissions: Iterator[Submission], settings: dict) -> Iterator[tuple[Submission, str]]:
        """Each submission, examined, with the reason where that failed; without any, no cluster is asked."""
        for first in submissions:
            with self.cluster(settings) as cluster:
                yield from cluster.examine(itertools.chain([first], submissions))
