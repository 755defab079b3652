# ---
# jupyter:
#   course:
#     number: 1
#     title: Fundamentals of quantization
#     category: Conceptual
#     difficulty: Mid
#     levels: [mid, senior]
#     companies: [OpenAI, Anthropic, Meta AI, Google]
#     minutes: {talk: 15, code: 45}
#     prerequisites:
#       - torch or numpy arrays, mean square, decibels
#       - what a transformer multiplies when it makes one token
#     pass:
#       mid: {rubric: 12, autograded: 60}
#       senior: {rubric: 18, autograded: 80}
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
# # Question 1: Fundamentals of quantization
#
# | | |
# |:--|:--|
# | **Category** | Conceptual |
# | **Difficulty** | Mid; marked for the levels mid and senior |
# | **Companies** | OpenAI, Anthropic, Meta AI, Google |
# | **Time** | 45 minutes of code, then a talk of 15 minutes |
# | **You should know** | torch or numpy arrays, mean squares, decibels; what a transformer multiplies when it makes one token |
# | **Code points** | 30, in five exercises |
# | **Rubric points** | 28, in four categories of 7 |
# | **Mid passes with** | 12 rubric points and 60 % of the code points |
# | **Senior passes with** | 18 rubric points and 80 % of the code points |

# %% [markdown]
# ## The question
#
# > "A colleague writes: *we go from 16 bits to 4, so the model is a quarter of the size and runs four times as fast, and
# > perplexity rises by one to three percent.* What is quantization, and why does it matter for LLM inference? Then take that
# > sentence apart: which of its three numbers hold, under which conditions, and how would you find out? And what changes
# > at 8, 3 and 2 bits?"

# %% [markdown]
# ## What is looked for
#
# **Competencies.** The arithmetic of a quantizer, edge cases included; sizes in exact bytes; speed from bytes and bandwidth;
# errors predicted before they are measured; claims tested rather than believed.
#
# | Green flags | Red flags |
# |:--|:--|
# | Writes scale, zero point, rounding **and clamp**, and asks what happens to zero | "Multiply by 16 and round" |
# | Counts scales, zero points and the tensors that stay at 16 bits | "4-bit means half a byte per parameter" |
# | Says *decode of few sequences* is bound by bandwidth, and why prefill is not | "4 times fewer bits, 4 times faster" |
# | Gives a quality figure with model, method, group size and test | Knows one percentage per bit width by heart |
# | Names the arithmetic that runs: float after decoding, or integer | "Quantization is compression", and no more |
# | Says what quantization would not help, and where it would harm | Quantizes first and measures later |

# %% [markdown]
# ## Background 1: a number becomes a code
#
# A **quantizer** puts a grid over the numbers and stores, for each, the index of the nearest grid point: its *code*. All numbers that
# share a grid share two constants:
#
# ```
#                 store                                  read
#   x  ──────────────────────────────▶  code  ──────────────────────────▶  x̂
#       round(x / scale) + zero_point,         scale · (code − zero_point)
#       clamped to 0 … 2^bits − 1
#
#   x̂ is a grid point and not x: the difference x − x̂ is the error
# ```
#
# `scale` is the distance of two grid points. `zero_point` is the code that stands for 0. The picture has 3 bits, so 8 grid points.

# %% tags=["experiment"]
import matplotlib.pyplot as plt
import torch

x = torch.tensor([-1.05, -0.84, -0.42, -0.2, -0.07, 0.0, 0.11, 0.33, 0.52, 0.78, 0.95, 1.22, 1.5, 2.35])
scale, zero_point, top = 2.8 / 7, 3, 7  # a grid for numbers from −1.1 to 1.7
codes = ((x / scale).round() + zero_point).clamp(0, top)
decoded = scale * (codes - zero_point)

figure, axes = plt.subplots(figsize=(9.5, 2.9))
for value, point in zip(x.tolist(), decoded.tolist()):
    clamped = abs(value - point) > scale / 2 + 1e-6
    axes.plot([value, point], [1, 0], color="#d1495b" if clamped else "#9aa0a6", linewidth=1.2)
axes.plot(x, torch.ones(len(x)), "o", color="#1f77b4", markersize=6)
grid = scale * (torch.arange(8) - zero_point)
axes.plot(grid, torch.zeros(8), "s", color="#333333", markersize=7)
for code, point in enumerate(grid.tolist()):
    name = "zero point" if code == zero_point else "code" if code == 0 else ""
    axes.text(point, -0.2, f"{code}\n{name}", ha="center", va="top")
axes.annotate("", (0, -0.11), (scale, -0.11), arrowprops={"arrowstyle": "<->", "color": "#333333"})
axes.text(scale / 2, -0.15, "scale", ha="center", va="top", fontsize=9)
axes.text(2.02, 0.38, "clamped", color="#d1495b")
axes.set_yticks([1, 0], ["numbers", "grid"])
axes.set(
    ylim=(-0.62, 1.2),
    xlim=(-1.4, 2.6),
    xlabel="value",
    title="3 bits: every number goes to its nearest grid point",
)
axes.spines[["top", "right", "left"]].set_visible(False)
axes.tick_params(axis="y", length=0)
plt.show()

# %% [markdown]
# Within the grid no error is larger than half a step. Beyond its ends the clamp decides, and there the error has no bound. So
# a range is a bargain: a wide one makes all steps coarse, a narrow one cuts off the largest numbers.

# %% [markdown]
# ## Background 2: why few bits make decoding fast, and when
#
# To make the next token, a model multiplies each of its matrices by **one** vector. Every weight is fetched from memory and used
# once, in one multiplication and one addition. Fetching takes far longer than computing. With a *batch* of sequences (or a prompt, whose tokens are all
# known) the same fetched weight serves many vectors.
#
# The cell multiplies one 90 MB matrix by 1, 2, 4, … 256 vectors on your machine, and plots the time of a multiplication.

# %% tags=["experiment"]
import time

import matplotlib.pyplot as plt
import torch


def fastest(function, repeats=7):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


matrix = torch.randn(5504, 4096, generator=torch.Generator().manual_seed(0))
batches = [1, 2, 4, 8, 16, 32, 64, 128, 256]
seconds = []
for batch in batches:
    vectors = torch.ones(4096, batch)
    seconds.append(fastest(lambda: matrix @ vectors))

figure, axes = plt.subplots(figsize=(7.5, 3.6))
axes.loglog(batches, [1e3 * t for t in seconds], marker="o", label="one multiplication")
axes.loglog(
    batches, [1e3 * t / n for t, n in zip(seconds, batches)], marker="s", linestyle="--", label="… per vector"
)
axes.set_xticks(batches, batches)
axes.minorticks_off()
axes.set(
    xlabel="vectors (sequences, or tokens of a prompt)",
    ylabel="ms",
    title="90 MB of weights, times n vectors",
)
axes.grid(alpha=0.3)
axes.legend(frameon=False)
plt.show()
print(f"1 vector: {4e-9 * matrix.numel() / seconds[0]:.0f} GB/s of weights")
print(f"256 vectors: {2e-9 * matrix.numel() * 256 / seconds[-1]:.0f} billion operations per second")

# %% [markdown]
# The solid line is nearly flat at first: while the weights are being fetched, the arithmetic for a few more vectors costs next to nothing. Then it
# rises in proportion: now arithmetic is what takes the time. On the flat part fewer bytes per weight mean less time; on the slope they do not,
# unless the arithmetic itself gets cheaper. (Two cores of a server CPU gave 4.8 ms for 2 vectors, 4.6 ms for 16 and 34.9 ms for 256.)

# %% [markdown]
# ## Exercises
#
# Write with torch or numpy; tensors in and out are CPU tensors of torch. Leave arguments as they are. `quant_kernels` and `gguf` are not there
# when your answer is graded. The exercises do not build on one another: each is scored alone, and most functions of an exercise have points of
# their own.

# %%
import math

import numpy as np
import torch

# %% [markdown]
# ### Exercise (a): the affine quantizer
#
# *10 minutes, 7 points: 3 for the parameters, 2 for the codes, 2 for decoding*
#
# ```
# affine_parameters   low, high: float32, one shape;  bits: 2 … 8   →  scale: float32, zero_point: int32
# affine_quantize     x: float32;  scale, zero_point;  bits          →  codes: uint8, shape of x
# affine_dequantize   codes: uint8;  scale, zero_point               →  float32, shape of codes
#
#   value    low            0                       high
#            ├────┬────┬────┼────┬────┬── ··· ──┬────┤
#   code     0    1    2    │                        2^bits − 1     2^bits codes, 2^bits − 1 steps
#                           zero_point                              0 is one of the grid points
# ```
#
# | | |
# |:--|:--|
# | Range | from `low` to `high`, first **widened to hold zero**: `low = min(low, 0)`, `high = max(high, 0)` |
# | Scale | `(high − low) / (2^bits − 1)`. Where the widened range is empty (both ends 0), the scale is 1 |
# | Zero point | `round(−low / scale)`, an integer. That is what makes 0 exact: 0 has the code `zero_point` |
# | Codes | `round(x / scale) + zero_point`, clamped to 0 … 2^bits − 1. **x may lie outside the range**: ranges come from other data, seen before |
# | Decoding | `scale · (codes − zero_point)`, in float32. The difference of two integers can be negative, whatever dtype they come in |
# | Rounding | halves to even, as `torch.round` and `np.round` do; arithmetic in float32 |
# | Shapes | `scale` and `zero_point` have the shape of `low` and `high`: any, such as 0-dimensional (one grid for a tensor) or `(rows, 1)` (one per row). They broadcast to `x` and to `codes` |
# | Inputs | finite; magnitudes are 0 or from 1e−20 to 1e20; `low ≤ high` |
# | Tolerance | scale: 2⁻²² relative (a difference and a quotient, each rounded by 2⁻²⁴ at most). Zero points and codes: none; no test comes within 0.001 of a half, but for exact ones. Decoding: 2⁻²³ · 2^bits · scale |
#
# A range of one constant, such as 3 … 3, needs no special case: widened it is 0 … 3, and 3 has the last code.

# %% nbgrader={"grade": false, "grade_id": "affine", "locked": false, "schema_version": 3, "solution": true, "task": false}
def affine_parameters(low, high, bits):
    """Scale (float32) and zero point (int32) of the grid of `2**bits` points from `low` to `high`, zero included."""
    ### BEGIN SOLUTION
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale == 0, 1.0, scale)
    return scale, (-low / scale).round().to(torch.int32)
    ### END SOLUTION


def affine_quantize(x, scale, zero_point, bits):
    """Codes (uint8, shape of `x`) of the grid points next to `x`."""
    ### BEGIN SOLUTION
    codes = (x / scale).round() + zero_point
    return codes.clamp(0, 2**bits - 1).to(torch.uint8)
    ### END SOLUTION


def affine_dequantize(codes, scale, zero_point):
    """The grid points (float32) that `codes` (uint8) stand for."""
    ### BEGIN SOLUTION
    return scale * (codes.to(torch.int32) - zero_point)
    ### END SOLUTION

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Work the range −1 … 2 with 2 bits by hand: three steps of 1, codes 0 … 3, and zero has the code 1. Then do 1 … 2, 0 … 0, and
# x = 5 on the first grid.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Clamp while the values are still floats (or wide integers): a cast of 300 or −3 to uint8 wraps around, and then it is too late. Replace a scale of 0
# with `torch.where` before anything is divided by it. In torch a uint8 tensor minus a 0-dimensional int32 tensor stays uint8, where 3 − 5 is 254.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# lowest, highest = smaller of low and 0, larger of high and 0
# step = (highest - lowest) / (number of codes - 1)               # 1 where that is 0
# zero_code = round(-lowest / step), as int32
# code = round(x / step) + zero_code, clamped to 0 ... number of codes - 1, then as uint8
# value = step * (code as int32 - zero_code)
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-affine", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import Points, check_close, check_equal

### BEGIN HIDDEN TESTS
from quant_kernels.methods.affine import affine_parameters as reference_parameters
from quant_kernels.methods.affine import to_codes

### END HIDDEN TESTS


def ints(*values):
    return torch.tensor(values, dtype=torch.int32)


def check_parameters(got, expected, what, scale_mistakes, zero_mistakes):
    why = "a difference and a quotient, each within 2⁻²⁴, doubled"
    check_close(got[0], expected[0], expected[0] * 2.0**-22, f"{what}: scale", why, scale_mistakes)
    assert not got[1].is_floating_point(), (
        f"{what}: the zero point is a float; it has to be an integer, so that 0 is one of the grid points"
    )
    check_equal(got[1], expected[1], f"{what}: zero_point", zero_mistakes)


