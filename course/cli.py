"""The console script `course`."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .progress import progress_bar

ROOT = Path(__file__).resolve().parents[1]
console = Console(width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True)

REPORT_HELP = """The level over the course asks for the sums of the questions' marks: rubric points, and the code points
that the percentages stand for. A strong question makes up for a weak one; what was not handed in gives no points.
"So far" means that questions are not graded or not scored yet. With a teams.yaml (TEAM: [MEMBER, ...], a line each;
teams of one question stand below its name) a team hands in at submitted/TEAM/, and each member has its scores."""
RUBRIC_HELP = """A row is a rubric cell of a candidate or team: fill in score and comment, save as CSV UTF-8, import.
Columns may be moved and added; candidate, question, cell and score must stay. Decimal points and commas are read. The
import changes all or nothing; it refuses unknown names, scores that are no number, below 0 or above the maximum, and
cells that somebody changed since the export. A score that is emptied makes its cell unscored; rows may be left out."""
EXPORT_HELP = """Scores are code and rubric points, less nbgrader's late penalty. What is not handed in, not graded or
not scored gets no score, never 0, and is listed. Canvas finds students by nbgrader's lms_user_id (digits: ID, else SIS
User ID), the candidate's id (SIS Login ID) or the name, assignments by title; an empty cell clears a score that is
there. In Moodle map Username, ID number (lms_user_id) or Email address, and the other columns to grade items of the
same maximum."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code is 0 for success, 1 for a result that is not, 2 for bad input."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        errors.print("stopped; what was graded is kept, the same command goes on from there", soft_wrap=True)
        return 130
    except known_errors() as error:
        errors.print(f"[red]course {options.command}:[/] {escape(str(error))}", soft_wrap=True)
        return getattr(error, "exit_code", 2)


