# ---
# jupyter:
#   course:
#     number: 2
#     title: K-quants deep dive
#     category: Conceptual
#     difficulty: Senior
#     levels: [senior]
#     companies: [Meta AI, Anthropic, Together AI]
#     minutes: {talk: 20, code: 50}
#     prerequisites:
#       - "Question 1: scale, offset, rounding error, bits per weight"
#       - bit operations on torch or numpy arrays, weighted least squares
#     pass:
#       senior: {rubric: 12, autograded: 80}
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
# # Question 2: K-quants deep dive
#
# | | |
# |:--|:--|
# | **Category** | Conceptual |
# | **Difficulty** | Senior; marked for the level senior |
# | **Companies** | Meta AI, Anthropic, Together AI |
# | **Time** | 50 minutes of code, then a talk of 20 minutes |
# | **You should know** | scale, offset and rounding error (question 1); bit operations; weighted least squares |
# | **Code points** | 30, in six exercises |
# | **Rubric points** | 24, in three categories of 8 |
# | **Senior passes with** | 12 rubric points and 80 % of the code points |

# %% [markdown]
# ## The question
#
# > "Half the GGUF files that people download are called Q4_K_M. What is in them? Start at the bits of one block and say how it
# > differs from Q4_0, which costs just as many bits. Then tell me what the S, the M and the L stand for, tensor by tensor,
# > how large a 7B model gets, and which of them you would ship in which situation. And what does the importance matrix
# > change that everybody computes nowadays?"

# %% [markdown]
# ## What is looked for
#
# **Competencies.** The layout of a super-block and where its 4.5 bits go; the encoder's problem as a weighted least-squares
# search; the difference between a tensor type and a mix of types; exact sizes from shapes; a choice by constraints and measurements.
#
# | Green flags | Red flags |
# |:--|:--|
# | Says "Q4_K is a type, Q4_K_M a recipe for a whole file" | "Q4_K_M stores everything in 4 bits" |
# | Counts 12 bytes: 8 scales **and** 8 minima of 6 bits | "One scale per super-block", "important weights get more bits" |
# | Knows what the encoder minimises, and with which weights | "K-quants are better because they are hierarchical" |
# | Derives a file's size from shapes, embeddings included | 7 · 4.5 / 8, and wonders about the rest |
# | Imatrix: mean squared activations, same bits, other rounding | "Gradients decide which weights get more bits" |
# | Names a case in which Q4_0 beats Q4_K | A format is better, full stop |

# %% [markdown]
# ## Background 1: a type is a block
#
# A K-quant groups 256 weights to a **super-block** of 8 or 16 sub-blocks. Each sub-block has its own scale, and in Q2_K, Q4_K and
# Q5_K its own minimum, but these are small integers: one float16 per super-block says how large they are. The bits per weight:
#
# | type | codes | scales of sub-blocks | minima | super-block's float16 | together |
# |:--|--:|--:|--:|--:|--:|
# | Q4_0 (32 weights) | 4 | 16 / 32 | | | 4.5 |
# | Q4_1 (32 weights) | 4 | 16 / 32 | 16 / 32 | | 5.0 |
# | Q4_K | 4 | 8 · 6 / 256 | 8 · 6 / 256 | 2 · 16 / 256 | 4.5 |
# | Q5_K | 5 | 8 · 6 / 256 | 8 · 6 / 256 | 2 · 16 / 256 | 5.5 |
# | Q6_K | 6 | 16 · 8 / 256 | | 16 / 256 | 6.5625 |
#
# So Q4_K buys what Q4_1 has, an offset per 32 weights, at the price of Q4_0. The cell draws what a weight pays beside its code, and
# measures the error 100 · rms(x − x̂) / rms(x) that ggml's own encoders reach on weights from N(0, 1).

# %% tags=["experiment"]
import matplotlib.pyplot as plt
import torch

import quant_kernels as qk

weights = torch.randn(64, 4096, generator=torch.Generator().manual_seed(0))
pays = {  # scales, minima, float16 numbers of the super-block
    "Q4_0": (16 / 32, 0, 0),
    "Q4_1": (16 / 32, 16 / 32, 0),
    "Q4_K": (48 / 256, 48 / 256, 32 / 256),
    "Q5_K": (48 / 256, 48 / 256, 32 / 256),
    "Q6_K": (128 / 256, 0, 16 / 256),
}
parts = {"scales": "#8ab4f8", "minima": "#f6b26b", "float16 of the super-block": "#d3d6da"}

figure, axes = plt.subplots(figsize=(7.5, 3.1))
for row, (qtype, bits) in enumerate(pays.items()):
    start = 0
    for (part, colour), width in zip(parts.items(), bits):
        axes.barh(row, width, left=start, color=colour, label=part if row == 2 else None)
        start += width
    decoded = qk.dequantize(qk.quantize(weights, qtype), qtype)
    error = 100 * ((decoded - weights).norm() / weights.norm()).item()
    total = qk.QTYPES[qtype].bits_per_weight
    axes.text(start + 0.02, row, f"{total} bits in all, error {error:.2f} %", va="center", fontsize=9)
axes.set_yticks(range(len(pays)), pays)
axes.invert_yaxis()
axes.set(xlabel="bits per weight beside the code", title="What a weight pays beside its code", xlim=(0, 1.55))
axes.legend(fontsize=8.5, frameon=False, loc="center right")
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# Q4_0 and Q4_K differ by 1.6 dB at the same 4.5 bits (8.61 and 7.16 %, a factor of 1.2). Q4_K even beats Q4_1, which has the same kind of grid and
# finer scales for half a bit more. The layout alone cannot explain that. The encoder does:

# %% [markdown]
# ## Background 2: the encoder searches
#
# Q4_0 and Q4_1 take scale and offset from the extremes of a block. ggml's K-quants *search* for the pair with the smallest error
# Σ wᵢ (xᵢ − x̂ᵢ)², where the weights wᵢ say how much an error at xᵢ costs. The map shows the error of one sub-block of 32, all
# wᵢ equal, for grids that begin and end elsewhere than at the minimum and the maximum: 100 % is what min-max gets.

# %% tags=["experiment"]
block = torch.randn(32, generator=torch.Generator().manual_seed(154))
low, high = block.amin(), block.amax()
factors = torch.linspace(0.8, 1.1, 181)
lows, highs = torch.meshgrid(low * factors, high * factors, indexing="ij")


def error_of(low, high):
    step = ((high - low) / 15).unsqueeze(-1)
    codes = ((block - low.unsqueeze(-1)) / step).round().clamp(0, 15)
    return (step * codes + low.unsqueeze(-1) - block).square().sum(-1)


percent = 100 * error_of(lows, highs) / error_of(low, high)  # (181, 181)
row, column = divmod(percent.argmin().item(), 181)
around = -torch.nn.functional.max_pool2d(-percent[None], 3, stride=1)[0]  # the least of each 3 × 3
inner = percent[1:-1, 1:-1]
valleys = ((inner == around) & (inner < 100)).sum().item()

figure, axes = plt.subplots(figsize=(7.5, 4.6))
shades = axes.pcolormesh(factors, factors, percent, cmap="viridis_r", vmax=180, shading="nearest")
figure.colorbar(shades, label="squared error, % of min-max", extend="max")
for x, y, marker, text in (
    (1, 1, "o", "min-max, 100 %"),
    (factors[column], factors[row], "*", f"best, {percent[row, column]:.0f} %"),
):
    axes.plot(x, y, marker, color="white", markeredgecolor="black", markersize=14 if marker == "*" else 7)
    axes.annotate(text, (x, y), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=9, weight="bold")
axes.set(
    xlabel="end of the grid / maximum of the block",
    ylabel="beginning of the grid / minimum of the block",
    title=f"One sub-block: {valleys} valleys deeper than min-max",
)
plt.show()

# %% [markdown]
# Clipping the extremes a little pays for itself in the middle, and the valleys are narrow and many: descending from min-max ends in
# the nearest one, not in a good one. Exercise (d) is about this map. The weights wᵢ are ggml's choice too:
#
# | | error weight of xᵢ in Q4_K |
# |:--|:--|
# | without an importance matrix | rms(sub-block) + abs(xᵢ) |
# | with one | importance of the column · sqrt(2 · mean square of the super-block + xᵢ²) |

# %% [markdown]
# ## Background 3: a mix is a recipe
#
# Q4_K_S and Q4_K_M are not types of blocks. They tell llama-quantize which *tensor* gets which type, by its name and its layer. Every
# weight of a tensor has the same number of bits. A table that you will meet on the web says:
#
# | mix | what it is, by that table |
# |:--|:--|
# | Q4_K_S | all weights in 4 bits, 4.5 bits per weight, the maximum of compression |
# | Q4_K_M | attention's Q and K and the output projection in 6 bits, the feed-forward layers in 4 |
# | Q4_K_L | half of the weights in 6 bits |
#
# No line of it survives exercise (c).
#
# Sources: the structs are in llama.cpp's `ggml/src/ggml-common.h`, the encoders in `ggml/src/ggml-quants.c`, the mixes in
# `src/llama-quant.cpp`, the importance matrix in `tools/imatrix/imatrix.cpp`. K-quants came with llama.cpp pull request 1684, importance
# matrices with 4861.

# %% [markdown]
# ## Exercises
#
# Functions take and return CPU tensors of torch where nothing else is said, and leave their arguments as they are. Inputs are finite
# and may have any strides, results too. Use torch or numpy; `gguf` and `quant_kernels` are not there when your answer is graded. The
# exercises do not build on one another: each is scored alone.

# %%
import numpy as np
import torch

# %% [markdown]
# ### Exercise (a): twelve bytes for sixteen numbers
#
# *6 minutes, 4 points*
#
# A super-block of Q4_K or Q5_K has 8 scales `sc` and 8 minima `m`, each from 0 to 63. Sixteen numbers of 6 bits are 96 bits:
#
# ```
# pack_scales_mins    sc, m: uint8 (..., 8)    →  packed: uint8 (..., 12)
# unpack_scales_mins  packed: uint8 (..., 12)  →  sc, m: uint8 (..., 8)
#
#  bit        7   6   5   4   3   2   1   0
#           ┌───────┬───────────────────────┐
#  byte  j  │  H    │         sc j          │     H: bits 5–4 of sc j+4       j = 0, 1, 2, 3
#           ├───────┼───────────────────────┤
#  byte j+4 │  H'   │         m j           │     H': bits 5–4 of m j+4
#           ├───────┴───────┬───────────────┤
#  byte j+8 │     L'        │      L        │     L: bits 3–0 of sc j+4,   L': bits 3–0 of m j+4
#           └───────────────┴───────────────┘
# ```
#
# Sub-blocks 0–3 are read with one mask. Those from 4 on are put together from a nibble and the two bits that the others left free.
#
# | | |
# |:--|:--|
# | Range | every number is below 64; the functions are inverses of each other |
# | Shapes | any leading dimensions, none too |
# | Tolerance | none |


# %% nbgrader={"grade": false, "grade_id": "scales", "locked": false, "schema_version": 3, "solution": true, "task": false}
def pack_scales_mins(sc, m):
    """Pack scales and minima below 64, uint8 `(..., 8)` each, into uint8 `(..., 12)`."""
    ### BEGIN SOLUTION
    first = torch.cat([sc[..., :4], m[..., :4]], -1)  # (..., 8)
    later = torch.cat([sc[..., 4:], m[..., 4:]], -1)  # (..., 8)
    nibbles = (later[..., :4] & 15) | (later[..., 4:] & 15) << 4  # (..., 4)
    return torch.cat([first | later >> 4 << 6, nibbles], -1)
    ### END SOLUTION


def unpack_scales_mins(packed):
    """Unpack uint8 `(..., 12)` to scales and minima, uint8 `(..., 8)` each."""
    ### BEGIN SOLUTION
    a, b, c = packed.unflatten(-1, (3, 4)).unbind(-2)  # (..., 4)
    sc = torch.cat([a & 63, c & 15 | a >> 6 << 4], -1)
    m = torch.cat([b & 63, c >> 4 | b >> 6 << 4], -1)
    return sc, m
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Think of the 12 bytes as three rows of four: scales, minima, leftovers. Column j of all three holds sub-blocks j and j + 4.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Reading: mask rows 0 and 1 with 63 for the sub-blocks 0–3; for the others join a nibble of row 2 with the top two bits of row 0 (scale) or row 1
# (minimum), moved from bits 7–6 to bits 5–4. Writing is the same with the shifts turned round; in uint8 nothing overflows as long
# as you keep two bits when you shift by 6.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# row0 = sc[..., :4] + 64 * (sc[..., 4:] // 16)
# row1 = the same of m
# row2 = sc[..., 4:] % 16 + 16 * (m[..., 4:] % 16)
# # back: sc = join(row0 % 64, row2 % 16 + 16 * (row0 // 64))
# #       m = join(row1 % 64, row2 // 16 + 16 * (row1 // 64))
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-scales", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import Points, check_equal


def from_hex(text):
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)


