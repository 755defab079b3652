# ---
# jupyter:
#   course:
#     number: 5
#     title: Activation vs weight quantization
#     category: Conceptual
#     difficulty: Mid-Senior
#     levels: [mid, senior]
#     companies: [Meta, Google, Anthropic]
#     minutes: {talk: 15, code: 45}
#     prerequisites:
#       - matrix products in torch or numpy, integer and float16 arithmetic
#       - "Question 1: scale, zero point, rounding error, bits per weight"
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
# # Question 5: Activation vs weight quantization
#
# | | |
# |:--|:--|
# | **Category** | Conceptual |
# | **Difficulty** | Mid-Senior; marked for the levels mid and senior |
# | **Companies** | Meta, Google, Anthropic |
# | **Time** | 45 minutes of code, then a talk of 15 minutes |
# | **You should know** | matrix products in torch or numpy, int8 and float16 arithmetic, scale and zero point (question 1) |
# | **Code points** | 30, in six exercises |
# | **Rubric points** | 28, in four categories of 7 |
# | **Mid passes with** | 12 rubric points and 60 % of the code points |
# | **Senior passes with** | 18 rubric points and 80 % of the code points |

# %% [markdown]
# ## The question
#
# > "Weights are known when the model ships, activations only when the request is there. Tell me what that changes: who chooses
# > the scales, which scales a matrix product can bear, what breaks. People say that llama.cpp quantizes weights only. Is that so?
# > Then give me the batch size from which on I should quantize activations too, and show me what you would do with a model
# > whose activations have outliers. I want numbers, and I want to know where they come from."

# %% [markdown]
# ## What is looked for
#
# **Competencies.** The algebra of scales around an integer product; static and dynamic ranges and what each needs; the
# difference between saving bytes and saving arithmetic; a roofline used to decide; a published claim held against a measurement.
#
# | Green flags | Red flags |
# |:--|:--|
# | Says which dimension a scale runs along, and why the others do not factor out | "Per channel is always better" |
# | Separates decode from prefill, and both from the batch | "Inference is bandwidth-bound" |
# | Counts the KV cache | Compares 3.5 GB of weights with 16 MB of activations and stops |
# | Knows that integer kernels quantize activations on the fly | "GGUF is dequantized to float, then multiplied" |
# | Dynamic scales need no calibration, static ones do | "Activation quantization needs a calibration set" |
# | Keeps outliers by splitting, moving or rotating them | Clips the outliers, or hopes that 8 bits suffice |

# %% [markdown]
# ## Background 1: what a step reads, and what it computes
#
# A claim you will meet: *"The weights are 3.5 GB, the activations 1 · 2048 · 4096 · 2 bytes = 16 MB, so quantizing activations is
# pointless."* The cell counts what one step of Llama-2-7B moves. Activations are all inputs and outputs of the matrix products;
# most of them stay in a cache of the chip and never cross the memory bus.

# %% tags=["experiment"]
from quant_kernels.models.shapes import ARCHITECTURES
from quant_kernels.roofline import traffic

llama = ARCHITECTURES["Llama-2-7B"]
steps = {
    "decode, 1 sequence of 2048 tokens": {"batch": 1, "context": 2048},
    "decode, 32 sequences of 2048 tokens": {"batch": 32, "context": 2048},
    "prefill, 1 prompt of 2048 tokens": {"batch": 1, "tokens": 2048},
}
print(f"{'GB per step':38}{'weights, 4.125 bits':>20}{'KV cache, FP16':>16}{'activations, FP16':>19}{'Top':>9}")
for name, step in steps.items():
    moved = traffic(llama, weights=4.125, **step)
    cache = moved.kv_read + moved.kv_written
    row = f"{moved.weights / 1e9:20.2f}{cache / 1e9:16.2f}{moved.activations / 1e9:19.3f}"
    print(f"{name:38}{row}{moved.operations / 1e12:9.3f}")

# %% [markdown]
# Top are 10¹² operations, additions and multiplications. The 16 MB of the claim are *one* tensor of *one* layer in prefill. In decode
# the same tensor has 8 KB per sequence, so the claim understates its own point, and misses two others:
#
# - **The KV cache is activations too.** At batch 32 it is ten times the weights. Quantizing *it* does save bandwidth.
# - **Prefill does 27.6 Top on 4.5 GB.** There time is arithmetic, and an 8-bit multiplier does twice the operations per second of a
#   16-bit one. That is what quantized activations buy: arithmetic, not bandwidth. Exercise (d) turns it into a batch size.

# %% [markdown]
# ## Background 2: what activations look like
#
# From about 6.7 · 10⁹ parameters on, Dettmers et al. (LLM.int8(), arXiv 2208.07339) found a few channels of the hidden state tens
# of times larger than the rest, the same channels in nearly all tokens. The course's model is too small to grow them behind its norms, so
# we give them to it: five channels of each norm's gain are multiplied by 60, and the columns that read them divided by 60. The
# function stays the same. The cell shows 64 tokens at the input of one layer, and the weight that reads them.

# %% tags=["experiment"]
import matplotlib.pyplot as plt
import torch

import quant_kernels as qk
from course.fetch import fetch
from course.texts import evaluation_text
from quant_kernels.methods import linears
from quant_kernels.methods.outliers import inject_outliers

torch.set_grad_enabled(False)
model = qk.load_model(fetch("course-model"))
outlier_model = inject_outliers(model, factor=60, channels=5)
evaluation_tokens = model.tokenizer.encode(evaluation_text())


def inputs_of(some_model, tokens):
    """The input (tokens, n) of each linear layer, by name."""
    seen = {}
    windows = torch.tensor(tokens).view(-1, 512)
    linears.calibrate(some_model, windows, lambda name, x: seen.setdefault(name, []).append(x.flatten(0, -2)))
    return {name: torch.cat(parts) for name, parts in seen.items()}


inputs = inputs_of(outlier_model, evaluation_tokens[:1024])
x, weight = inputs["blk.4.attn_q"], outlier_model.weights()["blk.4.attn_q.weight"]
figure, panels = plt.subplots(1, 2, figsize=(7.5, 3.4), sharex=True, layout="constrained")
for axes, values, title, rows in (
    (panels[0], x[256:320], "activations: 64 tokens", "token"),
    (panels[1], weight[:64], "weights: 64 output rows", "output row"),
):
    shade = (values.abs() / values.abs().median()).clamp(min=0.1).log10()
    image = axes.imshow(shade, aspect="auto", cmap="magma", vmin=-1, vmax=2, interpolation="nearest")
    axes.set(title=title, xlabel="input channel", ylabel=rows)
bar = figure.colorbar(image, ax=panels, ticks=[-1, 0, 1, 2])
bar.ax.set_yticklabels(["≤ 0.1", "1", "10", "100"])
bar.set_label("magnitude / median magnitude")
plt.show()

for name in ("blk.4.attn_q", "blk.5.ffn_down"):
    x = inputs[name]
    deviations = (x - x.mean()).abs() / x.std()
    beyond = ", ".join(f"{100 * (deviations > k).float().mean():.2f} % beyond {k} σ" for k in (3, 6))
    print(f"{name:15} {beyond}, largest {deviations.max():.0f} σ")

# %% [markdown]
# The stripes are channels, and every token has them. The weights that read them are dark there: smaller, not larger.
# Hence "outliers" in language models means activation **channels**, and a share of all *values* describes them poorly. The second line is the
# model as it was trained, without our help: the input of `ffn_down`, a product of two activations, has single huge values in some tokens.
# (N(0, 1) has 0.27 % beyond 3 σ, and 2 · 10⁻⁹ beyond 6 σ.)

# %% [markdown]
# ## Background 3: where a scale may stand
#
# ```
#             n channels                        n channels
#         ┌────────────────┐                ┌────────────────┐
# token t │  q_x   (int8)  │ s_x[t]   row j │  q_w   (int8)  │ s_w[j]
#         └────────────────┘                └────────────────┘
#             s[c]: no                          s[c]: no
#
#   y[t, j]  =  s_x[t] · s_w[j] · Σ_c q_x[t, c] · q_w[j, c]        what depends on c is inside the sum
# ```
#
# A scale per token and one per output row stand outside of the sum: they multiply the finished result, an outer product s_x ⊗ s_w. A scale per
# input channel changes *within* the sum: then each product needs a float multiplication of its own, and no integer
# instruction can add them. A scale per **block** of channels is between the two: the sum is cut in pieces, an integer sum in
# each, and a float multiplication per block. That is what ggml does.
#
# | path | weights at the multiplier | activations at the multiplier | sum |
# |:--|:--|:--|:--|
# | llama.cpp on a CPU, Q4_0 and Q8_0 | integer codes | **Q8_0**: int8, a scale per 32, made on the fly | int32 in a block, then float |
# | llama.cpp on a CPU, K-quants | integer codes | **Q8_K**: int8, a scale per 256 | int32 in a sub-block, then float |
# | llama.cpp on CUDA (MMVQ, MMQ) | integer codes | **Q8_1**: int8, a scale and a sum per 32 | int32, then float |
# | llama.cpp on Metal | decoded in registers to half or float | half or float | float |
# | W4A16, as Marlin does it | decoded in registers to FP16 | FP16 | FP32 |
# | W8A8 | int8 or FP8, a scale per row | int8 or FP8, a scale per token | int32 or FP32 |
#
# Sources: `vec_dot_type` in llama.cpp's `ggml-cpu.c`, its pull requests 951 (activations to Q8_0, April 2023) and 2683 (integer kernels by default on
# CUDA, August 2023), the kernels in `ggml-metal`; the README of IST-DASLab/marlin.

# %% [markdown]
# ## Exercises
#
# All functions take and return CPU tensors of torch, or plain Python numbers where it says so, and leave their arguments as they are. Inputs are finite,
# `...` stands for one dimension or more, no dimension is 0, results may have any strides. Use torch or numpy; `quant_kernels` is not there when your
# answer is graded. The exercises do not build on one another: each is scored alone.
#
# **Rounding.** Codes are the nearest integers. Exact halves may go either way: no test has an x / scale near a half where
# it would show.

# %%
import numpy as np
import torch

# %% [markdown]
# ### Exercise (a): W8A8, and the scale that does not factor out
#
# *7 minutes, 5 points*
#
# ```
# quantize_rows    x: float32 (..., n)                            →  codes: int8 (..., n)
#                                                                    scale: float32 (..., 1)
# w8a8_linear      x: float32 (..., n)                            →  y: float32 (..., m)
#                  w_codes: int8 (m, n), w_scale: float32 (m, 1)
# channel_linear   x_codes: int8 (..., n), s: float32 (n,) > 0    →  y: float32 (..., m)
#                  weight: float32 (m, n)
# ```
#
# | | |
# |:--|:--|
# | `quantize_rows` | symmetric, a scale per row: `scale = max(abs(x)) / 127`, `codes = round(x / scale)`; in a row of zeros the codes are 0 and the scale is 1 |
# | `w8a8_linear` | quantizes x per token by that rule; y = Σ_c q_x · q_w, times both scales |
# | `channel_linear` | here x was quantized with a fixed scale per **channel**: x[t, c] ≈ s[c] · x_codes[t, c]. Give y ≈ x Wᵀ by **one** product of int8 codes, with `x_codes` as they are, followed by one float scale per output row. Whatever you quantize, quantize it by the rule of `quantize_rows` |
# | Integer sums | exact. n goes up to 65 536, so a sum goes up to 127² · 65 536 ≈ 1.06 · 10⁹, and so do partial sums: int32 holds that, float32's 24 bits do not |
# | Tolerance | none for codes. 10⁻⁶ relative for scales and for y: rounding the sum, the scales and their products to float32 takes 6 roundings of at most 6 · 10⁻⁸ each |
#
# In torch int8 times int8 stays int8. A product of float64 tensors is exact up to 2⁵³, and fast.


# %% nbgrader={"grade": false, "grade_id": "w8a8", "locked": false, "schema_version": 3, "solution": true, "task": false}
def quantize_rows(x):
    """Quantize float32 `(..., n)` to int8 codes `(..., n)` with a float32 scale per row `(..., 1)`."""
    ### BEGIN SOLUTION
    peak = x.abs().amax(-1, keepdim=True)  # (..., 1)
    scale = torch.where(peak == 0, 1.0, peak / 127)
    return (x / scale).round().to(torch.int8), scale
    ### END SOLUTION


def w8a8_linear(x, w_codes, w_scale):
    """Multiply x, float32 `(..., n)`, quantized per token, with int8 rows `(m, n)`; returns float32 `(..., m)`."""
    ### BEGIN SOLUTION
    x_codes, x_scale = quantize_rows(x)
    sums = x_codes.double() @ w_codes.double().T  # (..., m), integers below 2**53
    return (sums * x_scale * w_scale.T).float()
    ### END SOLUTION


def channel_linear(x_codes, s, weight):
    """Multiply x ≈ s · x_codes, int8 `(..., n)` and a scale per channel `(n,)`, with float32 rows `(m, n)`.

    Returns float32 `(..., m)`.
    """
    ### BEGIN SOLUTION
    w_codes, w_scale = quantize_rows(weight * s)  # the weight's columns take s in before they are quantized
    sums = x_codes.double() @ w_codes.double().T  # (..., m)
    return (sums * w_scale.T).float()
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Write down y[t, j] as a sum over c with every scale in its place. What does not carry the index c may leave the sum.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# `w_scale` is a column `(m, 1)`, and y has its rows along the last dimension: transpose it. For `channel_linear`: s[c] · W[j, c] is
# a weight like any other. Which tensor is still in float, so that it can take s in?
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# scale = largest magnitude of each row / 127, or 1
# integer = q_x as float64 @ (q_w as float64).T
# y = integer * scale_x * scale_w.T                       # then float32
# # per channel: quantize the rows of weight * s, multiply x_codes with them; there is no scale of x left
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-w8a8", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_close, check_equal

WHY = "10⁻⁶ of the value"
x = torch.tensor([[12.7, 5.0, -0.1], [0.254, 0.1, 0.002], [0.0, 0.0, 0.0]])
expected = torch.tensor([[127, 50, -1], [127, 50, 1], [0, 0, 0]], dtype=torch.int8)
codes, scale = quantize_rows(x)
mistakes = {
    "one scale serves all tokens": torch.tensor([[0.1], [0.1], [0.1]]),
    "the scale is max / 128": torch.tensor([[12.7], [0.254], [128.0]]) / 128,
    "a row of zeros has scale 0": torch.tensor([[0.1], [0.002], [0.0]]),
}
expected_scale = torch.tensor([[0.1], [0.002], [1.0]])
check_close(scale, expected_scale, 1e-6 * expected_scale, "quantize_rows, 3 tokens: scale", WHY, mistakes)
check_equal(codes, expected, "quantize_rows, 3 tokens: codes")
w_codes = torch.tensor([[1, 2, 3], [-127, 0, 127]], dtype=torch.int8)
w_scale = torch.tensor([[0.5], [0.01]])
expected = torch.tensor([[11.2, -16.256], [0.23, -0.32004], [0, 0]])
mistakes = {
    "the scale of x is left out": torch.tensor([[112.0, -162.56], [115, -160.02], [0, 0]]),
    "the scale of the weight is left out": torch.tensor([[22.4, -1625.6], [0.46, -32.004], [0, 0]]),
    "products and sums wrap around at 8 bits": torch.tensor([[-1.6, -0.128], [-0.026, 0.00252], [0, 0]]),
    "products wrap around at 8 bits": torch.tensor([[11.2, -0.128], [0.23, 0.00252], [0, 0]]),
}
what = "w8a8_linear of 3 tokens and 2 rows"
y = w8a8_linear(x, w_codes, w_scale)
check_close(y, expected, 1e-6 * expected.abs(), what, WHY, mistakes)
assert y.shape == (3, 2), f"{what}: shape {tuple(y.shape)}, expected (3, 2)"
### BEGIN HIDDEN TESTS


