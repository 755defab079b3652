import json

import nbformat
import pytest

from course.build import BuildError
from course.question import tree
from course.study import START, study

NOTEBOOK = "q90_sample/q90_sample.ipynb"
PICTURE = "q90_sample/bits.svg"


@pytest.fixture
def folders(sample_course, tmp_path):
    return sample_course / "release", tmp_path / "study"


def edit(path, grade_id, source):
    notebook = nbformat.read(path, as_version=4)
    (cell,) = (cell for cell in notebook.cells if cell.id == grade_id)
    cell.source = source
    nbformat.write(notebook, path)


def test_first_run_copies_what_is_released(folders):
    release, mine = folders
    result = study(release, mine)
    assert (result.created, result.refreshed, result.kept, result.newer) == ([NOTEBOOK, PICTURE], [], [], [])
    assert {path: content for path, content in tree(mine).items() if "/" in path} == tree(release)


def test_second_run_changes_nothing(folders):
    study(*folders)
    before = tree(folders[1])
    result = study(*folders)
    assert tree(folders[1]) == before
    assert result.created == result.refreshed == result.kept == result.newer == []


def test_edits_are_kept(folders):
    study(*folders)
    edit(folders[1] / NOTEBOOK, "width", "def width(n):\n    return n.bit_length()")
    before = (folders[1] / NOTEBOOK).read_bytes()
    result = study(*folders)
    assert (folders[1] / NOTEBOOK).read_bytes() == before
    assert result.kept == [NOTEBOOK] and result.newer == []


def test_unchanged_copy_follows_the_release(folders):
    release, mine = folders
    study(release, mine)
    edit(release / NOTEBOOK, "test-ones", "assert ones(7) == 3")
    assert study(release, mine).refreshed == [NOTEBOOK]
    assert (mine / NOTEBOOK).read_bytes() == (release / NOTEBOOK).read_bytes()


def test_saving_without_a_change_is_no_edit(folders):
    release, mine = folders
    study(release, mine)
    notebook = nbformat.read(mine / NOTEBOOK, as_version=4)
    notebook.metadata.language_info.version = "3.11.7"
    nbformat.write(notebook, mine / NOTEBOOK)
    edit(release / NOTEBOOK, "test-ones", "assert ones(7) == 3")
    assert study(release, mine).refreshed == [NOTEBOOK]


def test_new_release_is_put_beside_an_edited_copy(folders):
    release, mine = folders
    study(release, mine)
    edit(mine / NOTEBOOK, "width", "my work")
    before = (mine / NOTEBOOK).read_bytes()
    edit(release / NOTEBOOK, "test-ones", "assert ones(7) == 3")
    for _ in range(2):
        result = study(release, mine)
        assert (result.kept, result.newer) == ([NOTEBOOK], ["q90_sample/q90_sample.new.ipynb"])
    assert (mine / NOTEBOOK).read_bytes() == before
    beside = mine / result.newer[0]
    assert beside.read_bytes() == (release / NOTEBOOK).read_bytes()
    beside.replace(mine / NOTEBOOK)  # the learner takes the new version
    assert study(release, mine).kept == []


def test_work_from_before_the_manifest_is_kept(folders):
    study(*folders)
    (folders[1] / ".course.json").write_text("[]")
    edit(folders[1] / NOTEBOOK, "width", "my work")
    assert study(*folders).kept == [NOTEBOOK]


def test_damaged_notebook_of_the_learner_is_kept(folders):
    study(*folders)
    (folders[1] / NOTEBOOK).write_text("{")
    study(*folders)
    assert (folders[1] / NOTEBOOK).read_text() == "{"


def test_start_page_lists_the_questions(folders):
    result = study(*folders)
    page = nbformat.read(result.start, as_version=4)
    nbformat.validate(page)
    assert result.start == folders[1] / START and [cell.cell_type for cell in page.cells] == ["markdown"]
    row = f"| 90 | [Counting bits: a sample]({NOTEBOOK}) | Technical | Mid-Senior | 2 | 8 | 12 | 6 | 14 |"
    assert row in page.cells[0].source
    assert "`course check q90`" in page.cells[0].source
    assert (folders[1] / NOTEBOOK).is_file()  # the link's target


def test_start_page_is_written_anew(folders):
    study(*folders)
    page = folders[1] / START
    expected = page.read_text()
    page.write_text(json.dumps({}))
    study(*folders)
    assert page.read_text() == expected


def test_nothing_to_study(tmp_path):
    with pytest.raises(BuildError, match="has no question; run `course build` first"):
        study(tmp_path, tmp_path / "study")