points = Points()
sc = torch.tensor([1, 2, 3, 4, 53, 38, 23, 8], dtype=torch.uint8)
m = torch.tensor([5, 6, 7, 8, 9, 26, 43, 60], dtype=torch.uint8)
packed = from_hex("c1824304 054687c8 95a6b7c8")
with points.part(2, "pack_scales_mins"):
    mistakes = {
        "the sixteen numbers are one stream of 6 bits each": from_hex("813010b5 79218571 2089b6f2"),
        "the bits of sub-blocks 4–7 are divided as 2 low and 4 high ones": from_hex("4182c304 4586c708 2d69a5f2"),
        "the top bits of sub-blocks 4–7 are lost": from_hex("01020304 05060708 95a6b7c8"),
        "the top bits of scales and minima have changed places": from_hex("014283c4 c5864708 95a6b7c8"),
        "scales are in the high nibbles of bytes 8–11; they belong in the low ones": from_hex(
            "c1824304 054687c8 596a7b8c"
        ),
    }
    check_equal(pack_scales_mins(sc, m), packed, "pack_scales_mins", mistakes, block=12)
    ### BEGIN HIDDEN TESTS
    from quant_kernels.formats.k_bits import pack_scales_and_mins

    generator = torch.Generator().manual_seed(202)
    numbers = torch.randint(0, 64, (2, 3, 5, 8), generator=generator, dtype=torch.uint8)
    turned = torch.randint(0, 64, (2, 8, 6), generator=generator, dtype=torch.uint8).mT
    extremes = torch.tensor([[0] * 8, [63] * 8, [15] * 8, [16] * 8], dtype=torch.uint8)
    cases = {
        "random numbers": (numbers[0], numbers[1]),
        "strided arguments": (turned[0], turned[1]),
        "0, 63, 15 and 16": (extremes, extremes.flip(0)),
        "scales alone": (numbers[0, 0], torch.zeros(5, 8, dtype=torch.uint8)),
    }
    for name, (scales, minima) in cases.items():
        a, b, later, last = scales[..., :4], minima[..., :4], scales[..., 4:], minima[..., 4:]
        nibbles = (later & 15) | (last & 15) << 4
        mistakes = {
            "the top bits of sub-blocks 4–7 are lost": torch.cat([a, b, nibbles], -1),
            "the top bits of scales and minima have changed places": torch.cat(
                [a | last >> 4 << 6, b | later >> 4 << 6, nibbles], -1
            ),
            "scales are in the high nibbles of bytes 8–11; they belong in the low ones": torch.cat(
                [a | later >> 4 << 6, b | last >> 4 << 6, (last & 15) | (later & 15) << 4], -1
            ),
            "the bits of sub-blocks 4–7 are divided as 2 low and 4 high ones": torch.cat(
                [a | (later & 3) << 6, b | (last & 3) << 6, later >> 2 | last >> 2 << 4], -1
            ),
        }
        expected = pack_scales_and_mins(scales.reshape(-1, 8), minima.reshape(-1, 8))
        expected = expected.reshape(*scales.shape[:-1], 12)
        check_equal(pack_scales_mins(scales, minima), expected, f"pack_scales_mins, {name}", mistakes, block=12)
    ### END HIDDEN TESTS
with points.part(2, "unpack_scales_mins"):
    got = unpack_scales_mins(packed)
    mistakes = {
        "the top bits of sub-blocks 4–7 are lost": sc & 15,
        "bits 7 and 6 of bytes 0–7 are not masked off": torch.cat([packed[:4], sc[4:]]),
    }
    check_equal(got[0], sc, "unpack_scales_mins, the scales", mistakes)
    check_equal(got[1], m, "unpack_scales_mins, the minima")
    ### BEGIN HIDDEN TESTS
    import gguf

    def bit_stream(data):
        bits = (data.unsqueeze(-1) >> torch.arange(8) & 1).flatten(-2).unflatten(-1, (16, 6))
        return (bits << torch.arange(6)).sum(-1).to(torch.uint8).split(8, -1)

    generator = torch.Generator().manual_seed(204)
    data = torch.randint(0, 256, (3, 5, 12), generator=generator, dtype=torch.uint8)
    strided = torch.randint(0, 256, (12, 7), generator=generator, dtype=torch.uint8).mT
    for name, packed in {"random bytes": data, "one block": data[0, 0], "strided bytes": strided}.items():
        a, b, c = packed.unflatten(-1, (3, 4)).unbind(-2)
        wrong = {
            "the sixteen numbers are one stream of 6 bits each": bit_stream(packed),
            "the top bits of sub-blocks 4–7 are lost": (
                torch.cat([a & 63, c & 15], -1),
                torch.cat([b & 63, c >> 4], -1),
            ),
            "the top bits of scales and minima have changed places": (
                torch.cat([a & 63, c & 15 | b >> 6 << 4], -1),
                torch.cat([b & 63, c >> 4 | a >> 6 << 4], -1),
            ),
            "scales are in the high nibbles of bytes 8–11; they belong in the low ones": (
                torch.cat([a & 63, c >> 4 | a >> 6 << 4], -1),
                torch.cat([b & 63, c & 15 | b >> 6 << 4], -1),
            ),
            "the bits of sub-blocks 4–7 are divided as 2 low and 4 high ones": (
                torch.cat([a & 63, (c & 15) << 2 | a >> 6], -1),
                torch.cat([b & 63, c >> 4 << 2 | b >> 6], -1),
            ),
            "bits 7 and 6 of bytes 0–7 are not masked off": (
                torch.cat([a, c & 15 | a >> 6 << 4], -1),
                torch.cat([b, c >> 4 | b >> 6 << 4], -1),
            ),
        }
        right = gguf.quants.Q4_K.get_scale_min(packed.reshape(-1, 12).numpy())
        got = unpack_scales_mins(packed)
        for i, part in enumerate(("scales", "minima")):
            mistakes = {text: values[i] for text, values in wrong.items()}
            expected = torch.from_numpy(right[i]).reshape(*packed.shape[:-1], 8)
            check_equal(got[i], expected, f"unpack_scales_mins, {name}: {part}", mistakes)
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ### Exercise (b): decode Q6_K, and Q4_K
#
# *9 minutes, 6 points: 4 for Q6_K, 2 for Q4_K*
#
# ```
# q6_k_dequantize  data: uint8 (..., n_blocks · 210)                →  float32 (..., n_blocks · 256)
#
# byte     0                128       192        208    210
#        ┌────────────────┬─────────┬──────────┬──────┐
#        │ ql: low 4 bits │ qh: top │ scales   │  d   │      scales: int8, 16 of them; d: float16
#        └────────────────┴─────────┴──────────┴──────┘
#
# a half of 128 weights has 64 bytes of ql and 32 bytes of qh; in each half, for l = 0 … 31:
#
#        element     l          l + 32       l + 64       l + 96
#        low 4 bits  ql[l]      ql[l + 32]   ql[l]        ql[l + 32]
#                    bits 3–0   bits 3–0     bits 7–4     bits 7–4
#        top 2 bits  qh[l]      qh[l]        qh[l]        qh[l]
#                    bits 1–0   bits 3–2     bits 5–4     bits 7–6
#
# w = d · scale i · (q − 32)         q = low + 16 · top, from 0 to 63;  scale i: elements 16 i … 16 i + 15
# ```
#
# Q6_K has no minima: its levels lie around zero, and its scales have a sign.
#
# ```
# q4_k_dequantize  data: uint8 (..., n_blocks · 144)
#                  sc, m: uint8 (..., n_blocks, 8)                  →  float32 (..., n_blocks · 256)
#
# byte     0      2      4            16                                     144
#        ┌──────┬──────┬────────────┬─────────────────────────────────────────┐
#        │  d   │ dmin │   scales   │  qs: 4 chunks of 32 bytes               │      d, dmin: float16
#        └──────┴──────┴────────────┴─────────────────────────────────────────┘
#
# chunk c, byte l:  low nibble = element l of sub-block 2c,  high nibble = element l of sub-block 2c + 1
#
# w = (d · sc j) · q − (dmin · m j)                              sub-block j: elements 32 j … 32 j + 31
# ```
#
# `sc` and `m` are what exercise (a) reads out of the 12 bytes `scales`; here they are given, so that (a) is not needed.
#
# | | |
# |:--|:--|
# | Arithmetic | float32 |
# | Tolerance | none. Q6_K: 11 bits of d, 7 of a scale and 5 of q − 32 fit float32's 24; Q4_K: 11 + 6 + 4 bits fit, and only the difference rounds |


# %% nbgrader={"grade": false, "grade_id": "decode", "locked": false, "schema_version": 3, "solution": true, "task": false}
def q6_k_dequantize(data):
    """Decode Q6_K super-blocks, uint8 `(..., n_blocks * 210)`, to float32 `(..., n_blocks * 256)`."""
    ### BEGIN SOLUTION
    blocks = data.unflatten(-1, (-1, 210))
    ql, qh, scales, d = blocks.split([128, 64, 16, 2], -1)
    low = ql.unflatten(-1, (2, 1, 64)) >> torch.tensor([[0], [4]]) & 15  # (..., n_blocks, 2, 2, 64)
    top = qh.unflatten(-1, (2, 1, 32)) >> torch.tensor([[0], [2], [4], [6]]) & 3  # (..., n_blocks, 2, 4, 32)
    q = low.flatten(-3) + 16 * top.flatten(-3) - 32  # (..., n_blocks, 256)
    d = d.contiguous().view(torch.float16).float()  # (..., n_blocks, 1)
    step = d * scales.contiguous().view(torch.int8)  # (..., n_blocks, 16)
    return (step.repeat_interleave(16, -1) * q).flatten(-2)
    ### END SOLUTION


def q4_k_dequantize(data, sc, m):
    """Decode Q4_K super-blocks, uint8 `(..., n_blocks * 144)`, to float32 `(..., n_blocks * 256)`.

    `sc` and `m`, uint8 `(..., n_blocks, 8)`, are the blocks' unpacked scales and minima.
    """
    ### BEGIN SOLUTION
    blocks = data.unflatten(-1, (-1, 144))
    d, dmin = blocks[..., :4].contiguous().view(torch.float16).float().split(1, -1)  # (..., n_blocks, 1)
    qs = blocks[..., 16:].unflatten(-1, (4, 32))  # (..., n_blocks, 4, 32)
    q = torch.stack([qs & 15, qs >> 4], -2).flatten(-3, -2)  # (..., n_blocks, 8, 32)
    w = (d * sc).unsqueeze(-1) * q - (dmin * m).unsqueeze(-1)
    return w.flatten(-3)
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# In a half of Q6_K the order of the elements is the order in which you would stack rows: `ql`'s 64 low nibbles, then its 64 high nibbles; and
# `qh`'s pairs of bits, lowest first, 32 at a time. Both give 128.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# `bytes.unflatten(-1, (2, 1, 64)) >> tensor([[0], [4]])` shifts every half by both amounts at once; mask afterwards. The same with four
# shifts for `qh`. Flatten to 256, combine, subtract 32 in a type that can be negative. View the scales as int8.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# lows = (half_of_ql shifted by 0 and 4) masked with 15       # (..., 2, 2, 64)  →  (..., 256)
# tops = (half_of_qh shifted by 0, 2, 4, 6) masked with 3     # (..., 2, 4, 32)  →  (..., 256)
# value = (d * signed_scales)[..., element // 16] * (lows + 16 * tops - 32)
# # Q4_K: nibbles as (..., 4, 2, 32)  →  (..., 8, 32)
# #       times (d * sc)[..., None], minus (dmin * m)[..., None]
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-decode", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
import gguf
import torch

from course.checks import Points, check_equal


def from_hex(text):
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)


