"""The public boundary, for every format: shapes, dtypes, chunks, what is refused, and what holds of any format."""

import gguf
import pytest
import torch

import quant_kernels as qk
from quant_kernels import qtypes

NO_FP16_SCALE = ("MXFP4", "NVFP4")  # whose scales are 8-bit floats
IGNORE_IMPORTANCE = ("Q8_0", "Q1_0", "Q2_0", "TQ1_0", "TQ2_0", *NO_FP16_SCALE)
LEGACY = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]


def needs_importance(qtype):
    return qk.QTYPES[qtype].needs_importance


def random(*shape, seed=5):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def positive(*shape, seed=7):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) + 0.01


def quantize(x, qtype, importance=None):
    """With an importance, the same for rows of a length, where the format cannot do without."""
    if importance is None and needs_importance(qtype):
        importance = positive(x.shape[-1])
    return qk.quantize(x, qtype, importance)


@pytest.fixture(params=qk.QTYPES)
def qtype(request):
    return request.param


@pytest.fixture
def n(qtype):
    """The length of a row: two blocks."""
    return 2 * qk.QTYPES[qtype].block_size


@pytest.fixture
def x(n):
    return random(4, n)


# The table


@pytest.mark.parametrize("qtype", [name for name in qk.QTYPES if name in gguf.GGMLQuantizationType.__members__])
def test_the_table_agrees_with_ggml(qtype):
    block_size, type_size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[qtype]]
    layout = qk.QTYPES[qtype]
    assert (layout.name, layout.block_size, layout.type_size) == (qtype, block_size, type_size)
    assert layout.bits_per_weight == 8 * type_size / block_size


def test_the_table_begins_with_the_first_formats():
    assert list(qk.QTYPES)[:5] == LEGACY


def test_a_format_shows_its_size():
    assert repr(qk.QTYPES["Q4_1"]) == "Q4_1(32 weights in 20 bytes, 5.0 bits per weight)"


# What is accepted


def test_shapes_and_dtypes(x, n, qtype):
    data = quantize(x, qtype)
    assert (data.shape, data.dtype) == ((4, 2 * qk.QTYPES[qtype].type_size), torch.uint8)
    again = qk.dequantize(data, qtype)
    assert (again.shape, again.dtype) == ((4, n), torch.float32)