def made(generator, *shape):
    """Rows whose codes are known: x = scale · (codes + something within ±0.45), the largest code ±127 met exactly."""
    q = torch.randint(-126, 127, shape, generator=generator)
    rest = 0.9 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 0.45
    peak = torch.randint(shape[-1], (*shape[:-1], 1), generator=generator)
    q.scatter_(-1, peak, 127 * (1 - 2 * (peak % 2)))
    rest.scatter_(-1, peak, 0.0)
    scale = torch.rand(*shape[:-1], 1, generator=generator, dtype=torch.float64) ** 3 + 0.001
    return ((q + rest) * scale).float(), q, scale


def product(q_x, s_x, q_w, s_w):
    return ((q_x.double() @ q_w.double().T) * s_x * s_w.double().T).float()


def requantized(x, scale, rounding=torch.round):
    return rounding(x / scale.float()).clamp(-128, 127), scale


def float_scale(x):
    peak = x.abs().amax(-1, keepdim=True)
    return torch.where(peak == 0, 1.0, peak / 127)


generator = torch.Generator().manual_seed(501)
for shape, m in (((9, 40), 7), ((2, 3, 33), 5), ((1, 17), 4), ((4, 300), 3)):
    x, q_x, s_x = made(generator, *shape)
    if shape[0] == 9:
        x[1], q_x[1], s_x[1] = 0, 0, 1
    flat, name = x.reshape(-1, shape[-1]).double(), f"x of shape {shape}"
    codes, scale = quantize_rows(x)
    mistakes = {
        "one scale serves all tokens": (x.abs().max() / 127).expand(s_x.shape),
        "the scale runs along the tokens: one per column": lambda: (x.abs().amax(0) / 127)[..., :1].expand(s_x.shape),
        "the scale is max / 128": s_x.float() * 127 / 128,
        "a row of zeros has scale 0": torch.where(q_x.any(-1, keepdim=True), s_x, 0.0).float(),
        "the scale comes from the largest value, its sign ignored": (x.amax(-1, keepdim=True) / 127),
    }
    check_close(scale, s_x.float(), 1e-6 * s_x, f"quantize_rows, {name}: scale", WHY, mistakes)
    mistakes = {
        "codes are cut off toward zero, not rounded": lambda: requantized(x, float_scale(x), torch.trunc)[0].to(
            torch.int8
        ),
        "codes are rounded down": lambda: requantized(x, float_scale(x), torch.floor)[0].to(torch.int8),
    }
    check_equal(codes, q_x.to(torch.int8), f"quantize_rows, {name}: codes", mistakes)
    q_w = torch.randint(-127, 128, (m, shape[-1]), generator=generator).to(torch.int8)
    s_w = torch.rand(m, 1, generator=generator) + 0.01
    expected = product(q_x, s_x, q_w, s_w)
    whole = q_x.long().unsqueeze(-2) * q_w.long()  # (..., m, n)
    mistakes = {
        "x stays in float: nothing is quantized": product(x, 1.0, q_w, s_w),
        "one scale serves all tokens": product(*requantized(x, x.double().abs().max() / 127), q_w, s_w),
        "codes are cut off toward zero, not rounded": product(*requantized(x, float_scale(x), torch.trunc), q_w, s_w),
        "the scale of x is left out": product(q_x, 1.0, q_w, s_w),
        "the scale of the weight is left out": product(q_x, s_x, q_w, s_w**0),
        "one scale of the weight serves all rows": product(q_x, s_x, q_w, s_w[:1].expand(m, 1)),
        "products wrap around at 8 bits": (((whole + 128) % 256 - 128).sum(-1) * s_x * s_w.T).float(),
        "products and sums wrap around at 8 bits": (((whole.sum(-1) + 128) % 256 - 128) * s_x * s_w.T).float(),
    }
    y = w8a8_linear(x, q_w, s_w)
    check_close(y, expected, 1e-6 * expected.abs() + 1e-30, f"w8a8_linear, {name}", WHY, mistakes)

x, q_x, s_x = made(generator, 40, 6)
s_w, q_w = torch.rand(3, 1, generator=generator), torch.randint(-9, 9, (40, 3), generator=generator).to(torch.int8).T
expected = product(q_x.T.float(), 1.0, q_w, s_w)  # columns of x are rows here
columns, peaks = x.T, x.T.abs().amax(1, keepdim=True).double() / 127
y = w8a8_linear(columns, q_w, s_w)
expected = product(requantized(columns, peaks)[0], peaks, q_w, s_w)
check_close(y, expected, 1e-6 * expected.abs() + 1e-30, "w8a8_linear of transposed tensors", WHY)

