"""Rooflines: published bounds, sums made by hand, and agreement with the model that is counted."""

import dataclasses

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from quant_kernels.hardware import HARDWARE, Hardware
from quant_kernels.models.gguf_file import load_model
from quant_kernels.models.plan_mix import plan_mix
from quant_kernels.models.shapes import ARCHITECTURES, llama_shapes
from quant_kernels.roofline import (
    Bound,
    attainable,
    audit,
    bits_per_number,
    bound,
    cost_per_million_tokens,
    decode,
    kv_bytes,
    max_batch,
    max_context,
    memory_needed,
    prefill,
    ridge_batch,
    streaming_bound,
    traffic,
    weight_bytes,
)

GIB = 2**30
LLAMA_2_7B, LLAMA_31_8B = ARCHITECTURES["Llama-2-7B"], ARCHITECTURES["Llama-3.1-8B"]
A100, H100, RTX_4090 = HARDWARE["A100 80GB SXM"], HARDWARE["H100 SXM"], HARDWARE["RTX 4090"]
DESKTOP = HARDWARE["Core i9-13900K, DDR5-5600"]


# Decode of one sequence: the file's size over the bandwidth


@pytest.mark.parametrize(
    ("gigabytes", "device", "expected"),
    [
        (13.48, "RTX 4090", 74.8),
        (4.08, "RTX 4090", 247.1),
        (3.30, "RTX 4090", 305.5),
        (3.83, "A100 80GB SXM", 532.4),
        (3.83, "H100 SXM", 874.7),
        (3.83, "M2 Max", 104.4),
        (3.83, "Core i9-13900K, DDR5-5600", 23.4),
    ],
)
def test_bounds_of_llama_2_7b_files(gigabytes, device, expected):
    step = streaming_bound(gigabytes * 1e9, HARDWARE[device])
    assert round(step.tokens_per_second, 1) == expected and step.binds == "memory"


def test_decode_reads_all_but_the_embedding_matrix_which_is_only_looked_up():
    step = traffic(LLAMA_2_7B)
    assert step.weights == 2 * (6_738_415_616 - 32000 * 4096)
    by_file = streaming_bound(weight_bytes(LLAMA_2_7B), RTX_4090).tokens_per_second
    exact = decode(LLAMA_2_7B, RTX_4090).tokens_per_second
    assert round(by_file, 1) == 74.8 and round(exact, 1) == 76.3
    tied = ARCHITECTURES["SmolLM2-135M"]
    assert traffic(tied).weights == weight_bytes(tied)


def test_a_4_bit_file_is_at_best_three_times_as_fast_as_16_bits():
    speeds = [decode(LLAMA_2_7B, RTX_4090, weights=bits).tokens_per_second for bits in (16, 4.844)]
    assert speeds[1] / speeds[0] == pytest.approx(16 / 4.844, rel=1e-3)


# Claims


def test_an_impossible_claim_and_a_poor_one():
    impossible = audit(28, streaming_bound(3.83e9, DESKTOP))
    assert not impossible.possible and impossible.share == pytest.approx(1.197, abs=1e-3)
    faster_memory = Hardware("DDR5-6400", 102.4e9)
    assert not audit(28, streaming_bound(3.83e9, faster_memory)).possible
    assert audit(20.5, streaming_bound(3.83e9, DESKTOP)).possible
    poor = audit(28, streaming_bound(13.48e9, RTX_4090))
    assert poor.possible and round(poor.share, 2) == 0.37 and round(poor.bytes_per_second / 1e9) == 377
    assert str(poor) == "28 tokens/s is possible: 37% of the 74.78 tokens/s that memory allows, 377.4 GB/s"


def test_a_claim_at_the_bound_is_possible():
    limit = streaming_bound(1e9, Hardware("round", 100e9))
    assert audit(100, limit).possible and not audit(100.1, limit).possible


# Batches


@pytest.mark.parametrize(
    ("device", "bits", "expected"), [(A100, 16, 153), (H100, 16, 295), (A100, 4.5, 43), (H100, 4.5, 83)]
)
def test_ridge_batches(device, bits, expected):
    assert round(ridge_batch(device, bits)) == expected


def test_a_matrix_becomes_compute_bound_at_the_ridge_batch():
    one_matrix = dataclasses.replace(traffic(LLAMA_2_7B), kv_written=0.0, attention_operations=0.0)
    ridge = ridge_batch(A100)
    per_sequence = one_matrix.matrix_operations

    def at(batch):
        return bound(dataclasses.replace(one_matrix, matrix_operations=batch * per_sequence), A100)

    assert at(0.99 * ridge).binds == "memory" and at(1.01 * ridge).binds == "compute"


