"""What is found below submitted/, under which names, and what an instructor is told of how it was read."""

import os
import zipfile

import nbformat
import nbformat.v4 as nbf
import pytest

from course.directory import open_course
from course.examiner import Examination
from course.grading.hand_in import find_notebooks
from course.grading.submissions import (
    GradeError,
    Submission,
    Ungradable,
    find_submissions,
    load_exams,
    read_notebook,
    read_submission,
)

from ..examiner.notebooks import EXAM, submission

NAME = "q90_sample"


def read(course):
    coursedir = open_course(course)
    return read_submission(coursedir, "ann", NAME, load_exams(coursedir, NAME))


def without_marks(data: bytes) -> bytes:
    notebook = nbformat.reads(data.decode(), as_version=4)
    for cell in notebook.cells:
        cell.metadata = {}
    return nbformat.writes(notebook).encode()


def test_find_submissions_by_student_and_assignment(sample_course):
    for student in ("ann", "bea [2]", "line\nbreak"):
        (sample_course / "submitted" / student / NAME).mkdir(parents=True)
    coursedir = open_course(sample_course)
    assert find_submissions(coursedir, [NAME], None) == [("ann", NAME), ("bea [2]", NAME), ("line\nbreak", NAME)]
    assert find_submissions(coursedir, None, "bea [2]") == [("bea [2]", NAME)]
    with pytest.raises(GradeError, match="there is no submission at"):
        find_submissions(coursedir, ["q91"], None)


def test_the_course_directory_may_hold_brackets(sample_course, folder):
    renamed = sample_course.rename(sample_course.with_name("course [2024] *"))
    assert find_submissions(open_course(renamed), None, None) == [("ann", NAME)]


def test_a_submission_as_it_should_be_has_no_notes(sample_course, folder, release):
    (folder / f"{NAME}.ipynb").write_bytes(release)
    (folder / "data.csv").write_text("1")
    found = read(sample_course)
    assert found.notes == [] and found.files == {"data.csv": b"1"} and list(found.notebooks) == [NAME]


@pytest.mark.parametrize(
    "name", [f"{NAME} (1).ipynb", "Kopie von Übung [6].ipynb", "Untitled.IPYNB", "\u202eevil\n.ipynb"]
)
@pytest.mark.parametrize("change", [lambda data: data, without_marks])
def test_a_renamed_notebook_is_found(sample_course, folder, release, name, change):
    (folder / name).write_bytes(change(release))
    (note,) = read(sample_course).notes
    assert note.startswith("the notebook was found as `") and note.isprintable()


def test_a_notebook_in_a_folder_brings_its_files_along(sample_course, folder, release):
    (folder / "hand-in").mkdir()
    (folder / "hand-in" / f"{NAME}.ipynb").write_bytes(release)
    (folder / "hand-in" / "data.csv").write_text("1")
    (folder / "timestamp.txt").write_text("2030-01-01 00:00:00 UTC")
    found = read(sample_course)
    assert found.notes == [f"the notebook was found as `hand-in/{NAME}.ipynb`"]
    assert found.files == {"data.csv": b"1", "timestamp.txt": b"2030-01-01 00:00:00 UTC"}


def test_the_notebook_with_the_exams_marks_is_taken(sample_course, folder, release):
    (folder / "notes.ipynb").write_text(nbformat.writes(nbf.new_notebook()))
    (folder / "mine.ipynb").write_bytes(release)
    assert read(sample_course).notes == [
        "the notebook was found as `mine.ipynb`",
        "not graded, though handed in too: `notes.ipynb`",
    ]


def test_the_same_notebook_twice_is_one(sample_course, folder, release):
    (folder / "a (1).ipynb").write_bytes(release)
    (folder / "a (2).ipynb").write_bytes(release)
    assert "the notebook was found as `a (1).ipynb`" in read(sample_course).notes


