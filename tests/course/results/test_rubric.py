"""Rubric scores through a spreadsheet and back."""

import csv
import io
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell
from nbgrader.api import Gradebook
from sqlalchemy.exc import OperationalError

from course.cli import main
from course.results import rubric
from course.results.rubric import RubricError, change_table, export_rubric, import_rubric

from ..classroom import FORMULA, IMAGE, NAME, add, write_autograded

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # nbgrader's own add_submission
DEPTH, CLARITY = "rubric-depth", "rubric-clarity"


def notebook(course, depth=(), clarity=()):
    """The released notebook with cells written below the rubric cells."""
    found = nbformat.read(course / "release" / NAME / f"{NAME}.ipynb", as_version=4)
    answers = {DEPTH: depth, CLARITY: clarity}
    cells = []
    for cell in found.cells:
        cells += [cell, *answers.get(cell.metadata.get("nbgrader", {}).get("grade_id"), ())]
    found.cells = cells
    return found


@pytest.fixture(scope="module")
def graded(built_once, tmp_path_factory):
    """A course with four graded submissions: ann is scored, ben and FORMULA are not, IMAGE has no notebook."""
    course = tmp_path_factory.mktemp("rubric") / "course"
    shutil.copytree(built_once, course)
    add(course, "ann", (4, 1, 1), (5.5, 6))
    add(course, "ben", (4, 1, 1))
    add(course, FORMULA, (4, 1, 1))
    add(course, IMAGE, (4, 1, 1))
    write_autograded(
        course, "ann", notebook(course, [new_markdown_cell("An answer;\n=1+1\n- one"), new_code_cell("x")])
    )
    write_autograded(course, "ben", notebook(course, [new_markdown_cell("=HYPERLINK(1)\x1b[31m")]))
    write_autograded(course, FORMULA, notebook(course, (), [new_markdown_cell("long" * 9000)]))
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        gradebook.find_comment(CLARITY, NAME, NAME, "ann").manual_comment = "=good,\n\"very\"; 'so'"
        gradebook.db.commit()
    return course


@pytest.fixture
def course(graded, tmp_path):
    return shutil.copytree(graded, tmp_path / "course")


@pytest.fixture
def sheet(course, tmp_path):
    """The exported rows, as dictionaries."""
    export_rubric(course, tmp_path / "rubric.csv")
    return list(csv.DictReader(io.StringIO((tmp_path / "rubric.csv").read_text("utf-8-sig"), newline="")))


def find(sheet, candidate, cell):
    return next(row for row in sheet if (row["candidate"], row["cell"]) == (candidate, cell))


def save(path, sheet, columns=None, **dialect):
    with path.open("w", newline="", encoding=dialect.pop("encoding", "utf-8")) as file:
        writer = csv.DictWriter(file, columns or list(sheet[0]), extrasaction="ignore", **dialect)
        writer.writeheader()
        writer.writerows(sheet)
    return path


def scores(course):
    """(student, cell) -> score, whether one is needed, comment."""
    found = {}
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        for submission in gradebook.assignment_submissions(NAME):
            grades = {grade.name: grade for grade in submission.notebooks[0].grades}
            comments = {comment.name: comment.manual_comment for comment in submission.notebooks[0].comments}
            for name in (DEPTH, CLARITY):
                state = grades[name].manual_score, grades[name].needs_manual_grade, comments[name]
                found[submission.student_id, name] = state
    return found


def score(course, student, name, points):
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        grade = gradebook.find_grade(name, NAME, NAME, student)
        grade.manual_score, grade.needs_manual_grade = points, False
        gradebook.db.commit()


