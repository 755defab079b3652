# ---
# jupyter:
#   course:
#     number: 6
#     title: Implementing block-wise quantization
#     category: Technical
#     difficulty: Senior
#     levels: [mid, senior]
#     companies: []
#     minutes: {talk: 15, code: 45}
#     prerequisites:
#       - integer and float16 representation, bit operations on torch or numpy arrays
#       - "Question 1: scale, zero-point, rounding error"
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
# # Question 6: Implementing block-wise quantization
#
# | | |
# |:--|:--|
# | **Category** | Technical |
# | **Difficulty** | Senior; marked for the levels mid and senior |
# | **Time** | 45 minutes of code, then a talk of 15 minutes |
# | **You should know** | integers and float16 in memory, bit operations in torch or numpy, scale and rounding error (question 1) |
# | **Code points** | 30, in six exercises |
# | **Rubric points** | 28, in four categories of 7 |
# | **Mid passes with** | 12 rubric points and 60 % of the code points |
# | **Senior passes with** | 18 rubric points and 80 % of the code points |

# %% [markdown]
# ## The question
#
# > "Your team ships 4-bit models. The next model comes in a format that the inference engine cannot read, and the person
# > who wrote the packing code has left. Write the block formats Q8_0 and Q4_0 so that your bytes are the ones that llama.cpp
# > writes. Pack 3-bit codes that cross byte borders. Read a Q4_K block. Multiply a packed matrix with a vector without ever
# > unpacking the whole matrix. Then show me by measurement that your quantizers are as good as their formats allow,
# > and tell me why the errors differ."

# %% [markdown]
# ## What is looked for
#
# **Competencies.** Bit layouts read from a specification and reproduced exactly; float arithmetic at the level of single
# roundings; array code over all blocks at once; bounds on memory; errors explained by a model and then measured.
#
# | Green flags | Red flags |
# |:--|:--|
# | Asks for rounding, ties and the dtype of the scale before writing | Writes `round(x / scale)` and hopes |
# | Tests the zero block, the constant block, the tail, both signs | Tests one Gaussian tensor by mean error |
# | Compares bytes with an independent authority | Compares the encoder only with its own decoder |
# | Says which bits of 4.5 are codes and which are scales | "4-bit means half a byte per weight" |
# | Knows why llama.cpp quantizes the activations too | "It dequantizes to float, then multiplies" |
# | Predicts an error before measuring it | Widens a tolerance until the test passes |

# %% [markdown]
# ## Background 1: why blocks
#
# A uniform grid of step *d* rounds with an error of about *d*/√12 (uniform error within half a step). The step follows the
# **largest** weight that shares the scale, so fewer weights per scale mean a smaller step, and more scales to store:
#
# &nbsp;&nbsp;&nbsp;&nbsp;bits per weight = bits per code + bits of the block's constants / weights per block
#
# The cell measures both sides of the bargain, on your machine: weights from N(0, 1), 4-bit codes −7…7, *d* = max|x|/7, one
# float16 scale per block. The error is 100 · rms(x − x̂) / rms(x).

# %% tags=["experiment"]
import matplotlib.pyplot as plt
import torch


def absmax_error(x, bits, block):
    blocks = x.reshape(-1, block)
    step = blocks.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return 100 * (((blocks / step).round() * step - blocks).norm() / blocks.norm()).item()


weights = torch.randn(256, 4096, generator=torch.Generator().manual_seed(0))
sizes = [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
cost = [4 + 16 / size for size in sizes]
error = [absmax_error(weights, 4, size) for size in sizes]

figure, axes = plt.subplots(figsize=(7.5, 3.6))
axes.plot(cost, error, marker="o")
for size, x, y in zip(sizes, cost, error):
    axes.annotate(f"{size}: {y:.2f} %", (x, y), xytext=(7, 3), textcoords="offset points", fontsize=9)
axes.set(
    xlabel="bits per weight, scales included",
    ylabel="relative RMSE, %",
    title="4-bit codes: error against block size",
)
axes.margins(x=0.16, y=0.1)
axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## Background 2: a block is bytes
#
# GGUF files hold tensors as rows of blocks. A block of Q4_0 is 18 bytes for 32 weights: the scale `d` (float16, little-endian:
# the low byte first), then 16 bytes `qs` with two 4-bit codes ("nibbles") each:
#
# ```
# byte      0       1       2           3           4                   17
#        ┌───────────────┬───────────┬───────────┬───────────┬─ ··· ─┬───────────┐
#        │  d (float16)  │ x16 │ x0  │ x17 │ x1  │ x18 │ x2  │       │ x31 │ x15 │
#        └───────────────┴───────────┴───────────┴───────────┴─ ··· ─┴───────────┘
#                         bits  bits
#                         7–4   3–0
# ```
#
# Byte `2 + j` holds weight `j` in its low nibble and weight `j + 16` in its high nibble: one shift and one mask give two
# runs of 16 neighbours, which is what a SIMD register wants. 18 · 8 / 32 = **4.5 bits per weight**.
# The cell draws a block that ggml's rules make of 32 random weights.

# %% tags=["experiment"]
from matplotlib.colors import ListedColormap

import quant_kernels as qk


def draw_q4_0(block):
    fields = torch.ones(8, 18)  # rows: bit 7 … bit 0; 0: d, 1: low nibbles, 2: high nibbles
    fields[:4] = 2
    fields[:, :2] = 0
    figure, axes = plt.subplots(figsize=(13, 4))
    colours = ListedColormap(["#d3d6da", "#8ab4f8", "#f6b26b"])
    axes.pcolormesh(fields, cmap=colours, edgecolors="white", linewidth=2)
    axes.invert_yaxis()
    for place, byte in enumerate(block.tolist()):
        for row in range(8):
            axes.text(place + 0.5, row + 0.5, byte >> 7 - row & 1, ha="center", va="center")
    low, high = (block[2:] & 15).tolist(), (block[2:] >> 4).tolist()
    centres = [place + 0.5 for place in range(18)]
    axes.set_xticks(
        centres, ["d, low\nbyte", "d, high\nbyte", *(f"x{j}\n{code}" for j, code in enumerate(low))]
    )
    top = axes.secondary_xaxis("top")
    top.set_xticks(centres[2:], [f"x{j + 16}\n{code}" for j, code in enumerate(high)])
    axes.set_yticks([row + 0.5 for row in range(8)], [f"bit {7 - row}" for row in range(8)])
    for side in (axes, top):
        side.tick_params(length=0)
        side.spines[:].set_visible(False)
    scale = block[:2].view(torch.float16).item()
    axes.set_title(f"one block of Q4_0: d = {scale:.4g}, weight = d · (code − 8)", pad=16)
    plt.show()


draw_q4_0(qk.quantize(torch.randn(32, generator=torch.Generator().manual_seed(3)), "Q4_0"))

# %% [markdown]
# ## Background 3: rounding is part of the format
#
# Three rules occur below. They differ only on exact halves, and there they write different bytes:
#
# | rule | −1.5 | −0.5 | 0.5 | 1.5 | 2.5 | where |
# |:--|--:|--:|--:|--:|--:|:--|
# | half away from zero (C's `roundf`) | −2 | −1 | 1 | 2 | 3 | Q8_0 |
# | half up, `trunc(v + 8.5) − 8` | −1 | 0 | 1 | 2 | 3 | Q4_0 |
# | half to even (`torch.round`, `numpy.round`) | −2 | 0 | 0 | 2 | 2 | exercise (c) |
#
# As important is **which scale** divides: the float32 one that was computed, or the float16 one that is stored. Q8_0 and Q4_0 use
# the first, exercise (c) the second. All arithmetic below is float32, one rounding per operation.
#
# Sources: the structs are in llama.cpp's `ggml/src/ggml-common.h`, the reference quantizers in `ggml/src/ggml-quants.c`.

# %% [markdown]
# ## Exercises
#
# All functions take and return CPU tensors of torch and leave their arguments as they are. Inputs are finite. Results may have
# any strides. Use torch or numpy; `gguf` and `quant_kernels` are not there when your answer is graded. The exercises do not
# build on one another: each is scored alone.

# %%
import numpy as np
import torch

# %% [markdown]
# ### Exercise (a): Q8_0, pack and unpack
#
# *5 minutes, 4 points*
#
# ```
# q8_0_quantize    x: float32 (..., n)              →  uint8   (..., n/32 · 34)
# q8_0_dequantize  data: uint8 (..., n_blocks · 34)  →  float32 (..., n_blocks · 32)
#
# byte      0       1       2      3      4              33
#        ┌───────────────┬──────┬──────┬──────┬─ ··· ─┬──────┐
#        │  d (float16)  │  q0  │  q1  │  q2  │       │  q31 │     q: int8, two's complement
#        └───────────────┴──────┴──────┴──────┴─ ··· ─┴──────┘     34 · 8 / 32 = 8.5 bits per weight
# ```
#
# | | |
# |:--|:--|
# | Blocks | 32 neighbours along the last dimension |
# | Scale | `d = max(abs(x)) / 127`, float32 |
# | Codes | `q = round(x · (1 / d))`, halves away from zero, with the float32 `d`, by the reciprocal |
# | Stored | `d` rounded to float16 (`.half()`), then the 32 codes |
# | Zero block | all 34 bytes are 0 |
# | Error | `ValueError` where n is not a multiple of 32 |
# | Decoding | `d · q` in float32, with the stored `d` |
# | Tolerance | none: bytes are equal, and 11 bits of `d` times 8 bits of `q` fit float32's 24, so decoding is exact too |
#
# `sign(v) · floor(|v| + 0.5)` is good enough for the rounding. (It differs from C's `roundf` for one float32 alone, 0.49999997,
# which no test uses.)

# %% nbgrader={"grade": false, "grade_id": "q8_0", "locked": false, "schema_version": 3, "solution": true, "task": false}
def q8_0_quantize(x):
    """Quantize float32 `(..., n)` to Q8_0 blocks, uint8 `(..., n // 32 * 34)`.

    ValueError if n is not a multiple of 32.
    """
    ### BEGIN SOLUTION
    if x.shape[-1] % 32:
        raise ValueError(f"last dimension {x.shape[-1]} is not a multiple of Q8_0's block size 32")
    blocks = x.reshape(*x.shape[:-1], -1, 32)  # (..., n_blocks, 32)
    d = blocks.abs().amax(-1, keepdim=True) / 127  # (..., n_blocks, 1)
    v = blocks * torch.where(d == 0, 0, 1 / d)
    q = (v.sign() * (v.abs() + 0.5).floor()).to(torch.int8)
    data = torch.cat([d.half().view(torch.uint8), q.view(torch.uint8)], -1)  # (..., n_blocks, 34)
    return data.flatten(-2)
    ### END SOLUTION


def q8_0_dequantize(data):
    """Decode Q8_0 blocks, uint8 `(..., n_blocks * 34)`, to float32 `(..., n_blocks * 32)`."""
    ### BEGIN SOLUTION
    blocks = data.reshape(*data.shape[:-1], -1, 34)
    d = blocks[..., :2].contiguous().view(torch.float16).float()  # (..., n_blocks, 1)
    return (d * blocks[..., 2:].contiguous().view(torch.int8)).flatten(-2)
    ### END SOLUTION

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Reshape to `(..., n_blocks, 32)`, reduce over the last dimension with `keepdim=True`, and never loop over blocks.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# `tensor.view(torch.uint8)` reads the bytes of any tensor: a float16 of shape `(..., 1)` becomes `(..., 2)`, low byte first on
# every machine that you will meet. `torch.cat` joins scale bytes and code bytes. For the zero block choose the reciprocal by
# `torch.where`, so that no 0 · ∞ arises.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# scale = peak / 127
# inverse = torch.where(scale == 0, 0, 1 / scale)
# codes = half_away(groups * inverse).to(torch.int8)
# result = torch.cat([bytes_of(scale.half()), bytes_of(codes)], dim=-1)  # then join the last two dims
# # decoding: split 2 | 32 bytes, view them as float16 and int8, multiply in float32
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-q8_0", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_equal, check_raises


def from_hex(text):
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)


