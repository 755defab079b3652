"""Token ids, against llama.cpp's."""

import hashlib
import pydoc_data.topics

import pytest

from quant_kernels.models.gguf_file import load_model
from quant_kernels.models.tokenizer import Tokenizer

# SmolLM2's ids as printed by llama-tokenize --no-parse-special --no-bos --no-escape (llama.cpp 0c1e57098, as in the
# sdist of llama-cpp-python 0.3.36)
LLAMA_CPP = [
    ("Hello world", [19556, 905]),
    (" 3.14159 and 1,000,000", [216, 35, 30, 33, 36, 33, 37, 41, 284, 216, 33, 28, 32, 32, 32, 28, 32, 32, 32]),
    ("It's we've I'LL don't", [1589, 506, 392, 3543, 339, 23, 16421, 1326, 982]),
    ("  two   spaces \n\n\tand tabs\t\t\n ", [216, 827, 256, 5600, 38028, 197, 397, 29416, 1656, 3805]),
    ("a\r\nb\r\r\nc", [81, 201, 198, 82, 201, 201, 198, 83]),
    (
        "def f(x):\n    return x**2  # \xbd \xb2 \u0663\n",
        [1604, 275, 24, 104, 727, 472, 1003, 1792, 828, 34, 216, 907, 216, 16738, 216, 19133, 216, 164, 113, 198],
    ),
    (
        "na\xefve G\xf6ttingen \u0152UVRE \u01c4",
        [3546, 46494, 32427, 100, 862, 264, 18811, 236, 19539, 3256, 216, 146, 222],
    ),
    (
        "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3001\u4e2d\u6587\u3002\ud55c\uad6d\uc5b4",
        [
            23274,
            115,
            40993,
            179,
            120,
            248,
            26453,
            11100,
            224,
            10391,
            251,
            10391,
            134,
            11100,
            226,
            29917,
            28589,
            29184,
            19076,
            33085,
            246,
            181,
            130,
            251,
            183,
            240,
            129,
        ],
    ),
    (
        "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f3f4\u200d\u2620\ufe0f \xe9",
        [
            10813,
            235,
            119,
            321,
            231,
            10813,
            235,
            119,
            321,
            231,
            10813,
            235,
            117,
            15107,
            233,
            129,
            321,
            231,
            173,
            242,
            250,
            31752,
            26411,
        ],
    ),
    ("\u200b\xa0\u3000x\u2028y", [321, 229, 15442, 12109, 218, 104, 321, 118, 105]),
    (
        "<|im_start|>user\n<|endoftext|>",
        [44, 108, 306, 79, 3738, 108, 46, 4093, 198, 44, 108, 486, 1714, 2692, 108, 46],
    ),
    ("!\x04! !!\x14!!", [17, 17, 5728, 17, 10095]),
    ("\x00\x1f\x7f", [190, 215, 217]),
    (
        "\U0001d518\U0001d52b\U0001d526 \U00013000 \U0010ffff",
        [23159, 238, 242, 23159, 238, 121, 23159, 238, 116, 216, 187, 237, 218, 218, 216, 189, 233, 140, 140],
    ),
    (
        "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22",
        [
            21706,
            20602,
            44626,
            31462,
            10805,
            12960,
            119,
            31838,
            23970,
            162,
            247,
            12335,
            134,
            27011,
            30658,
            16525,
            44757,
            37189,
            216,
            31933,
            222,
            10283,
            241,
            10283,
            112,
        ],
    ),
    ("", []),
]
LIGHTHOUSE_SHA256 = "0df691a51163b1bb442811f36c06b583a42f8a4459f33bb1ae1d629257826172"  # of str(ids), same origin

# The tokens of BORDERS, by the same tool, with a vocabulary that would merge across the words' borders if it could
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
    with pytest.raises(ValueError, match="character 2 of the text is half of a surrogate pair"):
        tokenizer.encode("ab\ud800")
    with pytest.raises(ValueError, match="token id 264 is not in 0 to 263"):
        tokenizer.decode([1, 264])
