"""The K-quants against ggml's bytes, the gguf package, scales packed by hand, and what holds of any weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import quant_kernels as qk
from quant_kernels import qtypes
from quant_kernels.formats.bits import bit_fields, from_half_bytes
from quant_kernels.formats.k_bits import (
    pack_crumbs,
    pack_planes,
    pack_scales,
    pack_scales_and_mins,
    unpack_crumbs,
    unpack_scales,
    unpack_scales_and_mins,
)

GOLDEN = Path(__file__).parents[1] / "golden"
MINIMUM, SYMMETRIC = ["Q2_K", "Q4_K", "Q5_K"], ["Q3_K", "Q6_K"]
K_QUANTS = sorted(MINIMUM + SYMMETRIC)
LEVELS = {"Q2_K": range(4), "Q3_K": range(-4, 4), "Q4_K": range(16), "Q5_K": range(32), "Q6_K": range(-32, 32)}

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=15, deadline=None)


def random_blocks(seed):
    """Heavy-tailed weights (3, 512) of other magnitudes in each sub-block, and importances (512,).

    The first weight of a block is large enough for scales far from the denormals of fp16.
    """
    rng = np.random.default_rng(seed)
    x = rng.standard_t(3, (3, 32, 16)) * 10.0 ** rng.uniform(-3, 1, (3, 32, 1))
    x[:, ::16, :2] = [500.0, -400.0]
    return torch.from_numpy(x.reshape(3, 512).astype(np.float32)), torch.from_numpy(rng.chisquare(1, 512)).float()


def fields(data, qtype):
    """The fields of ggml's struct by name, (n_blocks, bytes) each."""
    layout = qk.QTYPES[qtype]
    return dict(zip(layout.fields, layout.split(data.reshape(-1, layout.type_size)), strict=True))


def stored_steps(data, qtype):
    """The scale and what is added, of each sub-block: (n_blocks, n_sub) each."""
    layout = qk.QTYPES[qtype]
    step, offset = layout.steps(data.view(-1, layout.type_size))
    return step, torch.zeros_like(step) if offset is None else offset


# ggml


@pytest.mark.parametrize("importance", ["", "typical", "extreme"])
@pytest.mark.parametrize("qtype", K_QUANTS)
def test_bytes_equal_ggml(qtype, importance):
    cases, golden = np.load(GOLDEN / "cases.npz"), np.load(GOLDEN / f"{qtype}.npz")
    kinds = [name.partition("/")[0] for name in golden if name.partition("/")[2] == importance]
    assert len(kinds) >= 28, "a golden file has lost its cases"
    for n in (256, 4096):  # all cases of a length at once
        of_length = [kind for kind in kinds if cases[kind].shape[1] == n]
        x = torch.from_numpy(np.concatenate([cases[kind] for kind in of_length]))
        expected = np.concatenate([golden[f"{kind}/{importance}" if importance else kind] for kind in of_length])
        weights = torch.from_numpy(cases[f"{importance}-{n}"]) if importance else None
        wrong = (qk.quantize(x, qtype, weights).numpy() != expected).any(-1)
        names = np.repeat(of_length, [len(cases[kind]) for kind in of_length])
        assert not wrong.any(), f"rows that differ: {names[wrong]}"


def test_golden_cases_reach_the_traps():
    """Guards against golden data that no longer hold what they were chosen for."""
    golden = {qtype: dict(np.load(GOLDEN / f"{qtype}.npz")) for qtype in K_QUANTS}
    for qtype in K_QUANTS:
        assert not golden[qtype]["zero"].any() and not golden[qtype]["negative_zero"].any(), "not one -0"
    assert golden["Q4_K"]["near_denormal"].any(), "the codes of the search stay where d is 0 in fp16,"
    assert not golden["Q4_K"]["near_denormal"][:, :4].any(), "as it is here"
    assert not golden["Q4_K"]["denormal"].any(), "1 / range is Inf, all codes are 0"
    assert not np.array_equal(golden["Q6_K"]["gauss"], golden["Q6_K"]["gauss/typical"])


