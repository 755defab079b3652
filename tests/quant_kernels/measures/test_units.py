"""Bytes and words of tokens, for every byte that there is."""

import pytest
import tokenizers
import torch

from quant_kernels.measures.units import byte_letters, count_units, token_pieces, word_starts
from quant_kernels.measures.windows import Plan, Window


def test_letters_are_those_of_the_tokenizers_library():
    letters = byte_letters()
    assert set(letters) == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert sorted(letters.values()) == list(range(256))
    pieces = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    text = "".join(map(chr, range(0x250))) + "\U0001f600"
    [(written, _)] = pieces.pre_tokenize_str(text)
    assert bytes(letters[letter] for letter in written) == text.encode()


def test_pieces_make_up_the_text(smollm2, lighthouse):
    text = lighthouse + "\u3000Ærø <tool> \U0001f600"
    assert b"".join(token_pieces(smollm2.metadata, smollm2.tokenizer.encode(text))) == text.encode()


def test_control_tokens_are_no_text_and_user_defined_ones_are_as_written():
    metadata = {"tokenizer.ggml.tokens": ["Ġa", "<s>", "<é>"], "tokenizer.ggml.token_type": [1, 3, 4]}
    assert token_pieces(metadata, [0, 1, 2, 0]) == [b" a", b"", "<é>".encode(), b" a"]
    del metadata["tokenizer.ggml.token_type"]
    with pytest.raises(KeyError):  # not one of the letters that stand for bytes
        token_pieces({"tokenizer.ggml.tokens": ["\u3000"]}, [0])


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        (b"", []),
        (b" \n\t", []),
        (b"one", [0]),
        ("é \u3000née\r\nx".encode(), [0, 6, 12]),  # U+3000 is white space of three bytes
        (b"\xff \xc3\xa9\xff a", [0, 2, 6]),  # bytes that are not UTF-8
    ],
)
def test_words_begin_where_white_space_ends(text, starts):
    assert list(word_starts(text)) == starts


def test_a_word_counts_where_its_first_byte_is_scored():
    tokens = ["to", "Ġb", "e", "Ġor", "Ġnot", "Ġ", "to"]
    plan = Plan(torch.arange(7), [Window(0, 2, 4), Window(4, 6, 7)], 4)  # scores "e", " or" and "to"
    assert count_units({"tokenizer.ggml.tokens": tokens}, plan) == (6, 2)
