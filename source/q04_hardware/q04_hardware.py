# ---
# jupyter:
#   course:
#     number: 4
#     title: Quantization and hardware acceleration
#     category: Conceptual
#     difficulty: Senior
#     levels: [senior]
#     companies: [NVIDIA, AMD, Apple, Meta]
#     minutes: {talk: 15, code: 50}
#     prerequisites:
#       - two's complement, int32 arithmetic that wraps around, tensors in torch or numpy
#       - "Question 1: scale, zero point, why decoding is bound by memory"
#     pass:
#       senior: {rubric: 10, autograded: 80}
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Question 4: Quantization and hardware acceleration
#
# | | |
# |:--|:--|
# | **Category** | Conceptual |
# | **Difficulty** | Senior; marked for the level senior |
# | **Companies** | NVIDIA, AMD, Apple, Meta |
# | **Time** | 50 minutes of code, then a talk of 15 minutes |
# | **You should know** | two's complement, integers that wrap around, scale and zero point, why decoding is bound by memory (question 1) |
# | **Code points** | 30, in six exercises |
# | **Rubric points** | 16, in two categories of 8 |
# | **Senior passes with** | 10 rubric points and 80 % of the code points |

# %% [markdown]
# ## The question
#
# > "The same 4-bit and 8-bit checkpoints have to run on A100s, on H100s, on a Mac and on plain x86 servers. Tell me what each
# > of these machines really multiplies when the model is quantized, what that buys at one token and at a full batch,
# > and what you would ship where. You may use a whiteboard and a calculator. Then I will show you a benchmark table that
# > somebody found on the web, and you tell me which of its rows cannot be true."

# %% [markdown]
# ## What is looked for
#
# **Competencies.** What an instruction computes, to the bit; which number formats a device multiplies and which it only stores;
# time from bytes and operations before any benchmark; reading other people's figures with suspicion.
#
# | Green flags | Red flags |
# |:--|:--|
# | Asks "decode or prefill, and which batch?" first | "4-bit is 4 times as fast" |
# | Knows that VPDPBUSD is unsigned × signed, and both ways around it | Passes signed weights as its first operand |
# | Says "W4A16 on an H100 multiplies in FP16" | Counts on INT4 tensor cores on Hopper |
# | Quotes dense peaks, and names the data sheet's sparsity | Takes the largest number on the data sheet |
# | Separates what the chip can do from what the engine has a kernel for | "Blackwell has INT8, so the INT8 checkpoint is fine" |
# | Checks a benchmark against bandwidth before believing it | Compares tokens/s of different models and batches |

# %% [markdown]
# ## Background 1: what multiplies 8-bit numbers
#
# All of these sum products of bytes into 32-bit integers. They differ in how many they take at once, and in the **signs** that they allow:
#
# | instruction | operands | products at once | where |
# |:--|:--|--:|:--|
# | VPMADDUBSW, then VPMADDWD, VPADDD | u8 × s8, **pairs saturate in int16** | 32 by three instructions of 256 bits | x86 with AVX2 |
# | VPDPBUSD | u8 × s8 | 32 or 64 (256 or 512 bits) | AVX-VNNI, AVX512-VNNI |
# | SDOT | s8 × s8 | 16 (128 bits) | Arm dot product |
# | SMMLA | s8 × s8, two rows by two columns | 32 (128 bits) | Arm i8mm |
# | `mma.m16n8k32` | u8 or s8, each side as you like | 4 096 (a warp of 32 threads) | NVIDIA tensor cores from sm80 on |
#
# ```
# VPDPBUSD, one 32-bit lane of 8 (256 bits) or 16 (512 bits)
#
#   first operand       a₀   a₁   a₂   a₃      read as unsigned, 0 … 255
#                       ×    ×    ×    ×
#   second operand      b₀   b₁   b₂   b₃      read as signed, −128 … 127
#                       └────┴─┬──┴────┘
#   accumulator     acc  ───►  +  ───►  acc     int32
# ```
#
# A register has no type. Weights that are signed bytes go into the unsigned port without any complaint, and come out as something else:

# %% tags=["experiment"]
weights, activations = [-1, 2, -3, 4], [10, 20, 30, 40]
as_unsigned = [w % 256 for w in weights]  # what the instruction sees in these bytes

print("weights                  ", weights)
print("the same bytes, unsigned ", as_unsigned)
print("the dot product          ", sum(w * x for w, x in zip(weights, activations)))
print("what VPDPBUSD gives      ", sum(w * x for w, x in zip(as_unsigned, activations)))

# %% [markdown]
# Each negative weight is read as 256 more. An error of this kind does not crash: the model loads and emits noise.
#
# Newer x86 cores with AVX-VNNI-INT8 have s8 × s8 as well (VPDPBSSD).
#
# Sources: Intel's and Arm's instruction references, NVIDIA's PTX ISA. The products at once are register width over operand
# width (for `mma` 16 · 8 · 32), not speeds: a stream of weights from memory does not get faster by any of them.

# %% [markdown]
# ## Background 2: the roofline
#
# A step needs bytes and operations, and takes at least the longer of two times:
#
# &nbsp;&nbsp;&nbsp;&nbsp;time ≥ max(bytes / bandwidth, operations / peak)
#
# Where the two are equal lies the **ridge**: peak / bandwidth, in operations per byte. Below, an H100 and the decoding of
# Llama-3.1-8B, one marker per batch. Narrow weights move a marker to the **right** along the slope (fewer bytes for the
# same operations). Narrow arithmetic raises the **roof**. W4A16 does the one, W8A8 both.

# %% tags=["experiment"]
import matplotlib.pyplot as plt

from quant_kernels.hardware import HARDWARE
from quant_kernels.models.shapes import ARCHITECTURES
from quant_kernels.plots.rooflines import roofline
from quant_kernels.roofline import decode

model, device, batches = ARCHITECTURES["Llama-3.1-8B"], HARDWARE["H100 SXM"], (1, 8, 64, 256)
kinds = {"W16A16": (16, "FP16"), "W8A8": (8, "INT8"), "W4A16 (4.5 bits)": (4.5, "FP16")}
steps = {
    name: [decode(model, device, weights=bits, arithmetic=arithmetic, batch=batch) for batch in batches]
    for name, (bits, arithmetic) in kinds.items()
}
axes = roofline(device, steps, formats=("FP16", "INT8"), title="H100 SXM, dense peaks; decoding Llama-3.1-8B")
plt.show()
print("tokens/s at batch", *(f"{batch:8}" for batch in batches))
for name, bounds in steps.items():
    print(f"{name:17}", *(f"{bound.tokens_per_second:8,.0f}" for bound in bounds))

# %% [markdown]
# At batch 1 the three schemes differ by their bytes alone, 16 : 8 : 4.5. At batch 256 W4A16 has met the FP16 roof, and W8A8 has overtaken it.
# (Bounds without a KV cache; peaks and bandwidth from NVIDIA's data sheet, as `quant_kernels.hardware` records it.)

# %% [markdown]
# ## Exercises
#
# Tensors are CPU tensors of torch; results may have any strides, and arguments are left as they are. Use torch or numpy; `gguf` and `quant_kernels` are
# not there when your answer is graded. The exercises do not build on one another: each is scored alone. Integer results are exact: they
# have no tolerance.

# %%
import math

import numpy as np
import torch

# %% [markdown]
# ### Exercise (a): VPDPBUSD, and two ways to feed it signed weights
#
# *8 minutes, 6 points*
#
# ```
# vpdpbusd        acc: int32 (..., n)   a, b: uint8 or int8 (..., 4n)   saturate: bool   →  int32 (..., n)
# feed_by_sign    w, x: int8 (..., 4n)   →  a: uint8 (..., 4n)   b: int8 (..., 4n)
# feed_by_offset  w, x: int8 (..., 4n)   →  a: uint8 (..., 4n)   b: int8 (..., 4n)   acc: int32 (..., n)
# ```
#
# | `vpdpbusd` | |
# |:--|:--|
# | Operands | bytes: `a` is read as unsigned and `b` as signed, **whatever dtype the tensors have** |
# | Lane i | `acc[i] + Σ a[4i + k] · b[4i + k]`, k = 0 … 3 |
# | Out of range | wraps around modulo 2³² (VPDPBUSD). With `saturate=True` the exact total is clamped to int32, once, at the end (VPDPBUSDS) |
#
# | signed weights | |
# |:--|:--|
# | `feed_by_sign` | What VPABSB and VPSIGNB give. `a` = abs(w), where abs(−128) is the byte 128. `b` = x where w > 0, 0 where w = 0, −x where w < 0, **in 8 bits**: −(−128) is −128 |
# | `feed_by_offset` | `a` = w + 128 (the bits of w XOR 0x80), `b` = x, and an accumulator to begin with, such that `vpdpbusd(acc, a, b)` is **exactly** Σ w · x in each lane |
#
# A tensor's bytes are reinterpreted by `.view(torch.uint8)` and `.view(torch.int8)`.


# %% nbgrader={"grade": false, "grade_id": "dot", "locked": false, "schema_version": 3, "solution": true, "task": false}
def vpdpbusd(acc, a, b, saturate=False):
    """Emulate VPDPBUSD, with `saturate` VPDPBUSDS: int32 `(..., n)` and bytes `(..., 4n)` to int32 `(..., n)`."""
    ### BEGIN SOLUTION
    products = a.view(torch.uint8).long() * b.view(torch.int8).long()  # (..., 4n)
    total = acc.long() + products.unflatten(-1, (-1, 4)).sum(-1)  # (..., n), exact
    if saturate:
        total = total.clamp(-(2**31), 2**31 - 1)
    return total.to(torch.int32)  # keeps the low 32 bits
    ### END SOLUTION


# %% nbgrader={"grade": false, "grade_id": "feeds", "locked": false, "schema_version": 3, "solution": true, "task": false}
def feed_by_sign(w, x):
    """Return the operands `a` uint8 and `b` int8 that VPABSB and VPSIGNB make of signed weights and activations."""
    ### BEGIN SOLUTION
    return w.abs().view(torch.uint8), w.sign() * x  # int8: |−128| wraps to the byte 0x80, which is 128 unsigned
    ### END SOLUTION


def feed_by_offset(w, x):
    """Return `a` uint8, `b` int8 and `acc` int32 with which VPDPBUSD gives the exact signed dot products."""
    ### BEGIN SOLUTION
    a = (w.to(torch.int16) + 128).to(torch.uint8)
    acc = -128 * x.to(torch.int32).unflatten(-1, (-1, 4)).sum(-1)  # (..., n)
    return a, x, acc.to(torch.int32)
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Compute in int64, where nothing can overflow, and only the last line goes back to 32 bits. The sum Σ (w + 128) · x has one term too many:
# which one?
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Reinterpret bytes, widen, multiply, and sum neighbours in fours. A cast from int64 to int32 keeps the low 32 bits, which is the wrapping. In
# int8 torch wraps by itself: `-x` of −128 is −128, and `abs` too. 128 · Σ x depends on x alone: one subtraction
# serves all rows of a weight matrix.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# exact = widened acc + (unsigned bytes of a * signed bytes of b).reshape(..., n, 4) summed over the 4
# clamp it if saturating; then to int32
#
# by sign:    bytes of |w|,  sign of w times x, both in int8
# by offset:  w + 128 as uint8,  x,  minus 128 times the sums of four neighbours of x
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-dot", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_equal

w, x = torch.tensor([-1, 2, -3, 4], dtype=torch.int8), torch.tensor([10, 20, 30, 40], dtype=torch.int8)
seven = torch.tensor([7], dtype=torch.int32)
mistakes = {
    "the first operand's bytes are read as signed": torch.tensor([107], dtype=torch.int32),
    "products wrap around at 8 bits": torch.tensor([-149], dtype=torch.int32),
    "the accumulator is left out": torch.tensor([10340], dtype=torch.int32),
}
expected = torch.tensor([10347], dtype=torch.int32)  # 7 + 255 · 10 + 2 · 20 + 253 · 30 + 4 · 40
check_equal(vpdpbusd(seven, w, x), expected, "vpdpbusd(7, −1 2 −3 4, 10 20 30 40)", mistakes)
mistakes = {"the second operand's bytes are read as unsigned": torch.tensor([10347], dtype=torch.int32)}
expected = torch.tensor([7 + 10 * -1 + 20 * 2 + 30 * -3 + 40 * 4], dtype=torch.int32)
check_equal(vpdpbusd(seven, x, w), expected, "vpdpbusd(7, 10 20 30 40, −1 2 −3 4)", mistakes)

top, bytes_ff = torch.tensor([2**31 - 100], dtype=torch.int32), torch.full((4,), 255, dtype=torch.uint8)
most = torch.full((4,), 127, dtype=torch.int8)
wrapped, clamped = torch.tensor([-2147354208], dtype=torch.int32), torch.tensor([2**31 - 1], dtype=torch.int32)
mistakes = {
    "the sum saturates; VPDPBUSD wraps around": clamped,
    "pairs saturate in int16, as those of the older sequence do": torch.tensor([-2147418214], dtype=torch.int32),
}
check_equal(vpdpbusd(top, bytes_ff, most), wrapped, "vpdpbusd of 2³¹ − 100 and 4 · 255 · 127", mistakes)
mistakes = {"the sum wraps around; VPDPBUSDS saturates": wrapped}
check_equal(vpdpbusd(top, bytes_ff, most, True), clamped, "vpdpbusd of the same with saturate=True", mistakes)
shape = tuple(vpdpbusd(torch.zeros(2, 3, dtype=torch.int32), *torch.zeros(2, 2, 12).byte()).shape)
assert shape == (2, 3), f"vpdpbusd of acc (2, 3) and bytes (2, 12) has shape {shape}, expected (2, 3)"
### BEGIN HIDDEN TESTS


def lanes(acc, a, b, saturate=False, read=(torch.uint8, torch.int8), width=None, pairs=False, each=False, apart=False):
    """The contract, or one misconception of it, in int64."""
    p = a.view(read[0]).long() * b.view(read[1]).long()
    if width:
        p = (p + 2 ** (width - 1)) % 2**width - 2 ** (width - 1)
    p = p.unflatten(-1, (4, -1)).mT if apart else p.unflatten(-1, (-1, 4))
    if pairs:
        p = p.unflatten(-1, (2, 2)).sum(-1).clamp(-(2**15), 2**15 - 1)
    if each:
        total = acc.long()
        for k in range(4):
            total = (total + p[..., k]).clamp(-(2**31), 2**31 - 1)
        return total.int()
    total = acc.long() + p.sum(-1)
    return (total.clamp(-(2**31), 2**31 - 1) if saturate else total).int()