x = torch.zeros(32)
x[:7] = torch.tensor([127, -127, 2.5, -2.5, 3.7, 0.25, 1])  # d = 1, which is 0x3c00 in float16
rest = "00" * 25
block = from_hex("003c 7f8103fd040001" + rest)
mistakes = {
    "halves go to the even neighbour, not away from zero": from_hex("003c 7f8102fe040001" + rest),
    "codes are cut off toward zero, not rounded": from_hex("003c 7f8102fe030001" + rest),
    "the scale's high byte comes first; it is little-endian": from_hex("3c00 7f8103fd040001" + rest),
    "the scale is max|x| / 128": from_hex("f03b 7f8003fd040001" + rest),
    "codes have 128 added; they are two's complement": from_hex("003c ff01837d848081" + "80" * 25),
}
what = "q8_0_quantize of 127, −127, 2.5, −2.5, 3.7, 0.25, 1, 0, 0, …"
check_equal(q8_0_quantize(x), block, what, mistakes, block=34)
check_equal(q8_0_quantize(torch.zeros(64)), from_hex("00" * 68), "q8_0_quantize of two zero blocks", block=34)
decoded = torch.tensor([127.0, -127, 3, -3, 4, 0, 1] + [0] * 25)
mistakes = {"codes are read as unsigned bytes": decoded % 256}
check_equal(q8_0_dequantize(block), decoded, "q8_0_dequantize of that block", mistakes)
for n in (31, 40):
    check_raises(ValueError, f"q8_0_quantize with last dimension {n}", q8_0_quantize, torch.ones(2, n))
### BEGIN HIDDEN TESTS
import quant_kernels as qk


def half_away(v):
    return v.sign() * (v.abs() + 0.5).floor()


def variant(x, peak=lambda b: b.abs().amax(-1, keepdim=True), levels=127, rounding=half_away, stored=False):
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    d = peak(blocks) / levels
    used = d.half().float() if stored else d
    q = rounding(blocks * torch.where(used == 0, 0, 1 / used)).clamp(-128, 127).to(torch.int8)
    return torch.cat([d.half().view(torch.uint8), q.view(torch.uint8)], -1).flatten(-2)


def row_peak(blocks):
    return blocks.abs().amax((-1, -2), keepdim=True).expand(*blocks.shape[:-1], 1)


generator = torch.Generator().manual_seed(602)
random = torch.randn(2, 24, 256, generator=generator) * torch.rand(2, 24, 1, generator=generator) * 3
ties = torch.cat([torch.tensor([-127.0]), torch.arange(-15, 16) + 0.5])
cases = {
    "random rows": random,
    "halves": torch.stack([ties, ties.flip(0), ties / 4]),
    "constant blocks": torch.tensor([[3.0], [-0.3], [0.001]]).expand(3, 64).contiguous(),
    "zero blocks between others": random[0, :4].reshape(4, 8, 32) * torch.tensor([1, 0] * 4).reshape(8, 1)
    + 0.0,  # no −0.0
    "one outlier per block": random[1, :4] + 1e4 * (torch.arange(256) % 32 == 17),
    "a scale below float16's normal numbers": random[0, :4] * 1e-5,
}
for name, x in cases.items():
    mistakes = {
        "halves go to the even neighbour, not away from zero": lambda: variant(x, rounding=torch.round),
        "halves go up, not away from zero": lambda: variant(x, rounding=lambda v: (v + 0.5).floor()),
        "codes are cut off toward zero, not rounded": lambda: variant(x, rounding=torch.trunc),
        "codes come from the scale rounded to float16, not from the float32 one": lambda: variant(
            x, stored=True
        ),
        "the scale is max|x| / 128": lambda: variant(x, levels=128),
        "a whole row shares one scale": lambda: variant(x, peak=row_peak),
        "the scale comes from the largest value, its sign ignored": lambda: variant(
            x, peak=lambda b: b.amax(-1, keepdim=True)
        ),
    }
    check_equal(q8_0_quantize(x), qk.quantize(x, "Q8_0"), f"q8_0_quantize, {name}", mistakes, block=34)

blocks = torch.randint(0, 256, (3, 5, 34), generator=generator, dtype=torch.uint8)
blocks[..., :2] = torch.randn(3, 5, 1, generator=generator).half().view(torch.uint8)
scale, codes = blocks[..., :2].contiguous().view(torch.float16).float(), blocks[..., 2:]
mistakes = {
    "codes are read as unsigned bytes": (scale * codes).flatten(-2),
    "codes are read as having 128 added": (scale * (codes.float() - 128)).flatten(-2),
    "the product is rounded to float16": (scale.half() * codes.view(torch.int8)).float().flatten(-2),
}
data = blocks.flatten(-2)
for part in (data, data[0, :34]):
    check_equal(
        q8_0_dequantize(part), qk.dequantize(part, "Q8_0"), "q8_0_dequantize of random blocks", mistakes
    )
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (b): Q4_0, pack and unpack
#
# *8 minutes, 6 points*
#
# ```
# q4_0_quantize    x: float32 (..., n)              →  uint8   (..., n/32 · 18)
# q4_0_dequantize  data: uint8 (..., n_blocks · 18)  →  float32 (..., n_blocks · 32)
#
# byte      0       1       2           3           4                   17
#        ┌───────────────┬───────────┬───────────┬───────────┬─ ··· ─┬───────────┐
#        │  d (float16)  │ q16 │ q0  │ q17 │ q1  │ q18 │ q2  │       │ q31 │ q15 │
#        └───────────────┴───────────┴───────────┴───────────┴─ ··· ─┴───────────┘
#                         bits  bits
#                         7–4   3–0
# ```
#
# | | |
# |:--|:--|
# | Blocks | 32 neighbours along the last dimension |
# | Scale | `m` = the element with the largest magnitude, **with its sign**; of equal ones the first. `d = m / −8`, float32 |
# | Codes | `q = min(15, trunc(x · (1 / d) + 8.5))`, with the float32 `d`, by the reciprocal. So `m` gets code 0, the value −8 |
# | Stored | `d` rounded to float16, then the nibbles; a code is unsigned, 8 stands for zero |
# | Zero block | all codes 8; `d` is zero, of either sign (ggml's C code writes −0.0, its Python package 0.0) |
# | Error | `ValueError` where n is not a multiple of 32 |
# | Decoding | `d · (q − 8)` in float32, with the stored `d` |
# | Tolerance | none: bytes are equal, and the product of 11 and 4 bits is exact in float32 |
#
# The grid −8 … 7 has one step more on one side. The sign of `d` turns that side to where the block's largest weight is.

# %% nbgrader={"grade": false, "grade_id": "q4_0", "locked": false, "schema_version": 3, "solution": true, "task": false}
def q4_0_quantize(x):
    """Quantize float32 `(..., n)` to Q4_0 blocks, uint8 `(..., n // 32 * 18)`.

    ValueError if n is not a multiple of 32.
    """
    ### BEGIN SOLUTION
    if x.shape[-1] % 32:
        raise ValueError(f"last dimension {x.shape[-1]} is not a multiple of Q4_0's block size 32")
    blocks = x.reshape(*x.shape[:-1], -1, 32)  # (..., n_blocks, 32)
    first = blocks.abs().argmax(-1, keepdim=True)  # of equal ones the first
    d = blocks.gather(-1, first) / -8  # (..., n_blocks, 1)
    inverse = torch.where(d == 0, 0, 1 / d)
    q = (blocks * inverse + 8.5).to(torch.uint8).clamp(max=15)
    qs = q[..., :16] | q[..., 16:] << 4  # (..., n_blocks, 16)
    return torch.cat([d.half().view(torch.uint8), qs], -1).flatten(-2)
    ### END SOLUTION


def q4_0_dequantize(data):
    """Decode Q4_0 blocks, uint8 `(..., n_blocks * 18)`, to float32 `(..., n_blocks * 32)`."""
    ### BEGIN SOLUTION
    blocks = data.reshape(*data.shape[:-1], -1, 18)
    d = blocks[..., :2].contiguous().view(torch.float16).float()  # (..., n_blocks, 1)
    q = torch.cat([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], -1)  # (..., n_blocks, 32)
    return (d * (q.float() - 8)).flatten(-2)
    ### END SOLUTION

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Work out the block −8, −7, …, 7, 7, …, −7, −8 by hand: d = 1, and the codes are 0 … 15, 15 … 0. Then do it for the same block
# with every sign turned. Only `d` changes.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# `argmax` of the absolute values gives the place, `gather` fetches the signed element. A cast to uint8 truncates. After the cast,
# 16 is possible (an element near −m), so clamp before you pack. Pack two halves of the block, not neighbours.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# signed = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
# scale = signed / -8
# codes = truncate(groups * reciprocal_or_zero(scale) + 8.5), at most 15
# nibbles = codes[..., :16] + 16 * codes[..., 16:]
# # decoding: low = byte % 16 gives the elements 0 to 15, high = byte // 16 the elements 16 to 31
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-q4_0", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_equal, check_raises


def from_hex(text):
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)


ramp = torch.cat([torch.arange(-8.0, 8), torch.arange(7.0, -9, -1)])  # −8 … 7, 7 … −8
block = from_hex("003c f0e1d2c3b4a5968778695a4b3c2d1e0f")
mistakes = {
    "neighbours 2i and 2i + 1 share a byte, not i and i + 16": from_hex(
        "003c 1032547698badcfeefcdab8967452301"
    ),
    "the high and the low nibbles are swapped": from_hex("003c 0f1e2d3c4b5a69788796a5b4c3d2e1f0"),
    "codes are stored in two's complement; Q4_0 adds 8": from_hex("003c 78695a4b3c2d1e0ff0e1d2c3b4a59687"),
    "the scale is max|x| / 7": from_hex("923c e1d2c3c4b5a5968778695a5b4c3c2d1e"),
}
check_equal(q4_0_quantize(ramp), block, "q4_0_quantize of −8 … 7, 7 … −8", mistakes, block=18)
mistakes = {
    "the scale is |m| / 8, which loses the largest element's sign": from_hex(
        "003c 1f2f3e4d5c6b7a8998a7b6c5d4e3f2f1"
    ),
    "the scale is max|x| / 7": from_hex("923c 2f3e4d5c5c6b7a8998a7b6c5c5d4e3f2"),
}
turned = from_hex("00bc f0e1d2c3b4a5968778695a4b3c2d1e0f")
check_equal(q4_0_quantize(-ramp), turned, "q4_0_quantize of 8 … −7, −7 … 8", mistakes, block=18)
mistakes = {
    "8 is subtracted in uint8, where 7 − 8 is 255": ramp % 256,
    "the 8 is not subtracted from the codes": ramp + 8,
}
check_equal(q4_0_dequantize(block), ramp, "q4_0_dequantize of the block of −8 … 7, 7 … −8", mistakes)
zero = q4_0_quantize(torch.zeros(64)).reshape(2, 18)
check_equal(zero[:, 2:], from_hex("88" * 32).reshape(2, 16), "q4_0_quantize of zeros, the codes")
check_equal(q4_0_dequantize(zero), torch.zeros(2, 32), "zeros after q4_0_quantize and q4_0_dequantize")
for n in (31, 40):
    check_raises(ValueError, f"q4_0_quantize with last dimension {n}", q4_0_quantize, torch.ones(2, n))
