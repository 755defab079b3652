"""The console script `course`."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
console = Console(width=None if sys.stdout.isatty() else 160)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code is 0 for success, 1 for a result that is not, 2 for bad input."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except known_errors() as error:
        Console(stderr=True).print(f"[red]course {options.command}:[/] {escape(str(error))}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; what was graded is kept, the same command goes on from there")
        return 130


def known_errors() -> tuple[type[Exception], ...]:
    """Errors whose message tells the user what to do."""
    from .card import CardError
    from .demo import DemoError
    from .examiner import SandboxError
    from .fetch import FetchError
    from .question import BuildError
    from .report import ReportError
    from .submissions import GradeError

    return BuildError, CardError, DemoError, FetchError, GradeError, ReportError, SandboxError


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="course", description="Build, grade and report the quantization course.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    questions = {"nargs": "*", "metavar": "QUESTION", "help": "q06, or the full name; all if none is named"}

    def command(name: str, run: Callable, description: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=description, description=description)
        sub.set_defaults(run=run)
        return sub

    def course_dir(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--course-dir", type=Path, default=Path.cwd(), help="an nbgrader course directory (default: .)"
        )

    def sandbox(sub: argparse.ArgumentParser, default: str | None) -> None:
        text = "where candidates' code runs; 'none' means unprotected, as yourself"
        sub.add_argument("--sandbox", choices=("bubblewrap", "none"), default=default, help=text)

    build = command("build", run_build, "Make release/ from source/.")
    build.add_argument("assignments", **questions)
    build.add_argument("--check", action="store_true", help="change nothing; tell what is wrong with release/")
    course_dir(build)

    grade = command("grade", run_grade, "Grade the submissions of a course directory.")
    grade.add_argument("assignments", **questions)
    grade.add_argument("--student", metavar="ID", help="only this candidate's submissions")
    grade.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="examinations at a time (default: %(default)s)"
    )
    grade.add_argument("--force", action="store_true", help="grade again what was graded already")
    grade.add_argument("--json", action="store_true", help="print the outcomes as JSON")
    course_dir(grade)
    sandbox(grade, None)

    check = command("check", run_check, "Check your own copy of a question, hidden tests included.")
    check.add_argument("question", metavar="QUESTION", help="q06, or the full name")
    check.add_argument("--notebook", type=Path, help="your copy (default: looked for here and in study/)")
    check.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    sandbox(check, "bubblewrap")

    report = command("report", run_report, "Who has how many points, and which level is reached.")
    report.add_argument("--csv", type=Path, help="default: report.csv in the course directory")
    report.add_argument("--html", type=Path, help="default: report.html in the course directory")
    course_dir(report)

    fetch = command("fetch", run_fetch, "Fetch a model or a text; the last line printed is its path.")
    fetch.add_argument("name", help="course-model, smollm2, evaluation-text, calibration-text")

    study = command("study", run_study, "Copy the released notebooks into a study folder; your own edits are kept.")
    study.add_argument("folder", type=Path, nargs="?", default=Path("study"), help="default: study")

    rehearse = command("rehearse", run_rehearse, "Examine the model answers and all sample answers.")
    rehearse.add_argument("assignments", **questions)
    sandbox(rehearse, "bubblewrap")

    demo = command("demo", run_demo, "Grade a sample class in a folder of its own.")
    demo.add_argument("folder", type=Path, nargs="?", default=Path("demo"), help="default: demo")
    return top


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr; yields what is called with (what is done, how many are done, of how many)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)


def run_build(options: argparse.Namespace) -> int:
    from .build import build
    from .gates import check_release

    names = options.assignments or None
    if options.check:
        problems = check_release(names, source_dir=ROOT / "source", course_dir=options.course_dir)
        for problem in problems:
            console.print(problem, markup=False, highlight=False, soft_wrap=True)
        return 1 if problems else 0
    for path in build(names, source_dir=ROOT / "source", course_dir=options.course_dir):
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)
    return 0


def run_grade(options: argparse.Namespace) -> int:
    from .build import full_name
    from .grade import grade

    released = sorted(path.name for path in (options.course_dir / "release").glob("*") if path.is_dir())
    names = [full_name(given, released) for given in options.assignments]
    with progress_bar() as update:
        outcomes = grade(
            options.course_dir,
            names,
            student=options.student,
            workers=options.workers,
            sandbox=options.sandbox,
            force=options.force,
            on_progress=lambda done, total: update("grading", done, total),
        )
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    else:
        console.print(outcome_table(outcomes))
    return 0 if all(outcome.is_graded for outcome in outcomes) else 1


def outcome_table(outcomes: list) -> Table:
    from .rehearse import shortened

    table = Table("candidate", "question", "points", "outcome")
    for outcome in outcomes:
        points = f"{outcome.points:g} / {outcome.max_points:g}" if outcome.is_graded else "-"
        lines = [outcome.status if not outcome.reason else f"[red]{outcome.status}:[/] {escape(outcome.reason)}"]
        for exercise in outcome.exercises:
            if exercise["points"] < exercise["max_points"]:
                lines.append(f"{exercise['grade_id']}: {escape(shortened(exercise['message'], 200))}")
        table.add_row(escape(outcome.student), outcome.assignment, points, "\n".join(lines))
    return table


def run_check(options: argparse.Namespace) -> int:
    from .build import find_assignments
    from .check import check, find_copy, verdict_table

    (name,) = find_assignments([options.question], ROOT / "source")
    here = Path.cwd()
    notebook = options.notebook or find_copy(name, [here, here / "study", ROOT / "study"])
    with progress_bar() as update:
        update("checking", 0, None)
        examination = check(name, notebook, source_dir=ROOT / "source", sandbox=options.sandbox)
    if options.json:
        print(json.dumps([asdict(verdict) for verdict in examination.verdicts], indent=1))
    else:
        console.print(verdict_table(str(notebook), examination))
        console.print(f"{examination.points:g} of {examination.max_points:g} code points")
    return 0 if examination.points == examination.max_points else 1


def run_report(options: argparse.Namespace) -> int:
    from .report import report

    csv_path = options.csv or options.course_dir / "report.csv"
    html_path = options.html or options.course_dir / "report.html"
    report(options.course_dir, csv_path=csv_path, html_path=html_path, console=console)
    console.print(f"{csv_path}\n{html_path}", markup=False, highlight=False, soft_wrap=True)
    return 0


def run_fetch(options: argparse.Namespace) -> int:
    from .fetch import fetch

    print(fetch(options.name))
    return 0


def run_study(options: argparse.Namespace) -> int:
    from .study import study

    result = study(ROOT / "release", options.folder)
    for what in ("created", "refreshed", "kept", "newer"):
        for path in getattr(result, what):
            console.print(f"{what}: {path}", markup=False, highlight=False, soft_wrap=True)
    console.print(str(result.start), markup=False, highlight=False, soft_wrap=True)
    return 0


def run_rehearse(options: argparse.Namespace) -> int:
    from .build import find_assignments
    from .examiner import check_sandbox
    from .rehearse import kill_table, rehearse

    check_sandbox(options.sandbox)
    as_it_must_be = True
    for name in find_assignments(options.assignments or None, ROOT / "source"):
        with progress_bar() as update:
            results = rehearse(
                name,
                source_dir=ROOT / "source",
                release_dir=ROOT / "release",
                answers_dir=ROOT / "tests" / "answers",
                sandbox=options.sandbox,
                on_progress=lambda done, total, name=name: update(f"rehearsing {name}", done, total),
            )
        console.print(kill_table(name, results))
        for result in results:
            if result.problem:
                as_it_must_be = False
                console.print(f"[red]{result.answer.name}:[/] {escape(result.problem)}", soft_wrap=True)
    return 0 if as_it_must_be else 1


def run_demo(options: argparse.Namespace) -> int:
    from .demo import demo, quantize_course_model
    from .report import report

    with progress_bar() as update:
        outcomes = demo(
            options.folder, source_dir=ROOT / "source", answers_dir=ROOT / "tests" / "answers", on_step=update
        )
        mixes = quantize_course_model(lambda done, total: update("quantizing the course model", done, total))
    console.print(mixes)
    console.print(outcome_table(outcomes))
    html_path = options.folder / "report.html"
    report(options.folder, csv_path=options.folder / "report.csv", html_path=html_path, console=console)
    console.print(f"{options.folder}/autograded, {options.folder}/feedback, {options.folder}/gradebook.db were written")
    console.print(f"report: {html_path.resolve()}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
