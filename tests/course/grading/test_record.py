"""Recording through nbgrader: what is written, with the right names, whatever was handed in; and nothing followed."""

import nbformat
import nbformat.v4 as nbf
import pytest
from nbgrader.api import Gradebook
from nbgrader.converters import autograde

from course.directory import open_course
from course.examiner import Examination
from course.grading.record import RecordError, record
from course.grading.submissions import load_exams, read_submission

NAME = "q90_sample"
FAILURE = nbf.new_output("error", ename="AssertionError", evalue="2**1 needs 2 digits", traceback=["2**1"])


def examined(course, notes=()):
    """The submission of ann's, with an examination in which the first test failed."""
    coursedir = open_course(course)
    found = read_submission(coursedir, "ann", NAME, load_exams(coursedir, NAME))
    exam = found.exams[NAME]
    tests = {cell.grade_id: cell.points for cell in exam.cells}
    outputs = {grade_id: [] for grade_id in tests} | {"test-width": [FAILURE]}
    found.examinations[NAME] = Examination(exam.digest, tests, outputs, [], 0.1, list(notes))
    return coursedir, found


def recorded(course):
    path = course / "autograded" / "ann" / NAME / f"{NAME}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    return {cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells if "nbgrader" in cell.metadata}, notebook


def score(course):
    with Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        entry = gradebook.find_submission(NAME, "ann")
        return entry.score, entry.timestamp


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_what_was_read_is_recorded_under_its_right_name(sample_course, folder, release, encoding):
    handed_in = release.decode().replace("Counting", "Zählen").encode(encoding)
    (folder / "Kopie (1).ipynb").write_bytes(handed_in)
    coursedir, found = examined(sample_course, ["look at this"])
    record(coursedir, found)
    cells, notebook = recorded(sample_course)
    assert cells["test-width"].outputs[0].evalue == "2**1 needs 2 digits"
    assert "BEGIN HIDDEN TESTS" in cells["test-width"].source
    notes = notebook.metadata.course.examination.notes
    assert notes == found.notes and notes[-1] == "look at this" and "`Kopie (1).ipynb`" in notes[-2]
    assert score(sample_course)[0] == 2
    assert (folder / "Kopie (1).ipynb").read_bytes() == handed_in and len(list(folder.iterdir())) == 1


def test_recording_again_writes_the_same_and_keeps_manual_points(sample_course, folder, release):
    (folder / f"{NAME}.ipynb").write_bytes(release)
    coursedir, found = examined(sample_course)
    record(coursedir, found)
    first = recorded(sample_course)[1]
    with Gradebook(f"sqlite:///{sample_course}/gradebook.db") as gradebook:
        gradebook.find_grade("rubric-depth", NAME, NAME, "ann").manual_score = 5
        gradebook.db.commit()
    record(coursedir, found)
    assert recorded(sample_course)[1] == first
    assert score(sample_course)[0] == 7


def test_a_rubric_and_an_answer_still_wait_for_a_person(sample_course, folder, release):
    (folder / f"{NAME}.ipynb").write_bytes(release)
    record(*examined(sample_course))
    with Gradebook(f"sqlite:///{sample_course}/gradebook.db") as gradebook:
        grade = gradebook.find_grade("rubric-depth", NAME, NAME, "ann")
        assert grade.auto_score is None and grade.needs_manual_grade


def test_regular_files_come_along_and_links_do_not(sample_course, folder, release):
    (folder / f"{NAME}.ipynb").write_bytes(release)
    (folder / "data").mkdir()
    (folder / "data" / "own.csv").write_text("1")
    (folder / "bits.svg").write_text("forged")
    (folder / "stolen.db").symlink_to(sample_course / "gradebook.db")
    record(*examined(sample_course))
    written = sample_course / "autograded" / "ann" / NAME
    names = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    assert names == {f"{NAME}.ipynb", "data/own.csv", "bits.svg"}
    assert (written / "bits.svg").read_text().startswith("<svg")


def test_the_time_of_handing_in_is_recorded(sample_course, folder, release):
    (folder / f"{NAME}.ipynb").write_bytes(release)
    (folder / "timestamp.txt").write_bytes("\ufeff2030-01-02 03:04:05 UTC\r\n".encode())
    record(*examined(sample_course))
    assert str(score(sample_course)[1]) == "2030-01-02 03:04:05"


@pytest.mark.parametrize(
    "structure", ["{student_id}/{nbgrader_step}/{assignment_id}", "x/{nbgrader_step}/{student_id}/{assignment_id}"]
)
def test_other_layouts_of_the_course_directory(sample_course, folder, release, structure):
    (folder / f"{NAME}.ipynb").write_bytes(release)
    coursedir, found = examined(sample_course)
    coursedir.config.CourseDirectory.directory_structure = structure
    for step in ("source", "release"):
        target = sample_course / structure.format(nbgrader_step=step, student_id=".", assignment_id=NAME)
        target.parent.mkdir(parents=True, exist_ok=True)
        (sample_course / step / NAME).rename(target)
    record(coursedir, found)
    place = structure.format(nbgrader_step="autograded", student_id="ann", assignment_id=NAME)
    assert (sample_course / place / f"{NAME}.ipynb").is_file()
    assert score(sample_course)[0] == 2


def test_what_nbgrader_cannot_record_is_told_and_leaves_its_modules_alone(sample_course, folder, release):
    (folder / f"{NAME}.ipynb").write_bytes(release)
    coursedir, found = examined(sample_course)
    found.assignment = "q91_unknown"
    with pytest.raises(RecordError, match="nbgrader could not record it: "):
        record(coursedir, found)
    assert autograde.Gradebook is Gradebook
    record(*examined(sample_course))
    assert score(sample_course)[0] == 2


def test_a_gradebook_that_was_replaced_is_opened_anew(sample_course, folder, release):
    (folder / f"{NAME}.ipynb").write_bytes(release)
    fresh = {path.name: path.read_bytes() for path in sample_course.glob("gradebook.db*")}
    record(*examined(sample_course))
    for path in sample_course.glob("gradebook.db*"):
        path.unlink()
    for name, content in fresh.items():
        (sample_course / name).write_bytes(content)
    record(*examined(sample_course))
    assert score(sample_course)[0] == 2