### BEGIN HIDDEN TESTS
import quant_kernels as qk


def signed_peak(blocks):
    return blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))


def negative_wins(blocks):
    low, high = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
    return torch.where(high > -low, high, low)


def positive_wins(blocks):
    low, high = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
    return torch.where(high >= -low, high, low)


def up(v):
    return (v + 8.5).trunc()


def split(q):
    return q[..., :16] | q[..., 16:] << 4


def variant(x, scale=lambda b: signed_peak(b) / -8, codes=up, stored=False, top=15, pack=split):
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    d = scale(blocks)
    used = d.half().float() if stored else d
    q = codes(blocks * torch.where(used == 0, 0, 1 / used)).clamp(0, top).to(torch.uint8)
    return torch.cat([d.half().view(torch.uint8), pack(q)], -1).flatten(-2)


generator = torch.Generator().manual_seed(604)
random = torch.randn(2, 24, 256, generator=generator) * torch.rand(2, 24, 1, generator=generator) * 3
ties = torch.cat([torch.tensor([-8.0]), torch.arange(31) % 15 - 7.5])
equal = torch.cat([torch.tensor([4.0, -4.0]), torch.linspace(-3.9, 3.9, 30)])
cases = {
    "random rows": random,
    "halves": torch.stack([ties, -ties, ties.flip(0) / 4]),
    "the largest value with both signs": torch.stack([equal, -equal, equal.flip(0), -equal.flip(0)]),
    "constant blocks": torch.tensor([[3.0], [-0.3], [0.001]]).expand(3, 64).contiguous(),
    "one outlier per block": random[1, :4] + 1e4 * (torch.arange(256) % 32 == 17),
    "a scale below float16's normal numbers": random[0, :4] * 1e-5,
}
for name, x in cases.items():
    mistakes = {
        "neighbours 2i and 2i + 1 share a byte, not i and i + 16": lambda: variant(
            x, pack=lambda q: q[..., ::2] | q[..., 1::2] << 4
        ),
        "the high and the low nibbles are swapped": lambda: variant(
            x, pack=lambda q: q[..., 16:] | q[..., :16] << 4
        ),
        "codes are stored in two's complement; Q4_0 adds 8": lambda: variant(x, pack=lambda q: split(q ^ 8)),
        "the scale is max|x| / 7": lambda: variant(x, scale=lambda b: b.abs().amax(-1, keepdim=True) / 7),
        "the scale is |m| / 8, which loses the largest element's sign": lambda: variant(
            x, scale=lambda b: b.abs().amax(-1, keepdim=True) / 8
        ),
        "halves go to the even neighbour (torch.round), not up": lambda: variant(
            x, codes=lambda v: v.round() + 8
        ),
        "codes are cut off, not rounded: + 8 where + 8.5 belongs": lambda: variant(
            x, codes=lambda v: (v + 8).trunc()
        ),
        "codes come from the scale rounded to float16, not from the float32 one": lambda: variant(
            x, stored=True
        ),
        "codes are not clamped: 16 spills into the other nibble": lambda: variant(x, top=16),
        "codes are not clamped: 16 wraps around to 0": lambda: variant(
            x, top=16, pack=lambda q: split(q & 15)
        ),
        "of +m and −m the negative one wins, not the first": lambda: variant(
            x, scale=lambda b: negative_wins(b) / -8
        ),
        "of +m and −m the positive one wins, not the first": lambda: variant(
            x, scale=lambda b: positive_wins(b) / -8
        ),
    }
    check_equal(q4_0_quantize(x), qk.quantize(x, "Q4_0"), f"q4_0_quantize, {name}", mistakes, block=18)

mixed = random[0, :4].reshape(4, 8, 32) * torch.tensor([1, 0] * 4).reshape(8, 1)
mixed_decoded = qk.dequantize(qk.quantize(mixed, "Q4_0"), "Q4_0")
check_equal(
    q4_0_dequantize(q4_0_quantize(mixed)), mixed_decoded, "zero blocks between others, there and back"
)

blocks = torch.randint(0, 256, (3, 5, 18), generator=generator, dtype=torch.uint8)
blocks[..., :2] = torch.randn(3, 5, 1, generator=generator).half().view(torch.uint8)
scale, low, high = (
    blocks[..., :2].contiguous().view(torch.float16).float(),
    blocks[..., 2:] & 15,
    blocks[..., 2:] >> 4,
)
q = torch.cat([low, high], -1).float()
mistakes = {
    "neighbours 2i and 2i + 1 share a byte, not i and i + 16": (
        scale * (torch.stack([low, high], -1).flatten(-2).float() - 8)
    ).flatten(-2),
    "the high and the low nibbles are swapped": (scale * (torch.cat([high, low], -1).float() - 8)).flatten(
        -2
    ),
    "codes are read as two's complement; Q4_0 adds 8": (scale * torch.where(q > 7, q - 16, q)).flatten(-2),
    "the 8 is not subtracted from the codes": (scale * q).flatten(-2),
    "7.5 is subtracted from the codes, not 8": (scale * (q - 7.5)).flatten(-2),
    "8 is subtracted in uint8, where 7 − 8 is 255": (scale * ((q - 8) % 256)).flatten(-2),
}
for data, decoded in ((blocks.flatten(-2), mistakes), (blocks[0, 0], {})):
    check_equal(
        q4_0_dequantize(data), qk.dequantize(data, "Q4_0"), "q4_0_dequantize of random blocks", decoded
    )
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (c): 3-bit codes in groups of 128, with a tail
#
# *10 minutes, 6 points*
#
# ```
# group3_quantize    x: float32 (rows, n)    →  packed  uint8    (rows, ⌈3n/8⌉)
#                                               scale   float16  (rows, n_groups)     n_groups = ⌈n/128⌉
#                                               low     float16  (rows, n_groups)     n ≥ 1
# group3_dequantize  packed, scale, low, n   →  float32 (rows, n)
#
# the codes of a row are one stream of bits, the least significant first, across byte borders:
#
#        ┌─────────── byte 0 ───────────┐┌─────────── byte 1 ───────────┐┌─────────── byte 2 ───────────┐
# bit     0   1   2   3   4   5   6   7   0   1   2   3   4   5   6   7   0   1   2   3   4   5   6   7
# code   └─── q0 ───┘└─── q1 ───┘└─── q2 ───┘└─── q3 ───┘└─── q4 ───┘└─── q5 ───┘└─── q6 ───┘└─── q7 ───┘
#
# bit b of code i is bit (3i + b) mod 8 of byte ⌊(3i + b) / 8⌋; what is left of a row's last byte is 0
# ```
#
# | | |
# |:--|:--|
# | Groups | 128 neighbours along a row; the last group of a row is its tail, with what is left (1 to 128 elements) |
# | Range | `lo` and `hi` are the group's own minimum and maximum: no padding counts, and zero need not lie inside |
# | Stored | `low = lo.half()`, `scale = ((hi − lo) / 7).half()`, the division in float32 |
# | Codes | from the **stored** values, in float32: `q = clamp(round((x − low) / scale), 0, 7)`, halves to even (`torch.round`) |
# | Constant group | where the stored scale is 0, all codes are 0 |
# | Decoding | `scale · q + low` in float32 |
# | Tolerance | none for the encoder; decoding rounds once, in the sum, so it is exact too |
#
# The decoder knows only the stored numbers, so the encoder rounds to *their* grid. Then a code can leave 0 … 7, and the clamp has
# work to do. Cost: 3 + 2 · 16 / 128 = 3.25 bits per weight.