def test_quantized_weights_help_small_batches_only():
    def gain(batch):
        q4, f16 = (decode(LLAMA_2_7B, A100, weights=bits, batch=batch).tokens_per_second for bits in ("Q4_K", "F16"))
        return q4 / f16

    assert gain(1) == pytest.approx(16 / 4.5, rel=1e-3)
    assert gain(512) == pytest.approx(1)


def test_int8_arithmetic_moves_the_roof_not_the_memory():
    def seconds(batch, arithmetic):
        return decode(LLAMA_2_7B, A100, weights=8, arithmetic=arithmetic, batch=batch).seconds

    assert seconds(1, "FP16") == seconds(1, "INT8")
    assert seconds(1024, "FP16") == 2 * seconds(1024, "INT8")
    with pytest.raises(ValueError, match="H100 SXM has no INT4 matrix instruction"):
        decode(LLAMA_2_7B, H100, weights=4, arithmetic="INT4")


def test_prefill_is_bound_by_arithmetic_and_decode_by_memory():
    assert prefill(LLAMA_2_7B, A100, 2048).binds == "compute"
    assert decode(LLAMA_2_7B, A100, context=2048).binds == "memory"
    assert decode(LLAMA_2_7B, HARDWARE["M2 Max"], arithmetic=None).compute_seconds == 0


def test_the_roof():
    ridge = A100.peak("FP16") / A100.bandwidth
    assert attainable(ridge / 2, A100) == A100.peak("FP16") / 2
    assert attainable(ridge * 2, A100) == A100.peak("FP16")
    step = decode(LLAMA_2_7B, A100, batch=8, context=512)
    assert step.operations_per_second == pytest.approx(attainable(step.intensity, A100))


# Bytes and operations


def test_kv_cache_of_llama_2_7b():
    assert kv_bytes(LLAMA_2_7B) == 512 * 1024
    assert [kv_bytes(LLAMA_2_7B, tokens) / GIB for tokens in (2048, 4096)] == [1, 2]
    assert kv_bytes(LLAMA_31_8B) == kv_bytes(LLAMA_2_7B) / 4  # 8 key-value heads of 32
    assert kv_bytes(LLAMA_2_7B, kv="Q8_0") == kv_bytes(LLAMA_2_7B) * 8.5 / 16
    assert kv_bytes(LLAMA_2_7B, 100, batch=3, kv="FP8") == 150 * kv_bytes(LLAMA_2_7B)


def test_activations_are_nothing_in_decode_and_much_in_prefill():
    decoded, read = traffic(LLAMA_2_7B), traffic(LLAMA_2_7B, tokens=2048)
    assert decoded.activations / decoded.bytes < 0.001
    assert read.activations == 2048 * decoded.activations > 0.5 * read.weights
    assert traffic(LLAMA_2_7B, activations="INT8").activations == decoded.activations / 2


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (3, 7)])
def test_operations_are_those_that_torch_counts(tiny_gguf, tied, batch, tokens):
    model = load_model(tiny_gguf(tied=tied))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(torch.zeros(batch, tokens, dtype=torch.long))
    step = traffic(model.config, batch=batch, tokens=tokens)
    everywhere = 2 * batch * (tokens - 1) * model.config.vocab * model.config.n_embd  # this model's logits
    attention = 4 * batch * tokens**2 * model.config.n_layer * model.config.n_head * model.config.head_dim
    assert step.matrix_operations + everywhere + attention == counter.get_total_flops()
    assert step.attention_operations == attention * (tokens + 1) / (2 * tokens)  # causal: half of it, with the diagonal


def test_weights_are_those_of_the_model(tiny_gguf):
    model = load_model(tiny_gguf())
    expected = sum(parameter.numel() for name, parameter in model.named_parameters() if name != "rope_freqs.weight")
    assert weight_bytes(model.config, "FP32") == 4 * expected


def test_attention_grows_with_the_context():
    near, far = traffic(LLAMA_2_7B, batch=2, context=99), traffic(LLAMA_2_7B, batch=2, context=199)
    assert far.attention_operations == 2 * near.attention_operations == 2 * 4 * 2 * 100 * 32 * 4096
    assert far.kv_read - near.kv_read == kv_bytes(LLAMA_2_7B, 100, batch=2)
    assert far.kv_written == near.kv_written == kv_bytes(LLAMA_2_7B, 1, batch=2)


def test_a_prompt_in_parts_is_the_prompt():
    whole = traffic(LLAMA_2_7B, tokens=300)
    parts = [traffic(LLAMA_2_7B, tokens=100, context=context) for context in (0, 100, 200)]
    assert sum(part.attention_operations for part in parts) == whole.attention_operations
    assert sum(part.kv_written for part in parts) == whole.kv_written