# what a CPU with AVX512-VNNI gave for these bytes: VPDPBUSD, VPDPBUSDS
GOLDEN = """
fb322135f266157442a7246c0274a8000d4cbadbb472186f9b57eecedbb1ac28
a4a888ac32c4d6a5b4fcd70e17bf69a4322f81ad42cae65b17c0c4f14384b1ba
-520981 48736 659615 94792 281943 515312 -410042 -353797
-556885 43278 653967 104938 244366 530513 -429415 -377460
-556885 43278 653967 104938 244366 530513 -429415 -377460

9945d4e0f65daee11cdb0820ceb1535730b0b6174add5ea5ed0698cebf71e000
d0c31913b931e9ac2d8a16d7980b60ec9d0490ac74f9bf7b81f626667f13c910
-2147325956 2147287700 -2147454562 2147404923 -2147480100 2147359214 -2147325334 2147401782
-2147327953 2147251889 -2147480280 2147391674 2147460832 2147380436 -2147328705 2147415866
-2147327953 2147251889 -2147480280 2147391674 -2147483648 2147380436 -2147328705 2147415866
"""
cases = {}
for number, block in enumerate(GOLDEN.strip().split("\n\n")):
    a, b, *rows = block.split("\n")
    a, b = (torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8) for text in (a, b))
    acc, wrapping, saturating = (torch.tensor([int(value) for value in row.split()], dtype=torch.int32) for row in rows)
    cases[f"bytes that a CPU was given, {number}"] = (acc, a, b)
    assert torch.equal(lanes(acc, a, b), wrapping) and torch.equal(lanes(acc, a, b, True), saturating)

generator = torch.Generator().manual_seed(401)
a, b = torch.randint(0, 256, (2, 3, 5, 24), generator=generator, dtype=torch.uint8)
acc = torch.randint(-(2**31), 2**31, (3, 5, 6), generator=generator).int()
cases["random bytes, three dimensions"] = (acc, a, b.view(torch.int8))
cases["both as int8"] = (acc[0], a[0].view(torch.int8), b[0].view(torch.int8))
cases["both as uint8"] = (acc[0], a[0], b[0])
cases["strided"] = (acc[0].T.contiguous().T, a.mT[0].contiguous().mT, b[0].flip(0).flip(0))
# near both ends: large positive products first, then negative ones, and turned
up, down = torch.tensor([127, 127, -128, -128]).char(), torch.tensor([-128, -128, 127, 127]).char()
ends = torch.tensor([2**31 - 10, -(2**31) + 10, 2**31 - 200_000, 0]).int()
cases["near the ends of int32"] = (
    ends.repeat(2),
    torch.full((32,), 255).byte(),
    torch.cat([up.repeat(4), down.repeat(4)]),
)
for name, (acc, a, b) in cases.items():
    for saturate in (False, True):
        mistakes = {
            "the first operand's bytes are read as signed": lambda: lanes(
                acc, a, b, saturate, (torch.int8, torch.int8)
            ),
            "the second operand's bytes are read as unsigned": lambda: lanes(
                acc, a, b, saturate, (torch.uint8, torch.uint8)
            ),
            "the operands are swapped: the first is read as signed, the second as unsigned": lambda: lanes(
                acc, a, b, saturate, (torch.int8, torch.uint8)
            ),
            "products wrap around at 8 bits": lambda: lanes(acc, a, b, saturate, width=8),
            "pairs saturate in int16, as those of the older sequence do": lambda: lanes(
                acc, a, b, saturate, pairs=True
            ),
            "every partial sum is clamped; VPDPBUSDS clamps the total, once": lambda: lanes(acc, a, b, each=True),
            "a lane sums bytes n apart; it sums four neighbours": lambda: lanes(acc, a, b, saturate, apart=True),
            "the sum saturates; VPDPBUSD wraps around": lambda: lanes(acc, a, b, True),
            "the sum wraps around; VPDPBUSDS saturates": lambda: lanes(acc, a, b, False),
            "the accumulator is left out": lambda: lanes(acc * 0, a, b, saturate),
        }
        what = f"vpdpbusd, {name}, saturate={saturate}"
        check_equal(vpdpbusd(acc, a, b, saturate), lanes(acc, a, b, saturate), what, mistakes)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-feeds", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_equal


def int8(*values):
    return torch.tensor(values, dtype=torch.int8)


w, x = int8(-1, 2, -3, 4), int8(10, 20, 30, 40)
a, b = feed_by_sign(w, x)
mistakes = {"the weights' bytes are passed on as they are": torch.tensor([255, 2, 253, 4]).byte()}
check_equal(a, torch.tensor([1, 2, 3, 4]).byte(), "feed_by_sign of −1 2 −3 4 and 10 20 30 40: a", mistakes)
mistakes = {"the sign of x is not turned where w is negative": x}
check_equal(b, int8(-10, 20, -30, 40), "feed_by_sign of −1 2 −3 4 and 10 20 30 40: b", mistakes)
a, b, acc = feed_by_offset(w, x)
mistakes = {"127 is added; the offset is 128": torch.tensor([126, 129, 124, 131]).byte()}
check_equal(a, torch.tensor([127, 130, 125, 132]).byte(), "feed_by_offset of −1 2 −3 4 and 10 20 30 40: a", mistakes)
check_equal(b, x, "feed_by_offset of −1 2 −3 4 and 10 20 30 40: b")
mistakes = {
    "the correction is added; 128 · Σx is too much, and has to go": torch.tensor([12800]).int(),
    "the correction is 127 · Σx": torch.tensor([-12700]).int(),
    "the correction takes the weights, not the activations": torch.tensor([-256]).int(),
    "there is no correction": torch.tensor([0]).int(),
}
check_equal(acc, torch.tensor([-12800]).int(), "feed_by_offset of −1 2 −3 4 and 10 20 30 40: acc", mistakes)
for results, count in ((feed_by_sign(w, x), 2), (feed_by_offset(w, x), 3)):
    assert len(results) == count, f"got {len(results)} results, expected {count}"
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(402)
edges = int8(-128, -127, -1, 0, 1, 127)
w_all, x_all = edges.repeat_interleave(6), edges.repeat(6)  # all pairs of the edges: 36 bytes, 9 lanes
random = torch.randint(-128, 128, (2, 4, 3, 20), generator=generator).char()
for name, w, x in (
    ("all pairs of −128, −127, −1, 0, 1, 127", w_all, x_all),
    ("random codes, three dimensions", random[0], random[1]),
    ("a transposed view", random[0, 0].T[:, :2].T, random[1, 0].T[:, :2].T),
):
    wide_w, wide_x = w.long(), x.long()
    a, b = feed_by_sign(w, x)
    check_equal(
        a,
        wide_w.abs().byte(),
        f"feed_by_sign, {name}: a",
        {
            "abs(−128) is cut to 127; as an unsigned byte it is 128": lambda: wide_w.abs().clamp(max=127).byte(),
            "the weights' bytes are passed on as they are": lambda: w.contiguous().view(torch.uint8),
        },
    )
    check_equal(
        b,
        (wide_w.sign() * wide_x).char(),
        f"feed_by_sign, {name}: b",
        {
            "−(−128) is cut to 127; VPSIGNB wraps around to −128": lambda: (
                (wide_w.sign() * wide_x).clamp(max=127).char()
            ),
            "the sign of x is not turned where w is negative": lambda: x,
            "x stands where w is 0; VPSIGNB gives 0 there": lambda: torch.where(w < 0, -wide_x, wide_x).char(),
            "b takes the magnitude of x with the sign of w": lambda: (wide_w.sign() * wide_x.abs()).char(),
        },
    )
    a, b, acc = feed_by_offset(w, x)
    check_equal(
        a,
        (wide_w + 128).byte(),
        f"feed_by_offset, {name}: a",
        {
            "127 is added; the offset is 128": lambda: (wide_w + 127).byte(),
            "the sum w + 128 is cut to 127, as by an addition that saturates in int8": lambda: (
                (wide_w + 128).clamp(max=127).byte()
            ),
        },
    )
    check_equal(b, x, f"feed_by_offset, {name}: b")
    four = wide_x.unflatten(-1, (-1, 4)).sum(-1)
    check_equal(
        acc,
        (-128 * four).int(),
        f"feed_by_offset, {name}: acc",
        {
            "the correction is added; 128 · Σx is too much, and has to go": lambda: (128 * four).int(),
            "the correction is 127 · Σx": lambda: (-127 * four).int(),
            "the correction takes the weights, not the activations": lambda: (
                -128 * wide_w.unflatten(-1, (-1, 4)).sum(-1)
            ).int(),
            "there is no correction": lambda: (0 * four).int(),
            "each lane is corrected by the sum over all lanes": lambda: (
                -128 * four.sum(-1, keepdim=True).expand_as(four)
            ).int(),
            "sums of x wrap around at 8 bits": lambda: (-128 * four.char().long()).int(),
        },
    )
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (b): the older sequence, and which way is exact
#
# *7 minutes, 4 points*
#
# Without VNNI an x86 CPU takes three instructions, and the first of them can saturate:
#
# ```
# VPMADDUBSW    a₀·b₀ + a₁·b₁  →  clamped to int16     a₂·b₂ + a₃·b₃  →  the same     a: u8, b: s8
# VPMADDWD      the two int16 (times 1 each)  →  their sum, int32
# VPADDD        acc + that sum  →  int32, wraps around
# ```
#
# 255 · 127 + 255 · 127 is 64 770, and becomes 32 767. Whether that can happen depends on the **codes**: 4-bit ones are small.
#
# ```
# older_dot    acc: int32 (..., n)   a, b: uint8 or int8 (..., 4n)     →  int32 (..., n)
# exact_ways   w_low, w_high, x_low, x_high, offset: whole numbers     →  dict: four names to bool
# ```
#
# | | |
# |:--|:--|
# | `older_dot` | operands read as in (a): `a` unsigned, `b` signed, whatever their dtype; pairs are the bytes 2j and 2j + 1 |
# | `exact_ways` | is the lane Σ w · x for **every** choice of four weights in w_low … w_high and four activations in x_low … x_high? Both ends belong to the range, and all numbers between |
# | Ranges | within −128 … 127, low ≤ high; `offset` such that w + offset lies in 0 … 255 |
# | `"sign + VPDPBUSD"`, `"sign + older"` | a, b = abs(w) as u8, sign(w) · x **in 8 bits** (−(−128) is −128); the lane begins at 0 |
# | `"offset + VPDPBUSD"`, `"offset + older"` | a, b = w + offset, x; the lane begins at −offset · Σ x |
# | Accumulator | int32 never overflows with four products, so it decides nothing |


# %% nbgrader={"grade": false, "grade_id": "older", "locked": false, "schema_version": 3, "solution": true, "task": false}
def older_dot(acc, a, b):
    """Emulate VPMADDUBSW, VPMADDWD by ones and VPADDD: int32 `(..., n)` and bytes `(..., 4n)` to int32 `(..., n)`."""
    ### BEGIN SOLUTION
    products = a.view(torch.uint8).long() * b.view(torch.int8).long()  # (..., 4n)
    pairs = products.unflatten(-1, (-1, 2, 2)).sum(-1).clamp(-(2**15), 2**15 - 1)  # (..., n, 2)
    return (acc.long() + pairs.sum(-1)).to(torch.int32)
    ### END SOLUTION


def exact_ways(w_low, w_high, x_low, x_high, offset):
    """Say which ways of multiplying signed codes are exact for all codes of these ranges: a dict of bools."""

    ### BEGIN SOLUTION
    def pairs_fit(shift):
        corners = [(w + shift) * x for w in (w_low, w_high) for x in (x_low, x_high)]
        return 2 * min(corners) >= -(2**15) and 2 * max(corners) < 2**15

    sign_turns = not (w_low < 0 and x_low == -128)
    return {
        "sign + VPDPBUSD": sign_turns,
        "offset + VPDPBUSD": True,
        "sign + older": sign_turns and pairs_fit(0),  # |w| · (sign · x) is w · x
        "offset + older": pairs_fit(offset),
    }
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Two separate dangers: a value that 8 bits cannot hold (before the multiplication), and a pair that 16 bits cannot hold (after it). VPDPBUSD
# has only the first.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# A product of two ranges takes its extremes at the four corners. The worst pair is twice the extreme product, and int16 is not symmetric: check
# both ends. With the sign transfer the products are w · x themselves, with the offset (w + offset) · x. Or count: 256 · 256 products are few.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# pair = clamp(a[2j] * b[2j] + a[2j+1] * b[2j+1], int16);  lane = acc + pair 0 + pair 1
#
# fits(products) = 2 * smallest product >= -32768 and 2 * largest product <= 32767
# sign works unless some w is negative and some x is -128: that x cannot be negated
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-older", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_equal

NAMES = ("sign + VPDPBUSD", "offset + VPDPBUSD", "sign + older", "offset + older")


def int32(*values):
    return torch.tensor(values, dtype=torch.int32)


def named(ways):
    """The exact ways as one text, such as "sign + older, offset + older"."""
    missing = [name for name in NAMES if name not in ways]
    assert not missing, f"exact_ways: the result lacks {missing[0]!r}"
    return ", ".join(name for name in NAMES if ways[name]) or "none"


# 255 · 127 + 255 · 100 = 57 885 becomes 32 767; 255 · 127 − 255 · 90 = 9 435 fits
a, b = torch.full((4,), 255).byte(), torch.tensor([127, 100, 127, -90]).char()
mistakes = {
    "the sum of a pair does not saturate": int32(67325),
    "the sum of a pair wraps around at 16 bits": int32(1789),
    "the sum of all four is clamped to int16": int32(32772),
    "a pair is the bytes 4i and 4i + 2, not neighbours": int32(35322),
}
what = "older_dot(5, 255 255 255 255, 127 100 127 −90)"
check_equal(older_dot(int32(5), a, b), int32(5 + 32767 + 9435), what, mistakes)
by_8_bits = {
    "one product is held against int16, and not the sum of two": ", ".join(NAMES),
    "VPDPBUSD is taken to saturate pairs, as the older sequence does": "sign + VPDPBUSD, sign + older",
    "w = −128 is taken for the danger; |−128| fits an unsigned byte, −(−128) fits no signed one": "offset + VPDPBUSD",
    "sums of four products are held against int16; the pairs saturate": "sign + VPDPBUSD, offset + VPDPBUSD",
}
by_4_bits = {
    "the offset is taken to be 128 whatever is passed": "sign + VPDPBUSD, offset + VPDPBUSD, sign + older",
    "the ranges do not count: the largest bytes are assumed": "sign + VPDPBUSD, offset + VPDPBUSD",
}
for codes, ranges, expected, mistakes in (
    ("8-bit codes", (-128, 127, -127, 127, 128), "sign + VPDPBUSD, offset + VPDPBUSD, sign + older", by_8_bits),
    ("4-bit codes", (-8, 7, -127, 127, 8), ", ".join(NAMES), by_4_bits),
):
    check_equal(named(exact_ways(*ranges)), expected, f"exact_ways{ranges}, {codes}", mistakes)
### BEGIN HIDDEN TESTS