# %% nbgrader={"grade": false, "grade_id": "group3", "locked": false, "schema_version": 3, "solution": true, "task": false}
def group3_quantize(x):
    """Quantize float32 `(rows, n)` to 3 bits in groups of 128.

    Returns `packed` uint8, `scale` float16, `low` float16.
    """
    ### BEGIN SOLUTION
    rows, n = x.shape
    n_groups = -(-n // 128)
    filler = x[:, -1:].expand(rows, n_groups * 128 - n)  # repeats an element of the tail, whose range stays
    groups = torch.cat([x, filler], 1).reshape(rows, n_groups, 128)
    lo, hi = groups.amin(-1), groups.amax(-1)  # (rows, n_groups)
    scale, low = ((hi - lo) / 7).half(), lo.half()
    step = scale.float().unsqueeze(-1)
    steps = torch.where(step == 0, 0, (groups - low.float().unsqueeze(-1)) / step)
    q = steps.round().clamp(0, 7).to(torch.uint8).reshape(rows, -1)[:, :n]
    bits = (q.unsqueeze(-1) >> torch.arange(3) & 1).reshape(rows, -1)  # (rows, 3n)
    bits = torch.nn.functional.pad(bits, (0, -3 * n % 8)).reshape(rows, -1, 8)
    packed = (bits << torch.arange(8)).sum(-1).to(torch.uint8)
    return packed, scale, low
    ### END SOLUTION


def group3_dequantize(packed, scale, low, n):
    """Decode `packed` uint8 `(rows, ceil(3n / 8))` to float32 `(rows, n)`.

    `scale` and `low` are float16 `(rows, n_groups)`.
    """
    ### BEGIN SOLUTION
    rows = len(packed)
    bits = (packed.unsqueeze(-1) >> torch.arange(8) & 1).reshape(rows, -1)[:, : 3 * n]
    q = (bits.reshape(rows, n, 3) << torch.arange(3)).sum(-1)  # (rows, n)
    group = torch.arange(n) // 128  # the group of each column
    return scale.float()[:, group] * q + low.float()[:, group]
    ### END SOLUTION

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Two problems, one after the other: codes from numbers, bytes from codes. For the second, think in single bits: a tensor
# `(rows, n, 3)` of zeros and ones, read as `(rows, n_bytes, 8)`, is the whole trick.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Fill the tail up to 128 with a copy of one of its own elements: its range stays what it is, and after rounding you cut
# the copies off. Shift by `torch.arange(3)` and mask with 1 to get bits; shift by `torch.arange(8)` and sum to get bytes. Widen the
# float16 scale to float32 before you divide.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# padded = torch.cat([x, copies of the last column], dim=1).reshape(rows, -1, 128)
# s, m = stored scale and low, as float32, shape (rows, n_groups, 1)
# codes = ((padded - m) / s).round().clamp(0, 7)                  # and 0 where s is 0
# stream = stack of (codes >> 0) & 1, (codes >> 1) & 1, (codes >> 2) & 1          # (rows, n, 3)
# stream = flattened to (rows, 3n), zeros up to a multiple of 8, as (rows, n_bytes, 8)
# byte = stream[..., 0] + 2 * stream[..., 1] + ... + 128 * stream[..., 7]
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-group3", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_equal


def from_hex(text):
    return torch.tensor([list(bytes.fromhex(text))], dtype=torch.uint8)


x = torch.tensor([[0.0, 1, 2, 3, 4, 5, 6, 7, 3, 5]])  # one tail group: low = 0, scale = 1, codes = x
packed, scale, low = group3_quantize(x)
mistakes = {
    "the scale is (hi − lo) / 8; eight levels have seven steps": torch.tensor([[0.875]]).half(),
    "groups run down the columns, not along the rows": torch.zeros(10, 1).half(),
}
check_equal(scale, torch.tensor([[1.0]]).half(), "group3_quantize of 0 … 7, 3, 5: scale", mistakes)
check_equal(low, torch.tensor([[0.0]]).half(), "group3_quantize of 0 … 7, 3, 5: low")
mistakes = {
    "the stream begins at the most significant bit (big-endian)": from_hex("05397774"),
    "each byte holds two codes, and none crosses a byte border": from_hex("1032547653"),
    "each code has a byte of its own": from_hex("00010203040506070305"),
}
check_equal(packed, from_hex("88c6fa2b"), "group3_quantize of 0 … 7, 3, 5: packed", mistakes)
check_equal(group3_dequantize(packed, scale, low, 10), x, "group3_dequantize of the codes 0 … 7, 3, 5")
packed, scale, low = group3_quantize(torch.ones(3, 200))
for got, shape in ((packed, (3, 75)), (scale, (3, 2)), (low, (3, 2))):
    assert tuple(got.shape) == shape, (
        f"group3_quantize of (3, 200): a result has shape {tuple(got.shape)}, expected {shape}"
    )
### BEGIN HIDDEN TESTS
import numpy as np


def half_away(v):
    return np.sign(v) * np.floor(np.abs(v) + 0.5)


def variant(
    x,
    levels=7,
    stored=True,
    rounding=np.round,
    clamp=True,
    guard=True,
    filler=(),
    zero=(),
    order="little",
    width=3,
):
    """The contract in numpy, or one misconception of it: packed, scale, low."""
    packed, scales, lows = [], [], []
    for row in x.numpy():
        codes, row_scales, row_lows = [], [], []
        for start in range(0, len(row), 128):
            group = row[start : start + 128]
            counted = np.concatenate([group, [*filler] * (128 - len(group)), zero]).astype(np.float32)
            low, step = counted.min(), (counted.max() - counted.min()) / np.float32(levels)
            row_scales.append(np.float16(step))
            row_lows.append(np.float16(low))
            s, m = (np.float32(np.float16(step)), np.float32(np.float16(low))) if stored else (step, low)
            with np.errstate(all="ignore"):
                q = rounding((group - m) / s) if s or not guard else np.zeros_like(group)
            codes.append(np.nan_to_num(q.clip(0, 7)) if clamp else q)
        codes = np.concatenate(codes).astype(np.int64) % 8
        bits = codes[:, None] >> np.arange(width)[:: 1 if order == "little" else -1] & 1
        packed.append(np.packbits(bits.astype(np.uint8).ravel(), bitorder=order))
        scales.append(row_scales)
        lows.append(row_lows)
    return [torch.from_numpy(np.array(part)) for part in (packed, scales, lows)]


generator = torch.Generator().manual_seed(606)
random = torch.randn(300, 300, generator=generator)
ties = torch.cat([torch.tensor([0.0, 7.0]), torch.arange(126) % 14 / 2]).repeat(2, 2)[:, :131]
cases = {
    "square matrix": random[:200, :200],
    "tail of 44": random[:8] + 5 * torch.rand(8, 1, generator=generator),
    "tail of 1": random[:8, :129],
    "no tail": random[:8, :256],
    "fewer than 128 columns": random[:8, :5],
    "far from zero": random[:8, :150] * 0.05 + 100,
    "halves": ties,
    "constant groups": torch.tensor([[0.0], [0.1], [-3.3]]).expand(3, 140).contiguous(),
    "a scale that float16 rounds to 0": torch.ones(1, 130) + random[:1, :130] * 1e-8,
    "groups of different size": random[:4] * torch.cat([torch.ones(128), torch.full((172,), 1e-3)]),
}
misconceptions = {
    "groups run down the columns, not along the rows": lambda x: variant(x.T),
    "the tail is filled with zeros, and they widen its range": lambda x: variant(x, filler=[0]),
    "the range is made to contain zero": lambda x: variant(x, zero=[0]),
    "the scale is (hi − lo) / 8; eight levels have seven steps": lambda x: variant(x, levels=8),
    "codes come from the float32 scale and minimum, not from the stored float16 ones": lambda x: variant(
        x, stored=False
    ),
    "halves go away from zero, not to the even neighbour": lambda x: variant(x, rounding=half_away),
    "codes are cut off, not rounded": lambda x: variant(x, rounding=np.trunc),
    "codes are not clamped to 0 … 7 and wrap around": lambda x: variant(x, clamp=False),
    "a scale of 0 is divided by": lambda x: variant(x, guard=False),
    "the stream begins at the most significant bit (big-endian)": lambda x: variant(x, order="big"),
    "each byte holds two codes, and none crosses a byte border": lambda x: variant(x, width=4),
}
for name, x in cases.items():
    results = zip(("scale", "low", "packed"), (1, 2, 0))
    got, expected = group3_quantize(x), variant(x)
    for part, i in results:
        mistakes = {text: lambda wrong=wrong: wrong(x)[i] for text, wrong in misconceptions.items()}
        check_equal(got[i], expected[i], f"group3_quantize, {name}: {part}", mistakes)

for rows, n in ((4, 300), (3, 131), (2, 7), (1, 128)):
    codes = torch.randint(0, 8, (rows, n), generator=generator)
    scale, low = torch.rand(2, rows, -(-n // 128), generator=generator).half() + 0.1
    bits = (codes.unsqueeze(-1) >> torch.arange(3) & 1).numpy().astype(np.uint8).reshape(rows, -1)
    packed = torch.from_numpy(np.packbits(bits, axis=1, bitorder="little"))
    s, m = (part.float().repeat_interleave(128, 1)[:, :n] for part in (scale, low))
    unpacked = np.unpackbits(packed.numpy(), axis=1)[:, : 3 * n].reshape(rows, n, 3) @ np.array([4, 2, 1])
    mistakes = {
        "low is subtracted; it is the group's minimum and has to be added": s * codes - m,
        "the stream is read from the most significant bit (big-endian)": s * torch.from_numpy(unpacked) + m,
        "low is added before the scale multiplies": s * (codes + m),
    }
    check_equal(
        group3_dequantize(packed, scale, low, n), s * codes + m, f"group3_dequantize, {rows} × {n}", mistakes
    )
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (d): decode Q4_K
#
# *8 minutes, 5 points*
#
# Q4_K also has 4.5 bits per weight, in super-blocks of 256 weights: 8 sub-blocks of 32, each with a 6-bit scale **and** a 6-bit
# minimum, which two float16 numbers scale in turn.
#
# ```
# q4_k_dequantize  data: uint8 (..., n_blocks · 144)  →  float32 (..., n_blocks · 256)
#
# byte     0      2      4            16                                     144
#        ┌──────┬──────┬────────────┬─────────────────────────────────────────┐
#        │  d   │ dmin │   scales   │  qs: 4 chunks of 32 bytes               │     d, dmin: float16
#        └──────┴──────┴────────────┴─────────────────────────────────────────┘
#
# scales       bit   7   6   5   4   3   2   1   0
# bytes  0–3       │  A   │         sc 0–3         │
# bytes  4–7       │  B   │          m 0–3         │
# bytes 8–11       │     m 4–7     │     sc 4–7    │     their low 4 bits
#
# sub-block j < 4     sc_j = low 6 bits of byte j                  m_j = low 6 bits of byte j + 4
# sub-block j ≥ 4     sc_j = low nibble of byte j + 4              m_j = high nibble of byte j + 4
#                            + 16 · A of byte j − 4                      + 16 · B of byte j
#
# qs           chunk c, byte l:   low nibble   = element l of sub-block 2c
#                                 high nibble  = element l of sub-block 2c + 1
# ```
#
# | | |
# |:--|:--|
# | Value | `w = (d · sc_j) · q − (dmin · m_j)`: the scaled minimum is **subtracted** |
# | Elements | sub-block j holds the elements 32 j … 32 j + 31 |
# | Arithmetic | float32 |
# | Tolerance | none: 11 + 6 + 4 bits fit 24, so both products are exact and only the difference rounds |

# %% nbgrader={"grade": false, "grade_id": "q4_k", "locked": false, "schema_version": 3, "solution": true, "task": false}
def q4_k_dequantize(data):
    """Decode Q4_K super-blocks, uint8 `(..., n_blocks * 144)`, to float32 `(..., n_blocks * 256)`."""
    ### BEGIN SOLUTION
    blocks = data.reshape(*data.shape[:-1], -1, 144)
    pair = blocks[..., :4].contiguous().view(torch.float16).float()
    d, dmin = pair[..., :1], pair[..., 1:]  # (..., n_blocks, 1)
    a, b, c = blocks[..., 4:16].unflatten(-1, (3, 4)).unbind(-2)  # (..., n_blocks, 4)
    sc = torch.cat([a & 63, c & 15 | a >> 6 << 4], -1)  # (..., n_blocks, 8)
    m = torch.cat([b & 63, c >> 4 | b >> 6 << 4], -1)
    qs = blocks[..., 16:].unflatten(-1, (4, 32))  # (..., n_blocks, 4, 32)
    q = torch.stack([qs & 15, qs >> 4], -2).flatten(-3, -2)  # (..., n_blocks, 8, 32)
    w = (d * sc).unsqueeze(-1) * q - (dmin * m).unsqueeze(-1)
    return w.flatten(-3)
    ### END SOLUTION

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Split a block into 4 | 12 | 128 bytes first. Twelve bytes are 96 bits, just enough for 16 numbers of 6 bits.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Read the 12 bytes as three rows A, B, C of four. Sub-blocks 0–3 need only A and B. For sub-blocks 4–7 join a nibble of C with the top
# two bits of A (scale) or of B (minimum). The nibbles go 64 elements at a time: 32 low ones, then 32 high ones of the same 32 bytes.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# A, B, C = scales.reshape(..., 3, 4)
# sc = join(A & 0x3F, (C & 0x0F) | ((A >> 6) << 4))
# mins = join(B & 0x3F, (C >> 4) | ((B >> 6) << 4))
# codes = qs.reshape(..., 4, 1, 32) >> tensor([[0], [4]])         # masked with 15: (..., 4, 2, 32)
# value = (d * sc)[..., None] * codes - (dmin * mins)[..., None]   # with codes as (..., 8, 32)
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-q4_k", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_equal


def from_hex(text):
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)


def expand(q, sc, m):
    """The 256 weights of a block with d = dmin = 1."""
    return torch.tensor(sc).repeat_interleave(32) * q - torch.tensor(m).repeat_interleave(32).float()


# scales 1 … 8, minima 0, 0, 0, 0, 9, 10, 11, 12: no top bits; every low nibble is 1, every high nibble 2
block = from_hex("003c 003c" + "01020304 00000000 95a6b7c8" + "21" * 128)
sc, m = [1, 2, 3, 4, 5, 6, 7, 8], [0, 0, 0, 0, 9, 10, 11, 12]
q = torch.tensor([1, 2]).repeat_interleave(32).repeat(4)
mistakes = {
    "the minima are added; they are subtracted": expand(q, sc, [-value for value in m]),
    "high nibbles come before low nibbles": expand(3 - q, sc, m),
    "nibbles are ordered 32 elements at a time, as in Q4_0; Q4_K's order is 64 wide": expand(
        torch.tensor([1, 2]).repeat_interleave(16).repeat(8), sc, m
    ),
    "neighbours 2i and 2i + 1 share a byte": expand(torch.tensor([1, 2]).repeat(128), sc, m),
    "the 12 bytes are read as one stream of 6-bit numbers": expand(
        q, [1, 8, 48, 0, 4, 0, 0, 0], [0, 0, 16, 37, 38, 30, 11, 50]
    ),
    "sub-blocks 4–7 have the scale's and the minimum's nibbles swapped": expand(
        q, sc[:4] + m[4:], m[:4] + sc[4:]
    ),
}
check_equal(q4_k_dequantize(block), expand(q, sc, m), "q4_k_dequantize, small scales", mistakes)
# scales 53, 38, 23, 8 (top bits 3, 2, 1, 0) and minima 9, 26, 43, 60 (top bits 0, 1, 2, 3) in sub-blocks 4–7
block = from_hex("003c 003c" + "c1824304 004080c0 95a6b7c8" + "21" * 128)
mistakes = {
    "sub-blocks 4–7 lack their two top bits": expand(q, sc, m),
    "sub-blocks 4–7 take their top bits from the wrong bytes: scales from B, minima from A": expand(
        q, [1, 2, 3, 4, 5, 22, 39, 56], [0, 0, 0, 0, 57, 42, 27, 12]
    ),
}
expected = expand(q, [1, 2, 3, 4, 53, 38, 23, 8], [0, 0, 0, 0, 9, 26, 43, 60])
check_equal(q4_k_dequantize(block), expected, "q4_k_dequantize, top bits of sub-blocks 4–7", mistakes)
two_blocks = q4_k_dequantize(torch.zeros(3, 288, dtype=torch.uint8))
assert two_blocks.shape == (3, 512), (
    f"q4_k_dequantize of (3, 288) has shape {tuple(two_blocks.shape)}, expected (3, 512)"
)
### BEGIN HIDDEN TESTS
import gguf


def low6(a, b, c):
    return torch.cat([a & 63, c & 15 | a >> 6 << 4], -1), torch.cat([b & 63, c >> 4 | b >> 6 << 4], -1)


def bit_stream(a, b, c):
    """The 12 bytes as one little-endian stream of sixteen 6-bit numbers."""
    bits = torch.cat([a, b, c], -1).unsqueeze(-1) >> torch.arange(8) & 1
    numbers = (bits.flatten(-2).unflatten(-1, (16, 6)) << torch.arange(6)).sum(-1)
    return numbers[..., :8], numbers[..., 8:]


def wide64(qs):
    return torch.stack([qs & 15, qs >> 4], -2).flatten(-3)


def wide32(qs):
    halves = qs.flatten(-2).unflatten(-1, (8, 16))
    return torch.cat([halves & 15, halves >> 4], -1).flatten(-2)


def variant(data, scales=low6, nibbles=wide64, sign=-1, swap=False, dtype=torch.float32):
    blocks = data.unflatten(-1, (-1, 144))
    d, dmin = blocks[..., :4].contiguous().view(torch.float16).to(dtype).unsqueeze(-1).unbind(-2)
    d, dmin = (dmin, d) if swap else (d, dmin)
    sc, m = scales(*blocks[..., 4:16].unflatten(-1, (3, 4)).unbind(-2))
    q = nibbles(blocks[..., 16:].unflatten(-1, (4, 32))).unflatten(-1, (8, 32))
    return ((d * sc).unsqueeze(-1) * q + sign * (dmin * m).unsqueeze(-1)).flatten(-3).float()


generator = torch.Generator().manual_seed(608)
blocks = torch.randint(0, 256, (4, 3, 144), generator=generator, dtype=torch.uint8)
blocks[..., :4] = (torch.rand(4, 3, 2, generator=generator) * 0.01 - 0.002).half().view(torch.uint8)
for data in (blocks.flatten(-2), blocks[0, 0]):
    mistakes = {
        "the minima are added; they are subtracted": lambda: variant(data, sign=1),
        "d and dmin are swapped": lambda: variant(data, swap=True),
        "nibbles are ordered 32 elements at a time, as in Q4_0; Q4_K's order is 64 wide": lambda: variant(
            data, nibbles=wide32
        ),
        "neighbours 2i and 2i + 1 share a byte": lambda: variant(
            data, nibbles=lambda qs: torch.stack([qs & 15, qs >> 4], -1).flatten(-3)
        ),
        "high nibbles come before low nibbles": lambda: variant(
            data, nibbles=lambda qs: torch.stack([qs >> 4, qs & 15], -2).flatten(-3)
        ),
        "the 12 bytes are read as one stream of 6-bit numbers": lambda: variant(data, scales=bit_stream),
        "sub-blocks 4–7 lack their two top bits": lambda: variant(
            data, scales=lambda a, b, c: (torch.cat([a & 63, c & 15], -1), torch.cat([b & 63, c >> 4], -1))
        ),
        "sub-blocks 4–7 take their top bits from the wrong bytes: scales from B, minima from A": lambda: (
            variant(
                data,
                scales=lambda a, b, c: (
                    torch.cat([a & 63, c & 15 | b >> 6 << 4], -1),
                    torch.cat([b & 63, c >> 4 | a >> 6 << 4], -1),
                ),
            )
        ),
        "sub-blocks 4–7 have the scale's and the minimum's nibbles swapped": lambda: variant(
            data,
            scales=lambda a, b, c: (
                torch.cat([a & 63, c >> 4 | a >> 6 << 4], -1),
                torch.cat([b & 63, c & 15 | b >> 6 << 4], -1),
            ),
        ),
        "sub-blocks 4–7 have their two top bits at the bottom": lambda: variant(
            data,
            scales=lambda a, b, c: (
                torch.cat([a & 63, (c & 15) << 2 | a >> 6], -1),
                torch.cat([b & 63, c >> 4 << 2 | b >> 6], -1),
            ),
        ),
        "products are rounded to float16": lambda: variant(data, dtype=torch.float16),
    }
    expected = torch.from_numpy(gguf.dequantize(data.numpy(), gguf.GGMLQuantizationType.Q4_K))
    check_equal(q4_k_dequantize(data), expected, "q4_k_dequantize of random blocks", mistakes)
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (e): Q4_0 × Q8_0, matrix times vector
#
# *9 minutes, 6 points*
#
# llama.cpp on a CPU does not decode weights to multiply them. It quantizes the activations to Q8_0 once, and then each pair
# of blocks needs one integer dot product and one float multiplication:
#
# ```
# q4_0_q8_0_gemv   w: uint8 (rows, n_blocks · 18)   Q4_0
#                  x: uint8 (n_blocks · 34)         Q8_0     →  y: float32 (rows,)
#
#       n_blocks − 1                       31
# y_r =      Σ        d_w[r, b] · d_x[b] ·  Σ  (q_w[r, b, i] − 8) · q_x[b, i]
#          b = 0                           i = 0
#                    └───── float32 ─────┘   └─────────── integer ──────────┘
# ```
#
# | | |
# |:--|:--|
# | Integer part | exact. At most 32 · 8 · 127 = 32 512 in size; float32 tensors that hold whole numbers below 2²⁴ are integers enough |
# | Float part | the scales multiply once per block, after the sum; a block whose integer dot is 0 adds exactly 0 |
# | Memory | beyond arguments and result less than **one byte per weight** (rows · 32 · n_blocks bytes) at any time. An int8 copy of the matrix already breaks it; go through the rows in tiles |
# | Time | a loop over tiles or over rows is fast enough; one over single blocks, a million in the memory test, is not |
# | Tolerance | `n_blocks · 2⁻²⁴ · Σ_b abs(term_b)` for each row: `d_w · d_x` is exact (11 + 11 bits), its product with the integer rounds once, and so does each addition, by at most 2⁻²⁴ relative; the same to first order for every order of summation |
#
# The memory test has 4 096 × 8 192 weights: 128 MiB in float32, 32 MiB in int8, 18 MiB packed. The limit is 32 MiB.

# %% nbgrader={"grade": false, "grade_id": "gemv", "locked": false, "schema_version": 3, "solution": true, "task": false}
def q4_0_q8_0_gemv(w, x):
    """Multiply Q4_0 rows, uint8 `(rows, n_blocks * 18)`, with a Q8_0 vector, uint8 `(n_blocks * 34)`.

    Returns float32 `(rows,)`.
    """
    ### BEGIN SOLUTION
    x = x.reshape(-1, 34)
    d_x = x[:, :2].contiguous().view(torch.float16).float()  # (n_blocks, 1)
    q_x = x[:, 2:].contiguous().view(torch.int8).to(torch.int32)  # (n_blocks, 32)
    y = torch.empty(len(w))
    for start in range(0, len(w), 32):
        tile = w[start : start + 32].reshape(-1, len(x), 18)  # (tile, n_blocks, 18)
        d_w = tile[..., :2].contiguous().view(torch.float16).float()  # (tile, n_blocks, 1)
        codes = torch.cat([tile[..., 2:] & 15, tile[..., 2:] >> 4], -1)  # (tile, n_blocks, 32)
        q_w = codes.to(torch.int32) - 8
        dots = (q_w * q_x).sum(-1, keepdim=True)  # (tile, n_blocks, 1)
        y[start : start + 32] = (d_w * d_x * dots).sum((-1, -2))
    return y
    ### END SOLUTION

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Write it for one row first. Then ask how many rows at a time you can afford: a tile of 32 rows of 8 192 weights takes 1 MiB per
# int32 temporary.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# int8 times int8 stays int8 in torch and wraps around: widen first. Either subtract 8 from the codes, or leave them unsigned and use
# Σ (q − 8) · p = Σ q · p − 8 · Σ p, where Σ p is needed once per block of x and not once per row.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# for each tile of rows:
#     blocks = tile of w as (tile_rows, n_blocks, 18)
#     signed = nibbles of blocks as int32, minus 8            # (tile_rows, n_blocks, 32)
#     integer = (signed * activations).sum(-1)                # (tile_rows, n_blocks)
#     result of the tile = sum over blocks of scale_w * scale_x * integer
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-gemv", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
import torch

import quant_kernels as qk
from course.checks import check_close

WHY = "n_blocks · 2⁻²⁴ · Σ|term|"


def from_hex(text):
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)


# one block; d_w = 0.5, the weights' codes 9 and 10 (1 and 2) in the halves of row 0, and 0 (−8) in row 1;
# d_x = 0.25, the codes of x are 2 and 3 in its halves
w = torch.stack([from_hex("0038" + "a9" * 16), from_hex("0038" + "00" * 16)])
x = from_hex("0034" + "02" * 16 + "03" * 16)
mistakes = {
    "the 8 is not subtracted from the weights' codes": torch.tensor([96.0, 0]),
    "the scale of x is left out": torch.tensor([64.0, -320]),
    "the scale of w is left out": torch.tensor([32.0, -160]),
    "the high and the low nibbles are swapped": torch.tensor([14.0, -80]),
    "neighbours 2i and 2i + 1 share a byte, not i and i + 16": torch.tensor([15.0, -80]),
}
check_close(q4_0_q8_0_gemv(w, x), torch.tensor([16.0, -80]), 0.0, "q4_0_q8_0_gemv of two rows", WHY, mistakes)

rows, n_blocks = 4096, 256
generator = torch.Generator().manual_seed(1)
w = torch.randint(0, 256, (rows, n_blocks, 18), generator=generator, dtype=torch.uint8)
w[..., :2] = (torch.rand(rows, n_blocks, 1, generator=generator) - 0.5).half().view(torch.uint8)
x = qk.quantize(torch.randn(n_blocks * 32, generator=generator), "Q8_0")
y, peak = qk.peak_memory(q4_0_q8_0_gemv, w.flatten(1), x)
limit = rows * n_blocks * 32
assert peak < limit, (
    f"q4_0_q8_0_gemv takes {peak / 2**20:.1f} MiB, the limit is {limit / 2**20:.0f} MiB (one byte per weight): "
    "the matrix is unpacked as a whole, not tile by tile"
)
assert tuple(y.shape) == (rows,), f"q4_0_q8_0_gemv: shape {tuple(y.shape)}, expected ({rows},)"
### BEGIN HIDDEN TESTS


def unpack(w, x):
    """Signed codes and scales: q_w (rows, n_blocks, 32), d_w (rows, n_blocks), q_x (n_blocks, 32), d_x (n_blocks)."""
    w, x = w.unflatten(-1, (-1, 18)), x.unflatten(-1, (-1, 34))
    d_w, d_x = (part[..., :2].contiguous().view(torch.float16).squeeze(-1).double() for part in (w, x))
    q_w = torch.cat([w[..., 2:] & 15, w[..., 2:] >> 4], -1).long() - 8
    return q_w, d_w, x[..., 2:].contiguous().view(torch.int8).long(), d_x


def gemv(q_w, d_w, q_x, d_x):
    return (d_w * d_x * (q_w * q_x).sum(-1)).sum(-1).float()


def mistaken(w, x):
    q_w, d_w, q_x, d_x = unpack(w, x)
    neighbours = torch.stack([q_w[..., :16], q_w[..., 16:]], -1).flatten(-2)
    wrapped = (q_w * q_x + 128) % 256 - 128
    return {
        "the 8 is not subtracted from the weights' codes": gemv(q_w + 8, d_w, q_x, d_x),
        "neighbours 2i and 2i + 1 share a byte, not i and i + 16": gemv(neighbours, d_w, q_x, d_x),
        "the high and the low nibbles are swapped": gemv(q_w.roll(16, -1), d_w, q_x, d_x),
        "codes are read as two's complement; Q4_0 adds 8": gemv(q_w + 8 - 16 * (q_w >= 0), d_w, q_x, d_x),
        "products wrap around at 8 bits: int8 · int8 stays int8 in torch": (d_w * d_x * wrapped.sum(-1))
        .sum(-1)
        .float(),
        "the scale of x is left out": gemv(q_w, d_w, q_x, d_x**0),
        "the scale of w is left out": gemv(q_w, d_w**0, q_x, d_x),
        "the codes of x are read as unsigned bytes": gemv(q_w, d_w, q_x % 256, d_x),
        "one scale of w serves a whole row": gemv(q_w, d_w[:, :1], q_x, d_x),
        "one scale of x serves all blocks": gemv(q_w, d_w, q_x, d_x[:1]),
    }


def check(w, x, what):
    q_w, d_w, q_x, d_x = unpack(w, x)
    terms = d_w * d_x * (q_w * q_x).sum(-1)
    atol = len(d_x) * 2**-24 * terms.abs().sum(-1)
    check_close(
        q4_0_q8_0_gemv(w, x),
        terms.sum(-1).float(),
        atol + 2**-24 * terms.sum(-1).abs(),
        what,
        WHY,
        mistaken(w, x),
    )


generator = torch.Generator().manual_seed(610)
for rows, n_blocks in ((1, 1), (37, 9), (130, 64)):
    w = torch.randint(0, 256, (rows, n_blocks, 18), generator=generator, dtype=torch.uint8)
    w[..., :2] = (torch.rand(rows, n_blocks, 1, generator=generator) - 0.3).half().view(torch.uint8)
    x = qk.quantize(torch.randn(n_blocks, 32, generator=generator).cumsum(0), "Q8_0").flatten()
    check(w.flatten(1), x, f"q4_0_q8_0_gemv, {rows} × {32 * n_blocks}")
real = torch.randn(33, 320, generator=generator) * torch.rand(33, 1, generator=generator)
x = torch.randn(320, generator=generator).sign() * 5  # every code of x is 127 or −127
check(qk.quantize(real, "Q4_0"), qk.quantize(x, "Q8_0"), "q4_0_q8_0_gemv with the largest codes of x")

# every block's integer dot is 0: the second half of w's codes is the first in another order, and x's codes are their negatives
rows, n_blocks = 16, 40
codes, x_codes = (
    torch.randint(0, 16, (rows, n_blocks, 16), generator=generator),
    torch.zeros(n_blocks, 32, dtype=torch.int8),
)
x_codes[:, :16] = torch.randint(-127, 128, (n_blocks, 16), generator=generator)
order = torch.randperm(16, generator=generator)
x_codes[:, 16:] = -x_codes[:, order]
w = torch.empty(rows, n_blocks, 18, dtype=torch.uint8)
w[..., :2] = torch.rand(rows, n_blocks, 1, generator=generator).half().view(torch.uint8)
w[..., 2:] = codes | codes[..., order] << 4
d_x = torch.rand(n_blocks, 1, generator=generator).half().view(torch.uint8)
y = q4_0_q8_0_gemv(w.flatten(1), torch.cat([d_x, x_codes.view(torch.uint8)], 1).flatten())
assert not y.any(), (
    f"q4_0_q8_0_gemv: every block's integer dot is 0, but y[0] is {y[0]:.3g}: "
    "float products are accumulated; sum integers, and scale at the end of the block"
)
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (f): reach the targets
#
# *5 minutes, 3 points*
#
# Measure four schemes on the same tensor, in blocks of 32 along the last dimension, and let the measurement choose.
#
# ```
# error_table  x: float32 (..., n), n a multiple of 32  →  dict: the names below to errors in percent
# cheapest     x, target: a number in percent           →  the name that reaches it with the fewest bits
# ```
#
# | name | bits per weight | scale | codes | decoded | target on N(0, 1) |
# |:--|--:|:--|:--|:--|--:|
# | `"Q8_0"` | 8.5 | `max(abs(x)) / 127` | −127 … 127 | d · q | 0.535 % |
# | `"min-max"` | 5.0 | `(max − min) / 15` | 0 … 15 | d · q + min | 7.82 % |
# | `"Q4_0"` | 4.5 | signed largest / −8 | −8 … 7 | d · q | 8.60 % |
# | `"absmax/7"` | 4.5 | `max(abs(x)) / 7` | −7 … 7 | d · q | 9.70 % |
#
# | | |
# |:--|:--|
# | Error | `100 · sqrt(Σ(x − x̂)² / Σx²)`, the sums over the whole tensor |
# | Constant or zero block | decodes to itself (a scale of 0 makes no NaN) |
# | Choice | the fewest bits among the schemes with error ≤ target; of equal bits the smaller error; `ValueError` if none reaches it |
# | Tolerance | 1 % of each figure. Float16 rounding of the scale (relative 2⁻¹¹ at most) moves Q8_0's by about 0.1 %, the others' by less, so you may round it or not; the rounding of exact halves does not show |
#
# The targets are what ggml's own quantizers reach on 256 × 4 096 weights from N(0, 1) (`"min-max"` is its Q4_1), and for
# `"absmax/7"` what the rule gives on them. You may call your functions of (a) and (b).

# %% nbgrader={"grade": false, "grade_id": "errors", "locked": false, "schema_version": 3, "solution": true, "task": false}
def error_table(x):
    """Relative RMSE in percent of "Q8_0", "min-max", "Q4_0" and "absmax/7" on float32 `(..., n)`.

    Returns a dict of numbers.
    """
    ### BEGIN SOLUTION
    blocks = x.reshape(-1, 32)
    low, high = blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)  # (n_blocks, 1)
    peak = torch.maximum(high, -low)
    signed = torch.where(high >= -low, high, low)

    def error(d, smallest, largest, offset=0.0):
        q = torch.where(d == 0, 0, (blocks - offset) / d).round().clamp(smallest, largest)
        return 100 * ((d * q + offset - blocks).norm() / blocks.norm()).item()

    return {
        "Q8_0": error(peak / 127, -127, 127),
        "min-max": error((high - low) / 15, 0, 15, low),
        "Q4_0": error(signed / -8, -8, 7),
        "absmax/7": error(peak / 7, -7, 7),
    }
    ### END SOLUTION