def test_a_plan_gives_the_exact_bytes():
    plan = plan_mix(llama_shapes(LLAMA_31_8B), "Q4_K_M", **LLAMA_31_8B.heads)
    assert weight_bytes(LLAMA_31_8B, plan.types()) == plan.n_bytes
    embedding = plan.tensors["token_embd.weight"].n_bytes
    assert traffic(LLAMA_31_8B, weights=plan.types()).weights == plan.n_bytes - embedding
    types = plan.types() | {"blk.99.attn_q.weight": "Q4_K"}
    with pytest.raises(ValueError, match=r"blk\.99\.attn_q\.weight is not in the model"):
        weight_bytes(LLAMA_31_8B, types)
    with pytest.raises(ValueError, match=r"output_norm\.weight is in the model alone"):
        weight_bytes(LLAMA_31_8B, {name: kind for name, kind in plan.types().items() if name != "output_norm.weight"})


def test_experts_are_read_as_far_as_the_batch_meets_them():
    mixtral = ARCHITECTURES["Mixtral-8x7B"]
    one, many = traffic(mixtral), traffic(mixtral, batch=64)
    dense = traffic(dataclasses.replace(mixtral, n_expert=0, n_expert_used=0))
    router, expert = 2 * 32 * 8 * 4096, 2 * 32 * 3 * 4096 * 14336
    assert one.weights == dense.weights + router + expert  # two experts of eight
    assert many.weights == pytest.approx(dense.weights + router + 7 * expert)  # practically all eight
    assert one.matrix_operations == dense.matrix_operations + router + expert


# Memory and money


def test_what_fits():
    assert memory_needed(LLAMA_2_7B, 2048) == weight_bytes(LLAMA_2_7B) + GIB
    batch = max_batch(LLAMA_31_8B, 24e9, 8192, weights="Q4_K", other=1e9)
    assert memory_needed(LLAMA_31_8B, 8192, batch, weights="Q4_K", other=1e9) <= 24e9
    assert memory_needed(LLAMA_31_8B, 8192, batch + 1, weights="Q4_K", other=1e9) > 24e9
    context = max_context(LLAMA_31_8B, 24e9, batch=4, kv="Q8_0")
    assert memory_needed(LLAMA_31_8B, context, 4, kv="Q8_0") <= 24e9
    assert memory_needed(LLAMA_31_8B, context + 1, 4, kv="Q8_0") > 24e9


def test_weights_that_do_not_fit_leave_room_for_nothing():
    llama_70b = ARCHITECTURES["Llama-3.1-70B"]
    assert max_batch(llama_70b, 80e9, 1024) == max_context(llama_70b, 80e9) == 0
    assert max_batch(llama_70b, 80e9, 1024, weights="Q4_K") > 0


def test_cost():
    assert cost_per_million_tokens(2.0, 1000) == pytest.approx(2 / 3.6)
    assert cost_per_million_tokens(2.0, 1000, 0.25) == 4 * cost_per_million_tokens(2.0, 1000)
    assert cost_per_million_tokens(0, 1) == 0
    with pytest.raises(ValueError, match="the price per hour is -1, below 0"):
        cost_per_million_tokens(-1, 1000)
    with pytest.raises(ValueError, match=r"the utilisation is 1\.5, not above 0 and at most 1"):
        cost_per_million_tokens(1, 1000, 1.5)
    with pytest.raises(ValueError, match="tokens per second is 0, not above 0"):
        cost_per_million_tokens(1, 0)


# What is refused


def test_formats():
    assert [bits_per_number(bits) for bits in ("FP16", "BF16", "F32", "Q8_0", "IQ2_XXS", 3)] == [
        16,
        16,
        32,
        8.5,
        2.0625,
        3,
    ]
    with pytest.raises(ValueError, match=r"'Q4_K_M' is neither a number format .* nor a block format of ggml"):
        bits_per_number("Q4_K_M")
    with pytest.raises(ValueError, match="bits per number is 0, not above 0"):
        decode(LLAMA_2_7B, A100, weights=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch is 0, not a whole number from 1 on"),
        ({"tokens": 1.5}, "tokens is 1.5, not a whole number from 1 on"),
        ({"context": -1}, "context is -1, not a whole number from 0 on"),
    ],
)
def test_counts_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        traffic(LLAMA_2_7B, **options)


def test_a_bound_takes_the_longer_of_both_times():
    assert Bound(4, 1.0, 1.0, 2.0, 1.0).tokens_per_second == 2
    assert Bound(4, 1.0, 1.0, 1.0, 2.0).binds == "compute"
    with pytest.raises(ValueError, match="bytes per token is 0, not above 0"):
        streaming_bound(0, A100)
