"""What counts as the same text: identical, part of the other, reformatted; and what does not."""

import random
from itertools import combinations
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_kernels.measures import overlap as module
from quant_kernels.measures.overlap import (
    KEY,
    SIZE,
    Sketch,
    calibration_sketch,
    check_overlap,
    overlap,
    sequence_hashes,
    sketch_text,
)

CHAPTERS = ["formatstrings", "debugger", "typesmapping", "comparisons", "assignment", "execmodel"]  # of one manual


def made_up(n_words, seed=0):
    """A text of words drawn from a vocabulary of 5000: no 13 of them repeat."""
    return " ".join(f"w{i}" for i in random.Random(seed).choices(range(5000), k=n_words))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_same_text_is_caught(chapter):
    text = topics[chapter]
    assert overlap(sketch_text(text), text) == 1
    with pytest.raises(ValueError, match=r"share 100% .* the limit is 10%"):
        check_overlap(sketch_text(text), text)


def test_a_part_and_a_whole_are_caught():
    part, whole = topics["customization"], topics["specialnames"]  # a section, and the chapter that holds it
    assert part.strip()[50:500] in whole
    assert overlap(sketch_text(whole), part) == overlap(sketch_text(part), whole) == 1
    text = "\n\n".join(topics[chapter] for chapter in CHAPTERS)
    assert overlap(sketch_text(text), topics["comparisons"]) > 0.99
    assert overlap(sketch_text(topics["comparisons"]), text) > 0.99


def test_other_chapters_of_the_same_manual_are_not():
    for one, other in combinations(CHAPTERS, 2):
        assert overlap(sketch_text(topics[one]), topics[other]) < 0.02
        check_overlap(sketch_text(topics[one]), topics[other])


def test_layout_case_and_punctuation_do_not_hide_a_text():
    text = topics["comparisons"]
    changed = "  \n".join(text.upper().replace('"', "``").replace(".", " ").split())
    assert overlap(sketch_text(text), changed) > 0.95


def test_a_long_text_is_sampled_and_its_parts_are_still_found():
    text = made_up(80_000)
    sketch = sketch_text(text)
    assert len(sketch.hashes) == SIZE
    for start in range(0, len(text) - 30_000, 50_000):
        assert overlap(sketch, text[start : start + 30_000]) > 0.97  # one word at each end is cut
    assert overlap(sketch, made_up(80_000, seed=1)) == 0


def test_a_share_is_estimated():
    text, other = made_up(40_000), made_up(40_000, seed=1)
    mixed = text[: len(text) // 4] + " " + other[: 3 * len(other) // 4]
    assert overlap(sketch_text(text), mixed) == pytest.approx(0.25, abs=0.03)


def test_few_shared_sequences_of_few_are_no_evidence():
    text = made_up(80_000)
    quoted = made_up(60, seed=1) + " " + text[:180]  # about 20 sequences of 90, of which one in twenty is sampled
    assert overlap(sketch_text(text), quoted) == 0


@pytest.mark.parametrize("text", ["", "a few words", "!!! ???", "これは短い文章です。", "x" * 10_000])
def test_short_and_odd_texts(text):
    assert overlap(sketch_text(text), text) == (1 if text else 0)
    assert overlap(sketch_text(text), made_up(100)) == 0


def test_scripts_without_spaces():
    text = "".join(map(chr, random.Random(0).choices(range(0x4E00, 0x9FA0), k=2000)))
    assert overlap(sketch_text(text), text[500:1000]) == 1


@given(st.text())
def test_hashes_are_ascending_31_bit_numbers(text):
    hashes = sequence_hashes(text)
    assert (np.diff(hashes) > 0).all() and ((hashes >= 0) & (hashes < 2**31)).all()


def test_hashes_are_the_same_on_every_machine():
    words = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    assert sketch_text(words).hashes == (38359118, 1053468905)


def test_sketches_travel_in_metadata():
    sketch = sketch_text(topics["comparisons"])
    assert calibration_sketch({KEY: list(sketch.hashes)}) == sketch
    assert calibration_sketch({}) is None
    check_overlap(None, "any text")
    for wrong in ("text", [-1], [2**31], [1.5]):
        with pytest.raises(ValueError, match=f"{module.KEY} is not a list of numbers"):
            calibration_sketch({KEY: wrong})


def test_a_full_sketch_is_complete_up_to_its_highest_hash():
    assert Sketch((1, 2, 3)).highest == 2**31 - 1
    assert Sketch(tuple(range(SIZE))).highest == SIZE - 1