@pytest.mark.parametrize("change", [lambda data: data, without_marks])
def test_several_that_could_be_it_are_named(sample_course, folder, release, change):
    (folder / "one.ipynb").write_bytes(change(release))
    (folder / "two.ipynb").write_bytes(change(release).replace(b"digits", b"DIGITS"))
    with pytest.raises(Ungradable, match=r"`one.ipynb`.*`two.ipynb`"):
        read(sample_course)


def test_a_copy_beside_the_notebook_is_named(sample_course, folder, release):
    (folder / f"{NAME}.ipynb").write_bytes(without_marks(release))
    (folder / f"{NAME}-Copy1.ipynb").write_bytes(release)
    for junk in (".ipynb_checkpoints", "__MACOSX"):
        (folder / junk).mkdir()
        (folder / junk / f"{NAME}.ipynb").write_bytes(release)
    (folder / f"._{NAME}.ipynb").write_bytes(b"\0")
    assert read(sample_course).notes == [f"not graded, though handed in too: `{NAME}-Copy1.ipynb`"]


def test_a_folder_of_thousands_of_files_hides_nothing(sample_course, folder, release):
    (folder / "a").mkdir()
    for number in range(1100):
        (folder / "a" / str(number)).write_text("")
    (folder / f"{NAME}.ipynb").write_bytes(release)
    (folder / "z.csv").write_text("1")
    found = read(sample_course)
    assert found.files["z.csv"] == b"1" and "the limit is 1,000 files" in found.notes[0]


def zipped(folder, release):
    with zipfile.ZipFile(folder / f"{NAME}.ipynb", "w") as archive:
        archive.writestr("inner.ipynb", release)


def linked(folder, release):
    (folder.parent / "elsewhere.ipynb").write_bytes(release)
    (folder / f"{NAME}.ipynb").symlink_to(folder.parent / "elsewhere.ipynb")


def piped(folder, release):
    os.mkfifo(folder / f"{NAME}.ipynb")


def linked_folder(folder, release):
    elsewhere = folder.rename(folder.parents[2] / "elsewhere")
    folder.symlink_to(elsewhere)


def linked_student(folder, release):
    (folder / f"{NAME}.ipynb").write_bytes(release)
    elsewhere = folder.parent.rename(folder.parents[2] / "elsewhere")
    folder.parent.symlink_to(elsewhere)


def in_a_zip(folder, release):
    zipped(folder, release)
    (folder / f"{NAME}.ipynb").rename(folder / "work.zip")


