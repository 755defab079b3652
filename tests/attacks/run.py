"""Builds the course of the corpus, hands the corpus in, and compares what came out with what is deserved."""

import multiprocessing
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.converters import GenerateFeedback
from nbgrader.coursedir import CourseDirectory

from course.build import build
from course.directory import load_config
from course.grading.grade import Outcome, grade

from .canaries import active_markup
from .entry import ASSIGNMENT, SOURCES, Entry, Place, hand_in

CONFIG = """from course.examiner.nbgrader_plugin import configure

c = get_config()
configure(c)
c.Examine.limits = {
    "cell_seconds": 3,
    "submission_seconds": 16,
    "memory_bytes": 1 << 30,
    "processes": 48,
    "file_bytes": 16 << 20,
    "scratch_bytes": 32 << 20,
    "output_bytes": 128 << 10,
    "reply_bytes": 32 << 20,
}
"""
MANUAL = {"answer": 5, "sketch": 3, "rubric-depth": 4}  # a person gives these points, nothing else does
TESTS = {"test-span": 1, "test-column": 2, "test-running": 4, "test-quantize": 8}


def build_course(root: Path) -> Path:
    """A course directory that holds the assignment."""
    question = root / "source" / ASSIGNMENT
    question.mkdir(parents=True)
    shutil.copy(SOURCES / f"{ASSIGNMENT}.txt", question / f"{ASSIGNMENT}.py")
    shutil.copy(SOURCES / "weights.csv", question)
    build(None, source_dir=root / "source", course_dir=root)
    (root / "nbgrader_config.py").write_text(CONFIG)
    return root


def hand_all_in(entries: dict[str, Entry], place: Place) -> None:
    for student, entry in entries.items():
        hand_in(entry, student, place)


def graded(course: Path, **options) -> list[Outcome]:
    """The outcomes of `grade`, run in a process of its own, so that nothing of it may be left when this returns."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(grade, course, **options).result()


def told(outcome: Outcome) -> str:
    """All that was said about a submission as a whole."""
    return " ".join([outcome.reason, *map(str, getattr(outcome, "notes", None) or ())]).strip()


def problems(entries: dict[str, Entry], outcomes: Iterable[Outcome]) -> list[str]:
    """A sentence for each entry that did not get what it deserves; it begins with the student's id."""
    found = {outcome.student: outcome for outcome in outcomes}
    missing = [f"{student}: there is no outcome" for student in entries if student not in found]
    return missing + [
        f"{student}: {problem}; {entry.does}"
        for student, entry in entries.items()
        if student in found
        for problem in _problem(entry, found[student])
    ]


def _problem(entry: Entry, outcome: Outcome) -> list[str]:
    note = told(outcome)
    got = outcome.points if outcome.is_graded else None
    messages = [f"{exercise['grade_id']}: {exercise['message']}" for exercise in outcome.exercises]
    said = " | ".join([note, *messages])
    if got != entry.points and not (entry.or_look and note):
        return [f"deserves {entry.points}, got {got} ({said[:300]})"]
    if got is None and not note:
        return ["is not graded, and no reason is given"]
    if entry.says and not re.search(entry.says, said, re.IGNORECASE):
        return [f"nothing says {entry.says!r} ({said[:300]})"]
    return []


def gradebook_problems(course: Path, entries: dict[str, Entry], outcomes: Iterable[Outcome]) -> list[str]:
    """Where the gradebook holds other points than the outcomes, or points that only a person can give."""
    found = []
    results = {outcome.student: outcome for outcome in outcomes if outcome.is_graded}
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        assignment = gradebook.find_assignment(ASSIGNMENT)
        notebook = gradebook.find_notebook(ASSIGNMENT, ASSIGNMENT)
        cells = {cell.name: cell.max_score for cell in (*notebook.grade_cells, *notebook.task_cells)}
        if cells != {**TESTS, **MANUAL}:
            found.append(f"the gradebook's cells and points are {cells}")
        recorded = {
            entry.student.id: [
                (grade.name, grade.auto_score, grade.needs_manual_grade) for grade in entry.notebooks[0].grades
            ]
            for entry in assignment.submissions
        }
    if set(recorded) != set(results):
        found.append(f"the gradebook holds others than those graded: {sorted(set(recorded) ^ set(results))}")
    for student in set(recorded) & set(results):
        given = {name: points for name, points, _ in recorded[student]}
        waiting = {name for name, _, waits in recorded[student] if waits}
        if sum(given[name] or 0 for name in TESTS) != results[student].points:
            found.append(f"{student}: the gradebook has {given}")
        if any(given.get(name) for name in MANUAL):
            found.append(f"{student}: has points without a person: {given}")
        if student.startswith("unlucky") and "answer" not in waiting and not told(results[student]):
            found.append(f"{student}: the written answer waits for nobody; {entries[student].does}")
    return sorted(found)


def feedback_problems(course: Path, students: Iterable[str], token: str) -> list[str]:
    """Where feedback pages hold what a browser would run of a candidate's."""
    config = load_config(course)
    found = []
    for student in students:
        coursedir = CourseDirectory(config=config)
        coursedir.assignment_id, coursedir.student_id = ASSIGNMENT, student
        GenerateFeedback(coursedir=coursedir, config=config, force=True).start()
        page = (course / "feedback" / student / ASSIGNMENT / f"{ASSIGNMENT}.html").read_text()
        found += [f"{student}: its feedback would run {markup}" for markup in active_markup(page, token)]
    return found