def cheapest(x, target):
    """Name of the scheme with the fewest bits per weight whose error on `x` is at most `target` percent.

    ValueError if there is none.
    """
    ### BEGIN SOLUTION
    bits = {"Q8_0": 8.5, "min-max": 5.0, "Q4_0": 4.5, "absmax/7": 4.5}
    errors = error_table(x)
    reached = [name for name in errors if errors[name] <= target]
    if not reached:
        raise ValueError(f"no scheme reaches {target} %; the best has {min(errors.values()):.3g} %")
    return min(reached, key=lambda name: (bits[name], errors[name]))
    ### END SOLUTION

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Four schemes are one function of (scale, smallest code, largest code, offset).
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Reshape to `(n_blocks, 32)`. Quantize and decode in float32 without packing anything. Take one norm over all elements, not one per
# block. Do not assume which 4.5-bit rule wins: on some data it is not Q4_0.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# def percent(scale, smallest, largest, offset=0):
#     codes = ((blocks - offset) / scale, or 0 where scale is 0).round().clamp(smallest, largest)
#     return 100 * norm(scale * codes + offset - blocks) / norm(blocks)
#
# best = min(names that reach the target, key=lambda name: (bits_of[name], table[name]))
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-errors", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_close, check_equal, check_raises

x = torch.randn(64, 4096, generator=torch.Generator().manual_seed(0))
table = error_table(x)
targets = {"Q8_0": 0.535, "min-max": 7.82, "Q4_0": 8.60, "absmax/7": 9.70}
block_means = {"Q8_0": 0.528, "min-max": 7.78, "Q4_0": 8.50, "absmax/7": 9.59}
for name, target in targets.items():
    mistakes = {
        "the error is a fraction, not percent": target / 100,
        "the square root is missing": target**2 / 100,
        "errors are averaged over blocks; the sums run over the whole tensor": block_means[name],
    }
    if name == "Q4_0":
        mistakes["the scale is |m| / 8, which loses the largest element's sign"] = 9.37
        mistakes["the scale is max|x| / 7"] = 9.70
    check_close(
        table[name], target, 0.01 * target, f'error_table of N(0, 1), "{name}"', "1 % of the figure", mistakes
    )
