"""A small question for the tests of the course's own tools, as text and as built."""

import shutil
import warnings
from pathlib import Path

import pytest

from course.build import build

from .classroom import make_classroom

DATA = Path(__file__).parent / "data"
NAME = "q90_sample"


def make_source(folder: Path) -> Path:
    """Write the sample question into a source folder below `folder`, and return that source folder."""
    question = folder / "source" / NAME
    question.mkdir(parents=True)
    shutil.copy(DATA / f"{NAME}.txt", question / f"{NAME}.py")
    (question / "bits.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>\n')
    return question.parent


@pytest.fixture
def sample_source(tmp_path):
    """A source folder that holds the sample question q90_sample, its text and a picture."""
    return make_source(tmp_path)


@pytest.fixture(scope="session")
def built_once(tmp_path_factory):
    """A course directory with the sample question built; shared, so tests must not change it."""
    root = tmp_path_factory.mktemp("course")
    build(None, source_dir=make_source(root), course_dir=root)
    return root


@pytest.fixture
def sample_course(built_once, tmp_path):
    """A course directory of a test's own, with the sample question built."""
    return Path(shutil.copytree(built_once, tmp_path / "course"))


@pytest.fixture
def folder(sample_course):
    """The empty folder that a submission of ann's belongs in."""
    folder = sample_course / "submitted" / "ann" / NAME
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def release(sample_course):
    """The notebook that candidates are given, as bytes."""
    return (sample_course / "release" / NAME / f"{NAME}.ipynb").read_bytes()


@pytest.fixture(scope="session")
def classroom(built_once, tmp_path_factory):
    """A course directory with a graded class; shared, so tests must not change it."""
    course = tmp_path_factory.mktemp("classroom") / "class"
    shutil.copytree(built_once, course)
    with warnings.catch_warnings(action="ignore"):  # nbgrader's own add_submission
        make_classroom(course)
    return course