def lanes(acc, a, b, clamp="pair", read=(torch.uint8, torch.int8), apart=False):
    p = a.view(read[0]).long() * b.view(read[1]).long()
    p = p.unflatten(-1, (-1, 2, 2))
    p = (p.mT if apart else p).sum(-1)
    if clamp == "pair":
        p = p.clamp(-(2**15), 2**15 - 1)
    if clamp == "wrap":
        p = p.short().long()
    p = p.sum(-1)
    if clamp == "lane":
        p = p.clamp(-(2**15), 2**15 - 1)
    return (acc.long() + p).int()


# what a CPU gave for these bytes, by VPMADDUBSW, VPMADDWD, VPADDD
a, b = (
    torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
    for text in (
        "fffffdff1340962bff97a4ffffffffffffffc9eaf30bffffff0a0f2a3effff6e",
        "80807f80807f7f80807f7f7f7f7f8080807f7f8080808080807f807f80807f7f",
    )
)
acc = int32(619261, -7114, -823543, 174679, -566356, -638502, -734802, -835723)
given = int32(585984, 12128, -804239, 174678, -571036, -703782, -762758, -835724)
assert torch.equal(lanes(acc, a, b), given)
generator = torch.Generator().manual_seed(403)
many = torch.randint(0, 256, (2, 3, 4, 40), generator=generator, dtype=torch.uint8) | 160
starts = torch.randint(-(2**31), 2**31, (3, 4, 10), generator=generator).int()
small = many & 15
for name, args in {
    "bytes that a CPU was given": (acc, a, b),
    "random bytes, three dimensions": (starts, many[0], many[1].view(torch.int8)),
    "both as int8": (starts, many[0].view(torch.int8), many[1].view(torch.int8)),
    "4-bit codes": (starts, small[0], many[1]),
}.items():
    mistakes = {
        "the sum of a pair does not saturate": lambda: lanes(*args, clamp=""),
        "the sum of a pair wraps around at 16 bits": lambda: lanes(*args, clamp="wrap"),
        "the sum of all four is clamped to int16": lambda: lanes(*args, clamp="lane"),
        "a pair is the bytes 4i and 4i + 2, not neighbours": lambda: lanes(*args, apart=True),
        "the first operand's bytes are read as signed": lambda: lanes(*args, read=(torch.int8, torch.int8)),
    }
    check_equal(older_dot(*args), lanes(*args), f"older_dot, {name}", mistakes)


def ways(w_low, w_high, x_low, x_high, offset, pair=2, ends=True, x_edge=True, w_edge=False, vnni_pairs=False):
    """By counting all products. The keywords are misconceptions."""
    w, x = torch.arange(w_low, w_high + 1)[:, None], torch.arange(x_low, x_high + 1)

    def fits(products):
        low, high = pair * products.min().item(), pair * products.max().item()
        return (low >= -(2**15) or not ends) and high < 2**15

    b = (w.sign() * x).char().long()  # in 8 bits
    turns = not x_edge or torch.equal(w.abs() * b, w * x)
    if w_edge:
        turns = turns and w_low > -128
    by_sign, by_offset = fits(w * x), fits((w + offset) * x)
    values = (
        turns and (by_sign or not vnni_pairs),
        by_offset or not vnni_pairs,
        turns and by_sign,
        by_offset,
    )
    return dict(zip(NAMES, values))


cases = [
    (-128, 127, -128, 127, 128),  # x = −128 cannot be negated
    (-127, 127, -128, 127, 127),
    (0, 127, -128, 127, 0),  # no negative weight: its sign is never turned
    (0, 255 - 128, -127, 127, 128),
    (-8, 7, -128, 127, 8),
    (-8, 7, -127, 127, 128),  # 4-bit codes, but with 8-bit codes' offset
    (-32, 31, -127, 127, 32),
    (-64, 63, -127, 127, 64),
    (-64, 64, -127, 127, 64),  # 128 · 127 · 2 = 32 512
    (-64, 65, -127, 127, 64),  # 129 · 127 · 2 = 32 766
    (-64, 66, -127, 127, 64),  # 130 · 127 · 2 = 33 020
    (0, 127, -128, 0, 1),  # 128 · −128 · 2 = −32 768 just fits
    (0, 127, -128, 0, 128),  # 255 · −128 · 2 falls below int16, and nothing exceeds it
    (0, 127, 0, 127, 3),
    (-128, -128, 127, 127, 128),
    (5, 5, -128, -128, 123),
    (-1, 1, -128, 127, 1),
    (-128, 0, -127, 0, 128),
]
for ranges in cases:
    expected = named(ways(*ranges))
    mistakes = {
        "only the upper end of int16 is checked": lambda: named(ways(*ranges, ends=False)),
        "one product is held against int16, and not the sum of two": lambda: named(ways(*ranges, pair=1)),
        "sums of four products are held against int16; the pairs saturate": lambda: named(ways(*ranges, pair=4)),
        "x = −128 is overlooked: its sign cannot be turned in 8 bits": lambda: named(ways(*ranges, x_edge=False)),
        "w = −128 is taken for the danger; |−128| fits an unsigned byte, −(−128) fits no signed one": lambda: named(
            ways(*ranges, x_edge=False, w_edge=True)
        ),
        "VPDPBUSD is taken to saturate pairs, as the older sequence does": lambda: named(
            ways(*ranges, vnni_pairs=True)
        ),
        "the offset is taken to be 128 whatever is passed": lambda: named(ways(*ranges[:4], 128)),
        "the ranges do not count: the largest bytes are assumed": "sign + VPDPBUSD, offset + VPDPBUSD, sign + older",
        "x = −128 is refused where no weight is negative": lambda: named(
            {name: right and ("sign" not in name or ranges[2] > -128) for name, right in ways(*ranges).items()}
        ),
    }
    check_equal(named(exact_ways(*ranges)), expected, f"exact_ways{ranges}", mistakes)
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (c): where the ridge is
#
# *9 minutes, 5 points*
#
# A linear layer y = x Wᵀ for a batch of m tokens: x is (m, k), W is (n, k), y is (m, n). A **scheme** says how many bits a weight and an
# activation take in memory, and in which number format the device multiplies. The cell below gives three; a 4-bit weight takes 4.5 with its
# share of a float16 scale per 32.
#
# ```
# gemm_seconds         scheme, m, n, k, device   →  (memory seconds, compute seconds)
# first_compute_bound  scheme, n, k, device      →  the smallest m with compute ≥ memory, or None
# fastest              schemes, m, n, k, device  →  the name of the scheme whose bound is lowest
#
# time
#   │      memory: starts at the weights' bytes, rises slowly with x and y
#   │  ╭───────────────────────●──────
#   │  │              ╱  ·  ·  ↑ first compute bound m
#   │  │      ╱  ·  ·        compute: starts at 0, rises with m
#   └──┴──────────────────────────────► m
# ```
#
# | | |
# |:--|:--|
# | Bytes | W at the weights' bits, x at the activations' bits, y at **16** bits whatever the scheme is. Each crosses the bus once |
# | Operations | a multiplication and an addition are two: 2 · m · n · k |
# | Compute | at the peak of the scheme's number format: a dense one, in operations per second. `ValueError` if `device["peaks"]` lacks the format or has None for it |
# | `first_compute_bound` | a whole number from 1 on; None where memory takes longer at every m |
# | Bound | the longer of the two times: they overlap |
# | `fastest` | leaves out schemes that the device cannot run; of equal bounds the first in the dict's order; `ValueError` if no scheme is left |
# | Tolerance | relative 1e-9 for seconds: four or five roundings of float64. No test has an m within 1e-6 of a tie |

# %% nbgrader={"grade": false, "grade_id": "schemes", "locked": true, "schema_version": 3, "solution": false, "task": false}
SCHEMES = {  # name: bits of a weight, bits of an activation, number format of the multiplication
    "W16A16": (16, 16, "FP16"),
    "W8A8": (8, 8, "INT8"),
    "W4A16": (4.5, 16, "FP16"),
}
A100 = {"bandwidth": 2039e9, "peaks": {"FP16": 312e12, "INT8": 624e12, "INT4": 1248e12}}  # 80 GB SXM
H100 = {"bandwidth": 3350e9, "peaks": {"FP16": 989e12, "FP8": 1979e12, "INT8": 1979e12, "INT4": None}}  # SXM
# dense peaks and bytes/s from NVIDIA's data sheets; None: there is no such instruction


# %% nbgrader={"grade": false, "grade_id": "ridge", "locked": false, "schema_version": 3, "solution": true, "task": false}
def gemm_seconds(scheme, m, n, k, device):
    """Return the least seconds for the memory and for the arithmetic of y = x Wᵀ, x `(m, k)`, W `(n, k)`.

    ValueError if the device does not multiply in the scheme's number format.
    """
    ### BEGIN SOLUTION
    weight_bits, activation_bits, arithmetic = scheme
    peak = device["peaks"].get(arithmetic)
    if peak is None:
        raise ValueError(f"the device has no {arithmetic} multiplication")
    bits = weight_bits * n * k + activation_bits * m * k + 16 * m * n
    return bits / 8 / device["bandwidth"], 2 * m * n * k / peak
    ### END SOLUTION


def first_compute_bound(scheme, n, k, device):
    """Return the smallest m whose compute time is at least its memory time, None if there is none."""
    ### BEGIN SOLUTION
    memory_1, compute_1 = gemm_seconds(scheme, 1, n, k, device)
    weights = scheme[0] * n * k / 8 / device["bandwidth"]
    gain = compute_1 - (memory_1 - weights)  # by which compute gains on memory with each token
    return max(1, math.ceil(weights / gain)) if gain > 0 else None
    ### END SOLUTION


def fastest(schemes, m, n, k, device):
    """Return the name of the scheme with the lowest bound at batch m; ValueError if the device can run none."""
    ### BEGIN SOLUTION
    bounds = {}
    for name, scheme in schemes.items():
        if device["peaks"].get(scheme[2]) is not None:
            bounds[name] = max(gemm_seconds(scheme, m, n, k, device))
    if not bounds:
        raise ValueError("the device runs none of these schemes")
    return min(bounds, key=bounds.get)
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Both times are straight lines in m. Where do they start, and which is steeper? In a thin layer the memory line can be the steeper one for ever.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# memory(m) = weights + m · (x and y of one token), compute(m) = m · (operations of one token). The crossing is weights over the difference of the slopes,
# rounded up; if the difference is not positive there is none. A search by trying m = 1, 2, 3 … never ends then.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# memory  = (w_bits * n * k + a_bits * m * k + 16 * m * n) / 8 / bandwidth
# compute = 2 * m * n * k / peak
#
# slope = compute per token - memory of x and y per token
# answer = None if slope <= 0 else at least 1, and ceil(memory of W / slope)
#
# pick the name with the smallest max(memory, compute) among those with a peak
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-ridge", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
import math

from course.checks import check_close, check_equal, check_raises

WHY = "float64 roundings"


def text(value):
    """A batch or None as text."""
    return "None" if value is None else f"{value:.12g}"


layer = (4096, 4096)
memory, compute = gemm_seconds(SCHEMES["W16A16"], 1, *layer, A100)
mistakes = {
    "bits are taken for bytes": 33570816 * 8 / 2039e9,
    "activations and results are left out of the bytes": 33554432 / 2039e9,
}
check_close(memory, 33570816 / 2039e9, 1e-14, "gemm_seconds, W16A16, m = 1 on an A100: memory", WHY, mistakes)
mistakes = {"a multiplication with its addition is counted as one operation": 4096**2 / 312e12}
check_close(compute, 2 * 4096**2 / 312e12, 1e-16, "gemm_seconds, W16A16, m = 1 on an A100: compute", WHY, mistakes)
for name, m, plain in (("W16A16", 166, 154), ("W8A8", 173, 154), ("W4A16", 47, 44)):
    mistakes = {
        "activations and results are left out of the bytes": plain,
        "the crossing is rounded down": m - 1,
        "results are counted with the activations' bits; they have 16": 166 if name == "W8A8" else m,
        "the multiplication runs at the rate of the weights' format; W4A16 multiplies in FP16": 246,
    }
    got = first_compute_bound(SCHEMES[name], *layer, A100)
    assert got is not None, f"first_compute_bound, {name} on an A100: got None, expected {m}"
    check_close(got, m, 0.0, f"first_compute_bound, {name}, 4096 × 4096 on an A100", "exact", mistakes)
never = text(first_compute_bound(SCHEMES["W16A16"], 64, 64, A100))
what = "first_compute_bound, W16A16, 64 × 64 on an A100, where memory is always longer, whatever the batch"
check_equal(never, "None", what)
mistakes = {"compute time alone decides": "W8A8"}
check_equal(fastest(SCHEMES, 1, *layer, A100), "W4A16", "fastest at m = 1 on an A100", mistakes)
mistakes = {"the fewest bytes win at every batch": "W4A16"}
check_equal(fastest(SCHEMES, 2048, *layer, A100), "W8A8", "fastest at m = 2048 on an A100", mistakes)
for peaks in (H100["peaks"], {}):
    device = {"bandwidth": 3350e9, "peaks": peaks}
    check_raises(
        ValueError, f"gemm_seconds in INT4 with peaks {peaks}", gemm_seconds, (4, 4, "INT4"), 1, *layer, device
    )
### BEGIN HIDDEN TESTS
from fractions import Fraction

from quant_kernels.hardware import HARDWARE
from quant_kernels.roofline import ridge_batch


def exactly(scheme, m, n, k, device, operations=2, x_and_y=True, y_bits=16, a_bits=None, by_weight=False, unit=8):
    """Both times as fractions. The keywords are misconceptions."""
    w, a, arithmetic = scheme
    peak = device["peaks"][arithmetic]
    if by_weight and w < 8:
        peak = device["peaks"].get("INT4") or 4 * device["peaks"]["FP16"]
    a = a if a_bits is None else w
    y_bits = a if y_bits is None else y_bits
    bits = Fraction(w) * n * k + ((a * m * k + y_bits * m * n) if x_and_y else 0)
    return bits / unit / Fraction(device["bandwidth"]), Fraction(operations * m * n * k) / Fraction(peak)


def crossing(scheme, n, k, device, **wrong):
    """The m at which both times are equal, as a fraction, or None."""
    start, _ = exactly(scheme, 0, n, k, device, **wrong)
    memory, compute = exactly(scheme, 1, n, k, device, **wrong)
    return start / (compute - (memory - start)) if compute > memory - start else None


def first(*args, rounding=math.ceil, **wrong):
    m = crossing(*args, **wrong)
    return "None" if m is None else str(max(1, rounding(m)))