def test_sheet_has_a_row_for_each_rubric_cell_with_the_answer(sheet):
    assert [(row["candidate"], row["cell"]) for row in sheet] == [
        ('\'=HYPERLINK("x")', DEPTH),
        ("ann", DEPTH),
        ("ben", DEPTH),
        ('\'=HYPERLINK("x")', CLARITY),
        ("ann", CLARITY),
        ("ben", CLARITY),
    ]
    ann = find(sheet, "ann", DEPTH)
    assert (ann["question"], ann["category"], ann["maximum"], ann["score"]) == (
        NAME,
        "Rubric: depth (7 points)",
        "7",
        "5.5",
    )
    assert ann["answer"] == "An answer;\n'=1+1\n'- one\n\nx" and find(sheet, "ann", CLARITY)["answer"] == ""
    assert (
        find(sheet, "ben", DEPTH)["answer"] == "'=HYPERLINK(1)\ufffd[31m" and find(sheet, "ben", DEPTH)["score"] == ""
    )
    assert len(find(sheet, '\'=HYPERLINK("x")', CLARITY)["answer"]) < 8100
    assert find(sheet, "ann", CLARITY)["comment"] == "'=good,\n\"very\"; 'so'"


def test_export_names_what_it_leaves_out_and_overwrites_no_sheet(course, tmp_path):
    count, left_out = export_rubric(course, tmp_path / "r.csv", ["q90"])
    assert count == 6 and left_out == [f"{IMAGE}, {NAME}: there is no autograded notebook"]
    with pytest.raises(RubricError, match=r"r\.csv is there already"):
        export_rubric(course, tmp_path / "r.csv")


def test_sheet_as_it_was_exported_changes_nothing(course, sheet, tmp_path):
    before = scores(course)
    assert import_rubric(course, tmp_path / "rubric.csv") == []
    assert import_rubric(course, save(tmp_path / "r.csv", sheet)) == []
    assert scores(course) == before


@pytest.mark.parametrize(
    "dialect",
    [
        {"delimiter": ";", "lineterminator": "\r\n", "encoding": "utf-8-sig"},
        {"delimiter": ",", "lineterminator": "\n"},
        {"delimiter": "\t", "lineterminator": "\r\n", "quoting": csv.QUOTE_ALL},
        {"delimiter": ",", "lineterminator": "\r", "quoting": csv.QUOTE_ALL},
    ],
)
def test_scores_and_comments_come_back_from_any_spreadsheet(course, sheet, tmp_path, dialect):
    find(sheet, "ben", DEPTH).update(score="4,5", comment="'+1 for the plot,\nno ; units")
    find(sheet, "ben", CLARITY).update(score=" 7 ")
    find(sheet, '\'=HYPERLINK("x")', DEPTH).update(score="0", comment="=1")
    find(sheet, "ann", DEPTH).update(score="")
    find(sheet, "ann", CLARITY).update(comment="  ")
    columns = ["extra", "exported", "comment", "score", "cell", "question", "candidate"]
    path = save(tmp_path / "r.csv", [*sheet, {}], columns, **dialect)
    text = path.read_bytes().decode(dialect.get("encoding", "utf-8"))
    path.write_bytes(text.replace("candidate", "Candidate ", 1).encode(dialect.get("encoding", "utf-8")))
    assert len(import_rubric(course, path, dry_run=True)) == 5 and scores(course)["ben", DEPTH][0] is None
    assert len(import_rubric(course, path)) == 5
    assert scores(course) == {
        ("ann", DEPTH): (None, True, None),
        ("ann", CLARITY): (6, False, None),
        ("ben", DEPTH): (4.5, False, "+1 for the plot,\nno ; units"),
        ("ben", CLARITY): (7, False, None),
        (FORMULA, DEPTH): (0, False, "=1"),
        (FORMULA, CLARITY): (None, True, None),
        (IMAGE, DEPTH): (None, True, None),
        (IMAGE, CLARITY): (None, True, None),
    }
    assert import_rubric(course, path) == []


