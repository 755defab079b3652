"""y = x W^T from packed weights: the float path, the integer path, and the machine code for both."""

import ctypes
import os
import shutil
import subprocess

import numpy as np
import pytest
import torch

import quant_kernels as qk
from quant_kernels import multiplication, native
from quant_kernels.multiplication import NATIVE, quantize_q8_0, quantize_q8_K

UNIT = 2.0**-24  # half the distance of float32 numbers, as a share of their size
MB = 1 << 20


def random(*shape, seed=5):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def packed(m, n, qtype, seed=6):
    """(m, n) random weights with outliers, in bytes."""
    return qk.quantize(random(m, n, seed=seed) ** 3, qtype, torch.linspace(0.1, 1, n))


def quantized(x, qtype):
    """x (t, n) as the integer path has it, in float64."""
    layout = qk.QTYPES[qtype]
    d, q = quantize_q8_K(x.view(-1, 256)) if layout.block_size == 256 else quantize_q8_0(x.view(-1, 32))
    return (d.double() * q.double()).view(x.shape)


def compiled_matmul(x, data, qtype, integer):
    with qk.compiled():
        return qk.matmul(x, data, qtype, integer=integer)


def magnitudes(data, qtype):
    """What is added for each weight, at most, (m, n): |step * (code - zero)| + |offset| <= |w| + 2 |offset|."""
    weights = qk.dequantize(data, qtype).double().abs()
    layout = qk.QTYPES[qtype]
    offset = layout.steps(data.view(-1, layout.type_size))[1]
    if offset is not None:
        offset = offset.double().abs().reshape(len(data), -1)
        weights += 2 * offset.repeat_interleave(weights.shape[1] // offset.shape[1], dim=1)
    return weights


def assert_product(y, x, data, qtype, integer):
    """That y is x W^T to the rounding of float32.

    A sum of k terms in any order is off by at most k units of the sum of their magnitudes. The float path adds n of
    them, the integer path one per sub-block, which are exact but for the scales; each term is rounded some times more.
    """
    x = quantized(x, qtype) if integer else x.double()
    expected = x @ qk.dequantize(data, qtype).double().T
    terms = 16 + x.shape[-1] // (16 if integer else 1)
    tolerance = terms * UNIT * (x.abs() @ magnitudes(data, qtype).T)
    worst = ((y - expected).abs() / tolerance).max().item()
    assert worst <= 1, f"off by {worst:.2f} times the tolerance of {terms} units in the last place"
    assert (expected.abs() > 10 * tolerance).double().mean() > 0.9, "a tolerance that tells nothing"


# The result


@pytest.mark.parametrize("qtype", qk.QTYPES)
@pytest.mark.parametrize("integer", [False, True])
def test_product(qtype, integer):
    data = packed(11, 768, qtype)
    for tokens in (1, 5):
        x = random(tokens, 768)
        y = qk.matmul(x, data, qtype, integer=integer)
        assert (y.shape, y.dtype) == ((tokens, 11), torch.float32)
        assert_product(y, x, data, qtype, integer)


@pytest.mark.parametrize("qtype", qk.QTYPES)
def test_integers_of_a_part_stay_exact_in_float32(qtype):
    """The largest sum of products that any bytes and activations can give, as `integer_tile` says."""
    layout = qk.QTYPES[qtype]
    data = torch.randint(256, (2000, layout.type_size), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    codes, (step, _) = layout.codes(data).float() - layout.zero, layout.steps(data)
    assert torch.equal(codes, codes.round()) and codes.abs().max() <= 2**8
    assert 2**8 * 2**7 * layout.block_size // step.shape[1] <= 2**23


@pytest.mark.parametrize("qtype", NATIVE)
@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("tokens, n", [(1, 256), (1, 768), (3, 512), (4, 768), (11, 1280)])
def test_machine_code(qtype, integer, tokens, n, machine_code, monkeypatch):
    monkeypatch.setattr(multiplication, "rows_at_a_time", None)  # only tiles need it
    x, data = random(tokens, n), packed(37, n, qtype)
    assert_product(compiled_matmul(x, data, qtype, integer), x, data, qtype, integer)


@pytest.mark.parametrize("qtype", ["Q4_0", "Q8_0"])
@pytest.mark.parametrize("n", [32, 96])
def test_machine_code_for_an_odd_number_of_blocks(qtype, n, machine_code):
    x, data = random(2, n), packed(9, n, qtype)
    for integer in (False, True):
        assert_product(compiled_matmul(x, data, qtype, integer), x, data, qtype, integer)


@pytest.mark.parametrize("qtype", NATIVE)
def test_bytes_that_quantize_does_not_write(qtype, machine_code):
    layout = qk.QTYPES[qtype]
    data = torch.randint(256, (50, 2 * layout.type_size), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    data = data[layout.finite_scales(data.view(-1, layout.type_size)).view(50, 2).all(1)]
    assert len(data) > 40
    x = torch.cat([random(3, 2 * layout.block_size), torch.full((1, 2 * layout.block_size), -7.0)])
    for integer in (False, True):
        assert_product(qk.matmul(x, data, qtype, integer=integer), x, data, qtype, integer)
        assert_product(compiled_matmul(x, data, qtype, integer), x, data, qtype, integer)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_a_bit(threads, machine_code):
    x, data = random(2, 512), packed(100, 512, "Q4_K")
    before = torch.get_num_threads()
    with qk.compiled():
        expected = qk.matmul(x, data, "Q4_K", integer=True)
        torch.set_num_threads(threads)
        try:
            assert torch.equal(qk.matmul(x, data, "Q4_K", integer=True), expected)
        finally:
            torch.set_num_threads(before)


def test_by_hand():
    """Codes 15, 9 and 7 to the scale 1; x has the scale 2 in fp16, so that 4, 6 and 254 become 2, 3 and 127."""
    data = torch.tensor([[0, 0x3C, 0x8F, 0x89, 0x87, *[0x88] * 13]], dtype=torch.uint8)
    x = torch.zeros(32)
    x[:3] = torch.tensor([4.9, 6.0, 254.0])
    assert qk.matmul(x, data, "Q4_0").item() == pytest.approx(4.9 * 7 + 6 * 1 - 254)
    assert qk.matmul(x, data, "Q4_0", integer=True).item() == 4 * 7 + 6 * 1 - 254


@pytest.mark.parametrize("integer", [False, True])
def test_tiles_do_not_change_the_result(integer, monkeypatch):
    x, data = random(3, 512), packed(20, 512, "Q4_K")
    for tile in (1, 3 * 512):
        monkeypatch.setattr(multiplication, "TILE", tile)
        assert_product(qk.matmul(x, data, "Q4_K", integer=integer), x, data, "Q4_K", integer)


def test_many_tokens_in_floats_are_multiplied_tile_by_tile(monkeypatch):
    monkeypatch.setattr(multiplication, "call_native", None)
    monkeypatch.setattr(torch, "compile", lambda step, **_: step)
    x, data = random(multiplication.FEW + 1, 64), packed(5, 64, "Q4_0")
    assert_product(compiled_matmul(x, data, "Q4_0", False), x, data, "Q4_0", False)


# Activations


def test_q8_K_by_hand():
    x = torch.zeros(3, 256)
    x[0, :5] = torch.tensor([1.0, -2.0, 0.5, -1.0, 2.0])  # the first of two extremes gets -127
    x[1, 0] = 2.0
    d, q = quantize_q8_K(x)
    assert q[0, :6].tolist() == [64, -127, 32, -64, 127, 0]  # 63.5 and -63.5 go to even, and -127 * -1 fits
    assert q[1, :2].tolist() == [-127, 0]
    assert torch.equal(d[:, 0], torch.tensor([1 / 63.5, -1 / 63.5, 0.0]))
    assert not q[2].any() and not d[2].signbit()


@pytest.mark.parametrize("qtype", NATIVE)
def test_machine_code_quantizes_activations_alike(qtype, machine_code):
    """Each token is one block with ties, denormals, zeros or of some size, and the weights pick one code each."""
    n = 256
    generator = torch.Generator().manual_seed(4)
    x = torch.randint(-127, 128, (40, n), generator=generator) / 2  # 127 steps of the largest are a half or less
    x[:, ::32] = 127.0 * torch.tensor([1, -1]).repeat(20)[:, None]
    exponents = torch.linspace(-148, 16, 200).round()[:, None]
    x = torch.cat([x, torch.ldexp(torch.randn(200, n, generator=generator), exponents), torch.zeros(1, n)])
    data = qk.quantize(torch.eye(n)[:64], qtype)
    y, expected = compiled_matmul(x, data, qtype, True), qk.matmul(x, data, qtype, integer=True)
    # Below 2**-126 the product of two scales is off by 2**-150, and the sum that it scales is below 2**20.
    torch.testing.assert_close(y, expected, rtol=16 * UNIT, atol=2.0**-130)


def q8_K_of_ggml(x):
    """The structs' d and qs: float32, int8[256], and int16[16] that sum sixteen codes each."""
    library = ctypes.CDLL(os.environ["GGML_LIBRARY"])
    out = np.zeros(len(x) // 256, np.dtype([("d", "f4"), ("qs", "i1", 256), ("bsums", "i2", 16)]))
    assert out.itemsize == 292
    library.quantize_row_q8_K_ref(
        ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(len(x))
    )
    return out["d"], out["qs"]


def test_q8_K_is_ggmls(ggml):
    rng = np.random.default_rng(3)
    kinds = [
        rng.standard_normal((2000, 256)),
        np.ldexp(rng.standard_normal((2000, 256)), rng.integers(-149, 100, (2000, 1))),
        rng.integers(-127, 128, (2000, 256)) / 2,
        rng.choice([-3.0, 3.0, 0.0, -0.0], (2000, 256)),
        np.zeros((1, 256)),
    ]
    for x in kinds:
        x = np.ascontiguousarray(x, np.float32)
        d, q = quantize_q8_K(torch.from_numpy(x))
        expected_d, expected_q = q8_K_of_ggml(x.ravel())
        assert np.array_equal(d.numpy().ravel().view(np.int32), expected_d.view(np.int32))
        assert np.array_equal(q.numpy(), expected_q)


# What is accepted


@pytest.mark.parametrize("leading", [(), (1,), (2, 3), (1, 2, 1)])
@pytest.mark.parametrize("integer", [False, True])
def test_leading_dimensions_are_kept(leading, integer):
    x, data = random(*leading, 64), packed(5, 64, "Q4_0")
    y = qk.matmul(x, data, "Q4_0", integer=integer)
    assert y.shape == (*leading, 5)
    assert_product(y.view(-1, 5), x.view(-1, 64), data, "Q4_0", integer)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("integer", [False, True])
def test_short_floats_are_widened(dtype, integer):
    x, data = random(2, 64).to(dtype), packed(5, 64, "Q8_0")
    y = qk.matmul(x, data, "Q8_0", integer=integer)
    assert torch.equal(y, qk.matmul(x.float(), data, "Q8_0", integer=integer))


@pytest.mark.parametrize("integer", [False, True])
def test_input_need_not_be_contiguous_nor_without_gradient(integer, machine_code):
    x, data = random(3, 256), packed(5, 256, "Q6_K")

    def call(x, data):
        return qk.matmul(x, data, "Q6_K", integer=integer)

    strided = torch.nn.Parameter(x.T.contiguous().T), data.repeat(1, 2)[:, : data.shape[1]]
    assert torch.equal(call(*strided), call(x, data))
    with qk.compiled():
        assert torch.equal(call(*strided), call(x, data))


@pytest.mark.parametrize("integer", [False, True])
def test_empty_tensors(integer, machine_code):
    data = packed(1, 64, "Q4_0")
    for call in (qk.matmul, compiled_matmul):
        assert call(torch.zeros(0, 64), data, "Q4_0", integer=integer).shape == (0, 1)
        assert call(torch.zeros(2, 0, 64), data, "Q4_0", integer=integer).shape == (2, 0, 1)
        assert call(torch.zeros(3, 64), data[:0], "Q4_0", integer=integer).shape == (3, 0)
        assert torch.equal(call(torch.zeros(2, 0), data[:, :0], "Q4_0", integer=integer), torch.zeros(2, 1))


@pytest.mark.parametrize("qtype", NATIVE)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("integer", [False, True])
def test_what_is_not_finite_spoils_its_token_only(qtype, value, integer, machine_code):
    x, data = random(3, 512), packed(4, 512, qtype)
    x[1, 7] = value
    results = [qk.matmul(x, data, qtype, integer=integer)]
    with qk.compiled():
        results.append(qk.matmul(x, data, qtype, integer=integer))
    for y in results:
        assert y[0].isfinite().all() and y[2].isfinite().all()
        assert (y[1].isnan() if value != value else ~y[1].isfinite()).all()


# What is refused


@pytest.mark.parametrize(
    "x, data, qtype, error, message",
    [
        ([1.0], (1, 18), "Q4_0", TypeError, "x is a list, not a torch.Tensor"),
        (torch.zeros(32, dtype=torch.int32), (1, 18), "Q4_0", TypeError, "x is torch.int32, not torch.float32"),
        (torch.zeros(32).double(), (1, 18), "Q4_0", TypeError, "x is torch.float64, not torch.float32 or"),
        (torch.zeros(()), (1, 18), "Q4_0", ValueError, "x has 0 dimensions, at least 1 is needed"),
        (torch.zeros(32), (18,), "Q4_0", ValueError, "data has 1 dimensions, not 2"),
        (torch.zeros(32), (1, 1, 18), "Q4_0", ValueError, "data has 3 dimensions, not 2"),
        (torch.zeros(32), (1, 20), "Q4_0", ValueError, "20 is not a multiple of Q4_0's type size 18"),
        (torch.zeros(64), (1, 18), "Q4_0", ValueError, r"x's last dimension 64 is not 32, the weights .*\(18 bytes\)"),
        (torch.zeros(32), (1, 18), "Q4", ValueError, "unknown qtype 'Q4'; known are Q4_0"),
        (torch.zeros(32, device="meta"), (1, 18), "Q4_0", ValueError, "x is on meta, data on cpu"),
    ],
)
def test_refused(x, data, qtype, error, message):
    with pytest.raises(error, match=message):
        qk.matmul(x, torch.zeros(data, dtype=torch.uint8), qtype)


def test_data_of_another_dtype_is_refused():
    with pytest.raises(TypeError, match=r"data is torch\.float32, not torch\.uint8"):
        qk.matmul(torch.zeros(32), torch.zeros(1, 18), "Q4_0")


# Memory


@pytest.mark.parametrize("integer", [False, True])
def test_weights_are_never_unpacked_as_a_whole(integer):
    x, data = random(1, 4096), packed(16, 4096, "Q4_K").repeat(256, 1)
    qk.matmul(x, data, "Q4_K", integer=integer)  # what is imported and cached by a first call does not count
    y, peak = qk.peak_memory(qk.matmul, x, data, "Q4_K", integer=integer)
    assert y.shape == (1, 4096)
    assert peak < 12 * MB, f"{peak / MB:.1f} MB beside the packed weights; unpacked they take 64 MB"


def test_nor_in_machine_code(machine_code):
    x, data = random(1, 4096), packed(16, 4096, "Q4_K").repeat(256, 1)
    with qk.compiled():
        qk.matmul(x, data, "Q4_K", integer=True)
        _, peak = qk.peak_memory(qk.matmul, x, data, "Q4_K", integer=True)
    assert peak < 4 * MB


# The compiler


def test_without_a_compiler_the_torch_path_stays(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler, one of g\+\+, clang\+\+"), qk.compiled():
        pass
    x, data = random(1, 64), packed(5, 64, "Q4_0")
    assert_product(qk.matmul(x, data, "Q4_0", integer=True), x, data, "Q4_0", True)


def test_the_source_compiles_for_other_cpus(tmp_path):
    """The same results without the instructions of this CPU: each variant of dot4 and of half."""
    if not shutil.which("g++") or "x86_64" not in os.uname().machine:
        pytest.skip("flags of g++ on x86-64")
    x, data = random(4, 256), packed(3, 256, "Q6_K")
    for flags in (["-march=haswell"], ["-march=x86-64"]):
        path = tmp_path / f"{flags[0][7:]}.so"
        subprocess.run(
            ["g++", "-std=c++17", "-O0", *flags, "-w", "-fPIC", "-shared", "-o", path, native.SOURCE], check=True
        )
        function, y = ctypes.CDLL(str(path)).Q6_K_integer, torch.empty(4, 3)
        function.argtypes = native.ARGUMENTS
        function(*(part.data_ptr() for part in (data, x, y)), 3, 4, 256, 1)
        assert_product(y, x, data, "Q6_K", True)