points = Points()
with points.part(3, "affine_parameters"):
    low, high = torch.tensor([-1.0, 1, -7, 0]), torch.tensor([2.0, 3, -4, 0])
    scale_mistakes = {
        "the range is not widened to hold zero": torch.tensor([1.0, 2 / 3, 1, 1]),
        "the scale is (high − low) / 2^bits; 2^bits codes have 2^bits − 1 steps": torch.tensor(
            [0.75, 0.75, 1.75, 1]
        ),
        "the zero range has scale 0, by which x is divided": torch.tensor([1.0, 1, 7 / 3, 0]),
    }
    zero_mistakes = {
        "the range is not widened to hold zero": ints(1, -2, 7, 0),
        "the zero point is cut off, not rounded": ints(0, 0, 2, 0),
        "the zero point has the wrong sign: it is −low / scale": ints(-1, 0, -3, 0),
    }
    what = "affine_parameters of −1 … 2, 1 … 3, −7 … −4 and 0 … 0, 2 bits"
    expected = torch.tensor([1.0, 1, 7 / 3, 1]), ints(1, 0, 3, 0)
    check_parameters(affine_parameters(low, high, 2), expected, what, scale_mistakes, zero_mistakes)
    ### BEGIN HIDDEN TESTS
    generator = torch.Generator().manual_seed(101)

    def random_ranges(bits):
        """low, high (n, 1) of all kinds, whose zero points are not near a half."""
        a, b = torch.randn(2, 400, 1, generator=generator) * 10 ** (
            4 * torch.rand(400, 1, generator=generator) - 2
        )
        shift = torch.tensor([0.0, 3, -3, 0.5]).repeat(100).unsqueeze(1) * a.abs()
        low, high = torch.minimum(a, b) + shift, torch.maximum(a, b) + shift
        widened = low.double().clamp(max=0), high.double().clamp(min=0)
        zero = -widened[0] * (2**bits - 1) / (widened[1] - widened[0])
        clear = ((zero - zero.floor() - 0.5).abs() > 1e-3).squeeze(1)
        return low[clear], high[clear]

    def mistaken(low, high, bits, widen=True, levels=None, guard=True, rounding=torch.round, sign=1):
        if widen:
            low, high = low.clamp(max=0), high.clamp(min=0)
        scale = (high - low) / (levels or 2**bits - 1)
        scale = torch.where(scale == 0, 1.0, scale) if guard else scale
        return scale, rounding(sign * -low / scale).to(torch.int32)

    edge = torch.tensor([0.0, 3, -3, 1e-20, -1e20, 0.5]).unsqueeze(1)
    for bits in (2, 3, 4, 5, 8):
        cases = {
            "random ranges": random_ranges(bits),
            "constant ranges": (edge, edge.clone()),
            "one grid for a tensor": (torch.tensor(-0.7), torch.tensor(2.0)),
            "zero points that lie on halves": (
                -torch.arange(0.5, 8).unsqueeze(1),
                2**bits - 1 - torch.arange(0.5, 8).unsqueeze(1),
            ),
        }
        for name, (low, high) in cases.items():
            if name.startswith("zero points"):  # the scale is exactly 1 there
                low, high = low[: 2 ** (bits - 1) - 1], high[: 2 ** (bits - 1) - 1]
            if not low.numel():
                continue
            variants = {
                "the range is not widened to hold zero": lambda: mistaken(low, high, bits, widen=False),
                "the scale is (high − low) / 2^bits; 2^bits codes have 2^bits − 1 steps": lambda: mistaken(
                    low, high, bits, levels=2**bits
                ),
                "the zero range has scale 0, by which x is divided": lambda: mistaken(
                    low, high, bits, guard=False
                ),
                "the zero point is cut off, not rounded": lambda: mistaken(
                    low, high, bits, rounding=torch.trunc
                ),
                "the zero point's halves go up, not to the even neighbour": lambda: mistaken(
                    low, high, bits, rounding=lambda v: (v + 0.5).floor()
                ),
                "the zero point has the wrong sign: it is −low / scale": lambda: mistaken(
                    low, high, bits, sign=-1
                ),
            }
            wrong = [{text: lambda f=f, i=i: f()[i] for text, f in variants.items()} for i in (0, 1)]
            expected = reference_parameters(low, high, bits)
            check_parameters(
                affine_parameters(low, high, bits),
                expected,
                f"affine_parameters, {name}, {bits} bits",
                *wrong,
            )
    ### END HIDDEN TESTS

with points.part(2, "affine_quantize"):
    x = torch.tensor([-9.0, -1.2, -0.4, 0.0, 0.5, 0.6, 1.5, 2.0, 300.0])
    codes = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3, 3], dtype=torch.uint8)
    mistakes = {
        "codes are not clamped and wrap around in uint8": torch.tensor([248, 0, 1, 1, 1, 2, 3, 3, 45]).to(
            torch.uint8
        ),
        "codes become uint8 before the clamp, where −8 is 248 already": torch.tensor(
            [3, 0, 1, 1, 1, 2, 3, 3, 3]
        ).to(torch.uint8),
        "the clamp comes before the zero point is added": torch.tensor([1, 1, 1, 1, 1, 2, 3, 3, 4]).to(
            torch.uint8
        ),
        "the zero point is left out": torch.tensor([0, 0, 0, 0, 0, 1, 2, 2, 3]).to(torch.uint8),
        "codes are cut off, not rounded": torch.tensor([0, 0, 1, 1, 1, 1, 2, 3, 3]).to(torch.uint8),
        "the sum is rounded, not x / scale: halves go elsewhere where the zero point is odd": torch.tensor(
            [0, 0, 1, 1, 2, 2, 2, 3, 3]
        ).to(torch.uint8),
        "halves go up, not to the even neighbour": torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 3]).to(torch.uint8),
    }
    what = "affine_quantize of −9, −1.2, −0.4, 0, 0.5, 0.6, 1.5, 2, 300 with scale 1, zero point 1, 2 bits"
    check_equal(
        affine_quantize(x, torch.tensor(1.0), torch.tensor(1, dtype=torch.int32), 2), codes, what, mistakes
    )
    ### BEGIN HIDDEN TESTS

    def away_from_halves(x, scale):
        v = x.double() / scale
        return torch.where((v - v.floor() - 0.5).abs() < 1e-3, (v.floor() * scale).float(), x)

    def mistaken_codes(x, scale, zero_point, bits, rounding=torch.round, order="right"):
        top = 2**bits - 1
        v = rounding(x / scale)
        if order == "round after the sum":
            return (x / scale + zero_point).round().clamp(0, top).to(torch.uint8)
        if order == "clamp first":
            return ((v.clamp(0, top) + zero_point).long() % 256).to(torch.uint8)
        codes = v if order == "no zero point" else v - zero_point if order == "minus" else v + zero_point
        if order in ("wraps", "cast first"):
            codes = codes.long() % 256
        return (codes if order == "wraps" else codes.clamp(0, top)).to(torch.uint8)

    generator = torch.Generator().manual_seed(102)
    for bits in (2, 3, 4, 8):
        top = 2**bits - 1
        scale = 0.01 + torch.rand(12, 1, generator=generator)
        zero = torch.randint(0, top + 1, (12, 1), generator=generator, dtype=torch.int32)
        spread = torch.randn(12, 200, generator=generator) * scale * top  # many lie outside the grid
        spread = away_from_halves(spread, scale)
        halves = (torch.arange(-40, 40) / 2).repeat(12, 1)
        cases = {
            "numbers in and out of range": (spread, scale, zero),
            "a transposed view": (spread.T, scale.T, zero.T),
            "one grid for a tensor": (away_from_halves(spread, scale[0, 0]), scale[0, 0], zero[0, 0]),
            "halves": (halves, torch.ones(12, 1), zero),
        }
        for name, (x, s, z) in cases.items():
            orders = {
                "codes are not clamped and wrap around in uint8": "wraps",
                "codes become uint8 before the clamp, where −8 is 248 already": "cast first",
                "the clamp comes before the zero point is added": "clamp first",
                "the zero point is left out": "no zero point",
                "the zero point is subtracted; decoding subtracts it": "minus",
                "the sum is rounded, not x / scale: halves go elsewhere where the zero point is odd": "round after the sum",
            }
            mistakes = {
                text: lambda o=o: mistaken_codes(x, s, z, bits, order=o) for text, o in orders.items()
            }
            mistakes["codes are cut off, not rounded"] = lambda: mistaken_codes(x, s, z, bits, torch.trunc)
            mistakes["halves go up, not to the even neighbour"] = lambda: mistaken_codes(
                x, s, z, bits, lambda v: (v + 0.5).floor()
            )
            expected = to_codes(x, s.expand(x.shape), z.expand(x.shape), bits).codes
            check_equal(
                affine_quantize(x, s, z, bits), expected, f"affine_quantize, {name}, {bits} bits", mistakes
            )
    ### END HIDDEN TESTS

with points.part(2, "affine_dequantize"):
    codes, scale, zero_point = (
        torch.tensor([0, 1, 3, 4], dtype=torch.uint8),
        torch.tensor(0.5),
        torch.tensor(3, dtype=torch.int32),
    )
    why = "2⁻²³ · 2^bits · scale"
    mistakes = {
        "code − zero_point wraps around in uint8: 0 − 3 is 253": torch.tensor([126.5, 127, 0, 0.5]),
        "the zero point is not subtracted": torch.tensor([0, 0.5, 1.5, 2]),
        "the zero point is added; it is subtracted": torch.tensor([1.5, 2, 3, 3.5]),
        "the zero point is subtracted after the scale multiplies": torch.tensor([-3, -2.5, -1.5, -1]),
        "the difference is divided by the scale": torch.tensor([-6.0, -4, 0, 2]),
    }
    what = "affine_dequantize of 0, 1, 3, 4 with scale 0.5, zero point 3"
    expected = torch.tensor([-1.5, -1, 0, 0.5])
    check_close(affine_dequantize(codes, scale, zero_point), expected, 2.0**-20, what, why, mistakes)
    ### BEGIN HIDDEN TESTS
    generator = torch.Generator().manual_seed(103)
    codes = torch.randint(0, 256, (7, 40), generator=generator, dtype=torch.uint8)
    scale = torch.rand(7, 1, generator=generator) + 0.01
    zero = torch.randint(0, 256, (7, 1), generator=generator, dtype=torch.int32)
    cases = {
        "a grid for each row": (codes, scale, zero),
        "a transposed view": (codes.T, scale.T, zero.T),
        "one grid for a tensor": (codes, scale[0, 0], zero[0, 0]),
    }
    for name, (q, s, z) in cases.items():
        difference = q.long() - z.long()
        expected = (s.double() * difference).float()
        mistakes = {
            "code − zero_point wraps around in uint8: 3 − 5 is 254": lambda: s * (difference % 256),
            "the zero point is not subtracted": lambda: s * q,
            "the zero point is added; it is subtracted": lambda: s * (q.long() + z),
            "the zero point is subtracted after the scale multiplies": lambda: s * q - z,
            "the difference is divided by the scale": lambda: difference / s,
        }
        atol = (s * 2.0**-15).expand(q.shape)
        check_close(affine_dequantize(q, s, z), expected, atol, f"affine_dequantize, {name}", why, mistakes)
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ### Exercise (b): the size of a model, to the byte
#
# *8 minutes, 6 points: 3 for a tensor, 3 for a model*
#
# A format stores codes in *blocks*, each with constants of its own (scales, zero points, minima):
#
# ```
# Q4_0        32 codes of 4 bits, a float16 scale                     32 · 4 + 16    144 bits
# int4 g128   128 codes of 4 bits, a float16 scale, a 4-bit zero     128 · 4 + 20    532 bits
# Q4_K        256 codes of 4 bits, 16 numbers of 6, two float16      256 · 4 + 128  1152 bits
#
# one row     ├── block ──┼── block ──┼── block · · · ┤    the last block is stored whole,
# next row    ├── block ──┼── block ──┼── block · · · ┤    and every row begins at a byte
# ```
#
# ```
# layout: (code_bits, block, constant_bits)    of a code; weights per block; of a block's constants
#
# tensor_bytes  shape: tuple of ints;  layout     →  int
# model_size    tensors: dict,                    →  dict with the keys
#               name → (shape, layout)               "bytes", "GB", "GiB", "bits_per_weight"
# ```
#
# | | |
# |:--|:--|
# | Rows | run along the last dimension. `(n,)` is one row; `(a, b, n)` has a · b rows |
# | A row | ⌈n / block⌉ blocks of `block · code_bits + constant_bits` bits, together rounded up to whole bytes. The last block is whole, whatever part of it is used |
# | Layouts | all three numbers are ints; a float16 tensor is `(16, 1, 0)` |
# | GB and GiB | 10⁹ bytes and 2³⁰ bytes |
# | Bits per weight | 8 · bytes / weights, over the whole model. What fills up a last block is no weight |
# | Tolerance | bytes are exact; the other three within 10⁻⁹ of themselves |
#
# The next cell holds Llama-2-7B as data, in some of llama.cpp's mixes. A mix gives tensors different formats: in Q4_K_M half of the `attn_v` and
# `ffn_down` matrices and the output matrix have 6 bits, and the norms stay in float32.

# %%
LAYOUTS = {  # bits of a code, weights per block, bits of a block's constants
    "F32": (32, 1, 0),
    "F16": (16, 1, 0),
    "Q8_0": (8, 32, 16),
    "Q6_K": (6, 256, 16 * 8 + 16),  # 16 scales of 8 bits and a float16
    "Q4_K": (4, 256, 16 * 6 + 2 * 16),
    "Q4_0": (4, 32, 16),
    "int4 g128": (4, 128, 16 + 4),
}
MORE_BITS = {0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31}  # layers with 6-bit matrices in Q4_K_M