mistakes = {
    "the smallest error is chosen, whatever it costs": "Q8_0",
    "scales are not counted: all 4-bit codes cost the same": "min-max",
}
for target, name in ((10, "Q4_0"), (8, "min-max"), (1, "Q8_0")):
    check_equal(cheapest(x[:16], target), name, f"cheapest on N(0, 1) with target {target} %", mistakes)
check_raises(ValueError, "cheapest on N(0, 1) with target 0.1 %", cheapest, x[:16], 0.1)
assert len(table) == 4, f"error_table has {len(table)} entries: {', '.join(map(str, table))}; expected 4"
### BEGIN HIDDEN TESTS
BITS = {"Q8_0": 8.5, "min-max": 5.0, "Q4_0": 4.5, "absmax/7": 4.5}


def decode(blocks, name):
    low, high = blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)
    largest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    d, lowest, highest, offset = {
        "Q8_0": (largest.abs() / 127, -127, 127, 0),
        "min-max": ((high - low) / 15, 0, 15, low),
        "Q4_0": (largest / -8, -8, 7, 0),
        "absmax/7": (largest.abs() / 7, -7, 7, 0),
        "|m|/8": (largest.abs() / 8, -8, 7, 0),
        "through zero": ((high.clamp(min=0) - low.clamp(max=0)) / 15, 0, 15, low.clamp(max=0)),
    }[name]
    return d * torch.where(d == 0, 0, (blocks - offset) / d).round().clamp(lowest, highest) + offset


def percent(x, name):
    blocks = x.reshape(-1, 32).double()
    return 100 * ((decode(blocks, name) - blocks).norm() / blocks.norm()).item()


