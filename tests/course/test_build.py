import subprocess
import sys

import nbformat
import pytest
from nbgrader.api import Gradebook

from course.build import BuildError, build, find_assignments
from course.directory import open_course, step_folder
from course.question import tree

SAMPLE = "q90_sample/q90_sample"
# nbgrader's own add_submission sets SQLAlchemy's "not in session" off.
warns_of_session = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")


def rebuild(course, old="", new=""):
    """Change the sample's text where it lies in its course, and build it again."""
    path = course / f"source/{SAMPLE}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new) if old else text)
    (path,) = build(None, source_dir=course / "source", course_dir=course)
    return path


def open_book(course):
    return Gradebook(f"sqlite:///{course}/gradebook.db")


def add_submission(course):
    with open_book(course) as gradebook:
        gradebook.add_student("ada")
        gradebook.add_submission("q90_sample", "ada")


def test_build_makes_the_candidates_notebook(sample_source, tmp_path):
    course = tmp_path / "class"
    (path,) = build(["q90"], source_dir=sample_source, course_dir=course)
    assert path == course / f"release/{SAMPLE}.ipynb"
    cells = {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}
    assert cells["ones"].source.endswith("# YOUR CODE HERE\n    raise NotImplementedError()")
    folded = "# Exercise 1: run this cell to test your answer; click here to read the test.\nimport math\n"
    assert cells["test-width"].source == folded + '\nassert width(5) == 3, "5 is 101, three digits"'
    assert cells["test-width"].metadata.jupyter == {"source_hidden": True}
    assert "jupyter" not in cells["width"].metadata
    assert cells["rubric-depth"].source.strip().endswith("why a width matters?")
    assert (course / "release/q90_sample/bits.svg").is_file()
    with open_book(course) as gradebook:
        assert gradebook.find_assignment("q90_sample").max_code_score == 6
        assert gradebook.find_assignment("q90_sample").max_task_score == 14
    assert sorted(path.name for path in course.iterdir()) == ["gradebook.db", "release", "source"]


def test_support_files_come_along_but_the_text_does_not(sample_course):
    assert sorted(tree(sample_course / "release")) == ["q90_sample/bits.svg", f"{SAMPLE}.ipynb"]
    assert sorted(tree(sample_course / "source")) == ["q90_sample/bits.svg", f"{SAMPLE}.ipynb", f"{SAMPLE}.py"]


def test_building_twice_changes_nothing(sample_course):
    path = sample_course / f"release/{SAMPLE}.ipynb"
    first, time = tree(sample_course / "release"), path.stat().st_mtime_ns
    assert rebuild(sample_course) == path
    assert tree(sample_course / "release") == first and path.stat().st_mtime_ns == time


def test_another_process_and_folder_give_the_same_bytes(sample_source, built_once, tmp_path):
    code = "import sys; from course.build import build; build(None, source_dir=sys.argv[1], course_dir=sys.argv[2])"
    bare = {"PATH": "/usr/bin"}  # nor is the virtual environment on the path, where nbgrader looks for alembic
    subprocess.run(
        [sys.executable, "-c", code, sample_source, tmp_path / "b"], check=True, capture_output=True, env=bare
    )
    for path in (f"source/{SAMPLE}.ipynb", f"release/{SAMPLE}.ipynb"):
        assert (tmp_path / "b" / path).read_bytes() == (built_once / path).read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    ### END SOLUTION", "", "q90_sample.py, cell width: BEGIN SOLUTION"),
        ('"grade_id": "test-ones"', '"grade_id": "test-width"', "Duplicate grade id: test-width"),
        ('"points": 4, ', "", "'test-width' does not have points"),
        ("#     minutes: {talk: 12, code: 8}\n", "", "q90_sample: the card lacks minutes"),
        ("rubric: 10,", "rubric: 15,", "15 rubric points, but the rubric cells give 14"),
    ],
)
def test_failure_gives_the_reason_and_leaves_everything_as_it_was(sample_course, old, new, message):
    before = tree(sample_course)
    with pytest.raises(BuildError) as caught:
        rebuild(sample_course, old, new)
    assert message in str(caught.value)
    after = tree(sample_course)
    assert {path for path in before | after if before.get(path) != after.get(path)} == {f"source/{SAMPLE}.py"}


@warns_of_session
def test_changed_text_reaches_a_course_with_submissions(sample_course):
    add_submission(sample_course)
    assert "ones(7)" in rebuild(sample_course, "assert ones(5) == 2", "assert ones(7) == 3").read_text()
    with open_book(sample_course) as gradebook:
        assert "ones(7)" in gradebook.find_source_cell("test-ones", "q90_sample", "q90_sample").source
        assert len(gradebook.assignment_submissions("q90_sample")) == 1


@warns_of_session
def test_other_cells_in_a_course_with_submissions_are_refused_by_name(sample_course):
    add_submission(sample_course)
    before = tree(sample_course / "release")
    with pytest.raises(BuildError, match=r"1 submissions .* \(new: test-bits; gone: test-ones\)"):
        rebuild(sample_course, '"grade_id": "test-ones"', '"grade_id": "test-bits"')
    assert tree(sample_course / "release") == before


def test_names(tmp_path):
    for name in ("q06_blocks", "q07_awq", "q07_gptq"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.py").write_text("")
    assert find_assignments(["q06", "q07_gptq"], tmp_path) == ["q06_blocks", "q07_gptq"]
    assert find_assignments(None, tmp_path) == ["q06_blocks", "q07_awq", "q07_gptq"]
    with pytest.raises(BuildError, match="'q07' names several questions; known are q07_awq, q07_gptq"):
        find_assignments(["q07"], tmp_path)
    with pytest.raises(BuildError, match="'q99' is not a question; known are q06_blocks, q07_awq, q07_gptq"):
        find_assignments(["q99"], tmp_path)
    with pytest.raises(BuildError, match="'' is not a question"):
        find_assignments([""], tmp_path)
    with pytest.raises(BuildError, match="has no question"):
        find_assignments(None, tmp_path / "q06_blocks")


def test_a_course_follows_its_own_configuration(tmp_path):
    (tmp_path / "nbgrader_config.py").write_text(
        "c = get_config()\n"
        "c.CourseDirectory.db_url = 'sqlite:////x/y.db'\n"
        "c.CourseDirectory.release_directory = 'out'\n"
    )
    course = open_course(tmp_path)
    assert course.db_url == "sqlite:////x/y.db"
    assert step_folder(course, "release", "q90") == tmp_path / "out/q90"
    assert step_folder(course, "submitted", "q90", "ada") == tmp_path / "submitted/ada/q90"
