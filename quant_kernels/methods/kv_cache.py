"""KIVI (Liu et al., arXiv 2402.02750): a KV cache in 2 or 4 bits, keys scaled per channel and values per token.

Keys have channels that are large for all tokens, so a scale per token would be set by them; values have none, and an
error in the value of one token stays with that token's weight. The newest tokens stay in float. Left out: the packed
cache itself (its error and its bytes are computed, no memory is saved) and fp16 scales (they count as such in bytes).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from ..models.llama import Config, Llama
from .affine import fake_quantize

SCALE_BITS = 32  # of a group: a scale and a minimum, 16 bits each


def quantize_per_channel(k: Tensor, bits: int = 2, group: int = 32) -> Tensor:
    """What is left of keys, (..., T, D): each channel is quantized over groups of `group` tokens.

    The last T % group tokens, which fill no group yet, stay as they are. Codes are asymmetric with a float minimum.
    """
    whole = k.shape[-2] // group * group
    if whole == 0:
        return k
    columns = k[..., :whole, :].transpose(-1, -2)  # (..., D, T')
    quantized = fake_quantize(columns, bits, per=group, exact_zero=False).transpose(-1, -2)  # (..., T', D)
    return torch.cat((quantized, k[..., whole:, :]), dim=-2)  # (..., T, D)


def quantize_per_token(v: Tensor, bits: int = 2, group: int = 32) -> Tensor:
    """What is left of values, (..., T, D): each token is quantized in groups of `group` channels, at most D."""
    return fake_quantize(v, bits, per=min(group, v.shape[-1]), exact_zero=False)


AXES = {"channel": quantize_per_channel, "token": quantize_per_token}


@contextmanager
def quantized_cache(
    model: Llama, bits: int = 2, group: int = 32, window: int = 32, *, keys: str = "channel", values: str = "token"
) -> Iterator[Llama]:
    """The model attends to a quantized cache until the `with` block ends: its perplexity there is that of the cache.

    Each query sees keys and values as they are at its own step: what is within `window` tokens (its own is the first
    of them) in float, what is older quantized; of keys and values per channel, whole groups of tokens at a time.
    Keys are quantized after RoPE, as they are cached. keys, values: "channel" or "token", the axis along which scales
    differ. Raises ValueError for another axis, a group below 1 or a window below 0.
    """
    if keys not in AXES or values not in AXES:
        raise ValueError(f"keys and values are quantized per {keys!r} and {values!r}, not per 'channel' or 'token'")
    if group < 1 or window < 0:
        raise ValueError(f"group is {group} and window {window}, not at least 1 and at least 0")
    attend = partial(attend_to_cache, bits=bits, group=group, window=window, keys=keys, values=values)
    try:
        for block in model.blk:
            block.attend = attend
        yield model
    finally:
        for block in model.blk:
            del block.attend


def attend_to_cache(
    q: Tensor, k: Tensor, v: Tensor, *, bits: int, group: int, window: int, keys: str, values: str
) -> Tensor:
    """Causal attention, q (B, H, T, D), k and v (B, K, T, D), in which old tokens are quantized; (B, H, T, D)."""
    repeats = q.shape[1] // k.shape[1]
    k, v, old_k, old_v = (
        x.repeat_interleave(repeats, dim=1)
        for x in (k, v, AXES[keys](k, bits, group), AXES[values](v, bits, group))  # (B, H, T, D) each
    )
    n = q.shape[-2]
    old_keys = is_old(n, window, group if keys == "channel" else 1).to(q.device)  # (T, T)
    old_values = is_old(n, window, group if values == "channel" else 1).to(q.device)
    scores = torch.where(old_keys, q @ old_k.transpose(-1, -2), q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
    later = torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1)
    weights = scores.masked_fill(later, -math.inf).softmax(-1)  # (B, H, T, T)
    return weights * old_values @ old_v + weights * ~old_values @ v


def is_old(n: int, window: int, group: int) -> Tensor:
    """Whether query i, a row, finds key j, a column, quantized: bool (n, n).

    That is so once all tokens of j's group have left the window of i.

    >>> is_old(4, window=1, group=2).int().tolist()
    [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    """
    token = torch.arange(n)
    last = token // group * group + group - 1  # the last token of the group
    return last <= token[:, None] - window


def cache_bytes(config: Config, tokens: int, bits: int = 16, group: int = 32, window: int = 0) -> int:
    """The bytes that the keys and values of `tokens` tokens take, all layers together.

    bits: 16, or 2 to 8 with an fp16 scale and minimum for each group of `group` values. window: the newest tokens,
    which stay in 16 bits.

    >>> llama_2_7b = Config(32, 32, 32, 4096, 11008, 4096, 32000, head_dim=128)
    >>> cache_bytes(llama_2_7b, 1) / 1024, cache_bytes(llama_2_7b, 4096) / 2**30  # KiB, GiB
    (512.0, 2.0)
    >>> cache_bytes(llama_2_7b, 4096, bits=2, group=32, window=128) / cache_bytes(llama_2_7b, 4096)
    0.212890625
    """
    if bits != 16 and bits not in range(2, 9):
        raise ValueError(f"bits is {bits!r}, neither 16 nor from 2 to 8")
    values_per_token = 2 * config.n_layer * config.n_head_kv * config.head_dim
    old = max(tokens - window, 0) if bits != 16 else 0
    return math.ceil(values_per_token * (old * (bits + SCALE_BITS / group) + (tokens - old) * 16) / 8)