n = 65536  # sums that cancel: the partial ones leave float32's 24 bits in any order of summation
signs = torch.stack(
    [
        (torch.arange(n) < n // 2) * 2 - 1,
        (torch.arange(n) % 2) * -2 + 1,
        (torch.arange(n) // 64 % 2) * -2 + 1,
        (torch.arange(n) // 4096 % 2) * -2 + 1,
        (torch.randperm(n, generator=generator) < n // 2) * 2 - 1,
        torch.ones(n, dtype=torch.long),
    ]
)
q_w = (127 * signs).to(torch.int8)
x = torch.full((3, n), 127.0)
x[0, 5], x[1, 7::1000], x[2, 11:4000] = 126, 125, 124
expected = product(x.double(), 1.0, q_w, torch.ones(6, 1))
y = w8a8_linear(x, q_w, torch.ones(6, 1))
off = (y.double() - expected).abs()
assert (off <= 1e-6 * expected.abs()).all(), (
    f"w8a8_linear over {n} channels: the sums are not exact, one is off by {off.max():.3g}. Partial sums pass 2²⁴, where "
    "float32 rounds them, or leave the range of a narrower integer: add in int32, or in float64"
)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-channel", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_close

x_codes = torch.tensor([[1, 2, 3], [100, 0, -1]], dtype=torch.int8)
s, weight = torch.tensor([0.5, 10.0, 2.0]), torch.tensor([[254.0, 1.0, 10.0], [-508.0, 6.0, 0.0]])
expected = torch.tensor([[207.0, -134], [12680, -25400]])
mistakes = {
    "s is left out": torch.tensor([[284.0, -492], [25390, -50800]]),
    "s divides the weight; x is about s · x_codes, so it multiplies": torch.tensor([[520.0, -1016], [50796, -101600]]),
    "the mean of s multiplies the sum; s changes from channel to channel and does not leave it": torch.tensor(
        [[1183.33333, -2050], [105791.66667, -211666.66667]]
    ),
    "s multiplies after the weight is quantized: it stands inside the sum, and the product is not one of integers": (
        torch.tensor([[187.0, -94], [12680, -25400]])
    ),
    "products and sums wrap around at 8 bits": torch.tensor([[-49.0, -134], [-120, 200]]),
    "products wrap around at 8 bits": torch.tensor([[207.0, -134], [-120, 200]]),
}
what = "channel_linear of 2 tokens and 2 rows"
y = channel_linear(x_codes, s, weight)
check_close(y, expected, 1e-6 * expected.abs(), what, "10⁻⁶ of the value", mistakes)
assert y.shape == (2, 2), f"{what}: shape {tuple(y.shape)}, expected (2, 2)"
### BEGIN HIDDEN TESTS


def rows_with_codes(generator, m, n):
    """Codes (m, n) of rows, and what they are codes of, divided by their scale: within ±0.45 of the code."""
    q = torch.randint(-126, 127, (m, n), generator=generator).double()
    rest = 0.9 * torch.rand(m, n, generator=generator, dtype=torch.float64) - 0.45
    q[:, 3], rest[:, 3] = 127, 0
    return q, q + rest


def by_rows(w):
    scale = w.abs().amax(1, keepdim=True) / 127
    return (w / scale).round(), scale


generator = torch.Generator().manual_seed(502)
for shape, m in (((8, 48), 6), ((2, 3, 64), 5), ((1, 24), 3)):
    n = shape[-1]
    s = 10 ** (2 * torch.rand(n, generator=generator) - 1)
    x_codes = torch.randint(-127, 128, shape, generator=generator).to(torch.int8)
    q_w, steps = rows_with_codes(generator, m, n)
    s_w = torch.rand(m, 1, generator=generator, dtype=torch.float64) + 0.05
    weight = (s_w * steps / s.double()).float()
    q, w = x_codes.double(), weight.double()
    expected = (q @ q_w.T * s_w.T).float()
    unfolded, own = by_rows(w)
    mistakes = {
        "s is left out": (q @ unfolded.T * own.T).float(),
        "s divides the weight; x is about s · x_codes, so it multiplies": lambda: (
            q @ by_rows(w / s.double())[0].T * by_rows(w / s.double())[1].T
        ).float(),
        "the mean of s multiplies the sum; s changes from channel to channel and does not leave it": (
            q @ unfolded.T * own.T * s.double().mean()
        ).float(),
        "the largest s multiplies the sum; s changes from channel to channel and does not leave it": (
            q @ unfolded.T * own.T * s.double().max()
        ).float(),
        "s multiplies after the weight is quantized: it stands inside the sum, and the product is not one of integers": (
            (q * s.double()) @ unfolded.T * own.T
        ).float(),
        "nothing but x is quantized: the weight stays in float": ((q * s.double()) @ w.T).float(),
        "the scale of the weight is left out": (q @ q_w.T).float(),
        "codes are cut off toward zero, not rounded": (
            q @ (weight * s / ((weight * s).abs().amax(1, keepdim=True) / 127)).trunc().double().T * s_w.T
        ).float(),
        "one scale serves the whole weight": lambda: (
            q @ (w * s / (w * s).abs().max() * 127).round().T * (w * s).abs().max() / 127
        ).float(),
        "x is decoded and quantized anew per token; its codes enter the product as they are": lambda: (
            by_rows((q * s.double()).reshape(-1, n))[0] @ q_w.T
        ).float(),
    }
    atol = 1e-6 * expected.abs() + 1e-30
    check_close(
        channel_linear(x_codes, s, weight), expected, atol, f"channel_linear, {shape}", "10⁻⁶ of the value", mistakes
    )
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (b): what llama.cpp multiplies on a CPU
#
# *9 minutes, 6 points*
#
# Another claim: *"llama.cpp decodes the weights to float and multiplies floats."* On a CPU it quantizes the activations, block by
# block and while it runs, and multiplies integers. You write the arithmetic of it, without the packing of bytes, for a batch of tokens; then you
# measure what it costs.
#
# ```
# q8_0_blocks   x: float32 (t, n)                               →  codes: int8 (t, n)
#                                                                  d: float16 (t, n/32)
# q4_0_linear   x: float32 (t, n)                               →  y: float32 (t, m)
#               w_codes: uint8 (m, n), w_d: float16 (m, n/32)
# cost_of_q8_0  the same three                                  →  a number, percent
#
#             n/32 − 1                          31
#   y[t, j] =    Σ     d_x[t, b] · d_w[j, b] ·  Σ  q_x[t, b, i] · (q_w[j, b, i] − 8)
#              b = 0                          i = 0
#                      └─────── float ──────┘   └───────────── integer ────────────┘
# ```
#
# | | |
# |:--|:--|
# | Blocks | 32 neighbours along the last dimension; n is a multiple of 32 |
# | Q8_0 | `d = max(abs(x)) / 127` of the block, in float32; `codes = round(x / d)`; then d is stored as float16. A block of zeros has d = 0 and codes 0 |
# | Q4_0 | a weight is `d_w · (q_w − 8)`, q_w from 0 to 15; `w_d` may be negative |
# | Product | with the **stored** d of x. The integer part is exact, at most 32 · 127 · 8 = 32 512; a block whose integer dot is 0 adds exactly 0 |
# | Tolerance of y | (n/32 + 2) · 2⁻²⁴ · Σ_b abs(term_b): one rounding per block for the term, one for its addition |
# | `cost_of_q8_0` | 100 · ‖y − y_float‖ / ‖y_float‖ over the whole matrix, y_float = the unquantized x times the decoded weights; tolerance 1 % of the figure |


# %% nbgrader={"grade": false, "grade_id": "q4_0_linear", "locked": false, "schema_version": 3, "solution": true, "task": false}
def q8_0_blocks(x):
    """Quantize float32 `(t, n)` in blocks of 32 to int8 codes `(t, n)` and float16 scales `(t, n // 32)`."""
    ### BEGIN SOLUTION
    blocks = x.unflatten(-1, (-1, 32))  # (t, n_blocks, 32)
    d = blocks.abs().amax(-1, keepdim=True) / 127  # (t, n_blocks, 1)
    codes = torch.where(d == 0, 0.0, blocks / d).round().to(torch.int8)
    return codes.flatten(-2), d.squeeze(-1).half()
    ### END SOLUTION


def q4_0_linear(x, w_codes, w_d):
    """Multiply x, float32 `(t, n)`, in blocks of Q8_0, with the rows of Q4_0 `(m, n)`; returns float32 `(t, m)`."""
    ### BEGIN SOLUTION
    x_codes, x_d = q8_0_blocks(x)
    q_x = x_codes.unflatten(-1, (-1, 32)).float()  # (t, n_blocks, 32)
    q_w = w_codes.unflatten(-1, (-1, 32)).float() - 8  # (m, n_blocks, 32)
    dots = torch.einsum("tbi,mbi->tmb", q_x, q_w)  # whole numbers below 2**24: exact
    return (dots * (x_d.float().unsqueeze(1) * w_d.float())).sum(-1)
    ### END SOLUTION


def cost_of_q8_0(x, w_codes, w_d):
    """Relative error of `q4_0_linear` in percent, against x in float times the decoded weights; a number."""
    ### BEGIN SOLUTION
    weight = w_d.double().repeat_interleave(32, -1) * (w_codes.double() - 8)  # (m, n)
    exact = x.double() @ weight.T
    return (100 * (q4_0_linear(x, w_codes, w_d) - exact).norm() / exact.norm()).item()
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# View the last dimension as `(n_blocks, 32)` everywhere. A block dot is then a sum over the last index only; the index of the
# block survives until both scales have been multiplied in.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# `torch.einsum("tbi,mbi->tmb", ...)` makes all block dots at once. Float32 holds whole numbers below 2²⁴ exactly; uint8 minus 8 wraps
# around, so widen first. Divide by the float32 d, multiply with the float16 one.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# blocks = x as (t, n_blocks, 32);  d = largest magnitude of each block / 127
# codes = round(blocks / d), 0 where d is 0
# dots[t, m, b] = sum over i of codes[t, b, i] * (w[m, b, i] - 8)
# y = sum over b of dots * stored_d_x[t, 1, b] * d_w[1, m, b]
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-q4_0", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_close, check_equal

BOUND = "(n/32 + 2) · 2⁻²⁴ · Σ|term|"
# block 0 of x: 63.5, then 1 · 31: d = 0.5, codes 127, 2 · 31; block 1: zeros
x = torch.cat([torch.tensor([63.5]), torch.ones(31), torch.zeros(32)]).view(1, 64)
codes, d = q8_0_blocks(x)
mistakes = {"one scale serves a whole token": torch.tensor([[0.5, 0.5]]).half()}
check_equal(d, torch.tensor([[0.5, 0]]).half(), "q8_0_blocks of 63.5, 1 · 31, 0 · 32: d", mistakes)
expected = torch.cat([torch.tensor([127]), torch.full((31,), 2), torch.zeros(32)]).to(torch.int8).view(1, 64)
check_equal(codes, expected, "q8_0_blocks of 63.5, 1 · 31, 0 · 32: codes")
w_codes = torch.full((2, 64), 9, dtype=torch.uint8)  # weights 1 · d
w_codes[1, 0] = 0  # −8 · d
w_d = torch.tensor([[2.0, 1], [-1, 1]]).half()
mistakes = {
    "the 8 is not subtracted from the weights' codes": torch.tensor([[1701.0, -279]]),
    "the scale of x is left out": torch.tensor([[378.0, 954]]),
    "the scale of the weight is left out": torch.tensor([[94.5, -477]]),
    "8 is subtracted in uint8, where 0 − 8 is 248": torch.tensor([[189.0, -15779]]),
    "products wrap around at 8 bits": torch.tensor([[189.0, -35]]),
    "blocks are summed first and their mean scales multiplied afterwards": torch.tensor([[70.875, 0]]),
}
what = "q4_0_linear of one token and two rows"
check_close(q4_0_linear(x, w_codes, w_d), torch.tensor([[189.0, 477]]), 1e-4, what, BOUND, mistakes)
assert codes.shape == (1, 64), f"q8_0_blocks: codes of shape {tuple(codes.shape)}, expected (1, 64)"
### BEGIN HIDDEN TESTS
SUM_INTEGERS = "float products are accumulated; sum integers in the block, and multiply by the scales after it"


def made(generator, t, n_blocks):
    """x with known codes, and a d that float16 rounds by 0.3 of a half step: rounded and unrounded d can be told apart."""
    q = torch.randint(-126, 127, (t, n_blocks, 32), generator=generator).double()
    rest = 0.8 * torch.rand(t, n_blocks, 32, generator=generator, dtype=torch.float64) - 0.4
    place = torch.randint(32, (t, n_blocks, 1), generator=generator)
    q.scatter_(-1, place, 127.0 * (1 - 2 * (place % 2)).double())
    rest.scatter_(-1, place, 0.0)
    stored = (torch.rand(t, n_blocks, 1, generator=generator) ** 2 + 0.01).half()
    d = stored.double() * (1 + 0.3 * 2**-11)
    return ((q + rest) * d).float().flatten(1), q, stored.squeeze(-1), d.squeeze(-1)


def cut_off(x):
    blocks = x.unflatten(1, (-1, 32))
    d = blocks.abs().amax(-1, keepdim=True) / 127
    return torch.where(d == 0, 0.0, blocks / d).trunc().to(torch.int8).flatten(1)


def blocked(q_x, d_x, q_w, d_w):
    """The terms (t, m, n_blocks) of a block product."""
    dots = torch.einsum("tbi,mbi->tmb", q_x.double(), q_w.double())
    return dots * d_x.double().unsqueeze(1) * d_w.double()


def per_token(x, n_blocks):
    scale = x.double().abs().amax(1, keepdim=True) / 127
    return (x / scale).round().unflatten(1, (-1, 32)), scale.expand(-1, n_blocks)


generator = torch.Generator().manual_seed(503)
for t, n_blocks, m in ((1, 1, 1), (7, 3, 5), (3, 20, 16)):
    x, q_x, stored, d = made(generator, t, n_blocks)
    if n_blocks == 3:
        x.view(t, 3, 32)[2:4, 1], q_x[2:4, 1], stored[2:4, 1], d[2:4, 1] = 0, 0, 0, 0
    name = f"{t} × {32 * n_blocks}"
    codes, got_d = q8_0_blocks(x)
    mistakes = {
        "one scale serves a whole token": stored.amax(1, keepdim=True).expand_as(stored).contiguous(),
        "the scale is max / 128": (d * 127 / 128).half(),
        "one scale serves all tokens of the batch": stored.amax(0, keepdim=True).expand_as(stored).contiguous(),
    }
    check_equal(got_d, stored, f"q8_0_blocks, {name}: d", mistakes)
    mistakes = {
        "codes are cut off toward zero, not rounded": lambda: cut_off(x),
    }
    check_equal(codes, q_x.to(torch.int8).flatten(1), f"q8_0_blocks, {name}: codes", mistakes)

    w_codes = torch.randint(0, 16, (m, 32 * n_blocks), generator=generator, dtype=torch.uint8)
    w_d = (torch.rand(m, n_blocks, generator=generator) - 0.3).half()
    q_w = w_codes.double().unflatten(1, (-1, 32)) - 8
    terms = blocked(q_x, stored, q_w, w_d)
    decoded = (w_d.double().unsqueeze(-1) * q_w).flatten(1)
    expected = terms.sum(-1).float()
    mistakes = {
        "x stays in float: decode and multiply. On a CPU llama.cpp quantizes x and multiplies integers": (
            x.double() @ decoded.T
        ).float(),
        "the product uses the float32 d of x, not the stored float16 one": blocked(q_x, d, q_w, w_d).sum(-1).float(),
        "one scale of x serves a whole token": blocked(*per_token(x, n_blocks), q_w, w_d).sum(-1).float(),
        "the 8 is not subtracted from the weights' codes": blocked(q_x, stored, q_w + 8, w_d).sum(-1).float(),
        "7.5 is subtracted from the weights' codes, not 8": blocked(q_x, stored, q_w + 0.5, w_d).sum(-1).float(),
        "8 is subtracted in uint8, where 0 − 8 is 248": blocked(q_x, stored, q_w % 256, w_d).sum(-1).float(),
        "the scale of x is left out": blocked(q_x, stored**0, q_w, w_d).sum(-1).float(),
        "the scale of the weight is left out": blocked(q_x, stored, q_w, w_d**0).sum(-1).float(),
        "one scale of the weight serves a whole row": blocked(q_x, stored, q_w, w_d[:, :1]).sum(-1).float(),
        "blocks are summed first and their mean scales multiplied afterwards": (
            blocked(q_x, stored**0, q_w, w_d**0).sum(-1) * stored.double().mean(1, keepdim=True) * w_d.double().mean(1)
        ).float(),
        "products wrap around at 8 bits": (
            ((q_x.unsqueeze(1) * q_w + 128) % 256 - 128).sum(-1) * stored.double().unsqueeze(1) * w_d.double()
        )
        .sum(-1)
        .float(),
    }
    products = blocked(q_x.abs(), stored, q_w.abs(), w_d.abs()).sum(-1)
    y, what = q4_0_linear(x, w_codes, w_d), f"q4_0_linear, {name} and {m} rows"
    check_close(y, expected, (32 * n_blocks + 2) * 2**-24 * products, what, "that of float products", mistakes)
    check_close(y, expected, (n_blocks + 2) * 2**-24 * terms.abs().sum(-1), what, f"{BOUND}; {SUM_INTEGERS}")

# every integer dot is 0: the weights of a block come in pairs that cancel
t, n_blocks, m = 4, 30, 6
half_codes = torch.randint(-127, 128, (t, n_blocks, 16), generator=generator)
half_codes[..., 0] = 127
q_x = torch.cat([half_codes, -half_codes], -1)
stored = (torch.rand(t, n_blocks, 1, generator=generator) + 0.1).half()
x = (q_x * stored.double()).float().flatten(1)
half_w = torch.randint(0, 16, (m, n_blocks, 16), generator=generator, dtype=torch.uint8)
w_codes, w_d = torch.cat([half_w, half_w], -1).flatten(1), torch.rand(m, n_blocks, generator=generator).half()
y = q4_0_linear(x, w_codes, w_d)
assert y.shape == (t, m) and not y.any(), (
    f"q4_0_linear: every block's integer dot is 0, but y[0, 0] is {y[0, 0]:.3g}: {SUM_INTEGERS}"
)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-cost", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_close

# 63.5, then 1 · 31: d = 0.5, and Q8_0 holds it exactly; with 1.2 in place of 1 it keeps 1 (code 2). Weights: 1
weights = torch.full((1, 32), 9, dtype=torch.uint8), torch.ones(1, 1).half()
for small, right in ((1.0, 0.0), (1.2, 100 * 6.2 / 100.7)):
    x = torch.cat([torch.tensor([63.5]), torch.full((31,), small)]).view(1, 32)
    mistakes = {
        "x stays in float on both sides: there is no error at all": 0.0,
        "the error is a fraction, not percent": right / 100,
    }
    what = f"cost_of_q8_0 of 63.5 and 31 times {small:g}"
    check_close(cost_of_q8_0(x, *weights), right, 1e-3 * right + 1e-4, what, "no rounding is in doubt here", mistakes)
### BEGIN HIDDEN TESTS
import quant_kernels as qk

generator = torch.Generator().manual_seed(504)
cases = {
    "N(0, 1)": (torch.randn(24, 512, generator=generator), torch.randn(32, 512, generator=generator)),
    "a channel that is 60 times larger": (
        torch.randn(24, 512, generator=generator) * (1 + 59 * (torch.arange(512) == 77)),
        torch.randn(32, 512, generator=generator),
    ),
    "tokens of very different size": (
        torch.randn(24, 256, generator=generator) * torch.logspace(-3, 2, 24).unsqueeze(1),
        torch.randn(16, 256, generator=generator),
    ),
}
for name, (x, weight) in cases.items():
    packed = qk.quantize(weight, "Q4_0")
    blocks = packed.unflatten(1, (-1, 18))
    w_d = blocks[..., :2].contiguous().view(torch.float16).squeeze(-1)
    w_codes = torch.cat([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], -1).flatten(1)
    exact = x.double() @ qk.dequantize(packed, "Q4_0").double().T
    y = qk.matmul(x, packed, "Q4_0", integer=True).double()
    right = (100 * (y - exact).norm() / exact.norm()).item()
    true = x.double() @ weight.double().T
    mistakes = {
        "the error is a fraction, not percent": right / 100,
        "the square root is missing": right**2 / 100,
        "y is compared with the product of the unquantized weights: that error is mostly the weights'": (
            100 * (y - true).norm() / true.norm()
        ).item(),
        "relative errors are averaged over tokens; the norms run over the whole matrix": (
            100 * ((y - exact).norm(dim=1) / exact.norm(dim=1)).mean()
        ).item(),
        "relative errors are averaged over elements; the norms run over the whole matrix": (
            100 * ((y - exact) / exact).abs().mean()
        ).item(),
        "the difference is not divided by the size of y_float": (y - exact).norm().item(),
        "x stays in float on both sides: there is no error at all": 0.0,
    }
    got = cost_of_q8_0(x, w_codes, w_d)
    check_close(got, right, 0.01 * right, f"cost_of_q8_0, {name}", "1 % of the figure", mistakes)
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (c): static or dynamic
#
# *9 minutes, 6 points*
#
# A **static** range is found once, by observers that watch calibration data, and serves every request. A **dynamic** range is taken from the
# tensor that is being quantized, here from each token: it needs no calibration.
#
# ```
# calibrate      batches: list of float32 tensors of any shapes   →  (low, high), two numbers
#                rule: "min-max", "average" or "percentile"
#                rate=0.1, percent=99.9
# fake_quantize  x: float32, low, high: two numbers, or float32   →  float32, shape of x
#                tensors that broadcast with x
# stream_errors  stream: list of float32 (t, n)                   →  list of numbers, percent:
#                limits=None, or (low, high)                         one per batch
# ```
#
# | | |
# |:--|:--|
# | `"min-max"` | the least and the largest value of all batches |
# | `"average"` | begins with the first batch's least and largest value; each later batch moves both by `rate` of the way to its own: `a + rate · (b − a)` |
# | `"percentile"` | over the values of all batches together: keeps the middle `percent` %, and cuts half of the rest at each end. Linear between neighbours, as `torch.quantile` and `numpy.percentile` do |
# | Errors | `ValueError` for an empty list of batches, and for another rule |
# | `fake_quantize` | 8 bits, asymmetric, back in float. Widen the range so that it contains 0; `scale = (high − low) / 255`, or 1 where that is 0; `zero = round(−low / scale)`; `q = clamp(round(x / scale) + zero, 0, 255)`; the result is `scale · (q − zero)` |
# | `stream_errors` | of each batch 100 · ‖x − x̂‖ / ‖x‖, over the whole batch. With limits: static, x̂ = `fake_quantize(x, low, high)`. With `None`: dynamic, each row (token) takes the range from its own least to its own largest value |
# | Tolerance | `calibrate`: 10⁻³ of the larger end (a rank that is computed in float32 moves a percentile so much). `fake_quantize`: 10⁻⁴ of a step. Errors: 1 % of the figure (some roundings may fall the other way) |


# %% nbgrader={"grade": false, "grade_id": "observers", "locked": false, "schema_version": 3, "solution": true, "task": false}
def calibrate(batches, rule, rate=0.1, percent=99.9):
    """Find a static range for values like those of the batches: `(low, high)`, two numbers.

    ValueError if there is no batch, or the rule is none of "min-max", "average" and "percentile".
    """
    ### BEGIN SOLUTION
    if not batches:
        raise ValueError("a static range needs calibration data, and there is no batch")
    ends = [(batch.min().item(), batch.max().item()) for batch in batches]
    if rule == "min-max":
        return min(low for low, _ in ends), max(high for _, high in ends)
    if rule == "average":
        low, high = ends[0]
        for batch_low, batch_high in ends[1:]:
            low, high = low + rate * (batch_low - low), high + rate * (batch_high - high)
        return low, high
    if rule == "percentile":
        values = torch.cat([batch.flatten() for batch in batches]).double().numpy()
        cut = (100 - percent) / 2
        low, high = np.percentile(values, [cut, 100 - cut])
        return float(low), float(high)
    raise ValueError(f"rule is {rule!r}, not 'min-max', 'average' or 'percentile'")
    ### END SOLUTION


def fake_quantize(x, low, high):
    """Quantize x to 8 bits over the range from low to high, and decode it again; returns float32, the shape of x."""
    ### BEGIN SOLUTION
    low = torch.as_tensor(low, dtype=torch.float32).clamp(max=0)
    high = torch.as_tensor(high, dtype=torch.float32).clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, 1.0, scale)
    zero = (-low / scale).round()
    q = ((x / scale).round() + zero).clamp(0, 255)
    return scale * (q - zero)
    ### END SOLUTION


def stream_errors(stream, limits=None):
    """Relative error of each batch in percent: with a static range, or (None) with each token's own."""
    ### BEGIN SOLUTION
    errors = []
    for x in stream:
        low, high = limits or (x.amin(-1, keepdim=True), x.amax(-1, keepdim=True))
        errors.append((100 * (fake_quantize(x, low, high) - x).norm() / x.norm()).item())
    return errors
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Only one of the three functions needs data that was seen before. Its result is two numbers, whatever came in.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Flatten and join the batches for the percentile; averaging the percentiles of single batches is another rule. Write `fake_quantize` with
# operations that broadcast: then the static range (two numbers) and the dynamic one, of shape (t, 1), go through the same lines.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# cut = (100 - percent) / 2                      # percent of the values, at each end
# low, high = percentile(all values, cut), percentile(all values, 100 - cut)
#
# low, high = at most 0, at least 0
# steps = round(x / scale) + zero, clamped to 0 ... 255
# # dynamic: low = least of each row, high = largest of each row, with keepdim
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-calibrate", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_close, check_raises

RULES = ("min-max", "average", "percentile")


def check_range(batches, rule, expected, what, mistakes, **options):
    got = calibrate(batches, rule, **options)
    assert len(got) == 2, f"{what}: expected two numbers, low and high, got {len(got)}"
    pair, right = (torch.tensor([float(end) for end in ends], dtype=torch.float64) for ends in (got, expected))
    wrong = {text: torch.tensor([float(end) for end in value], dtype=torch.float64) for text, value in mistakes.items()}
    atol = 1e-3 * max(map(abs, expected))
    check_close(pair, right, atol, f"{what}: low, high", "10⁻³ of the larger end", wrong)


batches = [torch.tensor([-1.0, 2, 0]), torch.tensor([[-3.0, 1], [4, 0]]), torch.tensor([5.0, -1])]
mistakes = {"only the last batch counts": (-1.0, 5.0), "the ends of the batches are averaged": (-5 / 3, 11 / 3)}
check_range(batches, "min-max", (-3.0, 5.0), 'calibrate, "min-max" of three batches', mistakes)
mistakes = {
    "the average begins at 0, not with the first batch": (-0.451, 1.022),
    "rate is the share of what was there before": (-1.18, 4.88),
    "all batches count the same": (-5 / 3, 11 / 3),
}
check_range(batches, "average", (-1.18, 2.48), 'calibrate, "average" of three batches', mistakes)
for data, rule in [*(([], rule) for rule in RULES), (batches, "median")]:
    check_raises(ValueError, f'calibrate with {len(data)} batches, "{rule}"', calibrate, data, rule)
### BEGIN HIDDEN TESTS
import numpy as np


def moving(ends, rate):
    low, high = ends[0]
    for new_low, new_high in ends[1:]:
        low, high = low + rate * (new_low - low), high + rate * (new_high - high)
    return low, high


def cut_at(values, low, high):
    return tuple(np.percentile(np.asarray(values, dtype=np.float64), [low, high]).tolist())


generator = torch.Generator().manual_seed(505)
shapes = ((40, 30), (1000,), (2, 5, 60), (7, 11))
drifting = [torch.randn(*shape, generator=generator) * (i + 1) - i for i, shape in enumerate(shapes)]
positive = [torch.rand(*shape, generator=generator) ** 3 + 0.5 for shape in shapes]
heavy = [torch.randn(*shape, generator=generator) ** 5 for shape in shapes]
for name, batches in {"drifting batches": drifting, "positive batches": positive, "heavy tails": heavy}.items():
    ends = [(batch.min().item(), batch.max().item()) for batch in batches]
    low, high = np.array(ends).T
    mistakes = {
        "only the last batch counts": ends[-1],
        "only the first batch counts": ends[0],
        "the ends of the batches are averaged": (low.mean(), high.mean()),
        "the range is made symmetric": (-max(-low.min(), high.max()), max(-low.min(), high.max())),
    }
    check_range(batches, "min-max", (low.min(), high.max()), f'calibrate, "min-max", {name}', mistakes)
    for rate in (0.1, 0.4):
        mistakes = {
            "the average begins at 0, not with the first batch": moving([(0.0, 0.0), *ends], rate),
            "rate is the share of what was there before": moving(ends, 1 - rate),
            "all batches count the same": (low.mean(), high.mean()),
            "rate is ignored": moving(ends, 0.1),
        }
        check_range(batches, "average", moving(ends, rate), f'calibrate, "average", {name}', mistakes, rate=rate)
    values = torch.cat([batch.flatten() for batch in batches]).double().numpy()
    magnitude = np.percentile(np.abs(values), 99.9)
    for percent in (99.9, 98.0):
        cut = (100 - percent) / 2
        mistakes = {
            "the cut is made in full at each end: less than percent is kept": cut_at(values, 2 * cut, 100 - 2 * cut),
            "percentiles of the batches are averaged": tuple(
                np.mean([cut_at(batch, cut, 100 - cut) for batch in batches], axis=0)
            ),
            "the percentile is one of magnitudes": (-magnitude, magnitude),
            "percent is ignored": cut_at(values, 0.05, 99.95),
            "nothing is cut": (low.min(), high.max()),
        }
        expected = cut_at(values, cut, 100 - cut)
        what = f'calibrate, "percentile" {percent:g}, {name}'
        check_range(batches, "percentile", expected, what, mistakes, percent=percent)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-stream", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_close

# −51 … 204: scale 1, zero 51
x = torch.tensor([[-60.0, -51, -0.3, 0, 0.4], [7.6, 100.2, 204, 230, 1000]])
expected = torch.tensor([[-51.0, -51, 0, 0, 0], [8, 100, 204, 204, 204]])
mistakes = {
    "values beyond the range are not clamped": torch.tensor([[-60.0, -51, 0, 0, 0], [8, 100, 204, 230, 1000]]),
    "codes wrap around at 8 bits: clamp before you cast": torch.tensor(
        [[196.0, -51, 0, 0, 0], [8, 100, 204, -26, -24]]
    ),
    "codes are cut off, not rounded": torch.tensor([[-51.0, -51, 0, 0, 0], [7, 100, 204, 204, 204]]),
    "the range has 256 steps; 256 codes have 255": torch.tensor(
        [[-50.80078, -50.80078, 0, 0, 0], [7.96875, 100.60547, 203.20313, 203.20313, 203.20313]]
    ),
}
check_close(fake_quantize(x, -51.0, 204.0), expected, 1e-4, "fake_quantize over −51 … 204", "10⁻⁴ of a step", mistakes)
expected = torch.tensor([[0.0, 0, 0], [10, 20, 51]])
x, ends = torch.tensor([[0.0, 0, 0], [10, 20.01, 51]]), torch.tensor([[0.0], [51]])
mistakes = {"the range is not widened to contain 0": torch.tensor([[0.0, 0, 0], [9.96863, 19.93726, 50.96863]])}
got = fake_quantize(x, torch.tensor([[0.0], [10]]), ends)
check_close(got, expected, 2e-5, "fake_quantize over 0 … 0 and 10 … 51", "10⁻⁴ of a step", mistakes)
stream = [torch.tensor([[255.0, 0.4], [2.55, 0.004]]), torch.tensor([[255.0, 2.0], [510.0, 4.0]])]
mistakes = {
    "the error is a fraction, not percent": 0.00157,
    "one range serves all tokens of the batch; dynamic means one per token": 0.23610,
    "each channel has a range of its own, not each token": 0.17646,
}
check_close(stream_errors(stream)[0], 0.1569, 0.00157, "stream_errors, dynamic, batch 0", "1 % of the figure", mistakes)
mistakes = {"the range comes from the batch itself; a static one was fixed before": 0.17537}
errors = stream_errors(stream, (0.0, 255.0))
check_close(errors[1], 44.72, 0.447, "stream_errors, static, batch 1", "1 % of the figure", mistakes)
assert len(errors) == 2, f"stream_errors: {len(errors)} numbers for 2 batches"
### BEGIN HIDDEN TESTS
from quant_kernels.methods.affine import affine_parameters, to_codes


def ends_of(low, high, like):
    pair = [torch.as_tensor(end, dtype=torch.float32) for end in (low, high)]
    return [end.reshape([1] * like.dim()) if end.dim() == 0 else end for end in pair]


def reference(x, low, high):
    scale, zero = affine_parameters(*ends_of(low, high, x), 8)
    return to_codes(x, scale, zero, 8).dequantize()


def variant(x, low, high, widen=True, levels=255, clamp=True, wrap=False, rounding=torch.round, exact=True):
    low, high = (end.double() for end in ends_of(low, high, x))
    low, high = (low.clamp(max=0), high.clamp(min=0)) if widen else (low, high)
    scale = (high - low) / levels
    scale = torch.where(scale == 0, 1.0, scale)
    zero = (-low / scale).round() if exact else -low / scale
    q = rounding(x / scale) + zero if exact else rounding(x / scale + zero)
    q = q % 256 if wrap else q
    q = q.clamp(0, 255) if clamp else q
    return (scale * (q - zero)).float()


def percent(x, decoded):
    return (100 * (decoded.double() - x).norm() / x.double().norm()).item()


def token_ends(x):
    return x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)


MISTAKES = {
    "the range is not widened to contain 0": {"widen": False},
    "the range has 256 steps; 256 codes have 255": {"levels": 256},
    "values beyond the range are not clamped": {"clamp": False},
    "codes wrap around at 8 bits: clamp before you cast": {"wrap": True},
    "codes are cut off, not rounded": {"rounding": torch.trunc},
    "codes are rounded down": {"rounding": torch.floor},
    "the zero point stays a float, and 0 is not exact": {"exact": False},
}
generator = torch.Generator().manual_seed(506)
ranges = ((-1.0, 3.0), (-2.0, 2.5), (0.5, 4.0), (-4.0, -1.0), (0.0, 0.0), (-0.01, 7.0))
for low, high in ranges:
    scale = (max(high, 0) - min(low, 0)) / 255 or 1.0
    steps = torch.randint(-300, 600, (6, 50), generator=generator) + 0.8 * torch.rand(6, 50, generator=generator) - 0.4
    x = (steps * scale).float()
    x[0, :5] = 0
    mistakes = {text: lambda options=options: variant(x, low, high, **options) for text, options in MISTAKES.items()}
    what = f"fake_quantize over {low:g} … {high:g}"
    check_close(fake_quantize(x, low, high), reference(x, low, high), 1e-4 * scale, what, "10⁻⁴ of a step", mistakes)

base = [torch.randn(16, 64, generator=generator) for _ in range(6)]
shifted = [x * (1 if i < 3 else 4) + (0 if i < 3 else 1) for i, x in enumerate(base)]
uneven = [x * torch.logspace(-2, 1, 16).unsqueeze(1) for x in base]
single = [x * 1.0 for x in base]
single[2][3, 5] = 90.0
single[4][7] = 0.0
limits = (-3.0, 3.5)
for name, stream in {
    "a stream that shifts": shifted,
    "tokens of different size": uneven,
    "one outlier": single,
}.items():
    rules = {"static": limits, "dynamic": None}
    for rule, ends in rules.items():
        got = stream_errors(stream, ends) if ends else stream_errors(stream)
        assert len(got) == len(stream), f"stream_errors: {len(got)} numbers for {len(stream)} batches"
        for i, (error, x) in enumerate(zip(got, stream)):
            right = percent(x, reference(x, *(ends or token_ends(x))))
            mistakes = {
                "the range comes from the batch itself; a static one was fixed before": lambda: percent(
                    x, reference(x, x.min(), x.max())
                ),
                "one range serves all tokens of the batch; dynamic means one per token": lambda: percent(
                    x, reference(x, x.min(), x.max())
                ),
                "each channel has a range of its own, not each token": lambda: percent(
                    x, reference(x, x.amin(0, keepdim=True), x.amax(0, keepdim=True))
                ),
                "each token has a range of its own, and the static one is not used": lambda: percent(
                    x, reference(x, *token_ends(x))
                ),
                "errors are averaged over tokens": lambda: (
                    100
                    * torch.nan_to_num(
                        (reference(x, *(ends or token_ends(x))) - x).norm(dim=1) / x.norm(dim=1), nan=0.0
                    ).mean()
                ).item(),
            }
            own = "one range serves" if rule == "static" else "the range comes from"
            mistakes = {text: value for text, value in mistakes.items() if not text.startswith(own)}
            for text, options in MISTAKES.items():
                mistakes[text] = lambda options=options: percent(x, variant(x, *(ends or token_ends(x)), **options))
            mistakes |= {
                "the error is a fraction, not percent": right / 100,
                "the square root is missing": right**2 / 100,
            }
            check_close(
                error, right, 0.01 * right, f"stream_errors, {rule}, {name}, batch {i}", "1 % of the figure", mistakes
            )
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (d): the batch where W4A16 loses
#
# *7 minutes, 5 points*
#
# W4A16 reads few bytes and multiplies in FP16. W8A8 reads about twice the bytes and multiplies in 8 bits, at twice the rate. A step takes
# at least as long as its slower half:
#
# ```
#   seconds = max( (params · bits / 8  +  batch · kv) / bandwidth ,  2 · params · batch · tokens / peak )
#                  └─ weights, once ─┘    └─ caches ─┘                └ a multiplication, an addition ┘
#
# step_seconds     params, batch, bits, peak, bandwidth, kv=0.0, tokens=1      →  seconds, a number
# activation_gain  params, batch, bits, peaks, bandwidth, kv=0.0, tokens=1     →  a number
# crossover_batch  params, w4a16, w8a8, bandwidth, kv=0.0, tokens=1            →  int, or None
# ```
#
# | | |
# |:--|:--|
# | `params`, `batch` | weights that a token multiplies with; sequences in the step |
# | `bits` | stored bits per weight, scales included |
# | `peak`, `bandwidth` | operations per second, bytes per second |
# | `kv` | bytes of KV cache that the step reads **for each sequence** |
# | `tokens` | new tokens per sequence: 1 in decode, the prompt's length in prefill |
# | `activation_gain` | the *same* weight bits, with activations in 16 and in 8 bits: `peaks` = (16-bit peak, 8-bit peak). Returns seconds with the first over seconds with the second |
# | `crossover_batch` | `w4a16` and `w8a8` are pairs (bits, peak). The smallest whole batch from 1 to 4096 at which the second takes strictly less time than the first; `None` if there is none |
# | Left out | attention's own operations, launches, and what unpacking costs: this is a bound for both |
# | Tolerance | 10⁻⁹ relative; no test has a crossover within 10⁻⁶ of a whole number |
#
# H100 SXM, dense: FP16 989 · 10¹², INT8 and FP8 1979 · 10¹² operations/s, 3.35 · 10¹² bytes/s (NVIDIA's H100 data sheet, whose figures with sparsity are
# twice as high). It has no 4-bit matrix instruction, so W4A16 computes in FP16. 4.125 bits are a 4-bit code and a 16-bit scale per 128.


# %% nbgrader={"grade": false, "grade_id": "crossover", "locked": false, "schema_version": 3, "solution": true, "task": false}
def step_seconds(params, batch, bits, peak, bandwidth, kv=0.0, tokens=1):
    """The least time of a step, in seconds: its bytes over the bandwidth, or its operations over the peak."""
    ### BEGIN SOLUTION
    memory = (params * bits / 8 + batch * kv) / bandwidth
    return max(memory, 2 * params * batch * tokens / peak)
    ### END SOLUTION


def activation_gain(params, batch, bits, peaks, bandwidth, kv=0.0, tokens=1):
    """How many times faster a step is with 8-bit activations than with 16-bit ones, the weights the same."""
    ### BEGIN SOLUTION
    slow, fast = (step_seconds(params, batch, bits, peak, bandwidth, kv, tokens) for peak in peaks)
    return slow / fast
    ### END SOLUTION


def crossover_batch(params, w4a16, w8a8, bandwidth, kv=0.0, tokens=1):
    """The smallest batch at which `w8a8` is faster than `w4a16`, both (bits, peak); None if there is none to 4096."""
    ### BEGIN SOLUTION
    for batch in range(1, 4097):
        first, second = (step_seconds(params, batch, *scheme, bandwidth, kv, tokens) for scheme in (w4a16, w8a8))
        if second < first:
            return batch
    return None
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Draw both times over the batch: a flat part (or a slow rise, by the cache), then a steep one. Where do the two lines meet, and which part of each is it?
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# 4096 evaluations of a formula take milliseconds: search. Compare strictly; where both are memory-bound, fewer bits win, and where the cache's
# bytes outgrow the operations, they win at every batch.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# t = max(total_bytes / bandwidth, total_operations / peak)
# gain = t(with the 16-bit peak) / t(with the 8-bit peak)
# for each batch from 1: if t(w8a8) < t(w4a16), that is the one
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-seconds", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
from course.checks import check_close

# 10⁹ weights of 8 bits over 10¹² bytes/s: 1 ms. 2 · 10⁹ operations over 10¹³: 0.2 ms a token
mistakes = {
    "bits are taken for bytes": 0.008,
    "memory and arithmetic are added; they overlap, and the longer one counts": 0.0012,
}
check_close(step_seconds(1e9, 1, 8, 1e13, 1e12), 0.001, 1e-12, "step_seconds, batch 1", "10⁻⁹", mistakes)
mistakes = {
    "a multiplication and an addition count as one operation": 0.001,
    "memory and arithmetic are added; they overlap, and the longer one counts": 0.003,
    "weights are read once for each sequence": 0.01,
}
check_close(step_seconds(1e9, 10, 8, 1e13, 1e12), 0.002, 1e-12, "step_seconds, batch 10", "10⁻⁹", mistakes)
mistakes = {"the gain is that of the peaks, or of the bytes; a step that waits for memory has none": 2.0}
for batch, gain in ((1, 1.0), (10, 2.0)):
    got = activation_gain(1e9, batch, 8, (1e13, 2e13), 1e12)
    check_close(got, gain, 1e-9, f"activation_gain, batch {batch}", "10⁻⁹", mistakes)
### BEGIN HIDDEN TESTS
from quant_kernels.hardware import HARDWARE
from quant_kernels.roofline import Traffic, bound


def roofline(params, batch, bits, device, arithmetic, kv=0.0, tokens=1):
    step = Traffic(batch * tokens, params * bits / 8, batch * kv, 0.0, 0.0, 2.0 * params * batch * tokens, 0.0)
    return bound(step, HARDWARE[device], arithmetic)


cases = [
    (7e9, 1, 4.125, "H100 SXM", 0.0, 1),
    (7e9, 64, 8, "H100 SXM", 1e9, 1),
    (7e9, 200, 8, "A100 80GB SXM", 0.0, 1),
    (7e9, 200, 16, "A100 80GB SXM", 3e7, 1),
    (1.2e9, 3, 4.5, "L40S", 2e8, 512),
    (70e9, 1, 4.125, "H100 SXM", 0.0, 4096),
    (8e9, 32, 8, "RTX 4090", 2.7e8, 1),
    (8e9, 128, 4.125, "RTX 4090", 1e6, 1),
]
for params, batch, bits, device, kv, tokens in cases:
    chip = HARDWARE[device]
    peaks = chip.peak("FP16"), chip.peak("INT8")
    limits = [roofline(params, batch, bits, device, arithmetic, kv, tokens) for arithmetic in ("FP16", "INT8")]
    name = f"{params / 1e9:g} · 10⁹ weights of {bits:g} bits, batch {batch}, {tokens} tokens, kv {kv:g}, {device}"
    for peak, limit in zip(peaks, limits):
        m, c = limit.memory_seconds, limit.compute_seconds
        weights, caches = params * bits / 8 / chip.bandwidth, batch * kv / chip.bandwidth
        mistakes = {
            "bits are taken for bytes": max(8 * weights + caches, c),
            "a multiplication and an addition count as one operation": max(m, c / 2),
            "memory and arithmetic are added; they overlap, and the longer one counts": m + c,
            "the cache of one sequence is counted, not of all": max(weights + kv / chip.bandwidth, c),
            "the cache is read once for each new token": max(weights + caches * tokens, c),
            "the cache is left out": max(weights, c),
            "weights are read once for each sequence": max(weights * batch + caches, c),
            "operations do not grow with the prompt": max(m, c / tokens),
            "operations do not grow with the batch": max(m, c / batch),
            "the smaller time counts; the longer one does": min(m, c),
            "arithmetic is left out": m,
            "memory is left out": c,
        }
        got = step_seconds(params, batch, bits, peak, chip.bandwidth, kv, tokens)
        right = limit.seconds
        check_close(got, right, 1e-9 * right, f"step_seconds, {name}", "10⁻⁹ of the value", mistakes)
    right = limits[0].seconds / limits[1].seconds
    mistakes = {
        "the gain is that of the peaks; a step that waits for memory has none": peaks[1] / peaks[0],
        "the gain is turned round": 1 / right,
        "8-bit activations are credited with half the weights' bytes": limits[0].seconds
        / max(limits[1].memory_seconds / 2, limits[1].compute_seconds),
    }
    got = activation_gain(params, batch, bits, peaks, chip.bandwidth, kv, tokens)
    check_close(got, right, 1e-9 * right, f"activation_gain, {name}", "10⁻⁹ of the value", mistakes)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-crossover", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
import numpy as np


def check_batch(got, expected, what, mistakes):
    if got is None or expected is None:
        assert got is expected, (
            f"{what}: got {got}, expected {expected}"
            + "; the cache's bytes grow faster than the operations, and fewer bits win at every batch"
            * (expected is None)
        )
        return
    assert isinstance(got, int | np.integer), f"{what}: got a {type(got).__name__}, expected an int"
    idea = next((text for text, value in mistakes.items() if value == got != expected), None)
    assert got == expected, f"{what}: {f'what you get when {idea}; ' if idea else ''}got {got}, expected {expected}"


H100 = {"w4a16": (4.125, 989e12), "w8a8": (8, 1979e12), "bandwidth": 3.35e12}
mistakes = {
    "the batch is that where W4A16 becomes compute-bound; it still wins there, over the bytes of W8A8": 77,
    "the batch is that where W8A8 becomes compute-bound; it wins before": 296,
    "it is the last batch at which W4A16 is not slower; the first at which it loses was asked for": 147,
}
for tokens, batch in ((1, 148), (512, 1)):
    what = f"crossover_batch, H100, no cache, {tokens} new tokens"
    check_batch(crossover_batch(8e9, **H100, tokens=tokens), batch, what, mistakes)
### BEGIN HIDDEN TESTS
from quant_kernels.hardware import HARDWARE
from quant_kernels.roofline import Traffic, bound


def seconds(params, batch, bits, chip, arithmetic, kv, tokens, attention=0.0):
    step = Traffic(batch * tokens, params * bits / 8, batch * kv, 0.0, 0.0, 2.0 * params * batch * tokens, attention)
    return bound(step, chip, arithmetic)


def search(params, first, second, chip, kv, tokens, loses=lambda a, b: b.seconds < a.seconds):
    for batch in range(1, 4097):
        a = seconds(params, batch, first, chip, "FP16", kv, tokens)
        if loses(a, seconds(params, batch, second, chip, "INT8", kv, tokens)):
            return batch
    return None


cases = [
    (7e9, 4.125, 8, "A100 80GB SXM", 0.0, 1),
    (8e9, 4.125, 8, "H100 SXM", 20e6, 1),
    (8e9, 4.5, 8, "L40S", 10e6, 1),
    (70e9, 4.125, 8.125, "H100 SXM", 300e6, 1),
    (8e9, 4.125, 8, "H100 SXM", 131072.0 * 2048, 1),
    (7e9, 4.125, 8, "A100 80GB SXM", 524288.0 * 1024, 1),
    (8e9, 4.125, 8, "H100 SXM", 131072.0 * 2048, 16),
    (8e9, 4.125, 8, "H100 SXM", 0.0, 8),
    (1e9, 4.125, 8, "RTX 4090", 1e6, 1),
    (1.25e9, 4.125, 8, "T4", 0.0, 1),
]
for params, four, eight, device, kv, tokens in cases:
    chip = HARDWARE[device]
    right = search(params, four, eight, chip, kv, tokens)
    mistakes = {
        "the batch is that where W4A16 becomes compute-bound; it still wins there, over the bytes of W8A8": search(
            params, four, eight, chip, kv, tokens, lambda a, b: a.compute_seconds > a.memory_seconds
        ),
        "the batch is that where W8A8 becomes compute-bound; it wins before": search(
            params, four, eight, chip, kv, tokens, lambda a, b: b.compute_seconds > b.memory_seconds
        ),
        "the cache is left out": search(params, four, eight, chip, 0.0, tokens),
        "the prompt's length is left out": search(params, four, eight, chip, kv, 1),
        "it is the last batch at which W4A16 is not slower; the first at which it loses was asked for": (right or 0)
        - 1,
    }
    got = crossover_batch(
        params, (four, chip.peak("FP16")), (eight, chip.peak("INT8")), chip.bandwidth, kv=kv, tokens=tokens
    )
    name = f"crossover_batch, {params / 1e9:g} · 10⁹ weights, {device}, kv {kv:g}, {tokens} tokens"
    check_batch(got, right, name, mistakes)
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (e): repair a hybrid layer
#
# *8 minutes, 5 points*
#
# A design you will meet, "quantize the activations unless they have outliers":
#
# ```
# if x.abs().max() / x.abs().mean() > threshold:           # one decision for the whole batch
#     y = x @ dequantize(weight_codes).T                   # now nobody's activations are quantized
# else:
#     y = dequantize(int8_matmul(quantize(x), weight_codes))   # with whose scales?
# ```
#
# One token of one user changes the arithmetic of all others: their outputs depend on who shares the batch, and no fixed graph of kernels can
# run it. And outliers sit in a few *columns*, so a whole tensor is the wrong unit. Repair it:
#
# ```
#       columns fixed by calibration: k of n
#             │         │
#  x  ▒▒▒▒▒▒▒▒█▒▒▒▒▒▒▒▒▒█▒▒▒▒        y = s_x ⊗ s_w · (codes of x's ▒ columns) (codes of W's ▒ columns)ᵀ
#                                        + (x's █ columns) (W's █ columns)ᵀ                     in float
#
# outlier_columns  batches: list of float32 (..., n), threshold     →  bool (n,)
# split_weight     weight: float32 (m, n), columns: bool (n,)       →  codes: int8 (m, n − k)
#                                                                      scale: float32 (m, 1)
#                                                                      kept: float32 (m, k)
# hybrid_linear    x: float32 (..., n), columns,                    →  y: float32 (..., m)
#                  codes, scale, kept
# ```
#
# | | |
# |:--|:--|
# | `outlier_columns` | True where any token of any calibration batch has a magnitude of `threshold` or more |
# | Order | columns keep their order in both parts; k may be 0, and is less than n |
# | `codes`, `scale` | symmetric: `scale = max(abs) / 127` of each row of W **over the columns that are not outliers**, codes = round(w / scale); a row of zeros has scale 1 |
# | `hybrid_linear` | x's other columns are quantized by the same rule, a scale per token over *these* columns. Sums of codes are exact; both scales multiply them; the float part is added |
# | Batch | which columns are split off depends on `columns` alone, and a token's scale on that token alone. So what else is in the batch changes y only by float rounding |
# | Tolerance | none for codes; of y 10⁻⁶ of the integer part and (k + 2) · 2⁻²⁴ · Σ abs(x_c · w_c) over the outlier columns |


# %% nbgrader={"grade": false, "grade_id": "hybrid", "locked": false, "schema_version": 3, "solution": true, "task": false}
def outlier_columns(batches, threshold):
    """The columns in which a value of the calibration batches, float32 `(..., n)`, reaches the threshold: bool `(n,)`."""
    ### BEGIN SOLUTION
    tokens = torch.cat([batch.reshape(-1, batch.shape[-1]) for batch in batches])
    return (tokens.abs() >= threshold).any(0)
    ### END SOLUTION


def split_weight(weight, columns):
    """Split float32 `(m, n)`: int8 codes `(m, n - k)`, float32 scale `(m, 1)`, and the outlier columns, float32 `(m, k)`."""
    ### BEGIN SOLUTION
    rest = weight[:, ~columns]
    scale = rest.abs().amax(1, keepdim=True) / 127
    scale = torch.where(scale == 0, 1.0, scale)
    return (rest / scale).round().to(torch.int8), scale, weight[:, columns]
    ### END SOLUTION


def hybrid_linear(x, columns, codes, scale, kept):
    """y = x Wᵀ, the outlier columns in float and the others in int8; float32 `(..., n)` to float32 `(..., m)`."""
    ### BEGIN SOLUTION
    rest = x[..., ~columns]
    x_scale = rest.abs().amax(-1, keepdim=True) / 127  # (..., 1): each token's own
    x_scale = torch.where(x_scale == 0, 1.0, x_scale)
    x_codes = (rest / x_scale).round()
    integer = (x_codes.double() @ codes.double().T) * x_scale * scale.T  # (..., m)
    return (integer + x[..., columns].double() @ kept.double().T).float()
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# A product over n channels is the sum of a product over some of them and one over the others. Nothing is approximated by splitting.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# A bool tensor indexes columns: `x[..., columns]` and `x[..., ~columns]`. Split first, then take the maxima: a scale that an outlier has
# set is the harm that the split is there to avoid.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# inner, outer = x[..., ~columns], x[..., columns]
# s_x = largest magnitude of each token in inner / 127
# y = exact_product(round(inner / s_x), codes) * s_x * scale.T + outer @ kept.T
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-columns", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_close, check_equal

batches = [torch.tensor([[1.0, -7, 0, 8]]), torch.tensor([[[0.0, 1, 6, 2]], [[3, 3, -3, 3]]])]
mistakes = {
    "negative values do not count": torch.tensor([False, False, True, True]),
    "the threshold itself does not count": torch.tensor([False, True, False, True]),
    "only the last batch counts": torch.tensor([False, False, True, False]),
    "every token must reach the threshold, not any": torch.zeros(4, dtype=torch.bool),
}
expected = torch.tensor([False, True, True, True])
check_equal(outlier_columns(batches, 6.0), expected, "outlier_columns of two batches, threshold 6", mistakes)
columns = torch.tensor([False, True, True, False])
weight = torch.tensor([[127.0, 900, 0.5, -2], [0, 1, 2, 0]])
codes, scale, kept = split_weight(weight, columns)
mistakes = {"the scale is set by the outlier columns too": weight.abs().amax(1, keepdim=True) / 127}
check_close(scale, torch.tensor([[1.0], [1.0]]), 1e-6, "split_weight: scale", "10⁻⁶ of the value", mistakes)
check_equal(codes, torch.tensor([[127, -2], [0, 0]], dtype=torch.int8), "split_weight: codes")
check_equal(kept, weight[:, [1, 2]], "split_weight: kept")
assert len(codes) == 2 and codes.dtype == torch.int8, "split_weight: codes are int8, a row for each of the weight's"
### BEGIN HIDDEN TESTS


def known(generator, *shape, size=1.0):
    """Rows whose codes are known, and these codes and scales: x = scale · (codes + something within ±0.45)."""
    q = torch.randint(-126, 127, shape, generator=generator).double()
    rest = 0.9 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 0.45
    q[..., 1], rest[..., 1] = -127, 0
    scale = size * (torch.rand(*shape[:-1], 1, generator=generator, dtype=torch.float64) + 0.02)
    return ((q + rest) * scale).float(), q, scale


def joined(columns, inner, outer):
    whole = torch.empty(*inner.shape[:-1], len(columns))
    whole[..., ~columns], whole[..., columns] = inner, outer
    return whole


generator = torch.Generator().manual_seed(508)
for m, n, places in ((6, 40, (3, 17, 30)), (9, 64, (0, 63)), (4, 21, (20,)), (5, 32, ())):
    columns = torch.zeros(n, dtype=torch.bool)
    columns[list(places)] = True
    k = len(places)
    w_inner, q_w, s_w = known(generator, m, n - k)
    w_outer = 100 * torch.randn(m, k, generator=generator)
    weight, name = joined(columns, w_inner, w_outer), f"{m} × {n}, {k} outlier columns"
    codes, scale, kept = split_weight(weight, columns)
    mistakes = {
        "the scale is set by the outlier columns too": (weight.abs().amax(1, keepdim=True) / 127),
        "one scale serves the whole weight": (w_inner.abs().max() / 127).expand(m, 1),
        "the scale is max / 128": (s_w * 127 / 128).float(),
    }
    check_close(scale, s_w.float(), 1e-6 * s_w, f"split_weight, {name}: scale", "10⁻⁶ of the value", mistakes)
    mistakes = {
        "codes are cut off toward zero, not rounded": lambda: (w_inner / s_w).trunc().to(torch.int8),
        "outlier columns are zeroed and kept in the codes; they are taken out": lambda: torch.where(
            columns, 0, joined(columns, q_w.float(), w_outer).clamp(-128, 127)
        ).to(torch.int8),
    }
    check_equal(codes, q_w.to(torch.int8), f"split_weight, {name}: codes", mistakes)
    check_equal(kept, w_outer, f"split_weight, {name}: kept")

calibration = [torch.randn(3, 7, 20, generator=generator), torch.randn(5, 20, generator=generator)]
calibration[0][1, 2, 4], calibration[0][2, 6, 9], calibration[1][0, 13], calibration[1][4, 2] = -8.0, 7.5, -7.0, 6.99
tokens = torch.cat([batch.reshape(-1, 20) for batch in calibration])
for threshold in (7.0, 7.25):
    expected = torch.zeros(20, dtype=torch.bool)
    expected[[4, 9, 13] if threshold == 7 else [4, 9]] = True
    mistakes = {
        "negative values do not count": (tokens >= threshold).any(0),
        "the threshold itself does not count": (tokens.abs() > threshold).any(0),
        "only the last batch counts": (calibration[1].abs() >= threshold).any(0),
        "every token must reach the threshold, not any": (tokens.abs() >= threshold).all(0),
        "columns are judged by their mean magnitude": tokens.abs().mean(0) >= threshold,
    }
    got = outlier_columns(calibration, threshold)
    check_equal(got, expected, f"outlier_columns, threshold {threshold:g}", mistakes)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-hybrid", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_close

ROUNDING = "10⁻⁶ of the integer part, (k + 2) · 2⁻²⁴ · Σ|x · w| of the float part"
# columns 1 and 2 are split off; W's other columns: scales 1 and 1
columns, kept = torch.tensor([False, True, True, False]), torch.tensor([[900.0, 0.5], [1, 2]])
codes, scale = torch.tensor([[127, -2], [0, 0]], dtype=torch.int8), torch.ones(2, 1)
# token 0: scale 0.5, codes 127 and 2; outliers 10 and −3. token 1: scale 2, codes −127 and 0; outliers 0 and 1
x = torch.tensor([[63.5, 10, -3, 1], [-254, 0, 1, 0]])
expected = torch.tensor([[8062.5 + 8998.5, 4], [-32258 + 0.5, 2]])
mistakes = {
    "the outlier columns are dropped": torch.tensor([[8062.5, 0], [-32258, 0]]),
    "the scale of x is left out": torch.tensor([[16125 + 8998.5, 4], [-16129 + 0.5, 2]]),
    "one scale serves the whole batch: a token's result depends on the others": torch.tensor(
        [[17126.5, 4], [-32257.5, 2]]
    ),
    "the scales multiply the float part too": torch.tensor([[12561.75, 2], [-32257, 4]]),
}
what = "hybrid_linear of two tokens"
check_close(hybrid_linear(x, columns, codes, scale, kept), expected, 0.02, what, ROUNDING, mistakes)
for t in range(2):
    y = hybrid_linear(x[t : t + 1], columns, codes, scale, kept)
    check_close(y, expected[t : t + 1], 0.02, f"hybrid_linear of token {t} alone", ROUNDING)
### BEGIN HIDDEN TESTS


def known(generator, *shape, size=1.0):
    """Rows whose codes are known, and these codes and scales: x = scale · (codes + something within ±0.45)."""
    q = torch.randint(-126, 127, shape, generator=generator).double()
    rest = 0.9 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 0.45
    q[..., 1], rest[..., 1] = -127, 0
    scale = size * (torch.rand(*shape[:-1], 1, generator=generator, dtype=torch.float64) + 0.02)
    return ((q + rest) * scale).float(), q, scale


def joined(columns, inner, outer):
    whole = torch.empty(*inner.shape[:-1], len(columns))
    whole[..., ~columns], whole[..., columns] = inner, outer
    return whole


def scaled(values, dims=(-1,)):
    scale = values.double().abs().amax(dims, keepdim=True) / 127
    scale = torch.where(scale == 0, 1.0, scale)
    return (values.double() / scale).round(), scale


generator = torch.Generator().manual_seed(507)
# batch independence: a token alone, and beside a neighbour with a huge value in a column that is no outlier column
columns = torch.zeros(48, dtype=torch.bool)
columns[[5, 40]] = True
inner, q_x, s_x = known(generator, 4, 46)
x = joined(columns, inner, 50 * torch.randn(4, 2, generator=generator))
x[2] = 0
weight = torch.randn(8, 48, generator=generator)
codes, scale = (part.float() for part in scaled(weight[:, ~columns]))
arguments = columns, codes.to(torch.int8), scale, weight[:, columns]
alone = torch.stack([hybrid_linear(x[t : t + 1], *arguments)[0] for t in range(4)])
wild = x[:1].clone()
wild[0, 7] = 1000.0
beside = hybrid_linear(torch.cat([x, wild]), *arguments)[:4]
off = (beside - alone).abs()
bound = 1e-5 * (x.double().abs() @ weight.double().abs().T)
assert (off <= bound).all(), (
    f"hybrid_linear: a token's output changes by {off.max():.3g} when another token of the batch holds 1000: "
    "scales and columns must not depend on the other tokens"
)

for shape, places, m in (((12, 40), (3, 17, 30), 6), ((2, 5, 64), (0, 63), 9), ((1, 21), (20,), 4), ((6, 32), (), 5)):
    n = shape[-1]
    columns = torch.zeros(n, dtype=torch.bool)
    columns[list(places)] = True
    k = len(places)
    inner, q_x, s_x = known(generator, *shape[:-1], n - k, size=0.055)
    outer = 60 * torch.randn(*shape[:-1], k, generator=generator)
    w_inner, q_w, s_w = known(generator, m, n - k)
    w_outer = 100 * torch.randn(m, k, generator=generator)
    x, weight = joined(columns, inner, outer), joined(columns, w_inner, w_outer)
    name = f"x of shape {shape}, {k} outlier columns"
    right_codes, right_scale = q_w.to(torch.int8), s_w.float()
    y = hybrid_linear(x, columns, right_codes, right_scale, w_outer)
    integer = q_x @ q_w.T * s_x * s_w.T
    floating = outer.double() @ w_outer.double().T
    expected = (integer + floating).float()
    atol = 1e-6 * integer.abs() + (k + 2) * 2**-24 * (outer.double().abs() @ w_outer.double().abs().T)
    atol = atol + 2**-24 * expected.abs()
    all_codes, all_scale = scaled(x)
    inner_codes = (inner.double() / all_scale).round()
    one_codes, one_scale = scaled(inner, tuple(range(inner.dim())))
    seen = (x.abs() >= 6).reshape(-1, n).any(0)[~columns]
    mistakes = {
        "the outlier columns are dropped": integer.float(),
        "the outlier columns are counted twice": (integer + 2 * floating).float(),
        "only the outlier columns are multiplied": floating.float(),
        "x's scale is set by the outlier columns too: take the maximum after the split": (
            inner_codes @ q_w.T * all_scale * s_w.T + floating
        ).float(),
        "one scale serves the whole batch: a token's result depends on the others": (
            one_codes @ q_w.T * one_scale * s_w.T + floating
        ).float(),
        "the scale of x is left out": (q_x @ q_w.T * s_w.T + floating).float(),
        "the scale of the weight is left out": (q_x @ q_w.T * s_x + floating).float(),
        "the scales multiply the float part too": ((q_x @ q_w.T + floating) * s_x * s_w.T).float(),
        "x stays in float: nothing is quantized, or one branch decides for the whole tensor": (
            inner.double() @ (q_w * s_w).T + floating
        ).float(),
        "codes of x are cut off toward zero, not rounded": (
            (inner.double() / s_x).trunc() @ q_w.T * s_x * s_w.T + floating
        ).float(),
        "products wrap around at 8 bits": lambda: (
            ((q_x.unsqueeze(-2) * q_w + 128) % 256 - 128).sum(-1) * s_x * s_w.T + floating
        ).float(),
        "columns are chosen anew from the batch (6 or more), not taken from `columns`": lambda: (
            scaled(torch.where(seen, 0, inner))[0] @ q_w.T * scaled(torch.where(seen, 0, inner))[1] * s_w.T
            + torch.where(seen, inner, 0).double() @ (q_w * s_w).T
            + floating
        ).float(),
    }
    check_close(y, expected, atol, f"hybrid_linear, {name}", ROUNDING, mistakes)

### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (f): audit two claims
#
# *5 minutes, 3 points*
#
# **Claim 1.** *"99.9 % of activations lie within ±3 σ, the other 0.1 % at 50 σ."* The standard deviation σ is made by the very values that the claim is about.
#
# ```
# possible     groups: list of pairs (share, k)               →  bool
# ```
#
# Each pair says that a share of all values (0.001 is 0.1 %) lies at a distance of k σ from the mean or further, k ≥ 0. The groups are disjoint, so the
# shares add up. True if *some* distribution has all of these groups at once, and False if none can. σ² is the mean of all
# squared distances from the mean. No test lies within 1 % of the limit.
#
# **Claim 2.** *"Below 3 bits, weight-only quantization is not enough: quantize the activations too, to keep the quality."*
#
# ```
# error_split  x: float32 (t, n), weight: float32 (m, n)      →  three numbers, percent
#              weight_bits, activation_bits: int, 2 to 8
# ```
#
# | | |
# |:--|:--|
# | Rule | symmetric, a scale per row of `weight` and per token of `x`: `scale = max(abs) / L`, `L = 2^(bits − 1) − 1`; decoded = scale · round(value / scale). A row of zeros decodes to zeros |
# | Result | 100 · ‖y − x Wᵀ‖ / ‖x Wᵀ‖ with only the weights quantized, with only the activations quantized, and with both; norms over the whole matrix |
# | Tolerance | 1 % of each figure (some roundings may fall the other way) |


# %% nbgrader={"grade": false, "grade_id": "audit", "locked": false, "schema_version": 3, "solution": true, "task": false}
def possible(groups):
    """Whether a distribution can have all of these disjoint groups: pairs (share, k), a share k σ or more from the mean."""
    ### BEGIN SOLUTION
    shares = sum(share for share, _ in groups)
    needed = sum(share * k**2 for share, k in groups)  # in units of σ²
    return shares <= 1 and needed <= 1
    ### END SOLUTION


def error_split(x, weight, weight_bits, activation_bits):
    """Relative errors of x Wᵀ in percent: the weights quantized, the activations quantized, both."""

    ### BEGIN SOLUTION
    def decoded(values, bits):
        scale = values.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
        return torch.where(scale == 0, 0.0, (values / scale).round() * scale)

    def percent(y):
        return (100 * (y - exact).norm() / exact.norm()).item()

    exact = x @ weight.T
    coarse, rough = decoded(weight, weight_bits), decoded(x, activation_bits)
    return percent(x @ coarse.T), percent(rough @ weight.T), percent(rough @ coarse.T)
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# If 0.1 % of the values are 50 σ away, how much variance do they make alone? For the second claim, guess before you measure: how do two independent errors add?
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# A share p at k σ contributes at least p · k² σ² to σ². The contributions of disjoint groups add, and the total is σ². One function that
# quantizes and decodes rows to any number of bits serves x and W.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# used = sum of share * k * k           # compare with 1; and the shares are shares of one whole
# y_w, y_x, y_both = x @ decoded_w.T, decoded_x @ w.T, decoded_x @ decoded_w.T
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-possible", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
import numpy as np


def check_verdict(groups, expected, why):
    got = possible(groups)
    assert isinstance(got, bool | np.bool_), f"possible({groups}): got a {type(got).__name__}, expected a bool"
    assert bool(got) is expected, f"possible({groups}): got {got}, expected {expected}: {why}"


for share, expected in ((0.001, False), (0.0003, True)):
    needed = share * 50**2
    check_verdict(
        [(share, 50)], expected, f"{share} · 50² = {needed:.3g}: these values alone make {needed:.3g} σ² of variance"
    )
### BEGIN HIDDEN TESTS
check_verdict([(0.7, 0.1), (0.5, 0.2)], False, "disjoint shares of 0.7 and 0.5 are more than all values")
TOGETHER = "the variances of disjoint groups add: {:.3g} σ² in all, and {}"
cases = [
    ([(0.0027, 3)], True),
    ([(0.12, 3)], False),
    ([(0.1, 3)], True),
    ([(0.0003, 50), (0.05, 3)], False),
    ([(0.0003, 50), (0.02, 3)], True),
    ([(0.5, 0.5), (0.1, 2), (0.02, 4)], True),
    ([(0.5, 0.5), (0.1, 2), (0.04, 4)], False),
    ([(0.2, 1), (0.2, 1.5), (0.02, 5)], False),
    ([(0.9, 0.1), (0.01, 6)], True),
    ([(0.0001, 90)], True),
    ([], True),
]
for groups, expected in cases:
    needed = sum(share * k * k for share, k in groups)
    verdict = "that is too much" if needed > 1 else "at most 1 is possible"
    check_verdict(groups, expected, TOGETHER.format(needed, verdict))
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-split", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_close

NAMES = ("weights alone", "activations alone", "both")
# 2 bits, codes −1, 0, 1: the weights 4, 1 become 4, 0. 3 bits, codes −3 … 3: the activations 3, 1.2 become 3, 1
got = error_split(torch.tensor([[3.0, 1.2], [0, 1]]), torch.tensor([[4.0, 1.0], [1, -1]]), 2, 3)
assert len(got) == 3, f"error_split: {len(got)} numbers, expected 3"
right = (11.660, 2.1112, 11.755)
wrong = {
    "weights and activations have each other's bits": (3.8866, 12.667, 12.909),
    "the errors are those of the tensors, not of the product": (22.942, 5.9131, 11.755),
    "L is 2^(bits − 1), not one less": (55.402, 21.785, 67.379),
    "one scale serves the whole tensor": (19.292, 2.1112, 19.292),
    "the errors of both are added, not measured together": (11.660, 2.1112, 13.771),
    "the error of the activations is what is left of both: both − weights": (11.660, 0.0952, 11.755),
    "the error is a fraction, not percent": [value / 100 for value in right],
}
for i, name in enumerate(NAMES):
    mistakes = {text: values[i] for text, values in wrong.items()}
    what = f"error_split of two tokens and two rows: {name}"
    check_close(got[i], right[i], 0.01 * right[i], what, "1 % of the figure", mistakes)
### BEGIN HIDDEN TESTS
from quant_kernels.methods.affine import fake_quantize as library_fake


def rows(values, bits):
    return library_fake(values, bits, symmetric=True, per="row").double()


def coarse(values, bits, levels=lambda bits: 2 ** (bits - 1) - 1, dims=(-1,), rounding=torch.round):
    scale = values.double().abs().amax(dims, keepdim=True) / levels(bits)
    scale = torch.where(scale == 0, 1.0, scale)
    return rounding(values / scale).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * scale


def three(x, weight, quantize, w_bits, x_bits):
    exact = x.double() @ weight.double().T
    q_w, q_x = quantize(weight, w_bits), quantize(x, x_bits)
    products = x.double() @ q_w.T, q_x @ weight.double().T, q_x @ q_w.T
    return [(100 * (y - exact).norm() / exact.norm()).item() for y in products]


generator = torch.Generator().manual_seed(509)
x, weight = torch.randn(48, 256, generator=generator), torch.randn(64, 256, generator=generator)
uneven = x * torch.logspace(-1, 1, 48).unsqueeze(1)
uneven[5] = 0
cases = [
    ("N(0, 1)", x, weight, 2, 8),
    ("N(0, 1)", x, weight, 8, 2),
    ("N(0, 1)", x, weight, 3, 4),
    ("rows of different size", uneven, weight * torch.logspace(0, 1, 64).unsqueeze(1), 4, 6),
]
for name, x, weight, w_bits, x_bits in cases:
    right = three(x, weight, rows, w_bits, x_bits)
    variants = {
        "one scale serves the whole tensor": lambda values, bits: coarse(values, bits, dims=(-2, -1)),
        "one scale serves a column, not a row": lambda values, bits: coarse(values, bits, dims=(-2,)),
        "L is 2^(bits − 1), not one less": lambda values, bits: coarse(values, bits, lambda bits: 2 ** (bits - 1)),
        "L is 2^bits − 1: those are the codes without a sign": lambda values, bits: coarse(
            values, bits, lambda bits: 2**bits - 1
        ),
        "codes are cut off, not rounded": lambda values, bits: coarse(values, bits, rounding=torch.trunc),
    }
    wrong = {text: three(x, weight, quantize, w_bits, x_bits) for text, quantize in variants.items()}
    wrong["weights and activations have each other's bits"] = three(x, weight, rows, x_bits, w_bits)
    wrong["the errors of both are added, not measured together"] = [*right[:2], right[0] + right[1]]
    exact = x.double() @ weight.double().T
    decoded = rows(x, x_bits) @ rows(weight, w_bits).T
    wrong["the error of the activations is what is left of both: both − weights"] = [
        right[0],
        right[2] - right[0],
        right[2],
    ]
    only = 100 * ((rows(x, x_bits) - x).norm() / x.norm()).item()
    alone = 100 * ((rows(weight, w_bits) - weight).norm() / weight.norm()).item()
    wrong["the errors are those of the tensors, not of the product"] = [alone, only, right[2]]
    wrong["the square root is missing"] = [value**2 / 100 for value in right]
    wrong["the error is a fraction, not percent"] = [value / 100 for value in right]
    wrong["the sum of squares is divided, not its root's norm: errors are averaged over tokens"] = [
        (100 * torch.nan_to_num((decoded - exact).norm(dim=1) / exact.norm(dim=1)).mean()).item()
    ] * 3
    got = error_split(x, weight, w_bits, x_bits)
    for i, part in enumerate(NAMES):
        mistakes = {text: values[i] for text, values in wrong.items()}
        what = f"error_split, {name}, W{w_bits}A{x_bits}: {part}"
        check_close(got[i], right[i], 0.01 * right[i], what, "1 % of the figure", mistakes)
### END HIDDEN TESTS

# %% [markdown]
# ## Experiment: your layers in a model with outliers
#
# The model of background 2, whose function is the course model's and whose activations have five outlier channels, with **your** functions of
# (a), (b), (c) and (e) in all its 56 linear layers. Then a stream with static ranges, claim 2 on a whole model, and your roofline. None of this is graded.
#
# Weights are int8 with a scale per row in every line; only the treatment of the activations differs. Predict the order first.

# %% tags=["experiment"]
import matplotlib.pyplot as plt
import torch

import quant_kernels as qk
from course.texts import calibration_text
from quant_kernels.methods import affine
from quant_kernels.methods.linears import input_maxima, replace_linears
from quant_kernels.methods.smoothquant import smooth_llama

WINDOWS = 8  # of 512 tokens; more are more exact and slower
evaluated = evaluation_tokens[: 512 * WINDOWS]
calibration = model.tokenizer.encode(calibration_text())[:2048]
calibrated = inputs_of(outlier_model, calibration)  # (2048, n) at each layer


class Layer(torch.nn.Module):
    def __init__(self, multiply):
        super().__init__()
        self.forward = multiply


def with_layers(some_model, make):
    """A copy of the model; make(name, weight) gives the function from x to y of each linear layer."""
    return replace_linears(some_model, lambda name, linear: Layer(make(name, linear.weight.detach())))


def decoded_rows(values):
    codes, scale = quantize_rows(values)
    return codes * scale


def weights_only(name, weight):
    decoded = decoded_rows(weight)
    return lambda x: x @ decoded.T


def per_tensor(name, weight):
    decoded = decoded_rows(weight)
    return lambda x: fake_quantize(x, x.min(), x.max()) @ decoded.T


def static(rule):
    def make(name, weight):
        decoded, (low, high) = decoded_rows(weight), calibrate(list(calibrated[name].split(512)), rule)
        return lambda x: fake_quantize(x, low, high) @ decoded.T

    return make


def per_token(name, weight):
    codes, scale = quantize_rows(weight)
    return lambda x: w8a8_linear(x, codes, scale)


def in_blocks(name, weight):
    decoded = decoded_rows(weight)

    def multiply(x):
        codes, d = q8_0_blocks(x.reshape(-1, x.shape[-1]))
        return (codes * d.float().repeat_interleave(32, 1)).view_as(x) @ decoded.T

    return multiply


split_share = []


def hybrid(name, weight):
    maxima = calibrated[name].abs().amax(0)
    columns = outlier_columns([calibrated[name]], 6 * maxima.median().item())  # six times the usual channel
    split_share.append(columns.float().mean().item())
    parts = columns, *split_weight(weight, columns)
    return lambda x: hybrid_linear(x, *parts)


maxima = input_maxima(outlier_model, torch.tensor(calibration).view(-1, 512))
smooth_model = smooth_llama(outlier_model, maxima, alpha=0.5)
table = {
    "float activations (W8A16)": (outlier_model, weights_only),
    "static, per tensor, min-max": (outlier_model, static("min-max")),
    "static, per tensor, 99.9 %": (outlier_model, static("percentile")),
    "dynamic, per tensor": (outlier_model, per_tensor),
    "dynamic, per token (a)": (outlier_model, per_token),
    "blocks of 32, as Q8_0 (b)": (outlier_model, in_blocks),
    "columns split, per token (e)": (outlier_model, hybrid),
    "SmoothQuant 0.5, per token (a)": (smooth_model, per_token),
}
print(f"{'activations':34}{'perplexity':>11}{'KL divergence':>15}")
with qk.record(outlier_model, evaluated) as reference_run:
    for label, (some_model, make) in table.items():
        result = reference_run.compare(with_layers(some_model, make))
        print(f"{label:34}{result.other.value:11.2f}{result.kl_divergence.value:15.4f}")
share = 100 * sum(split_share) / len(split_share)
print(f"\nunquantized {result.base.value:.2f} ± {result.base.standard_error:.2f}; {share:.1f} % of columns split off")

# %% [markdown]
# **How to read it.** Two cores of a server CPU printed:
#
# | | perplexity | KL divergence, nats |
# |:--|--:|--:|
# | float activations (W8A16) | 21.63 | 0.0077 |
# | static, per tensor: min-max; middle 99.9 % | 46.70; 26.47 | 0.789; 0.244 |
# | dynamic, per tensor | 39.30 | 0.643 |
# | dynamic, per token | 25.11 | 0.186 |
# | blocks of 32, as Q8_0 | 22.25 | 0.039 |
# | columns split; SmoothQuant | 21.51; 21.50 | 0.0006; 0.0006 |
#
# - *Per tensor* the largest value of all tokens sets one step, and 251 channels live on a few codes. The percentile trades that for clipped outliers.
# - *Per token* helps less than people expect: the large channels are large in every token. The scale would have to change along c.
# - *Blocks of 32* confine an outlier to its block: 5 of 8 blocks suffer at most. No calibration, no split.
# - *Split* and *smoothed* hold. Both are even better than float activations, and that is no merit of quantizing: the weight's columns that read the outliers are 60 times
#   smaller than their neighbours, share their row's scale, and lose most of their codes. The split keeps them in float, smoothing makes them larger.
#
# All lines see the same tokens, so their differences are surer than ± 1.28 says, and the KL divergence to the unquantized model is surer still.
#
# **Static ranges in a stream.** Next, two inputs in the model as it was trained: one behind a norm, and one behind a gated product. Ranges come from numpy's docstrings, the stream is Python's
# language reference, and from batch 8 on we multiply the inputs by 3, as another domain or an adapter might.

# %% tags=["experiment"]
BATCH = 128  # tokens
past, present = inputs_of(model, calibration), inputs_of(model, evaluation_tokens[:2048])
rules = {"min-max": "min-max", "moving average": "average", "middle 99.9 %": "percentile"}
figure, panels = plt.subplots(1, 2, figsize=(7.5, 3.6), sharey=True, layout="constrained")
for axes, name in zip(panels, ("blk.4.ffn_up", "blk.5.ffn_down")):
    seen, stream = list(past[name].split(BATCH)), list(present[name].split(BATCH))
    stream[8:] = [3 * x for x in stream[8:]]  # from here on the inputs are three times larger
    results = {f"static, {label}": stream_errors(stream, calibrate(seen, rule)) for label, rule in rules.items()}
    results["dynamic, per token"] = stream_errors(stream)
    for label, errors in results.items():
        colour = {"color": "black"} if label.startswith("dynamic") else {}
        axes.plot(errors, marker=".", label=label, **colour)
        before, after = (sum(errors[part]) / 8 for part in (slice(8), slice(8, 16)))
        print(f"{name:15} {label:24} mean error {before:6.2f} % before, {after:6.2f} % after")
    axes.axvline(7.5, color="grey", linestyle=":")
    axes.text(7.8, 0.42, "inputs × 3", fontsize=9)
    axes.set(title=f"input of {name}", xlabel=f"batch of {BATCH} tokens", yscale="log", ylim=(0.35, 110))
    axes.set_xticks(range(0, 16, 4))
    axes.grid(alpha=0.3)
panels[0].set_yticks([0.5, 1, 2, 5, 10, 20, 50, 100], ["0.5", "1", "2", "5", "10", "20", "50", "100"])
panels[0].minorticks_off()
panels[0].set_ylabel("relative RMSE of x, %")
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8.5)
plt.show()

# %% [markdown]
# We measured, as the mean of the 8 batches before and after the shift:
#
# | range | `ffn_up`, before | after | `ffn_down`, before | after |
# |:--|--:|--:|--:|--:|
# | static, min-max | 1.05 % | 21.0 % | 21.4 % | 13.0 % |
# | static, moving average | 0.97 % | 24.8 % | 14.5 % | 22.7 % |
# | static, middle 99.9 % | 1.57 % | 34.3 % | 30.9 % | 56.4 % |
# | dynamic, per token | 0.67 % | 0.67 % | 2.5 % | 2.5 % |
#
# Behind the norm any range of the past is good until the inputs change; then all that lies beyond it is clipped. The 99.9 % range is the worst even before: with 8 bits, the
# finer step gains less than the cut values lose. (In the table above it won: there the values beyond were 60 times larger.) Behind the gated product a few tokens hold huge values. Min-max keeps them
# and leaves everybody else few codes; the percentile cuts them. From the shift min-max even gains: its range was too wide for most values. Only a range per token fits both.
#
# **Claim 2 on a whole model.** Weights of 2 and 3 bits in groups of 32 (by the library), activations in float, 8 and 4 bits per token. The model is the course model as it was trained.


# %% tags=["experiment"]
def bits_of(weight_bits, activation_bits):
    def make(name, weight):
        coarse = affine.fake_quantize(weight, weight_bits, per=32)
        if activation_bits == 16:
            return lambda x: x @ coarse.T
        return lambda x: affine.fake_quantize(x, activation_bits, symmetric=True, per="row") @ coarse.T

    return make


print(f"{'':8}{'perplexity':>11}{'KL divergence':>15}")
with qk.record(model, evaluated) as reference_run:
    for weight_bits in (2, 3):
        for activation_bits in (16, 8, 4):
            result = reference_run.compare(with_layers(model, bits_of(weight_bits, activation_bits)))
            label = f"W{weight_bits}A{activation_bits}"
            kl = result.kl_divergence
            print(f"{label:8}{result.other.value:11.3f}{kl.value:15.4f} ± {kl.standard_error:.4f}")

# %% [markdown]
# We measured KL divergences of 0.612, 0.614 and 0.834 with 2-bit weights, and 0.0889, 0.0893 and 0.234 with 3-bit weights: each step down in activations costs, 8 bits almost
# nothing. The perplexity of W3A8 is *lower* than that of W3A16, 23.173 against 23.207. Both numbers are right. Rounding noise moves 2 040 tokens' losses up and down,
# and their mean can come out either way by a few hundredths; the divergence from the unquantized model shows the direction. "Never improves" is a statement about the expected error, not about each draw.
#
# **The crossover.** Your `step_seconds` for 8 · 10⁹ weights on an H100, in decode: without a cache, and with 2048 tokens of FP16 cache per sequence (8 KV heads of 128 in 32 layers, 128 KiB per token).

# %% tags=["experiment"]
chip = {"bandwidth": 3.35e12}
schemes = {"FP16": (16, 989e12), "W4A16": (4.125, 989e12), "W8A8": (8, 1979e12)}
batches = [2 ** (i / 16) for i in range(16 * 9 + 1)]
figure, panels = plt.subplots(1, 2, figsize=(7.5, 3.5), sharey=True, layout="constrained")
for axes, context in zip(panels, (0, 2048)):
    kv = context * 2 * 32 * 8 * 128 * 2  # bytes: keys and values, 32 layers, 8 heads of 128, FP16
    for label, (bits, peak) in schemes.items():
        times = [1e3 * step_seconds(8e9, batch, bits, peak, kv=kv, **chip) for batch in batches]
        line = axes.plot(batches, times)[0]
        if context == 0:
            axes.text(1.15, 1.06 * times[0], label, color=line.get_color())
    crossing = crossover_batch(8e9, schemes["W4A16"], schemes["W8A8"], kv=kv, **chip)
    if crossing:
        axes.axvline(crossing, color="grey", linestyle=":")
    where = f"W8A8 wins from {crossing} on" if crossing else "W4A16 is never slower"
    axes.set(title=f"context {context}: {where}", xlabel="batch, sequences", xscale="log", yscale="log")
    axes.set_xticks([1, 8, 64, 512], ["1", "8", "64", "512"])
    axes.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
panels[0].set_ylabel("ms per decode step")
plt.show()

# %% [markdown]
# On the left W4A16 turns upwards at 77, and W8A8, flat until 295, passes below it at 148: at 8 · 989 / (16 · 3.35), into which the 4 bits do not even enter. On the right the cache's bytes rise
# faster than FP16's operations from the first sequence on: 80 µs against 16 µs per sequence. All three schemes wait for memory, and fewer bits never lose. These are bounds; real kernels lose earlier.

# %% [markdown]
# ## Rubric
#
# An instructor scores the next three answers and the talk at the end, 7 points each; alone, score yourself by the tables. Write into the
# cells "Your answer".

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-distinction", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Distinction (7 points)
#
# A colleague writes: *"Weight quantization happens offline and costs nothing at run time. Activation quantization is dynamic and needs calibration. llama.cpp
# does only the first, so it computes in float."* In 250 words or fewer: put right what is wrong. For weights, activations and the KV cache say what is
# known when, who chooses the scale, and along which dimension it may run.
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | Repeats the claim in other words | Offline against run time, and one of the errors | All three errors; static and dynamic kept apart; scales per row and per token | Also why the other dimension does not factor out, how folding gets round it, the KV cache, and llama.cpp by backend |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** weights are known at conversion: time for searches, calibration-weighted rounding, several formats per file; at run time they are unpacked and scaled in each use, which is not free in prefill.
# Activations exist only during the request: *static* ranges come from calibration data and clip what exceeds them, *dynamic* ones from the token itself and need none, at the price of a pass for the maximum.
# Scales: a weight per output row, or per group along n with a float step per group; activations per token, or per block; a scale per input channel stands in the sum, unless it is folded into the weight first (`channel_linear`; SmoothQuant).
# KV cache: activations that are written once and read at every later step, so its quantization saves bandwidth and memory. llama.cpp: CPU Q8_0 or Q8_K, CUDA Q8_1, integer dots; Metal decodes and multiplies floats.
#
# **Strong, 7 of 7.** *"Three errors. Run time: a packed weight is unpacked and scaled whenever it is used; in decode that hides behind memory, in prefill it does not. Calibration: dynamic quantization takes max|x| of each token and needs none; static needs it, and clips when the
# stream shifts (I measured that). Float: on a CPU llama.cpp makes Q8_0 or Q8_K of x and multiplies integers, on CUDA Q8_1; only Metal multiplies floats. On N(0, 1) the step to Q8_0 costs 0.5 % of the output, Q4_0's weights 8.6 %. Known when: weights at conversion, so I may search for minutes;
# x per request; K and V once written, then read every step. Scales: y[t, j] = s_x[t] s_w[j] Σ q q. What depends on c stays in the sum: so per row, per token, or blocks with a float multiply each. A channel scale of x must go into W's columns before W is quantized, which is SmoothQuant with α = 1.
# K's channel scales fold into the query in the same way."* Every error, the algebra, the way round it, numbers.
#
# **Middling, 4 of 7.** *"Weights are quantized once, activations on each request. Dynamic means a scale per token computed at run time, so no calibration; static uses observers. llama.cpp quantizes activations to 8 bits on the CPU to use integer instructions. Weights get a scale per row, activations one per token."*
# Two errors and the scales. Run-time cost, the reason for the dimensions and the KV cache are missing.
#
# **Weak, 1 of 7.** *"Weights are static and easy, activations are dynamic and have outliers, so most engines do only weights and dequantize to FP16 for the computation."* The claim again.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (distinction):

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-trade-offs", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Trade-offs (7 points)
#
# Choose formats of weights, activations and KV cache for a model of 8 · 10⁹ weights (32 layers, 8 KV heads of 128): **A** chat for one user on a desktop GPU; **B** summaries of 8 000-token documents
# on H100s; **C** 64 chats at once, 8 000 tokens each, on one H100. In 250 words or fewer, with the numbers that decide. Then answer claim 2 of exercise (f).
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | One format for all, or no reasons | Memory- and compute-bound told apart; no numbers | A, B and C decided by bytes and operations; claim 2 refuted | Also counts the cache, says what the bound leaves out and what to measure, and reads claim 2's table with its noise |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** A: one token reads all weights: 16 GB in FP16, 4.1 GB at 4.125 bits, a bound of 3.9 times; 8-bit activations gain nothing (`activation_gain` is 1) unless the kernel wants integers. B: 8 000 tokens · 16 · 10⁹ operations = 128 Top per prompt: 129 ms at FP16's peak, 65 ms at FP8's; the weights' bytes take 1 to 5 ms; W8A8 wins from batch 1.
# C: the cache is 128 KiB per token, 1.05 GB per chat, 67 GB in all: with FP16 weights it does not fit into 80 GB, with 4- or 8-bit weights it does, barely; 8 bits for the cache halve the step. Decode never crosses over; mixed with prefill, W8A8 may still win: measure.
# Claim 2: quantizing activations adds an error of its own; what 2 bits have lost, no rounding of x brings back. On the course model the KL divergence goes 0.612, 0.614, 0.834 with 16, 8, 4 bits of activations on 2-bit weights; published 2-bit results are weight-only (AQLM's README: Llama-2-7B 5.92 against 5.12, context 4096).
# 8-bit activations beside 2-bit weights can be right, for the arithmetic.
#
# **Strong, 7 of 7.** *"A: W4A16 or Q4_K: decode reads 4.1 GB instead of 16, at most 3.9 times faster; activations in 8 bits buy nothing there. B: 128 Top a prompt, 129 ms in FP16 and 65 in FP8 at the dense peak, weights 2.4 ms: W8A8 with FP8, per token. W4A16 pays unpacking and gains nothing. C: cache 1.05 GB a chat, 67 GB for 64: it dominates, so FP8 or
# q8_0 cache first; weights 4 or 8 bits both fit with it. By roofline W4A16 never loses in that decode, since the cache's bytes outgrow the operations; but the same machine prefills, so I would measure both under the real mix, and KL divergence of each. Claim 2 is backwards. I measured W2A16 0.612, W2A8 0.614, W2A4 0.834 nats. At 3 bits A8's perplexity came out lower by 0.03,
# with a larger KL: chance, on 8 windows. Errors of W and x add in squares; the smaller one is nearly free, and never negative."* Numbers, limits, noise.
#
# **Middling, 4 of 7.** *"A is bandwidth-bound: 4-bit weights. B is compute-bound: FP8 for both, up to 2 times. C has a big KV cache, so quantize that to 8 bits, weights 8 bits. Claim 2 is wrong since quantizing activations adds error."* Right choices and direction. The cache is not counted, nothing is measured.
#
# **Weak, 1 of 7.** *"4-bit for all three, it is 4 times faster; for B and C also quantize activations to save bandwidth."* No regime, and bandwidth is not what activations save.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (trade-offs):

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-hardware", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Hardware and kernels (7 points)
#
# Sketch two kernels: W8A8 on a GPU with 8-bit matrix instructions, and Q4_0 × Q8_0 on a CPU. In 250 words or fewer: where each scale is applied, how wide the sums are, where x is quantized, what a scale per block costs. Then: what does W4A16
# compute in on an H100, from which batch does it lose to W8A8, and why will a measurement say something else?
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | "Use tensor cores" | Integer product, scales afterwards; no widths | Widths, epilogue and blocks right; the crossover derived | Also signs or zero points, the fusion of x's quantization, the cache in the crossover, and the kernel's own limits |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** GPU: int8 tiles, int32 accumulators (127² · n fits up to n = 133 144), in the epilogue one multiplication by s_x[t] · s_w[j], then bias and conversion; x quantized in the kernel before it (norm, activation), which has the token in registers for its maximum. Zero points: − z_x Σ q_w is known ahead, symmetric x needs none.
# CPU: per block 32 products in int32 lanes, one float multiply-add per block and row; unsigned times signed instructions want codes 0–15 and −8 Σ q_x. A block scale on a GPU means leaving the accumulator every 32 products for float work, so groups are 64, 128 or more, or the hardware applies block scales itself (MXFP4, NVFP4).
# H100: no 4-bit integer matrix instruction; W4A16 decodes to FP16 in registers, peak 989 · 10¹². Loses where 2 P B / 989 · 10¹² > P / 3.35 · 10¹²: B ≥ 148, whatever its bits; it is compute-bound from 77. With K bytes of cache per sequence it never loses if K / bandwidth > 2 P / peak: 54 MB here, some 410 tokens of 128 KiB.
# Measured: unpacking competes with the matrix units; Marlin's README shows close to 4 times up to batch 16–32; AutoAWQ's issue 106 half of FP16's speed at batch 256; clocks and small shapes keep W8A8 below its peak.
#
# **Strong, 7 of 7.** *"GPU: x is quantized in the RMSNorm kernel, which holds the row for its max anyway. The GEMM is int8 × int8 → int32, safe to n = 133 144; epilogue y = acc · s_x[t] · s_w[j] + bias, one multiply per output. CPU: 18-byte blocks of w, 34 of x; 32 products, u8 × s8 with the raw nibble and −8 Σ q_x per block of x, int32, then one FMA by
# d_w·d_x. That FMA per 32 products is cheap beside a CPU's byte dot and dear beside a tensor core, so GPUs use a row or groups of 128, and Blackwell scales blocks in hardware. H100 has no INT4 MMA: W4A16 is FP16 math, ridge at 77, and loses where 2PB/989T exceeds P bytes/3.35T: 148. With cache above 54 MB a sequence (8B) never, in decode; in prefill
# from 148 tokens on. Measured earlier than 148: unpacking takes issue slots (Marlin near 4× only to 16–32; AutoAWQ 106: half of FP16 at 256). I would plot both kernels over the batch at the model's shapes."* Complete.
#
# **Middling, 4 of 7.** *"int8 × int8 into int32, then both scales in the epilogue. On the CPU an integer dot per block of 32 and a float multiplication per block. W4A16 runs FP16 math on H100, so it becomes compute-bound at about 77 and loses to W8A8 around 150; in practice earlier, because of dequantization."* Right and numeric. No quantizing of x, signs, or cache.
#
# **Weak, 1 of 7.** *"Tensor cores do INT4 on H100, so W4 is always fastest; the scales are multiplied into the inputs."* Both are false.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (hardware and kernels):

# %% [markdown]
# ## Follow-up questions
#
# Try each aloud before you unfold what a strong answer touches.
#
# **1. Dynamic needs no calibration. Why would anyone use static ranges?**
#
# <details><summary>A strong answer touches</summary>
#
# The maximum of a token is a reduction before the first code can be written: one more pass over x, or a fusion with the kernel before. Static scales are constants: integer-only pipelines (DSPs, NPUs), fused requantization from layer to layer,
# one multiplication fewer. Price: the range is a promise about future inputs; per tensor, never per token, since tokens to come are not known; watch the clipped share in production. Behind a norm ranges are stable; behind a gated product they are not (the stream of the experiment).
#
# </details>
#
# **2. How would you quantize the KV cache, and along which dimension?**
#
# <details><summary>A strong answer touches</summary>
#
# It is read at every step, so bytes count: 128 KiB per token in FP16 here. q · k sums over the head's channels: a scale per *channel* of K can be folded into q, one per token stands outside of the sum. p · V sums over tokens: a scale per token of V can be folded into p. KIVI (arXiv 2402.02750) takes K per
# channel, where K has its outliers, and V per token, and leaves the newest tokens in float. llama.cpp's pull request 7412 measured +0.0046 perplexity for a q8_0 cache on Llama-3-8B. It can fail: keys with a huge bias in some channels.
#
# </details>
#
# **3. FP8 or INT8 for the activations?**
#
# <details><summary>A strong answer touches</summary>
#
# The same rate on Hopper. E4M3 has 3 bits of mantissa: a relative error of up to 1/16, over a range from 2⁻⁹ to 448; INT8 has an absolute error of half a step. An outlier moves INT8's step for all, and leaves FP8's small values nearly as they were, until they fall below its range. Without outliers INT8 is the finer one. Kurtic et al. (arXiv 2411.02355)
# found FP8 W8A8 lossless, and INT8 W8A8 at 1 to 3 % with tuning. Name the hardware: Ampere has INT8 and no FP8.
#
# </details>
#
# **4. LLM.int8() keeps quality and was slower than FP16. Why, and is that inherent?**
#
# <details><summary>A strong answer touches</summary>
#
# Columns are found in each batch: a scan, a gather with an irregular index, two products, a sum. A user's report in bitsandbytes' issue 347 has 32.9 ms against 154.6 ms. Not inherent: fixed columns (exercise (e)) can be put last once and for all, by a permutation of the weight's columns and of the rows of what makes x; then it is two dense products.
# SmoothQuant and rotations get by with one.
#
# </details>
#
# **5. At temperature 0 the same prompt gives two answers, depending on the load. Where do you look?**
#
# <details><summary>A strong answer touches</summary>
#
# At what a token shares with its batch: dynamic per-tensor scales, whole-batch branches, columns chosen from the batch. Those change results by percents. Then kernels whose order of summation depends on the batch's shape: changes in the last bits, which flip an argmax now and then. Test: one prompt alone and in random company, compare logits, not texts.
#
# </details>
#
# **6. In which sense did you write SmoothQuant in exercise (a)?**
#
# <details><summary>A strong answer touches</summary>
#
# `channel_linear` moves all of x's channel scales into the weight, SmoothQuant with α = 1: the activations become easy and the weight's columns as uneven as x was. α = 0.5 shares the burden: s = max|x|^α / max|w|^(1 − α). The division by s costs nothing where x comes from a norm: its gain takes it. For `ffn_down` there is no norm; the rows of `ffn_up` can take it.
#
# </details>
#
# **7. Someone turned BLAS on in llama.cpp, and perplexity changed. Bug?**
#
# <details><summary>A strong answer touches</summary>
#
# No: with BLAS the weights were decoded and x stayed in float, without it x was quantized too. In April 2023, with coarser activations, the switch mattered more than better weights did (pull request 896); so the intermediate became Q8_0 (951). Lesson: "the quantized model" is a file and a kernel; report both.
#
# </details>

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-communication", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Communication: the talk (7 points)
#
# Answer the question at the top in 15 minutes, to an interviewer who may ask any of the follow-ups. Speak, draw, show your code. Then write below what you said, in ten lines or fewer.
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | Lists pros and cons; no thread | Understandable; answers what was asked and no more | Algebra, regimes, outliers, evidence in order; states assumptions | Teaches: one formula first and everything from it, numbers predicted before shown, limits named unasked |
#
# === BEGIN MARK SCHEME ===
#
# **The model answer, in five parts of three minutes.**
#
# 1. *One formula.* y[t, j] = s_x[t] · s_w[j] · Σ_c q_x q_w. Weights: known at conversion, so there is time to search, and the file shrinks. Activations: known in the request; a range of the past (static, calibrated, clips) or of the present (dynamic, a pass for the maximum, no calibration). Which scales: those without c. Others go into the weight beforehand, or cut the sum into blocks.
# 2. *What llama.cpp does.* Weight formats in the file, and yet integers on both sides: Q8_0 or Q8_K on the CPU, Q8_1 on CUDA; Metal in float. A block of 32 costs a float multiply per 32 products and confines an outlier to its block. Q8_0's share of the output error is about 0.5 % on N(0, 1), the 4-bit weights' 8.6 %.
# 3. *What it buys.* Weights: bytes, in decode; bound 16/4.125 = 3.9. Activations: arithmetic, in prefill and large batches; bound 2. H100: W4A16 is FP16 math; it meets W8A8 at batch 148 without a cache, in prefill at 148 tokens. With more than about 410 tokens of cache per sequence (8B, GQA, FP16 cache) decode never gets there; the cache is what to quantize then. All bounds: kernels fall short, unpacking first; measure over the batch.
# 4. *What breaks.* A few channels, the same for all tokens. Measured, KL divergence: static per tensor 0.79, per token 0.19, blocks of 32 0.04, split or smoothed 0.0006. Even float activations have 0.008 there: the columns that read outliers are small and lose their codes. The hybrid with one branch per batch is wrong three times: unit, scales, dependence on the neighbours. Fixed columns, a scale per token.
# 5. *Claims.* "Activations save the quality at 2 bits": KL 0.612, 0.614, 0.834 with 16, 8, 4 bits. Never better, but for chance: at 3 bits a perplexity was lower by 0.03 and its KL higher. "0.1 % at 50 σ": 2.5 σ² of variance out of 1; what is true is a statement about channels. Open: one small model with outliers put in by hand; kernels not timed.
#
# Score the talk itself where you heard it; the samples are what candidates wrote of theirs.
#
# **Strong, 7 of 7.** *"I wrote y = s_x s_w Σ q q and derived the rest from where the index c stands: rows, tokens, blocks, folding. Static against dynamic by my stream: the static ranges went from 1.0–1.6 % to 21–34 % at the shift, dynamic stayed at 0.67 %. llama.cpp: integers on CPU and CUDA, float on Metal; I showed Q8_0's 0.5 % beside Q4_0's 8.6. Then the roofline: I let the
# interviewer guess the crossover (he said 'about 32'), derived 148, then 'never' with 2 000 tokens of cache, and said that real kernels cross earlier. Outliers: predicted per tensor < per token < blocks < split, measured KL 0.79, 0.19, 0.04, 0.0006, and explained why float activations had 0.008. Claim 2 fell with the KL column; I pointed out the perplexity that went the other way. Not measured: any GPU, any model with outliers of its own."* One
# formula, predictions, limits.
#
# **Middling, 4 of 7.** *"I explained static and dynamic, scales per row and per token, and showed (a) and (e). Per tensor fails on outliers (perplexity 47), the split holds (21.5). W4A16 is best for decode, W8A8 for prefill; the crossover is 148 on H100. When asked I explained why channel scales do not factor out."* Correct and ordered; the reason came on request, no limits.
#
# **Weak, 1 of 7.** *"I went through weight quantization and its advantages, then activation quantization and its challenges: dynamic range, outliers, calibration. All tests pass."* A list; no formula, no number.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (the talk, in ten lines or fewer):