@pytest.mark.parametrize(
    "hand_in, reason",
    [
        (lambda folder, release: None, f"{NAME}.ipynb is missing; handed in: nothing that can be read"),
        (zipped, "is a ZIP archive; unpack it"),
        (in_a_zip, f"{NAME}.ipynb is missing; handed in: `work.zip`"),
        (linked, "is a symbolic link; hand in the file itself"),
        (linked_folder, f"submitted/ann/{NAME} is a symbolic link"),
        (linked_student, "submitted/ann is a symbolic link"),
        (piped, "is no regular file"),
        (lambda folder, release: (folder / f"{NAME}.ipynb").mkdir(), "is a folder"),
        (lambda folder, release: (folder / f"{NAME}.ipynb").write_bytes(release[:500]), "only a part of it was saved"),
        (lambda folder, release: (folder / "x.ipynb").write_bytes(b"{"), "handed in: `x.ipynb`"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason(sample_course, folder, release, hand_in, reason):
    hand_in(folder, release)
    assert find_submissions(open_course(sample_course), None, "ann") == [("ann", NAME)]
    with pytest.raises(Ungradable, match=reason):
        read(sample_course)


def test_a_link_to_a_folder_that_is_gone_is_not_passed_over(sample_course, folder):
    folder.rmdir()
    folder.symlink_to("nowhere")
    with pytest.raises(Ungradable, match="symbolic link"):
        read(sample_course)


def test_links_among_support_files_are_left_out(sample_course, folder, release):
    (folder / f"{NAME}.ipynb").write_bytes(release)
    (folder / "data.txt").symlink_to(sample_course / "gradebook.db")
    found = read(sample_course)
    assert found.files == {}
    assert found.notes == ["`data.txt` is left out: it is a symbolic link; hand in the file itself"]


def test_a_notebook_with_a_second_name_is_noted(sample_course, folder, release):
    (folder / f"{NAME}.ipynb").write_bytes(release)
    os.link(folder / f"{NAME}.ipynb", sample_course / "other")
    assert read(sample_course).notes == ["the notebook is one of 2 hard links to a file: look whose it is"]


def test_a_folder_in_the_place_of_a_course_file_gives_way(sample_course, folder, release):
    (folder / f"{NAME}.ipynb").write_bytes(release)
    (folder / "bits.svg").mkdir()
    (folder / "bits.svg" / "x").write_text("")
    assert read(sample_course).notes == [
        "`bits.svg/x` is left out: it stands where a file of the course has to lie",
    ]


@pytest.mark.parametrize(
    "content, kept",
    [
        (b"\xef\xbb\xbf2030-01-01 00:00:00 UTC\r\n", b"2030-01-01 00:00:00 UTC"),
        (b"", b""),
        (b"yesterday", None),
        (b"9999-99-99", None),
        (b"\xff\xfe", None),
        (b"1" * 2000, None),
    ],
)
def test_a_time_of_handing_in_is_kept_or_noted(sample_course, folder, release, content, kept):
    (folder / f"{NAME}.ipynb").write_bytes(release)
    (folder / "timestamp.txt").write_bytes(content)
    found = read(sample_course)
    assert found.files.get("timestamp.txt") == kept
    assert found.notes == [] if kept is not None else "counts as on time" in found.notes[0]


def test_of_two_notebooks_one_may_be_missing(tmp_path):
    exams = {"one": EXAM, "two": EXAM}
    (tmp_path / "one.ipynb").write_text(nbformat.writes(submission()))
    assert list(find_notebooks(tmp_path, exams)) == ["one"]
    (tmp_path / "zwei.ipynb").write_text(nbformat.writes(nbf.new_notebook()))
    assert find_notebooks(tmp_path, exams)["two"].notes == ["the notebook was found as `zwei.ipynb`"]
    (tmp_path / "drei.ipynb").write_text(nbformat.writes(nbf.new_notebook(cells=[nbf.new_code_cell("x")])))
    with pytest.raises(Ungradable, match=r"two.ipynb is missing; handed in: `drei.ipynb`, `zwei.ipynb`"):
        find_notebooks(tmp_path, exams)


def test_notes_of_reading_and_examining_come_together():
    examination = Examination("", {}, {}, [], 0.0, ["examined"])
    one = Submission("ann", NAME, {"a": EXAM}, {}, {}, {"a": examination}, {"a": ["read"]})
    assert one.notes == ["read", "examined"]
    two = Submission("ann", NAME, {"a": EXAM, "b": EXAM}, {}, {}, {"a": examination}, {"b": ["read"]})
    assert two.notes == ["a: examined", "b: read"]


def test_a_support_file_of_the_course_that_cannot_be_read_stops_grading(sample_course):
    (sample_course / "release" / NAME / "data").symlink_to("/etc/hostname")
    with pytest.raises(GradeError, match="support files of q90_sample cannot be used: `data` is left out"):
        load_exams(open_course(sample_course), NAME)


def test_read_notebook_says_what_is_wrong(tmp_path):
    with pytest.raises(Ungradable, match=r"`book\.ipynb` cannot be read: No such file"):
        read_notebook(tmp_path / "book.ipynb")
    (tmp_path / "book.ipynb").write_bytes(b"{")
    with pytest.raises(Ungradable, match=r"`book\.ipynb` is not JSON"):
        read_notebook(tmp_path / "book.ipynb")