def llama_2_7b(mix):
    """The tensors of Llama-2-7B in the mix "F16", "Q8_0", "Q4_0" or "Q4_K_M": name -> (shape, layout)."""
    width, ff, vocabulary = 4096, 11008, 32000
    squares = {name: (width, width) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
    wide = {"ffn_gate": (ff, width), "ffn_up": (ff, width), "ffn_down": (width, ff)}
    base = "Q4_K" if mix == "Q4_K_M" else mix
    formats = {("token_embd", (vocabulary, width)): base}
    formats["output", (vocabulary, width)] = "Q6_K" if mix in ("Q4_0", "Q4_K_M") else base
    formats["output_norm", (width,)] = "F32"
    for layer in range(32):
        for name in ("attn_norm", "ffn_norm"):
            formats[f"blk.{layer}.{name}", (width,)] = "F32"
        for name, shape in {**squares, **wide}.items():
            more = mix == "Q4_K_M" and name in ("attn_v", "ffn_down") and layer in MORE_BITS
            formats[f"blk.{layer}.{name}", shape] = "Q6_K" if more else base
    return {name: (shape, LAYOUTS[format]) for (name, shape), format in formats.items()}

# %% nbgrader={"grade": false, "grade_id": "size", "locked": false, "schema_version": 3, "solution": true, "task": false}
def tensor_bytes(shape, layout):
    """Bytes of a tensor of this shape, constants and filled-up blocks included."""
    ### BEGIN SOLUTION
    code_bits, block, constant_bits = layout
    *outer, columns = shape
    blocks = -(-columns // block)
    row_bits = blocks * (block * code_bits + constant_bits)
    return math.prod(outer) * -(-row_bits // 8)
    ### END SOLUTION


def model_size(tensors):
    """Size of a model, name -> (shape, layout): a dict with "bytes", "GB", "GiB" and "bits_per_weight"."""
    ### BEGIN SOLUTION
    n_bytes = sum(tensor_bytes(shape, layout) for shape, layout in tensors.values())
    n_weights = sum(math.prod(shape) for shape, layout in tensors.values())
    return {
        "bytes": n_bytes,
        "GB": n_bytes / 10**9,
        "GiB": n_bytes / 2**30,
        "bits_per_weight": 8 * n_bytes / n_weights,
    }
    ### END SOLUTION

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# A tensor of 3 rows of 640 weights in blocks of 256: three blocks per row, nine in all. 3 · 640 / 256 would be 7.5.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Everything but the last dimension counts rows (`math.prod` of an empty tuple is 1). Divide upwards with `-(-a // b)`, which stays in whole
# numbers. Sum bytes and weights over the model first, and divide once.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# rows, columns = product of all dimensions but the last, the last
# bits = (columns / weights per block, upwards) * (weights per block * code bits + constant bits)
# bytes of the tensor = rows * (bits / 8, upwards)
# average bits = 8 * sum of bytes / sum of products of the shapes
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-size", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
from course.checks import Points, check_close, check_equal

### BEGIN HIDDEN TESTS
import math

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from quant_kernels.models.plan_mix import plan_mix
from quant_kernels.models.shapes import ARCHITECTURES, llama_shapes

KNOWN = {
    "F32": (32, 1, 0),
    "F16": (16, 1, 0),
    "Q8_0": (8, 32, 16),
    "Q6_K": (6, 256, 144),
    "Q5_K": (5, 256, 128),
    "Q4_K": (4, 256, 128),
    "Q3_K": (3, 256, 112),
    "Q4_0": (4, 32, 16),
    "Q2_K": (2, 256, 160),
}


def up(a, b):
    return -(-a // b)


def wrong_bytes(shape, layout):
    """What misconceptions give for the bytes of a tensor."""
    code_bits, block, constant_bits = layout
    weights, rows, columns = math.prod(shape), math.prod(shape[:-1]), shape[-1]
    stored = block * code_bits + constant_bits
    return {
        "the block's constants are not counted": up(weights * code_bits, 8),
        "the constants are not counted, though the last block is filled up": rows
        * up(up(columns, block) * block * code_bits, 8),
        "blocks run on from row to row; each row has blocks of its own": up(up(weights, block) * stored, 8),
        "the last block of a row is stored in part; it is stored whole": up(weights * stored, 8 * block),
        "a last block that is not full is dropped": rows * (columns // block) * stored // 8,
        "the constants are counted once per row; every block has its own": rows
        * up(up(columns, block) * block * code_bits + constant_bits, 8),
        "the constants are counted once per tensor; every block has its own": up(
            weights * code_bits + constant_bits, 8
        ),
        "every block begins at a byte; every row does": rows * up(columns, block) * up(stored, 8),
        "the bits of a row are rounded down to bytes": rows * (up(columns, block) * stored // 8),
        "bytes and bits are mixed up": rows * up(columns, block) * stored,
    }


def check_tensor(shape, layout, expected):
    mistakes = wrong_bytes(shape, layout)
    check_equal(tensor_bytes(shape, layout), expected, f"tensor_bytes({shape}, {layout})", mistakes)


def of_plan(model, mix):
    """The tensors of a model as data, and what the reference says of it."""
    sizes = ARCHITECTURES[model]
    plan = plan_mix(llama_shapes(sizes), mix, **sizes.heads)
    return {name: (tensor.shape, KNOWN[tensor.qtype]) for name, tensor in plan.tensors.items()}, plan


def check_size(tensors, n_bytes, what):
    weights = {name: math.prod(shape) for name, (shape, _) in tensors.items()}
    total = sum(weights.values())
    filled = sum(
        weights[name] // shape[-1] * up(shape[-1], layout[1]) * layout[1]
        for name, (shape, layout) in tensors.items()
    )
    codes = sum(weights[name] * layout[0] for name, (_, layout) in tensors.items())
    per_layout = [layout[0] + layout[2] / layout[1] for _, layout in tensors.values()]
    got = model_size(tensors)
    mistakes = {"the constants of the blocks are not counted": codes / 8}
    check_equal(got["bytes"], n_bytes, f'{what}: "bytes"', mistakes)
    expected = {
        "GB": (
            n_bytes / 1e9,
            {
                "a GB is taken for 2³⁰ bytes, which is a GiB": n_bytes / 2**30,
                "megabytes are given": n_bytes / 1e6,
            },
        ),
        "GiB": (
            n_bytes / 2**30,
            {"a GiB is taken for 10⁹ bytes, which is a GB": n_bytes / 1e9, "MiB are given": n_bytes / 2**20},
        ),
        "bits_per_weight": (
            8 * n_bytes / total,
            {
                "tensors are averaged as if all had the same size": sum(per_layout) / len(per_layout),
                "only codes are counted": codes / total,
                "what fills up last blocks is counted as weights": 8 * n_bytes / filled,
                "bytes are taken for bits": n_bytes / total,
            },
        ),
    }
    for key, (value, mistakes) in expected.items():
        check_close(got[key], value, 1e-9 * value, f'{what}: "{key}"', "10⁻⁹ of the value", mistakes)


### END HIDDEN TESTS

Q4_0, Q4_K, F32 = (4, 32, 16), (4, 256, 128), (32, 1, 0)
G128 = (4, 128, 20)

points = Points()
with points.part(3, "tensor_bytes"):
    mistakes = {
        "the block's constants are not counted": 8_388_608,
        "the constants are counted once per row; every block has its own": 8_396_800,
        "the constants are counted once per tensor; every block has its own": 8_388_610,
        "bytes and bits are mixed up": 75_497_472,
    }
    what = "tensor_bytes((4096, 4096), (4, 32, 16))"
    check_equal(tensor_bytes((4096, 4096), Q4_0), 9_437_184, what, mistakes)
    check_equal(tensor_bytes((4096,), F32), 16_384, "tensor_bytes((4096,), (32, 1, 0))")
    mistakes = {  # three blocks of 144 bytes in each of 5 rows
        "the block's constants are not counted": 1600,
        "the constants are not counted, though the last block is filled up": 1920,
        "blocks run on from row to row; each row has blocks of its own": 1872,
        "the last block of a row is stored in part; it is stored whole": 1800,
        "a last block that is not full is dropped": 1440,
    }
    check_equal(tensor_bytes((5, 640), Q4_K), 2160, "tensor_bytes((5, 640), (4, 256, 128))", mistakes)
    mistakes = {  # three blocks of 532 bits, 199.5 bytes, in each of 5 rows
        "every block begins at a byte; every row does": 1005,
        "the bits of a row are rounded down to bytes": 995,
        "only the whole tensor is rounded up to bytes; every row is": 998,
    }
    check_equal(tensor_bytes((5, 384), G128), 1000, "tensor_bytes((5, 384), (4, 128, 20))", mistakes)
    ### BEGIN HIDDEN TESTS
    for name, layout in KNOWN.items():
        block, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
        check_tensor((7, 6, 1024), layout, 42 * 1024 // block * n_bytes)
        check_tensor((2560,), layout, 2560 // block * n_bytes)
    check_tensor((8, 14336, 4096), KNOWN["Q4_K"], 8 * 14336 * 16 * 144)
    check_tensor((1, 1), KNOWN["Q4_K"], 144)
    check_tensor((3, 257), KNOWN["Q6_K"], 3 * 2 * 210)
    check_tensor((11, 130), (3, 128, 32), 11 * 104)
    check_tensor((5, 7), (3, 1, 0), 5 * 3)
    check_tensor((4, 100), (3, 40, 7), 4 * 48)  # 3 blocks of 127 bits: 47.6 bytes
    check_tensor((128256, 16384), KNOWN["F16"], 128256 * 16384 * 2)
    ### END HIDDEN TESTS

with points.part(3, "model_size"):
    small = {"matrix": ((5, 640), Q4_K), "norm": ((640,), F32)}
    what = "model_size of a matrix (5, 640) in Q4_K and a norm (640,) in F32"
    size = model_size(small)
    mistakes = {"the constants of the blocks are not counted": 4480}
    check_equal(size["bytes"], 4720, f'{what}: "bytes"', mistakes)
    mistakes = {"a GB is taken for 2³⁰ bytes, which is a GiB": 4720 / 2**30, "megabytes are given": 4.72e-3}
    check_close(size["GB"], 4.72e-6, 4.72e-15, f'{what}: "GB"', "10⁻⁹ of the value", mistakes)
    mistakes = {"a GiB is taken for 10⁹ bytes, which is a GB": 4.72e-6, "MiB are given": 4720 / 2**20}
    check_close(size["GiB"], 4720 / 2**30, 4.4e-15, f'{what}: "GiB"', "10⁻⁹ of the value", mistakes)
    mistakes = {
        "tensors are averaged as if all had the same size": 18.25,
        "only codes are counted": 33280 / 3840,
        "what fills up last blocks is counted as weights": 37760 / 4480,
        "bytes are taken for bits": 4720 / 3840,
    }
    why = "10⁻⁹ of the value"
    check_close(size["bits_per_weight"], 37760 / 3840, 1e-8, f'{what}: "bits_per_weight"', why, mistakes)
    size = model_size(llama_2_7b("Q4_K_M"))
    check_equal(size["bytes"], 4_080_263_168, 'model_size of Llama-2-7B in Q4_K_M: "bytes"')
    ### BEGIN HIDDEN TESTS
    tensors, plan = of_plan("Llama-2-7B", "Q4_K_M")
    check_size(tensors, 4_080_263_168, "model_size of Llama-2-7B in Q4_K_M")
    for model, mix in (
        ("Llama-2-7B", "F16"),
        ("Llama-2-7B", "Q4_0"),
        ("Llama-3.1-8B", "Q4_K_M"),
        ("Llama-3.1-8B", "Q2_K"),
        ("Mixtral-8x7B", "Q8_0"),
    ):
        tensors, plan = of_plan(model, mix)
        check_size(tensors, plan.n_bytes, f"model_size of {model} in {mix}")
    odd = {"a": ((10, 300), (4, 128, 20)), "b": ((3, 5, 33), (3, 32, 16)), "c": ((7,), (16, 1, 0))}
    check_size(odd, 10 * 200 + 15 * 28 + 14, "model_size of three tensors with blocks that are not full")
    check_size({"only": ((1, 1), KNOWN["Q6_K"])}, 210, "model_size of one weight in Q6_K")
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ### Exercise (c): how fast can it be? Audit the claims
#
# *10 minutes, 7 points: 2 for the KV cache, 3 for the bound, 2 for the audit*
#
# One **decode step** gives each of `batch` sequences one more token. From memory it reads
#
# ```
# ┌──────── once ────────┐   ┌───── for each sequence ─────┐
# │     all weights      │ + │  keys and values of its     │
# │                      │   │  whole context              │
# └──────────────────────┘   └─────────────────────────────┘
#
# KV cache: per token, in every layer, one key and one value for each KV head, of head_dim numbers each
# ```
#
# No step can take less time than reading its bytes at the memory's full bandwidth. That is a bound on speed, and it can refute a claim.
#
# ```
# kv_bytes_per_token  config: dict;  bits: a number                      →  bytes, a number
# decode_bound        weights, kv_per_token, context, batch, bandwidth   →  tokens per second, a float
# audit               claims: list of dicts                              →  list of dicts, same order
# ```
#
# | | |
# |:--|:--|
# | `config` | `n_layer`, `n_embd`, `n_head`, `n_head_kv` (ints), as in a model's config file; a head has `n_embd / n_head` numbers. With `n_head_kv < n_head`, query heads share keys and values |
# | `bits` | bits per number of the cache, constants included: 16 for float16, 8.5 for Q8_0 |
# | `decode_bound` | `weights` in bytes, `kv_per_token` in bytes, `context` in tokens per sequence, `bandwidth` in bytes/s. The tokens of **all sequences together**. What a step writes is neglected |
# | a claim | `"speed"`: tokens/s of all sequences together; `"weights"`, `"kv_per_token"`, `"context"`, `"batch"` as above; `"bandwidths"`: a list, one for each memory that the machine may have had (other keys do not matter) |
# | its audit | a dict. `"needed"`: the bandwidth in bytes/s at which the claimed speed is just the bound. `"share"`: the claimed speed / the bound with the *fastest* of the memories. `"verdict"`: `"impossible"` where the share is above 1, else `"possible"` |
# | Tolerance | 10⁻⁹ of each value; no claim of the tests comes within 0.1 % of its bound |
#
# A bound only refutes: "impossible" has to hold under the reading that is kindest to the claim.

# %%
F16, Q4_0, Q4_K_M, Q3_K_M = 13.215e9, 3.751e9, 4.007e9, 3.241e9  # bytes of Llama-2-7B that a step reads
# (its file but for the table of token embeddings, of which a step needs one row)
GB = 1e9
# Bandwidths: the makers' data sheets. Nothing is said of batch and context: one sequence without a cache is the
# kindest reading.
NO_CACHE = {"kv_per_token": 0, "context": 0, "batch": 1}
CLAIMS = [
    {"name": "RTX 4090, FP16", "speed": 28, "weights": F16, "bandwidths": [1008 * GB], **NO_CACHE},
    {"name": "RTX 4090, Q4_K_M", "speed": 52, "weights": Q4_K_M, "bandwidths": [1008 * GB], **NO_CACHE},
    {"name": "RTX 4090, Q3_K_M", "speed": 61, "weights": Q3_K_M, "bandwidths": [1008 * GB], **NO_CACHE},
    {"name": "A100 80 GB, 4 bits", "speed": 180, "weights": Q4_0, "bandwidths": [2039 * GB], **NO_CACHE},
    {"name": "H100, 4 bits", "speed": 450, "weights": Q4_0, "bandwidths": [3350 * GB], **NO_CACHE},
    {"name": "M2 Max GPU, 4 bits", "speed": 62, "weights": Q4_0, "bandwidths": [400 * GB], **NO_CACHE},
    {  # two channels of DDR5-5600, the specification, or of DDR5-6400
        "name": "Core i9-13900K, 4 bits",
        "speed": 28,
        "weights": Q4_0,
        "bandwidths": [89.6 * GB, 102.4 * GB],
        **NO_CACHE,
    },
]

# %% nbgrader={"grade": false, "grade_id": "speed", "locked": false, "schema_version": 3, "solution": true, "task": false}
def kv_bytes_per_token(config, bits):
    """Bytes that one token takes in the KV cache, over all layers."""
    ### BEGIN SOLUTION
    head_dim = config["n_embd"] // config["n_head"]
    return 2 * config["n_layer"] * config["n_head_kv"] * head_dim * bits / 8
    ### END SOLUTION


def decode_bound(weights, kv_per_token, context, batch, bandwidth):
    """The most tokens per second, of all sequences together, that reading from memory allows."""
    ### BEGIN SOLUTION
    return batch * bandwidth / (weights + batch * context * kv_per_token)
    ### END SOLUTION


def audit(claims):
    """For each claim a dict: "verdict" ("impossible" or "possible"), "share" of the bound, "needed" bandwidth."""
    ### BEGIN SOLUTION
    found = []
    for claim in claims:
        step = [claim[key] for key in ("weights", "kv_per_token", "context", "batch")]
        share = claim["speed"] / decode_bound(*step, max(claim["bandwidths"]))
        needed = claim["speed"] / decode_bound(*step, 1.0)
        found.append({"verdict": "impossible" if share > 1 else "possible", "share": share, "needed": needed})
    return found
    ### END SOLUTION

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# How many bytes does one step read? How many tokens does it give? Everything else is a division.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# The cache holds 2 · layers · KV heads · head size numbers per token. A step reads the weights once, whatever the batch, and one cache per sequence. The
# speed is inversely proportional to the bytes, so the needed bandwidth is (claimed steps per second) · (bytes of a step).
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# numbers = 2 * layers * kv_heads * (width / heads)                # the cache, per token
# bytes_of_a_step = weights + batch * context * cache_per_token
# tokens_per_second = batch / (bytes_of_a_step / bandwidth)
# needed = claimed speed / batch * bytes_of_a_step
# share = needed / the largest bandwidth
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-speed", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
from course.checks import Points, check_close, check_equal

WHY = "10⁻⁹ of the value"

### BEGIN HIDDEN TESTS
import random

from quant_kernels.hardware import Hardware
from quant_kernels.models.shapes import ARCHITECTURES
from quant_kernels.roofline import kv_bytes, streaming_bound


def config_of(model):
    sizes = ARCHITECTURES[model]
    return {key: getattr(sizes, key) for key in ("n_layer", "n_embd", "n_head", "n_head_kv")}


def check_kv(model, bits, expected):
    config = config_of(model)
    head = config["n_embd"] // config["n_head"]
    mistakes = {
        "values are forgotten: a token leaves a key and a value": expected / 2,
        "every query head has its own keys and values; n_head_kv says how many there are": 2
        * config["n_layer"]
        * config["n_embd"]
        * bits
        / 8,
        "the layers are forgotten": expected / config["n_layer"],
        "bits are taken for bytes": expected * 8,
        "the heads are forgotten": 2 * config["n_layer"] * head * bits / 8,
        "bits per number are rounded down to bytes": expected / bits * 8 * (bits // 8),
    }
    what = f"kv_bytes_per_token of {model}, {bits} bits"
    check_close(kv_bytes_per_token(config, bits), expected, 1e-9 * expected, what, WHY, mistakes)


def check_bound(weights, kv, context, batch, bandwidth, what):
    right = batch * bandwidth / (weights + batch * context * kv)
    mistakes = {
        "the KV cache is not read": batch * bandwidth / weights,
        "one sequence's cache is read for the whole batch": batch * bandwidth / (weights + context * kv),
        "the weights are read once per sequence; a step reads them once": batch
        * bandwidth
        / (batch * weights + batch * context * kv),
        "steps are counted, not tokens: a step gives `batch` of them": bandwidth
        / (weights + batch * context * kv),
        "the cache of one token is read, not that of the context": batch * bandwidth / (weights + batch * kv),
        "seconds per token are returned": 1 / right,
    }
    check_close(
        decode_bound(weights, kv, context, batch, bandwidth), right, 1e-9 * right, what, WHY, mistakes
    )


def check_audit(claims, what):
    found = audit(claims)
    assert len(found) == len(claims), f"{what}: {len(found)} results for {len(claims)} claims"
    for i, (got, claim) in enumerate(zip(found, claims)):
        cache = claim["batch"] * claim["context"] * claim["kv_per_token"]
        bytes_of_a_step = claim["weights"] + cache
        needed = claim["speed"] / claim["batch"] * bytes_of_a_step
        fastest, slowest = max(claim["bandwidths"]), min(claim["bandwidths"])
        first, mean = claim["bandwidths"][0], sum(claim["bandwidths"]) / len(claim["bandwidths"])
        where = f"{what}, claim {i}"
        mistakes = {
            "the batch is forgotten: one step gives `batch` tokens": claim["speed"] * bytes_of_a_step,
            "the KV cache is forgotten": claim["speed"] / claim["batch"] * claim["weights"],
            "it is the speed's share of the bandwidth": claim["speed"] / fastest,
        }
        check_close(got["needed"], needed, 1e-9 * needed, f'{where}: "needed"', WHY, mistakes)
        mistakes = {
            "the slowest memory is taken; it may have been a faster one": needed / slowest,
            "the first memory is taken; it may have been a faster one": needed / first,
            "the mean of the memories is taken; it may have been the fastest": needed / mean,
            "bound / speed is taken, not speed / bound": fastest / needed,
            "it is in percent": 100 * needed / fastest,
            "the batch is forgotten: one step gives `batch` tokens": claim["speed"]
            * bytes_of_a_step
            / fastest,
        }
        check_close(
            got["share"], needed / fastest, 1e-9 * needed / fastest, f'{where}: "share"', WHY, mistakes
        )
        verdict = "impossible" if needed > fastest else "possible"
        clause = (
            f"its share is {needed / fastest:.3g}; a speed below the bound is not refuted, one above it is"
        )
        mistakes = {clause: "possible" if needed > fastest else "impossible"}
        check_equal(got["verdict"], verdict, f'{where}: "verdict"', mistakes)


### END HIDDEN TESTS

points = Points()
with points.part(2, "kv_bytes_per_token"):
    config = {"n_layer": 32, "n_embd": 4096, "n_head": 32, "n_head_kv": 8}
    mistakes = {
        "values are forgotten: a token leaves a key and a value": 65_536,
        "every query head has its own keys and values; n_head_kv says how many there are": 524_288,
        "the layers are forgotten": 4_096,
        "the heads are forgotten": 16_384,
        "bits are taken for bytes": 1_048_576,
    }
    what = "kv_bytes_per_token of Llama-3.1-8B, 16 bits"
    check_close(kv_bytes_per_token(config, 16), 131_072, 1e-4, what, WHY, mistakes)
    config = {"n_layer": 32, "n_embd": 4096, "n_head": 32, "n_head_kv": 32}
    mistakes = {"bits per number are rounded down to bytes": 262_144}
    what = "kv_bytes_per_token of Llama-2-7B, 8.5 bits"
    check_close(kv_bytes_per_token(config, 8.5), 278_528, 1e-4, what, WHY, mistakes)
    ### BEGIN HIDDEN TESTS
    for model in ("Llama-2-7B", "Llama-2-70B", "Llama-3.2-3B", "SmolLM2-360M"):
        for bits in (16, 8.5, 4.5):
            check_kv(model, bits, kv_bytes(ARCHITECTURES[model], kv=bits))
    ### END HIDDEN TESTS

with points.part(3, "decode_bound"):
    mistakes = {"seconds per token are returned": 0.013373}
    got = decode_bound(13.48e9, 524288, 0, 1, 1008e9)
    check_close(got, 74.7774480712166, 1e-7, "decode_bound of 13.48 GB at 1008 GB/s", WHY, mistakes)
    mistakes = {
        "the KV cache is not read": 2016.0,
        "one sequence's cache is read for the whole batch": 1311.7595,
        "the weights are read once per sequence; a step reads them once": 163.9703,
        "steps are counted, not tokens: a step gives `batch` of them": 47.59236,
        "the cache of one token is read, not that of the context": 2013.8881,
    }
    got = decode_bound(4e9, 524288, 4096, 8, 1008e9)
    what = "decode_bound of 4 GB and 8 sequences of 4096 tokens, 512 KiB each, at 1008 GB/s"
    check_close(got, 380.738895502330, 3.8e-7, what, WHY, mistakes)
    ### BEGIN HIDDEN TESTS
    rng = random.Random(104)
    for _ in range(12):
        weights, bandwidth = rng.uniform(1e8, 2e11), rng.uniform(2e10, 8e12)
        kv, context, batch = (
            rng.choice([16384, 131072.0, 278528]),
            rng.randrange(1, 30000),
            rng.randrange(1, 65),
        )
        check_bound(weights, kv, context, batch, bandwidth, f"decode_bound, batch {batch}, context {context}")
        alone = streaming_bound(weights, Hardware("memory", bandwidth)).tokens_per_second
        got = decode_bound(weights, kv, 0, 1, bandwidth)
        check_close(got, alone, 1e-9 * alone, "decode_bound, one sequence without context", WHY)
    ### END HIDDEN TESTS

with points.part(2, "audit"):
    single = {"kv_per_token": 0, "context": 0, "batch": 1}
    crowd = {"kv_per_token": 524288, "context": 512, "batch": 16}
    claims = [
        {"speed": 28, "weights": 3.751e9, "bandwidths": [96e9, 102.4e9, 89.6e9], **single},
        {"speed": 28, "weights": 13.215e9, "bandwidths": [1008e9], **single},
        {"speed": 26, "weights": 3.751e9, "bandwidths": [96e9, 102.4e9, 89.6e9], **single},
        {"speed": 400, "weights": 13e9, "bandwidths": [1008e9], **crowd},
    ]
    expected = [  # verdict, share, needed
        ("impossible", 1.0256640625, 105.028e9),
        ("possible", 0.367083333333333, 370.02e9),
        ("possible", 0.952402343750000, 97.526e9),
        ("possible", 0.428942641269841, 432.3741824e9),
    ]
    found = audit(claims)
    assert len(found) == 4, f"audit of four claims: {len(found)} results"
    slips = [
        {
            "the slowest memory is taken; it may have been a faster one": 1.1721875,
            "the first memory is taken; it may have been a faster one": 1.0940417,
            "bound / speed is taken, not speed / bound": 0.9749781,
            "it is in percent": 102.56640625,
        },
        {},
        {},
        {
            "the batch is forgotten: one step gives `batch` tokens": 6.863082,
            "the KV cache is forgotten": 0.3224206,
        },
    ]
    for i, (got, (verdict, share, needed), mistakes) in enumerate(zip(found, expected, slips)):
        check_close(got["share"], share, 1e-9, f'audit, claim {i}: "share"', WHY, mistakes)
        check_close(got["needed"], needed, 1e-9 * needed, f'audit, claim {i}: "needed"', WHY)
        clause = f"its share is {share:.3g}; a speed below the bound is not refuted, one above it is"
        mistakes = {clause: "possible" if verdict == "impossible" else "impossible"}
        check_equal(got["verdict"], verdict, f'audit, claim {i}: "verdict"', mistakes)
    ### BEGIN HIDDEN TESTS
    rng = random.Random(105)
    claims = []
    for i in range(40):
        memories = [rng.uniform(3e10, 4e12) for _ in range(rng.randrange(1, 5))]
        claim = {
            "name": f"machine {i}",
            "weights": rng.uniform(1e9, 1e11),
            "kv_per_token": rng.choice([0, 131072, 524288]),
            "context": rng.randrange(0, 9000),
            "batch": rng.choice([1, 1, 4, 64]),
            "bandwidths": memories,
        }
        bytes_of_a_step = claim["weights"] + claim["batch"] * claim["context"] * claim["kv_per_token"]
        bound = claim["batch"] * max(memories) / bytes_of_a_step
        claims.append({**claim, "speed": bound * rng.choice([0.1, 0.37, 0.8, 0.99, 1.02, 1.3, 3])})
    check_audit(claims, "audit of random claims")
    assert audit([]) == [], "audit of no claims: the result is an empty list"
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ### Exercise (d): error against group size
#
# *9 minutes, 5 points: 3 for the error, 2 for the choice*
#
# A step follows the largest numbers that share it. So groups of few weights have finer steps, and more constants to store:
#
# ```
# 4-bit codes, rows of 4096                                       bits per weight
# one scale per row      ├────────────────────────────────────┤   4 + 16 / 4096 = 4.004
# per group of 128       ├────┼────┼────┼────┼── ··· ──┼──────┤   4 + 16 / 128  = 4.125
# per group of 32        ├─┼─┼─┼─┼─┼─┼─┼─┼─┼─── ··· ──┼─┼─┼─┼─┤   4 + 16 / 32   = 4.5
# ```
#
# ```
# group_error   x: float32 (rows, n);  bits: 2 … 8;  group: int;  scheme: str  →  percent, a float
# best_split    x: float32 (rows, n), n a multiple of 256;  budget: a number    →  (bits, group)
# ```
#
# | `scheme` | step | codes | decoded |
# |:--|:--|:--|:--|
# | `"absmax"` | `max(abs(x)) / (2^(bits−1) − 1)` | −(2^(bits−1) − 1) … 2^(bits−1) − 1 | step · code |
# | `"signed"` | `m / −2^(bits−1)`, m the element of the largest magnitude with its sign | −2^(bits−1) … 2^(bits−1) − 1 | step · code |
# | `"min-max"` | `(max − min) / (2^bits − 1)` | 0 … 2^bits − 1 | step · code + min |
#
# | | |
# |:--|:--|
# | Groups | `group` neighbours along the last dimension; `ValueError` where `group` does not divide n |
# | Codes | the nearest step (halves as you like), clamped to the range of the table. min and max are the group's own: zero need not lie between |
# | Constants | steps and minima stay float32 here. A group of zeros decodes to itself, and in "min-max" so does a constant group |
# | Error | `100 · sqrt(Σ(x − x̂)² / Σx²)`, both sums over the whole tensor |
# | `best_split` | scheme "absmax"; `bits` 2 … 8 and `group` one of 16, 32, 64, 128, 256. A weight costs `bits + 16 / group`. Among the pairs that cost at most `budget`, the one with the smallest error; `ValueError` if there is none. No two pairs of the tests are as good as each other |
# | Tolerance | 0.2 % of the figure: float32 arithmetic, and the freedom in halves |
#
# On 256 × 4096 weights from N(0, 1), 4 bits, your figures should be these within 1 % (the scatter of such samples; for whole rows, of which
# there are only 256, it is 2 %):
#
# | group | bits per weight with one float16 constant | "absmax" | "signed" | "min-max" (one constant more) |
# |--:|--:|--:|--:|--:|
# | 32 | 4.5 | 9.70 % | 8.60 % | 7.82 % |
# | 128 | 4.125 | 11.74 % | 10.32 % | 9.98 % |
# | 4096 | 4.004 | 15.76 % | 13.79 % | 14.01 % |
#
# (The first row's "signed" and "min-max" are what ggml's C code reaches with Q4_0 and Q4_1; the others are the rule itself, by simulation.)

# %% nbgrader={"grade": false, "grade_id": "groups", "locked": false, "schema_version": 3, "solution": true, "task": false}
def group_error(x, bits, group, scheme):
    """Relative RMSE in percent after quantizing groups of neighbours by "absmax", "signed" or "min-max"."""
    ### BEGIN SOLUTION
    if x.shape[-1] % group:
        raise ValueError(f"groups of {group} do not divide rows of {x.shape[-1]}")
    groups = x.reshape(-1, group)  # (n_groups, group)
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)  # (n_groups, 1)
    half = 2 ** (bits - 1)
    offset = 0.0
    if scheme == "absmax":
        step, first, last = torch.maximum(high, -low) / (half - 1), 1 - half, half - 1
    elif scheme == "signed":
        step, first, last = torch.where(high > -low, high, low) / -half, -half, half - 1
    else:
        step, first, last, offset = (high - low) / (2 * half - 1), 0, 2 * half - 1, low
    step = torch.where(step == 0, 1.0, step)
    decoded = ((groups - offset) / step).round().clamp(first, last) * step + offset
    return 100 * ((groups - decoded).norm() / groups.norm()).item()
    ### END SOLUTION


def best_split(x, budget):
    """(bits, group) of the smallest "absmax" error that costs at most `budget` bits per weight."""
    ### BEGIN SOLUTION
    pairs = [
        (bits, group)
        for bits in range(2, 9)
        for group in (16, 32, 64, 128, 256)
        if bits + 16 / group <= budget
    ]
    if not pairs:
        raise ValueError(f"no pair costs at most {budget} bits per weight")
    return min(pairs, key=lambda pair: group_error(x, *pair, "absmax"))
    ### END SOLUTION

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Reshape to `(n_groups, group)` and work along the last dimension. The three schemes differ in step, range and offset, and in nothing else.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# For "signed" use `torch.where(max > -min, max, min)`: a negative step is right, it turns the longer side of the range to where the largest
# weight is. An element near −m then rounds to 2^(bits−1), which is not a code: clamp. For `best_split` list the pairs you can afford, and measure each.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# g = x as (n_groups, group); smallest, largest = per group, shape (n_groups, 1)
# step = rule of the scheme, 1 where it is 0
# codes = clamp(round((g - shift) / step), first, last)            # shift: min, or 0
# percent = 100 * sqrt(sum((g - step * codes - shift) ** 2) / sum(g ** 2))
#
# affordable = [(b, n) for b in ... for n in ... if b + 16 / n <= budget]
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-groups", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import Points, check_close, check_equal, check_raises

### BEGIN HIDDEN TESTS
from quant_kernels.measures.errors import relative_rmse
from quant_kernels.methods.affine import fake_quantize

RULES = {
    "absmax": {"symmetric": True},
    "signed": {"symmetric": True, "full_range": True},
    "min-max": {"exact_zero": False},
}
PAIRS = [(bits, group) for bits in range(2, 9) for group in (16, 32, 64, 128, 256)]


def percent(x, bits, group, scheme):
    return 100 * relative_rmse(x, fake_quantize(x, bits, per=group, **RULES[scheme]))


def other_rule(x, bits, group, step, first, last):
    groups = x.reshape(-1, group)
    d = step(groups)
    d = torch.where(d == 0, 1.0, d)
    return 100 * relative_rmse(groups, (groups / d).round().clamp(first, last) * d)


def mistaken_errors(x, bits, group, scheme, right):
    half = 2 ** (bits - 1)

    def peak(groups):
        return groups.abs().amax(1, keepdim=True)

    def signed(groups):
        return groups.gather(1, groups.abs().argmax(1, keepdim=True))

    def mean_of_groups():
        groups = x.reshape(-1, group)
        decoded = fake_quantize(groups, bits, per="row", **RULES[scheme])
        return 100 * ((groups - decoded).norm(dim=1) / groups.norm(dim=1)).nanmean().item()

    mistakes = {}
    if scheme == "absmax":
        mistakes["the step is max|x| / 2^(bits−1)"] = lambda: other_rule(
            x, bits, group, lambda g: peak(g) / half, 1 - half, half - 1
        )
        mistakes['the step is 2 · max|x| / 2^bits, with the codes of "signed"'] = lambda: other_rule(
            x, bits, group, lambda g: peak(g) / half, -half, half - 1
        )
        mistakes["the step is max|x| / (2^bits − 1): codes have a sign, and half of them are left"] = lambda: (
            other_rule(x, bits, group, lambda g: peak(g) / (2 * half - 1), 1 - half, half - 1)
        )
    if scheme == "signed":
        mistakes["the sign of the largest element is lost"] = lambda: other_rule(
            x, bits, group, lambda g: peak(g) / half, -half, half - 1
        )
        mistakes["codes are not clamped: 2^(bits−1) is none"] = lambda: other_rule(
            x, bits, group, lambda g: signed(g) / -half, -half, half
        )
        mistakes["the largest element falls on the shorter side: the step is m / 2^(bits−1)"] = lambda: (
            other_rule(x, bits, group, lambda g: signed(g) / half, -half, half - 1)
        )
    if scheme == "min-max":
        mistakes["the range is widened to hold zero"] = lambda: (
            100 * relative_rmse(x, fake_quantize(x, bits, per=group))
        )
        mistakes["the step is (max − min) / 2^bits; 2^bits codes have 2^bits − 1 steps"] = lambda: (
            100 * relative_rmse(x.reshape(-1, group), wide_steps(x.reshape(-1, group), bits))
        )
    general = {
        "the error is a fraction, not percent": right / 100,
        "the square root is missing": right**2 / 100,
        "one step serves the whole tensor, not each group": lambda: (
            100 * relative_rmse(x, fake_quantize(x, bits, **RULES[scheme]))
        ),
        "groups run down the columns, not along the rows": lambda: percent(
            x.T.reshape(x.shape[1], -1), bits, min(group, len(x)), scheme
        ),
        "errors are averaged over groups; the sums run over the whole tensor": mean_of_groups,
        "the error is divided by the largest weight": lambda: (
            right * (x.square().mean().sqrt() / x.abs().max()).item()
        ),
    }
    return mistakes | general


def wide_steps(groups, bits):
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    d = (high - low) / 2**bits
    return ((groups - low) / torch.where(d == 0, 1.0, d)).round().clamp(0, 2**bits - 1) * d + low


def check_error(x, bits, group, scheme, what):
    right = percent(x, bits, group, scheme)
    where = f'group_error, {what}, {bits} bits, group {group}, "{scheme}"'
    atol = 0.002 * right + 1e-5
    check_close(
        group_error(x, bits, group, scheme),
        right,
        atol,
        where,
        "0.2 % of the figure",
        mistaken_errors(x, bits, group, scheme, right),
    )


def check_split(x, budget, what):
    affordable = [pair for pair in PAIRS if pair[0] + 16 / pair[1] <= budget]
    errors = {pair: percent(x, *pair, "absmax") for pair in affordable}
    best = min(errors, key=errors.get)
    most = max(pair[0] for pair in affordable)
    smallest = min(pair[1] for pair in affordable)
    mistakes = {
        "the constants cost nothing": (min(8, int(budget)), 16),
        "most bits are taken, without looking at the errors": min(
            pair for pair in affordable if pair[0] == most
        ),
        "the smallest groups are taken, without looking at the errors": max(
            pair for pair in affordable if pair[1] == smallest
        ),
        "the pair with the largest error is taken": max(errors, key=errors.get),
    }
    got = tuple(best_split(x, budget))
    named = {text: f"{bits} bits, groups of {group}" for text, (bits, group) in mistakes.items()}
    expected = f"{best[0]} bits, groups of {best[1]}"
    check_equal(f"{got[0]} bits, groups of {got[1]}", expected, f"best_split, {what}, budget {budget}", named)


### END HIDDEN TESTS

points = Points()
with points.part(3, "group_error"):
    x = torch.randn(256, 4096, generator=torch.Generator().manual_seed(0))
    slips = {  # in groups of 32
        "absmax": {
            "the error is a fraction, not percent": 0.0971,
            "the square root is missing": 0.942,
            "one step serves the whole tensor, not each group": 19.63,
            "errors are averaged over groups; the sums run over the whole tensor": 9.577,
            "the step is max|x| / 2^(bits−1)": 10.18,
            'the step is max|x| / 2^(bits−1), with the codes of "signed"': 9.37,
            "the step is max|x| / (2^bits − 1): codes have a sign, and half of them are left": 34.48,
        },
        "signed": {
            "the sign of the largest element is lost": 9.37,
            "codes are not clamped: 2^(bits−1) is none": 8.498,
            "the largest element falls on the shorter side: the step is m / 2^(bits−1)": 10.09,
            'the step is that of "absmax"': 9.70,
        },
        "min-max": {
            "the range is widened to hold zero": 8.08,
            "the step is (max − min) / 2^bits; 2^bits codes have 2^bits − 1 steps": 8.81,
        },
    }
    ladder = {32: (9.70, 8.60, 7.82), 128: (11.74, 10.32, 9.98), 4096: (15.76, 13.79, 14.01)}
    for group, targets in ladder.items():
        for (scheme, mistakes), target in zip(slips.items(), targets):
            atol = (0.02 if group == 4096 else 0.01) * target
            got = group_error(x, 4, group, scheme)
            what = f'group_error of N(0, 1), 4 bits, group {group}, "{scheme}"'
            if group > 32:
                mistakes = {"groups run down the columns, not along the rows": 12.63} if group == 4096 else {}
            check_close(got, target, atol, what, "the scatter of such samples", mistakes)
    what = "group_error of (2, 48) with groups of 32"
    check_raises(ValueError, what, group_error, torch.ones(2, 48), 4, 32, "absmax")
    ### BEGIN HIDDEN TESTS
    for group in (32, 4096):
        for scheme in RULES:
            check_error(x[:32], 4, group, scheme, "N(0, 1)")
    generator = torch.Generator().manual_seed(106)
    normal = torch.randn(16, 512, generator=generator)
    tensors = {
        "rows of different size": normal * torch.logspace(-2, 1, 16).unsqueeze(1),
        "heavy tails": normal**3,
        "weights around 1": normal * 0.2 + 1,
        "zero groups and constant groups": torch.cat(
            [normal * (torch.arange(512) < 384) + 0.0, torch.full((1, 512), -0.5)]
        ),
        "a transposed view": torch.randn(512, 32, generator=generator).T,
    }
    for name, tensor in tensors.items():
        for scheme in RULES:
            for bits, group in ((2, 32), (3, 512), (4, 64), (8, 16)):
                check_error(tensor, bits, group, scheme, name)
    exact = torch.tensor([[-7.0, 7, 3, 0, 1, -2, 5, 6]])
    check_error(exact, 4, 8, "absmax", "a grid of sevenths, met exactly")
    ### END HIDDEN TESTS

with points.part(2, "best_split"):
    x = torch.randn(64, 512, generator=torch.Generator().manual_seed(1))
    slips = {
        4.5: (
            "(4, 32)",
            {
                "the constants cost nothing": "(4, 16)",
                "the smallest groups are taken, without looking at the errors": "(3, 16)",
            },
        ),
        5.1: (
            "(5, 256)",
            {
                "the constants cost nothing": "(5, 16)",
                "the smallest groups are taken, without looking at the errors": "(4, 16)",
            },
        ),
        3.0: ("(2, 16)", {"the constants cost nothing": "(3, 16)"}),
    }
    for budget, (expected, mistakes) in slips.items():
        got = str(tuple(int(number) for number in best_split(x, budget)))
        check_equal(got, expected, f"best_split of N(0, 1), budget {budget}", mistakes)
    check_raises(ValueError, "best_split with budget 2.05", best_split, x, 2.05)
    ### BEGIN HIDDEN TESTS
    generator = torch.Generator().manual_seed(107)
    normal = torch.randn(16, 512, generator=generator)
    sizes = 10 ** (2 * torch.rand(16, 32, 1, generator=generator) - 1)
    tensors = {
        "groups of different size": (normal.reshape(16, 32, 16) * sizes).reshape(16, 512),
        "one outlier in 64": normal * (1 + 30 * (torch.arange(512) % 64 == 5)),
        "uniform": torch.rand(16, 512, generator=generator) - 0.5,
    }
    for name, tensor in tensors.items():
        for budget in (2.0625, 3.5, 4.07, 5.13, 6.0):
            check_split(tensor, budget, name)
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ### Exercise (e): six decibels per bit, and where that ends
#
# *8 minutes, 5 points: 1 for the ratio, 2 for the two noises, 2 for the bits*
#
# A number inside the grid is missed by at most half a step, evenly spread: a mean square of step² / 12. One bit more halves the step, so the noise falls to a
# quarter: 6.02 dB. A number beyond the grid's end is missed by its distance to the end, however fine the steps are:
#
# ```
#            −limit                  0                  limit
#   ─ x ─ ─ ─ ┼──┬──┬──┬──┬──┬──┬──┬──┼──┬──┬──┬──┬──┬──┬──┬──┼ ─ ─ ─ ─ x ─
#     clipped        rounded: less with every bit more          clipped: never less
# ```
#
# ```
# sqnr          x, decoded: float32 tensors of one shape        →  decibels, a float
# noise_parts   x: float32;  bits: 2 … 16;  limit: a number > 0  →  (rounded, clipped), two floats
# bits_needed   x, limit, decibels                              →  an int from 2 to 16, or None
# ```
#
# | | |
# |:--|:--|
# | Ratio | `10 · log10(Σx² / Σ(x − x̂)²)`; `math.inf` where nothing is missed. Σ runs over all elements |
# | Grid | symmetric: `step = limit / (2^(bits−1) − 1)`, codes −(2^(bits−1) − 1) … 2^(bits−1) − 1; the nearest, clamped |
# | Two noises | `rounded`: Σ(x − x̂)² over the elements with abs(x) ≤ limit, divided by Σx² over **all** elements; `clipped`: the same over the others |
# | Bits | the fewest bits from 2 to 16 with which the whole ratio, of both noises, is at least `decibels`; `None` where 16 are too few |
# | Inputs | finite and not all zero; x has any shape |
# | Tolerance | 0.01 dB for the ratio, 0.5 % for each noise: float32 sums. No target of the tests is within 0.05 dB of a decision |
#
# A rule that you will meet is "6.02 · bits + 1.76 dB". It holds for a sine wave that just fills the grid. Weights are no sine waves.

# %% nbgrader={"grade": false, "grade_id": "noise", "locked": false, "schema_version": 3, "solution": true, "task": false}
def sqnr(x, decoded):
    """Signal to quantization noise ratio in decibels; inf where nothing is missed."""
    ### BEGIN SOLUTION
    signal, noise = x.double().square().sum(), (x.double() - decoded).square().sum()
    return 10 * math.log10(signal / noise) if noise else math.inf
    ### END SOLUTION


def noise_parts(x, bits, limit):
    """Relative noise power of the rounded elements, and of the clipped ones, on a symmetric grid that ends at `limit`."""
    ### BEGIN SOLUTION
    x = x.double()
    top = 2 ** (bits - 1) - 1
    step = limit / top
    missed = (x - step * (x / step).round().clamp(-top, top)).square() / x.square().sum()
    inside = x.abs() <= limit
    return missed.where(inside, 0).sum().item(), missed.where(~inside, 0).sum().item()
    ### END SOLUTION


def bits_needed(x, limit, decibels):
    """The fewest bits, 2 to 16, that reach the ratio on the grid that ends at `limit`; None if 16 are too few."""
    ### BEGIN SOLUTION
    for bits in range(2, 17):
        if -10 * math.log10(sum(noise_parts(x, bits, limit)) or 1e-300) >= decibels:
            return bits
    return None
    ### END SOLUTION

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# The ratio is of powers, so 10 · log10. A share of 0.01 of the signal's power is 20 dB.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Compute x̂ once for all elements; a mask `abs(x) <= limit` splits the squared errors. The two parts add up to the whole noise, and
# −10 · log10 of the sum is the ratio. For the bits just try 2, 3, 4, …
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# largest = 2 ** (bits - 1) - 1
# grid_point = (limit / largest) * clamp(round(x * largest / limit), -largest, largest)
# squares = (x - grid_point) ** 2 / sum(x ** 2)
# rounded, clipped = sum of squares where abs(x) <= limit, sum of the others
# ratio = -10 * log10(rounded + clipped)     # the first number of bits that reaches the target
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-noise", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
import math

import torch

from course.checks import Points, check_close

### BEGIN HIDDEN TESTS
from quant_kernels.measures.errors import sqnr as reference_sqnr


def on_grid(x, bits, limit, clamp=True, step=None):
    top = 2 ** (bits - 1) - 1
    d = step or limit / top
    codes = (x.double() / d).round()
    return d * (codes.clamp(-top, top) if clamp else codes)


def parts(x, bits, limit, **options):
    missed = (x.double() - on_grid(x, bits, limit, **options)).square()
    inside = x.abs() <= limit
    return missed.where(inside, 0).sum().item(), missed.where(~inside, 0).sum().item()


def check_parts(x, bits, limit, what):
    signal = x.double().square().sum().item()
    inside = x.abs() <= limit
    right = [part / signal for part in parts(x, bits, limit)]
    wider, unsigned = limit / 2 ** (bits - 1), limit / (2**bits - 1)
    mistakes = {
        "noise is not divided by the signal": parts(x, bits, limit),
        "each part is divided by its own signal, not by that of all elements": [
            part / max(x.double()[where].square().sum().item(), 1e-300)
            for part, where in zip(parts(x, bits, limit), (inside, ~inside))
        ],
        "codes are not clamped, so that nothing is ever clipped": [
            part / signal for part in parts(x, bits, limit, clamp=False)
        ],
        "the step is limit / 2^(bits−1)": [part / signal for part in parts(x, bits, limit, step=wider)],
        "the step is limit / (2^bits − 1): codes have a sign, and half of them are left": [
            part / signal for part in parts(x, bits, limit, step=unsigned)
        ],
        "the two parts are exchanged": right[::-1],
        "a root is taken; power is the square": [part**0.5 for part in right],
        "means are taken over each part, not sums over all": [
            part / max(int(where.sum()), 1) / (signal / x.numel())
            for part, where in zip(parts(x, bits, limit), (inside, ~inside))
        ],
    }
    got = noise_parts(x, bits, limit)
    for i, name in enumerate(("rounded", "clipped")):
        atol = 0.005 * right[i] + 1e-13
        clauses = {text: values[i] for text, values in mistakes.items()}
        check_close(
            got[i], right[i], atol, f"noise_parts, {what}, {bits} bits: {name}", "0.5 % of the noise", clauses
        )


def ratios_of(x, limit):
    """For 2 to 16 bits the ratio in decibels: of all noise, of rounding alone, and without a clamp."""
    signal = x.double().square().sum().item()
    both = [parts(x, bits, limit) for bits in range(2, 17)]
    free = [reference_sqnr(x, on_grid(x, bits, limit, clamp=False)) for bits in range(2, 17)]
    return (
        [-10 * math.log10(sum(noises) / signal) for noises in both],
        [-10 * math.log10(noises[0] / signal) for noises in both],
        free,
    )


def fewest(ratios, decibels):
    return next((bits for bits, ratio in enumerate(ratios, start=2) if ratio >= decibels), None)


def check_bits(x, limit, decibels, what, ratios):
    got, expected = bits_needed(x, limit, decibels), fewest(ratios[0], decibels)
    if got != expected:
        mistakes = {
            "the rule 6.02 · bits + 1.76 is followed": math.ceil((decibels - 1.76) / 6.02),
            "the rule 6.02 · bits is followed": math.ceil(decibels / 6.02),
            "only rounding is counted; what is clipped is noise too": fewest(ratios[1], decibels),
            "codes are not clamped, so that nothing is ever clipped": fewest(ratios[2], decibels),
            "16 is returned where 16 are too few": 16,
        }
        idea = next((f"what you get when {text}; " for text, value in mistakes.items() if value == got), "")
        reach = f"the best of 2 to 16 bits is {max(ratios[0]):.2f} dB"
        raise AssertionError(
            f"bits_needed, {what}, {decibels:.1f} dB: {idea}got {got}, expected {expected} ({reach})."
        )


def check_sqnr(x, decoded, what):
    noise = (x.double() - decoded).square().sum()
    right = reference_sqnr(x, decoded)
    errors = (x.double() - decoded).reshape(len(x), -1).square().sum(1)
    per_row = 10 * (x.double().reshape(len(x), -1).square().sum(1) / errors).log10()
    mistakes = {
        "20 · log10 is taken of powers; 20 belongs to amplitudes": 2 * right,
        "noise is divided by signal": -right,
        "the natural logarithm is taken": 10 * math.log(10 ** (right / 10)),
        "log10 is not multiplied by 10": right / 10,
        "powers are divided by each other without a logarithm": 10 ** (right / 10),
        "decibels of the rows are averaged; powers are summed, decibels are not": per_row.mean().item(),
        "the peak stands for the signal": 10 * math.log10(x.double().abs().max() ** 2 * x.numel() / noise),
        "the decoded tensor stands for the signal": 10 * math.log10(decoded.double().square().sum() / noise),
    }
    check_close(sqnr(x, decoded), right, 0.01, f"sqnr, {what}", "float32 sums", mistakes)


generator = torch.Generator().manual_seed(109)
normal = torch.randn(20, 150, generator=generator)
samples = {
    "N(0, 1), limit 3": (normal, 3.0),
    "N(0, 1), its largest as limit": (normal, normal.abs().max().item()),
    "heavy tails, limit 4": (normal**3, 4.0),
    "a transposed view, limit 1": (normal.T, 1.0),
    "small numbers, limit 0.002": (normal.flatten() * 1e-3, 0.002),
}
samples |= {
    "uniform": (2 * torch.rand(4000, generator=generator) - 1, 1.0),
    "a sine": ((torch.arange(4000) * 0.37).sin(), 1.0),
    "uniform, limit 2": (2 * torch.rand(4000, generator=generator) - 1, 2.0),
}

### END HIDDEN TESTS

points = Points()
with points.part(1, "sqnr"):
    mistakes = {
        "20 · log10 is taken of powers; 20 belongs to amplitudes": 40.0,
        "noise is divided by signal": -20.0,
        "the natural logarithm is taken": 46.05,
        "log10 is not multiplied by 10": 2.0,
        "powers are divided by each other without a logarithm": 100.0,
        "decibels of the rows are averaged; powers are summed, decibels are not": 25.528,
    }
    got = sqnr(torch.tensor([[3.0, 4], [0, 5]]), torch.tensor([[3.0, 4.7], [0.1, 5]]))
    check_close(got, 20.0, 0.01, "sqnr, signal 50, noise 0.5", "float32 sums", mistakes)
    exact = sqnr(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]))
    assert exact == math.inf, f"sqnr where nothing is missed: got {exact}, expected inf"
    ### BEGIN HIDDEN TESTS
    generator = torch.Generator().manual_seed(108)
    for shape in ((6, 50), (3, 4, 200), (999,)):
        x = torch.randn(shape, generator=generator) * torch.logspace(-2, 1, shape[0]).reshape(
            -1, *[1] * (len(shape) - 1)
        )
        check_sqnr(x, x + 0.03 * torch.rand(shape, generator=generator), f"shape {shape}")
    ### END HIDDEN TESTS

with points.part(2, "noise_parts"):
    # step 1: −8 and 5 are clipped; Σx² = 110.26, the squared errors are 0.46 inside and 29 outside
    x = torch.tensor([-8.0, -2.9, -1.2, 0, 0.4, 1.5, 3, 5])
    got = noise_parts(x, 3, 3.0)
    slips = {
        "noise is not divided by the signal": (0.46, 29.0),
        "each part is divided by its own signal, not by that of all elements": (0.0216369, 0.3258427),
        "codes are not clamped, so that nothing is ever clipped": (0.00417196, 0.0),
        "the step is limit / 2^(bits−1)": (0.0108607, 0.3684473),
        "the step is limit / (2^bits − 1): codes have a sign, and half of them are left": (
            0.0507779,
            0.5339883,
        ),
        "the two parts are exchanged": (0.2630147, 0.00417196),
        "a root is taken; power is the square": (0.0645907, 0.5128496),
    }
    for i, (name, right) in enumerate((("rounded", 0.00417196), ("clipped", 0.26301469))):
        mistakes = {text: values[i] for text, values in slips.items()}
        what = f"noise_parts of eight numbers, 3 bits, limit 3: {name}"
        check_close(got[i], right, 0.005 * right, what, "0.5 % of the noise", mistakes)
    ### BEGIN HIDDEN TESTS
    for name, (x, limit) in samples.items():
        for bits in (2, 4, 7, 12, 16):
            check_parts(x, bits, limit, name)
    ### END HIDDEN TESTS

with points.part(2, "bits_needed"):
    x = torch.randn(20000, generator=torch.Generator().manual_seed(2))
    slips = {5: "the rule 6.02 · bits (+ 1.76) is followed", None: "no number of bits is found"}
    got = bits_needed(x, 4.0, 30.0)
    idea = f"what you get when {slips[got]}; " if got in slips else ""
    assert got == 7, f"bits_needed, N(0, 1), limit 4, 30 dB: {idea}got {got}, expected 7"
    slips = {
        7: "the rule 6.02 · bits (+ 1.76) is followed",
        8: "only rounding is counted; what is clipped is noise too",
        16: "16 is returned where 16 are too few",
    }
    got = bits_needed(x, 3.0, 40.0)
    idea = f"what you get when {slips[got]}; " if got in slips else ""
    assert got is None, (
        f"bits_needed, N(0, 1), limit 3, 40 dB: {idea}got {got}, expected None: 33 dB is the most"
    )
    ### BEGIN HIDDEN TESTS
    for name, (x, limit) in samples.items():
        ratios = ratios_of(x, limit)
        best = max(ratios[0])
        for target in (best + 3, best - 0.3, ratios[0][2] - 0.5, ratios[0][4] + 0.2, 20.0):
            if min(abs(ratio - target) for ratio in ratios[0]) > 0.05:
                check_bits(x, limit, target, name, ratios)
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ## Experiment: the sentence, part by part
#
# "A quarter of the size, four times as fast, one to three percent of perplexity." Your functions take it apart. None of this is graded.
#
# ### Size and speed
#
# Uses (b) and (c): Llama-2-7B in four mixes, on a memory of 1008 GB/s (an RTX 4090's), with a float16 KV cache.

# %% tags=["experiment"]
sizes = {mix: model_size(llama_2_7b(mix)) for mix in ("F16", "Q8_0", "Q4_K_M", "Q4_0")}
embeddings = {mix: tensor_bytes(*llama_2_7b(mix)["token_embd"]) for mix in sizes}
cache = kv_bytes_per_token({"n_layer": 32, "n_embd": 4096, "n_head": 32, "n_head_kv": 32}, 16)

print("                                          bound in tokens/s, and how many times that of F16")
print("mix         GB     GiB   bits/weight    empty context    4096 tokens    32 sequences of 4096")
for mix, size in sizes.items():
    cells = []
    for context, batch in ((0, 1), (4096, 1), (4096, 32)):
        speed, base = (
            decode_bound(sizes[name]["bytes"] - embeddings[name], cache, context, batch, 1008e9)
            for name in (mix, "F16")
        )
        cells.append(f"{speed:7.1f} {speed / base:4.2f}×")
    left = f"{mix:7} {size['GB']:6.2f}  {size['GiB']:6.2f}  {size['bits_per_weight']:12.4f}"
    print(left, *cells, sep="    ")
print(f"KV cache: {cache / 2**10:.0f} KiB per token, {4096 * cache / 2**30:.1f} GiB per sequence of 4096")

# %% [markdown]
# A "4-bit" model has 4.5 to 4.8 bits per weight, is 3.3 to 3.5 times smaller, and its best case is as much faster. The cache shrinks the gain as the
# context grows, since it still has 16 bits. With 32 long sequences the cache is nearly all that is read (and at 64 GiB does not fit on that card at all).
# What the bound leaves out makes real gains smaller: on an RTX 4090, 16.17 ms per token became 6.02 ms, 2.7 times as fast (Llama-2-7B, FP16 against
# 4-bit AWQ; README of TinyChat in mit-han-lab/llm-awq). And it says nothing of prompts or of batches in which arithmetic is the limit (background 2).

# %% [markdown]
# ### The claims
#
# Uses (c). The seven claims stand in a table that you will meet in posts about quantization, with one token at a time of "a 7B model". The last two
# rows are measurements of TinyChat's README (its 4-bit layers have groups of 128, and its output matrix 16 bits).

# %% tags=["experiment"]
# 3.63 GB: 6.476 billion weights in the layout int4 g128, and an output matrix of 131 million in float16
measured = [
    {"name": "(measured) 4090, FP16", "speed": 61.8, "weights": F16, "bandwidths": [1008 * GB], **NO_CACHE},
    {"name": "(measured) 4090, AWQ", "speed": 166, "weights": 3.63e9, "bandwidths": [1008 * GB], **NO_CACHE},
]
print("claim                       tokens/s    needs GB/s   of the bound    verdict")
for claim, found in zip(CLAIMS + measured, audit(CLAIMS + measured)):
    needed, share = f"{found['needed'] / 1e9:12.0f}", f"{found['share']:12.0%}"
    print(f"{claim['name']:26} {claim['speed']:9}  {needed}   {share}    {found['verdict']}")

# %% [markdown]
# One row is refuted: no memory that the processor's specification allows (two channels of DDR5-5600) lets it read 3.75 GB 28 times a second, and
# DDR5-6400 does not either. (Measured on that processor: 20.5 tokens/s, llama.cpp pull request 9921.)
#
# The other rows are *possible*, and that is all. The first three need a fifth to a third of the bandwidth, where a measurement on the same card shows 81 %
# for FP16. So they are slow for that card; a ratio of such numbers (52 / 28 = 1.86) measures something other than 4 bits. A bound cannot confirm.

# %% [markdown]
# ### Six decibels
#
# Uses (e), three tensors and three ways to set the limit. The dashed line is the rule "6.02 · bits + 1.76".

# %% tags=["experiment"]
import matplotlib.pyplot as plt
import torch

generator = torch.Generator().manual_seed(0)
normal = torch.randn(100_000, generator=generator)
heavy = torch.randn(100_000, generator=generator) / (
    torch.randn(3, 100_000, generator=generator).square().mean(0).sqrt()
)  # Student's t with 3 degrees of freedom
uniform = 2 * torch.rand(100_000, generator=generator) - 1
cases = {
    "uniform, to its largest": (uniform, 1.0),
    "N(0, 1), to its largest": (normal, normal.abs().max().item()),
    "N(0, 1), clipped at 3": (normal, 3.0),
    "heavy tails, to its largest": (heavy, heavy.abs().max().item()),
}
bits = list(range(2, 13))
figure, axes = plt.subplots(figsize=(7.5, 4))
for (name, (x, limit)), colour in zip(cases.items(), ("#2a9d8f", "#1f77b4", "#e08214", "#d1495b")):
    ratio = [-10 * math.log10(sum(noise_parts(x, b, limit))) for b in bits]
    axes.plot(bits, ratio, marker="o", markersize=4, color=colour)
    axes.text(12.2, ratio[-1], name, color=colour, va="center", fontsize=9)
axes.plot(bits, [6.02 * b + 1.76 for b in bits], linestyle="--", color="#777777", linewidth=1)
axes.text(12.2, 80, "6.02 · bits + 1.76", color="#777777", va="center", fontsize=9)
axes.set(
    xlim=(1.7, 16.9),
    ylim=(-3, 86),
    xlabel="bits",
    ylabel="signal to noise, dB",
    title="6 dB per bit, once steps are small and nothing is clipped",
)
axes.set_xticks(bits)
axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# The slope is 6 dB where most numbers span several steps and none is clipped. The *height* is 6.02 · bits + 4.77 − 20 · log10(limit / rms): the
# better a tensor fills its range, the higher. Clipping at 3 gains 3 dB at 3 to 5 bits and then stops at its floor, 33 dB here. With heavy tails the step is at first larger
# than nearly all numbers, which become 0, and the first bits buy next to nothing: 8 bits are worth what 5 are on N(0, 1). That is why groups, and why outliers matter.

# %% [markdown]
# ### Perplexity by bit width
#
# Uses (a): **your** quantizer on all matrices of the course model, a Llama of 8 layers that was stored in F16 and never quantized before. Each row of a
# matrix has its own grid, or each group of 32 weights has. Predict the eight numbers first.
#
# Perplexity is taken as llama.cpp does: windows of 512 tokens, of which the second half is scored. The text is Python's language reference, which the model was not trained on.
# The first ± is the standard error of a perplexity, from few tokens. The change is surer than that, because both models are scored on the *same* tokens: its ± is the paired one.

# %% tags=["experiment"]
import torch

import quant_kernels as qk
from course.fetch import fetch
from course.texts import evaluation_text

WINDOWS = 16  # more are more exact and slower


def yours(weight, bits, group):
    groups = weight.float().reshape(-1, group)
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    scale, zero_point = affine_parameters(low, high, bits)
    codes = affine_quantize(groups, scale, zero_point, bits)
    return affine_dequantize(codes, scale, zero_point).reshape(weight.shape)


model = qk.load_model(fetch("course-model"))
matrices = {name: weight for name, weight in model.weights().items() if name.startswith("blk.")}
tokens = model.tokenizer.encode(evaluation_text())[: 512 * WINDOWS]
base = qk.perplexity(model, tokens)
print(
    f"as stored, 16 bits: perplexity {base.value:.2f} ± {base.standard_error:.2f}, {base.tokens_scored} tokens scored"
)
print("bits  one grid per   bits/weight      perplexity         change")
changes = {"row": {}, "32 weights": {}}
with qk.record(model, tokens) as recording:
    for per in changes:
        for bits in (8, 4, 3, 2):
            groups = {name: weight.shape[-1] if per == "row" else 32 for name, weight in matrices.items()}
            replaced = {name: yours(weight, bits, groups[name]) for name, weight in matrices.items()}
            with model.replaced(replaced):
                found = recording.compare(model)
            count = sum(weight.numel() for weight in matrices.values())
            cost = bits + (16 + bits) * sum(w.numel() / groups[name] for name, w in matrices.items()) / count
            change, spread = 100 * (found.ratio.value - 1), 100 * found.ratio.standard_error
            changes[per][bits] = change
            value, error = found.other.value, found.other.standard_error
            left = f"{bits:4}  {per:12} {cost:12.2f}   {value:8.2f} ± {error:<5.2f}"
            print(f"{left} {change:+9.2f} % ± {spread:.2f}")

# %% [markdown]
# Beside it: what a table in many blog posts promises for a bit width, and what others have measured.

# %% tags=["experiment"]
import matplotlib.pyplot as plt

promised = {8: (0, 1), 4: (1, 3), 3: (3, 5), 2: (5, 15)}  # percent, as in such posts
published = {
    "LLaMA-1-7B, nearest rounding per channel": {4: 10.8, 3: 352.6, 2: 1.798e6},
    "Llama-3-8B, llama.cpp mixes": {8: 0.04, 4: 2.82, 3: 10.5, 2: 56.5},
    "Llama-2-70B, llama.cpp mixes": {4: 1.20, 3: 4.72, 2: 8.82},
    "Llama-2-7B, AQLM": {2: 15.6},
}
places = {8: 0, 4: 1, 3: 2, 2: 3}
figure, axes = plt.subplots(figsize=(9.5, 5))
for bits, (low, high) in promised.items():
    axes.fill_between([places[bits] - 0.3, places[bits] + 0.3], low, high, color="#cfd4da", linewidth=0)
axes.text(-0.28, 1.15, "promised", color="#6b7280", fontsize=9)
series = {
    **published,
    "course model, a grid per row (yours)": changes["row"],
    "course model, groups of 32 (yours)": changes["32 weights"],
}
colours = ["#d1495b", "#7b5ea7", "#2a9d8f", "#555555", "#e08214", "#1f77b4"]
heights = [1.8e6, 32, 3.2, 10, 411, 100]  # of the names, apart from each other
for (name, values), colour, height in zip(series.items(), colours, heights):
    line, mark = ("-", "o") if "yours" in name else (":", "s")
    where = [places[bits] for bits in values]
    axes.plot(where, list(values.values()), marker=mark, linestyle=line, color=colour, markersize=5)
    axes.text(3.38, height, name, color=colour, va="center", fontsize=9)
axes.set_yscale("symlog", linthresh=0.1)
axes.set_yticks(
    [0, 0.1, 1, 10, 100, 1e3, 1e4, 1e5, 1e6], ["0", "0.1", "1", "10", "100", "1 000", "10⁴", "10⁵", "10⁶"]
)
axes.axhline(0, color="#999999", linewidth=0.7)
axes.set_xticks(list(places.values()), ["8 bits", "4 bits", "3 bits", "2 bits"])
axes.set(
    xlim=(-0.4, 5.4),
    ylim=(-0.12, 5e6),
    ylabel="rise of perplexity, %",
    title="Percent by bit width: no constant of nature",
)
axes.spines[["top", "right"]].set_visible(False)
axes.grid(axis="y", alpha=0.25)
plt.show()

# %% [markdown]
# | rise of perplexity | 8 bits | 4 bits | 3 bits | 2 bits | source |
# |:--|--:|--:|--:|--:|:--|
# | promised in such posts | < 1 % | 1–3 % | 3–5 % | 5–15 % | none given |
# | LLaMA-1-7B (5.67), nearest rounding per channel | | +10.8 % | +353 % | ×18 000 | README of qwopqwop200/GPTQ-for-LLaMa, an early version: 6.28, 25.66, 101 940; context 2048 |
# | Llama-3-8B (6.2316): Q8_0, Q4_K_M, Q3_K_M, Q2_K | +0.04 % | +2.82 % | +10.5 % | +56.5 % | llama.cpp, tools/perplexity/README; context 512 |
# | Llama-2-70B (3.4313): Q4_K_M, Q3_K_M, Q2_K | | +1.20 % | +4.72 % | +8.82 % | the same |
# | Llama-2-7B (5.12), AQLM | | | | +15.6 % | README of AQLM: 5.92; context 4096 |
# | course model (19.30), a grid per row | +0.02 % ± 0.03 | +3.18 % ± 0.45 | +19.2 % ± 1.2 | +411 % ± 15 | this cell, 16 windows |
# | course model, groups of 32 | −0.04 % ± 0.02 | +2.17 % ± 0.33 | +8.5 % ± 0.8 | +82 % ± 3 | this cell, 16 windows |
#
# The same number of bits costs anything from 9 % to a broken model. What decides is the model (its size, how long it was trained), the grouping, the method
# that chooses the codes, and what stays at more bits: Q2_K has blocks of 2.625 bits, and its mix had about 3. Both changes at 8 bits are within about two standard errors of 0, and one is
# negative: this text cannot show a loss there. The rows for 7B, 8B and 70B have other texts, contexts and methods: compare within a row, never across.

# %% [markdown]
# ## Rubric
#
# An instructor scores the next three answers and the talk at the end, 7 points each; alone, score yourself by the tables. Write into the
# cells "Your answer".

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-mathematics", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Mathematical understanding (7 points)
#
# In 250 words or fewer: derive the error of an affine quantizer, from the grid to a relative error and to decibels. Predict with it the 4-bit errors on N(0, 1) for groups
# of 32 and of 4096 (exercise (d)). Why does "min-max" beat "signed" in groups of 32 and lose in groups of 4096? Where does "6 dB per bit" end?
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | "Rounding loses precision" | Scale, zero point, rounding stated; no error | step² / 12 derived, one figure predicted, 6 dB explained | Also why the order turns round, and both ends of 6 dB: clipping and steps too coarse for the numbers |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** the error is spread evenly over ±step/2, so its mean square is step²/12; relative error = rms(step) / (√12 · rms(x)). "absmax", 4 bits: step = max|x| / 7. The largest of 32 normal magnitudes is about 2.35, of 4096 about 3.8: 2.35 / 7 / √12 = 9.7 %
# and 3.8 / 7 / √12 = 15.7 %, against 9.70 and 15.76. (With the root mean square of the maxima, 2.39, the rule gives 9.86 %; one element of 32, the largest itself, is exact: × √(31/32) = 9.70.)
# Order: "signed" has step max|x| / 8, "min-max" range / 15. In 32 elements the two ends differ: mean range 4.14 < 2 · 2.35, so 4.14 / 15 = 0.276 < 2.35 / 8 = 0.294. In 4096 both ends are nearly alike (7.25 against 2 · 3.80), and 15 steps are fewer than 16: 0.483 > 0.475.
# Decibels: halving the step quarters the power, 10 · log10 4 = 6.02. SQNR = 6.02 · bits + 4.77 − 20 · log10(limit / rms) for the symmetric grid, nearly; 1.76 is the sine's case, limit / rms = √2. It ends below about 4 bits (2^(bits−1) − 1 falls from 7 to 3 to 1, more than halving) and where steps exceed most numbers (heavy tails);
# and at the clipping noise, which no bit reduces. A zero point costs at most half a step at the ends; clamp and the zero range belong to the definition.
#
# **Strong, 7 of 7.** *"x̂ = s(q − z), q = clamp(round(x/s) + z). Inside the grid the error is uniform in ±s/2, variance s²/12, so relative RMSE = rms(s)/(√12·rms x). For absmax s = max/7: E max of 32 |N| ≈ 2.35 → 9.7 %; of 4096 ≈ 3.8 → 15.7 %; measured 9.70, 15.76. Signed: max/8, so 8.5 % and 13.7 %.
# Min-max: range/15. In 32 samples one tail is longer than the other, E range 4.14 < 4.70, so its step is smaller despite 15 instead of 16; in 4096 samples range ≈ 2 max and 15 < 16 decides: 14.0 against 13.8. One bit halves s: −6.02 dB. Two ends: if I clip, that part of the noise is a floor that bits do not touch (N(0,1) at 3σ: about 34 dB);
# if one outlier sets s far above the bulk, the bulk rounds to 0, error ≈ signal, 0 dB, and further bits buy nothing until s reaches the bulk. Also 7 → 3 → 1 levels at 4, 3, 2 bits is worse than halving."* Derivation, numbers before measurement, both ends.
#
# **Middling, 4 of 7.** *"The rounding error is uniform within a step, variance Δ²/12. With absmax, Δ = max/7, and max grows slowly with the group, so the error grows from 9.7 to 15.8 %. Each bit halves Δ: 6 dB. Outliers make Δ large; clipping them helps until the clipping error dominates."* Right model, no prediction of its own, nothing on the order of the schemes.
#
# **Weak, 1 of 7.** *"Quantization maps floats to integers with scale = (max − min) / 2^b. Fewer bits give more error, about 6 dB per bit, and smaller groups are better."* The scale is off by one level, and nothing is derived.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (mathematical understanding):

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-trade-offs", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Trade-off analysis (7 points)
#
# In 250 words or fewer, take the colleague's sentence apart for Llama-2-7B and a card of 1008 GB/s: what happens to size, to speed (one user, many users, long prompts, long contexts) and to quality, with numbers and
# their sources. Then compare 8, 4, 3 and 2 bits.
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | Repeats the sentence | Memory only: bytes per parameter | Size, speed and quality, each with its condition | Quantitative in all three: bits with scales, bounds with cache and batch, quality with model and method, and what is not known |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** *Size.* 13.48 GB (12.55 GiB) → 4.08 GB (3.80 GiB) in Q4_K_M, 4.844 bits per weight: 3.3 times, not 4, as scales count and some tensors have 6 bits. Memory in use also has the cache: 512 KiB per token, 2.0 GiB at 4096 tokens.
# *Speed.* Decode of one sequence: bound 76 → 252 tokens/s at empty context (without the embedding table; 75 by file size), 66 → 164 at 4096 tokens, so 3.3 and 2.5 times. Measured 2.7 times (TinyChat's README, 4090). Batches: the weights are shared; from tens to a few hundred sequences on arithmetic binds, and weight-only 4 bits gain nothing or lose
# (AutoAWQ issue 106: half of FP16 at batch 256; Marlin's README: nearly 4 times up to batch 16 to 32). Prompts: llama.cpp's README of `quantize` has 923 tokens/s for F16 and 822 for Q4_K_M (Llama-3.1-8B, 512 tokens).
# *Quality.* Depends on model and method: 4 bits +1.2 % (70B, Q4_K_M), +1.4 % (Llama-2-7B, Q4_K_M, llama.cpp's README), +2.8 % (Llama-3-8B), +11 % (LLaMA-1-7B, nearest rounding per channel). 8 bits hardly measurable for weights; 3 bits +5 % to +350 %; 2 bits +9 % to broken. Perplexity is not the task either.
#
# **Strong, 7 of 7.** *"Size: 4.84 bits per weight with scales and 6-bit tensors, 13.5 → 4.1 GB, 3.3×; plus 0.5 MiB of KV per token, which no weight format shrinks. Speed: one user decodes at most bandwidth/bytes: 76 → 252 tok/s, 3.3×; with 4096 tokens of cache 2.5×; measured on a 4090 2.7× (TinyChat). With many users the weights are read once for all:
# past the ridge, tens to hundreds of sequences, compute binds and dequantizing costs extra; AutoAWQ reports INT4 at half of FP16 at batch 256. Prompts likewise: 923 vs 822 t/s in llama.cpp's table. Quality: I would not quote a percentage without model and method. Q4_K_M is +1.2 % on 70B, +2.8 % on Llama-3-8B; plain rounding per channel +11 % on LLaMA-7B.
# 8 bits: weights nearly free, half the bytes. 3 bits: needs a good method or a large model. 2 bits: +9 % on 70B, +56 % on 8B with Q2_K, 10⁵ perplexity with plain rounding; learned codebooks bring 7B to about +16 %. Unknown until measured: my tasks, long contexts, my kernels."* Conditions, numbers, sources, gaps.
#
# **Middling, 4 of 7.** *"About 4.8 bits including scales, so 3.3× smaller. Decode is memory-bound, so up to 3.3× faster, less with a long KV cache; prefill and big batches are compute-bound and gain nothing. Quality loss is small at 8 and 4 bits and grows quickly at 3 and 2; larger models lose less."* All three, with conditions; quality has no figure, method is not mentioned.
#
# **Weak, 1 of 7.** *"7 billion × 0.5 byte is 3.5 GB, so 4× less memory and 4× faster because inference is memory-bound. 4-bit costs 1–3 % and 2-bit 5–15 %."* The sentence again.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (trade-off analysis):

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-practice", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Practical knowledge (7 points)
#
# An 8B assistant is to run (1) on laptops with 16 GB of memory and (2) on servers with H100 GPUs and many users. In 250 words or fewer: which formats do you try on each, in which order and why; how do you decide that
# one is good enough; which tensors do you leave alone; and when do you not quantize?
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | No format by name | Some formats; chosen by size alone | Formats fit runtime and hardware; a test with a threshold | Also what arithmetic runs, how the decision is made statistically, and what went wrong in practice |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** *Laptop:* llama.cpp or the like, bandwidth-bound, one user: Q4_K_M (4.9 GB for Llama-3.1-8B) first, then Q5_K_M or Q6_K if memory and speed allow; Q8_0 (8.5 GB) as the nearly lossless reference; lower ones with an importance matrix. Activations become 8-bit on the fly on a CPU. *H100:* W8A8 in FP8 first (tensor cores, halves weights and cache traffic, nearly lossless);
# 4-bit weights (GPTQ or AWQ, g128, Marlin kernels) for low latency at small batch or where memory is short; H100 has no INT4 tensor cores, so these run FP16 arithmetic. FP8 cache. FP4 formats belong to Blackwell.
# *Decide:* same runtime, F16 against candidate, on own tasks and prompts, paired, with intervals; KL divergence and flips beside perplexity; latency at the real batch and context. *Alone:* norms, router, often embeddings and output at more bits. *Not:* where it does not bind (large batches already compute-bound for weight-only), where the gate fails, never from a quantized file; sensitive domains need evaluation, not a ban.
# Formats by name with bits, for example Q8_0 8.5, Q4_0 4.5, IQ4_XS 4.25, MXFP4 4.25, NVFP4 4.5.
#
# **Strong, 6 of 7.** *"Laptop: bandwidth-bound, batch 1. Q4_K_M, 4.9 GB, leaves room for 8K of context (1 GiB of cache with GQA) and the rest of the machine; then Q5_K_M/Q6_K if it is fast enough; imatrix if I go lower. Server: FP8 W8A8 first, because at our batch sizes we are near compute-bound and only cheaper arithmetic helps; W4A16 with Marlin for a latency tier, since H100 has no INT4 MMA and
# dequantizes to FP16. Norms stay, output layer at 6 or 8 bits. Gate: the F16 model in the same engine on our evaluation set, paired differences with a confidence interval, KL divergence and top-token agreement on our traffic, then canary. Speed at real batch, prompt and context, not a README's. I would not quantize if the gate fails, or a small model that fits anyway; never requantize a GGUF that was quantized."* Fits hardware and decision; no incident from practice.
#
# **Middling, 4 of 7.** *"Laptop: GGUF Q4_K_M, since it is the usual balance; Q5_K_M if there is memory. Server: AWQ or FP8 in vLLM. Compare perplexity with FP16 and run our benchmark; accept below 1 % loss. Keep norms and the output layer in higher precision."* Formats and tensors right; no arithmetic, no statistics, no reason for the order.
#
# **Weak, 1 of 7.** *"INT4 everywhere with bitsandbytes since it is smallest; medical users get FP16."* No runtime, no test.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (practical knowledge):

# %% [markdown]
# ## Follow-up questions
#
# Try each aloud before you unfold what a strong answer touches.
#
# **1. How do you choose the format for production?**
#
# <details><summary>A strong answer touches</summary>
#
# Constraints first (memory with cache, latency at the real batch, which kernels the hardware has), then the fastest format whose loss on *your* tasks is inside a budget that was agreed on before. Paired comparison with the 16-bit model in the same runtime. Not a score that trades
# quality for speed: such a score can prefer a broken fast model.
#
# </details>
#
# **2. What is the difference between post-training quantization and quantization-aware training?**
#
# <details><summary>A strong answer touches</summary>
#
# PTQ starts from finished weights: from plain rounding to GPTQ, AWQ and learned codebooks such as AQLM, with a little calibration data or none. QAT trains with the rounding in the loop (a straight-through gradient) and costs a training run. It pays at 4 bits and below: Google reports for Gemma 3 that it cuts the perplexity drop of Q4_0 by 54 %. And training itself
# is not "full precision": FP8 pre-training (DeepSeek-V3), 4-bit frozen weights under LoRA (QLoRA), MXFP4 expert weights (gpt-oss).
#
# </details>
#
# **3. How does quantization meet CPU, CUDA and Metal?**
#
# <details><summary>A strong answer touches</summary>
#
# Which arithmetic runs. llama.cpp on CPUs and CUDA quantizes activations to 8 bits on the fly and takes integer dot products; on Metal it decodes in registers and multiplies floats. GPU servers: weight-only 4 bits with FP16 tensor cores, or W8A8 with INT8 or FP8 ones. A100 has INT4 tensor cores, H100 does not; Blackwell has FP4.
# Where the kernel is missing, fewer bits are slower.
#
# </details>
#
# **4. Are outliers a problem of weights or of activations?**
#
# <details><summary>A strong answer touches</summary>
#
# Mostly of activations: in large models a few channels, the same for all tokens, are ten to a hundred times the median (LLM.int8() from about 6.7 billion parameters on). Weights are close to Gaussian, and groups are enough for them at 4 bits. So 8-bit activations need care (split, smooth, rotate) where 8-bit weights need none.
#
# </details>
#
# **5. Can a system decode faster than weights / bandwidth allows?**
#
# <details><summary>A strong answer touches</summary>
#
# Per step no, per token yes: a batch shares the read; speculative decoding checks several tokens in one step; a mixture of experts reads only what it routes to. Weights that stay in a large cache or in SRAM have another bandwidth; several devices add theirs. So an audit has to know what was counted.
#
# </details>
#
# **6. A large model at 4 bits, or one of a quarter of its size at 16?**
#
# <details><summary>A strong answer touches</summary>
#
# Usually the large one: at equal bytes it is better on most tasks (arXiv 2409.11055 finds that, with instruction following and hallucination as exceptions), and larger models lose less per bit. But it computes four times as much per token: for prompts and large batches it is slower.
#
# </details>
#
# **7. Why an integer zero point, when a float minimum gives a smaller error?**
#
# <details><summary>A strong answer touches</summary>
#
# 0 is exact, so padding, masked and ReLU zeros add nothing; and integer kernels can subtract it or correct for it with sums of integers. The price on N(0, 1) with groups of 32: 8.08 % instead of 7.82 %, for an offset of 4 bits instead of 16. For weights that nobody pads either will do: ggml's Q4_1 stores a float minimum.
#
# </details>

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-communication", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Communication: the talk (7 points)
#
# Answer the question at the top in 15 minutes, to an interviewer who may ask any of the follow-ups. Speak, draw, show your code. Then write below what you said, in ten lines or fewer.
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | Unordered; terms without meaning | Understandable; answers what was asked and no more | Clear order, definitions first, numbers with units | Teaches: a picture first, predictions before figures, corrects the claim without scorn, names what is not known |
#
# === BEGIN MARK SCHEME ===
#
# **The model answer, in five parts of three minutes.**
#
# 1. *What it is.* Draw a line with grid points. "A number is replaced by the index of the nearest point: q = clamp(round(x / s) + z), read back as s · (q − z). Numbers that share s and z form a group. It shrinks storage, and it can change the arithmetic: decoded to floats before multiplying, or multiplied as integers."
# 2. *Why it matters.* "Decoding reads every weight for every step. At 1008 GB/s, 13.5 GB allow 75 tokens per second, whatever the cores can do. 4.1 GB allow 250. That holds for few sequences. With many, or for a prompt, the read is shared and arithmetic binds: then only cheaper arithmetic helps, FP8 or INT8 on both sides."
# 3. *The sentence, first two numbers.* "A quarter: no, 4.84 bits with scales and the 6-bit tensors, 3.3 times; GB are not GiB; the cache comes on top, half a MiB per token here. Four times as fast: at most 3.3, 2.5 with 4096 tokens of cache, 2.7 as measured on a 4090; nothing or less for prompts and big batches. And one entry of the table that he cites is above its machine's bandwidth."
# 4. *The third.* "Error per weight: step / √12; 6 dB per bit; groups of 32 instead of rows cut it from 16 % to 10 %. But percent of perplexity is a property of model, method and grouping. With the same plain rounding our small model lost 3 % at 4 bits and 411 % at 2, per row; 82 % in groups of 32. LLaMA-7B was broken at 2, a 70B model with a K-quant mix lost 9 %."
# 5. *What I would do.* "8 bits: safe for weights, take it where memory allows. 4: the working point, with a good method and groups. 3 and 2: only with learned or importance-weighted methods, large models, and a gate. Find out by measuring: same engine, same tokens, paired, own tasks. I have not measured long contexts or your hardware."
#
# Score the talk itself where you heard it; the samples are what candidates wrote of theirs.
#
# **Strong, 7 of 7.** *"I drew the grid, wrote scale, zero point, clamp, and asked what should happen to zero. Then I estimated before showing: 75 tok/s for FP16 at 1008 GB/s, 250 for 4.1 GB, less with cache; showed the table and named where it fails: prompts, batches. I predicted 9.7 % and 15.7 % from the largest of 32 and of 4096 normals and showed 9.70 and 15.76. For quality I put the
# blog's percentages beside ours and the published ones and said what differs: model, group, method; the 4-bit change is 2.2 ± 0.3 % paired, though each perplexity is ± 0.8. I said the i9 row cannot be, and that the other rows are possible, which is less than true. Not measured: tasks, long context, GPUs."* A picture, predictions, limits unasked.
#
# **Middling, 4 of 7.** *"I defined affine quantization, went through my five functions, and gave the sizes, the bounds and the errors. The speed-up is bounded by bandwidth, about 3.3×; asked about prompts I said they are compute-bound. Perplexity went up 2 % at 4 bits and 82 % at 2 bits on the course model with groups of 32."* Right and in order; the conditions came only when asked, and nothing was predicted.
#
# **Weak, 1 of 7.** *"I said that quantization makes models smaller and faster with little loss, showed that my tests pass, and listed Q4_0, Q4_K_M, GPTQ and AWQ."* No definition, no number, no condition.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (the talk, in ten lines or fewer):
