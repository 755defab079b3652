"""The public boundary: shapes, dtypes, chunks, and what is refused."""

import subprocess
import sys

import gguf
import pytest
import torch

import quant_kernels as qk
from quant_kernels import qtypes

NAMES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]


@pytest.fixture(params=NAMES)
def qtype(request):
    return request.param


@pytest.fixture
def x():
    return torch.randn(6, 96, generator=torch.Generator().manual_seed(5))


def test_the_table_agrees_with_ggml(qtype):
    block_size, type_size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[qtype]]
    layout = qk.QTYPES[qtype]
    assert (layout.name, layout.block_size, layout.type_size) == (qtype, block_size, type_size)
    assert layout.bits_per_weight == 8 * type_size / block_size
    assert list(qk.QTYPES)[: len(NAMES)] == NAMES


def test_a_format_shows_its_size():
    assert repr(qk.QTYPES["Q4_1"]) == "Q4_1(32 weights in 20 bytes, 5.0 bits per weight)"


def test_shapes_and_dtypes(x, qtype):
    data = qk.quantize(x, qtype)
    assert (data.shape, data.dtype) == ((6, 3 * qk.QTYPES[qtype].type_size), torch.uint8)
    again = qk.dequantize(data, qtype)
    assert (again.shape, again.dtype) == ((6, 96), torch.float32)