# The gguf package


@pytest.mark.parametrize("qtype", K_QUANTS)
def test_dequantize_equals_gguf_on_any_bytes(check, qtype):
    data = np.random.default_rng(1).integers(0, 256, (400, qk.QTYPES[qtype].type_size), dtype=np.uint8)
    for field in qk.QTYPES[qtype].scales:
        fields(torch.from_numpy(data), qtype)[field][:, 1] &= 0xBF  # without fp16's top bit of the exponent: finite
    check.dequantize_as_gguf(data.reshape(20, -1), qtype)


@pytest.mark.parametrize("qtype", K_QUANTS)
def test_dequantize_equals_gguf_on_quantized_weights(check, qtype):
    x, importance = random_blocks(2)
    check.dequantize_as_gguf(qk.quantize(x, qtype).numpy(), qtype)
    check.dequantize_as_gguf(qk.quantize(x, qtype, importance).numpy(), qtype)


# By hand

SCALES = [1, 2, 3, 4, 63, 32, 16, 5]
MINS = [0, 63, 9, 10, 48, 1, 17, 63]
# The first four scales, above them bits 4 and 5 of the others: 0b111111, 0b100000, 0b010000, 0b000101
PACKED = [0b11_000001, 0b10_000010, 0b01_000011, 0b00_000100]
# The first four minima, above them those of 0b110000, 0b000001, 0b010001, 0b111111
PACKED += [0b11_000000, 0b00_111111, 0b01_001001, 0b11_001010]
# The lower four bits of the other minima and scales
PACKED += [0b0000_1111, 0b0001_0000, 0b0001_0000, 0b1111_0101]


def test_twelve_bytes_of_scales_and_minima_by_hand():
    scales, mins = torch.tensor([SCALES], dtype=torch.uint8), torch.tensor([MINS], dtype=torch.uint8)
    assert pack_scales_and_mins(scales, mins).tolist() == [PACKED]
    unpacked = unpack_scales_and_mins(torch.tensor([PACKED], dtype=torch.uint8))
    assert [codes.tolist() for codes in unpacked] == [[SCALES], [MINS]]


@pytest.mark.parametrize("importance", [None, torch.ones(256)])
def test_a_block_of_q4_k_by_hand(importance):
    q = torch.arange(16).repeat(2)
    x = torch.cat([scale * q - low for scale, low in zip(SCALES, MINS, strict=True)]).float()
    # d = 63 / 63 and dmin = 63 / 63 are 1, 0x3c00. Byte k of a quarter has code k in both halves: 0x00 to 0xff, twice.
    expected = [0x00, 0x3C, 0x00, 0x3C, *PACKED, *[0x11 * k for k in range(16)] * 8]
    assert qk.quantize(x, "Q4_K", importance).tolist() == expected
    assert torch.equal(qk.dequantize(torch.tensor(expected, dtype=torch.uint8), "Q4_K"), x)


def test_twelve_bytes_of_signed_scales_by_hand():
    scales = torch.tensor([[1, 18, 35, 52, 5, 6, 7, 8, 63, 0, 32, 16, 48, 15, 31, 47]], dtype=torch.uint8)
    low = [0xF1, 0x02, 0x03, 0x04, 0x05, 0xF6, 0xF7, 0xF8]  # lower four bits of scale j, above them those of j + 8
    high = [0b11_11_00_00, 0b00_00_00_01, 0b01_10_00_10, 0b10_01_00_11]  # bits 4 and 5 of j + 12, j + 8, j + 4, j
    assert pack_scales(scales).tolist() == [low + high]
    assert torch.equal(unpack_scales(torch.tensor([low + high], dtype=torch.uint8)), scales)


