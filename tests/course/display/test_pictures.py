import base64

import pytest

from course.display.pictures import MAX_BYTES, picture_uri

PNG = b"\x89PNG\r\n\x1a\n rest"
SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>'


def uri(mime_type, data):
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize(
    ("name", "mime_type", "data"),
    [
        ("a.png", "image/png", PNG),
        ("an image.jpg", "image/jpeg", b"\xff\xd8\xff\xe0"),
        ("a.svg", "image/svg+xml", SVG),
        ("a.txt", "image/gif", b"GIF89a"),
        ("a.webp", "image/webp", b"RIFF1234WEBPVP8 "),
    ],
)
def test_a_file_beside_the_notebook_is_known_by_its_content(tmp_path, name, mime_type, data):
    (tmp_path / name).write_bytes(data)
    assert picture_uri(name.replace(" ", "%20"), {}, str(tmp_path)) == uri(mime_type, data)


@pytest.mark.parametrize("address", ["http://example.org/a.png", "//example.org/a.png", "file:///etc/passwd", "#a", ""])
def test_an_address_elsewhere_is_no_picture(tmp_path, address):
    assert picture_uri(address, {}, str(tmp_path)) is None


def test_nothing_outside_the_folder_is_read(tmp_path):
    folder = tmp_path / "student"
    folder.mkdir()
    (tmp_path / "other.png").write_bytes(PNG)
    (folder / "link.png").symlink_to(tmp_path / "other.png")
    (folder / "notes.png").write_text("no picture")
    for address in (
        "../other.png",
        "link.png",
        "notes.png",
        "missing.png",
        "a\0b",
        "x" * 5000,
        str(tmp_path / "other.png"),
    ):
        assert picture_uri(address, {}, str(folder)) is None


def test_a_large_file_is_left_out(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.write(PNG)
        file.truncate(MAX_BYTES + 1)
    assert picture_uri("a.png", {}, str(tmp_path)) is None


def test_attachments():
    png = base64.b64encode(PNG).decode()
    attachments = {"a b.png": {"image/png": png}, "page": {"text/html": png}, "bad": {"image/png": '"><b>'}, "odd": 3}
    assert picture_uri("attachment:a%20b.png", attachments, "") == uri("image/png", PNG)
    for name in ("page", "bad", "odd", "missing"):
        assert picture_uri(f"attachment:{name}", attachments, "") is None
    assert picture_uri("attachment:a", "not a mapping", "") is None
