"""Text in spreadsheets: no formula, and the same text back."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from course.plain_text import clean, harmless, harmless_inside, restore

FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r")
texts = st.text(st.sampled_from("=+-@＝'\"ab ;,\t\r\n") | st.characters(), max_size=12)


@given(texts)
@example("'=1")
@example(" =1")
@example("-")
@example("'")
def test_harmless_text_is_no_formula_and_comes_back(text):
    cell = harmless(text)
    assert restore(cell) == text
    assert cell in ("", "-") or not cell.lstrip(" ").startswith(FORMULA)


@given(texts)
@example('x;"=1')
@example("a\n- b")
def test_no_piece_is_a_formula_where_another_separator_divides_the_file(text):
    pieces = re.split("[;\t\n]", harmless_inside(clean(text)))
    assert not any(piece.lstrip(' "').startswith(FORMULA[:8]) for piece in pieces[1:])


def test_long_text_is_cut_before_it_is_searched():
    assert clean("\x00" * 10**7, 3) == "\ufffd" * 3 + " ..."
    assert clean("abc", 3) == "abc"
