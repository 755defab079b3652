"""Which of the instructor's cells a submission's cells stand for, after all that can happen to marks and cells."""

import copy
import random

import nbformat.v4 as nbf
import pytest
from nbgrader.nbgraderformat import MetadataValidator

from course.examiner import Exam
from course.examiner.exam import claimed_id
from course.examiner.restore import code_cells, restore

from .notebooks import EXAM, ORIGINAL, blank, graded, helper, notebook, plain, submission


def text(source: str, **mark):
    return nbf.new_markdown_cell(source, metadata={"nbgrader": mark} if mark else {})


def manual(grade_id: str, source: str = "YOUR ANSWER HERE"):
    return text(source, grade=True, solution=True, locked=False, task=False, points=4, grade_id=grade_id)


def rubric(grade_id: str):
    source = f"## {grade_id}\n=== BEGIN MARK SCHEME ===\nsecret\n=== END MARK SCHEME ==="
    return text(source, grade=False, solution=False, locked=True, task=True, points=7, grade_id=grade_id)


WRITTEN = notebook(
    text("# Why is it so?"),
    manual("why"),
    text("# And now two"),
    manual("first"),
    manual("second"),
    helper("tools", "def same(a, b):\n    return a == b"),
    rubric("depth"),
)
WRITTEN_EXAM = Exam.from_notebook(WRITTEN, {})


def answered(**answers: str):
    """What a candidate hands in: answers for the blanks, rubrics without their mark schemes."""
    handed_in = copy.deepcopy(WRITTEN)
    for cell in handed_in.cells:
        cell.source = answers.get(claimed_id(cell), cell.source).split("\n=== BEGIN")[0]
    return handed_in


def stripped(handed_in):
    for cell in handed_in.cells:
        cell.metadata = {"colab": {}}
    return handed_in


def homes(handed_in, exam):
    restored, notes = restore(handed_in, exam)
    return {claimed_id(cell): cell.source for cell in restored.cells if claimed_id(cell)}, notes


def test_a_submission_as_it_should_be_needs_no_note():
    restored, notes = restore(submission(), EXAM)
    assert [claimed_id(cell) for cell in restored.cells] == [None, "double", "test-double", "area", "test-area"]
    assert notes == [] and restored.cells[2].metadata.nbgrader.points == 3
    assert [own.grade_id if own else None for _, own in code_cells(restored, EXAM)] == [
        None,
        None,
        "test-double",
        None,
        "test-area",
    ]


def test_tests_and_rubrics_are_recognized_by_the_text_that_was_given_out():
    handed_in = stripped(submission())
    handed_in.cells[2].source = given_out = 'assert double(2) == 4, "double(2) is not 4"'
    found, _ = homes(handed_in, EXAM)
    assert found["test-double"] == given_out
    found, _ = homes(stripped(answered()), WRITTEN_EXAM)
    assert found["depth"] == "## depth" and found["tools"].startswith("def same")


def test_empty_lines_and_space_at_line_ends_hide_nothing():
    handed_in = stripped(answered())
    handed_in.cells[5].source = "\n\ndef same(a, b):   \n\n    return a == b\n"
    assert homes(handed_in, WRITTEN_EXAM)[0]["tools"].endswith("a == b\n")


def test_answers_without_marks_are_found_between_their_neighbours():
    handed_in = stripped(answered(why="Because.", first="One.", second="Two."))
    found, notes = homes(handed_in, WRITTEN_EXAM)
    assert (found["why"], found["first"], found["second"]) != ("Because.", "One.", "Two.") or notes
    assert [found["why"], found["first"], found["second"]] == ["Because.", "One.", "Two."]
    assert len(notes) == 3 and notes[0] == "`why` had lost its mark: the text between its neighbours was taken"


def test_one_answer_without_its_mark_is_found():
    handed_in = answered(why="Because.", first="One.", second="Two.")
    del handed_in.cells[3].metadata["nbgrader"]
    found, notes = homes(handed_in, WRITTEN_EXAM)
    assert found["first"] == "One." and len(notes) == 1


def test_an_answer_that_cannot_be_told_apart_waits_for_a_person():
    handed_in = stripped(answered(why="Because.", first="One.", second="Two."))
    handed_in.cells.insert(2, text("A second thought"))
    found, notes = homes(handed_in, WRITTEN_EXAM)
    assert found["why"] == "This cell (`why`) was missing from what was handed in; it was added when grading."
    assert "the answer `why` is missing: look whether it stands elsewhere in the notebook" in notes
    restored, _ = restore(handed_in, WRITTEN_EXAM)
    assert "A second thought" in [cell.source for cell in restored.cells]