def mean_of_blocks(x, name):
    blocks = x.reshape(-1, 32).double()
    return 100 * ((decode(blocks, name) - blocks).norm(dim=1) / blocks.norm(dim=1)).nanmean().item()


generator = torch.Generator().manual_seed(612)
normal = torch.randn(2, 48, 256, generator=generator)
grid = torch.randint(-7, 8, (16, 256), generator=generator) / 7.0
grid[:, ::32], grid[:, 1::32] = 1.0, -1.0  # absmax/7 is exact, and Q4_0 clips
zero_blocks = normal[0] * (torch.arange(256) < 224) + 0.0
cases = {
    "rows of different size": normal[0] * torch.logspace(-2, 1, 48).unsqueeze(1),
    "heavy tails": normal[0] ** 3,
    "weights around 1": normal[1] * 0.2 + 1,
    "weights around −1": normal[1] * 0.2 - 1,
    "zero blocks and constant blocks": torch.cat([zero_blocks, torch.full((1, 256), 0.5)]),
}
for case, x in cases.items():
    table = error_table(x)
    for name in BITS:
        mistakes = {
            "errors are averaged over blocks; the sums run over the whole tensor": lambda: mean_of_blocks(
                x, name
            ),
            "the error is divided by the largest weight, not by the root mean square": lambda: (
                percent(x, name) * x.square().mean().sqrt().item() / x.abs().max().item()
            ),
            "'Q4_0' uses |m| / 8, which loses the largest element's sign": lambda: percent(x, "|m|/8"),
            '"min-max" makes the range contain zero': lambda: percent(x, "through zero"),
        }
        right = percent(x, name)
        check_close(
            table[name], right, 0.01 * right, f'error_table, {case}, "{name}"', "1 % of the figure", mistakes
        )

choices = {
    "weights around 1": cases["weights around 1"],
    "heavy tails": cases["heavy tails"],
    "a grid of sevenths": grid,
}
for case, x in choices.items():
    errors = {name: percent(x, name) for name in BITS}
    for target in sorted(1.05 * error + 0.05 for error in errors.values()):
        reached = [name for name in errors if errors[name] <= target]
        mistakes = {
            "the smallest error is chosen, whatever it costs": min(errors, key=errors.get),
            "Q4_0 is preferred to absmax/7 without looking at their errors": "Q4_0",
            "scales are not counted: all 4-bit codes cost the same": min(
                reached, key=lambda name: (8 if name == "Q8_0" else 4, errors[name])
            ),
        }
        right = min(reached, key=lambda name: (BITS[name], errors[name]))
        check_equal(cheapest(x, target), right, f"cheapest, {case}, target {target:.3g} %", mistakes)
### END HIDDEN TESTS

# %% [markdown]
# ## Experiment: your quantizer on whole models
#
# The course model is a Llama of 8 layers that the course trained itself, stored as F16 and never quantized. You quantize its weight
# matrices with **your** functions of (a) and (b), look at the error of each kind of tensor, and then at what the model loses. After that comes a
# model with a trap. None of this is graded.

# %% tags=["experiment"]
import matplotlib.pyplot as plt
import torch

import quant_kernels as qk
from course.fetch import fetch
from course.texts import evaluation_text


def matrices_of(model):
    return {name: weight for name, weight in model.weights().items() if name.startswith("blk.")}


model = qk.load_model(fetch("course-model"))
matrices = matrices_of(model)
count = sum(weight.numel() for weight in matrices.values())
print(f"{len(matrices)} matrices in {model.config.n_layer} layers, {count / 1e6:.1f} million weights")

# %% [markdown]
# The error of each tensor type, over all layers: 100 · sqrt(Σ(w − ŵ)² / Σw²).

# %% tags=["experiment"]
def your_q8_0(weight):
    return q8_0_dequantize(q8_0_quantize(weight))


def your_q4_0(weight):
    return q4_0_dequantize(q4_0_quantize(weight))


def library_q4_1(weight):
    return qk.dequantize(qk.quantize(weight, "Q4_1"), "Q4_1")


def error_of(weights, there_and_back):
    """Relative RMSE over all the weights, in percent."""
    missed = sum((there_and_back(weight) - weight).square().sum() for weight in weights)
    return 100 * (missed / sum(weight.square().sum() for weight in weights)).sqrt().item()


schemes = {
    "Q8_0 (yours, 8.5 bits)": your_q8_0,
    "Q4_0 (yours, 4.5 bits)": your_q4_0,
    "Q4_1 (library, 5.0 bits)": library_q4_1,
}
kinds = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
groups = {kind: [weight for name, weight in matrices.items() if f".{kind}." in name] for kind in kinds}
groups["token_embd"] = [model.weights()["token_embd.weight"]]

figure, axes = plt.subplots(figsize=(10, 4))
for i, (scheme, there_and_back) in enumerate(schemes.items()):
    heights = [error_of(weights, there_and_back) for weights in groups.values()]
    bars = axes.bar([place + 0.27 * (i - 1) for place in range(8)], heights, width=0.27, label=scheme)
    axes.bar_label(bars, fmt="%.2g", fontsize=8, padding=2)
axes.set_xticks(range(8), groups)
axes.set(ylabel="relative RMSE, %", title="The course model: error per tensor type", ylim=(0, 14))
axes.legend(loc="upper center", ncols=3, fontsize=8.5, frameon=False)
plt.show()

# %% [markdown]
# Read the plot against the targets of (f): how far are these weights from N(0, 1)?
#
# Now the perplexity, by llama-perplexity's convention: windows of 512 tokens, the second half of each scored. The text is
# Python's own language reference, which the model was never trained on. All figures are over the *same* tokens, so that their
# differences are surer than each ± says.

# %% tags=["experiment"]
WINDOWS = 16  # more are more exact and slower

tokens = model.tokenizer.encode(evaluation_text())[: 512 * WINDOWS]
for label, there_and_back in {"as trained (F16)": None, **schemes}.items():
    replaced = {name: there_and_back(weight) for name, weight in matrices.items()} if there_and_back else {}
    with model.replaced(replaced):
        result = qk.perplexity(model, tokens, n_ctx=512)
    print(
        f"{label:24}  perplexity {result.value:8.4f} ± {result.standard_error:.4f}   ({result.tokens_scored} tokens scored)"
    )

# %% [markdown]
# **The trap.** SmolLM2-135M-Instruct (Apache-2.0, a download of 93 MB) comes as a file whose matrices were already quantized to **Q4_1**.
# In every block of 32 the weights take at most 16 values, min + d · q. A second quantization to the *same* grid finds them
# again, and one to any other grid has to miss them. Predict the order of the three errors before you run the cell.

# %% tags=["experiment"]
smollm2 = matrices_of(qk.load_model(fetch("smollm2")))
for scheme, there_and_back in schemes.items():
    print(f"{scheme:26} {error_of(smollm2.values(), there_and_back):7.3f} %")

# %% [markdown]
# Q4_1 looks better than Q8_0 here, with fewer bits. That says something about the file and nothing about the formats: **never
# rank formats on weights that were quantized before.** And the loss that you would measure with your Q4_0 on this model is not
# what Q4_0 costs a model of its size: it is the cost of Q4_0 *after* Q4_1, with both roundings in it.