def test_crumbs_and_planes_have_their_places():
    codes = torch.zeros(1, 128, dtype=torch.uint8)
    codes[0, 5], codes[0, 37], codes[0, 69], codes[0, 101] = 1, 2, 3, 1
    assert pack_crumbs(codes)[0, 5] == 0b01_11_10_01
    assert torch.equal(unpack_crumbs(pack_crumbs(codes)), codes)
    bits = torch.zeros(1, 256, dtype=torch.uint8)
    bits[0, 7], bits[0, 7 + 3 * 32], bits[0, 7 + 7 * 32] = 1, 1, 1
    assert pack_planes(bits)[0, 7] == 0b1000_1001
    assert torch.equal(bit_fields(pack_planes(bits), 1).flatten(1), bits)


@pytest.mark.parametrize("qtype, weighted, stored", [("Q4_K", True, 254), ("Q4_K", False, 63), ("Q5_K", True, 63)])
def test_a_negative_scale_is_a_large_byte(qtype, weighted, stored):
    """A search may find one in a sub-block of nearly equal negative weights; -2 as a byte is 254."""
    codes = torch.zeros(1, 8, dtype=torch.uint8)
    codes[0, 2] = 254
    assert qk.QTYPES[qtype].pack_scales(codes, torch.zeros_like(codes), weighted)[0, 2] == stored


@pytest.mark.parametrize("qtype, least", [("Q3_K", 1e-15), ("Q6_K", 32e-15)])
@pytest.mark.parametrize("importance", [None, torch.ones(256)])
def test_blocks_without_a_scale_are_zeros(qtype, least, importance):
    """Below 1e-15 (weights in Q3_K, scales in Q6_K) all codes are 0; above it, with d = 0 in fp16, a search's."""
    x = torch.arange(256.0).sin()  # reaches nearly 1 in each sub-block
    assert not qk.quantize(x * least * 0.9, qtype, importance).any()
    data = qk.quantize(x * least * 2, qtype, importance)
    assert from_half_bytes(fields(data, qtype)["d"]) == 0
    assert fields(data, qtype)["ql" if qtype == "Q6_K" else "qs"].any()


def test_scales_beyond_float32_are_scaled_bit_by_bit():
    x, importance = torch.zeros(256), torch.ones(256)
    x[126], importance[126] = 2.0259324e14, 3e9  # its sub-block's scale is -Inf, and 0 * Inf one of the codes of scales
    assert from_half_bytes(fields(qk.quantize(x, "Q3_K", importance), "Q3_K")["d"]) == 0


# What holds of any weights


@pytest.mark.parametrize("weigh", [False, True])
@pytest.mark.parametrize("qtype", K_QUANTS)
@few
@given(seed=seeds)
def test_each_weight_gets_the_nearest_level_of_its_sub_block(qtype, weigh, seed):
    """Whatever scales the search finds: the codes are made last, with the scales as they are stored."""
    layout, (x, importance) = qk.QTYPES[qtype], random_blocks(seed)
    data = qk.quantize(x, qtype, importance if weigh else None)
    step, offset = stored_steps(data, qtype)
    levels = step.double().view(-1, 1) * torch.tensor(LEVELS[qtype]) + offset.double().view(-1, 1)  # (n_sub, n_levels)
    x = x.double().view(-1, layout.sub_block)
    nearest = (x[:, :, None] - levels[:, None]).abs().amin(-1)
    error = (qk.dequantize(data, qtype).double().view(x.shape) - x).abs()
    assert (error <= nearest + 1e-6 * x.abs().amax()).all()


@pytest.mark.parametrize("qtype", K_QUANTS)
@few
@given(seed=seeds, power=st.integers(-2, 4))
def test_powers_of_two_change_only_the_fp16_scales(qtype, seed, power):
    x, importance = random_blocks(seed)
    for weights in (None, importance):
        expected, actual = (
            fields(qk.quantize(x, qtype, weights), qtype),
            fields(qk.quantize(x * 2**power, qtype, weights), qtype),
        )
        for name in qk.QTYPES[qtype].fields:
            if name in qk.QTYPES[qtype].scales:
                assert torch.equal(from_half_bytes(actual[name]), from_half_bytes(expected[name]) * 2**power)
            else:
                assert torch.equal(actual[name], expected[name])