def test_of_copies_of_an_answer_the_one_with_text_counts():
    handed_in = answered(first="One.", second="Two.")
    handed_in.cells.insert(2, manual("why", "Because."))
    found, notes = homes(handed_in, WRITTEN_EXAM)
    assert found["why"] == "Because." and notes == []
    handed_in.cells.insert(3, manual("why", "Or because."))
    found, notes = homes(handed_in, WRITTEN_EXAM)
    assert found["why"] == "Because."
    assert notes == ["`why` stands there 3 times with different text: the first was taken for the answer"]


def test_both_halves_of_a_split_cell_stay_and_are_noted():
    handed_in = submission(double="def double(n):\n    return n + n")
    handed_in.cells.insert(2, blank("double", "more = 1"))
    restored, notes = restore(handed_in, EXAM)
    assert [cell.source for cell in restored.cells[1:3]] == ["def double(n):\n    return n + n", "more = 1"]
    assert notes == ["`double` stands there 2 times with different text: all of them were run, in order"]


@pytest.mark.parametrize("make, kind", [(nbf.new_markdown_cell, "markdown"), (nbf.new_raw_cell, "a raw cell")])
def test_an_answer_of_another_type_is_code_again(make, kind):
    handed_in = submission()
    handed_in.cells[1] = make(handed_in.cells[1].source, metadata=handed_in.cells[1].metadata)
    handed_in.cells[2] = make("x", metadata=handed_in.cells[2].metadata)
    restored, notes = restore(handed_in, EXAM)
    assert [cell.cell_type for cell in restored.cells] == ["code"] * 5
    assert notes == [f"`double` was turned into {kind}: it was run as code all the same"]


def test_missing_scored_cells_are_added_at_the_end():
    restored, notes = restore(notebook(plain("x = 1")), EXAM)
    assert [claimed_id(cell) for cell in restored.cells] == [None, "test-double", "test-area"] and notes == []


def test_marks_and_tags_of_the_submission_are_not_kept():
    handed_in = submission()
    handed_in.cells[2].metadata.nbgrader.update(points=100, grade=False, solution=True, locked=False)
    handed_in.cells[1].metadata["tags"] = ["skip-execution", "experiment"]
    handed_in.cells.append(graded("bonus", "pass", 50))
    restored, _ = restore(handed_in, EXAM)
    assert restored.cells[2].metadata == {"nbgrader": EXAM.place("test-double").mark}
    assert restored.cells[1].metadata == {"nbgrader": EXAM.place("double").mark}
    assert restored.cells[-1].metadata == {}


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happened_each_place_is_taken_once_and_restoring_again_changes_nothing(seed):
    chance = random.Random(seed)
    exam = Exam.from_notebook(notebook(*ORIGINAL.cells, *WRITTEN.cells), {})
    cells = [*submission().cells, *answered(why="Because.", first="One.").cells]
    handed_in = notebook(*copy.deepcopy(cells))
    for cell in chance.choices(handed_in.cells, k=chance.randrange(8)):
        change = chance.choice(["drop", "copy", "move", "unmark", "exchange", "retype"])
        if change in ("drop", "move") and cell in handed_in.cells:
            handed_in.cells.remove(cell)
        if change in ("copy", "move"):
            handed_in.cells.insert(chance.randrange(len(handed_in.cells) + 1), copy.deepcopy(cell))
        if change == "unmark":
            cell.metadata = {}
        if change == "exchange":
            cell.metadata = copy.deepcopy(chance.choice(cells).metadata)
        if change == "retype":
            cell.cell_type = chance.choice(["code", "markdown", "raw"])
    before = copy.deepcopy(handed_in)
    restored, _ = restore(handed_in, exam)
    assert handed_in == before
    ids = [claimed_id(cell) for cell in restored.cells if claimed_id(cell)]
    assert len(ids) == len(set(ids)) and {place.grade_id for place in exam.places if place.is_scored} <= set(ids)
    MetadataValidator().validate_nb(restored)
    again, notes = restore(restored, exam)
    assert [cell.source for cell in again.cells] == [cell.source for cell in restored.cells]
    assert [own for _, own in code_cells(again, exam)] == [own for _, own in code_cells(restored, exam)]
    assert notes == []
