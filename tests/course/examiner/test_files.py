"""Reading what others handed in: nothing is followed, nothing waits, everything has a limit."""

import os
import socket

import pytest

from course.examiner import files
from course.examiner.files import Refused, apart_from, collect, fitting, read_file, shown, walk


def fill(folder):
    """One of each kind that a folder can hold beside files."""
    (folder / "data.csv").write_text("1")
    os.mkfifo(folder / "pipe")
    (folder / "link.csv").symlink_to("/etc/hostname")
    (folder / "etc").symlink_to("/etc")
    (folder / "nowhere").symlink_to("nothing")
    (folder.parent / "elsewhere").write_text("not the candidate's")
    os.link(folder.parent / "elsewhere", folder / "hard")
    (folder / "caché\u202e\n").write_text("2")
    (folder / os.fsdecode(b"\xff.csv")).write_text("3")


def test_only_regular_files_are_read_and_the_others_are_named(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    fill(folder)
    found, left_out = collect(folder)
    assert found == {"data.csv": b"1", "caché\u202e\n": b"2"}
    assert [note.split("`")[1] for note in left_out] == ["etc", "hard", "link.csv", "nowhere", "pipe", "\ufffd.csv"]
    assert left_out[0] == "`etc` is left out: it is a symbolic link; hand in the file itself"
    assert "hard link" in left_out[1] and "no regular file" in left_out[4] and "not UTF-8" in left_out[5]


def test_a_socket_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as door:
        door.bind("door")
        with pytest.raises(Refused, match="is no regular file"):
            read_file("door")


def test_a_device_is_no_file():
    with pytest.raises(Refused, match="is no regular file"):
        read_file("/dev/zero")


def test_what_cannot_be_opened_says_why(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("x")
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(Refused, match="cannot be read: Permission denied"):
        read_file(tmp_path / "secret")
    with pytest.raises(Refused, match="cannot be read: No such file"):
        read_file(tmp_path / "nothing")


def test_a_file_over_the_limit_is_refused_unread(tmp_path):
    with open(tmp_path / "big", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Refused, match=r"has 1,099,511,627,776 bytes; the limit is 67,108,864"):
        read_file(tmp_path / "big")


def test_limits_of_number_and_size_name_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_FILES", 3)
    monkeypatch.setattr(files, "MAX_ALL_BYTES", 8)
    for name in "abcd":
        (tmp_path / name).write_text("1234")
    found, left_out = collect(tmp_path)
    assert list(found) == ["a", "b"]
    assert left_out == [
        "`c` is left out: it has 4 bytes; with it the files have more than 8 bytes",
        "`d` and what follows is left out: the limit is 3 files",
    ]


def test_files_of_the_folder_come_first_and_depth_ends(tmp_path):
    deep = tmp_path / "/".join("a" * 40)
    deep.mkdir(parents=True)
    (tmp_path / "z.csv").write_text("")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x").write_text("")
    paths = [path.relative_to(tmp_path).as_posix() for path in walk(tmp_path, depth=2)]
    assert paths == ["z.csv", "a/a/a"]


def test_a_folder_that_cannot_be_entered_is_named(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert collect(tmp_path) == ({}, ["`closed` is left out: it is a folder that cannot be looked into here"])


def test_names_are_shown_on_one_short_line():
    assert shown("a\nb\u202e\x1b[31m") == "`a\ufffdb\ufffd\ufffd[31m`"
    assert len(shown("x" * 5000)) < 140


def test_a_folder_in_the_place_of_a_course_file_gives_way():
    given = {"w.csv": b"", "data/x.csv": b""}
    kept, notes = apart_from(given, {"w.csv": b"1", "w.csv/inner": b"2", "data": b"3", "data/y": b"4"})
    assert set(kept) == {"w.csv", "data/y"}
    assert [note.split("`")[1] for note in notes] == ["w.csv/inner", "data"]


def test_files_fit_into_the_scratch_space_or_are_named():
    kept, notes = fitting({"a": b"12345", "b": b"12", "c": b"1234567"}, room=8, largest=6)
    assert set(kept) == {"a", "b"} and notes == ["`c` is left out: for its 7 bytes there is no scratch space"]