def test_leading_dimensions_are_kept(x, n, qtype):
    expected = quantize(x, qtype)
    weights = qk.dequantize(expected, qtype)
    for leading in [(1, 4), (2, 1, 2)]:
        data = quantize(x.reshape(*leading, n), qtype)
        assert torch.equal(data, expected.view(*leading, -1))
        assert torch.equal(qk.dequantize(data, qtype), weights.view(*leading, n))
    data = quantize(x[0], qtype)
    assert torch.equal(data, expected[0])
    assert torch.equal(qk.dequantize(data, qtype), weights[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_are_widened(x, qtype, dtype):
    assert torch.equal(quantize(x.to(dtype), qtype), quantize(x.to(dtype).float(), qtype))


def test_input_need_not_be_contiguous(x, n, qtype):
    expected = quantize(x, qtype)
    assert torch.equal(quantize(x.T.contiguous().T, qtype), expected)
    assert torch.equal(quantize(x.repeat(1, 2)[:, :n], qtype), expected)
    assert torch.equal(quantize(x[:1].expand(3, n), qtype), expected[:1].expand(3, -1))
    weights = qk.dequantize(expected, qtype)
    assert torch.equal(qk.dequantize(expected.T.contiguous().T, qtype), weights)
    assert torch.equal(qk.dequantize(expected[:1].expand(3, -1), qtype), weights[:1].expand(3, -1))


def test_input_stays_as_it_was(x, n, qtype):
    importance = positive(n)
    before = x.clone(), importance.clone()
    data = qk.quantize(x, qtype, importance)
    kept = data.clone()
    qk.dequantize(data, qtype)
    assert torch.equal(x, before[0]) and torch.equal(importance, before[1])
    assert torch.equal(data, kept)


def test_parameters_can_be_quantized(x, n, qtype):
    importance = torch.nn.Parameter(positive(n))
    assert torch.equal(qk.quantize(torch.nn.Parameter(x), qtype, importance), qk.quantize(x, qtype, importance.data))


@pytest.mark.parametrize("weigh", [False, True])
def test_chunks_do_not_change_bytes(x, n, qtype, weigh, monkeypatch):
    importance = positive(n) if weigh else None
    data = quantize(x, qtype, importance)
    weights = qk.dequantize(data, qtype)
    for size in (1, 3 * n // 2):
        monkeypatch.setattr(qtypes, "CHUNK", size)
        monkeypatch.setattr(type(qk.QTYPES[qtype]), "search_chunk", size)
        assert torch.equal(quantize(x, qtype, importance), data)
        assert torch.equal(qk.dequantize(data, qtype), weights)


@pytest.mark.parametrize("qtype", LEGACY)
def test_more_weights_than_a_chunk(qtype):
    x = random(qtypes.CHUNK // 64 + 1, 96)
    data = qk.quantize(x, qtype)
    for rows in (slice(0, 1), slice(-1, None)):
        assert torch.equal(data[rows], qk.quantize(x[rows], qtype))
        assert torch.equal(qk.dequantize(data, qtype)[rows], qk.dequantize(data[rows], qtype))


def test_empty_tensors(n, qtype):
    for leading in [(0,), (2, 0), (3, 0, 2)]:
        data = quantize(torch.empty(*leading, n), qtype)
        assert data.shape == (*leading, 2 * qk.QTYPES[qtype].type_size)
        assert qk.dequantize(data, qtype).shape == (*leading, n)
    for shape in [(0,), (3, 0)]:
        data = quantize(torch.empty(shape), qtype)
        assert data.shape == shape
        assert qk.dequantize(data, qtype).shape == shape


def test_importance_is_broadcast(x, n, qtype):
    importance = positive(n)
    expected = qk.quantize(x, qtype, importance)
    for same in (importance[None], importance.expand(4, n), importance.double()):
        assert torch.equal(qk.quantize(x, qtype, same), expected)
    three = qk.quantize(x.view(2, 2, n), qtype, importance.expand(2, 1, n))
    assert torch.equal(three.view(expected.shape), expected)


def test_importance_can_differ_between_rows(x, n, qtype):
    importance = positive(4, n)
    rows = [qk.quantize(row, qtype, weights) for row, weights in zip(x, importance, strict=True)]
    assert torch.equal(qk.quantize(x, qtype, importance), torch.stack(rows))


def test_the_default_dtype_does_not_matter(x, n, qtype):
    importances = [positive(n)] if needs_importance(qtype) else [None, positive(n)]
    expected = [qk.quantize(x, qtype, importance) for importance in importances]
    torch.set_default_dtype(torch.float64)
    try:
        for importance, data in zip(importances, expected, strict=True):
            assert torch.equal(qk.quantize(x, qtype, importance), data)
            assert qk.dequantize(data, qtype).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("weigh", [False, True])
def test_a_gpu_writes_the_same_bytes(x, n, qtype, weigh):
    importance = positive(n) if weigh or needs_importance(qtype) else None
    data = qk.quantize(x.cuda(), qtype, None if importance is None else importance.cuda())
    assert data.is_cuda
    assert torch.equal(data.cpu(), qk.quantize(x, qtype, importance))
    assert torch.equal(qk.dequantize(data, qtype).cpu(), qk.dequantize(data.cpu(), qtype))


# What is refused


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_the_first_value_that_is_not_finite_is_named(n, qtype, value):
    x = torch.zeros(2, 3, n)
    x[1, 0, n - 1] = float(value)
    x[1, 2, 0] = torch.nan
    for importance in (None, torch.ones(n)):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            with pytest.raises(ValueError, match=rf"^x is not finite: {value} at index \(1, 0, {n - 1}\)$"):
                quantize(x.to(dtype), qtype, importance)


def test_weights_of_another_type(qtype):
    cases = [
        ([1.0] * 256, "x is a list, not a torch.Tensor"),
        (torch.zeros(256).numpy(), "x is a ndarray, not a torch.Tensor"),
        (torch.zeros(256, dtype=torch.int32), "x is torch.int32, not torch.float32 or torch.float16 or torch.bfloat16"),
        (torch.zeros(256, dtype=torch.float64), "x is torch.float64, not torch.float32 or"),
        (torch.zeros(256, dtype=torch.complex64), "x is torch.complex64, not torch.float32 or"),
    ]
    for x, message in cases:
        with pytest.raises(TypeError, match=message):
            qk.quantize(x, qtype, torch.ones(256))


def test_weights_of_another_shape(n, qtype):
    with pytest.raises(ValueError, match="x has 0 dimensions, at least 1 is needed"):
        qk.quantize(torch.tensor(1.0), qtype, torch.ones(1))
    for columns in (n // 2 + 8, n - 1, 1):
        message = f"last dimension {columns} is not a multiple of {qtype}'s block size {n // 2}"
        with pytest.raises(ValueError, match=message):
            qk.quantize(torch.zeros(n, columns), qtype, torch.ones(columns))


def test_importance_of_another_type_or_shape(x, n, qtype):
    cases = [
        ([1.0] * n, TypeError, "importance is a list, not a torch.Tensor"),
        (torch.ones(n, dtype=torch.int64), TypeError, "importance is torch.int64, not torch.float32 or"),
        (torch.tensor(1.0), ValueError, "importance has 0 dimensions, at least 1 is needed"),
        (
            torch.ones(n // 2),
            ValueError,
            rf"importance of shape \({n // 2},\) cannot be broadcast to x's shape \(4, {n}\)",
        ),
        (torch.ones(3, 4, n), ValueError, rf"importance of shape \(3, 4, {n}\) cannot be broadcast"),
    ]
    for importance, error, message in cases:
        with pytest.raises(error, match=message):
            qk.quantize(x, qtype, importance)


def test_importance_that_is_not_finite_and_at_least_0(x, n, qtype):
    importance = torch.ones(n, dtype=torch.float64)
    for value, message in [(-0.5, "-0.5"), (torch.nan, "nan"), (torch.inf, "inf"), (1e300, "inf")]:
        importance[9:12] = value
        with pytest.raises(ValueError, match=rf"importance is not finite and at least 0: {message} at index \(9,\)"):
            qk.quantize(x, qtype, importance)


def test_data_of_another_type_or_shape(n, qtype):
    size = qk.QTYPES[qtype].type_size
    cases = [
        (bytes(size), TypeError, "data is a bytes, not a torch.Tensor"),
        (torch.zeros(size), TypeError, "data is torch.float32, not torch.uint8"),
        (torch.zeros(size, dtype=torch.int8), TypeError, "data is torch.int8, not torch.uint8"),
        (torch.tensor(1, dtype=torch.uint8), ValueError, "data has 0 dimensions"),
        (
            torch.zeros(size, size + 1, dtype=torch.uint8),
            ValueError,
            f"last dimension {size + 1} is not a multiple of {qtype}'s type size {size} ",
        ),
    ]
    for data, error, message in cases:
        with pytest.raises(error, match=message):
            qk.dequantize(data, qtype)


@pytest.mark.parametrize("name", ["Q4_K_M", "q4_0", "", None, 2, ["Q4_0"]])
def test_unknown_formats(name):
    message = r"unknown qtype .*; known are Q4_0, Q4_1, Q5_0, Q5_1, Q8_0"
    with pytest.raises(ValueError, match=message):
        qk.quantize(torch.zeros(2, 64), name)
    with pytest.raises(ValueError, match=message):
        qk.dequantize(torch.zeros(2, 64, dtype=torch.uint8), name)


@pytest.mark.parametrize("qtype", [name for name in qk.QTYPES if name not in NO_FP16_SCALE])
def test_scales_beyond_fp16_are_refused(n, qtype):
    x = random(2, n)
    x[1, n // 2 :] = torch.linspace(-1, 1.1, n // 2) * 1e10
    for importance in (None, torch.ones(n)):
        with pytest.raises(
            ValueError, match=rf"^{qtype} cannot hold 1.1\d*e\+?10|11000\d*.0 at index \(1, {n - 1}\): "
        ):
            quantize(x, qtype, importance)


@pytest.mark.parametrize(
    "qtype, greatest",
    [("Q4_0", 65504 * 8), ("Q4_1", 65504), ("Q5_0", 65504 * 16), ("Q5_1", 65504), ("Q8_0", 65504 * 127)],
)
def test_the_largest_values_that_fit(qtype, greatest):
    x = torch.zeros(64)
    x[50] = -greatest
    assert qk.dequantize(qk.quantize(x, qtype), qtype)[50] == -greatest
    x[50] = -greatest * 1.001
    message = rf"{qtype} cannot hold -\d.* at index \(50,\): a scale of its block is not finite in fp16"
    with pytest.raises(ValueError, match=message):
        qk.quantize(x, qtype)


def test_large_values_whose_sum_overflows_are_finite():
    with pytest.raises(ValueError, match=r"Q8_0 cannot hold 3.*e.38 at index"):
        qk.quantize(torch.full((8, 32), 3e38), "Q8_0")


def test_squares_that_overflow_are_refused_without_a_warning():
    with pytest.raises(ValueError, match=r"Q4_0 cannot hold 1.5.*e.19 at index"):
        qk.quantize(torch.full((2, 64), 1.5e19), "Q4_0", torch.ones(64))


# What holds of every format


def error(x, y):
    """The root mean square of the difference, relative to that of x."""
    return float((x - y).square().mean().sqrt() / x.square().mean().sqrt())


def test_gaussian_weights_come_back_near_the_least_error_there_is(qtype):
    """Rate-distortion theory: at R bits each, Gaussian weights have a relative error of at least 2**-R."""
    layout = qk.QTYPES[qtype]
    x = random(16, 256)
    least = 2**-layout.bits_per_weight
    assert least < error(x, qk.dequantize(quantize(x, qtype), qtype)) < 4 * least


def test_zeros_are_zeros(n, qtype):
    for zeros in (torch.zeros(2, n), -torch.zeros(2, n)):
        assert not qk.dequantize(quantize(zeros, qtype), qtype).any()


def test_weights_times_a_power_of_two(x, n, qtype):
    for importance in (None, positive(n)):
        once, more = (qk.dequantize(quantize(x * factor, qtype, importance), qtype) for factor in (1, 8))
        assert torch.equal(more, 8 * once)


def test_importance_times_a_power_of_two_changes_nothing(x, n, qtype):
    importance = positive(n)
    assert torch.equal(qk.quantize(x, qtype, importance * 8), qk.quantize(x, qtype, importance))


def test_quantizing_again_changes_little_and_nothing_without_a_search(qtype):
    x = random(8, 256)
    once = qk.dequantize(quantize(x, qtype), qtype)
    again = qk.dequantize(quantize(once, qtype), qtype)
    if qk.QTYPES[qtype].searches:
        assert error(once, again) < error(x, once) / 2
    else:
        assert torch.equal(again, once)


@pytest.mark.parametrize("qtype", [name for name in qk.QTYPES if name not in IGNORE_IMPORTANCE])
def test_importance_moves_the_error_to_where_it_counts_less(qtype):
    x, generator = random(16, 256), torch.Generator().manual_seed(3)
    importance = torch.where(torch.rand(256, generator=generator) < 0.1, 10.0, 0.1)
    with_it, without = (qk.quantize(x, qtype, weights) for weights in (importance, torch.ones(256)))
    errors = [float((importance * (qk.dequantize(data, qtype) - x) ** 2).sum()) for data in (with_it, without)]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("qtype", IGNORE_IMPORTANCE)
def test_importance_is_ignored_without_a_search(x, n, qtype):
    assert torch.equal(qk.quantize(x, qtype, positive(n)), qk.quantize(x, qtype))


@pytest.mark.parametrize("qtype", [name for name in qk.QTYPES if needs_importance(name)])
def test_importance_that_is_missing(x, qtype):
    with pytest.raises(ValueError, match=f"{qtype} needs importance"):
        qk.quantize(x, qtype)
