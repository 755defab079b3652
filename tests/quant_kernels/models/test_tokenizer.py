"""Token ids, against llama.cpp's."""

import hashlib
import json
import pydoc_data.topics
from pathlib import Path

import pytest

from quant_kernels.models.gguf_file import load_model
from quant_kernels.models.tokenizer import Tokenizer

DATA = Path(__file__).parents[1] / "data"
LLAMA_CPP = json.loads((DATA / "smollm2_ids.json").read_text())["cases"]  # text and ids; the file says where from
LIGHTHOUSE_SHA256 = "0df691a51163b1bb442811f36c06b583a42f8a4459f33bb1ae1d629257826172"  # of str(ids), from there too

# The tokens of BORDERS by the same tool with a vocabulary that would merge across the words' borders if it could
BORDERS = "It's 12345,\r\n\r\n  we'LL   go"
BORDER_MERGES = ["1 2", "12 3", "123 4", "1234 5", "Ġ 1", "Ġ Ġ", "č Ċ", "čĊ čĊ", ", čĊ", ", čĊčĊ", "L L", "' LL", "' s"]
BORDER_MERGES += ["Ġ w", "Ġ g", "ĠĠ Ġ", "čĊčĊ Ġ"]
BORDER_TOKENS = {
    "smollm": "I|t|'s|Ġ|1|2|3|4|5|,|čĊčĊĠ|Ġw|e|'|LL|ĠĠ|Ġg|o",
    "starcoder": "I|t|'s|Ġ|1|2|3|4|5|,|čĊčĊĠ|Ġw|e|'|LL|ĠĠ|Ġg|o",
    "gpt-2": "I|t|'s|Ġ|12345|,|čĊčĊĠ|Ġw|e|'|LL|ĠĠ|Ġg|o",
    "llama-bpe": "I|t|'s|Ġ|123|4|5|,čĊčĊ|Ġ|Ġw|e|'LL|ĠĠ|Ġg|o",
    "qwen2": "I|t|'s|Ġ|1|2|3|4|5|,čĊčĊ|Ġ|Ġw|e|'LL|ĠĠ|Ġg|o",
}


@pytest.mark.parametrize(("text", "ids"), LLAMA_CPP)
def test_smollm2_ids_are_llama_cpps(smollm2, text, ids):
    assert smollm2.tokenizer.encode(text) == ids


def test_smollm2_ids_of_a_story_are_llama_cpps(smollm2, lighthouse):
    ids = smollm2.tokenizer.encode(lighthouse, add_special=True)
    assert len(ids) == 1082
    assert hashlib.sha256(str(ids).encode()).hexdigest() == LIGHTHOUSE_SHA256


def test_smollm2_round_trip(smollm2):
    text = "\n".join(pydoc_data.topics.topics.values())[:200_000] + "naïve 日本語 👩‍👩‍👧 مرحبا"
    assert smollm2.tokenizer.decode(smollm2.tokenizer.encode(text)) == text


@pytest.mark.parametrize("pre", BORDER_TOKENS)
def test_words_are_cut_as_in_llama_cpp(metadata, pre):
    tokens = [token for token in metadata["tokenizer.ggml.tokens"] if len(token) == 1]
    tokens += [merge.replace(" ", "") for merge in BORDER_MERGES]
    changes = {"tokens": tokens, "merges": BORDER_MERGES, "pre": pre, "token_type": [1] * len(tokens)}
    tokenizer = Tokenizer(metadata | {f"tokenizer.ggml.{key}": value for key, value in changes.items()})
    assert "|".join(tokens[i] for i in tokenizer.encode(BORDERS)) == BORDER_TOKENS[pre]


@pytest.fixture
def metadata(tiny_gguf):
    return load_model(tiny_gguf()).metadata


def test_user_defined_tokens_are_found_and_control_tokens_are_not(metadata):
    text = "in the end and\nthe 12 hand<tool>the<|end|>é"
    ids = [259, 258, 220, 68, 77, 67, 220, 261, 198, 257, 220, 16, 17, 220, 71, 261, 263, 257]
    ids += [27, 91, 68, 77, 67, 91, 29, 127, 102]  # <|end|> letter by letter; all by llama-tokenize, as above
    tokenizer = Tokenizer(metadata)
    assert tokenizer.encode(text) == ids
    assert tokenizer.decode(ids) == text


def test_bytes_without_a_token_are_dropped_after_merging(metadata):
    tokens = [token for token in metadata["tokenizer.ggml.tokens"] if token != "Ą"]  # the byte 4
    tokens[tokens.index("<tool>")] = "!!"
    changes = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": ["! !"], "tokenizer.ggml.token_type": []}
    tokenizer = Tokenizer(metadata | changes)
    one, two = tokens.index("!"), tokens.index("!!")
    assert tokenizer.encode("!!") == [two]
    assert tokenizer.encode("!\x04!") == [one, one]


@pytest.mark.parametrize(
    ("changes", "bos"),
    [
        ({}, []),
        ({"tokenizer.ggml.add_bos_token": True}, [262]),
        ({"tokenizer.ggml.add_bos_token": False}, []),
        ({"tokenizer.ggml.pre": "llama-bpe"}, [262]),
        ({"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": False}, []),
    ],
)
def test_bos_only_where_the_file_asks_for_it(metadata, changes, bos):
    tokenizer = Tokenizer(metadata | changes)
    plain = tokenizer.encode("the hand")
    assert tokenizer.encode("the hand", add_special=True) == bos + plain


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer.ggml.model": "llama"}, "tokenizer model 'llama' is not supported, only byte-level BPE"),
        ({"tokenizer.ggml.model": None}, "tokenizer model None"),
        ({"tokenizer.ggml.pre": "tekken"}, "pre-tokenizer 'tekken' is not supported, only gpt-2, llama-bpe, qwen2"),
        ({"tokenizer.ggml.merges": ["t zzz"]}, "the vocabulary cannot be used: .*zzz"),
    ],
)
def test_unsupported_tokenizers_are_named(metadata, changes, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer(metadata | changes)


@pytest.mark.parametrize("key", ["tokens", "merges"])
def test_missing_entries_are_named(metadata, key):
    del metadata[f"tokenizer.ggml.{key}"]
    with pytest.raises(ValueError, match=f"the file lacks tokenizer.ggml.{key}"):
        Tokenizer(metadata)


def test_model_without_supported_tokenizer_still_loads(tiny_gguf):
    model = load_model(tiny_gguf(claims={"tokenizer.ggml.model": "llama"}))
    with pytest.raises(ValueError, match="tokenizer model 'llama'"):
        model.tokenizer  # noqa: B018


def test_bad_text_and_ids_are_refused(metadata):
    tokenizer = Tokenizer(metadata)
    with pytest.raises(ValueError, match="position 2: surrogates not allowed"):
        tokenizer.encode("ab\ud800")
    with pytest.raises(TypeError, match="text is bytes, not str"):
        tokenizer.encode(b"ab")
    with pytest.raises(ValueError, match="token id 264 is not in 0 to 263"):
        tokenizer.decode([1, 264])