def test_sheet_without_comments_leaves_them(course, sheet, tmp_path):
    find(sheet, "ann", CLARITY).update(score="1")
    import_rubric(course, save(tmp_path / "r.csv", sheet, ["candidate", "question", "cell", "score", "exported"]))
    assert scores(course)["ann", CLARITY] == (1, False, "=good,\n\"very\"; 'so'")


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"score": "7.1"}, "the score 7.1 is above the maximum of rubric-depth, 7"),
        ({"score": "-1"}, "the score -1 is below 0"),
        ({"score": "nan"}, "'nan' is not a number"),
        ({"score": "inf"}, "'inf' is not a number"),
        ({"score": "1e3"}, "'1e3' is not a number"),
        ({"score": "05. Mai"}, "'05. Mai' is not a number"),
        ({"score": "1_0"}, "'1_0' is not a number"),
        ({"score": "٣"}, "'٣' is not a number"),
        ({"candidate": "bea", "score": "1"}, "'bea' has no submission of q90_sample"),
        ({"candidate": "", "score": "1"}, "'' has no submission of q90_sample"),
        ({"question": "q91", "score": "1"}, "no submission of a question 'q91' has rubric cells"),
        ({"cell": "test-width", "score": "1"}, "has no rubric cell 'test-width'; it has rubric-depth, rubric-clarity"),
        ({"cell": CLARITY, "score": "1"}, "ben, q90_sample, rubric-clarity stands in row 4 already"),
    ],
)
def test_wrong_row_is_named_and_nothing_is_written(course, sheet, tmp_path, changes, problem):
    before = scores(course)
    find(sheet, "ann", CLARITY).update(score="1")
    find(sheet, "ben", DEPTH).update(changes)
    with pytest.raises(RubricError) as caught:
        import_rubric(course, save(tmp_path / "r.csv", sheet), overwrite=True)
    row = 7 if "already" in problem else 4
    assert f"1 rows are wrong:\nrow {row}: " in str(caught.value) and problem in str(caught.value)
    assert scores(course) == before


def test_all_wrong_rows_are_listed(course, sheet, tmp_path):
    for row in sheet:
        row["score"] = "8"
    with pytest.raises(
        RubricError, match=r"6 rows are wrong:\nrow 2: .*\nrow 3: .*\nrow 4: .*\nrow 5: .*\nrow 6: .*\nrow 7: "
    ):
        import_rubric(course, save(tmp_path / "r.csv", sheet))


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"", "has no column candidate, question, cell, score; its first row is: empty"),
        (
            b"candidate;question;cell;points\r\n",
            "has no column score; its first row is: candidate, question, cell, points",
        ),
        (b"candidate,question,cell,score,score\n", "has the column score more than once"),
        (b"candidate,question,cell,score\nann,q90_sample,rubric-depth,5,5\n", "row 2 has 5 cells, the first row 4"),
        (b'candidate,question,cell,score\nann,"q90\n', "line 2: unexpected end of data"),
        (b"candidate,question,cell,score\n\xe4nn,q90,x,1\n", "is not UTF-8 .*save it as 'CSV UTF-8'"),
        ("candidate,question,cell,score\n".encode("utf-16"), "is not UTF-8"),
    ],
)
def test_file_that_is_no_sheet_is_named(course, tmp_path, content, problem):
    (tmp_path / "r.csv").write_bytes(content)
    with pytest.raises(RubricError, match=rf"r\.csv.*{problem}"):
        import_rubric(course, tmp_path / "r.csv")
    with pytest.raises(RubricError, match="cannot be read: No such file"):
        import_rubric(course, tmp_path / "none.csv")


