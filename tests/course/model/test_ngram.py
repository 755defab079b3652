"""The 5-gram yardstick against a case worked by hand and against plain counting."""

import math
from collections import Counter

import numpy as np
import pytest

from course.model.ngram import NGram, packed


def test_case_worked_by_hand():
    # a b a b a c over {a, b, c, d}: unigrams 3, 2, 1 of 6, 3 kinds; behind a: b twice, c once, so 3 in 2 kinds
    model = NGram(np.array([0, 1, 0, 1, 0, 2]), vocab=4, order=2)
    p_b = (2 + 3 * 1 / 4) / (6 + 3)
    p_d = (0 + 3 * 1 / 4) / (6 + 3)
    found = np.exp(model.log_probabilities(np.array([1, 3, 0])))
    assert found[0] == pytest.approx(p_b)
    assert found[1] == pytest.approx((0 + 1 * p_d) / (2 + 1)), "behind b comes only a, twice"
    assert found[2] == pytest.approx((3 + 3 * 1 / 4) / (6 + 3)), "nothing is known to come behind d"


def plain(train, vocab, order, history, token):
    """P(token | history) by counting tuples."""
    p = 1 / vocab
    for n in range(1, order + 1):
        if n - 1 > len(history):
            break
        before = tuple(history[len(history) - n + 1 :])
        behind = Counter(train[i + n - 1] for i in range(len(train) - n + 1) if tuple(train[i : i + n - 1]) == before)
        if behind:
            p = (behind[token] + len(behind) * p) / (behind.total() + len(behind))
    return p


def test_equals_plain_counting_and_sums_to_one():
    rng = np.random.default_rng(0)
    train, text = rng.integers(0, 5, 300), rng.integers(0, 5, 40)
    model = NGram(train, vocab=5, order=4)
    expected = [math.log(plain(list(train), 5, 4, list(text[:i]), text[i])) for i in range(len(text))]
    assert model.log_probabilities(text) == pytest.approx(expected)
    ways = [model.log_probabilities(np.append(text[:9], token))[-1] for token in range(5)]
    assert sum(map(math.exp, ways)) == pytest.approx(1)


def test_packed_puts_the_first_token_highest():
    assert packed(np.array([1, 2, 3], dtype=np.uint16), 2).tolist() == [1 << 12 | 2, 2 << 12 | 3]
    assert packed(np.array([1]), 2).tolist() == []


def test_vocabulary_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="vocabulary of 5000 do not fit"):
        NGram(np.array([1, 2]), vocab=5000)