WRONG = {
    "a multiplication with its addition is counted as one operation": {"operations": 1},
    "activations and results are left out of the bytes": {"x_and_y": False},
    "results are counted with the activations' bits; they have 16": {"y_bits": None},
    "activations are counted with the weights' bits": {"a_bits": 0},
    "the multiplication runs at the rate of the weights' format; W4A16 multiplies in FP16": {"by_weight": True},
    "bits are taken for bytes": {"unit": 1},
}
schemes = {
    **SCHEMES,
    "W8A16": (8, 16, "FP16"),
    "W4A8": (4.25, 8, "INT8"),
    "W8A8 FP8": (8, 8, "FP8"),
}
slow = {"bandwidth": 90e9, "peaks": {"FP16": 1.1e12, "INT8": 2.5e12}}
shapes = ((4096, 4096), (11008, 4096), (512, 4096), (4096, 130), (300, 70), (96, 8192))
for device_name, device in {"an A100": A100, "an H100": H100, "a CPU": slow}.items():
    for name, scheme in schemes.items():
        if not device["peaks"].get(scheme[2]):
            check_raises(ValueError, f"gemm_seconds, {name} on {device_name}", gemm_seconds, scheme, 4, 64, 64, device)
            continue
        for n, k in shapes:
            for m in (1, 37):
                for part, what in ((0, "memory"), (1, "compute")):
                    right = float(exactly(scheme, m, n, k, device)[part])
                    mistakes = {
                        idea: lambda wrong=wrong: float(exactly(scheme, m, n, k, device, **wrong)[part])
                        for idea, wrong in WRONG.items()
                    }
                    title = f"gemm_seconds, {name}, m = {m}, {n} × {k} on {device_name}: {what}"
                    check_close(gemm_seconds(scheme, m, n, k, device)[part], right, 1e-9 * right, title, WHY, mistakes)
            exact = crossing(scheme, n, k, device)
            assert exact is None or abs(exact - round(exact)) > 1e-6, "a test stands too near to a tie"
            mistakes = {
                idea: lambda wrong=wrong: first(scheme, n, k, device, **wrong) for idea, wrong in WRONG.items()
            } | {
                "the crossing is rounded down": lambda: first(scheme, n, k, device, rounding=math.floor),
                "the crossing is rounded to the nearest": lambda: first(scheme, n, k, device, rounding=round),
            }
            title = f"first_compute_bound, {name}, {n} × {k} on {device_name}"
            got = text(first_compute_bound(scheme, n, k, device))
            if first(scheme, n, k, device) == "None" and got != "None":
                title += ", where memory is always longer, whatever the batch"
            check_equal(got, first(scheme, n, k, device), title, mistakes)

# a layer so large that x and y do not count: the ridge of the reference
for device_name in ("A100 80GB SXM", "H100 SXM"):
    reference = HARDWARE[device_name]
    device = {"bandwidth": reference.bandwidth, "peaks": dict(reference.peaks)}
    for bits, arithmetic in ((16, "FP16"), (4.5, "FP16"), (8, "INT8")):
        expected = math.ceil(ridge_batch(reference, bits, arithmetic))
        got = first_compute_bound((bits, 16, arithmetic), 2**30, 2**30, device)
        check_equal(text(got), text(expected), f"first_compute_bound of a huge layer, {bits} bits on {device_name}")

quick = {"bandwidth": 1e15, "peaks": {"FP16": 1e9}}
check_equal(
    text(first_compute_bound((8, 8, "FP16"), 64, 64, quick)), "1", "first_compute_bound where one token is enough"
)


def bound(name, m, n, k, device, combine=max, **wrong):
    return combine(exactly(schemes[name], m, n, k, device, **wrong))


for device_name, device in {"an A100": A100, "an H100": H100, "a CPU": slow}.items():
    able = [name for name in schemes if device["peaks"].get(schemes[name][2])]
    for n, k in ((4096, 4096), (512, 4096), (14336, 4096)):
        for m in (1, 30, 60, 90, 128, 200, 600, 4000):
            mistakes = {
                "memory and compute times are added; they overlap": lambda: min(
                    able, key=lambda name: bound(name, m, n, k, device, sum)
                ),
                "the fewest bytes win at every batch": min(able, key=lambda name: schemes[name][0]),
                "compute time alone decides": lambda: min(
                    able, key=lambda name: bound(name, m, n, k, device, lambda pair: pair[1])
                ),
            } | {
                idea: lambda wrong=wrong: min(able, key=lambda name: bound(name, m, n, k, device, **wrong))
                for idea, wrong in WRONG.items()
            }
            bounds = sorted(bound(name, m, n, k, device) for name in able)
            right = min(able, key=lambda name: bound(name, m, n, k, device))
            if bounds[0] == bounds[1] or bounds[1] / bounds[0] > 1 + 1e-6:
                title = f"fastest of {len(schemes)} at m = {m}, {n} × {k} on {device_name}"
                check_equal(fastest(schemes, m, n, k, device), right, title, mistakes)
for none in ({"W4A4": (4, 4, "INT4")}, {}):
    check_raises(ValueError, f"fastest of {none} on an H100", fastest, none, 1, 64, 64, H100)
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (d): a tiled int8 GEMM with zero points
#
# *10 minutes, 6 points*
#
# A tensor core has one instruction, and it takes whole tiles only. `mma` below emulates the shape m16n8k32 with unsigned activations and signed weights; it
# is the **only** multiplication of codes that your GEMM may use. Leave the cell as it is.


# %%
def mma(c, a, b):
    """c + a bᵀ for one tile: c int32 (16, 8), a uint8 (16, 32), b int8 (8, 32)."""
    for name, tile, shape, dtype in (
        ("c", c, (16, 8), torch.int32),
        ("a", a, (16, 32), torch.uint8),
        ("b", b, (8, 32), torch.int8),
    ):
        if tuple(tile.shape) != shape or tile.dtype != dtype:
            raise ValueError(f"mma takes {name} as {dtype} {shape}, not as {tile.dtype} {tuple(tile.shape)}")
    mma.calls += 1
    return c + a.to(torch.int32) @ b.to(torch.int32).T


mma.calls = 0

# %% [markdown]
# ```
# int8_gemm   a: uint8 (M, K)   b: int8 (N, K)   a_zero: int32 (M,)   b_zero: int32 (N,)   →  int32 (M, N)
#
# result[i, j]  =  Σ over k of  (a[i, k] − a_zero[i]) · (b[j, k] − b_zero[j])
#
#               K
#        ┌──32──┬──32──┬ · ┐
#     16 │ mma ─┼► mma ┼►· │   one accumulator (16, 8) walks along K
#        ├──────┼──────┼ · ┤
#     M  ·      ·      ·   ·   tails: fewer than 16 rows of a, 8 rows of b, 32 columns
# ```
#
# | | |
# |:--|:--|
# | Operands | a: activations' codes, a zero point of 0 … 255 per token. b: weights' codes, a zero point of −128 … 127 per output |
# | Result | exact. M, N ≥ 1 and 1 ≤ K ≤ 16 384, so that no term leaves int32 |
# | Differences | a − a_zero lies in −255 … 255 and fits no byte, so it cannot be an operand: the **codes** go through `mma`, and the zero points are put right afterwards |
# | Calls | exactly ⌈M/16⌉ · ⌈N/8⌉ · ⌈K/32⌉ calls of `mma`. Sums over rows of codes are ordinary integer sums |
# | Tails | M, N and K are any numbers: pad, and mind what the padding adds |