@pytest.mark.parametrize("qtype, weigh", [("Q6_K", False), ("Q6_K", True), ("Q3_K", True)])
@few
@given(seed=seeds)
def test_the_sign_of_all_weights_is_the_sign_of_d(qtype, weigh, seed):
    """Not so in Q3_K without importance: ggml moves no code of a sub-block whose extreme is positive."""
    x, importance = random_blocks(seed)
    data, negated = (qk.quantize(side, qtype, importance if weigh else None) for side in (x, -x))
    fields(negated, qtype)["d"][:, 1] ^= 0x80
    assert torch.equal(data, negated)


@pytest.mark.parametrize("qtype", K_QUANTS)
def test_without_importance_a_block_knows_nothing_of_its_neighbours(qtype):
    x, _ = random_blocks(3)
    one_by_one = [qk.quantize(block, qtype) for block in x.view(-1, 256)]
    assert torch.equal(qk.quantize(x, qtype).view(6, -1), torch.stack(one_by_one))


@pytest.mark.parametrize("qtype", K_QUANTS)
def test_chunks_do_not_change_bytes(qtype, monkeypatch):
    x, importance = random_blocks(5)
    expected = qk.quantize(x, qtype), qk.quantize(x, qtype, importance)
    monkeypatch.setattr(qtypes, "CHUNK", 2**30)  # the K-quants search without importance too
    monkeypatch.setattr(type(qk.QTYPES[qtype]), "search_chunk", 1)
    assert torch.equal(qk.quantize(x, qtype), expected[0])
    assert torch.equal(qk.quantize(x, qtype, importance), expected[1])


@pytest.mark.parametrize("qtype", K_QUANTS)
def test_more_bits_or_importance_lower_the_error(qtype):
    x = torch.randn(8, 512, generator=torch.Generator().manual_seed(4))
    error = {name: float((qk.dequantize(qk.quantize(x, name), name) - x).square().mean()) ** 0.5 for name in K_QUANTS}
    assert sorted(error, key=error.get, reverse=True) == K_QUANTS
    importance = torch.zeros(512).index_fill(0, torch.arange(0, 512, 4), 1.0)  # one weight of four counts
    weighted = (importance * (qk.dequantize(qk.quantize(x, qtype, importance), qtype) - x).square()).sum()
    assert weighted < (importance * (qk.dequantize(qk.quantize(x, qtype), qtype) - x).square()).sum()


@pytest.mark.parametrize("importance", [None, torch.ones(512)])
@pytest.mark.parametrize("qtype", K_QUANTS)
def test_scales_beyond_fp16_are_refused(qtype, importance):
    x = torch.zeros(2, 512)
    x[1, 256:] = torch.linspace(0, 1, 256) * 3e8
    with pytest.raises(ValueError, match=rf"{qtype} cannot hold 3.*e.08|{qtype} cannot hold 300000000.0"):
        qk.quantize(x, qtype, importance)


@pytest.mark.parametrize("importance", [None, torch.ones(512)])
@pytest.mark.parametrize("qtype", MINIMUM)
def test_minima_beyond_fp16_are_refused(qtype, importance):
    x = torch.full((2, 512), -1e7)  # constant: every scale is 0, dmin is 1e7 / 63 or 1e7 / 15
    with pytest.raises(ValueError, match=rf"{qtype} cannot hold -10000000.0 at index \(0, 0\)"):
        qk.quantize(x, qtype, importance)


@pytest.mark.parametrize("qtype", K_QUANTS)
def test_squares_beyond_float32_end_without_a_warning(qtype):
    """Either refused or, as in ggml, zeros: the sums of the search overflow and no scale is left."""
    try:
        data = qk.quantize(torch.full((1, 256), 1.5e19), qtype)
    except ValueError:
        return
    assert not qk.dequantize(data, qtype).any()