def known_errors() -> tuple[type[Exception], ...]:
    """Errors whose message tells the user what to do."""
    from .card import CardError
    from .demo import DemoError
    from .directory import DirectoryError
    from .examiner import SandboxError
    from .fetch import FetchError
    from .grading.submissions import GradeError
    from .question import BuildError
    from .results.export import ExportError
    from .results.gather import ReportError
    from .results.rubric import RubricError
    from .results.teams import TeamsError

    of_grading = DirectoryError, GradeError, SandboxError
    of_scores = ExportError, ReportError, RubricError, TeamsError
    return (BuildError, CardError, DemoError, FetchError, *of_grading, *of_scores)


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

    def examining(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("assignments", **questions)
        sub.add_argument("--student", metavar="ID", help="only this candidate's submissions")
        text = "examinations at a time on this machine (default: %(default)s)"
        sub.add_argument("--workers", type=int, default=os.cpu_count(), help=text)
        text = "examine on the Dask cluster of this scheduler instead, such as tcp://10.0.0.1:8786"
        sub.add_argument("--scheduler", metavar="ADDRESS", help=text)
        course_dir(sub)
        sandbox(sub, None)

    grade = command("grade", run_grade, "Grade the submissions of a course directory.")
    examining(grade)
    grade.add_argument("--force", action="store_true", help="grade again what was graded already")
    grade.add_argument("--json", action="store_true", help="print the outcomes as JSON")

    regrade = command("regrade", run_regrade, "After a test was mended: whose score changes? Then record it.")
    examining(regrade)
    regrade.add_argument("--yes", action="store_true", help="record without asking")
    regrade.add_argument("--json", action="store_true", help="print the changes as JSON; without --yes, record nothing")

    check = command("check", run_check, "Check your own copy of a question, hidden tests included.")
    check.add_argument("question", metavar="QUESTION", help="q06, or the full name")
    check.add_argument("--notebook", type=Path, help="your copy (default: looked for here and in study/)")
    check.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    sandbox(check, "bubblewrap")

    report = command("report", run_report, "Who has how many points, and which level is reached.")
    report.epilog = REPORT_HELP
    report.add_argument(
        "--csv", type=Path, help="default: report.csv in the course directory; beside it NAME-course.csv, by candidate"
    )
    report.add_argument("--html", type=Path, help="default: report.html in the course directory")
    course_dir(report)

    rubric = command("rubric", run_rubric_export, "Move rubric scores and comments through a spreadsheet.")
    steps = rubric.add_subparsers(dest="step", required=True, metavar="STEP")
    out = steps.add_parser("export", help="write a CSV file to grade in", description=RUBRIC_HELP)
    out.add_argument("assignments", **questions)
    out.add_argument("--csv", type=Path, help="the file, not there yet (default: rubric.csv in the course directory)")
    course_dir(out)
    back = steps.add_parser("import", help="take scores and comments over from it", description=RUBRIC_HELP)
    back.add_argument("csv", type=Path, metavar="FILE", help="the CSV file, as the spreadsheet saved it (UTF-8)")
    back.add_argument("--dry-run", action="store_true", help="only show what would change")
    back.add_argument("--overwrite", action="store_true", help="also change what was scored since the export")
    back.set_defaults(run=run_rubric_import)
    course_dir(back)

    export = command("export", run_export, "Write scores for the import of Canvas or Moodle.")
    export.epilog = EXPORT_HELP
    export.add_argument("assignments", **questions)
    export.add_argument("--canvas", type=Path, metavar="FILE", help="CSV for Canvas: Gradebook, Import")
    export.add_argument("--moodle", type=Path, metavar="FILE", help="CSV for Moodle: Grades, Import, CSV file")
    course_dir(export)

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


def run_build(options: argparse.Namespace) -> int:
    from .build import build
    from .gates.release import check_release

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
    from .grading.grade import OLDER, grade

    with examining_options(options, "grading") as given:
        outcomes = grade(options.course_dir, force=options.force, **given)
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    else:
        console.print(outcome_table(outcomes))
    if older := sum(outcome.status == OLDER for outcome in outcomes):
        text = f"{older} graded by older tests, and left as they are: `course regrade` tells whose score changes"
        errors.print(f"[yellow]{text}[/]", soft_wrap=True)
    return 0 if all(outcome.is_graded for outcome in outcomes) else 1


def run_regrade(options: argparse.Namespace) -> int:
    from .grading.regrade import regrade, regrade_table

    with contextlib.ExitStack() as stack:
        with examining_options(options, "examining again") as given:
            regrading = stack.enter_context(regrade(options.course_dir, **given))
        if options.json:
            print(json.dumps([asdict(change) for change in regrading.changes], indent=1))
        elif regrading.examined:
            console.print(regrade_table(regrading))
        errors.print(regrading.summary, markup=False, highlight=False, soft_wrap=True)
        if regrading.examined:
            if not (options.yes or (not options.json and agreed("Record this?"))):
                errors.print("nothing was recorded" + ("; --yes records" if options.json else ""))
                return 1
            with progress_bar(errors) as update:
                regrading.record(lambda done, total: update("recording", done, total))
        for student, assignment, reason in regrading.failures:
            errors.print(f"[red]{escape(student)}, {assignment}:[/] keeps its score: {escape(reason)}", soft_wrap=True)
        return 1 if regrading.failures else 0


@contextlib.contextmanager
def examining_options(options: argparse.Namespace, doing: str) -> Iterator[dict]:
    """The keyword arguments that `grade` and `regrade` share, under a progress bar."""
    from .build import full_name

    released = sorted(path.name for path in (options.course_dir / "release").glob("*") if path.is_dir())
    with progress_bar(errors) as update:
        yield {
            "assignments": [full_name(given, released) for given in options.assignments],
            "student": options.student,
            "workers": options.workers,
            "scheduler": options.scheduler,
            "sandbox": options.sandbox,
            "on_progress": lambda done, total: update(doing, done, total),
            "say": lambda text: errors.print(text, markup=False, highlight=False, soft_wrap=True),
        }


def agreed(question: str) -> bool:
    """Whether the user says yes; nobody is there to where input ends."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def outcome_table(outcomes: list) -> Table:
    from .rehearse import shortened

    table = Table("candidate", "question", "points", "outcome")
    for outcome in outcomes:
        points = f"{outcome.points:g} / {outcome.max_points:g}" if outcome.is_graded else "-"
        lines = [outcome.status if not outcome.reason else f"[red]{outcome.status}:[/] {escape(outcome.reason)}"]
        lines += [f"[yellow]needs a look:[/] {escape(note)}" for note in outcome.notes]
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
    from .results.report import course_csv, report

    csv_path = options.csv or options.course_dir / "report.csv"
    html_path = options.html or options.course_dir / "report.html"
    report(options.course_dir, csv_path=csv_path, html_path=html_path, console=console)
    paths = f"{csv_path}\n{course_csv(csv_path)}\n{html_path}"
    console.print(paths, markup=False, highlight=False, soft_wrap=True)
    return 0


def run_rubric_export(options: argparse.Namespace) -> int:
    from .results.rubric import export_rubric

    path = options.csv or options.course_dir / "rubric.csv"
    count, left_out = export_rubric(options.course_dir, path, options.assignments or None)
    warn(left_out)
    console.print(f"{count} rubric cells\n{path}", markup=False, highlight=False, soft_wrap=True)
    return 0


def run_rubric_import(options: argparse.Namespace) -> int:
    from .results.rubric import change_table, import_rubric

    changes = import_rubric(options.course_dir, options.csv, overwrite=options.overwrite, dry_run=options.dry_run)
    if changes:
        console.print(change_table(changes))
    console.print(f"{len(changes)} cells {'would change' if options.dry_run else 'changed'}", highlight=False)
    return 0


def run_export(options: argparse.Namespace) -> int:
    from .results.export import export

    warn(export(options.course_dir, options.assignments or None, canvas=options.canvas, moodle=options.moodle))
    for path in filter(None, (options.canvas, options.moodle)):
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)
    return 0


def warn(lines: list[str]) -> None:
    for line in lines:
        Console(stderr=True).print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


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
    from .results.report import report

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