# %% nbgrader={"grade": false, "grade_id": "gemm", "locked": false, "schema_version": 3, "solution": true, "task": false}
def int8_gemm(a, b, a_zero, b_zero):
    """Multiply uint8 `(M, K)` with int8 `(N, K)` by tiles, with a zero point per row of each; int32 `(M, N)`."""
    ### BEGIN SOLUTION
    (M, K), N = a.shape, len(b)
    pad = torch.nn.functional.pad
    a_tiles = pad(a, (0, -K % 32, 0, -M % 16)).unflatten(0, (-1, 16)).unflatten(-1, (-1, 32))  # (m, 16, k, 32)
    b_tiles = pad(b, (0, -K % 32, 0, -N % 8)).unflatten(0, (-1, 8)).unflatten(-1, (-1, 32))  # (n, 8, k, 32)
    products = torch.empty(len(a_tiles) * 16, len(b_tiles) * 8, dtype=torch.int32)
    for i, rows in enumerate(a_tiles):
        for j, columns in enumerate(b_tiles):
            c = torch.zeros(16, 8, dtype=torch.int32)
            for k in range(rows.shape[1]):
                c = mma(c, rows[:, k], columns[:, k])
            products[16 * i : 16 * i + 16, 8 * j : 8 * j + 8] = c
    a_sum, b_sum = a.sum(1, dtype=torch.int32), b.sum(1, dtype=torch.int32)  # (M,), (N,): zeros add nothing
    correction = a_zero[:, None] * b_sum + a_sum[:, None] * b_zero - K * a_zero[:, None] * b_zero
    return products[:M, :N] - correction
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Multiply (a − z)(b − t) out before you write anything. Four sums; which of them need `mma`, and which depend on one side only?
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Σ a b − z Σ b − t Σ a + K z t. Pad both sides with the code 0: then neither products nor sums notice the padding, and K is the true K. (Or pad each
# side with its zero point, and use the padded K and the padded sums.) Σ b is known when the model is loaded; Σ a is one number per token.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# for each 16 rows of a, for each 8 rows of b:
#     c = zeros(16, 8) int32
#     for each 32 columns:  c = mma(c, tile of a, tile of b)
#     put c in its place of a result that is large enough; cut the result to M × N at the end
# result - a_zero[:, None] * sums of b - sums of a[:, None] * b_zero + K * a_zero[:, None] * b_zero
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-gemm", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_equal


def int32(*values):
    return torch.tensor(values, dtype=torch.int32)


# (10 − 12)(3 − 1) + (20 − 12)(−4 − 1) = −44
a, b = torch.tensor([[10, 20]]).byte(), torch.tensor([[3, -4]]).char()
mistakes = {
    "the zero points are left out": int32([-50]),
    "the padding is counted: K is the number of true columns": int32([-44 + 30 * 12]),
    "the last term, K times both zero points, is missing": int32([-68]),
    "the last term, K times both zero points, has the wrong sign": int32([-92]),
    "both sums are added; (a − z)(b − t) subtracts them": int32([-50 - 12 + 30 + 24]),
    "only the activations' zero point is put right": int32([-38]),
    "only the weights' zero point is put right": int32([-80]),
    "each zero point is multiplied with its own side's sum, not with the other's": int32([-385]),
    "the columns beyond the last whole tile are left out": int32([6]),
}
check_equal(
    int8_gemm(a, b, int32(12), int32(1)), int32([-44]), "int8_gemm of 10 20 and 3 −4, zero points 12 and 1", mistakes
)
before = mma.calls
ones = int8_gemm(torch.ones(17, 33).byte(), torch.ones(9, 33).char(), torch.zeros(17).int(), torch.zeros(9).int())
calls = mma.calls - before
mistakes = {"the accumulator begins anew with every tile of K: the last one alone is left": torch.ones(17, 9).int()}
check_equal(ones, torch.full((17, 9), 33).int(), "int8_gemm of ones, 17 × 33 and 9 × 33", mistakes)
assert calls == 8, f"int8_gemm of 17 × 33 and 9 × 33 calls mma {calls} times, expected 2 · 2 · 2 = 8" + (
    ": the products of codes bypass it" if calls == 0 else ""
)
### BEGIN HIDDEN TESTS
from course.checks import check_raises

tiles = torch.zeros(16, 8).int(), torch.zeros(16, 32).byte(), torch.zeros(8, 32).char()
check_equal(
    mma(tiles[0], tiles[1] + 255, tiles[2] - 128),
    torch.full((16, 8), -255 * 128 * 32).int(),
    "mma, as it was given out",
)
check_raises(ValueError, "mma with a tile of 16 × 16", mma, tiles[0], tiles[1][:, :16], tiles[2][:, :16])


def gemm(a, b, za, zb, columns=None, signs=(1, -1, -1, 1), only=slice(None), of=torch.float64):
    """The four sums in int64, or one misconception of them."""
    a, b, za, zb = a.long(), b.long(), za.long()[:, None], zb.long()
    K = columns or a.shape[1]
    products = (a[:, only].to(of) @ b[:, only].to(of).T).long()  # float64 is exact here
    terms = products, za * b.sum(1), a.sum(1, keepdim=True) * zb, K * za * zb
    return sum(sign * term for sign, term in zip(signs, terms)).int()


def wrapped(a, b, za, zb):
    differences = (a.long() - za[:, None]).char().double(), (b.long() - zb[:, None]).char().double()
    return (differences[0] @ differences[1].T).int()


def narrow(a, b, za, zb):
    """As with an accumulator of 16 bits."""
    products = (a.double() @ b.double().T).long().short().int()
    return gemm(a, b, za, zb, signs=(0, -1, -1, 1)) + products


def cut(result, M, N):
    """The rows and columns beyond the last whole tile left at 0."""
    result = result.clone()
    result[M // 16 * 16 :] = 0
    result[:, N // 8 * 8 :] = 0
    return result


generator = torch.Generator().manual_seed(405)


def draw(M, N, K, low=0):
    a = torch.randint(low, 256, (M, K), generator=generator, dtype=torch.uint8)
    b = torch.randint(-128 + low, 128, (N, K), generator=generator).char()
    za, zb = (
        torch.randint(0, 256, (M,), generator=generator).int(),
        torch.randint(-128, 128, (N,), generator=generator).int(),
    )
    return a, b, za, zb


same = draw(24, 24, 40)
cases = {
    "whole tiles": draw(32, 16, 64),
    "tails everywhere": draw(19, 13, 77),
    "fewer than a tile": draw(3, 2, 5),
    "one of each": draw(1, 1, 1),
    "as many tokens as outputs": same,
    "no zero points": (*same[:2], same[2] * 0, same[3] * 0),
    "zero points of the weights alone": (*same[:2], same[2] * 0, same[3]),
    "zero points of the activations alone": (*same[:2], same[2], same[3] * 0),
    "large codes, K = 2047": draw(5, 3, 2047, low=230),
    "strided": (same[0].T.contiguous().T, same[1].flip(1).flip(1)[:, ::1], same[2], same[3]),
}
for name, (a, b, za, zb) in cases.items():
    (M, K), N = a.shape, len(b)
    full = K % 32 or 32
    mistakes = {
        "the zero points are left out": lambda: gemm(a, b, za, zb, signs=(1, 0, 0, 0)),
        "the padding is counted: K is the number of true columns": lambda: gemm(a, b, za, zb, columns=-(-K // 32) * 32),
        "K is taken to be one tile's 32 columns": lambda: gemm(a, b, za, zb, columns=32),
        "the last term, K times both zero points, is missing": lambda: gemm(a, b, za, zb, signs=(1, -1, -1, 0)),
        "the last term, K times both zero points, has the wrong sign": lambda: gemm(
            a, b, za, zb, signs=(1, -1, -1, -1)
        ),
        "both sums are added; (a − z)(b − t) subtracts them": lambda: gemm(a, b, za, zb, signs=(1, 1, 1, 1)),
        "only the activations' zero point is put right": lambda: gemm(a, b, za, zb, signs=(1, -1, 0, 0)),
        "only the weights' zero point is put right": lambda: gemm(a, b, za, zb, signs=(1, 0, -1, 0)),
        "each zero point is multiplied with its own side's sum, not with the other's": lambda: (
            gemm(a, b, za, zb, signs=(1, 0, 0, 1))
            - (za.long() * a.long().sum(1))[:, None].int()
            - (zb.long() * b.long().sum(1)).int()
        ),
        "the columns beyond the last whole tile are left out": lambda: gemm(a, b, za, zb, only=slice(0, K // 32 * 32)),
        "the accumulator begins anew with every tile of K: the last one alone is left": lambda: gemm(
            a, b, za, zb, only=slice(K - full, K)
        ),
        "rows beyond the last whole tile are left out": lambda: cut(gemm(a, b, za, zb), M, N),
        "codes minus zero points are squeezed into 8 bits, where they wrap around": lambda: wrapped(a, b, za, zb),
        "sums are kept in 16 bits": lambda: narrow(a, b, za, zb),
        "sums of codes wrap around at 8 bits": lambda: (
            gemm(a, b, za, zb, signs=(1, 0, 0, 1))
            - (za[:, None] * b.sum(1).char()).int()
            - (a.sum(1).byte()[:, None] * zb).int()
        ),
        "the sum of the activations' codes wraps around at 8 bits": lambda: (
            gemm(a, b, za, zb, signs=(1, -1, 0, 1)) - (a.sum(1).byte()[:, None] * zb).int()
        ),
        "the zero points of tokens and of outputs are swapped": lambda: gemm(a, b, zb, za) if M == N else zb,
    }
    before = mma.calls
    got = int8_gemm(a, b, za, zb)
    calls, expected = mma.calls - before, -(-M // 16) * -(-N // 8) * -(-K // 32)
    check_equal(got, gemm(a, b, za, zb), f"int8_gemm, {name}, M = {M}, N = {N}, K = {K}", mistakes)
    assert calls == expected, f"int8_gemm, {name}: mma is called {calls} times, expected {expected}" + (
        ": the products of codes bypass it" if calls == 0 else ""
    )
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (e): choose a kernel
#
# *8 minutes, 4 points*
#
# A checkpoint says how weights are stored and how narrow activations may become. A target says what it multiplies. Between the two stands the rule that all
# engines follow in some form: **widen, never narrow**. Codes are widened in registers, on the way to the multiplier, to the narrowest type that holds
# them exactly; scales are applied apart.

# %% nbgrader={"grade": false, "grade_id": "targets", "locked": true, "schema_version": 3, "solution": false, "task": false}
BITS = {"FP32": 32, "FP16": 16, "FP8": 8, "INT8": 8, "FP4": 4, "INT4": 4}  # FP8 is E4M3, FP4 is E2M1

HOLDS = {  # every value of the types on the right is a value of the type on the left
    "FP32": ["FP32", "FP16", "FP8", "INT8", "FP4", "INT4"],
    "FP16": ["FP16", "FP8", "INT8", "FP4", "INT4"],  # bfloat16 too
    "FP8": ["FP8", "FP4", "INT4"],  # four significant bits: −8 … 7 fit, 127 does not
    "INT8": ["INT8", "INT4"],
    "FP4": ["FP4"],  # 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives
    "INT4": ["INT4"],
}

TARGETS = {
    # multiplies: what the hardware has instructions for
    # no_kernel: what vLLM has no kernel for all the same (its page on INT8 W8A8: not from compute capability 10.0 on)
    # operands: of the instruction for INT8: any signs; both signed; unsigned × signed, where pairs may saturate in int16
    "sm80 (A100)": {"multiplies": ["FP16", "INT8", "INT4"], "no_kernel": [], "operands": "any"},
    "sm89 (L40S, RTX 4090)": {"multiplies": ["FP16", "FP8", "INT8", "INT4"], "no_kernel": [], "operands": "any"},
    "sm90 (H100)": {"multiplies": ["FP16", "FP8", "INT8"], "no_kernel": [], "operands": "any"},
    "sm100 (B200)": {"multiplies": ["FP16", "FP8", "INT8", "FP4"], "no_kernel": ["INT8"], "operands": "any"},
    "AVX2": {"multiplies": ["FP32", "INT8"], "no_kernel": [], "operands": "u8 × s8 in int16 pairs"},
    "AVX-VNNI": {"multiplies": ["FP32", "INT8"], "no_kernel": [], "operands": "u8 × s8"},
    "AVX512-VNNI": {"multiplies": ["FP32", "INT8"], "no_kernel": [], "operands": "u8 × s8"},
    "NEON dot product": {"multiplies": ["FP32", "INT8"], "no_kernel": [], "operands": "s8 × s8"},
    "NEON i8mm": {"multiplies": ["FP32", "INT8"], "no_kernel": [], "operands": "s8 × s8"},
    "ANE before A17 Pro and M4": {"multiplies": ["FP16"], "no_kernel": [], "operands": None},
    "ANE from A17 Pro and M4 on": {"multiplies": ["FP16", "INT8"], "no_kernel": [], "operands": "s8 × s8"},
    "Metal (llama.cpp's kernels)": {"multiplies": ["FP32", "FP16"], "no_kernel": [], "operands": None},
}

# %% [markdown]
# Sources: sm80 to sm100 as `quant_kernels.hardware` names them (NVIDIA's data sheets; no INT4 on Hopper: nunchux-ai/nunchaku issue 62,
# IST-DASLab/marlin issue 4); the instruction sets as in background 1; the Neural Engine from the Core ML Tools guide, "Quantization: Performance"; Metal from
# llama.cpp's `ggml-metal` kernels, which widen in registers. CPU rows leave out extensions that their name does not imply (float16 or bfloat16 dots, AMX).
#
# ```
# plan   weights, activations, target      →  (math, feed)     two names of types, one of the dicts above
# best   checkpoints, target, bound        →  a name           checkpoints: name to (weights, activations)
#                                                              bound: "memory" or "compute"
# ```
#
# | `plan` | |
# |:--|:--|
# | `math` | of the types that the target multiplies and has a kernel for, and that hold both the weights **and** the activations: the one with the fewest bits. Of two with equally few, the one of the weights' family (INT or FP). `ValueError` if there is none |
# | Activations | "INT8" means "may be rounded to INT8": if `math` turns out wider, they simply stay wider. "FP16" means that they must not be rounded further |
# | `feed` | how INT8 operands enter. `"as they are"` unless `math` is INT8 and the operands are u8 × s8; then `"offset"`, or, where pairs saturate in int16 and the offset could make them do so, `"sign"` |
# | Code ranges | for `feed`: INT8 weights −128 … 127 with offset 128, INT4 weights −8 … 7 with offset 8, activations −127 … 127 |
#
# | `best` | |
# |:--|:--|
# | `"memory"` | the fewest bits per weight; of equal ones the fewest bits of `math` |
# | `"compute"` | the fewest bits of `math`; of equal ones the fewest bits per weight |
# | Both | of those still equal the first in the dict's order. Checkpoints that the target cannot run are left out; `ValueError` if none is left |
#
# (Bits of `math` stand for speed here: half the bits, twice the dense peak, as on the sheets of the A100, the H100 and the B200.)


# %% nbgrader={"grade": false, "grade_id": "plan", "locked": false, "schema_version": 3, "solution": true, "task": false}
def plan(weights, activations, target):
    """Return the type in which a target multiplies a checkpoint, and how INT8 operands are fed: (math, feed)."""
    ### BEGIN SOLUTION
    usable = [
        name
        for name in target["multiplies"]
        if name not in target["no_kernel"] and {weights, activations} <= set(HOLDS[name])
    ]
    if not usable:
        raise ValueError(f"the target cannot multiply {weights} weights with {activations} activations")
    math_type = min(usable, key=lambda name: (BITS[name], name[:2] != weights[:2]))
    feed = "as they are"
    if math_type == "INT8" and target["operands"].startswith("u8"):
        largest = {"INT8": 255, "INT4": 15}[weights]  # with the offset
        saturates = target["operands"] != "u8 × s8" and 2 * largest * 127 > 32767
        feed = "sign" if saturates else "offset"
    return math_type, feed
    ### END SOLUTION


def best(checkpoints, target, bound):
    """Return the name of the checkpoint to ship on a target whose work is bound by "memory" or by "compute"."""
    ### BEGIN SOLUTION
    ranks = {}
    for name, (weights, activations) in checkpoints.items():
        try:
            math_type, _ = plan(weights, activations, target)
        except ValueError:
            continue
        rank = BITS[weights], BITS[math_type]
        ranks[name] = rank if bound == "memory" else rank[::-1]
    if not ranks:
        raise ValueError("the target runs none of these checkpoints")
    return min(ranks, key=ranks.get)
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# W4A16 is the case to think through: 4-bit weights, activations that must stay. Which types hold both?
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Filter, then take the minimum. Three filters: the target multiplies it, the engine has a kernel, and it holds both sides. The key of the minimum is a pair: bits, then "not of
# the weights' family". For `feed` ask what two products can reach: 2 · 255 · 127 or 2 · 15 · 127 against 32 767.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# candidates = [t for t in multiplies
#               if t not in no_kernel and weights in HOLDS[t] and activations in HOLDS[t]]
# type = the candidate with the smallest (bits, is the other family)
# feed = "as they are" unless INT8 meets "u8 × s8...";
#        there "sign" for INT8 weights in int16 pairs, else "offset"
#
# best: the smallest (weight bits, math bits), or that pair turned round
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-plan", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
from course.checks import check_equal, check_raises


def spoken(pair):
    """What `plan` returned, as one text."""
    math_type, feed = pair
    return f"{math_type}, {feed}"


def check_plan(weights, activations, name, expected, mistakes):
    what = f"plan, {weights} weights, {activations} activations on {name}"
    check_equal(spoken(plan(weights, activations, TARGETS[name])), expected, what, mistakes)


def check_best(name, bound, expected, mistakes):
    check_equal(best(shelf, TARGETS[name], bound), expected, f"best on {name}, bound by {bound}", mistakes)


mistakes = {
    "the weights alone decide; the type has to hold the activations too": "INT8, as they are",
    "the weights' type is multiplied, whatever the target has": "INT4, as they are",
}
check_plan("INT4", "FP16", "sm90 (H100)", "FP16, as they are", mistakes)
mistakes = {
    "INT4 is multiplied on Hopper, which has no such instruction": "INT4, as they are",
    "of two types with equally few bits the one of the other family is taken": "FP8, as they are",
    "the widest type is taken": "FP16, as they are",
}
check_plan("INT4", "INT4", "sm90 (H100)", "INT8, as they are", mistakes)
mistakes = {"FP8 is multiplied on Ampere, which has no such instruction": "FP8, as they are"}
check_plan("FP8", "FP8", "sm80 (A100)", "FP16, as they are", mistakes)
mistakes = {"the missing kernel is overlooked": "INT8, as they are"}
check_plan("INT8", "INT8", "sm100 (B200)", "FP16, as they are", mistakes)
mistakes = {
    "the sign is transferred where the offset is exact": "INT8, sign",
    "signed codes are fed to u8 × s8 as they are": "INT8, as they are",
}
check_plan("INT8", "INT8", "AVX512-VNNI", "INT8, offset", mistakes)
mistakes = {"the offset is used where pairs of 2 · 255 · 127 saturate in int16": "INT8, offset"}
check_plan("INT8", "INT8", "AVX2", "INT8, sign", mistakes)
mistakes = {"operands are changed although both may be signed": "INT8, offset"}
check_plan("INT8", "INT8", "NEON dot product", "INT8, as they are", mistakes)

shelf = {"FP16": ("FP16", "FP16"), "W8A8 INT8": ("INT8", "INT8"), "W8A8 FP8": ("FP8", "FP8"), "W4A16": ("INT4", "FP16")}
by_compute = {"the narrowest multiplication wins although the work is bound by memory": "W8A8 INT8"}
by_memory = {"the fewest weight bits win although the work is bound by compute": "W4A16"}
for case in (
    ("sm90 (H100)", "memory", "W4A16", by_compute),
    ("sm90 (H100)", "compute", "W8A8 INT8", by_memory),
    ("sm100 (B200)", "compute", "W8A8 FP8", by_memory | {"the missing kernel is overlooked": "W8A8 INT8"}),
):
    check_best(*case)
### BEGIN HIDDEN TESTS
TYPES = ("FP16", "FP8", "INT8", "FP4", "INT4")


def chosen(
    weights, activations, target, hardware=True, kernels=True, by=("w", "a"), family=True, widest=False, feed="right"
):
    """The contract in one line each, or a misconception of it; None if nothing is left."""
    held = {"w": weights, "a": activations}
    usable = [name for name in (target["multiplies"] if hardware else BITS)]
    usable = [name for name in usable if not (kernels and name in target["no_kernel"])]
    usable = [name for name in usable if all(held[side] in HOLDS[name] for side in by)]
    if not usable:
        return None
    key = lambda name: (BITS[name], (name[:2] != weights[:2]) == family)
    math_type = (max if widest else min)(usable, key=key)
    way, operands = "as they are", target["operands"] or ""
    if math_type == "INT8" and operands.startswith("u8"):
        way = "sign" if "pairs" in operands and weights == "INT8" else "offset"
        way = {"right": way, "never": "as they are", "pairs": "sign" if "pairs" in operands else "offset"}.get(
            feed, feed
        )
    if feed == "all" and math_type == "INT8":
        way = "offset"
    return f"{math_type}, {way}"


WRONG = {
    "a type is chosen that the target does not multiply": {"hardware": False},
    "the missing kernel is overlooked": {"kernels": False},
    "the weights alone decide; the type has to hold the activations too": {"by": "w"},
    "the activations alone decide; the type has to hold the weights too": {"by": "a"},
    "of two types with equally few bits the one of the other family is taken": {"family": False},
    "the widest type is taken": {"widest": True},
    "signed codes are fed to u8 × s8 as they are": {"feed": "never"},
    "the offset is used where pairs of 2 · 255 · 127 saturate in int16": {"feed": "offset"},
    "4-bit codes are taken to saturate pairs; 2 · 15 · 127 fits int16": {"feed": "pairs"},
    "the sign is transferred where the offset is exact": {"feed": "sign"},
    "operands are changed although both may be signed": {"feed": "all"},
}
made_up = {
    "a device without kernels for FP8": {
        "multiplies": ["FP32", "FP16", "FP8", "INT8"],
        "no_kernel": ["FP8"],
        "operands": "any",
    },
    "an integer engine": {"multiplies": ["INT8", "INT4"], "no_kernel": [], "operands": "u8 × s8"},
    "a device with its types in another order": {
        "multiplies": ["INT8", "FP8", "FP16", "FP4"],
        "no_kernel": [],
        "operands": "s8 × s8",
    },
    "a device that has FP8 before INT8": {"multiplies": ["FP8", "INT8", "FP16"], "no_kernel": [], "operands": "any"},
}
for name, target in {**TARGETS, **made_up}.items():
    for weights in TYPES:
        for activations in TYPES:
            expected = chosen(weights, activations, target)
            what = f"plan, {weights} weights, {activations} activations on {name}"
            if expected is None:
                check_raises(ValueError, what, plan, weights, activations, target)
                continue
            mistakes = {
                idea: lambda wrong=wrong: chosen(weights, activations, target, **wrong) or ""
                for idea, wrong in WRONG.items()
            }
            check_equal(spoken(plan(weights, activations, target)), expected, what, mistakes)


def pick(checkpoints, target, bound, by=(0, 1), fallback=True):
    ranks = {}
    for name, pair in checkpoints.items():
        math_type = chosen(*pair, target)
        if math_type is None or (not fallback and math_type.split(",")[0] not in pair):
            continue
        bits = BITS[pair[0]], BITS[math_type.split(",")[0]]
        order = by if bound == "memory" else by[::-1]
        ranks[name] = tuple(bits[i] for i in order)
    return min(ranks, key=ranks.get) if ranks else "nothing"


shelves = {
    "4-bit weights": {"W4A16": ("INT4", "FP16"), "W4A8": ("INT4", "INT8"), "W4A4": ("INT4", "INT4")},
    "five checkpoints": {**shelf, "W4A4 FP4": ("FP4", "FP4")},
    "two of 8 bits": {"FP8": ("FP8", "FP8"), "INT8": ("INT8", "INT8")},
    "8-bit weights or 16": {"W16A16": ("FP16", "FP16"), "W8A16": ("INT8", "FP16")},
}
for title, checkpoints in shelves.items():
    for name, target in {**TARGETS, "an integer engine": made_up["an integer engine"]}.items():
        for bound in ("memory", "compute"):
            expected = pick(checkpoints, target, bound)
            what = f"best of {title} on {name}, bound by {bound}"
            if expected == "nothing":
                check_raises(ValueError, what, best, checkpoints, target, bound)
                continue
            mistakes = {
                "checkpoints are left out that the target runs in a wider type": lambda: pick(
                    checkpoints, target, bound, fallback=False
                ),
                "ties are not broken by the other number of bits": lambda: pick(
                    checkpoints, target, bound, by=(0, 0) if bound == "memory" else (1, 1)
                ),
                "the fewest weight bits win although the work is bound by compute": lambda: pick(
                    checkpoints, target, "memory"
                ),
                "the narrowest multiplication wins although the work is bound by memory": lambda: pick(
                    checkpoints, target, "compute"
                ),
            }
            check_equal(best(checkpoints, target, bound), expected, what, mistakes)
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (f): audit a benchmark table
#
# *8 minutes, 5 points*
#
# A row of a benchmark is a claim. A bound that **favours** the claim in every doubt needs no measurement: what exceeds it is impossible. In decoding,
# each step reads all weights once for all sequences of the batch, but for the input embedding (a look-up), and but for what a cache may have kept.
#
# ```
# speed_limit   row, devices   →  tokens per second
# audit         row, devices   →  dict: "limit", "needs", "flags"
# ```
#
# | a row | |
# |:--|:--|
# | `"device"`, `"unit"` | names: what it ran on, and what it says did the multiplying |
# | `"file"`, `"lookup"` | bytes of the model file, and of the input embedding in it (0 where it is the output matrix too) |
# | `"batch"`, `"tokens_per_second"` | sequences decoded together, and the claimed tokens per second of **all of them together** |
# | `"watts"`, `"tokens_per_joule"` | as printed, the latter with two decimals; both None where the table has none |
#
# | a device | |
# |:--|:--|
# | `"bandwidth"`, `"cache"` | bytes per second of its memory; bytes of all its caches |
# | `"units"` | what it has |
#
# | | |
# |:--|:--|
# | Bytes of a step | file − lookup − cache, at least 0: the caches are taken to be full of weights already. KV cache and activations only add, so they are left out |
# | `speed_limit` | batch · bandwidth / bytes of a step; `math.inf` where these are 0; `ValueError` for a device that `devices` does not have |
# | `"limit"` | `speed_limit`, or None for an unknown device |
# | `"needs"` | the bandwidth that the claim needs: claimed steps per second times bytes of a step; None for an unknown device |
# | `"flags"` | a list of names, in this order |
# | · `"device"` | the device is unknown; then neither `"unit"` nor `"bandwidth"` is judged |
# | · `"unit"` | the device does not have the unit |
# | · `"bandwidth"` | the claim is above the limit |
# | · `"efficiency"` | tokens per joule differ from tokens per second over watts by more than half a unit of the second decimal: 0.005 |
# | Tolerance | relative 1e-9; no test stands within 1e-6 of a limit |


# %% nbgrader={"grade": false, "grade_id": "limit", "locked": false, "schema_version": 3, "solution": true, "task": false}
def speed_limit(row, devices):
    """Return the tokens per second that memory allows at most; ValueError for an unknown device."""
    ### BEGIN SOLUTION
    if row["device"] not in devices:
        raise ValueError(f"{row['device']} is not a device with a known memory")
    device = devices[row["device"]]
    step = max(0, row["file"] - row["lookup"] - device["cache"])
    return row["batch"] * device["bandwidth"] / step if step else math.inf
    ### END SOLUTION


# %% nbgrader={"grade": false, "grade_id": "audit", "locked": false, "schema_version": 3, "solution": true, "task": false}
def audit(row, devices):
    """Hold a row of a benchmark against its device: a dict of "limit", "needs" and "flags"."""
    ### BEGIN SOLUTION
    limit, needs, flags = None, None, []
    claimed = row["tokens_per_second"]
    if row["device"] not in devices:
        flags.append("device")
    else:
        device = devices[row["device"]]
        limit = speed_limit(row, devices)
        needs = claimed / row["batch"] * max(0, row["file"] - row["lookup"] - device["cache"])
        if row["unit"] not in device["units"]:
            flags.append("unit")
        if claimed > limit:
            flags.append("bandwidth")
    if row["watts"] is not None and abs(claimed / row["watts"] - row["tokens_per_joule"]) > 0.005:
        flags.append("efficiency")
    return {"limit": limit, "needs": needs, "flags": flags}
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# How many bytes cross the bus in one step, at the very least? How many tokens come of one step?
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Steps per second = claimed tokens per second / batch. The limit turns bytes of a step into tokens, `needs` goes the other way. Watts are joules per second, so tokens per
# second over watts are tokens per joule.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# moved = max(0, whole file less look-up table less cache)
# limit = infinity if nothing is moved, else sequences * bandwidth / moved
# needs = claim / sequences * moved
# flags: walk down the table of the contract; skip two of them if the device is unknown
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-limit", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
import math

from course.checks import check_close, check_raises

devices = {"desktop": {"bandwidth": 100e9, "cache": 0.1e9, "units": ["AVX2"]}}
row = {
    "device": "desktop",
    "unit": "AVX2",
    "file": 4.4e9,
    "lookup": 0.3e9,
    "batch": 1,
    "tokens_per_second": 20.0,
    "watts": 100.0,
    "tokens_per_joule": 0.20,
}
mistakes = {
    "the look-up table and the cache are not taken off": 100 / 4.4,
    "the cache is not taken off": 100 / 4.1,
    "the look-up table is not taken off": 100 / 4.3,
    "the cache is added to what has to be read": 100 / 4.2,
    "GB are taken for GiB": 25 / 1.024**3,
}
check_close(speed_limit(row, devices), 25.0, 25e-9, "speed_limit of 4.4 GB at 100 GB/s", "float64 roundings", mistakes)
mistakes = {"a batch reads the weights once for each of its sequences": 25.0, "batch divides the limit": 25 / 8}
got = speed_limit({**row, "batch": 8}, devices)
check_close(got, 200.0, 200e-9, "speed_limit of the same at batch 8", "float64 roundings", mistakes)
for name in ("a core", ""):
    check_raises(ValueError, f"speed_limit of the device {name!r}", speed_limit, {**row, "device": name}, devices)
### BEGIN HIDDEN TESTS
import random

from quant_kernels.hardware import HARDWARE
from quant_kernels.roofline import streaming_bound

draw = random.Random(407)
for name in ("RTX 4090", "A100 80GB SXM", "M2 Max", "Core i9-13900K, DDR5-5600"):
    reference = HARDWARE[name]
    known = {name: {"bandwidth": reference.bandwidth, "cache": 0, "units": []}}
    claim = {**row, "device": name, "file": 3.83e9, "lookup": 0}
    expected = streaming_bound(3.83e9, reference).tokens_per_second
    check_close(
        speed_limit(claim, known), expected, 1e-9 * expected, f"speed_limit of 3.83 GB on {name}", "float64 roundings"
    )
for _ in range(30):
    bandwidth, cache = draw.uniform(20e9, 5e12), draw.uniform(0, 5e8)
    file, lookup, batch = draw.uniform(1e9, 4e10), draw.uniform(0, 4e8), draw.choice((1, 1, 4, 64))
    known = {"it": {"bandwidth": bandwidth, "cache": cache, "units": []}}
    claim = {**row, "device": "it", "file": file, "lookup": lookup, "batch": batch}
    expected = batch * bandwidth / (file - lookup - cache)
    mistakes = {
        "the look-up table and the cache are not taken off": batch * bandwidth / file,
        "the cache is not taken off": batch * bandwidth / (file - lookup),
        "the look-up table is not taken off": batch * bandwidth / (file - cache),
        "the cache is added to what has to be read": batch * bandwidth / (file - lookup + cache),
        "a batch reads the weights once for each of its sequences": bandwidth / (file - lookup - cache),
        "batch divides the limit": bandwidth / (file - lookup - cache) / batch,
        "GB are taken for GiB": batch * bandwidth / (file - lookup - cache) / 1.024**3,
        "bytes are taken for bits": batch * bandwidth / (file - lookup - cache) / 8,
    }
    check_close(
        speed_limit(claim, known),
        expected,
        1e-9 * expected,
        "speed_limit of a random row",
        "float64 roundings",
        mistakes,
    )
for file, lookup in ((0.05e9, 0.0), (0.25e9, 0.2e9), (0.1e9, 0.0), (0.3e9, 0.2e9)):
    got = speed_limit({**row, "file": file, "lookup": lookup}, devices)
    assert got == math.inf, (
        f"speed_limit of {(file - lookup) / 1e9:.2f} GB in caches of 0.10 GB: got {got}, expected math.inf: "
        "a model that the caches hold need not cross the bus at all"
    )
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-audit", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
from course.checks import check_close, check_equal


def flagged(result):
    return ", ".join(result["flags"]) or "nothing"


devices = {"desktop": {"bandwidth": 100e9, "cache": 0.1e9, "units": ["AVX2", "AVX-VNNI"]}}
row = {
    "device": "desktop",
    "unit": "AVX2",
    "file": 4.4e9,
    "lookup": 0.3e9,
    "batch": 1,
    "tokens_per_second": 20.0,
    "watts": 100.0,
    "tokens_per_joule": 0.20,
}
result = audit(row, devices)
mistakes = {"a claim is flagged for being below the limit": "bandwidth"}
check_equal(flagged(result), "nothing", "audit of an honest row: flags", mistakes)
mistakes = {"bytes of the file are counted that need not be read": 88e9}
check_close(result["needs"], 80e9, 80.0, "audit of an honest row: needs", "float64 roundings", mistakes)
own = float(speed_limit(row, devices))
check_close(
    result["limit"], own, 1e-9 * own, "audit of an honest row: limit, beside your speed_limit", "float64 roundings"
)
loose = {"the printed ratio may be off by a whole unit of its first decimal": "nothing"}
exact = {"the printed ratio has to be exact; it was rounded to two decimals": "efficiency"}
judged = {"a unit is judged although the device is unknown": "device, unit"}
for changes, expected, mistakes in (
    ({"unit": "AVX-512"}, "unit", {"units are not checked": "nothing"}),
    ({"tokens_per_second": 60.0, "tokens_per_joule": 0.60}, "bandwidth", {"the limit is not checked": "nothing"}),
    ({"tokens_per_joule": 0.22}, "efficiency", loose),
    ({"tokens_per_second": 20.3}, "nothing", exact),
    ({"device": "a core without a memory"}, "device", judged),
    ({"watts": None, "tokens_per_joule": None}, "nothing", {}),
):
    check_equal(flagged(audit({**row, **changes}, devices)), expected, f"audit with {changes}: flags", mistakes)
### BEGIN HIDDEN TESTS
import random

ORDER = ("device", "unit", "bandwidth", "efficiency")


def right(row, devices, batch=True, unknown=True, below=False, factor=1.0, loose=0.005):
    device = devices.get(row["device"])
    flags = [] if device else ["device"]
    if device:
        step = max(0, row["file"] - row["lookup"] - device["cache"])
        speed = row["tokens_per_second"] / (row["batch"] if batch else 1)
        if row["unit"] not in device["units"]:
            flags.append("unit")
        if (speed * step * factor > device["bandwidth"]) != below:
            flags.append("bandwidth")
    elif not unknown:
        flags += ["unit"]
    if row["watts"] is not None:
        ratio = row["tokens_per_second"] / row["watts"] * (1 if loose > 0 else row["batch"])
        if abs(ratio - row["tokens_per_joule"]) > abs(loose):
            flags.append("efficiency")
    return ", ".join(name for name in ORDER if name in flags) or "nothing"


draw = random.Random(408)
units = ["FP16", "INT8"]
devices["GPU"] = {"bandwidth": 2e12, "cache": 5e7, "units": units}
for _ in range(60):
    name = draw.choice(("desktop", "GPU", "nobody knows"))
    device, batch = devices.get(name, devices["GPU"]), draw.choice((1, 1, 16))
    limit = batch * device["bandwidth"] / 4e9
    claimed = limit * draw.choice((0.05, 0.4, 3.0, 11.0))  # never near the limit
    watts = draw.choice((None, 15.0, 150.0, 700.0))
    printed = None if watts is None else round(claimed / watts, 2) + draw.choice((0, 0, 0, 0.02, -0.03, 0.5))
    unit = draw.choice((*device["units"], "INT4"))
    claim = {
        "device": name,
        "unit": unit,
        "file": 4.4e9,
        "lookup": 0.3e9,
        "batch": batch,
        "tokens_per_second": claimed,
        "watts": watts,
        "tokens_per_joule": printed,
    }
    if watts is not None and abs(abs(claimed / watts - printed) - 0.005) < 1e-6:
        continue
    result, expected = audit(claim, devices), right(claim, devices)
    mistakes = {
        "a batch is taken to read the weights once for each of its sequences": right(claim, devices, batch=False),
        "a claim is flagged for being below the limit": right(claim, devices, below=True),
        "a unit is judged although the device is unknown": right(claim, devices, unknown=False),
        "the printed ratio has to be exact; it was rounded to two decimals": right(claim, devices, loose=1e-9),
        "the printed ratio may be off by a whole unit of its first decimal": right(claim, devices, loose=0.05),
        "tokens per joule are multiplied by the batch": right(claim, devices, loose=-0.005),
    }
    title = f"audit of {claimed:.6g} tokens/s on {name}, {unit}, batch {batch}, {watts} W, {printed}"
    check_equal(flagged(result), expected, f"{title}: flags", mistakes)
    if name not in devices:
        assert result["limit"] is None and result["needs"] is None, (
            f"{title}: limit and needs of an unknown device are None"
        )
        continue
    step = max(0, 4.4e9 - 0.3e9 - device["cache"])
    mistakes = {"the batch is not counted: a step gives as many tokens as it has sequences": claimed * step}
    check_close(
        result["needs"], claimed / batch * step, 1e-9 * claimed * step, f"{title}: needs", "float64 roundings", mistakes
    )
### END HIDDEN TESTS

# %% [markdown]
# ## Experiment: this machine, and a table from the web
#
# It uses your `speed_limit` and `audit` of (f) and your `gemm_seconds` and `first_compute_bound` of (c). None of it is graded. Close what else is running: other
# work takes its share of the bandwidth.
#
# **1. Bandwidth, and what a small benchmark says about it.** A float32 matrix-vector product reads each number once. The same
# product is timed for matrices of 1 MiB to 256 MiB.

# %% tags=["experiment"]
import matplotlib.pyplot as plt
import torch

from quant_kernels.measures.machine import best_seconds, measure_bandwidth, measured_hardware

sizes = [2**power for power in range(20, 29)]
ladder = [measure_bandwidth(size, rounds=max(10, 2**26 // size)) for size in sizes]

figure, axes = plt.subplots(figsize=(7.5, 3.2))
axes.plot([size / 2**20 for size in sizes], [speed / 1e9 for speed in ladder], marker="o")
axes.set_xscale("log", base=2)
axes.set_xticks([size / 2**20 for size in sizes], [f"{size // 2**20}" for size in sizes])
for size, speed in zip(sizes, ladder):
    axes.annotate(
        f"{speed / 1e9:.0f}",
        (size / 2**20, speed / 1e9),
        xytext=(0, 6),
        textcoords="offset points",
        fontsize=9,
        ha="center",
    )
axes.set(
    xlabel="size of the matrix, MiB",
    ylabel="GB/s",
    title=f"matrix-vector product in float32, {torch.get_num_threads()} threads",
    ylim=(0, 1.2 * max(ladder) / 1e9),
)
axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# When we ran it, on two cores of a server CPU: 111 to 127 GB/s up to 4 MiB (a core's own cache), 56 from 8 to 64 MiB (the shared one), 32 at 256 MiB.
# The left end is the speed of a cache, the right end comes near that of memory. A benchmark of one layer that fits a cache measures the left end, and no model
# of several GB ever runs at it. Your audit has to know the difference: the same claim, once with the cache in the device's data and once without.

# %% tags=["experiment"]
small = sizes[3]  # 8 MiB
claim = {
    "device": "this machine",
    "unit": "FP32",
    "file": small,
    "lookup": 0,
    "batch": 1,
    "tokens_per_second": ladder[3] / small,
    "watts": None,
    "tokens_per_joule": None,
}
for cache in (0, small):
    devices = {"this machine": {"bandwidth": ladder[-1], "cache": cache, "units": ["FP32"]}}
    result = audit(claim, devices)
    print(
        f"cache {cache / 2**20:2.0f} MiB: {claim['tokens_per_second']:,.0f} products/s claimed,",
        f"limit {result['limit']:,.0f}, flags {result['flags']}",
    )

# %% [markdown]
# **2. Four formats on the roofline.** One weight matrix of 4 096 × 4 096 as float32, bfloat16, 8-bit (Q8_0, 8.5 bits per weight) and packed
# 4-bit (Q4_0, 4.5). The 8- and 4-bit products quantize x and multiply integers, as llama.cpp does on a CPU, by `quant_kernels.matmul`. As many copies of the matrix as
# fill 256 MiB are read in turn, so that a cache helps little. Predict the factors between the four times before you run it.

# %% tags=["experiment"]
import contextlib
import dataclasses

import quant_kernels as qk
from quant_kernels.plots.rooflines import roofline
from quant_kernels.plots.style import plain_ticks
from quant_kernels.roofline import Bound

SIDE, STREAM = 4096, 2**28
generator = torch.Generator().manual_seed(0)
W, x = torch.randn(SIDE, SIDE, generator=generator), torch.randn(1, SIDE, generator=generator)
try:
    with qk.compiled():
        qk.matmul(x, qk.quantize(W[:8], "Q4_0"), "Q4_0", integer=True)
    fast = qk.compiled
except RuntimeError as error:  # then the packed products run as plain torch, and far from the roof
    print(f"no compiled kernels: {error}")
    fast = contextlib.nullcontext

packed = {name: qk.quantize(W, name) for name in ("Q8_0", "Q4_0")}
products = {
    "float32": (W, lambda x, w: x @ w.T),
    "bfloat16": (W.bfloat16(), lambda x, w: x.bfloat16() @ w.T),
    "8 bits (Q8_0)": (packed["Q8_0"], lambda x, w: qk.matmul(x, w, "Q8_0", integer=True)),
    "4 bits (Q4_0)": (packed["Q4_0"], lambda x, w: qk.matmul(x, w, "Q4_0", integer=True)),
}


def seconds_per_product(product, matrix, x, count, rounds):
    """The best of some passes over that many copies of a matrix, for one product."""
    copies = [matrix.clone() for _ in range(count)]
    if fast is contextlib.nullcontext and matrix.dtype == torch.uint8:
        copies, rounds = copies[:1], 1
    with fast():
        return best_seconds(lambda: [product(x, copy) for copy in copies], rounds) / len(copies)


steps = {}
for name, (matrix, product) in products.items():
    seconds = seconds_per_product(product, matrix, x, STREAM // matrix.nbytes, rounds=5)
    steps[name] = [Bound(1, matrix.nbytes, 2 * SIDE**2, seconds, 0.0)]
measured = measured_hardware(n_bytes=STREAM)
machine = dataclasses.replace(
    measured,
    bandwidth=max(measured.bandwidth, *(b.bytes / b.seconds for [b] in steps.values())),
    peaks={name: float(f"{peak:.2g}") for name, peak in measured.peaks.items()},
)

print(f"{'':15} {'MB':>6} {'ms':>7} {'GB/s':>6} {'of best':>8} {'x float32':>10}")
for name, [bound] in steps.items():
    speed = bound.bytes / bound.seconds
    print(
        f"{name:15} {bound.bytes / 1e6:6.1f} {bound.seconds * 1e3:7.3f} {speed / 1e9:6.1f}",
        f"{speed / machine.bandwidth:8.0%} {steps['float32'][0].seconds / bound.seconds:10.1f}",
    )
roofline(machine, steps, title=f"{machine.name}: {machine.bandwidth / 1e9:.0f} GB/s, FP16 stands for bfloat16")
plt.show()

# %% [markdown]
# How to read it. All four products compute the same 33.6 million operations, so the height of a marker is speed. If memory were all that counts, the
# markers would lie on the slope, and the times would go as 32 : 16 : 8.5 : 4.5. A marker below the slope has another limit: instructions for unpacking, one
# thread's share of the bandwidth, the cost of a call. The slope is drawn for the fastest stream that was seen.
#
# When we ran it, on two cores of a server CPU: float32 took 2.1 ms (32 GB/s, the fastest stream). bfloat16 was 1.5 times as fast, Q8_0 2.1 to 2.3 times, Q4_0 3.2 to 4.5 times from run to run, where the bytes alone give 2, 3.8
# and 7.1. The narrower the weights, the less of the bandwidth they used.
#
# **3. Where does this machine become compute bound?** Your `first_compute_bound` predicts it from two measured numbers; then batches are timed.

# %% tags=["experiment"]
device = {"bandwidth": machine.bandwidth, "peaks": dict(machine.peaks)}
schemes = {"float32": (32, 32, "FP32"), "bfloat16": (16, 16, "FP16"), "4 bits (Q4_0)": (4.5, 32, "FP32")}
batches = [1, 4, 16, 64]

figure, axes = plt.subplots(figsize=(7.5, 3.8))
print(f"{'':14}{'compute bound':>14}   time and share of the bound at batch")
print(f"{'':14}{'from m =':>14}", *(f"{m:16}" for m in batches))
for (name, scheme), colour in zip(schemes.items(), ("#0072B2", "#D55E00", "#009E73")):
    matrix, product = products[name]
    if name.startswith("4 bits"):  # weights only: floats are multiplied
        product = lambda x, w: qk.matmul(x, w, "Q4_0")
    ridge = first_compute_bound(scheme, SIDE, SIDE, device)
    bounds = [max(gemm_seconds(scheme, m, SIDE, SIDE, device)) for m in batches]
    times = []
    for m in batches:
        many = torch.randn(m, SIDE, generator=generator)
        times.append(seconds_per_product(product, matrix, many, 4, rounds=3))
    axes.plot(batches, [t * 1e3 for t in times], marker="o", color=colour, label=name)
    axes.plot(batches, [t * 1e3 for t in bounds], linestyle="--", color=colour)
    print(f"{name:14}{ridge:14}", *(f"{t * 1e3:8.2f} ms {b / t:4.0%}" for t, b in zip(times, bounds)))
axes.set(xscale="log", yscale="log", xlabel="batch m", ylabel="ms", title="measured (markers) and bound (dashed)")
axes.set_xticks(batches, [str(m) for m in batches])
plain_ticks(axes.yaxis)
axes.grid(alpha=0.3, which="both")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# What to look for: where a dashed line bends up is the predicted ridge. Weight-only 4 bits begin far below float32, meet it once both are compute
# bound, and can end **above** it: unpacking is work that the bound does not count. (A share above 100 % says that a cache helped, or that the slope was measured at a bad moment.)
#
# When we ran it, float32 and weight-only 4 bits were predicted to be compute bound from 24 and from 4 tokens. At batch 1 the 4 bits were 3 times as fast as float32, at 16 they still
# led by a little, and at 64 they took 24 ms to its 9: past the ridge a weight-only kernel has nothing to win, and pays for unpacking. bfloat16, with matrix units for it, took 2.5 ms.
#
# **4. The GPU, where there is one.**

# %% tags=["experiment"]
if torch.cuda.is_available():
    gpu = measured_hardware("cuda", n_bytes=2**30, size=8192)
    known = {"bandwidth": gpu.bandwidth, "peaks": dict(gpu.peaks)}
    print(f"{gpu.name}: {gpu.bandwidth / 1e9:.0f} GB/s, {gpu.peak('FP16') / 1e12:.0f} T/s in bfloat16")
    for name, scheme in {"W16A16": (16, 16, "FP16"), "W4A16": (4.5, 16, "FP16")}.items():
        print(f"{name} of 4096 × 4096 is compute bound from m = {first_compute_bound(scheme, SIDE, SIDE, known)}")
else:
    print("torch sees no GPU here")

# %% [markdown]
# **5. A table from the web.** The first six rows were published without model, quantizer or context ("LLaMA-7B INT4"); the other three stood beside them
# ("Llama-2-7B on an RTX 4090"). What does your audit say? File sizes are those of Llama-2-7B with 6 738 415 616 weights: Q4_0 3.83 GB, Q4_K_M 4.08 GB, Q3_K_M 3.30 GB,
# FP16 13.48 GB; the embedding of 32 000 × 4 096 is only looked up.

# %% tags=["experiment"]
DEVICES = {  # bandwidth and units: quant_kernels.hardware; caches: see below
    "A100 80GB SXM": {"bandwidth": 2039e9, "cache": 40e6, "units": ["FP16", "INT8", "INT4"]},
    "H100 SXM": {"bandwidth": 3350e9, "cache": 50e6, "units": ["FP16", "FP8", "INT8"]},
    "RTX 4090": {"bandwidth": 1008e9, "cache": 96e6, "units": ["FP16", "FP8", "INT8", "INT4"]},
    "M2 Max": {"bandwidth": 400e9, "cache": 48e6, "units": ["Metal", "ANE"]},
    "Core i9-13900K": {"bandwidth": 89.6e9, "cache": 68e6, "units": ["AVX2", "AVX-VNNI"]},  # DDR5-5600, two channels
}
Q4_0, EMBEDDING = 3.83e9, 32000 * 4096
TABLE = [  # device, unit, bytes of the file, bits per weight of its embedding, tokens/s, watts, tokens per joule
    ("A100 80GB SXM", "INT8", Q4_0, 4.5, 180, 300, 0.60),
    ("H100 SXM", "INT4", Q4_0, 4.5, 450, 350, 1.29),
    ("M2 Max", "ANE", Q4_0, 4.5, 45, 30, 1.50),
    ("M2 Max", "Metal", Q4_0, 4.5, 62, 45, 1.38),
    ("Core i9-13900K", "AVX-512", Q4_0, 4.5, 28, 150, 0.19),
    ("Neoverse N2", "NEON", Q4_0, 4.5, 18, 60, 0.30),
    ("RTX 4090", "FP16", 13.48e9, 16, 28, None, None),
    ("RTX 4090", "FP16", 4.08e9, 4.5, 52, None, None),
    ("RTX 4090", "FP16", 3.30e9, 3.4375, 61, None, None),
]
print(f"{'device':15} {'unit':8} {'claimed':>7} {'limit':>7} {'share':>6} {'needs GB/s':>11}   flags")
for name, unit, file, bits, claimed, watts, printed in TABLE:
    row = {"device": name, "unit": unit, "file": file, "lookup": EMBEDDING * bits / 8, "batch": 1}
    row |= {"tokens_per_second": claimed, "watts": watts, "tokens_per_joule": printed}
    result = audit(row, DEVICES)
    known = result["limit"] is not None
    limit = (
        f"{result['limit']:7.1f} {claimed / result['limit']:6.0%} {result['needs'] / 1e9:11.0f}" if known else 26 * " "
    )
    print(f"{name:15} {unit:8} {claimed:7} {limit}   {', '.join(result['flags']) or '-'}")

# %% [markdown]
# Sources of the caches: A100 and H100 L2 from NVIDIA's "Hopper Architecture In-Depth"; i9-13900K 36 MB L3 and 32 MB L2; RTX 4090 96 MB is the whole AD102 die, of which the
# card has less; M2 Max: Apple names no size, 48 MB is what AnandTech measured for the M1 Max. All of them lean towards the claim, and none matters: a model is far larger.
#
# What the audit settles, and what it cannot:
#
# - **The i9-13900K row is impossible** with DDR5-5600: it needs more bandwidth than there is, even with every cache full of weights. (With DDR5-6400, 102.4 GB/s,
#   it would need all of it and a hair more.) Measured figures for this class are 18.3 and 20.5 tokens/s (llama.cpp issue 34 and pull request 9921). And the
#   chip has no AVX-512: AVX2 and AVX-VNNI.
# - **The H100 row names a unit that does not exist.** Its speed is possible, by FP16 multiplications after widening.
# - **28 tokens/s in FP16 on an RTX 4090 is possible and poor**: about 36 % of what memory allows. TinyChat's README has 61.8 (16.17 ms) for Llama-2-7B in FP16, and 166 (6.02 ms) in
#   4 bits. A table whose baseline is slow makes every speed-up look right, or wrong: here 1.86, where TinyChat has 2.7.
# - **Neoverse N2 is a core, not a machine**: without the memory that it sat on, there is nothing to check.
# - "tok/W" in such tables is tokens per **joule**; the divisions are right. What a watt figure covers (chip, card, wall) is not said.
# - A row without flags is not confirmed. The ANE row is possible, and no source for it was found.

# %% [markdown]
# ## Rubric
#
# An instructor scores the next answer and the talk at the end, 8 points each; alone, score yourself by the tables. Write into the cells "Your answer".

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-performance", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": true}
# ### Performance awareness (8 points)
#
# A linear layer of 4 096 × 4 096 on an A100, on an H100, and the machine in front of you. In 250 words or fewer: how long does it take at least with W16A16, W8A8 and W4A16 (4.5 bits) at one token; from
# which batch on is each compute bound; which scheme wins where, and by how much at most; what does the bound leave out; and what did your own machine reach of its bound?
#
# | Poor (0–2) | Fair (3–4) | Good (5–6) | Excellent (7–8) |
# |:--|:--|:--|:--|
# | "4-bit is 4 times faster" | Memory and compute told apart; few numbers, or peaks with sparsity | Times, ridges and the winner per batch with numbers; W4A16 ends with FP16's rate | Also what the bound leaves out with evidence, own measurement against prediction, and a consequence for what to ship |
#
# === BEGIN MARK SCHEME ===
#
# **Look for** (from the reference answer of exercise (c), dense peaks): at one token A100 16.5 / 8.2 / 4.6 µs, H100 10.0 / 5.0 / 2.8 µs: the ratios of the bytes, 16 : 8 : 4.5, so at most 3.55 times.
# Compute bound from m = 166 / 173 / 47 (A100) and 345 / 377 / 98 (H100); with the weights' bytes alone 154 / 154 / 44 and 296 / 296 / 84. W8A8 overtakes W4A16 at m = 82 (A100) and 166 (H100). At m = 2 048
# W4A16 takes as long as W16A16 (220 µs on an A100) and W8A8 half: narrow weights move bytes, narrow arithmetic moves the roof. Left out: unpacking instructions, quantizing x, launches, attention and the KV cache, tiles that are not full, clocks under power limits.
# Evidence that it matters: Marlin keeps near its ideal factor up to batch 16–32 (its README); AutoAWQ issue 106: at batch 256 4 bits at half of FP16's throughput; llama.cpp's quantize README: prompts of an 8B faster in F16 than in Q4_K_M (923 to 822 tokens/s).
# Own machine: a number, its share of the bound, and a reason for the rest. The numbers of a CPU vary; score the reasoning. Sparse peaks (3 958 for an H100's INT8) cost a point.
#
# **Strong, 8 of 8.** *"At one token only bytes count: 33.6 MB of FP16 weights over 2.04 TB/s is 16.5 µs on an A100, 8.2 with 8 bits, 4.6 with 4.5; H100 10.0, 5.0, 2.8. So 3.55 is the ceiling, not 4. Compute bound from 166, 173 and 47 tokens (345, 377, 98 on an H100); the
# textbook ridge 153 leaves x and y out. W4A16 multiplies in FP16, so from 47 on it only catches up: W8A8 passes it at m = 82, on the H100 at 166, and at 2 048 W4A16 equals FP16 and W8A8 is twice as fast. So: chat at small batch W4A16, loaded servers W8A8, on the H100 in FP8. The bound counts no unpacking, no quantizing
# of x, no launches, no KV cache. Marlin holds its factor to batch 16–32 only; AutoAWQ users saw half of FP16 at 256. My two cores: float32 at the full 32 GB/s, Q4_0 3.7 times as fast where the bytes say 7.1: unpacking. At m = 64 weight-only 4 bits took 24 ms,
# float32 9. I would report tokens/s with batch, context and the kernel's name from the log."* Bytes, ridge, winner, limits, own data, consequence.
#
# **Middling, 5 of 8.** *"Decode is memory bound, so FP16 to INT8 halves the time and INT4 cuts it to about a quarter, 16.5 to 4.6 µs on an A100. With larger batches it becomes compute bound, around 150 for FP16. Then INT8 is better because its peak is 624 instead of 312, and INT4 weights bring nothing any more as they are
# converted to FP16. On my laptop INT8 was twice as fast as float32."* Right mechanism and two numbers. No ridge for the other schemes, no crossing, nothing that the bound leaves out; the laptop's factor (3.8 by bytes) goes unexplained.
#
# **Weak, 2 of 8.** *"INT4 is 4 times and INT8 2 times faster than FP16 on tensor cores: the H100 has nearly 4 000 TOPS in INT8 and even more in INT4. Larger batches use the hardware better."* No phase, no bytes, a sparse peak, and a unit that Hopper does not have.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (performance awareness):

# %% [markdown]
# ## Follow-up questions
#
# Try each aloud before you unfold what a strong answer touches.
#
# **1. "INT8 tensor cores need dimensions that are multiples of 16." True?**
#
# <details><summary>A strong answer touches</summary>
#
# As a rule of correctness no. cuBLAS's INT8 path asks for 4-byte aligned pointers and leading dimensions that are multiples of 4; libraries pad tails inside, as in exercise (d). 16 bytes of alignment are a rule of *speed*: vectorised loads want them, and a tile
# that is mostly padding wastes its multiplications. The price shows in small M: a batch of 1 fills one row of an MMA tile of 16.
#
# </details>
#
# **2. Why does W4A16 on an H100 multiply in FP16, and what would W4A8 change?**
#
# <details><summary>A strong answer touches</summary>
#
# Hopper has no INT4 MMA, and activations in 16 bits could not be its other operand anyway: both sides of its MMAs have 8 bits or both have 16. So codes are widened in registers, which costs instructions, not bandwidth. With 8-bit activations the codes need only become INT8 or FP8, and
# the roof doubles: −8 … 7 is exact in both. But group scales along K then have to be applied to partial sums. The next native 4-bit type is FP4, on Blackwell.
#
# </details>
#
# **3. A data sheet says 3 958 TOPS for INT8 on an H100. Why do you plan with 1 979?**
#
# <details><summary>A strong answer touches</summary>
#
# The larger figure counts the zeros of 2 : 4 sparse weights as work done. Dense weights get half. A model pruned to 2 : 4 is another model, with its own loss. The same factor stands on all sheets since the A100 (1 248 beside 624). And no kernel reaches even the dense peak; power limits lower the clock.
#
# </details>
#
# **4. A kernel quantizes activations on Arm with `vcvtq_s32_f32`. What is wrong?**
#
# <details><summary>A strong answer touches</summary>
#
# That conversion truncates toward zero. The error's root mean square grows from 0.289 to 0.577 steps (uniform residues: 1/√12 and 1/√3), and worse, it is biased: magnitudes shrink by half a step on average, and a bias does not average out in a sum. `vcvtnq_s32_f32` rounds to nearest; llama.cpp's Arm code uses it, for activations, to Q8_0.
#
# </details>
#
# **5. "Keep the weights within L3, or it thrashes." Your opinion?**
#
# <details><summary>A strong answer touches</summary>
#
# Gigabytes do not fit into tens of megabytes, and need not: in decoding each weight is used once per token, so there is nothing to reuse and nothing to thrash. Block for what *is* reused: the activations, the accumulators, and in prompts a tile of unpacked weights. A model of a few MB is the exception,
# and then the DRAM bound is none, as exercise (f) has it.
#
# </details>
#
# **6. When does the Neural Engine help with an LLM?**
#
# <details><summary>A strong answer touches</summary>
#
# It shares the chip's memory, so at one token its operations per second (15.8 T on an M2) decide nothing; bandwidth does. It may save energy, and it helps prompts and encoders with fixed shapes, through Core ML. INT8 × INT8 is faster than FP16 from A17 Pro and M4 on; before that 8-bit weights are widened. The Core ML guide sends 4-bit blocks to the GPU,
# and Apple's own account of Llama 3.1 8B on an M1 Max (about 33 tokens/s) uses the GPU.
#
# </details>
#
# **7. SMMLA multiplies two rows by two columns. Does it speed up decoding?**
#
# <details><summary>A strong answer touches</summary>
#
# With one token one of its two rows is empty, and memory binds anyway. It needs a second token (prompts, batches, speculative decoding) or two rows of *weights* interleaved in memory, which is why llama.cpp repacks Q4_0 when it loads a model (pull request 9921). The layout of the weights is part of the choice of an instruction.
#
# </details>

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-hardware", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": true}
# ### Hardware understanding: the talk (8 points)
#
# Answer the question at the top in 15 minutes, to an interviewer who may ask any of the follow-ups: what do an A100, an H100, a Mac and an x86 server really multiply when a model is quantized, and what would you ship on each? Speak, draw, show your code.
# Then write below what you said, in ten lines or fewer.
#
# | Poor (0–2) | Fair (3–4) | Good (5–6) | Excellent (7–8) |
# |:--|:--|:--|:--|
# | "GPUs have INT8 cores, CPUs have SIMD" | One platform in detail, the others by name | All of them: operand types, accumulators, what is widened and where | Compares: which instruction matters in which phase, signs and saturation, what engines lack, and a choice per machine with its reason |
#
# === BEGIN MARK SCHEME ===
#
# **The model answer, in five parts of three minutes.**
#
# 1. *Two questions before any chip.* How many bytes does a step read, and what does it multiply in? W4A16 changes the first, W8A8 both. Draw the roofline; ridge = peak / bandwidth. Decoding one token sits far left of every ridge, prompts far right. "Narrow weights are for the slope, narrow arithmetic is for the roof."
# 2. *NVIDIA.* An MMA takes whole tiles (m16n8k32 for bytes) of two operands of like width, and sums in int32 or FP32. Dense: A100 FP16 312, INT8 624, INT4 1 248, no FP8. H100 989, FP8 = INT8 = 1 979, **no INT4**. B200 2 250, 4 500, FP4 9 000; INT8 is on its sheet, but vLLM has no INT8 W8A8 kernel from compute capability 10.0 on: hardware *and* engine.
#    So an FP8 checkpoint on an A100 runs as W8A16, weights only, widened to FP16; W4A16 is FP16 arithmetic on all of them. Integer GEMM: codes through the MMA, zero points afterwards from row sums, scales in the epilogue. Sheets that print twice as much count sparsity.
# 3. *x86.* VPDPBUSD is u8 × s8 → s32. Signed weights in the first operand: garbage without an error. Sign transfer (|w|, sign · x) or offset (w XOR 0x80, minus 128 Σx). Edge cases: w = −128 is fine, x = −128 cannot be negated, so Q8_0 stops at −127. AVX2's VPMADDUBSW saturates pairs: 2 · 255 · 127 is 64 770 and becomes 32 767; with sign transfer 2 · 128 · 127 = 32 512 fits.
#    So llama.cpp transfers signs (with VNNI too), and feeds Q4_K's codes, which are unsigned, as the first operand. AVX-VNNI-INT8 has s8 × s8 at last. At one token none of it moves the DRAM bound; it moves prompts. DP4A is a GPU's instruction; a 13900K has no AVX-512.
# 4. *Arm and Apple.* SDOT s8 × s8, 16 products per instruction; SMMLA for two rows. One memory for CPU, GPU and ANE: 400 GB/s on an M2 Max bound all three. Metal kernels of llama.cpp widen in registers and multiply half or float. The ANE wants Core ML and fixed shapes; INT8 × INT8 pays from A17 Pro and M4 on.
# 5. *What I would ship.* A100: W4A16 for chat at small batch, INT8 W8A8 for loaded servers. H100: FP8 W8A8, W4A16 below m ≈ 166. Mac: 4-bit blocks on the GPU. x86: 4- or 8-bit blocks with integer dots, threads up to the bandwidth. Quality decides among what is left; each choice is checked in the engine's log and against the bound. Then the table: 28 tokens/s on a 13900K needs 103 GB/s of 89.6, the H100 row's INT4 unit does not exist, 28 in FP16 on a 4090 is 36 % of the bound. Not known: the ANE and Neoverse rows.
#
# Score the talk itself where you heard it; the samples are what candidates wrote of theirs.
#
# **Strong, 8 of 8.** *"I drew slope and roof first: decode on the slope, prefill under the roof. Then per machine what is multiplied: A100 FP16/INT8/INT4; H100 FP16/FP8/INT8, no INT4, so W4A16 is FP16 math after widening in registers and an INT4 column for Hopper is a mistake; B200 has FP4, and INT8 that vLLM does not serve. FP8 on the A100 is storage only. x86: VPDPBUSD wants u8 × s8; I showed −1 read as 255, then both
# repairs, and why AVX2 takes the sign transfer (64 770 saturates, 32 512 does not) and −128 is banned from activations. Arm SDOT is s8 × s8. Apple: one 400 GB/s memory, Metal widens, the ANE through Core ML and INT8 only lately. Shipping: W4A16 for small batch, FP8 on the H100 and INT8 on the A100 under load, 4-bit blocks on Metal and CPUs. The table: 13900K impossible, H100's unit does not exist, N2 cannot be checked. I said that I
# had no ANE figure I trust."* Comparative, exact at the edges, honest.
#
# **Middling, 5 of 8.** *"Tensor cores multiply FP16, INT8 and on newer ones FP8 with a 2x rate per halving; 4-bit weights are dequantized to FP16 first. CPUs use VNNI, four 8-bit products per 32-bit lane, the activations have to be unsigned so one adds an offset. ARM has a similar dot product. Apple's GPU dequantizes in the kernel; the Neural Engine runs FP16 and INT8. I would use INT8 on the A100 and FP8 on the H100, GGUF on
# Mac and CPU."* All platforms, mostly right; which operand is unsigned is free to choose, but the correction is missing, as are saturation, INT4's end on Hopper, the engine's gaps, and phases.
#
# **Weak, 2 of 8.** *"NVIDIA has tensor cores for INT8 and INT4, Apple has the Neural Engine, which is optimised for INT8, and Intel has AVX-512. Quantized models use these units, so they run 2 to 4 times faster. I would use INT4 on the H100 because it has 2 000 TOPS."* Names only; the one figure is another format's; nothing on operands, memory or phases.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (the talk, in ten lines or fewer):