# %% [markdown]
# ## Rubric
#
# An instructor scores the next three answers and the talk at the end, 7 points each; alone, score yourself by the tables. Write into the
# cells "Your answer".

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-format", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Format mechanics (7 points)
#
# A colleague has to write a reader for Q4_0 and Q4_K from your words alone. In 250 words or fewer: where is each bit of a block, how does it become
# a weight, why does Q4_0's `d` have a sign, and what does each format spend its 4.5 bits per weight on?
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | Speaks of "4-bit" without a layout | Sizes and scales right; nibble order, offset or signs left out | A reader for Q4_0 could be written from it, and one for Q4_K nearly | Both readers could be written; says what the bits buy and which cases break readers |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** Q4_0 is 2 + 16 bytes; float16 little-endian; nibbles i and i + 16; excess 8; `d` = signed largest / −8, so that the block's largest weight
# falls on −8 and is met exactly (up to float16 rounding of `d`) and the seven steps lie on the other side. 128 + 16 = 144 bits for 32 weights.
# Q4_K: 4 + 12 + 128 bytes; eight 6-bit scales **and** eight 6-bit minima; top bits of 4–7 in bytes 0–7; 64-wide nibble order; the minimum is subtracted.
# 1024 + 96 + 32 = 1152 bits for 256 weights. Same 4.5 bits: Q4_0 pays one 16-bit scale per 32 weights, Q4_K 12 bits per 32 plus 32 bits per 256, and gets an offset for it.
#
# **Strong, 7 of 7.** *"Q4_0: 18 bytes. Bytes 0–1 are d, IEEE half, low byte first. Byte 2+j: low nibble is weight j, high nibble weight j+16; weight = d·(nibble − 8).
# d is the largest-magnitude weight over −8 with its sign, so a negative d is normal; a reader that takes |d| turns half the blocks upside down. Bits: 128 codes + 16 scale = 144 / 32.
# Q4_K: 144 bytes for 256. d, dmin halves; 12 bytes with 8 scales and 8 mins of 6 bits: for j < 4 the low 6 bits of bytes j and j+4; for j ≥ 4 nibbles of byte j+4 (scale low, min high),
# the two top bits in bits 7–6 of bytes j−4 and j. qs in four chunks of 32 bytes, low nibbles = sub-block 2c, high = 2c+1. w = d·sc·q − dmin·m. 1024 + 96 + 32 bits.
# It spends the same 0.5 bit of overhead on a scale and an offset per 32, by making both 6-bit and sharing two halves. Test with both signs of d and with scales above 15."*
# Complete, exact, and it names the two cases that break readers.
#
# **Middling, 4 of 7.** *"Q4_0 is a half scale and 16 bytes of nibbles, value (q − 8)·d, first half of the block in the low nibbles. Q4_K has a super-block of 256 with eight sub-blocks, each with 6-bit
# scale and min packed into 12 bytes, and two half floats. Both are 4.5 bpw."* A Q4_0 reader can be written. The packing of the 12 bytes and the nibble order of Q4_K are missing; no word on the sign; bits stated, not derived.
#
# **Weak, 1 of 7.** *"Each weight is 4 bits, two per byte, with one scale for the tensor; Q4_K uses more bits for important weights."* No layout. The scale is per block, and Q4_K gives every weight exactly 4 bits.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (format mechanics):

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-numerics", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Numerical reasoning (7 points)
#
# Explain your table of exercise (f). In 250 words or fewer: predict the four errors on N(0, 1) from the step sizes and compare; say what the prediction leaves out; on which data does the order of
# Q4_0, absmax/7 and min-max turn round; and when is the smaller weight error the wrong goal?
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | "More bits, less error" | Error follows the step; no numbers | Step / √12 with numbers for each scheme; one counterexample | Also accounts for the rest (exact extremes, clipping), and separates weight error from output error |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** error ≈ rms(step)/√12. The mean largest of 32 normal magnitudes is about 2.35, the mean range about 4.14. With the root mean square of the steps the rule gives 0.543 % (Q8_0), 8.07 % (min-max),
# 8.63 % (Q4_0), 9.86 % (absmax/7), against 0.535, 7.82, 8.60, 9.70 measured (2¹⁵ blocks, seed 0; any simulation does).
# What is left out: elements that are met exactly. Of 32, one in the symmetric schemes: √(31/32) = 0.984; two with min-max: √(30/32) = 0.968. That closes the gap: 0.535, 7.81, 9.70. Q4_0 gets 8.49 by it, and the elements near −m that are
# clipped from 8 to 7 steps (about 0.5 % of elements, about 3 % of the squared error) bring it back to 8.60. 16 levels instead of 15: a factor 7/8 in the step.
# Turns round: values on both extremes (clipped by Q4_0, exact with sevenths); one-sided or offset weights (min-max gains most); tiny noise on a large mean (float16 of the minimum). Wrong goal: what counts is the output
# error Σ over inputs, weighted by activations; an importance-weighted search can raise the plain error while it lowers the weighted one.
#
# **Strong, 7 of 7.** *"Uniform error in a step gives d/√12. For 32 normals E max|x| ≈ 2.35, E range ≈ 4.14, so roughly 9.7–9.9 % for max/7, 8.5–8.6 for max/8, 8.0 for range/15, 0.54 for max/127: ratio 8/7 between the two
# symmetric rules, as measured (9.70/8.60 = 1.13). I measured a little less than predicted because the extremes themselves are represented exactly: one element in 32, two for min-max. Q4_0 gives some back: an element within half a step of −m is clipped.
# With ±1 in each block on a grid of sevenths absmax/7 is exact and Q4_0 is not; with weights around 1 min-max wins by far. And none of it is the model's loss: error on input columns that are hardly used costs the output little,
# which is why imatrix-weighted scales may raise this error while they lower the weighted one."* Numbers, the residual, counterexamples, and the limits of the metric.
#
# **Middling, 4 of 7.** *"Step over √12. absmax/7 has 15 levels over the range, Q4_0 16, so its step is 7/8 and the error 12 % lower; min-max uses the actual range, which on a Gaussian is less than twice the maximum; 8 bits divide by 127 instead of 7. For
# weights that are all positive min-max would be much better."* Right mechanism and ratios, one counterexample. No absolute prediction, no residual, nothing on output error.
#
# **Weak, 1 of 7.** *"Q8_0 is best because it has the most bits. Min-max is better than symmetric because asymmetric quantization is always more accurate."* No mechanism; "always" is false, and its 5.0 bits go unmentioned.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (numerical reasoning):

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-kernels", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Vectorisation and kernels (7 points)
#
# Your product of (e) is correct and small. In 250 words or fewer: how do you make it fast on a CPU with 8-bit dot instructions? Say what bounds it for one token and for a long prompt, why the nibbles lie
# as they do, what is quantized when, how wide the accumulators are, what happens in tails, and how you would know that you are done.
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | "Use SIMD and threads" | Array code over blocks; no bound named | Bandwidth bound for one token, integer dot, widths right | Also operand signedness, repacking or prompts, and a measured roofline as the end |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** one token: every weight byte is read once, so time ≥ packed bytes / memory bandwidth; a decode to float32 in memory multiplies the traffic (4 bytes written and read against 0.56). Prompt: the same unpacked tile serves many columns, compute bound.
# One load of 16 bytes, `& 15` and `>> 4` give elements 0–15 and 16–31 as two contiguous registers: no shuffle, and they meet contiguous activations. Activations are quantized once per vector, not per row.
# x86 instructions multiply unsigned by signed: leave the codes 0–15 as the unsigned operand, subtract 8 · Σq_x per block (which a Q8_1 block carries). Widths: two products of at most 15 · 127 fit int16 without saturation (with full u8 · s8 they need not); a whole block is at most
# 32 · 8 · 127 = 32 512, which just fits int16 (unsigned codes: 60 960, which does not); float once per block. Tails: rows are whole blocks by contract; odd numbers of rows and blocks per vector step need care. Done: share of measured bandwidth (STREAM on the same machine), equal to the reference within the stated bound.
#
# **Strong, 6 of 7.** *"For one token it is a stream: 18 bytes per 32 weights, so the floor is packed bytes over measured bandwidth, and anything that writes decoded weights to memory loses. Keep everything in registers: load 16 bytes, mask and shift; because the
# halves are split I get elements 0–15 and 16–31 in order and need no shuffle. x is Q8_0, made once. vpdpbusd wants unsigned × signed, so nibbles go first as 0..15, and −8·Σx comes from a per-block sum of x. int32 accumulators per block, times d_w·d_x, float
# accumulate; two or four row accumulators to hide latency; rows over threads. For prompts it becomes compute bound and I would unpack a tile once for many columns, or repack rows interleaved. Done when I reach most of STREAM bandwidth and match the reference within n_blocks·2⁻²⁴·Σ|t|."* All but the tails.
#
# **Middling, 4 of 7.** *"Memory bandwidth bounds it, so keep the weights packed and unpack in registers. Quantize x to int8 once, multiply with 8-bit dot instructions into int32, then scale per block. Split the rows among threads."* The right shape. Nothing on layout, operand signs, prompts or an end by measurement.
#
# **Weak, 1 of 7.** *"Decode the matrix to float16 once and call BLAS, which is optimised; the decode is negligible."* It gives up the reason for 4 bits in the bandwidth-bound case.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (vectorisation and kernels):

# %% [markdown]
# ## Follow-up questions
#
# Try each aloud before you unfold what a strong answer touches.
#
# **1. Why does llama.cpp quantize the activations for the product, and did that not cost accuracy?**
#
# <details><summary>A strong answer touches</summary>
#
# Integer dots need integers on both sides, and on a CPU they are what is fast. Q8_0's own error is small against the weights' (0.535 % to 8.60 % on N(0, 1)). With coarser activations it was not: switching BLAS on, and with it float
# activations, moved perplexity more than better weights did (llama.cpp pull request 896); since 951 the intermediate is Q8_0. K-quants use Q8_K, CUDA Q8_1; Metal decodes in registers and multiplies floats.
#
# </details>
#
# **2. The x86 instruction VPDPBUSD multiplies u8 by s8. Your weights are signed. What now?**
#
# <details><summary>A strong answer touches</summary>
#
# The first operand is unsigned: signed weights there give garbage. Either move the sign (|w| with the sign put on the activations), or add an offset (w + 128, or the raw nibble 0–15) and subtract offset · Σ activations per block. Why −8 · Σx is cheap:
# one number per block of x for all rows.
#
# </details>
#
# **3. Q4_K and Q4_0 both take 4.5 bits. Which is better, and is it always?**
#
# <details><summary>A strong answer touches</summary>
#
# On N(0, 1), ggml's quantizers reach 7.13 % with Q4_K and 8.60 % with Q4_0: an offset per 32 weights, and a search for scale and minimum instead of the block's extreme. Not always: a small block's 6-bit scale is relative to its
# super-block's largest, so blocks of very different size hurt. And it needs rows that divide by 256.
#
# </details>
#
# **4. A model has rows of 576. What happens to Q4_K, and to your functions?**
#
# <details><summary>A strong answer touches</summary>
#
# 576 = 2 · 256 + 64 has no whole number of super-blocks: llama.cpp falls back by tensor type (Q4_K to Q5_0, Q6_K to Q8_0), and says so while quantizing. 576 = 18 · 32 suits Q4_0. Blocks never cross rows: padding the flattened tensor would pass a test
# on shapes and break the kernel's row pointers.
#
# </details>
#
# **5. Two machines write different bytes from the same weights. Is one of them wrong?**
#
# <details><summary>A strong answer touches</summary>
#
# Perhaps neither: a compiler that contracts a · b + c to one rounding (FMA, common on ARM64) changes codes near a tie. Q4_0 and Q8_0 without importance weights do not change by it; K-quants do (llama.cpp pull request 10008). So ask for equal bytes where the format
# allows it, compare decoded error elsewhere, and pin the build that made the golden files.
#
# </details>
#
# **6. You want to change the nibble order for a new kernel. How do you ship it?**
#
# <details><summary>A strong answer touches</summary>
#
# The order is part of the file format: sizes and names stay, so a reader of the other order loads the file and produces gibberish without an error. llama.cpp changed its bit order once (pull request 1405), and its users asked for a version mark
# for just this reason (ggml issue 150). So: a new version or a new type name, and old readers that refuse it. Or leave the file alone and repack at load time, per instruction set, as llama.cpp does for several CPUs (pull request 9921).
#
# </details>

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-communication", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Communication: the talk (7 points)
#
# Answer the question at the top in 15 minutes, to an interviewer who may ask any of the follow-ups. Speak, draw, show your code. Then write below what you said, in ten lines or fewer.
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | Reads code aloud; loses the thread | Understandable; answers what was asked and no more | Layout, arithmetic, kernel, evidence in order; states assumptions | Teaches: a picture first, numbers predicted before shown, limits and open points named unasked |
#
# === BEGIN MARK SCHEME ===
#
# **The model answer, in five parts of three minutes.**
#
# 1. *What a block is.* Draw 18 bytes. One float16 scale, 16 bytes of nibbles, i with i + 16. 144 bits / 32 = 4.5. "A format is a layout **and** a rounding rule: two encoders with the same layout can write different bytes."
# 2. *How it is filled.* Q8_0: max|x| / 127, halves away from zero, float32 scale for the codes, float16 for the store. Q4_0: signed largest / −8, trunc(v + 8.5), at most 15; the sign aims the longer side of the grid. Edge cases before the general one: zero block, constant block, both signs of the extreme, the clamp.
#    3-bit codes: a stream of bits, little-endian; the tail has its own range; codes against the *stored* scale, and why this format could choose so and Q4_0 did not.
# 3. *How it is read.* Q4_K's 12 bytes as three rows of four; 64-wide nibbles; the minimum is subtracted. Checked against an independent decoder on random bytes, not against one's own encoder.
# 4. *How it is multiplied.* Weights stay packed; activations become Q8_0 once; integer dot per block, one float multiplication; tiles bound the memory (one byte per weight would already be twice the packed size). One token: bandwidth bound. Error bound: n_blocks · 2⁻²⁴ · Σ|t|, and why block dots are exact.
# 5. *How good it is.* Predict: step/√12 with the mean largest of 32 normals, 2.35. Show: 0.535, 7.82, 8.60, 9.70 %. Explain the rest by exact extremes and clipping. Say what the number does not show: activations' weighting, the model's loss; and that SmolLM2's file cannot rank formats, since it lies on Q4_1's grid.
#
# Score the talk itself where you heard it; the samples are what candidates wrote of theirs.
#
# **Strong, 7 of 7.** *"I drew 18 bytes and packed one block by hand, both signs, before any code: a format is a layout plus a rounding rule. Then the cases that break encoders (zero block, tie of the extremes,
# 16 before the clamp), then code. I read Q4_K from the drawing of its 12 bytes and checked it on random bytes against another decoder. For the product I gave the bound first (packed bytes over bandwidth; error n_blocks · 2⁻²⁴ · Σ|t|), then showed
# peak memory. I predicted 8.6 % and 9.8 % for the symmetric rules, showed 8.60 and 9.70, and explained the gap. Open: I measured weight error only; SmolLM2's file lies on Q4_1's grid, so I would not rank formats with it. Asked for Q4_K's
# encoder I said that I had not written one, and what it has to search."* A picture first, predictions before figures, limits unasked.
#
# **Middling, 4 of 7.** *"I went through (a) to (f) and explained each function. I showed the nibble order when asked and repaired my description of the zero block. My table has 0.535, 7.82, 8.60 and 9.70 %; the asymmetric one is best of the 4-bit ones because it uses the
# range. The product goes by tiles so that memory stays small."* Right, in order, complete on request; the picture, the prediction and the limits had to be asked for.
#
# **Weak, 1 of 7.** *"I explained my code for Q8_0 and Q4_0 line by line; all tests pass. There was no time for the product. It is SIMD-friendly."* No layout, no numbers, the evidence is the grader's.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (the talk, in ten lines or fewer):