points = Points()
with points.part(4, "q6_k_dequantize"):
    # d = 1; scales 1 … 16; the quarters of each half have the codes 1, 2 + 16, 3 + 32 and 4 + 48
    block = from_hex("31" * 32 + "42" * 32 + "31" * 32 + "42" * 32 + "e4" * 64 + bytes(range(1, 17)).hex() + "003c")
    quarters = torch.tensor([1, 18, 35, 52]).repeat_interleave(32).repeat(2)
    scales = torch.arange(1.0, 17).repeat_interleave(16)
    mistakes = {
        "32 is not subtracted from the codes": scales * quarters,
        "the two top bits are left out": scales * (quarters % 16 - 32),
        "the pairs of top bits are read from the highest one down": scales
        * (quarters % 16 + 16 * (3 - quarters // 16) - 32),
        "a scale serves 32 elements; in Q6_K it serves 16": torch.arange(1.0, 9).repeat_interleave(32)
        * (quarters - 32),
        "the two top bits are put below the other four": scales * (quarters % 16 * 4 + quarters // 16 - 32),
        "ql is read in chunks of 32 bytes, as Q4_K's qs; Q6_K's are 64 wide": scales
        * (torch.tensor([1, 19, 34, 52]).repeat_interleave(32).repeat(2) - 32),
        "ql is read as one run of 128 bytes; each half has its own 64": scales
        * (torch.tensor([1, 18, 33, 50, 3, 20, 35, 52]).repeat_interleave(32) - 32),
        "d is read from the first two bytes; it is in the last two": lambda: torch.from_numpy(
            gguf.dequantize(block.roll(-2).numpy(), gguf.GGMLQuantizationType.Q6_K)
        ),
    }
    check_equal(q6_k_dequantize(block), scales * (quarters - 32), "q6_k_dequantize of one block", mistakes)

    ### BEGIN HIDDEN TESTS
    def half_low(ql):  # (..., 128) to (..., 256)
        halves = ql.unflatten(-1, (2, 64))
        return torch.stack([halves & 15, halves >> 4], -2).flatten(-3)

    def half_top(qh):  # (..., 64) to (..., 256)
        halves = qh.unflatten(-1, (2, 32))
        return torch.stack([halves >> shift & 3 for shift in (0, 2, 4, 6)], -2).flatten(-3)

    def variant(data, low=half_low, top=half_top, zero=32, join=None, signed=True, group=16, first=False):
        blocks = data.unflatten(-1, (-1, 210))
        ql, qh, scales, d = blocks.split([128, 64, 16, 2], -1)
        if first:
            d, ql, qh, scales = blocks.split([2, 128, 64, 16], -1)
        join = join or (lambda low, top: low + 16 * top)
        q = join(low(ql).int(), top(qh).int()) - zero
        scales = scales.contiguous().view(torch.int8) if signed else scales
        step = d.contiguous().view(torch.float16).float() * scales
        return (step.repeat_interleave(group, -1)[..., :256] * q).flatten(-2)

    generator = torch.Generator().manual_seed(206)
    blocks = torch.randint(0, 256, (4, 3, 210), generator=generator, dtype=torch.uint8)
    blocks[..., 208:] = (torch.rand(4, 3, 1, generator=generator) * 0.02 - 0.004).half().view(torch.uint8)
    strided = blocks.flatten(-2).mT.contiguous().mT
    for name, data in {"random blocks": blocks.flatten(-2), "one block": blocks[0, 0], "strided": strided}.items():
        variants = {
            "32 is not subtracted from the codes": dict(zero=0),
            "31.5 is subtracted from the codes, not 32": dict(zero=31.5),
            "the two top bits are left out": dict(top=lambda qh: 0 * half_top(qh)),
            "the two top bits are put below the other four": dict(join=lambda low, top: 4 * low + top),
            "the pairs of top bits are read from the highest one down": dict(
                top=lambda qh: torch.stack(
                    [qh.unflatten(-1, (2, 32)) >> shift & 3 for shift in (6, 4, 2, 0)], -2
                ).flatten(-3)
            ),
            "the scales are read as unsigned bytes; they are int8": dict(signed=False),
            "a scale serves 32 elements; in Q6_K it serves 16": dict(group=32),
            "ql is read in chunks of 32 bytes, as Q4_K's qs; Q6_K's are 64 wide": dict(
                low=lambda ql: torch.stack(
                    [ql.unflatten(-1, (4, 32)) & 15, ql.unflatten(-1, (4, 32)) >> 4], -2
                ).flatten(-3)
            ),
            "ql is read as one run of 128 bytes; each half has its own 64": dict(
                low=lambda ql: torch.cat([ql & 15, ql >> 4], -1)
            ),
            "qh is read as one run of 64 bytes; each half has its own 32": dict(
                top=lambda qh: torch.cat([qh >> shift & 3 for shift in (0, 2, 4, 6)], -1)
            ),
            "neighbours 2i and 2i + 1 share a byte of ql": dict(
                low=lambda ql: torch.stack([ql & 15, ql >> 4], -1).flatten(-2)
            ),
            "four neighbours share a byte of qh": dict(
                top=lambda qh: torch.stack([qh >> shift & 3 for shift in (0, 2, 4, 6)], -1).flatten(-2)
            ),
            "the high and the low nibbles of ql are swapped": dict(low=lambda ql: half_low(ql >> 4 | ql << 4)),
            "d is read from the first two bytes; it is in the last two": dict(first=True),
        }
        mistakes = {text: lambda change=change: variant(data, **change) for text, change in variants.items()}
        expected = torch.from_numpy(gguf.dequantize(data.numpy(), gguf.GGMLQuantizationType.Q6_K))
        check_equal(q6_k_dequantize(data), expected, f"q6_k_dequantize, {name}", mistakes)
    ### END HIDDEN TESTS
with points.part(2, "q4_k_dequantize"):
    # d = 1, dmin = 0.5, every low nibble 1, every high nibble 2
    block = from_hex("003c 0038" + "00" * 12 + "21" * 128)
    sc, m = torch.arange(1, 9, dtype=torch.uint8), torch.arange(0, 16, 2, dtype=torch.uint8)
    q, low, minima = torch.tensor([[1], [2]]).repeat(4, 32), sc.unsqueeze(1), 0.5 * m.unsqueeze(1)
    mistakes = {
        "the minima are added; they are subtracted": (low * q + minima).flatten(),
        "high nibbles come before low nibbles": (low * (3 - q) - minima).flatten(),
        "d and dmin are swapped": (0.5 * low * q - 2 * minima).flatten(),
        "nibbles are ordered 32 elements at a time, as in Q4_0; Q4_K's order is 64 wide": (
            low * torch.tensor([1, 2]).repeat_interleave(16) - minima
        ).flatten(),
    }
    check_equal(q4_k_dequantize(block, sc[None], m[None]), (low * q - minima).flatten(), "q4_k_dequantize", mistakes)
    ### BEGIN HIDDEN TESTS
    from quant_kernels.formats.k_bits import unpack_scales_and_mins

    def wide64(qs):
        return torch.stack([qs & 15, qs >> 4], -2).flatten(-3)

    def wide32(qs):
        halves = qs.flatten(-2).unflatten(-1, (8, 16))
        return torch.cat([halves & 15, halves >> 4], -1).flatten(-2)

    def q4_variant(data, sc, m, nibbles=wide64, sign=-1, swap=False):
        blocks = data.unflatten(-1, (-1, 144))
        d, dmin = blocks[..., :4].contiguous().view(torch.float16).float().split(1, -1)
        d, dmin = (dmin, d) if swap else (d, dmin)
        q = nibbles(blocks[..., 16:].unflatten(-1, (4, 32))).unflatten(-1, (8, 32))
        return ((d * sc).unsqueeze(-1) * q + sign * (dmin * m).unsqueeze(-1)).flatten(-3)

    generator = torch.Generator().manual_seed(208)
    blocks = torch.randint(0, 256, (4, 3, 144), generator=generator, dtype=torch.uint8)
    blocks[..., :4] = (torch.rand(4, 3, 2, generator=generator) * 0.01 - 0.002).half().view(torch.uint8)
    sc, m = (part.reshape(4, 3, 8) for part in unpack_scales_and_mins(blocks[..., 4:16].reshape(-1, 12)))
    for name, data, scales, minima in (
        ("random blocks", blocks.flatten(-2), sc, m),
        ("one block", blocks[0, 0], sc[0, :1], m[0, :1]),
    ):
        variants = {
            "the minima are added; they are subtracted": dict(sign=1),
            "d and dmin are swapped": dict(swap=True),
            "nibbles are ordered 32 elements at a time, as in Q4_0; Q4_K's order is 64 wide": dict(nibbles=wide32),
            "high nibbles come before low nibbles": dict(
                nibbles=lambda qs: torch.stack([qs >> 4, qs & 15], -2).flatten(-3)
            ),
            "neighbours 2i and 2i + 1 share a byte": dict(
                nibbles=lambda qs: torch.stack([qs & 15, qs >> 4], -1).flatten(-3)
            ),
            "qs is read as one run of 128 bytes; each 64 weights have their own 32": dict(
                nibbles=lambda qs: torch.cat([qs.flatten(-2) & 15, qs.flatten(-2) >> 4], -1)
            ),
        }
        mistakes = {
            text: lambda change=change: q4_variant(data, scales, minima, **change) for text, change in variants.items()
        }
        expected = torch.from_numpy(gguf.dequantize(data.numpy(), gguf.GGMLQuantizationType.Q4_K))
        check_equal(q4_k_dequantize(data, scales, minima), expected, f"q4_k_dequantize, {name}", mistakes)
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ### Exercise (c): audit the table of mixes
#
# *11 minutes, 8 points: 1 for the layers, 4 for the types, 3 for the size*
#
# The rules of llama-quantize for a dense Llama, written down from `src/llama-quant.cpp`:
#
# | tensor | Q4_K_S | Q4_K_M |
# |:--|:--|:--|
# | `blk.i.attn_v.weight` | Q5_K in the first 4 layers | Q6_K where `use_more_bits(i, n_layer)` |
# | `blk.i.ffn_down.weight` | Q5_K in the first ⌊n_layer / 8⌋ layers | Q6_K where `use_more_bits(i, n_layer)` |
# | `output.weight` | Q6_K | Q6_K |
# | every other matrix, and these in other layers | Q4_K | Q4_K |
# | tensors of one dimension (norms, RoPE factors) | F32 | F32 |
#
# **More bits** get the layers i < ⌊n/8⌋, those with i ≥ ⌊7n/8⌋, and between them those with (i − ⌊n/8⌋) mod 3 = 2. In a model of 32 layers:
#
# ```
# layer   0       8       16      24     31
#         6666..6..6..6..6..6..6..6..66666       6: Q6_K,  .: Q4_K
# ```
#
# **Tied embeddings.** Where there is no `output.weight`, `token_embd.weight` multiplies the output too, and is treated as `output.weight`.
#
# **Fallback.** A row must consist of whole blocks. Where the *columns* (the last dimension) are no multiple of 256, Q4_K becomes Q5_0, Q5_K
# becomes Q5_1, and Q6_K becomes Q8_0, all in blocks of 32; where they are no multiple of 32 either, the tensor becomes F16.
#
# ```
# use_more_bits  layer, n_layer: int                           →  bool
# tensor_types   shapes: dict of GGUF names to (rows, columns) or (n,)
#                mix: "Q4_K_S" or "Q4_K_M"                     →  dict of the same names to types
# file_size      shapes; types as tensor_types returns them    →  (n_bytes: int, bits_per_weight: float)
# ```
#
# | | |
# |:--|:--|
# | Layers | i is the number in the name; n_layer is the number of layers in `shapes`; the dict may have any order |
# | Error | `ValueError` for any other mix |
# | Size | of all tensors' data, norms included; the file's header and padding are not counted |
# | Bits per weight | 8 · n_bytes / number of weights, over all tensors too |
# | Left out | models of 80 layers with grouped queries, and of 8 experts: llama.cpp has rules of its own for them |
# | Tolerance | types and bytes exact, bits per weight to 10⁻⁶ |

# %%
BLOCKS = {  # type: weights and bytes of a block
    "F32": (1, 4),
    "F16": (1, 2),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}


# %% nbgrader={"grade": false, "grade_id": "mix", "locked": false, "schema_version": 3, "solution": true, "task": false}
def use_more_bits(layer, n_layer):
    """Tell whether a layer is among those to which Q4_K_M gives more bits."""
    ### BEGIN SOLUTION
    eighth = n_layer // 8
    return layer < eighth or layer >= 7 * n_layer // 8 or (layer - eighth) % 3 == 2
    ### END SOLUTION


def tensor_types(shapes, mix):
    """Return the type of every tensor, by name, in the mix "Q4_K_S" or "Q4_K_M".

    ValueError for another mix.
    """
    ### BEGIN SOLUTION
    if mix not in ("Q4_K_S", "Q4_K_M"):
        raise ValueError(f"unknown mix {mix!r}; known are Q4_K_S and Q4_K_M")
    layers = {name: int(name.split(".")[1]) for name in shapes if name.startswith("blk.")}
    n_layer = len(set(layers.values()))
    head = "output.weight" if "output.weight" in shapes else "token_embd.weight"

    def wanted(name):
        kind, layer = name.removesuffix(".weight").split(".")[-1], layers.get(name)
        if name == head:
            return "Q6_K"
        if kind not in ("attn_v", "ffn_down"):
            return "Q4_K"
        if mix == "Q4_K_M":
            return "Q6_K" if use_more_bits(layer, n_layer) else "Q4_K"
        return "Q5_K" if layer < (4 if kind == "attn_v" else n_layer // 8) else "Q4_K"

    def fitting(qtype, columns):
        if columns % 256:
            qtype = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}[qtype]
        return "F16" if columns % 32 else qtype

    return {name: "F32" if len(shape) == 1 else fitting(wanted(name), shape[-1]) for name, shape in shapes.items()}
    ### END SOLUTION


def file_size(shapes, types):
    """Return the bytes of all tensors' data, and the bits per weight."""
    ### BEGIN SOLUTION
    weights = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    n_bytes = sum(count // BLOCKS[types[name]][0] * BLOCKS[types[name]][1] for name, count in weights.items())
    return n_bytes, 8 * n_bytes / sum(weights.values())
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Two questions per matrix, one after the other: which type do the rules want, and does it fit the columns? The fallback is not a rule of
# the mix, and the mix knows nothing of columns.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Take the kind (`attn_v`) and the layer out of the name, and do not trust the order of the dict. `output.weight` in shapes or not decides
# which tensor is the output. All divisions of the layer rule are whole: 7 * n // 8 is not 7 * (n // 8).
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# for name, shape in shapes.items():
#     if one dimension: "F32"
#     elif this is the output (or the tied embedding): want "Q6_K"
#     elif kind is attn_v or ffn_down and this layer is a better one: want "Q6_K" (M) or "Q5_K" (S)
#     else: want "Q4_K"
#     columns % 256 == 0 → as wanted;  columns % 32 == 0 → fallback[wanted];  else "F16"
# size: sum over tensors of weights // block_weights * block_bytes
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-mix", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
from course.checks import Points, check_close, check_equal, check_raises
from quant_kernels.models.shapes import ARCHITECTURES, llama_shapes


def check_layers(got, expected, what, mistakes):
    for text, layers in mistakes.items():
        assert got == expected or got != layers, f"{what}: what you get when {text}; got {got}, expected {expected}."
    assert got == expected, f"{what}: got {got}, expected {expected}."


def check_types(got, expected, what, mistakes):
    assert isinstance(got, dict), f"{what}: got a {type(got).__name__}, expected a dict"
    odd = sorted(map(str, set(got) ^ set(expected)))
    assert not odd, f"{what}: the names differ from those of shapes: {', '.join(odd[:4])}"
    wrong = [name for name in expected if got[name] != expected[name]]
    if wrong:
        guesses = {text: make() for text, make in mistakes.items()}
        ideas = [text for text, types in guesses.items() if all(got[name] == types[name] for name in wrong)]
        idea = min(ideas, default="", key=lambda text: sum(guesses[text][n] != expected[n] for n in expected))
        raise AssertionError(
            f"{what}: {f'what you get when {idea}; ' if idea else ''}{len(wrong)} of {len(expected)} tensors differ, "
            f"first {wrong[0]}: got {got[wrong[0]]}, expected {expected[wrong[0]]}."
        )


points = Points()
llama = llama_shapes(ARCHITECTURES["Llama-2-7B"])
### BEGIN HIDDEN TESTS
from dataclasses import replace

import quant_kernels as qk
from quant_kernels.models import mixes

FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def plan(shapes, mix):
    return qk.plan_mix(shapes, mix, n_head=32, n_head_kv=8)


def variant(shapes, mix, six=(), pure=False, head=True, tie=True, rows=False, fall=FALLBACK, v_eighth=False):
    types, n_layer = {}, 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blk."))
    for name, shape in shapes.items():
        kind = name.removesuffix(".weight").split(".")[-1]
        layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
        tied = tie and "output.weight" not in shapes
        first = 4 if kind == "attn_v" and not v_eighth else n_layer // 8
        more = mixes.use_more_bits(layer, n_layer) if mix == "Q4_K_M" else layer < first
        wanted = "Q4_K"
        if kind in ("attn_v", "ffn_down") and more and not pure:
            wanted = "Q6_K" if mix == "Q4_K_M" else "Q5_K"
        if head and kind in ("output", "token_embd" if tied else "output"):
            wanted = "Q6_K"
        if kind in six:
            wanted = "Q6_K"
        columns = shape[0] if rows else shape[-1]
        fits = "F16" if columns % 32 else wanted if columns % 256 == 0 else fall.get(wanted, wanted)
        types[name] = "F32" if len(shape) == 1 else fits
    return types


by_name = {
    "attention's Q and K get 6 bits": dict(six=("attn_q", "attn_k")),
    "attention's Q, K and output projection get 6 bits": dict(six=("attn_q", "attn_k", "attn_output")),
    "attention's output projection gets 6 bits": dict(six=("attn_output",)),
    "embeddings get 6 bits although there is an output matrix": dict(six=("token_embd",)),
    "every matrix is Q4_K, and the mix does nothing": dict(pure=True, head=False),
    "attn_v and ffn_down get no more bits than the others": dict(pure=True),
    "tied embeddings are treated as embeddings; they are the output matrix too": dict(tie=False),
    "the output matrix stays Q4_K": dict(head=False),
    "the rows decide about the fallback; it is the columns": dict(rows=True),
    "there is no fallback for columns that are no multiple of 256": dict(fall={}),
    "what does not fit becomes F16": dict(fall=dict.fromkeys(FALLBACK, "F16")),
    "what does not fit becomes Q8_0": dict(fall=dict.fromkeys(FALLBACK, "Q8_0")),
    "what does not fit becomes Q4_0": dict(fall=dict.fromkeys(FALLBACK, "Q4_0")),
    "Q4_K_S gives attn_v more bits in the first eighth; it is the first 4 layers": dict(v_eighth=True),
}
small = replace(ARCHITECTURES["Llama-3.2-1B"], n_layer=16, n_embd=512, n_ff=1024, vocab=1000)
odd = replace(small, n_embd=336, n_ff=1100, n_layer=9, tied=False, n_head=4, n_head_kv=2, rope_freqs=False)
cases = {
    "Llama-2-7B": llama,
    "Llama-3.1-8B": llama_shapes(ARCHITECTURES["Llama-3.1-8B"]),
    "16 layers, tied embeddings": llama_shapes(small),
    "SmolLM2-135M, rows of 576": llama_shapes(ARCHITECTURES["SmolLM2-135M"]),
    "SmolLM2-360M, tensors in reverse order": dict(reversed(llama_shapes(ARCHITECTURES["SmolLM2-360M"]).items())),
    "rows of 336 and 1100, not tied": llama_shapes(odd),
    "40 layers": llama_shapes(ARCHITECTURES["Llama-2-13B"]),
}
### END HIDDEN TESTS
with points.part(1, "use_more_bits"):
    layers = [layer for layer in range(32) if use_more_bits(layer, 32)]
    mistakes = {
        "every third layer counts from layer 0": [*range(4), *range(5, 28, 3), *range(28, 32)],
        "the outer eighths are left out": list(range(6, 28, 3)),
    }
    check_layers(layers, [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31], "more bits of 32", mistakes)

    ### BEGIN HIDDEN TESTS
    def chosen(rule, n):
        return [layer for layer in range(n) if rule(layer, n)]

    rules = {
        "the last eighth begins at 7 · ⌊n/8⌋; it is ⌊7n/8⌋": lambda i, n: (
            i < n // 8 or i >= 7 * (n // 8) or (i - n // 8) % 3 == 2
        ),
        "the last eighth begins at n − ⌊n/8⌋; it is ⌊7n/8⌋": lambda i, n: (
            i < n // 8 or i >= n - n // 8 or (i - n // 8) % 3 == 2
        ),
        "eighths are not rounded down": lambda i, n: i < n / 8 or i >= 7 * n / 8 or (i - n / 8) % 3 == 2,
        "only the limits of the eighths are fractions": lambda i, n: (
            i < n / 8 or i >= 7 * n / 8 or (i - n // 8) % 3 == 2
        ),
        "every third layer counts from layer 0": lambda i, n: i < n // 8 or i >= 7 * n // 8 or i % 3 == 2,
        "every third layer begins at the end of the first eighth": lambda i, n: (
            i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 0
        ),
    }
    for n in (30, 22, 28, 40, 12, 5, 1):
        mistakes = {text: chosen(rule, n) for text, rule in rules.items()}
        check_layers(chosen(use_more_bits, n), chosen(mixes.use_more_bits, n), f"more bits of {n}", mistakes)
    ### END HIDDEN TESTS
with points.part(4, "tensor_types"):
    types = tensor_types(llama, "Q4_K_M")
    claimed = ("attn_q", "attn_k", "attn_output")
    for kind in claimed:
        six = [name for name, qtype in types.items() if f".{kind}." in name and qtype != "Q4_K"]
        assert not six, (
            f"tensor_types of Llama-2-7B, Q4_K_M: {six[0]} is {types[six[0]]}; "
            "attention's Q, K and output projection are Q4_K, whatever the table says"
        )
    six = [name for name, qtype in types.items() if qtype == "Q6_K"]
    assert len(six) == 33 and "output.weight" in six, (
        f"tensor_types of Llama-2-7B, Q4_K_M: {len(six)} tensors are Q6_K, "
        "expected 33: attn_v and ffn_down in 16 layers each, and output.weight"
    )
    check_raises(ValueError, 'tensor_types with "Q4_K_L"', tensor_types, llama, "Q4_K_L")
    ### BEGIN HIDDEN TESTS
    for name, shapes in cases.items():
        for mix in ("Q4_K_M", "Q4_K_S"):
            mistakes = {text: lambda change=change: variant(shapes, mix, **change) for text, change in by_name.items()}
            check_types(
                tensor_types(shapes, mix), plan(shapes, mix).types(), f"tensor_types of {name}, {mix}", mistakes
            )
    ### END HIDDEN TESTS
with points.part(3, "file_size"):
    shapes = {"token_embd.weight": (1000, 512), "output_norm.weight": (512,), "blk.0.attn_v.weight": (64, 96)}
    types = {"token_embd.weight": "Q6_K", "output_norm.weight": "F32", "blk.0.attn_v.weight": "Q8_0"}
    mistakes = {
        "norms are left out": 426528,
        "every weight has 4.5 bits": 518656 * 4.5 / 8,
        "the result is in MiB": 428576 / 2**20,
        "the result is in bits": 8 * 428576,
    }
    n_bytes, bits = file_size(shapes, types)
    check_equal(n_bytes, 428576, "file_size of three tensors: n_bytes", mistakes)
    mistakes = {"the result is bytes per weight": 428576 / 518656}
    check_close(bits, 8 * 428576 / 518656, 1e-6, "file_size of three tensors: bits per weight", "10⁻⁶", mistakes)
    ### BEGIN HIDDEN TESTS
    for name, shapes in cases.items():
        for mix in ("Q4_K_M", "Q4_K_S"):
            right = plan(shapes, mix)
            types = right.types()
            matrices = [name for name, shape in shapes.items() if len(shape) > 1]
            norms = sum(4 * shape[0] for shape in shapes.values() if len(shape) == 1)
            weights, n_bytes = right.n_weights, right.n_bytes
            got = file_size(shapes, types)
            what = f"file_size of {name}, {mix}"
            inner = sum(right.tensors[name].n_weights for name in matrices if name.startswith("blk."))
            mistakes = {
                "norms are left out": n_bytes - norms,
                "norms are counted as F16": n_bytes - norms / 2,
                "every weight has 4.5 bits": weights * 4.5 / 8,
                "the result is in MiB": n_bytes / 2**20,
                "the result is in bits": 8 * n_bytes,
            }
            check_equal(got[0], n_bytes, f"{what}: n_bytes", mistakes)
            mistakes = {
                "norms are left out": 8 * (n_bytes - norms) / (weights - norms / 4),
                "norms are not among the weights that bits are divided by": 8 * n_bytes / (weights - norms / 4),
                "only the weights inside layers divide": 8 * n_bytes / inner,
                "the result is bytes per weight": n_bytes / weights,
            }
            check_close(got[1], right.bits_per_weight, 1e-6, f"{what}: bits per weight", "10⁻⁶", mistakes)
    published = {"Llama-2-7B": 4080263168, "Llama-3.1-8B": 4912898304}
    for name, n_bytes in published.items():
        check_equal(file_size(cases[name], plan(cases[name], "Q4_K_M").types())[0], n_bytes, f"file_size of {name}")
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ### Exercise (d): the search for scale and minimum
#
# *13 minutes, 6 points*
#
# ```
# fit_sub_blocks  x: float32 (n, 32), weights: float32 (n, 32)
#                 →  scale: float32 (n,),  minimum: float32 (n,),  q: uint8 (n, 32)
#
# x̂ = scale · q − minimum                    error of a sub-block = Σ weights · (x − x̂)²
# ```
#
# | | |
# |:--|:--|
# | Grid | q from 0 to 15, scale ≥ 0, minimum ≥ 0: the format stores unsigned numbers, so the grid never begins above zero |
# | Weights | ≥ 0, at least one of a sub-block positive |
# | Method | yours. What is judged is the error, computed in float64 from the three things that you return |
# | (1), 2&nbsp;points | no sub-block is worse than **min-max**: `low = min(0, min(x))`, scale = (max(x) − low) / 15, minimum = −low, nearest code. So constant sub-blocks and zeros are met exactly |
# | (2), 1&nbsp;point | the sum of errors is at most 0.92 of min-max's, with equal weights |
# | (3), 1&nbsp;point | it is at most 1.05 of that of ggml's own search, with equal weights |
# | (4), 2&nbsp;points | the same with unequal weights: at most 1.05 of ggml's weighted error |
# | Margins | min-max = 1: least squares for min-max's codes gets about 0.94–0.96, alternating codes and least squares from there 0.85–0.90, ggml's search 0.78–0.81. (1) allows in the root of an error 2⁻²⁰ · max(abs(x)) · sqrt(Σ weights), for the rounding of scale and minimum to float32 |
# | Time | no limit that matters: at most 200 sub-blocks per call, about 4,000 in all |
#
# ggml tries 21 to 37 scales. Each gives codes; the codes give the best scale and minimum by weighted least squares; the best of all is
# kept. You may do better than ggml: the margin is one-sided.


# %% nbgrader={"grade": false, "grade_id": "search", "locked": false, "schema_version": 3, "solution": true, "task": false}
def fit_sub_blocks(x, weights):
    """Find scale, minimum and codes of sub-blocks of 32 with a small weighted squared error.

    `x` and `weights` are float32 `(n, 32)`; returns float32 `(n,)`, float32 `(n,)`, uint8 `(n, 32)`.
    """
    ### BEGIN SOLUTION
    x, w = x.double(), weights.double()
    low = x.amin(1, keepdim=True).clamp(max=0)
    span = x.amax(1, keepdim=True) - low  # (n, 1)
    sum_w, sum_x = w.sum(1, keepdim=True), (w * x).sum(1, keepdim=True)

    def codes(scale, minimum):
        return torch.where(scale > 0, (x + minimum) / scale + 0.5, 0).floor().clamp(0, 15)

    def refit(q):
        """The weighted least-squares scale and minimum of codes; not finite where the codes do not determine them."""
        wq = w * q
        sum_q, sum_qx, sum_qq = (part.sum(1, keepdim=True) for part in (wq, wq * x, wq * q))
        determinant = sum_w * sum_qq - sum_q**2
        scale = (sum_w * sum_qx - sum_x * sum_q) / determinant
        minimum = (sum_q * sum_qx - sum_qq * sum_x) / determinant
        return torch.where(minimum < 0, sum_qx / sum_qq, scale), minimum.clamp(min=0)

    def error(scale, minimum, q):
        return (w * (scale * q - minimum - x) ** 2).sum(1, keepdim=True)

    best = [span / 15, -low, codes(span / 15, -low)]
    least = error(*best)
    for steps in torch.arange(14, 16.1, 0.1).tolist():
        q = codes(span / steps, best[1])
        trial = [*refit(q), q]
        better = (error(*trial) < least) & (trial[0] >= 0)  # false for NaN
        best = [torch.where(better, new, old) for new, old in zip(trial, best, strict=True)]
        least = error(*best)
    scale, minimum, q = best
    return scale.squeeze(1).float(), minimum.squeeze(1).float(), q.to(torch.uint8)
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Two easy halves: given scale and minimum, the best codes are the nearest; given codes, the best scale and minimum are a straight line fitted
# through 32 points. Alternating them gets stuck in the first valley of Background 2. So start from many scales.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# For each of about 20 steps t from 14 to 16: codes with scale range / t and the best minimum so far, then the line through (q, x) with weights w. If the
# minimum comes out negative, set it to 0 and fit the scale alone: Σwxq / Σwq². Keep what has the least error, starting with min-max
# itself. Float64 for the sums; guard against a determinant of 0 (all codes equal).
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# W, X, Q, QX, QQ = sums over the sub-block of w, w·x, w·q, w·q·x, w·q·q
# D = W * QQ - Q * Q
# s = (W * QX - X * Q) / D;  m = -(QQ * X - Q * QX) / D           # fitted: x ≈ s·q − m
# where m < 0: m = 0, s = QX / QQ
# e = sum(w * (s * q - m - x) ** 2);  better = (D > 0) & (e < e_best)
# e_best, s_best, m_best, q_best = those of this trial where it is better
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-search", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import Points
from quant_kernels.formats.search import search_asymmetric


def min_max(x):
    low = x.amin(1).clamp(max=0)
    scale = (x.amax(1) - low) / 15
    q = torch.where(scale > 0, ((x - low.unsqueeze(1)).T / scale), 0).T
    return scale, -low, q.round().clamp(0, 15)


def errors(x, weights, fit):
    """The weighted squared error of each sub-block, float64 (n,)."""
    scale, minimum, q = (part.double() for part in fit)
    return (weights * (scale.unsqueeze(1) * q - minimum.unsqueeze(1) - x.double()) ** 2).sum(1)


def ggml(x, weights):
    """What ggml's own search finds."""
    scale, minus_minimum, q = search_asymmetric(x.T.contiguous(), weights.T.contiguous(), 15)
    return scale, -minus_minimum, q.T


def suspicion(x, weights, fit):
    """What may have gone wrong, in words; empty where nothing shows."""
    scale, minimum, q = fit
    below = x.amax(1) < 0
    ends = (15 * scale - minimum)[below]  # of the grids of sub-blocks that have negative values alone
    if below.any() and (ends > 0.5 * x.amax(1)[below]).float().mean() > 0.8:
        return "the grid is made to contain zero, where all values are below it; "
    goals = {
        "weights are ignored": weights**0,
        "weights are squared": weights**2,
        "the root of the weights is used": weights**0.5,
    }
    for text, goal in goals.items():
        unequal = not torch.equal(goal, weights)
        if unequal and errors(x, goal, fit).sum() <= 1.06 * errors(x, goal, ggml(x, goal)).sum():
            return f"{text}; "
    step = torch.where(scale > 0, scale, 1).unsqueeze(1)
    again = ((x + minimum.unsqueeze(1)) / step).round().clamp(0, 15)
    if errors(x, weights, (scale, minimum, again)).sum() < 0.7 * errors(x, weights, fit).sum():
        return "the codes belong to another trial than scale and minimum; "
    return ""


def check_form(x, weights, what):
    """Calls the answer, and checks the form of what it returns."""
    fit = fit_sub_blocks(x, weights)
    kinds = {"scale": (torch.float32, (len(x),)), "minimum": (torch.float32, (len(x),)), "q": (torch.uint8, x.shape)}
    for part, (name, (dtype, shape)) in zip(fit, kinds.items(), strict=True):
        assert isinstance(part, torch.Tensor), f"{what}: {name} is a {type(part).__name__}, expected a torch.Tensor"
        assert part.dtype == dtype, f"{what}: {name} has dtype {part.dtype}, expected {dtype}"
        assert part.shape == shape, f"{what}: {name} has shape {tuple(part.shape)}, expected {tuple(shape)}"
    scale, minimum, q = fit
    assert scale.isfinite().all() and minimum.isfinite().all(), f"{what}: a scale or minimum is NaN or infinite"
    assert (minimum >= 0).all(), (
        f"{what}: a minimum is {minimum.min():.4g}; stored minima are unsigned and subtracted, so it cannot be below 0"
    )
    assert (scale >= 0).all(), f"{what}: a scale is {scale.min():.4g}, below 0"
    assert q.max() <= 15, f"{what}: a code is {q.max()}, above 15"
    return fit


def check_grid(x, weights, what):
    """Checks also that no sub-block is worse than min-max."""
    fit = check_form(x, weights, what)
    mine, limit = errors(x, weights, fit), errors(x, weights, min_max(x))
    slack = 2**-20 * x.abs().amax(1) * weights.sum(1).sqrt()
    worse = (mine.sqrt() > limit.sqrt() + slack).nonzero().flatten().tolist()
    if worse:
        raise AssertionError(
            f"{what}: {suspicion(x, weights, fit)}{len(worse)} of {len(x)} sub-blocks are worse than min-max, first number {worse[0]}: "
            f"error {mine[worse[0]]:.4g}, min-max {limit[worse[0]]:.4g}"
        )


def check_target(cases):
    """Checks the sum of errors of each case, name to x and weights, against ggml's; returns the last answer."""
    every = [torch.cat(parts) for parts in zip(*cases.values(), strict=True)]
    targets = errors(*every, ggml(*every)).split([len(x) for x, _ in cases.values()])
    for (name, (x, weights)), target in zip(cases.items(), targets, strict=True):
        fit = check_form(x, weights, f"fit_sub_blocks, {name}")
        share = (errors(x, weights, fit).sum() / target.sum()).item()
        whole = (errors(x, weights, fit).sum() / errors(x, weights, min_max(x)).sum()).item()
        assert share <= 1.05, (
            f"fit_sub_blocks, {name}: {suspicion(x, weights, fit)}the error is {share:.3f} of that of ggml's search "
            f"and {whole:.3f} of min-max's; allowed is 1.05 of ggml's (one start is not enough)"
        )
    return fit


points, equal = Points(), torch.ones(200, 32)
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(212)
hidden = torch.randn(200, 32, generator=generator)
offset, heavy = hidden * 0.3 - 0.5, hidden * torch.rand(200, 32, generator=generator).log().neg().sqrt()
### END HIDDEN TESTS
with points.part(2, "(1) never worse than min-max"):
    ramp = torch.arange(32) % 16 - 4.0  # scale 1, minimum 4
    cases = torch.stack([ramp, torch.zeros(32), torch.full((32,), 0.7), torch.full((32,), -0.7)])
    check_grid(cases, equal[:4], "fit_sub_blocks of a ramp and three constants")
    check_grid(torch.randn(64, 32, generator=torch.Generator().manual_seed(1)), torch.ones(64, 32), "fit_sub_blocks")
    ### BEGIN HIDDEN TESTS
    generator = torch.Generator().manual_seed(210)
    normal = torch.randn(60, 32, generator=generator)
    uneven = torch.exp(2 * torch.randn(60, 32, generator=generator))
    lone = torch.zeros(60, 32)
    lone[torch.arange(60), torch.randint(0, 32, (60,), generator=generator)] = 1
    outlier = normal.clone()
    outlier[:, 5] *= 40
    for name, x, weights in (
        ("N(0, 1)", normal, torch.ones(60, 32)),
        ("unequal weights", normal, uneven),
        ("positive values", normal * 0.2 + 1, uneven),
        ("negative values", normal * 0.2 - 1, uneven),
        ("one weight that is not 0", normal, lone),
        ("half of the weights 0", normal, uneven * (torch.arange(32) % 2)),
        ("an outlier", outlier, torch.ones(60, 32)),
        ("small values", normal * 1e-6, torch.ones(60, 32)),
        ("constants", torch.linspace(-2, 2, 61)[1:, None].expand(60, 32), uneven),
        ("two values", torch.where(normal > 0.5, 1.3, -0.2), uneven),
        ("strided arguments", normal.T.contiguous().T, uneven.T.contiguous().T),
        ("one sub-block", normal[:1], uneven[:1]),
    ):
        check_grid(x, weights, f"fit_sub_blocks, {name}")
    ### END HIDDEN TESTS
with points.part(1, "(2) below min-max"):
    normal = torch.randn(200, 32, generator=torch.Generator().manual_seed(2))
    share = errors(normal, equal, check_form(normal, equal, "fit_sub_blocks")).sum()
    share = (share / errors(normal, equal, min_max(normal)).sum()).item()
    idea = "codes from the extremes are never searched again; " if share > 0.999 else ""
    idea = idea or ("one least-squares fit for min-max's codes and no more gets about 0.94; " if share > 0.92 else "")
    assert share <= 0.92, f"fit_sub_blocks of N(0, 1): {idea}{share:.3f} of min-max's error, allowed 0.92"
    ### BEGIN HIDDEN TESTS
    for name, x in (("around −0.5", offset), ("heavy tails", heavy)):
        share = errors(x, equal, check_form(x, equal, f"fit_sub_blocks, {name}")).sum()
        share = (share / errors(x, equal, min_max(x)).sum()).item()
        assert share <= 0.92, f"fit_sub_blocks, {name}: {share:.3f} of min-max's error, allowed 0.92"
    ### END HIDDEN TESTS
with points.part(1, "(3) as good as ggml's search"):
    check_target({"N(0, 1)": (torch.randn(200, 32, generator=torch.Generator().manual_seed(3)), equal)})
    ### BEGIN HIDDEN TESTS
    shapes = {"N(0, 1)": hidden, "around −0.5": offset, "around 0.5": -offset, "heavy tails": heavy}
    check_target({name: (x, equal) for name, x in shapes.items()})
    ### END HIDDEN TESTS
with points.part(2, "(4) with weights"):
    generator = torch.Generator().manual_seed(4)
    x, weights = torch.randn(200, 32, generator=generator), torch.exp(torch.randn(200, 32, generator=generator))
    plain, weighted = check_form(x, equal, "fit_sub_blocks"), check_target({"with weights": (x, weights)})
    weighed = [errors(x, weights, fit).sum().item() for fit in (plain, weighted)]
    unweighed = [errors(x, equal, fit).sum().item() for fit in (plain, weighted)]
    assert weighed[1] < 0.9 * weighed[0] and unweighed[1] > unweighed[0], (
        "fit_sub_blocks: with weights the weighted error must fall, and the unweighted one rises; "
        f"weighted {weighed[0]:.4g} to {weighed[1]:.4g}, unweighted {unweighed[0]:.4g} to {unweighed[1]:.4g}"
    )
    ### BEGIN HIDDEN TESTS
    generator = torch.Generator().manual_seed(214)
    columns = torch.exp(1.5 * torch.randn(12, 32, generator=generator)).repeat(17, 1)[:200]  # importance of columns
    blocks = hidden.square().mean(1, keepdim=True)
    check_target(
        {
            "importance of columns": (hidden, columns),
            "importance and size": (hidden, columns * (2 * blocks + hidden.square()).sqrt()),
            "ggml's weights without importance": (hidden, blocks.sqrt() + hidden.abs()),
            "importance, around −0.5": (offset, columns),
            "half of the weights 0": (heavy, columns * (torch.arange(32) % 2)),
        }
    )
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ### Exercise (e): the second level
#
# *6 minutes, 3 points*
#
# The search gave a float scale and minimum for each of 8 sub-blocks. Q4_K stores them as 6-bit integers with a common float16. That changes
# them, so the codes are computed **again**, for the grid that the decoder will see.
#
# ```
# q4_k_fields  x: float32 (n_blocks, 256),  scale, minimum: float32 (n_blocks, 8), all ≥ 0
#              →  d, dmin: float16 (n_blocks,),  sc, m: uint8 (n_blocks, 8),  q: uint8 (n_blocks, 256)
# ```
#
# | | |
# |:--|:--|
# | Scales | per super-block: `top = max(scale)`; `sc = round(scale · (63 / top))`, `d = (top / 63)` rounded to float16 |
# | Minima | the same with `minimum`: `m` and `dmin` |
# | Zero | where top is 0, the integers and the float16 are 0 |
# | Codes | with what is **stored**, in float32: step = d · sc, offset = dmin · m, `q = clamp(round((x + offset) / step), 0, 15)`; where step is 0, q = 0 |
# | Sub-blocks | j holds the elements 32 j … 32 j + 31 |
# | Rounding | to nearest. No test comes near a half, so that neither its direction nor float64 in between matters |
# | Tolerance | none |
#
# `top / 63` is computed in float32, from the float32 maximum, before it is rounded to float16. The integers come from `top`, not from the rounded `d`.


# %% nbgrader={"grade": false, "grade_id": "levels", "locked": false, "schema_version": 3, "solution": true, "task": false}
def q4_k_fields(x, scale, minimum):
    """Return Q4_K's fields d, dmin, sc, m and q for super-blocks with searched scales and minima.

    `x` is float32 `(n_blocks, 256)`, `scale` and `minimum` are float32 `(n_blocks, 8)`.
    """

    ### BEGIN SOLUTION
    def six_bits(values):
        top = values.amax(1, keepdim=True)  # (n_blocks, 1)
        numbers = torch.where(top > 0, values * (63 / top), 0).round().to(torch.uint8)
        return (top / 63).half(), numbers

    (d, sc), (dmin, m) = six_bits(scale), six_bits(minimum)
    step, offset = (d.float() * sc).unsqueeze(-1), (dmin.float() * m).unsqueeze(-1)  # (n_blocks, 8, 1)
    steps = torch.where(step > 0, (x.unflatten(1, (8, 32)) + offset) / step, 0)
    q = steps.round().clamp(0, 15).to(torch.uint8).flatten(1)
    return d.squeeze(1), dmin.squeeze(1), sc, m, q
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# It is the quantization of question 1 twice over: 8 scales to 6 bits without a sign, 8 minima likewise, then 256 weights to 4 bits.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# One function for scales and minima: maximum along the super-block, integers, float16. Then take the float16 back to float32, multiply by the integers, and
# use nothing else for the codes: the floats of the search are gone.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# numbers = (scale * (63 / largest)).round(), 0 where largest is 0
# half = (largest / 63) as float16
# grid_step = half as float32 * numbers                                    # (n_blocks, 8)
# codes = ((x as (n_blocks, 8, 32) + grid_offset) / grid_step).round()
# # limited to 0 … 15, and 0 where grid_step is 0
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-levels", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_equal


def fields(x, scale, minimum, levels=63, number=torch.round, stored=True, common=False, sign=1, half=True, clamp=True):
    """The contract, or one misconception of it."""
    tops = scale.amax(1, keepdim=True), minimum.amax(1, keepdim=True)
    tops = (torch.maximum(*tops),) * 2 if common else tops
    numbers = [torch.where(t > 0, number(v * (levels / t)), 0) for v, t in zip((scale, minimum), tops)]
    halves = [(t / levels).half() for t in tops]
    used = halves if half else [t / levels for t in tops]
    step, offset = (u.float() * n for u, n in zip(used, numbers)) if stored else (scale, minimum)
    step, offset = step.unsqueeze(-1), offset.unsqueeze(-1)
    steps = torch.where(step > 0, (x.unflatten(1, (8, 32)) + sign * offset) / step, 0).round()
    q = steps.clamp(0, 15) if clamp else steps % 256
    return *(h.squeeze(1) for h in halves), *(n.to(torch.uint8) for n in numbers), q.to(torch.uint8).flatten(1)


MISTAKES = {
    "codes come from the searched scale and minimum, not from the stored ones": dict(stored=False),
    "codes come from d before it is rounded to float16": dict(half=False),
    "the integers go up to 64; the largest of 6 bits is 63": dict(levels=64),
    "the integers are scaled to 15, as codes of weights": dict(levels=15),
    "the integers are cut off, not rounded": dict(number=torch.floor),
    "scales and minima share one float16": dict(common=True),
    "the minimum is subtracted before the division; the grid begins at −minimum": dict(sign=-1),
    "codes are not limited to 0 … 15": dict(clamp=False),
}


def check_fields(x, scale, minimum, what, expected):
    got = q4_k_fields(x, scale, minimum)
    results = zip(("d", "dmin", "sc", "m", "q"), got, expected, strict=True)
    for i, (name, mine, right) in enumerate(results):
        mistakes = {
            text: lambda change=change, i=i: fields(x, scale, minimum, **change)[i] for text, change in MISTAKES.items()
        }
        check_equal(mine, right, f"{what}: {name}", mistakes)


# a small sub-block beside a large one: d has 63 steps, of which the small one gets 6, so that its scale 0.096 becomes 0.09375
scale = torch.tensor([[0.096, 63 / 64, 0, 0, 0, 0, 0, 0]])
minimum = torch.tensor([[0.4, 63 / 32, 0, 0, 0, 0, 0, 0]])
codes = torch.zeros(8, 32)
codes[:2] = torch.arange(32) % 16
steps, offsets = torch.tensor([[6 / 64], [63 / 64]] + [[0]] * 6), torch.tensor([[13 / 32], [63 / 32]] + [[0]] * 6)
x = (steps * (codes - 0.3) - offsets).reshape(1, 256)
expected = [torch.tensor([1 / 64]).half(), torch.tensor([1 / 32]).half()]
expected += [torch.tensor([[6, 63, 0, 0, 0, 0, 0, 0]]).byte(), torch.tensor([[13, 63, 0, 0, 0, 0, 0, 0]]).byte()]
check_fields(x, scale, minimum, "q4_k_fields, scale 0.096 beside 0.984", [*expected, codes.byte().reshape(1, 256)])
shape = tuple(q4_k_fields(torch.zeros(2, 256), torch.zeros(2, 8), torch.zeros(2, 8))[4].shape)
assert shape == (2, 256), f"q4_k_fields of 2 zero blocks: q has shape {shape}, expected (2, 256)"
### BEGIN HIDDEN TESTS
import quant_kernels as qk
from quant_kernels.formats.k_bits import unpack_scales_and_mins
from quant_kernels.formats.k_quants import Q4_K


def far_from_halves(rows, spread, lowest=0.2, size=0.02):
    """Scales and minima 0.1 from any half of their 6-bit grid, and weights likewise from those of their codes."""

    def values(least):
        numbers = torch.randint(0, 63, (rows, 8), generator=generator)
        numbers[:, 3] = 63
        near = (torch.rand(rows, 8, generator=generator) * 0.8 - 0.4) * (numbers < 63)
        return least * (1 + torch.rand(rows, 1, generator=generator)) * (numbers + near).clamp(min=0) / 63

    scale, minimum = values(size), values(lowest)
    d, dmin, sc, m, _ = fields(torch.zeros(rows, 256), scale, minimum)
    codes = torch.randint(-spread, 16 + spread, (rows, 8, 32), generator=generator)
    codes = codes + torch.rand(rows, 8, 32, generator=generator) * 0.8 - 0.4
    x = (d.float()[:, None] * sc).unsqueeze(-1) * codes - (dmin.float()[:, None] * m).unsqueeze(-1)
    return x.flatten(1), scale, minimum


generator = torch.Generator().manual_seed(216)
x, scale, minimum = far_from_halves(6, 0)
cases = {
    "random blocks": far_from_halves(40, 0),
    "weights beyond the grid": far_from_halves(40, 4),
    "no minima": far_from_halves(6, 0, lowest=0),
    "scales of 0": (x, scale * torch.tensor([1, 0, 1, 1, 1, 1, 1, 0]), minimum),
    "a scale below float16's normal numbers": far_from_halves(20, 0, lowest=1e-3, size=1e-4),
    "zero blocks": (torch.zeros(3, 256), torch.zeros(3, 8), torch.zeros(3, 8)),
    "strided arguments": tuple(part.T.contiguous().T for part in (x, scale, minimum)),
}
for name, arguments in cases.items():
    check_fields(*arguments, f"q4_k_fields, {name}", fields(*arguments))

# what ggml itself writes, from the scales and minima that its own search finds
for seed in (218, 220):
    x = torch.randn(8, 256, generator=torch.Generator().manual_seed(seed))
    packed = qk.quantize(x, "Q4_K")
    found, least, _ = Q4_K().search_unweighted(x.reshape(-1, 32).T.contiguous())
    sc, m = unpack_scales_and_mins(packed[:, 4:16])
    d, dmin = packed[:, :4].contiguous().view(torch.float16).unbind(1)
    qs = packed[:, 16:].unflatten(1, (4, 32))
    q = torch.stack([qs & 15, qs >> 4], 2).flatten(1)
    check_fields(x, found.reshape(8, 8), -least.reshape(8, 8), "q4_k_fields, ggml's bytes", [d, dmin, sc, m, q])
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (f): audit the importance matrix
#
# *5 minutes, 3 points: 1 for the importance, 2 for the errors*
#
# A claim that you will meet: "The importance matrix finds the weights with large gradients and gives them more bits." Write what
# llama-imatrix really accumulates, and the measurement that shows what it does. The test hands you one matrix in float32 and two Q4_K
# versions of it, of the same number of bytes.
#
# ```
# importance  batches: list of float32 (tokens, columns)      →  float32 (columns,)
# two_errors  w, w_hat: float32 (rows, columns); batches      →  (weight_error, output_error), floats
# ```
#
# | | |
# |:--|:--|
# | Importance | of a column: the mean of the squared input x², over **all** tokens of all batches. Batches may differ in length |
# | Weight error | 100 · sqrt(Σ (w − ŵ)² / Σ w²), a float, in percent |
# | Output error | the layer computes y = x · wᵀ for each token: 100 · sqrt(Σ (y − ŷ)² / Σ y²), the sums over all tokens and rows |
# | Tolerance | 10⁻⁴ of each figure: a float32 sum of n terms is off by about sqrt(n) · 2⁻²⁴ of itself, that is 10⁻⁵ for the 25,000 terms of the largest matrix |


# %% nbgrader={"grade": false, "grade_id": "importance", "locked": false, "schema_version": 3, "solution": true, "task": false}
def importance(batches):
    """Return the mean squared input of each column, float32 `(columns,)`, of a list of float32 `(tokens, columns)`."""
    ### BEGIN SOLUTION
    squares = sum(batch.double().square().sum(0) for batch in batches)
    return (squares / sum(len(batch) for batch in batches)).float()
    ### END SOLUTION


def two_errors(w, w_hat, batches):
    """Return the relative error of the weights and of the outputs of the layer, in percent, as floats."""
    ### BEGIN SOLUTION
    w, w_hat = w.double(), w_hat.double()
    weight_error = 100 * ((w - w_hat).norm() / w.norm()).item()
    inputs = torch.cat(list(batches)).double()  # (all tokens, columns)
    output_error = 100 * ((inputs @ (w - w_hat).T).norm() / (inputs @ w.T).norm()).item()
    return weight_error, output_error
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# No model, no loss, no backward pass: a sum of squares and a count.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Add up squares and tokens separately and divide once at the end: the mean of the batches' means would weigh short batches too much. For the
# output error use that y − ŷ = x · (w − ŵ)ᵀ, and take one root of one quotient of sums.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# total = total + batch.square().sum(dim=0);  count = count + len(batch)      # for each batch
# lost = sum over batches of squares of (batch @ (w - w_hat).T)
# whole = sum over batches of squares of (batch @ w.T)
# 100 * root(lost / whole)
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-importance", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
import torch

import quant_kernels as qk
from course.checks import Points, check_close

WHY = "10⁻⁴ of the figure"


def wrong_importances(batches):
    tokens = torch.cat(batches)
    return {
        "batches' means are averaged, whatever their length": torch.stack([b.square().mean(0) for b in batches]).mean(
            0
        ),
        "magnitudes are averaged, not squares": tokens.abs().mean(0),
        "the root is taken: this is the root mean square": tokens.square().mean(0).sqrt(),
        "the mean is subtracted: this is the variance": tokens.var(0, correction=0),
        "squares are summed, not averaged": tokens.square().sum(0),
        "the mean input is squared": tokens.mean(0).square(),
        "the largest square is taken, not the mean": tokens.square().amax(0),
        "only the last batch counts": batches[-1].square().mean(0),
        "the mean runs over the columns, not over the tokens": tokens.square().mean(1),
    }


def check_importance(batches, what):
    expected = torch.cat(batches).double().square().mean(0).float()
    mistakes = {text: lambda value=value: value for text, value in wrong_importances(batches).items()}
    check_close(importance(batches), expected, 1e-4 * expected, what, WHY, mistakes)


def check_errors(w, w_hat, batches, what):
    x, lost = torch.cat(batches).double(), (w_hat - w).double()
    y, missed = x @ w.double().T, x @ lost.T
    rights = 100 * lost.norm() / w.double().norm(), 100 * missed.norm() / y.norm()
    tokens = 100 * (missed.norm(dim=1) / y.norm(dim=1)).mean()
    diagonal = x.square().mean(0)
    mistakes = {
        "the error is a fraction, not percent": lambda i: rights[i] / 100,
        "the square root is missing": lambda i: rights[i] ** 2 / 100,
        "the error is divided by the decoded matrix's size": lambda i: (
            100 * lost.norm() / w_hat.double().norm() if i == 0 else 100 * missed.norm() / (x @ w_hat.double().T).norm()
        ),
        "the output error is the weight error once more": lambda i: rights[0],
        "errors of single tokens are averaged; the sums run over all tokens": lambda i: tokens,
        "the output error is estimated from the importance; it is to be measured on the inputs": lambda i: (
            100 * ((lost.square() @ diagonal).sum() / (w.double().square() @ diagonal).sum()).sqrt()
        ),
    }
    got = two_errors(w, w_hat, batches)
    for i, name in enumerate(("weight error", "output error")):
        right = rights[i].item()
        wrong = {text: lambda make=make, i=i: make(i).item() for text, make in mistakes.items()}
        check_close(got[i], right, 1e-4 * right, f"two_errors, {what}: {name}", WHY, wrong)
    return got


points = Points()
with points.part(1, "importance"):
    batches = [torch.tensor([[1.0, -2.0, 0.0]]), torch.tensor([[3.0, 0.0, 1.0], [1.0, 2.0, 1.0]])]
    check_importance(batches, "importance of 3 tokens in 2 batches")
    ### BEGIN HIDDEN TESTS
    generator = torch.Generator().manual_seed(220)
    for lengths, columns in (((7, 50, 3), 96), ((300, 300), 64), ((1,), 5)):
        shift = torch.randn(columns, generator=generator)
        sizes = torch.exp(torch.randn(columns, generator=generator))
        batches = [torch.randn(n, columns, generator=generator) * sizes + shift for n in lengths]
        for i in range(len(batches)):
            batches[i] = batches[i] * (i + 1)
        check_importance(batches, f"importance, batches of {', '.join(map(str, lengths))} tokens")
    dead = [torch.randn(20, 6, generator=generator) * torch.tensor([1, 0, 2, 0, 3, 4]) for _ in range(2)]
    check_importance(dead, "importance, columns without input")
    ### END HIDDEN TESTS
with points.part(2, "two_errors"):
    generator = torch.Generator().manual_seed(5)
    w, sizes = torch.randn(48, 512, generator=generator), torch.exp(torch.randn(512, generator=generator))
    batches = [torch.randn(tokens, 512, generator=generator) * sizes for tokens in (40, 160)]
    known = torch.cat(batches).square().mean(0)
    plain, weighted = qk.quantize(w, "Q4_K"), qk.quantize(w, "Q4_K", known)
    assert plain.shape == weighted.shape  # the same number of bits: what changes is where the codes round to
    before = check_errors(w, qk.dequantize(plain, "Q4_K"), batches, "Q4_K without an importance matrix")
    after = check_errors(w, qk.dequantize(weighted, "Q4_K"), batches, "Q4_K with one")
    assert after[0] > before[0] and after[1] < before[1]  # the weights get worse, the outputs better
    ### BEGIN HIDDEN TESTS
    generator = torch.Generator().manual_seed(222)
    for rows, columns, qtype in ((33, 96, "Q4_0"), (128, 256, "Q6_K")):
        w = torch.randn(rows, columns, generator=generator) * torch.rand(rows, 1, generator=generator)
        mixed = torch.randn(columns, columns, generator=generator) * torch.rand(columns, generator=generator)
        batches = [torch.randn(n, columns, generator=generator) @ mixed * size for n, size in ((30, 1), (11, 5))]
        decoded = qk.dequantize(qk.quantize(w, qtype), qtype)
        check_errors(w, decoded, batches, f"{qtype}, correlated inputs")
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ## Experiment: your encoder on numbers, on a claim, and on a model
#
# (a), (d) and (e) are the parts of a complete Q4_K encoder; the next cell joins them. Part 1 and 2 use these, part 3 also (c) and (f). None of this
# is graded.

# %% tags=["experiment"]
import gguf
import matplotlib.pyplot as plt
import torch

import quant_kernels as qk


def min_max(x, weights):
    low = x.amin(1).clamp(max=0)
    return (x.amax(1) - low) / 15, -low, None


def your_q4_k(x, importance=None, fit=None):
    """Q4_K bytes of float32 (..., n), by your search or another, your 6-bit numbers and your 12 bytes."""
    blocks = x.reshape(-1, 256)
    sub = blocks.reshape(-1, 32)
    if importance is None:
        weights = sub.square().mean(1, keepdim=True).sqrt() + sub.abs()
    else:
        columns = importance.expand_as(x).reshape(-1, 256)
        weights = (columns * (2 * blocks.square().mean(1, keepdim=True) + blocks.square()).sqrt()).reshape(-1, 32)
    scale, minimum, _ = (fit or fit_sub_blocks)(sub, weights)
    d, dmin, sc, m, q = q4_k_fields(blocks, scale.reshape(-1, 8), minimum.reshape(-1, 8))
    low, high = q.unflatten(1, (4, 2, 32)).unbind(2)  # (n_blocks, 4, 32)
    halves = torch.stack([d, dmin], 1).view(torch.uint8)
    data = torch.cat([halves, pack_scales_mins(sc, m), (low | high << 4).flatten(1)], 1)
    return data.reshape(*x.shape[:-1], -1)


def decode(data, qtype):
    return torch.from_numpy(gguf.dequantize(data.numpy(), gguf.GGMLQuantizationType[qtype]))


x = torch.randn(64, 4096, generator=torch.Generator().manual_seed(0))
encoders = {
    "Q4_0, ggml's": (qk.quantize(x, "Q4_0"), "Q4_0"),
    "Q4_1, ggml's (5.0 bits)": (qk.quantize(x, "Q4_1"), "Q4_1"),
    "Q4_K, min-max": (your_q4_k(x, fit=min_max), "Q4_K"),
    "Q4_K, your search": (your_q4_k(x), "Q4_K"),
    "Q4_K, ggml's": (qk.quantize(x, "Q4_K"), "Q4_K"),
}
for label, (data, qtype) in encoders.items():
    error = 100 * ((decode(data, qtype) - x).norm() / x.norm()).item()
    print(f"{label:24} {8 * data.numel() / x.numel():.1f} bits   error on N(0, 1) {error:.2f} %")

# %% [markdown]
# **Part 1, read it so.** Bytes that your functions made are decoded by `gguf`, so the layout is right if the errors are. The way from Q4_0 to Q4_K has
# two steps. An offset per 32 weights: 8.61 to 7.87 %, and that is all that Q4_1 gets (7.85 %) for half a bit more, so that making scales and
# minima 6-bit integers costs next to nothing here. Then the search: 7.87 to 7.15 %, for no bit at all.
#
# **Part 2: a worked example that goes round.** One block of small weights, one of large ones, and the explanation: "Q4_0 has one
# global scale, 1.5 / 15 = 0.1, so block 1 becomes [1, 1, 1, 1]: precision is lost. Q4_K's sub-scale makes [8, 10, 7, 9] of it, much
# better." Predict before you run it: which format has the smaller error in block 1?

# %% tags=["experiment"]
small = torch.tensor([0.10, 0.12, 0.09, 0.11]).repeat(8)  # 32 weights
large = torch.tensor([1.2, 0.8, 1.5, 0.9]).repeat(8)
pair = torch.cat([small, large]).repeat(4)  # a super-block: four of each
print(f"{'':20}{'block 1: codes':>16}{'decoded':>32}{'error 1':>10}{'error 2':>10}")
q4_0 = qk.quantize(pair, "Q4_0")
for label, data, qtype in (
    ("Q4_0, ggml's", q4_0, "Q4_0"),
    ("Q4_K, ggml's", qk.quantize(pair, "Q4_K"), "Q4_K"),
    ("Q4_K, your search", your_q4_k(pair), "Q4_K"),
):
    decoded = decode(data, qtype)
    codes = (data[2:6] if qtype == "Q4_0" else data[16:20]) & 15
    first, second = (100 * ((decoded - pair).abs() / pair)).unflatten(0, (4, 2, 32)).mean((0, 2)).tolist()
    values = ", ".join(f"{value:.4f}" for value in decoded[:4].tolist())
    print(f"{label:20}{codes.tolist()!s:>16}{values:>32}{first:9.2f} %{second:9.2f} %")
d_0 = q4_0[:2].view(torch.float16).item()
sc, m = unpack_scales_mins(qk.quantize(pair, "Q4_K")[4:16])
print(
    f"\nblocks 1 and 2 of Q4_K, ggml's: sc = {sc[:2].tolist()}, m = {m[:2].tolist()}.  Block 1 of Q4_0: d = {d_0:.4f}"
)

# %% [markdown]
# **Part 2, read it so.** The example is wrong on every line. Q4_0 has *its own scale per block of 32*, here d = 0.12 / −8 in block 1; what the
# example pictures is quantization per tensor. Its codes for Q4_K fit none of the scales that it names. And the result is the other way round: in
# block 1 Q4_0's mean relative error is 2.39 %, that of ggml's Q4_K 4.01 %. A small sub-block's scale is so many 63rds of the super-block's *largest*
# scale, here 6 of them, so that storing it can move it by a twelfth. In block 2 Q4_0 has 4.17 % and Q4_K 0.02 %: four values lie
# well on a searched grid, and the largest scale is the one that is stored exactly.
#
# Two levels are a *saving* of scale bits, paid for where blocks of very different size share a super-block. The saving buys the offset.
#
# **Part 3: the course model.** A Llama of 8 layers that the course trained itself, stored as F16. Embeddings are tied, so every mix keeps them in
# Q6_K. The importance matrix is computed by your (f) from the inputs of all matrices, over 8 windows of numpy's docstrings and never over the
# text that is scored: Python's language reference, 16 windows of 512 tokens, the second half of each.

# %% tags=["experiment"]
from course.fetch import fetch
from course.texts import calibration_text, evaluation_text

model = qk.load_model(fetch("course-model"))
matrices = {name: weight for name, weight in model.weights().items() if name.startswith("blk.") and weight.ndim == 2}
shapes = {name: tuple(weight.shape) for name, weight in model.weights().items()}
names = {id(weight): name for name, weight in matrices.items()}
inputs = {name: [] for name in matrices}  # one batch per window


def keep(module, arguments, output):
    inputs[names[id(module.weight)]].append(arguments[0].detach().flatten(0, -2))


hooks = [
    module.register_forward_hook(keep) for module in model.modules() if id(getattr(module, "weight", None)) in names
]
with torch.no_grad():
    for window in torch.tensor(model.tokenizer.encode(calibration_text())[: 8 * 512]).reshape(8, 1, 512):
        model(window)
for hook in hooks:
    hook.remove()
columns = {name: importance(batches) for name, batches in inputs.items()}
spread = [(values.max() / values.median()).item() for values in columns.values()]
print(
    f"{len(columns)} matrices; the largest importance is {min(spread):.0f} to {max(spread):.0f} times a matrix's median"
)

# %% [markdown]
# Your `tensor_types` chooses and your encoder writes Q4_K; the library writes the other types. The measure is the **KL divergence** of the
# model's predictions from those of the F16 model, in nats per token: it compares whole distributions, token by token, and settles with 4,000 tokens what
# perplexity on the same tokens leaves open.


# %% tags=["experiment"]
def encoded(name, qtype, weighted, yours=True):
    weight, given = matrices[name], columns[name] if weighted else None
    data = your_q4_k(weight, given) if qtype == "Q4_K" and yours else qk.quantize(weight, qtype, given)
    return decode(data, qtype)


def everywhere(qtype, *how):
    return {name: encoded(name, qtype, *how) for name in matrices}


plain = everywhere("Q4_K", False)


def mixed(mix):
    types = tensor_types(shapes, mix)
    return {name: plain[name] if types[name] == "Q4_K" else encoded(name, types[name], False) for name in matrices}


def bits_of(mix):
    types = tensor_types(shapes, mix)
    return file_size({name: shapes[name] for name in matrices}, types)[1]


runs = {  # bits per weight of the layers' matrices, and the matrices
    "Q4_0": (4.5, everywhere("Q4_0", False)),
    "Q4_0 + imatrix": (4.5, everywhere("Q4_0", True)),
    "Q4_K, yours": (4.5, plain),
    "Q4_K + imatrix, yours": (4.5, everywhere("Q4_K", True)),
    "Q4_K + imatrix, ggml's": (4.5, everywhere("Q4_K", True, False)),
    "Q4_K_S, yours": (bits_of("Q4_K_S"), mixed("Q4_K_S")),
    "Q4_K_M, yours": (bits_of("Q4_K_M"), mixed("Q4_K_M")),
}
tokens = model.tokenizer.encode(evaluation_text())[: 512 * 16]
figure, axes = plt.subplots(figsize=(7.5, 3.3))
print(f"{'':24}{'bits':>6}{'KL divergence':>24}{'change of perplexity':>24}")
with qk.record(model, tokens) as recording:
    for row, (label, (bits, replacement)) in enumerate(runs.items()):
        with model.replaced(replacement):
            found = recording.compare(model)
        divergence, change = found.kl_divergence, found.log_ratio
        print(
            f"{label:24}{bits:6.3f}{divergence.value:14.4f} ± {divergence.standard_error:.4f}"
            f"{100 * change.value:+15.1f} ± {100 * change.standard_error:.1f} %"
        )
        axes.errorbar(divergence.value, row, xerr=2 * divergence.standard_error, fmt="o", color="#1a73e8", capsize=3)
        axes.annotate(
            f"{bits:.3g} bits",
            (divergence.value, row),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
axes.set_yticks(range(len(runs)), runs)
axes.set_ylim(len(runs) - 0.5, -0.8)
axes.set(xlabel="KL divergence from F16, nats per token (bars: 2 standard errors)", xlim=(0, None))
axes.set_title("Course model: the same 4.5 bits, five results")
axes.grid(alpha=0.3, axis="x")
plt.show()

# %% [markdown]
# **Part 3, read it so.** Measured on two cores of a server CPU, with the model answers: Q4_0 0.0190 nats, Q4_K 0.0129, Q4_K_S 0.0120 and Q4_K_M 0.0100, each with
# a standard error of 0.0002 to 0.0003. The order is the one that everybody expects, and Q4_0 against Q4_K is a third of the damage for no bit.
#
# - **The importance matrix** changes no size. Q4_0 gains most by it (0.0190 to 0.0153), because without it there is no search at all. ggml's Q4_K gets 0.0120
#   with it. *Yours* hardly gains (0.0128): you weigh the search for each sub-block, but (e) rounds the eight scales and minima as if all sub-blocks mattered
#   alike. ggml searches `d` and `dmin` with weights as well, and that is most of the difference (we exchanged the parts to see).
# - **Perplexity** of the same tokens puts Q4_0 last and cannot order the rest: its standard errors of 0.3 % are as large as most differences. It gives the
#   best Q4_K by KL divergence the mark of Q4_0 with an importance matrix.
# - **Which M?** In 8 layers Q4_K_M gives 6 bits to layers 0, 3, 6 and 7, and in a model of 16 MB that costs 0.3 bits per weight of the layers, as in Llama-2-7B.

# %% [markdown]
# ## Rubric
#
# An instructor scores two written answers and the talk, 8 points each; alone, score yourself by the tables. Write into the cells "Your answer".

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-understanding", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": true}
# ### K-quants understanding (8 points)
#
# A colleague has read: "Q4_K has one scale per super-block of 256 and adapts the precision to the weights; that is why it beats Q4_0, which has one
# scale for everything." In 250 words or fewer, put it right: what is in the 144 bytes, how do they become weights, what does Q4_0 do with
# the same 4.5 bits, where does the gain come from, and when is there none?
#
# | Poor (0–2) | Fair (3–4) | Good (5–6) | Excellent (7–8) |
# |:--|:--|:--|:--|
# | "Hierarchical, so better"; repeats an error of the claim | Super-blocks, sub-blocks, 4.5 bits; minima or the second float16 missing | Every field with its bits, both formulas, the claim corrected in each point | A reader could be written from it; the gain divided into offset and search, with a case in which Q4_0 wins |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** 2 + 2 + 12 + 128 bytes: d, dmin (float16), 8 scales **and** 8 minima of 6 bits, 256 codes of 4. w = d·sc·q − dmin·m. 1024 + 96 + 32 = 1152 bits, 4.5 each. Every weight has exactly 4 bits; nothing
# adapts but the grid of each 32 weights. Sub-blocks 0–3 read with a mask; 4–7 from a nibble and two borrowed bits. Nibbles 64 wide. The minimum is unsigned and subtracted: no grid begins above zero.
# Q4_0: one float16 scale **per block of 32** (16 / 32 = 0.5 bit), (q − 8)·d, d = signed largest / −8, no offset.
# Gain on N(0, 1) (part 1 of the experiment): 8.61 % to 7.87 % by the offset, to 7.15 % by the weighted search for scale and minimum. Q4_1 pays 5.0 bits for the offset; Q4_K pays with integers instead of float16.
# No gain: a small sub-block beside a large one (2.39 % against 4.01 % in part 2); weights already on another grid; rows that do not divide by 256.
#
# **Strong, 8 of 8.** *"144 bytes for 256 weights: d and dmin, two halves; 12 bytes with eight 6-bit scales and eight 6-bit minima (0–3: low 6 bits of bytes 0–3 and 4–7; 4–7: nibbles of bytes 8–11, scale low, with the top two bits of the first eight bytes); 128 bytes
# of nibbles, 64 weights per 32 bytes, low nibbles first. w = d·sc·q − dmin·m. 128 + 12 + 4 bytes = 1152 bits, 4.5. So there are 16 numbers per super-block, and no precision adapts: always 4 bits. Q4_0 is not global either: a half per 32 weights, (q − 8)·d, also 4.5. Same price,
# but integers make scales cheap, and the rest buys an offset. On Gaussian weights I measured 8.6 % for Q4_0, 7.9 % for this layout with min-max, 7.2 % with the search that minimises the weighted squared error, so half of the gain is the encoder and not the format. It costs where sizes differ inside a super-block: a scale that
# deserves 6.1 of 63 steps becomes 6; a sub-block below 1/126 of the largest gets scale 0. In such a block Q4_0, with its own half, wins: 2.4 against 4.0 % in the example I ran."* Complete; the gain is taken apart and bounded.
#
# **Middling, 5 of 8.** *"Q4_K has super-blocks of 8 × 32 weights. Each sub-block has a 6-bit scale and a 6-bit minimum, packed into 12 bytes; two halves scale these. The value is d·sc·q − dmin·m. That is 4.5 bits per weight like Q4_0, which has one half scale per 32 weights and no minimum. All weights have 4 bits. The
# minimum makes the grid asymmetric, which fits real weights better."* Right in all fields and on both formats. The packing is missing, the search is not mentioned, and no case against.
#
# **Weak, 2 of 8.** *"K-quants have super-blocks with a scale and sub-blocks with their own scales. This hierarchy keeps small blocks precise, while Q4_0 has a single scale. Important blocks get more precision."* Two levels, and then the claim's two errors once more.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (K-quants understanding):

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-variants", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": true}
# ### Variant comparison (8 points)
#
# In 250 words or fewer: what are Q4_K_S, Q4_K_M and "Q4_K_L", with the size of Llama-2-7B in each? Then choose, and say what you would measure: (1) Llama-2-7B on a laptop with 8 GB; (2) Llama-3-8B for tool calls
# on one GPU with 24 GB; (3) a nightly batch job on a data-centre GPU; (4) SmolLM2-135M on a phone.
#
# | Poor (0–2) | Fair (3–4) | Good (5–6) | Excellent (7–8) |
# |:--|:--|:--|:--|
# | No difference, or that of the table on the web | Lists the variants in order of size and quality | Which tensors differ, sizes within 3 %, a reason for each choice | Sizes derived; chooses by constraint and measurement; knows where the names mislead |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** S: Q4_K, with Q5_K for attn_v in layers 0–3 and ffn_down in the first eighth, output Q6_K: 3.86 GB, 4.578 bits. M: Q6_K for attn_v and ffn_down in 16 of 32 layers and for the output: 4.08 GB, 4.844 bits; 16.6 % of the weights have Q6_K. Q, K, attention's output projection, gate, up and embeddings
# stay Q4_K. "L" does not exist in llama.cpp for Q4_K (Q3_K_L does): a community label for Q4_K_M with embeddings and output in Q8_0 (formerly F16): 4.18 GB, 4.960 bits by the rule with Q8_0. All of it from (c) or `quant_kernels.plan_mix`.
# Quality, llama.cpp's `tools/perplexity/README.md`, Llama-3-8B, KL divergence from F16: Q4_0 0.072, Q4_K_S 0.043, the same with an importance matrix 0.032, Q4_K_M 0.031, with one 0.028; perplexity of Q4_K_M +2.8 %, of Q5_K_M +0.9 %, of Q6_K +0.35 %.
# (1) M fits: 4.08 GB + KV cache of 1.07 GB at 2,048 tokens in float16 (524,288 bytes per token) + buffers; S only where the 0.22 GB decide. (2) Memory is not short: Q6_K (6.59 GB) or Q8_0 (8.53 GB, Llama-3.1-8B's sizes), decided by the task's own test: a mean divergence says little about one wrong bracket in a tool call. (3) Large batches are bound by compute:
# weight-only 4 bits bring little or nothing; W8A8 (FP8 or INT8), or W4A16 with a kernel made for the batch. (4) Rows of 576: 180 tensors fall back, "Q4_K_M" has 6.17 bits (103.7 MB), more than Q4_0's 5.35: name a mix by its bytes.
#
# **Strong, 8 of 8.** *"Recipes for files. S: Q4_K everywhere, Q5_K for attn_v of 4 layers and ffn_down of the first eighth, Q6_K output; from the shapes 3.86 GB. M: attn_v and ffn_down Q6_K in 16 of 32 layers, output Q6_K; 4.08 GB, 4.84 bits, a sixth of the weights in 6 bits; not Q, not K. L is a label of uploaders: M plus Q8_0
# embeddings and output, 4.18 GB. I choose by constraint: smallest file whose KL divergence and task score on my data stay within budget. (1) M plus 1 GiB of KV cache at 2k fits 8 GB; S saves 5 %. With an importance matrix S (0.032) gets to M's 0.031 without one (README, Llama-3-8B), so I would take a matrix before I take bits. (2) 24 GB hold
# Q8_0; nothing to gain below Q6_K but speed, so start at Q6_K and test JSON validity and arguments. (3) Compute bound: FP8 W8A8, not a K-quant; measure tokens per second at the real batch. (4) 576 is no multiple of 256: Q5_0 and Q8_0 step in and Q4_K_M is 6.2 bits, larger than Q4_0; compare files by bytes."* Derived, chosen by constraint, and the names' limits known.
#
# **Middling, 5 of 8.** *"S is smaller and M better: M has Q6_K for half of the attn_v and ffn_down tensors and the output, S a few Q5_K. About 3.9 and 4.1 GB for 7B. L I only know from downloads. Laptop: M. GPU with 24 GB: Q6_K, there is room. Batch: S, because it is fastest. Phone: Q4_K_S."* Tensors and sizes right, two good choices.
# (3) takes bandwidth for the bound at large batches, (4) misses the fallback, and nothing would be measured.
#
# **Weak, 2 of 8.** *"S, M and L are small, medium and large. M keeps the attention in 6 bits, L half of the weights. M is the best compromise; use S for limited RAM and L for quality."* The web's table.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (variant comparison):

# %% [markdown]
# ## Follow-up questions
#
# Try each aloud before you unfold what a strong answer touches.
#
# **1. How would you make a custom mix for a specific model?**
#
# <details><summary>A strong answer touches</summary>
#
# A byte budget and a loss that matters (KL divergence on your own traffic, task score). Sensitivity: quantize one tensor at a time, measure the divergence, divide by the bytes saved; then give the bits where a byte buys most, and
# measure the *whole*, because damages do not quite add up. Importance matrix from data like the traffic's, evaluation on other data. llama-quantize takes types per tensor (`--tensor-type`). Against a baseline: Q4_K_M of
# the same size with the same importance matrix. Kernels have to exist for every type that you use.
#
# </details>
#
# **2. What does dequantization cost during inference? Is it negligible?**
#
# <details><summary>A strong answer touches</summary>
#
# It depends on what bounds the step. One token at a time, the weights' bytes do: unpacking with a shift, a mask and a multiply-add hides behind the memory. A long prompt is compute bound, and there it shows: llama.cpp's `tools/quantize/README.md` has
# Llama-3.1-8B's prompt processing at 923 tokens/s in F16 and 822 in Q4_K_M. Nor do all formats unpack cheaply: codebook formats such as IQ3_S can be slower than larger scalar ones on a CPU. On CPUs and in CUDA's MMQ kernels no weight becomes a float at all: activations are
# quantized too.
#
# </details>
#
# **3. How does a CPU multiply Q4_K without turning it into floats, and what becomes of the minima?**
#
# <details><summary>A strong answer touches</summary>
#
# Activations become Q8_K: int8 codes y, one float scale per 256, and the sums of each 16 codes. Then Σ (d·sc·q − dmin·m)·y = d · Σⱼ scⱼ · Σ q·y − dmin · Σⱼ mⱼ · Σ y: integer dots per sub-block, multiplied by integer scales, and two float
# multiplications per super-block. The minima need only the sums, which are computed once per activation vector and serve all rows. Two levels of integers are what makes that possible.
#
# </details>
#
# **4. A model has tied embeddings, or rows of 576. What happens to Q4_K_M?**
#
# <details><summary>A strong answer touches</summary>
#
# Tied: `token_embd.weight` is the output matrix and gets Q6_K. For Llama-3.2-1B that is a fifth of the weights, and the file has 5.18 bits per weight. Rows of 576 have no whole number of super-blocks: Q4_K becomes Q5_0, Q6_K becomes
# Q8_0, and llama-quantize says so in its log. SmolLM2-135M "Q4_K_M" has 6.17 bits and is larger than its Q4_0 (5.35). (Both from `tensor_types` and `file_size`.) Look into the file before you compare by name.
#
# </details>
#
# **5. Is an I-quant a quant that was made with an importance matrix?**
#
# <details><summary>A strong answer touches</summary>
#
# No. IQ1 to IQ3 are vector quantization: codes index a grid of 4 or 8 values, and signs are stored apart. IQ4_NL and IQ4_XS are scalar with 16 values that are not evenly spaced. The importance matrix is an input of the encoder of nearly every
# type, legacy ones included (llama.cpp pull requests 4861, 4930, 4969); the smallest types (IQ1, most of IQ2, IQ3_XXS) and the mix Q2_K_S are refused without one.
#
# </details>
#
# **6. Where does the calibration text come from, and how long must it be?**
#
# <details><summary>A strong answer touches</summary>
#
# Not from what you evaluate on; the author of the feature says so in pull request 4930 itself: not even for the importance matrix. Like the traffic: languages, code, chat template. Only a diagonal is estimated (one number per column), so tens of thousands of tokens do; on the
# course model 8 windows were as good as 64. Check coverage: a column that saw no input has importance 0, and an expert of a mixture that saw no token has no data at all.
#
# </details>
#
# **7. Your Q4_K_M file was made from a Q8_0 file, not from F16. Does it matter?**
#
# <details><summary>A strong answer touches</summary>
#
# Errors add up roughly as squares: Q8_0's 0.5 % beside Q4_K's 7.1 % on N(0, 1) changes it in the third digit. From Q4_0 to Q4_K it would matter: two grids, both errors. llama-quantize refuses to requantize unless told (`--allow-requantize`). And an error of conversion
# (wrong RoPE base, wrong tokenizer) survives every requantization: keep the F16 file and its hash.
#
# </details>

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-depth", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": true}
# ### Technical depth: the talk (8 points)
#
# Answer the question at the top in 20 minutes, to an interviewer who may ask any of the follow-ups. Draw a super-block, show your code and your measurements. Then write below what you said, in ten lines or fewer.
#
# | Poor (0–2) | Fair (3–4) | Good (5–6) | Excellent (7–8) |
# |:--|:--|:--|:--|
# | Names and slogans | Understands blocks; sizes and qualities quoted, not derived | Two levels, the formulas, and bits derived; knows that the encoder searches and what the importance matrix weighs | States the encoder's problem and solves it on the board; says what each part is worth in numbers, and where they stop holding |
#
# === BEGIN MARK SCHEME ===
#
# **The model answer, in five parts of four minutes.**
#
# 1. *One block.* Draw 144 bytes: d, dmin, 12 bytes, 128 bytes. Sixteen 6-bit numbers: three rows of four. w = d·sc·q − dmin·m. 4 + (96 + 32)/256 = 4.5 bits. Beside it Q4_0's 18 bytes: 4 + 16/32. "Same price; integers for scales pay for an offset." Q6_K: signed 8-bit scales per 16, no
#    minima, 6.5625 bits.
# 2. *How it is filled.* Minimise Σ w(x − s·q + m)² over s ≥ 0, m ≥ 0 and codes. Given codes it is a line through 32 points; given the line, codes are the nearest. Alternating stops in the first valley (0.85–0.90 of min-max's error); 21 scales around range / 15, each refitted, get to 0.80. Then scales to 6 bits, and codes **again**
#    for the stored grid. Worth on N(0, 1): 8.61 to 7.87 % by the offset, to 7.15 % by the search.
# 3. *What the importance matrix is.* For independent inputs the output error of a row is Σⱼ E[xⱼ²] (wⱼ − ŵⱼ)²: mean squared activations per column, the diagonal of XᵀX / n; no gradients. It weighs the search above; bits and file size do not change. On a matrix with log-normal inputs the weights' error rises (7.1 to 7.8 %) and the
#    outputs' falls (7.1 to 4.4 %). Off the diagonal it knows nothing: that is GPTQ's business.
# 4. *From type to file.* A mix is a rule on names and layers: attn_v and ffn_down in layers below ⌊n/8⌋, from ⌊7n/8⌋ on and every third between; output Q6_K. Llama-2-7B 4,080,263,168 bytes, 4.844 bits; Llama-3.1-8B 4.894. S 4.578. No Q4_K_L. Tied embeddings, fallback.
# 5. *Choice and limits.* Smallest file within a budget of KL divergence on own data. Course model: 0.0190, 0.0129, 0.0100 for Q4_0, Q4_K, Q4_K_M; perplexity could not order the last two. Q4_0 beats Q4_K in a block beside a much larger one. Large batches and prompts are compute bound: other formats.
#
# There is no separate category for communication: score what was understood, as it was said. The samples are what candidates wrote of their talks.
#
# **Strong, 8 of 8.** *"I drew both blocks and counted 1152 bits for 256 and 144 for 32: the same 4.5. Then the encoder as a least-squares problem in (s, m) with integer codes; I derived the 2 × 2 system, said that m ≥ 0 because it is stored unsigned, and showed the map with many valleys: alternating from min-max gave 0.86, 21 starts 0.80 of its error. Scales become
# 6-bit, so I round the weights again. 8.61 → 7.87 → 7.15 %: offset, search. Importance: E[x²] per column falls out of the output error for uncorrelated inputs; the same bytes, weights' error up from 7.1 to 7.8, outputs' down to 4.4 %. Mix: the layer rule and the exact 4,080,263,168 bytes. I ran the worked example that is told everywhere: Q4_0 is better in the small block, 2.4 against 4.0 %,
# since its scale is 6/63 of the largest. On the course model 0.0190, 0.0129, 0.0100 nats; perplexity left Q4_K and Q4_K_M undecided. Open: my encoder weighs only the first level; ggml's also the second, 0.0120 against my 0.0128 with the matrix."* The problem stated and solved, each part with its worth, limits unasked.
#
# **Middling, 5 of 8.** *"I explained the super-block with scales and minima, the formula, and 4.5 bits. Q4_K_M uses Q6_K for some attn_v and ffn_down layers; I showed the resolver and 4.08 GB. The encoder tries several scales and takes the best, weighted by the importance matrix, which is squared activations. My search was within the limit of ggml's. Q4_K was better
# than Q4_0 on the course model, so I would use Q4_K_M by default."* Right throughout, bits derived. The least-squares step, the second rounding and the size of each effect are missing; the reversal came only on request.
#
# **Weak, 2 of 8.** *"K-quants are hierarchical, with importance-aware mixed precision: important weights get 6 bits. Q4_K_M is the sweet spot, with almost no loss of quality. My tests pass."* Slogans; types and mixes confused; nothing measured.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (the talk, in ten lines or fewer):