@pytest.mark.parametrize("shape", [(576,), (6, 96), (1, 6, 96), (2, 3, 96), (2, 1, 3, 96)])
def test_leading_dimensions_are_kept(x, qtype, shape):
    expected = qk.quantize(x, qtype)
    data = qk.quantize(x.reshape(shape), qtype)
    assert data.shape[:-1] == shape[:-1]
    assert torch.equal(data.reshape(expected.shape), expected)
    assert torch.equal(qk.dequantize(data, qtype).reshape(x.shape), qk.dequantize(expected, qtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_are_widened(x, qtype, dtype):
    assert torch.equal(qk.quantize(x.to(dtype), qtype), qk.quantize(x.to(dtype).float(), qtype))


def test_input_need_not_be_contiguous(x, qtype):
    expected = qk.quantize(x, qtype)
    assert torch.equal(qk.quantize(x.T.contiguous().T, qtype), expected)
    assert torch.equal(qk.quantize(x.repeat(1, 2)[:, :96], qtype), expected)
    data = expected.T.contiguous().T
    assert torch.equal(qk.dequantize(data, qtype), qk.dequantize(expected, qtype))


@pytest.mark.parametrize("qtype", qk.QTYPES)
def test_blocks_need_not_be_contiguous(qtype):
    x = torch.randn(6, qk.QTYPES[qtype].block_size, generator=torch.Generator().manual_seed(6))
    data = qk.quantize(x, qtype)
    assert torch.equal(qk.quantize(x.T.contiguous().T, qtype), data)
    assert torch.equal(qk.dequantize(data.T.contiguous().T, qtype), qk.dequantize(data, qtype))


def test_input_stays_as_it_was(x, qtype):
    before, importance = x.clone(), torch.rand(96)
    data = qk.quantize(x, qtype, importance)
    kept = data.clone()
    qk.dequantize(data, qtype)
    assert torch.equal(x, before)
    assert torch.equal(data, kept)


def test_parameters_can_be_quantized(x, qtype):
    assert torch.equal(qk.quantize(torch.nn.Parameter(x), qtype), qk.quantize(x, qtype))


@pytest.mark.parametrize("importance", [None, torch.rand(96, generator=torch.Generator().manual_seed(7))])
def test_chunks_do_not_change_bytes(x, qtype, importance, monkeypatch):
    data = qk.quantize(x, qtype, importance)
    weights = qk.dequantize(data, qtype)
    for size in (1, 64, 200):
        monkeypatch.setattr(qtypes, "CHUNK", size)
        monkeypatch.setattr(qtypes, "SEARCH_CHUNK", size)
        assert torch.equal(qk.quantize(x, qtype, importance), data)
        assert torch.equal(qk.dequantize(data, qtype), weights)


def test_more_weights_than_a_chunk(qtype):
    x = torch.randn(qtypes.CHUNK // 64 + 1, 96, generator=torch.Generator().manual_seed(8))
    data = qk.quantize(x, qtype)
    for rows in (slice(0, 1), slice(-1, None)):
        assert torch.equal(data[rows], qk.quantize(x[rows], qtype))
        assert torch.equal(qk.dequantize(data, qtype)[rows], qk.dequantize(data[rows], qtype))


@pytest.mark.parametrize("shape", [(0, 64), (0,), (2, 0, 32), (3, 0)])
def test_empty_tensors(qtype, shape):
    n_bytes = shape[-1] // 32 * qk.QTYPES[qtype].type_size
    for importance in (None, torch.ones(shape[-1])):
        data = qk.quantize(torch.empty(shape), qtype, importance)
        assert data.shape == (*shape[:-1], n_bytes)
        assert qk.dequantize(data, qtype).shape == shape


def test_importance_is_broadcast(x, qtype):
    importance = torch.rand(96, generator=torch.Generator().manual_seed(9))
    expected = qk.quantize(x, qtype, importance)
    same = [importance[None], importance.expand(6, 96), importance.double(), importance.expand(2, 3, 96)]
    for other in same[:3]:
        assert torch.equal(qk.quantize(x, qtype, other), expected)
    assert torch.equal(qk.quantize(x.view(2, 3, 96), qtype, same[3]).view(expected.shape), expected)


def test_importance_can_differ_between_rows(x, qtype):
    importance = torch.rand(6, 96, generator=torch.Generator().manual_seed(9))
    rows = [qk.quantize(row, qtype, weights) for row, weights in zip(x, importance, strict=True)]
    assert torch.equal(qk.quantize(x, qtype, importance), torch.stack(rows))


def test_the_default_dtype_does_not_matter(x, qtype):
    expected = qk.quantize(x, qtype), qk.quantize(x, qtype, torch.ones(96))
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(qk.quantize(x, qtype), expected[0])
        assert torch.equal(qk.quantize(x, qtype, torch.ones(96)), expected[1])
        assert qk.dequantize(expected[0], qtype).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_writes_the_same_bytes(x, qtype):
    for importance in (None, torch.rand(96, generator=torch.Generator().manual_seed(10))):
        data = qk.quantize(x.cuda(), qtype, None if importance is None else importance.cuda())
        assert data.is_cuda
        assert torch.equal(data.cpu(), qk.quantize(x, qtype, importance))
        assert torch.equal(qk.dequantize(data, qtype).cpu(), qk.dequantize(data.cpu(), qtype))


def test_import_leaves_the_readers_of_files_out():
    code = "import sys, quant_kernels; print(sorted({'gguf', 'tokenizers', 'matplotlib', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


# What is refused

ZEROS = torch.zeros(2, 64)


def with_value(value, *index):
    x = torch.zeros(2, 3, 64)
    x[index] = value
    return x


@pytest.mark.parametrize(
    "x, error, message",
    [
        ([1.0] * 32, TypeError, "x is a list, not a torch.Tensor"),
        (torch.zeros(32).numpy(), TypeError, "x is a ndarray, not a torch.Tensor"),
        (torch.zeros(32, dtype=torch.int32), TypeError, "x is torch.int32, not torch.float32 or torch.float16 or "),
        (torch.zeros(32, dtype=torch.float64), TypeError, "x is torch.float64, not torch.float32 or"),
        (torch.tensor(1.0), ValueError, "x has 0 dimensions, at least 1 is needed"),
        (torch.zeros(2, 40), ValueError, "last dimension 40 is not a multiple of Q4_0's block size 32"),
        (with_value(float("nan"), 1, 2, 5), ValueError, r"x is not finite: nan at index \(1, 2, 5\)"),
        (with_value(float("inf"), 0, 2, 63), ValueError, r"x is not finite: inf at index \(0, 2, 63\)"),
        (with_value(-float("inf"), 0, 0, 0).bfloat16(), ValueError, r"x is not finite: -inf at index \(0, 0, 0\)"),
        (with_value(6e5, 1, 0, 40), ValueError, r"Q4_0 cannot hold 600000.0 at index \(1, 0, 40\): a scale .* 65504"),
    ],
)
def test_refused_weights(x, error, message):
    with pytest.raises(error, match=message):
        qk.quantize(x, "Q4_0")


@pytest.mark.parametrize(
    "importance, error, message",
    [
        ([1.0] * 64, TypeError, "importance is a list, not a torch.Tensor"),
        (torch.ones(64, dtype=torch.int64), TypeError, "importance is torch.int64, not torch.float32 or"),
        (torch.tensor(1.0), ValueError, "importance has 0 dimensions, at least 1 is needed"),
        (torch.ones(32), ValueError, r"importance of shape \(32,\) cannot be broadcast to x's shape \(2, 64\)"),
        (torch.ones(3, 2, 64), ValueError, r"importance of shape \(3, 2, 64\) cannot be broadcast"),
        (torch.ones(64).index_fill(0, torch.tensor(3), -0.5), ValueError, r"at least 0: -0.5 at index \(3,\)"),
        (
            torch.ones(64).index_fill(0, torch.tensor(9), torch.nan),
            ValueError,
            r"importance is not finite.*nan.*\(9,\)",
        ),
        (torch.full((64,), 1e300, dtype=torch.float64), ValueError, r"importance is not finite.*inf at index \(0,\)"),
    ],
)
@pytest.mark.parametrize("qtype", ["Q4_0", "Q8_0"])
def test_refused_importance(importance, error, message, qtype):
    with pytest.raises(error, match=message):
        qk.quantize(ZEROS, qtype, importance)


@pytest.mark.parametrize(
    "data, error, message",
    [
        (b"1234", TypeError, "data is a bytes, not a torch.Tensor"),
        (torch.zeros(18), TypeError, "data is torch.float32, not torch.uint8"),
        (torch.zeros(18, dtype=torch.int8), TypeError, "data is torch.int8, not torch.uint8"),
        (torch.tensor(1, dtype=torch.uint8), ValueError, "data has 0 dimensions"),
        (
            torch.zeros(2, 40, dtype=torch.uint8),
            ValueError,
            "last dimension 40 is not a multiple of Q4_0's type size 18",
        ),
    ],
)
def test_refused_data(data, error, message):
    with pytest.raises(error, match=message):
        qk.dequantize(data, "Q4_0")


@pytest.mark.parametrize("name", ["Q4_K_M", "q4_0", "", None, 2, ["Q4_0"]])
def test_unknown_formats(name):
    message = r"unknown qtype .*; known are Q4_0, Q4_1, Q5_0, Q5_1, Q8_0"
    with pytest.raises(ValueError, match=message):
        qk.quantize(ZEROS, name)
    with pytest.raises(ValueError, match=message):
        qk.dequantize(ZEROS.byte(), name)


@pytest.mark.parametrize(
    "qtype, greatest",
    [("Q4_0", 65504 * 8), ("Q4_1", 65504), ("Q5_0", 65504 * 16), ("Q5_1", 65504), ("Q8_0", 65504 * 127)],
)
def test_the_largest_values_that_fit(qtype, greatest):
    x = torch.zeros(64)
    x[50] = -greatest
    assert qk.dequantize(qk.quantize(x, qtype), qtype)[50] == -greatest
    x[50] = -greatest * 1.001
    with pytest.raises(
        ValueError, match=rf"{qtype} cannot hold -\d.* at index \(50,\): a scale of its block is not finite in fp16"
    ):
        qk.quantize(x, qtype)


def test_large_values_whose_sum_overflows_are_finite():
    x = torch.full((8, 32), 3e38)
    with pytest.raises(ValueError, match=r"Q8_0 cannot hold 3.*e.38 at index"):
        qk.quantize(x, "Q8_0")


def test_squares_that_overflow_are_refused_without_a_warning():
    with pytest.raises(ValueError, match=r"Q4_0 cannot hold 1.5.*e.19 at index"):
        qk.quantize(torch.full((2, 64), 1.5e19), "Q4_0", torch.ones(64))
