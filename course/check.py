"""`course check`: a learner's own copy, examined as a submission is, hidden tests included, without a gradebook."""

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from .examiner import Exam, Examination, check_sandbox, examine
from .examiner.exam import support_files
from .grading.submissions import GradeError, Ungradable, read_notebook
from .question import read_source


def find_copy(name: str, folders: list[Path]) -> Path:
    """The learner's notebook: NAME.ipynb, or NAME/NAME.ipynb, in the first of the folders that has it."""
    for folder in folders:
        for path in (folder / f"{name}.ipynb", folder / name / f"{name}.ipynb"):
            if path.is_file():
                return path
    places = ", ".join(str(folder) for folder in folders)
    raise GradeError(
        f"there is no {name}.ipynb in {places}; `make lab` copies it there, or name the file with --notebook"
    )


def check(name: str, notebook: Path, *, source_dir: Path, sandbox: str = "bubblewrap") -> Examination:
    """Examine a notebook by the tests of question `name`; raises GradeError if it is no notebook."""
    check_sandbox(sandbox)
    try:
        written = read_notebook(notebook)
    except Ungradable as error:
        raise GradeError(str(error)) from None
    exam = Exam.from_notebook(read_source(source_dir / name / f"{name}.py"), support_files(source_dir / name))
    return examine(written, exam, support_files(notebook.parent), sandbox=sandbox)


def verdict_table(title: str, examination: Examination) -> Table:
    """A table of the exercises: the points of each, and why points are missing."""
    table = Table("exercise", "points", "what is missing", title=title, title_justify="left", show_lines=True)
    for verdict in examination.verdicts:
        full = verdict.points == verdict.max_points
        points = f"[{'green' if full else 'red'}]{verdict.points:g} / {verdict.max_points:g}"
        table.add_row(verdict.grade_id.removeprefix("test-"), points, escape(verdict.message))
    return table
