"""A quantized KV cache: which axis, which tokens, how many bytes."""

import pytest
import torch

from quant_kernels.measures.errors import relative_rmse
from quant_kernels.methods.affine import fake_quantize
from quant_kernels.methods.kv_cache import (
    attend_to_cache,
    cache_bytes,
    quantize_per_channel,
    quantize_per_token,
    quantized_cache,
)
from quant_kernels.models.gguf_file import load_model
from quant_kernels.models.llama import Config

KIVI = {"keys": "channel", "values": "token"}


@pytest.fixture(scope="module")
def cache():
    """q (2, 4, 24, 16), keys with a large channel and values without, both (2, 2, 24, 16)."""
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 24, 16, generator=random) for heads in (4, 2, 2))
    k[..., 3] = 20 + k[..., 3]
    return q, k, v


def test_a_channel_that_is_large_for_all_tokens_wants_its_own_scale(cache):
    _, k, v = cache
    per_channel, per_token = quantize_per_channel(k, 4, 8), quantize_per_token(k, 4, 16)
    assert relative_rmse(k, per_channel) < relative_rmse(k, per_token) / 3
    others = [0, 1, 2, *range(4, 16)]
    assert relative_rmse(k[..., others], per_token[..., others]) > 0.3  # 1.4 steps wide: nearly nothing is left
    # values have no such channel: what counts is that both ways are alike
    assert relative_rmse(v, quantize_per_channel(v, 4, 8)) == pytest.approx(
        relative_rmse(v, quantize_per_token(v, 4, 8)), rel=0.05
    )


def test_worked_by_hand():
    k = torch.tensor([[0.0, 10.0], [3.0, 40.0], [1.0, 20.0], [7.0, 7.0]])  # 4 tokens, 2 channels
    expected = [[0.0, 10.0], [3.0, 40.0], [1.0, 20.0], [7.0, 7.0]]
    assert quantize_per_channel(k, 2, 3).tolist() == expected  # 0, 1, 2, 3 times 1, and 10 plus 0 to 3 times 10
    assert quantize_per_token(k, 2, 2)[2].tolist() == [1.0, 20.0]  # least and largest of each token are exact


def test_tokens_that_fill_no_group_stay(cache):
    _, k, _ = cache
    q = quantize_per_channel(k, 2, 10)
    assert torch.equal(q[..., 20:, :], k[..., 20:, :]) and not torch.equal(q[..., :20, :], k[..., :20, :])
    assert torch.equal(quantize_per_channel(k, 2, 25), k)


def test_a_token_is_quantized_without_the_others(cache):
    _, _, v = cache
    torch.testing.assert_close(quantize_per_token(v, 2, 8)[:, :, 5], quantize_per_token(v[:, :, 5], 2, 8))


@pytest.mark.parametrize("window", [0, 1, 5, 30])
def test_against_one_query_at_a_time(cache, window):
    # a decoder that keeps a cache: it quantizes whole groups of keys, and values one by one, once they left the window
    q, k, v = cache
    group, bits = 4, 2
    y = attend_to_cache(q, k, v, bits=bits, group=group, window=window, **KIVI)
    for t in range(24):
        old = max(t + 1 - window, 0)  # tokens that have left
        whole = old // group * group
        keys = torch.cat([quantize_per_channel(k[:, :, :whole], bits, group), k[:, :, whole : t + 1]], dim=2)
        values = [quantize_per_token(v[:, :, :old], bits, group)] if old else []
        values = torch.cat([*values, v[:, :, old : t + 1]], dim=2)
        keys, values = keys.repeat_interleave(2, dim=1), values.repeat_interleave(2, dim=1)
        weights = (q[:, :, t : t + 1] @ keys.transpose(-1, -2) / 4).softmax(-1)
        torch.testing.assert_close(y[:, :, t : t + 1], weights @ values)


def test_a_window_over_all_is_plain_attention(tiny, tokens):
    logits = tiny(tokens)
    with quantized_cache(tiny, bits=2, window=32) as model:
        torch.testing.assert_close(model(tokens), logits, rtol=1e-4, atol=1e-4)


def test_more_bits_and_a_window_help(tiny, tokens):
    logits = tiny(tokens)

    def error(**options):
        with quantized_cache(tiny, group=8, **options) as model:
            return relative_rmse(logits, model(tokens))

    assert error(bits=8, window=0) < error(bits=4, window=0) / 4 < error(bits=2, window=0) / 8
    assert error(bits=2, window=16) < error(bits=2, window=0)


def test_keys_with_a_large_channel_break_per_token(tiny_gguf, tokens):
    def change(tensors):
        # attn_k of a large gain in the pair of channels whose angle turns least, which RoPE leaves nearly alone
        tensors["blk.0.attn_k.weight"][[14, 15, 30, 31]] *= 12
        tensors["blk.0.attn_q.weight"][[14, 15, 30, 31, 46, 47, 62, 63]] /= 12

    model = load_model(tiny_gguf(change=change))
    logits, errors = model(tokens), {}
    for keys in ("channel", "token"):
        with quantized_cache(model, bits=4, group=16, window=0, keys=keys):
            errors[keys] = relative_rmse(logits, model(tokens))
    assert errors["channel"] < errors["token"] / 1.5


def test_the_model_is_as_before_even_after_an_error(tiny, tokens):
    logits = tiny(tokens)
    with pytest.raises(RuntimeError, match="stop"), quantized_cache(tiny, window=0) as model:
        assert not torch.allclose(model(tokens), logits)
        raise RuntimeError("stop")
    assert torch.equal(tiny(tokens), logits)


def test_bytes():
    llama_2_7b = Config(32, 32, 32, 4096, 11008, 4096, 32000, head_dim=128)
    llama_3_8b = Config(32, 32, 8, 4096, 14336, 8192, 128256, head_dim=128)
    assert cache_bytes(llama_2_7b, 2048) == 2**30 and cache_bytes(llama_3_8b, 2048) == 2**28
    # 4 bits, and 32 for each 32 values: 5 bits instead of 16
    assert cache_bytes(llama_2_7b, 2048, bits=4) == 2**30 * 5 // 16
    assert cache_bytes(llama_2_7b, 100, bits=4, window=128) == cache_bytes(llama_2_7b, 100)
    with pytest.raises(ValueError, match="bits is 1, neither 16 nor from 2 to 8"):
        cache_bytes(llama_2_7b, 1, bits=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": "row"}, "keys and values are quantized per 'row' and 'token'"),
        ({"group": 0}, "group is 0 and window 32, not at least 1 and at least 0"),
        ({"window": -1}, "group is 32 and window -1"),
        ({"bits": 1, "window": 0}, "bits is 1"),
        ({"group": 5, "window": 0}, "last dimension 16 is not a multiple of the group size 5"),
    ],
)
def test_refused(tiny, tokens, options, message):
    with pytest.raises(ValueError, match=message), quantized_cache(tiny, **options) as model:
        model(tokens)
    assert "attend" not in tiny.blk[0].__dict__


def test_float_minimum(cache):
    # With an integer zero point the range would have to hold 0, and a channel around 20 would lose its codes to it.
    _, k, _ = cache
    channel = k[..., 3].transpose(-1, -2).contiguous()
    exact_zero = relative_rmse(channel, fake_quantize(channel, 2, per="row"))
    assert relative_rmse(k[..., 3], quantize_per_channel(k, 2, 24)[..., 3]) < exact_zero / 2