@pytest.mark.parametrize("keeps_exported", [True, False])
def test_score_given_meanwhile_is_kept_unless_it_is_to_be_overwritten(course, sheet, tmp_path, keeps_exported):
    score(course, "ben", DEPTH, 2)
    find(sheet, "ben", DEPTH).update(score="3")
    find(sheet, "ben", CLARITY).update(score="4")
    columns = [name for name in sheet[0] if keeps_exported or name != "exported"]
    path = save(tmp_path / "r.csv", sheet, columns)
    with pytest.raises(
        RubricError, match=r"row 4: ben, q90_sample, rubric-depth was changed since the export \(now: 2\)"
    ):
        import_rubric(course, path)
    assert scores(course)["ben", CLARITY][0] is None
    changes = import_rubric(course, path, overwrite=True)
    assert [(change.cell.score, change.score) for change in changes] == [(2, 3), (None, 4)]
    assert change_table(changes).row_count == 2 and scores(course)["ben", DEPTH][0] == 3


def test_untouched_row_does_not_undo_a_score_given_meanwhile(course, sheet, tmp_path):
    score(course, "ben", DEPTH, 2)
    score(course, "ann", DEPTH, 1)
    find(sheet, "ben", CLARITY).update(score="3")
    assert len(import_rubric(course, save(tmp_path / "r.csv", sheet))) == 1
    found = scores(course)
    assert (found["ben", DEPTH][0], found["ann", DEPTH][0], found["ben", CLARITY][0]) == (2, 1, 3)


def test_failing_gradebook_keeps_what_it_had(course, sheet, tmp_path, monkeypatch):
    before = scores(course)
    find(sheet, "ben", DEPTH).update(score="3", comment="x")

    def fail(*_):
        raise OperationalError("UPDATE", {}, Exception("database is locked"))

    calls = iter([rubric.update, fail])
    monkeypatch.setattr(rubric, "update", lambda table: next(calls)(table))
    with pytest.raises(RubricError, match=r"could not be written, and is as it was: .*database is locked"):
        import_rubric(course, save(tmp_path / "r.csv", sheet))
    assert scores(course) == before


def test_unanswered_cell_that_is_unscored_again_keeps_its_automatic_0(course, sheet, tmp_path):
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        gradebook.find_grade(DEPTH, NAME, NAME, "ann").auto_score = 0
        gradebook.db.commit()
    find(sheet, "ann", DEPTH).update(score="")
    import_rubric(course, save(tmp_path / "r.csv", sheet))
    assert scores(course)["ann", DEPTH][:2] == (None, False)  # as the formgrader leaves it


def test_team_stands_in_the_sheet_once(course, tmp_path):
    (course / "teams.yaml").write_text("ben: [ann, cyd]\n")
    count, left_out = export_rubric(course, tmp_path / "r.csv")
    assert count == 4 and f"ann, {NAME}: ann hands in with team ben" in left_out
    (tmp_path / "w.csv").write_text(f"candidate,question,cell,score\nann,{NAME},{DEPTH},5\ncyd,{NAME},{DEPTH},5\n")
    with pytest.raises(
        RubricError, match="ann hands in q90_sample with team ben; the row of ben is scored\nrow 3: cyd hands"
    ):
        import_rubric(course, tmp_path / "w.csv")


def test_command_shows_the_changes_and_says_when_nothing_was_written(course, sheet, tmp_path, capsys):
    find(sheet, "ben", DEPTH).update(score="3", comment="[red]x")
    path = str(save(tmp_path / "r.csv", sheet))
    assert main(["rubric", "import", path, "--dry-run", "--course-dir", str(course)]) == 0
    shown = capsys.readouterr().out
    assert "1 cells would change" in shown and "not scored" in shown and "[red]x" in shown
    assert main(["rubric", "import", path, "--course-dir", str(course)]) == 0
    assert "1 cells changed" in capsys.readouterr().out
    find(sheet, "ben", DEPTH).update(score="30")
    path = str(save(tmp_path / "r.csv", sheet))
    assert main(["rubric", "import", path, "--course-dir", str(course)]) == 2
    assert "nothing was taken over" in capsys.readouterr().err
    assert main(["rubric", "export", "q90", "--course-dir", str(course)]) == 0
    assert "6 rubric cells" in capsys.readouterr().out and (course / "rubric.csv").is_file()
