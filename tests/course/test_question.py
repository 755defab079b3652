import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from course.question import BuildError, find_exercises, read_source, split_regions, support_files

SOLUTION = {"nbgrader": {"solution": True, "grade_id": "f"}}
TEST = {"nbgrader": {"grade": True, "grade_id": "test-f"}}


def test_regions_of_a_solution_cell():
    cell = new_code_cell("def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION", metadata=SOLUTION)
    assert split_regions(cell) == (["def f():"], ["    return 1"])


def test_solution_cell_without_a_region_is_cut_out_whole():
    assert split_regions(new_code_cell("x = 1", metadata=SOLUTION)) == ([], ["x = 1"])


@pytest.mark.parametrize(
    ("source", "metadata", "message"),
    [
        ("# BEGIN SOLUTION\nx = 1", SOLUTION, "BEGIN SOLUTION has no END SOLUTION"),
        ("x = 1\n# END SOLUTION", SOLUTION, "END SOLUTION has no BEGIN SOLUTION"),
        ("# BEGIN SOLUTION\n# BEGIN SOLUTION", SOLUTION, "BEGIN SOLUTION stands inside SOLUTION"),
        ("# BEGIN HIDDEN TESTS\n# END SOLUTION", TEST, "END SOLUTION has no BEGIN SOLUTION"),
        ("# BEGIN SOLUTION\n# END SOLUTION", TEST, "needs a cell whose nbgrader metadata says solution: true"),
        ("# BEGIN MARK SCHEME\n# END MARK SCHEME", {}, "needs a cell whose nbgrader metadata says task: true"),
    ],
)
def test_broken_regions_are_refused_by_reason(source, metadata, message):
    with pytest.raises(ValueError, match=message):
        split_regions(new_code_cell(source, metadata=metadata))


def test_broken_region_names_file_and_cell(sample_source):
    path = sample_source / "q90_sample/q90_sample.py"
    path.write_text(path.read_text().replace("    ### END SOLUTION", "", 1))
    with pytest.raises(BuildError, match=r"^q90_sample\.py, cell width: BEGIN SOLUTION has no END SOLUTION$"):
        read_source(path)


def test_cell_ids_depend_on_the_text_not_on_the_position(sample_source):
    path = sample_source / "q90_sample/q90_sample.py"
    before = {cell.id: cell.source for cell in read_source(path).cells}
    path.write_text(path.read_text().replace("# %% [markdown]\n", "# %% [markdown]\n# new\n\n# %% [markdown]\n", 2))
    after = {cell.id: cell.source for cell in read_source(path).cells}
    assert before.items() <= after.items()
    new = [key for key in after if key not in before]
    assert len(new) == 2 and new[1] == f"{new[0]}-2"  # the same text twice


def test_exercises_and_their_cells(sample_source):
    first, second = find_exercises(read_source(sample_source / "q90_sample/q90_sample.py"))
    assert [cell.id for cell in first.blanks + first.tests] == ["width", "test-width"]
    assert [cell.id for cell in second.blanks + second.tests] == ["ones", "test-ones", "test-ones-hidden"]
    assert [cell.source.split("\n")[0] for cell in second.texts] == ["## Exercise 2: ones (2 points, 3 minutes)"]


def test_background_folds_do_not_belong_to_the_first_exercise():
    cells = [
        new_markdown_cell("# Background\n<details>proof</details>"),
        new_markdown_cell("## Exercise 1"),
        new_code_cell("", metadata=SOLUTION),
        new_code_cell("", metadata=TEST),
    ]
    (exercise,) = find_exercises(type(cells[0])(cells=cells))
    assert [cell.source for cell in exercise.texts] == ["## Exercise 1"]


def test_support_files_leave_out_notebooks_text_and_hidden_files(tmp_path):
    folder = tmp_path / "q90"
    for name in ("q90.py", "q90.ipynb", ".secret", "__pycache__/q90.pyc", "data/x.csv", "help.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (folder / "link").symlink_to("/etc/hostname")
    assert [path.as_posix() for path in support_files(folder)] == ["data/x.csv", "help.py"]
