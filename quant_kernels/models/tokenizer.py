"""The byte-level BPE tokenizer that a GGUF carries, with llama.cpp's ids.

Left out: SentencePiece, WordPiece and Unigram vocabularies, and special tokens written in the text
(`<|im_start|>` is twelve characters here, as in llama.cpp with parse_special = false). The digits that Unicode 16
added (Garay, Sunuwar and other scripts) count as digits here, which llama.cpp's older tables do not know.
"""

from collections.abc import Iterable, Mapping, Sequence

NORMAL_CONTRACTION = "'s|'t|'re|'ve|'m|'ll|'d"
ANY_CASE_CONTRACTION = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
SPACES = r"\s+(?!\S)|\s+"  # a run of spaces leaves its last one to the word that follows
GPT2 = NORMAL_CONTRACTION + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|" + SPACES
GPT4 = ANY_CASE_CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|" + SPACES

# tokenizer.ggml.pre: the patterns that cut a text into words, each applied to the pieces that the one before left
PATTERNS = {
    "smollm": (r"\p{N}", GPT2),
    "starcoder": (r"\p{N}", GPT2),
    "gpt-2": (GPT2,),
    "llama-bpe": (GPT4.replace("DIGITS", r"\p{N}{1,3}"),),
    "qwen2": (GPT4.replace("DIGITS", r"\p{N}"),),
}
WHOLE_WORDS_FIRST = {"llama-bpe"}  # a word that is in the vocabulary is taken without merging
BOS_BY_DEFAULT = {"llama-bpe"}  # where the file has no tokenizer.ggml.add_bos_token
USER_DEFINED = 4  # token type: found in a text even where special tokens are not


class Tokenizer:
    """Text to ids and back, from the `tokenizer.ggml.*` entries of a GGUF's metadata.

    metadata: key to value. Raises ValueError for a tokenizer model or a pre-tokenizer that is not supported,
    and for a vocabulary that contradicts itself.
    """

    def __init__(self, metadata: Mapping[str, object]):
        self.pre = supported_pre_tokenizer(metadata)
        self.tokens: Sequence[str] = required(metadata, "tokenizer.ggml.tokens")
        self.bos_id = leading_bos(metadata)
        merges = required(metadata, "tokenizer.ggml.merges")
        self._tokenizer = build(self.pre, self.tokens, merges, user_defined(metadata, self.tokens))

    def encode(self, text: str, add_special: bool = False) -> list[int]:
        """Returns the text's token ids; with add_special, behind the BOS if the GGUF asks for one."""
        if not isinstance(text, str):
            raise TypeError(f"text is {type(text).__name__}, not str")
        text.encode()  # half a surrogate pair raises its ValueError here; the library would call the text no str
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        ids = [i for i in ids if i < len(self.tokens)]
        return [self.bos_id, *ids] if add_special and self.bos_id is not None else ids

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of the ids; bytes that are not UTF-8 become U+FFFD."""
        ids = list(ids)
        for i in ids:
            if not 0 <= i < len(self.tokens):
                raise ValueError(f"token id {i} is not in 0 to {len(self.tokens) - 1}")
        return self._tokenizer.decode(ids, skip_special_tokens=False)


def supported_pre_tokenizer(metadata: Mapping[str, object]) -> str:
    model, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if model != "gpt2":
        raise ValueError(f"tokenizer model {model!r} is not supported, only byte-level BPE ('gpt2')")
    if pre not in PATTERNS:
        raise ValueError(f"pre-tokenizer {pre!r} is not supported, only {', '.join(sorted(PATTERNS))}")
    return pre


def leading_bos(metadata: Mapping[str, object]) -> int | None:
    """The id that opens every text, or None; what the file does not say, its pre-tokenizer decides."""
    default = metadata.get("tokenizer.ggml.pre") in BOS_BY_DEFAULT
    if not metadata.get("tokenizer.ggml.add_bos_token", default):
        return None
    return required(metadata, "tokenizer.ggml.bos_token_id")


def user_defined(metadata: Mapping[str, object], tokens: Sequence[str]) -> list[str]:
    types = metadata.get("tokenizer.ggml.token_type") or []
    return [token for token, kind in zip(tokens, types, strict=False) if kind == USER_DEFINED]


def required(metadata: Mapping[str, object], key: str):
    if key not in metadata:
        raise ValueError(f"the file lacks {key}")
    return metadata[key]


def build(pre: str, tokens: Sequence[str], merges: Sequence[str], user_defined: Sequence[str]):
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: i for i, token in enumerate(tokens)}
    # A byte without a token stands between its neighbours until merging is over (encode drops it then):
    # the library would drop it before, and merge across the gap.
    absent = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - vocabulary.keys())
    vocabulary |= {byte: len(tokens) + i for i, byte in enumerate(absent)}
    try:
        model = models.BPE(vocabulary, [split_merge(m) for m in merges], ignore_merges=pre in WHOLE_WORDS_FIRST)
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"the vocabulary cannot be used: {error}") from error
    tokenizer = Tokenizer(model)
    words = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PATTERNS[pre]]
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*words, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in user_defined])
    return tokenizer


def split_merge(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right
