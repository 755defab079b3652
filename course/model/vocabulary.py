"""The course model's vocabulary: byte-level BPE, trained on its own text, in the form that a GGUF keeps it in."""

from __future__ import annotations

import json
from collections.abc import Sequence

from quant_kernels.models.tokenizer import PATTERNS

PRE_TOKENIZER = "qwen2"
END_OF_TEXT, END_OF_TEXT_ID = "<|endoftext|>", 0  # stands behind every document
NORMAL, CONTROL = 1, 3  # token types


def train_vocabulary(texts: Sequence[str], size: int) -> dict[str, object]:
    """Returns the `tokenizer.ggml.*` entries of a vocabulary of `size` tokens, END_OF_TEXT included."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    words = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PATTERNS[PRE_TOKENIZER]]
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*words, bytes_])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": PRE_TOKENIZER,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL if token == END_OF_TEXT else NORMAL for token in tokens],
        "tokenizer.ggml.merges": merges_of(tokenizer),
        "tokenizer.ggml.bos_token_id": END_OF_TEXT_ID,
        "tokenizer.ggml.eos_token_id": END_OF_TEXT_ID,
        "tokenizer.ggml.add_bos_token": False,
    }


def merges_of(tokenizer) -> list[str]:
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [" ".join(pair) for pair in merges]
