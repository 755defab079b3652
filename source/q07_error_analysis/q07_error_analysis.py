# ---
# jupyter:
#   course:
#     number: 7
#     title: Quantization error analysis
#     category: Technical
#     difficulty: Senior
#     levels: [mid, senior]
#     companies: []
#     minutes: {talk: 15, code: 50}
#     prerequisites:
#       - mean square, variance, covariance matrix; KL divergence of two distributions
#       - "Question 1: scale, rounding error, 6 dB per bit"
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
# # Question 7: Quantization error analysis
#
# | | |
# |:--|:--|
# | **Category** | Technical |
# | **Difficulty** | Senior; marked for the levels mid and senior |
# | **Time** | 50 minutes of code, then a talk of 15 minutes |
# | **You should know** | mean square, variance, covariance matrices, KL divergence; scale and rounding error (question 1) |
# | **Code points** | 30, in six exercises |
# | **Rubric points** | 28, in four categories of 7 |
# | **Mid passes with** | 12 rubric points and 60 % of the code points |
# | **Senior passes with** | 18 rubric points and 80 % of the code points |

# %% [markdown]
# ## The question
#
# > "We moved our model to 3-bit weights. The report on my desk says: mean SQNR of the layers fine, largest weight error small,
# > and rounding errors are random, so they average out. Users say that the model got worse. Take the report apart for me. How
# > large must the error of each tensor be, before anyone measures it, and what is it made of? What does it do to the layer's
# > output? Which tensors carry the damage, and may I add their damages up? And if a new kernel rounds the wrong way, how do you see it?"

# %% [markdown]
# ## What is looked for
#
# **Competencies.** A model of the error that predicts numbers; the step from the error of weights to the error of outputs, by
# algebra; measurements that single out one cause; knowing where each approximation ends, and checking it there.
#
# | Green flags | Red flags |
# |:--|:--|
# | Splits the error into rounding, clipping and bias before naming a remedy | "It lost some precision" |
# | Predicts a number, then measures it, then explains the difference | Ranks methods by the largest weight error |
# | Adds powers; converts to decibels at the end | Averages decibels over layers |
# | Asks which inputs the layer sees, and on which text they were gathered | Takes the lowest weight error for the best model |
# | Swaps one tensor, measures in the model's own output, puts it back | Ranks tensors on the text that the result is reported on |
# | Says when damages add up, and tests it | Adds up 60 single damages and calls it a forecast |

# %% [markdown]
# ## Background 1: two kinds of noise, one knob
#
# A symmetric quantizer of *b* bits has the codes −m … m with m = 2^(b−1) − 1. Its limit A decides which values it can reach, and the
# step follows: d = A / m.
#
# ```
#       overload              granular: error at most d/2               overload
#     ─────────────┼──────┬──────┬──────┬──────┬──────┬──────┼─────────────
#                −A = −3d    −2d    −d     0      d     2d   3d = A            3 bits, m = 3
#     error: |x| − A        error: anywhere in ±d/2, about d²/12 in the mean     error: |x| − A
# ```
#
# A smaller A makes fine steps and cuts off more of the tails; a larger A the reverse. The cell integrates both noises over the density of
# N(0, 1), for every limit A.

# %% tags=["experiment"]
import matplotlib.pyplot as plt
import torch

x = torch.linspace(-8, 8, 16_001, dtype=torch.float64)
density = (-x.square() / 2).exp()
density /= density.sum()


def two_noises(bits, limit):
    """Granular and overload noise of N(0, 1) at a limit, as shares of its power."""
    m = 2 ** (bits - 1) - 1
    power = ((x * m / limit).round().clamp(-m, m) * limit / m - x).square() * density
    beyond = x.abs() > limit
    return power[~beyond].sum().item(), power[beyond].sum().item()


limits = torch.linspace(0.8, 4.4, 361).tolist()
figure, axes = plt.subplots(figsize=(7.5, 4.2))
for bits, colour in ((2, "#c0504d"), (3, "#4f81bd"), (4, "#5b8c3a")):
    granular, overload = zip(*(two_noises(bits, limit) for limit in limits))
    total = [one + other for one, other in zip(granular, overload)]
    best = min(range(len(limits)), key=total.__getitem__)
    axes.plot(limits, total, color=colour, linewidth=2)
    axes.plot(limits[best], total[best], "o", color=colour)
    axes.annotate(
        f"{bits} bits: least at {limits[best]:.2f} σ, {100 * overload[best] / total[best]:.0f} % of it overload",
        (limits[best], total[best]),
        xytext=(0, -16) if bits != 3 else (44, -13),
        textcoords="offset points",
        fontsize=9,
        color=colour,
    )
    if bits == 3:
        axes.plot(limits, granular, color=colour, linestyle="--", linewidth=1)
        axes.plot(limits, overload, color=colour, linestyle=":", linewidth=1)
        axes.text(0.98, 0.0048, "granular, 3 bits", color=colour, fontsize=9)
        axes.text(2.43, 0.0037, "overload, 3 bits", color=colour, fontsize=9)
for size, peak, height in ((32, 2.35, 0.7), (4096, 3.77, 1.8e-3)):
    axes.axvline(peak, color="grey", linewidth=0.8)
    axes.text(peak + 0.03, height, f"absmax of {size}", fontsize=9, color="grey")
axes.set(
    yscale="log",
    ylim=(1.5e-3, 1.4),
    xlim=(0.8, 4.6),
    xlabel="limit A, in standard deviations",
    ylabel="noise power / signal power",
    title="Noise of N(0, 1): a small limit cuts the tails, a large one makes coarse steps",
)
axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# The grey lines are the mean largest magnitude of 32 and of 4 096 normal weights: where absmax puts the limit. At 2 bits that is far from
# the minimum with either group size, at 4 bits and groups of 32 it is close.

# %% [markdown]
# ## Background 2: one weight error, many output errors
#
# A layer computes y = W x. Replace W by Ŵ = W + ΔW, and the output changes by ΔW x. Its mean square over T tokens, summed over the outputs:
#
# &nbsp;&nbsp;&nbsp;&nbsp;1/T Σ_t ‖ΔW x_t‖² = 1/T Σ_t tr(ΔW x_t x_tᵀ ΔWᵀ) = **tr(ΔW H ΔWᵀ)**, with **H = 1/T Σ_t x_t x_tᵀ** = XᵀX / T
#
# The weights' own error, ‖ΔW‖² = tr(ΔW I ΔWᵀ), is the special case H = I: inputs of equal power without correlation. Real inputs
# are not like that. In the plot both errors of a row with two weights have length 0.1; what they do to the output is the spread of the inputs along them.

# %% tags=["experiment"]
import matplotlib.pyplot as plt
import torch

generator = torch.Generator().manual_seed(7)
inputs = torch.randn(400, 2, generator=generator) @ torch.tensor([[2.0, 1.2], [0.0, 0.35]])
figure, axes = plt.subplots(figsize=(7.5, 3.9))
axes.scatter(*inputs.T, s=8, color="#9aa5b1")
for name, angle, colour, place in (
    ("along the inputs", 0.54, "#c0504d", (1.6, -0.4)),
    ("across the inputs", 0.54 + torch.pi / 2, "#4f81bd", (-5.6, 3.3)),
):
    direction = torch.tensor([angle, angle + torch.pi / 2]).cos() * torch.tensor([1.0, -1.0])
    output = (inputs @ (0.1 * direction)).square().mean().sqrt()
    axes.annotate("", 3 * direction, (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2})
    axes.text(
        *place,
        f"ΔW {name}:\noutput error {output:.3f} rms",
        color=colour,
        fontsize=9.5,
        va="top",
    )
axes.set(
    xlabel="input channel 1",
    ylabel="input channel 2",
    title="400 inputs, two weight errors of length 0.1 (drawn × 30)",
    xlim=(-6.5, 6.5),
    ylim=(-3.6, 4.6),
    aspect="equal",
)
axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## Background 3: noise averages out, bias does not
#
# A dot product adds n rounding errors. Independent errors of mean zero grow like √n. A common part of them, a bias, grows like n. The cell rounds
# x (32 steps wide) in five ways and measures the error of Σ a_i x_i with positive a_i, over 100 trials.

# %% tags=["experiment"]
import matplotlib.pyplot as plt
import torch

generator = torch.Generator().manual_seed(8)
roundings = {
    "to nearest": torch.round,
    "stochastic": lambda v: (v + torch.rand(v.shape, generator=generator)).floor(),
    "toward zero, x of both signs": torch.trunc,
    "toward zero, x positive": lambda v: v.abs().trunc() - v.abs() + v,
    "down (floor)": torch.floor,
}
lengths = [2**power for power in range(4, 15)]
figure, axes = plt.subplots(figsize=(7.5, 4.2))
for name, rounding in roundings.items():
    errors = []
    for n in lengths:
        x = 32 * torch.randn(100, n, generator=generator)
        a = torch.rand(100, n, generator=generator)
        errors.append((a * (rounding(x) - x)).sum(1).square().mean().sqrt().item())
    slope = torch.tensor(errors[-1] / errors[0]).log2().item() / 10
    wide = {"linewidth": 7, "alpha": 0.35} if name.endswith("positive") else {"marker": "o", "markersize": 3.5}
    axes.plot(lengths, errors, label=f"{name}: slope {slope:.2f}", **wide)
axes.set(
    xscale="log",
    yscale="log",
    xlabel="length n of the dot product",
    ylabel="rms error, in steps of x",
    title="Error of a dot product under five roundings",
)
axes.legend(fontsize=9, frameon=False)
axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# On positive x, rounding toward zero is floor: the wide line under that of floor. Note the green line: rounding toward zero has mean error 0 on x of both signs, and still shrinks every single x. It shows in the sum as
# soon as the signs of x and a have to do with each other, and in a trained network they do.

# %% [markdown]
# ## Exercises
#
# Arguments are CPU tensors of torch, finite, and stay as they are; they may have any strides. Use torch or numpy; `quant_kernels` is not there
# when your answer is graded. Numbers may be Python floats or numpy's. The exercises do not build on one another: each is scored alone.

# %%
import math

import numpy as np
import torch

# %% [markdown]
# ### Exercise (a): the noise budget of a tensor
#
# *8 minutes, 5 points: 3 for `noise_budget`, 2 for `pooled_sqnr`*
#
# ```
# noise_budget  w: float32 (rows, n), bits: 2 … 8, group, clip: in (0, 1]  →  dict of four numbers
#
# each row:  │ group │ group │ group │        in each group:  A = clip · max|w|     m = 2^(bits − 1) − 1
#                                             d = A / m       ŵ = d · clamp(round(w / d), −m, m)
# ```
#
# | key | value |
# |:--|:--|
# | `"granular"` | mean over **all** elements of `(ŵ − w)²`, where the elements beyond their limit count 0 |
# | `"overload"` | the same, where the elements within their limit count 0. So granular + overload is the mean squared error |
# | `"predicted"` | the model of the granular noise: mean over all elements of `d²/12`, where the elements beyond their limit count 0 |
# | `"sqnr"` | `10 · log10(Σ w² / Σ (ŵ − w)²)` in dB over the whole tensor; `math.inf` if ŵ equals w |
#
# | | |
# |:--|:--|
# | Within the limit | `abs(w) <= A`. Compare with A itself: m · d may be rounded to less than A |
# | Group of zeros | decodes to zeros; its d is 0 |
# | Error | `ValueError` where n is not a multiple of `group` |
# | Tolerance | 0.1 % of each number, 0.005 dB. float32 arithmetic moves them by less than a tenth of this; halves, which either rule may round, have the same error up and down |
#
# **`pooled_sqnr(energies, sqnrs)`** audits a report. It lists for each layer the energy Σ w² and the SQNR in dB, and claims: "the build's SQNR is the
# mean of the column". Return the SQNR of all layers taken together as one tensor, which these two lists determine.
#
# | | |
# |:--|:--|
# | Arguments | two lists of floats of equal length, energies above 0; an SQNR may be `math.inf` (a layer without error) |
# | Result | a float in dB; `math.inf` if no layer has an error; `ValueError` for empty lists |
# | Tolerance | 10⁻⁶ dB: float64 |


# %% nbgrader={"grade": false, "grade_id": "noise", "locked": false, "schema_version": 3, "solution": true, "task": false}
def noise_budget(w, bits, group, clip=1.0):
    """The noise of group-wise quantization of float32 `(rows, n)`, split and predicted.

    Returns a dict with "granular", "overload", "predicted" (means of squares) and "sqnr" (dB).
    ValueError if n is not a multiple of `group`.
    """
    ### BEGIN SOLUTION
    if w.shape[1] % group:
        raise ValueError(f"{w.shape[1]} columns are not a multiple of the group size {group}")
    m = 2 ** (bits - 1) - 1
    x = w.double().reshape(-1, group)  # (n_groups, group)
    limit = clip * x.abs().amax(1, keepdim=True)  # (n_groups, 1)
    d = limit / m
    q = torch.where(d == 0, 0, x / d).round().clamp(-m, m)
    noise = (d * q - x).square()
    within = x.abs() <= limit
    total = noise.sum().item()
    return {
        "granular": (noise * within).mean().item(),
        "overload": (noise * ~within).mean().item(),
        "predicted": (d.square() / 12 * within).mean().item(),
        "sqnr": 10 * math.log10(x.square().sum().item() / total) if total else math.inf,
    }
    ### END SOLUTION


def pooled_sqnr(energies, sqnrs):
    """SQNR in dB of several layers as one, from the energy and the SQNR (dB) of each; ValueError for none."""
    ### BEGIN SOLUTION
    if not energies:
        raise ValueError("no layers")
    noise = sum(energy * 10 ** (-sqnr / 10) for energy, sqnr in zip(energies, sqnrs, strict=True))
    return 10 * math.log10(sum(energies) / noise) if noise else math.inf
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# One mask decides which element belongs to which noise. What adds up over groups and over layers are sums of squares: not steps, not decibels.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Reshape to `(-1, group)`, so that a limit per group is a column. The prediction needs no rounding at all: the mean of d²/12, each group with its
# own d. For the report: SQNR in dB → noise-to-signal ratio → noise energy, add, and back.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# squares = (decoded - blocks) ** 2
# granular = where(blocks.abs() <= A, squares, 0).mean()           # overload: the other way round
# predicted = where(blocks.abs() <= A, d ** 2 / 12, 0).mean()
# # the report
# noise_of_layer = energy / 10 ** (decibels / 10)
# result = 10 * log10(sum of energies / sum of noises)
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-noise", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
import math

import torch

from course.checks import check_close, check_raises

KEYS = ("granular", "overload", "predicted", "sqnr")


def check_budget(got, expected, what, mistakes=None):
    assert set(got) == set(KEYS), f"{what}: keys {sorted(map(str, got))}, expected {sorted(KEYS)}"
    for key in KEYS:
        if expected[key] == math.inf:
            assert got[key] == math.inf, f'{what}: "{key}": got {got[key]}, expected inf: there is no error'
            continue
        wrong = {text: (lambda make=make: make()[key]) for text, make in (mistakes or {}).items()}
        atol = 0.005 if key == "sqnr" else 1e-3 * expected[key] + 1e-12
        why = "0.005 dB" if key == "sqnr" else "0.1 % of the number"
        check_close(got[key], expected[key], atol, f'{what}: "{key}"', why, wrong)


# bits = 3: m = 3, codes −3 … 3. Row 0 without clipping: d = 1. Row 1 alone with clip = 0.5: A = 3, d = 1
w = torch.tensor([[3.0, 1.25, -0.25, 0.0], [6.0, 1.25, -0.25, 0.0]])
expected = {"granular": 0.125 / 4, "overload": 0.0, "predicted": 1 / 12, "sqnr": 10 * math.log10(10.625 / 0.125)}
mistakes = {
    "it is a sum; a mean is asked for": lambda: {**expected, "granular": 0.125, "predicted": 1 / 3},
    "the logarithm is multiplied by 20: that is for amplitudes": lambda: {**expected, "sqnr": 2 * expected["sqnr"]},
    "the step is A / 2^(bits − 1)": lambda: {**expected, "granular": 0.171875},
    "the step is 2A / (2^bits − 1)": lambda: {**expected, "granular": 0.100128},
}
check_budget(noise_budget(w[:1], 3, 4), expected, "noise_budget of 3, 1.25, −0.25, 0 with 3 bits", mistakes)
expected = {
    "granular": 0.125 / 4,
    "overload": 9 / 4,
    "predicted": 3 / 4 / 12,
    "sqnr": 10 * math.log10(37.625 / 9.125),
}
mistakes = {
    "the elements beyond the limit are counted in": lambda: {**expected, "predicted": 1 / 12},
    "values are clipped, and the step stays that of the largest value": lambda: {**expected, "granular": 0.15625},
    "the overload noise is left out": lambda: {**expected, "sqnr": 10 * math.log10(37.625 / 0.125)},
    "the mean goes over the elements of its own part; both go over all elements": lambda: {
        **expected,
        "granular": 0.125 / 3,
        "overload": 9.0,
        "predicted": 1 / 12,
    },
}
what = "noise_budget of 6, 1.25, −0.25, 0 with 3 bits and clip = 0.5"
check_budget(noise_budget(w[1:], 3, 4, 0.5), expected, what, mistakes)
zero = noise_budget(torch.zeros(2, 8), 4, 4)
check_budget(zero, {"granular": 0, "overload": 0, "predicted": 0, "sqnr": math.inf}, "noise_budget of zeros")
try:
    exact = noise_budget(torch.tensor([[3.0, 1.0, -2.0, 0.0]]), 3, 4)
except ArithmeticError as error:
    raise AssertionError(f"noise_budget of 3, 1, −2, 0, all met exactly: {error}; its sqnr is inf") from None
expected = {"granular": 0, "overload": 0, "predicted": 1 / 12, "sqnr": math.inf}
check_budget(exact, expected, "noise_budget of 3, 1, −2, 0, all met exactly")
for group in (3, 16):
    check_raises(
        ValueError, f"noise_budget of 8 columns in groups of {group}", noise_budget, torch.ones(2, 8), 4, group
    )
### BEGIN HIDDEN TESTS


def variant(
    w,
    bits,
    group,
    clip,
    reach=0.0,
    tensor=False,
    mean_step=False,
    keep_step=False,
    levels=None,
    ranged=True,
    only=False,
):
    """The contract in float64, or one misconception of it."""
    m = 2 ** (bits - 1) - 1
    blocks = w.double().reshape(-1, group)
    peak = blocks.abs().amax(1, keepdim=True)
    limit = clip * (peak.max().expand_as(peak) if tensor else peak)
    d = (limit / clip if keep_step else limit) / (levels or m)
    x = torch.maximum(torch.minimum(blocks, limit), -limit) if keep_step else blocks
    q = torch.where(d > 0, x / d, 0).round().clamp(-m, m)
    noise = (q * d - blocks) ** 2
    within = blocks.abs() <= limit + reach * d
    model = (d.mean() ** 2 if mean_step else d**2) / 12 * (within if ranged else 1)
    counted = noise * within if only else noise
    sqnr = 10 * math.log10((blocks**2).sum() / counted.sum())
    values = {"granular": noise * within, "overload": noise * ~within, "predicted": model * torch.ones_like(noise)}
    return {**{key: value.mean().item() for key, value in values.items()}, "sqnr": sqnr}


generator = torch.Generator().manual_seed(702)
normal = torch.randn(24, 256, generator=generator)
cases = {
    "N(0, 1)": normal,
    "rows of different size": normal * torch.logspace(-2, 1, 24).unsqueeze(1),
    "heavy tails, turned": (normal**3).T,
    "groups of zeros": normal * (torch.arange(256) % 64 < 32),
}
settings = ((4, 32, 1.0), (3, 8, 0.7), (2, 24, 0.5), (8, 8, 0.9))
misconceptions = {
    "the granular range reaches half a step beyond the limit A": {"reach": 0.5},
    "one limit serves the whole tensor, not one per group": {"tensor": True},
    "steps are averaged before they are squared": {"mean_step": True},
    "values are clipped, and the step stays that of the largest value": {"keep_step": True},
    "the step is A / 2^(bits − 1)": {"levels": "half"},
    "the step is 2A / (2^bits − 1)": {"levels": "full"},
    "the elements beyond the limit are counted in": {"ranged": False},
    "the overload noise is left out": {"only": True},
}
for name, w in cases.items():
    for bits, group, clip in settings:
        if w.shape[1] % group:
            continue
        levels = {"half": 2 ** (bits - 1), "full": (2**bits - 1) / 2, None: None}
        mistakes = {}
        for text, changes in misconceptions.items():
            changed = {**changes, "levels": levels[changes.get("levels")]}
            mistakes[text] = lambda changed=changed: variant(w, bits, group, clip, **changed)
        what = f"noise_budget, {name}, {bits} bits, groups of {group}, clip {clip}"
        check_budget(noise_budget(w, bits, group, clip), variant(w, bits, group, clip), what, mistakes)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-pooled", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
import math

from course.checks import check_close, check_raises


def misread(energies, sqnrs):
    """What misconceptions make of a report."""
    total = sum(energies)
    ratios = [10 ** (sqnr / 10) for sqnr in sqnrs]
    return {
        "decibels are averaged; powers add up": lambda: sum(sqnrs) / len(sqnrs),
        "decibels are averaged, weighted by energy; powers add up": lambda: (
            sum(energy * sqnr for energy, sqnr in zip(energies, sqnrs)) / total
        ),
        "signal-to-noise ratios are averaged, and the best layer drowns the rest": lambda: (
            10 * math.log10(sum(ratios) / len(ratios))
        ),
        "the noise ratios are averaged without the layers' energies": lambda: (
            -10 * math.log10(sum(1 / ratio for ratio in ratios) / len(ratios))
        ),
        "decibels are taken as 20 · log10": lambda: (
            20 * math.log10(total / sum(energy * 10 ** (-sqnr / 20) for energy, sqnr in zip(energies, sqnrs)))
        ),
        "the worst layer is returned": lambda: min(sqnrs),
    }


check_raises(ValueError, "pooled_sqnr of no layers", pooled_sqnr, [], [])
for report, right in (
    (([300.0, 100.0], [20.0, 10.0]), 10 * math.log10(400 / 13)),  # noise 3 and 10
    (([100.0, 100.0, 100.0], [20.0, 30.0, 10.0]), 10 * math.log10(300 / 11.1)),
):
    what = f"pooled_sqnr of energies {report[0]} and {report[1]} dB"
    check_close(pooled_sqnr(*report), right, 1e-6, what, "float64", misread(*report))
### BEGIN HIDDEN TESTS
import random


def pooled(energies, sqnrs):
    noises = [energy / 10 ** (sqnr / 10) for energy, sqnr in zip(energies, sqnrs)]
    return 10 * math.log10(math.fsum(energies) / math.fsum(noises))


source = random.Random(703)
for count in (1, 2, 7, 40):
    energies = [10 ** source.uniform(-2, 4) for _ in range(count)]
    sqnrs = [source.uniform(-3, 45) for _ in range(count)]
    what = f"pooled_sqnr of {count} layers"
    check_close(pooled_sqnr(energies, sqnrs), pooled(energies, sqnrs), 1e-6, what, "float64", misread(energies, sqnrs))
what = "pooled_sqnr with a layer without error"
check_close(pooled_sqnr([1.0, 3.0], [math.inf, 20.0]), 10 * math.log10(4 / 0.03), 1e-6, what, "float64")
exact = pooled_sqnr([2.0, 5.0], [math.inf, math.inf])
assert exact == math.inf, f"pooled_sqnr of two layers without error: got {exact}, expected inf"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (b): the clip with the least squared error
#
# *8 minutes, 5 points*
#
# Background 1 found the best limit of a known density by an integral. Real groups are small, and each has its own tail: search.
#
# ```
# best_clip  w: float32 (rows, n), bits: 2 … 8, group  →  clip: float32 (rows, n/group)
# ```
#
# | | |
# |:--|:--|
# | Quantizer | that of (a): `A = clip · max(abs(w))` of the group, m = 2^(bits − 1) − 1, d = A / m, ŵ = d · clamp(round(w / d), −m, m) |
# | Candidates | clip = 0.20, 0.21, … , 1.00 for every group: 81 values, k / 100 |
# | Goal | the least Σ (ŵ − w)² of the group, over **all** its elements |
# | Ties | of equal errors the larger clip; so a group of zeros gets 1.00. Tested only where the error is 0: elsewhere the tolerance covers it |
# | n | a multiple of `group` |
# | Time | the largest tensor in the tests has 16 384 elements: a loop over 81 clips or over the groups is fast enough |
# | Tolerance | your clip's error, recomputed in float64, exceeds the least one by 0.01 % at most: float32 may confuse near-ties, nothing else |


# %% nbgrader={"grade": false, "grade_id": "clip", "locked": false, "schema_version": 3, "solution": true, "task": false}
def best_clip(w, bits, group):
    """The clip of 0.20, 0.21 … 1.00 with the least squared error, for each group of float32 `(rows, n)`.

    Returns float32 `(rows, n // group)`.
    """
    ### BEGIN SOLUTION
    m = 2 ** (bits - 1) - 1
    x = w.reshape(len(w), -1, group)  # (rows, n_groups, group)
    peak = x.abs().amax(-1, keepdim=True)  # (rows, n_groups, 1)
    least = torch.full(peak.shape[:-1], math.inf)
    best = torch.ones(peak.shape[:-1])
    for percent in range(100, 19, -1):
        d = peak * (percent / 100) / m
        q = torch.where(d == 0, 0, x / d).round().clamp(-m, m)
        error = (d * q - x).square().sum(-1)  # (rows, n_groups)
        better = error < least
        least[better], best[better] = error[better], percent / 100
    return best
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# The weights 1, −2, 4, −5, 5, 6, −10 with the codes −1, 0, 1: where would you put ±A by hand, and which weights does each choice serve?
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# One candidate for all groups at a time: quantize everything with that clip, take the error per group, and keep per group the best so far. From
# 1.00 downward with a strict "less than", ties fall out right.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# for clip in 1.00, 0.99, ..., 0.20:
#     step = clip * peaks / m                                    # (rows, n_groups, 1)
#     decoded = step * clamp(round(blocks / step), -m, m)        # 0 where step is 0
#     sums = squares of (decoded - blocks), summed over the last dimension
#     winner = where(sums < smallest, clip, winner)
#     smallest = minimum(smallest, sums)
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-clip", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
import math

import torch

CLIPS = torch.arange(100, 19, -1).double() / 100


def decoded(blocks, limit, bits, keep_step=False):
    """Float64 blocks after quantizing with a limit of the shape (..., 1)."""
    m = 2 ** (bits - 1) - 1
    d = (blocks.abs().amax(-1, keepdim=True) if keep_step else limit) / m
    kept = torch.maximum(torch.minimum(blocks, limit), -limit)
    return d * torch.where(d == 0, 0, kept / d).round().clamp(-m, m)


def error_of(w, clip, bits, group):
    """Sum of squared errors of each group."""
    blocks = w.double().unflatten(1, (-1, group))
    limit = clip.double().unsqueeze(-1) * blocks.abs().amax(-1, keepdim=True)
    return (decoded(blocks, limit, bits) - blocks).square().sum(-1)


def check_clip(got, w, bits, group, what, mistakes=None):
    shape = (len(w), w.shape[1] // group)
    assert isinstance(got, torch.Tensor) and got.dtype == torch.float32 and tuple(got.shape) == shape, (
        f"{what}: got {getattr(got, 'dtype', type(got).__name__)} {tuple(getattr(got, 'shape', ()))}, "
        f"expected float32 {shape}"
    )
    off = ((100 * got.double()).round() / 100 - got).abs() > 1e-5
    assert not off.any() and got.min() > 0.195 and got.max() < 1.005, (
        f"{what}: {got[off][0].item() if off.any() else got.min().item():.6g} is not one of 0.20, 0.21, …, 1.00"
    )
    errors = torch.stack([error_of(w, clip.expand(shape), bits, group) for clip in CLIPS])  # (81, rows, n_groups)
    least, place = errors.min(0)  # of equal ones the first: the largest clip
    best, mine = CLIPS[place], error_of(w, got, bits, group)
    wrong = mine > least * 1.0001 + 1e-12 * w.double().square().max()
    wrong |= (least == mine) & (best > got + 0.005) & (least == 0)  # a larger clip is exact too
    if not wrong.any():
        return
    betrayed = ""
    for text, make in (mistakes or {}).items():
        value = make()
        same = ((value - got).abs() < 0.005).double().mean()
        if same >= 0.9 and not torch.equal(value.float(), best.float()):
            betrayed = f"what you get when {text}; "
            break
    if not betrayed and torch.equal(mine[wrong], least[wrong]):
        betrayed = "a larger clip is as good; "
    row, index = wrong.nonzero()[0].tolist()
    raise AssertionError(
        f"{what}: {betrayed}{int(wrong.sum())} of {wrong.numel()} groups differ, first at [{row}, {index}]: "
        f"got {got[row, index]:.2f} with squared error {mine[row, index]:.6g}, "
        f"expected {best[row, index]:.2f} with {least[row, index]:.6g} (0.01 % of the error)"
    )


# codes −1, 0, 1. First group: with A near 6 the weights from 4 up become A, the others 0; 1 + 4 + 4 + 1 + 1 + 0 + 16 = 27
# is least at A = 6, the mean of 4, 5, 5, 6 and 10
w = torch.tensor(
    [[1.0, -2, 4, -5, 5, 6, -10, -1, -4, 5, -4, -5, -8, -9], [4, -2, -6, -11, -7, -2, 4, 4, -5, -5, -8, -7, -5, -2]]
)
clips = {
    "the largest weight sets the step (absmax)": (1.0, 1.0, 1.0, 1.0),
    "the elements beyond the limit are left out of the error": (0.2, 0.2, 0.2, 0.25),
    "absolute errors are summed, not squared ones": (0.5, 0.56, 0.55, 0.63),
    "the largest error decides, not the sum of squares": (0.7, 0.72, 0.68, 0.75),
    "there is a code −m − 1": (0.5, 0.48, 0.49, 0.51),
    "codes are cut off toward zero, not rounded": (0.5, 0.44, 0.54, 0.5),
    "m is 2^(bits − 1)": (1.0, 0.96, 0.98, 0.98),
    "one clip serves the whole tensor": (0.63, 0.63, 0.63, 0.63),
    "one clip serves a row": (0.62, 0.62, 0.63, 0.63),
    "the limit keeps 99 % of the weights, whatever the bits": (0.98, 0.99, 0.98, 0.99),
    "the limit keeps 95 % of the weights, whatever the bits": (0.88, 0.97, 0.89, 0.96),
}
mistakes = {text: lambda values=values: torch.tensor(values).view(2, 2) for text, values in clips.items()}
check_clip(best_clip(w, 2, 7), w, 2, 7, "best_clip of 1, −2, 4, −5, 5, 6, −10 and three more groups, 2 bits", mistakes)
for zeros in (torch.zeros(1, 8), torch.zeros(3, 4)):
    check_clip(best_clip(zeros, 3, 4), zeros, 3, 4, "best_clip of groups of zeros")
### BEGIN HIDDEN TESTS


def searched(
    w, bits, group, score=lambda e, beyond: e.square(), reduce=lambda s: s.sum(-1), over=None, keep_step=False
):
    """The best clips by another goal: score of an element's error, how scores make one, which groups share a clip."""
    blocks = w.double().unflatten(1, (-1, group))
    peak = blocks.abs().amax(-1, keepdim=True)
    scores = []
    for clip in CLIPS:
        error = decoded(blocks, clip * peak, bits, keep_step) - blocks
        value = reduce(score(error, blocks.abs() > clip * peak))
        scores.append(value if over is None else value.sum(over, keepdim=True).expand_as(value))
    return CLIPS[torch.stack(scores).min(0).indices]


def percentile(w, group, share):
    """The limit that `share` of the group's magnitudes stay within, as a clip."""
    blocks = w.double().unflatten(1, (-1, group)).abs()
    clip = blocks.quantile(share, -1) / blocks.amax(-1).clamp(min=1e-300)
    return (100 * clip).round().clamp(20, 100) / 100


generator = torch.Generator().manual_seed(704)
normal = torch.randn(16, 256, generator=generator)
spiked = normal[:8] * (1 + 5 * (torch.rand(8, 256, generator=generator) < 0.02))
peaks = normal[:4] * (torch.arange(256) != 100)  # one weight far out: the best clips are at the lower end
peaks[:, 100] = torch.tensor([6.0, -6.0, 8.0, 5.0])
cases = {
    "N(0, 1)": (normal, ((2, 32), (3, 64), (4, 128))),
    "heavy tails": (normal[:8] ** 3, ((2, 32), (3, 128))),
    "a spike in fifty": (spiked, ((3, 32), (4, 64))),
    "one weight far out": (peaks, ((2, 256),)),
    "rows of different size, turned": ((normal[:, :32] * torch.logspace(-3, 2, 16).unsqueeze(1)).T, ((3, 16), (2, 4))),
    "groups of zeros and of one magnitude": (
        torch.cat([torch.zeros(2, 16), 0.7 * normal[:2, :16].sign(), normal[:2, :16]], 1),
        ((2, 16), (4, 16)),
    ),
    "8 bits": (normal[:4], ((8, 32),)),
}
for name, (w, settings) in cases.items():
    for bits, group in settings:
        mistakes = {
            "the largest weight sets the step (absmax)": lambda: torch.ones(len(w), w.shape[1] // group),
            "one clip serves the whole tensor": lambda: searched(w, bits, group, over=(0, 1)),
            "one clip serves a row": lambda: searched(w, bits, group, over=1),
            "groups run down the columns": lambda: searched(w.T.reshape_as(w), bits, group),
            "the largest error decides, not the sum of squares": lambda: searched(
                w, bits, group, score=lambda e, beyond: e.abs(), reduce=lambda s: s.amax(-1)
            ),
            "absolute errors are summed, not squared ones": lambda: searched(
                w, bits, group, score=lambda e, beyond: e.abs()
            ),
            "the elements beyond the limit are left out of the error": lambda: searched(
                w, bits, group, score=lambda e, beyond: e.square() * ~beyond
            ),
            "values are clipped, and the step stays that of the largest value": lambda: searched(
                w, bits, group, keep_step=True
            ),
            "the limit keeps 99 % of the weights, whatever the bits": lambda: percentile(w, group, 0.99),
            "the limit keeps 95 % of the weights, whatever the bits": lambda: percentile(w, group, 0.95),
        }
        what = f"best_clip, {name}, {bits} bits, groups of {group}"
        check_clip(best_clip(w, bits, group), w, bits, group, what, mistakes)
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (c): from weight error to output error
#
# *8 minutes, 5 points: 3 for the identity, 2 for `pick`*
#
# Background 2 has the identity. Its use: H is gathered **once**, batch by batch, from more tokens than fit in memory; then any number of candidates for
# Ŵ is judged without running the layer again.
#
# ```
# second_moment  batches: list of float32 (..., n)            →  float64 (n, n): H = 1/T Σ_t x_t x_tᵀ
# output_error   dw: float32 (rows, n), h: float64 (n, n)     →  float: tr(ΔW H ΔWᵀ)
# pick           w, candidates, h: float64 (n, n)             →  (int, int)
#
#     w and each of the list `candidates` is float32 (rows, n)
#     first int:   the candidate Ŵ with the least weight error ‖Ŵ − W‖²
#     second int:  the candidate with the least output error
# ```
#
# | | |
# |:--|:--|
# | Tokens | all dimensions of a batch but its last count tokens. Batches differ in size, one may have none; **every token weighs the same** |
# | Error | `ValueError` if there is no token at all, as in an empty list |
# | H | not centred: a constant input moves the output, and counts |
# | Batches one by one | nothing of the size of all tokens at once is needed; each batch adds its own xᵀx |
# | Output error | per token (H is a mean), summed over the output rows |
# | `pick` | indices into `candidates`, which has at least one entry; of equal ones the first |
# | Tolerance | that of float32 sums; float64 is surer. H: (T + 1) · 2⁻²⁴ · √(H_ii H_jj), the worst case over T tokens. Output error: n · 2⁻²³ · Σ abs(ΔW) abs(H) abs(ΔW)ᵀ |


# %% nbgrader={"grade": false, "grade_id": "output", "locked": false, "schema_version": 3, "solution": true, "task": false}
def second_moment(batches):
    """H = mean of x xᵀ over all tokens of a list of float32 `(..., n)`: float64 `(n, n)`; ValueError without tokens."""
    ### BEGIN SOLUTION
    total, tokens = 0, 0
    for batch in batches:
        x = batch.reshape(-1, batch.shape[-1]).double()  # (tokens of the batch, n)
        total = total + x.T @ x
        tokens += len(x)
    if not tokens:
        raise ValueError("no tokens")
    return total / tokens
    ### END SOLUTION


def output_error(dw, h):
    """tr(ΔW H ΔWᵀ) of float32 `(rows, n)` and `(n, n)`: the mean squared output error per token, as a float."""
    ### BEGIN SOLUTION
    dw, h = dw.double(), h.double()
    return ((dw @ h) * dw).sum().item()
    ### END SOLUTION


def pick(w, candidates, h):
    """Indices of the candidates with the least weight error and with the least output error."""
    ### BEGIN SOLUTION
    changes = [candidate - w for candidate in candidates]
    numbers = range(len(changes))
    by_weight = min(numbers, key=lambda i: changes[i].double().square().sum().item())
    return by_weight, min(numbers, key=lambda i: output_error(changes[i], h))
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# A trace of a product of two matrices is a sum over elementwise products: tr(A Bᵀ) = Σ A ∘ B. You never need the rows × rows matrix.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Keep two running totals, a matrix and a count, and divide once at the end. For one row δ of ΔW the error is δ H δᵀ: an n × n
# form, whatever the number of rows. `reshape(-1, n)` makes tokens of any leading dimensions, of an empty batch too if n is given as a number.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# for part in batches:
#     rows = part.reshape(-1, n).double()
#     gathered += rows.T @ rows;  seen += number of rows
# # the identity
# error = (dw64 @ h64 * dw64).sum()
# # pick: two minima over the same list, one with the squares' sum as the key, one with output_error
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-output", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_close, check_raises

WHY_H = "(T + 1) · 2⁻²⁴ · √(H_ii H_jj)"
WHY = "n · 2⁻²³ · Σ|ΔW||H||ΔW|ᵀ"


def check_h(got, batches, what, mistakes=None):
    x = torch.cat([batch.reshape(-1, batch.shape[-1]) for batch in batches]).double()
    right = x.T @ x / len(x)
    size = right.diagonal().sqrt()
    check_close(got, right, (len(x) + 1) * 2**-24 * size.outer(size), what, WHY_H, mistakes)


def check_error(got, dw, h, what, mistakes=None):
    dw, h = dw.double(), h.double()
    margin = len(h) * 2**-23 * ((dw.abs() @ h.abs()) * dw.abs()).sum().item()
    check_close(got, torch.einsum("ri,ij,rj->", dw, h, dw).item(), margin, what, WHY, mistakes)


batches = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0], [-1.0, 2.0]])]
mistakes = {
    "H is a sum; a mean over tokens is asked for": torch.tensor([[11.0, 0], [0, 8]]).double(),
    "the batches' means are averaged, whatever their sizes": torch.tensor([[3.0, 0.5], [0.5, 3]]).double(),
    "inputs are centred: H is their covariance, and a constant input goes missing": torch.tensor(
        [[8.0 / 3, -4 / 3], [-4 / 3, 8 / 9]]
    ).double(),
}
check_h(second_moment(batches), batches, "second_moment of the tokens (1, 2), (3, 0), (−1, 2)", mistakes)
dw, h = torch.tensor([[2.0, 1.0], [0.0, 2.0]]), torch.tensor([[4.0, -1.0], [-1.0, 2.0]]).double()
mistakes = {
    "only H's diagonal counts: correlations of the inputs are left out": 26.0,
    "it is the error of the weights: H is left out": 9.0,
    "H acts on the output side: tr(ΔWᵀ H ΔW)": 24.0,
    "the root is taken": 22**0.5,
    "the mean over output rows is taken; they are summed": 11.0,
}
check_error(output_error(dw, h), dw, h, "output_error of ΔW = (2, 1), (0, 2), H = (4, −1), (−1, 2)", mistakes)
for shapes in ([(0, 4)], [(0, 3, 4)], []):
    what = f"second_moment of batches of the shapes {shapes}"
    check_raises(ValueError, what, second_moment, [torch.zeros(shape) for shape in shapes])
### BEGIN HIDDEN TESTS
from quant_kernels.methods import hessian

generator = torch.Generator().manual_seed(706)


def inputs(*shape, mean=0.0):
    """Correlated inputs with a few strong channels, around a mean."""
    n = shape[-1]
    mix = torch.eye(n) + 0.6 * torch.randn(n, n, generator=generator) / n**0.5
    strong = 1 + 9 * (torch.arange(n) % 11 == 3)
    return (torch.randn(*shape, generator=generator) @ mix) * strong + mean


n = 24
cases = {
    "batches of different size": [inputs(200, n), 3 * inputs(7, n)],
    "three dimensions": [inputs(2, 9, n), inputs(2, 3, 4, n), inputs(n)],
    "an empty batch between": [inputs(12, n), torch.zeros(0, n), inputs(1, n)],
    "an empty batch first": [torch.zeros(0, n), inputs(9, n)],
    "inputs around 2": [inputs(60, n, mean=2.0), inputs(24, n, mean=2.0)],
    "strided": [inputs(n, 50).T, inputs(40, 2 * n)[:, ::2]],
    "as many tokens as channels": [inputs(n, n)],
}
for name, batches in cases.items():
    rows = [batch.reshape(-1, n).double() for batch in batches]
    x = torch.cat(rows)
    mistakes = {
        "H is a sum; a mean over tokens is asked for": lambda: x.T @ x,
        "the batches' means are averaged, whatever their sizes": lambda: (
            sum(part.T @ part / len(part) for part in rows if len(part)) / len([1 for part in rows if len(part)])
        ),
        "the sum is divided by the number of batches": lambda: x.T @ x / len(rows),
        "the sum is divided by the sequences, not by the tokens": lambda: x.T @ x / sum(len(b) for b in batches),
        "inputs are centred: H is their covariance, and a constant input goes missing": lambda: torch.cov(
            x.T, correction=0
        ),
        "only the last batch counts": lambda: rows[-1].T @ rows[-1] / len(rows[-1]),
        "tokens and channels are swapped: X Xᵀ": lambda: x @ x.T / len(x),
        "correlations are left out: H is diagonal": lambda: (x.T @ x / len(x)).diagonal().diag(),
    }
    what = f"second_moment, {name}"
    got = second_moment(batches)
    check_h(got, batches, what, mistakes)
    reference = hessian.hessian(torch.cat([batch.reshape(-1, n) for batch in batches])).double()
    for rows_out in (5, n):
        dw = 0.1 * torch.randn(n, rows_out, generator=generator).T
        full = dw.double()
        mistakes = {
            "only H's diagonal counts: correlations of the inputs are left out": lambda: (
                (full.square() @ reference.diagonal()).sum().item()
            ),
            "it is the error of the weights: H is left out": lambda: full.square().sum().item(),
            "H acts on the output side: tr(ΔWᵀ H ΔW)": lambda: (
                torch.einsum("io,ij,jo->", full, reference, full).item() if rows_out == n else float("nan")
            ),
            "the root is taken": lambda: hessian.output_error(dw, reference) ** 0.5,
            "the mean over output rows is taken; they are summed": lambda: (
                hessian.output_error(dw, reference) / rows_out
            ),
        }
        got = output_error(dw, reference)
        check_error(got, dw, reference, f"output_error, {name}, {rows_out} rows", mistakes)
        direct = (x @ full.T).square().sum(1).mean().item()
        margin = 1e-3 * direct
        check_close(got, direct, margin, f"output_error against 1/T Σ‖ΔW x‖², {name}", "0.1 %: H is float32 here")
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-pick", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
import torch

w = torch.tensor([[1.0, 1.0]])
h = torch.tensor([[100.0, 0.0], [0.0, 1.0]]).double()
candidates = [torch.tensor([[1.2, 1.0]]), torch.tensor([[1.0, 1.5]]), torch.tensor([[1.1, 1.1]])]
found = tuple(pick(w, candidates, h))  # weight errors 0.04, 0.25, 0.02; output errors 4, 0.25, 1.01
assert found != (2, 2), "pick: the candidate with the least weight error is returned twice; by output error it is 1"
assert found != (1, 2), "pick: the two indices are swapped; the first is by weight error"
assert found != (1, 1), "pick: the output error decides both; the first index is by weight error"
assert found == (2, 1), f"pick of three candidates: got {found}, expected (2, 1)"
### BEGIN HIDDEN TESTS
from quant_kernels.methods.affine import fake_quantize
from quant_kernels.methods.gptq import gptq
from quant_kernels.methods.hessian import hessian
from quant_kernels.methods.hessian import output_error as reference_error

generator = torch.Generator().manual_seed(707)


def measures(w, candidates, h):
    """For each goal, its value for each candidate."""
    changes, h = [(candidate - w).double() for candidate in candidates], h.double()
    return {
        "weight": [change.square().sum().item() for change in changes],
        "output": [reference_error(change.float(), h.float()) for change in changes],
        "diagonal": [(change.square() @ h.diagonal()).sum().item() for change in changes],
        "largest": [change.abs().max().item() for change in changes],
        "twice H": [(change @ h).square().sum().item() for change in changes],
        "worst row": [((change @ h) * change).sum(1).max().item() for change in changes],
        "itself": [((one.double() @ h) * one.double()).sum().item() for one in candidates],
    }


RIVALS = {
    "the least weight error is taken for the least output error": ("weight", "weight"),
    "the two indices are swapped": ("output", "weight"),
    "the output error decides both": ("output", "output"),
    "only H's diagonal counts: correlations of the inputs are left out": ("weight", "diagonal"),
    "the largest weight error decides, not the sum of squares": ("largest", "output"),
    "the output error is taken as ‖ΔW H‖², with H twice": ("weight", "twice H"),
    "the worst output row decides, not the sum over the rows": ("weight", "worst row"),
    "the candidate's own output power is taken, not that of its change": ("weight", "itself"),
}


def winners(w, candidates, h, what):
    """The winner for each goal."""
    values = measures(w, candidates, h)
    for goal in ("weight", "output"):  # the test is fair only where the winner is clear
        ordered = sorted(values[goal])
        assert len(ordered) < 2 or ordered[0] < 0.99 * ordered[1], f"{what}: no clear winner by {goal} error"
    return {goal: min(range(len(candidates)), key=numbers.__getitem__) for goal, numbers in values.items()}


h = torch.tensor([[10.0, 9.9, 0.0], [9.9, 10.0, 0.0], [0.0, 0.0, 1.0]]).double()
w = torch.randn(1, 3, generator=generator)
changes = [[0.3, -0.3, 0.0], [0.0, 0.0, 0.35], [0.2, 0.2, 0.0], [0.19, -0.19, 0.19]]
candidates = [w + torch.tensor([change]) for change in changes]
cases = {
    "two inputs that nearly always agree": (w, candidates, h),
    "the same in another order": (w, candidates[::-1], h),
    "one candidate": (w, candidates[2:3], h),
}
# H = (5, 4), (4, 5) has the eigenvalue 9 along (1, 1), and 1 across: output errors 0.72 and 1
w, h = torch.randn(1, 2, generator=generator), torch.tensor([[5.0, 4.0], [4.0, 5.0]]).double()
cases["a short change along the strong inputs"] = (
    w,
    [w + torch.tensor([change]) for change in ([0.2, 0.2], [0.7, -0.7])],
    h,
)
w, errors = torch.randn(2, 2, generator=generator), ([[0.6, 0.0], [0.0, 0.0]], [[0.5, 0.0], [0.0, 0.5]])
cases["an error in one row or in two"] = w, [w + torch.tensor(change) for change in errors], torch.eye(2).double()

n = 32
mix = torch.eye(n) + torch.randn(n, n, generator=generator) / n**0.5
x = torch.randn(400, n, generator=generator) @ mix * (1 + 7 * (torch.arange(n) % 9 == 2))
h, w = hessian(x).double(), torch.randn(n, n, generator=generator)
candidates = [
    fake_quantize(w, 3, symmetric=True, per=16, clip=0.6),
    fake_quantize(w, 3, symmetric=True, per=16, clip=0.85),
    fake_quantize(w, 3, symmetric=True, per=16),
    gptq(w, h.float(), 3, group=16, symmetric=True).dequantize(),
]
cases["three clips and GPTQ"] = w, candidates, h
for i, turned in enumerate((candidates[:3], candidates[1:])):
    cases[f"strided candidates {i}"] = w.T, [candidate.T for candidate in turned] + [w.T * 0.7], h

best = {what: winners(*case, what) for what, case in cases.items()}
for goal, what in (
    ("twice H", "a short change along the strong inputs"),
    ("worst row", "an error in one row or in two"),
):
    assert best[what][goal] != best[what]["output"], f"{what}: the case does not tell {goal} apart"
found = {what: tuple(pick(*case)) for what, case in cases.items()}
as_all = lambda goals: all(found[what] == (best[what][goals[0]], best[what][goals[1]]) for what in cases)
named = [f"what you get when {text}; " for text, goals in RIVALS.items() if as_all(goals)]
for what in cases:
    right = best[what]["weight"], best[what]["output"]
    assert found[what] == right, f"pick, {what}: {''.join(named[:1])}got {found[what]}, expected {right}"
got = tuple(pick(w, [w * 0.5, candidates[3], candidates[3]], h))
assert got == (1, 1), f"pick where two candidates are equal and best: got {got}, expected the first of them, (1, 1)"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (d): swap one tensor
#
# *8 minutes, 5 points*
#
# The output error of a layer is not yet what the model loses. The plain measurement: replace **one** matrix, run the model, see how far its
# predictions move from those of the untouched model, put the matrix back.
#
# ```
# swap_one  run           a function: run(weights, x) → logits, float32 (T, V)
#           weights       dict: name → float32 matrix, the untouched model
#           replacements  dict: name → matrix to put in the place of weights[name]; for some of the names
#           x             what `run` takes, passed on as it is
#                         →  dict: name → damage, a float, in the order of `replacements`
#
# damage = 1/T Σ_t Σ_v p_tv · (ln p_tv − ln q_tv)     p: softmax of the untouched model's logits
#                                                     q: the same with one matrix replaced
# ```
#
# | | |
# |:--|:--|
# | Unit | nats per token; 0 where nothing changes |
# | One at a time | every other matrix is the untouched one; `weights` itself is left as it is |
# | Cost | at most `1 + len(replacements)` calls of `run`: on a real model they are all the cost |
# | Error | `ValueError` for a name that `weights` does not have (a misspelt name would pass for a harmless tensor), and for a replacement of another shape |
# | Arithmetic | float64 from the logits on |
# | Tolerance | 10⁻⁶ nats + 0.01 % of the value: float32 logarithms would pass |
#
# The next cell gives a small transformer to run: two layers of one attention head, 24 channels. It counts its runs. Leave the cell as it is. Your function takes any
# `run` with any `x`: `last_logits` is a second one, and the experiment at the end hands over the course model. T is the number of rows of the logits.


# %%
def tiny_transformer(weights, tokens):
    """Logits, float32 `(T, V)`, of a transformer whose weights are a dict; tokens: int64 `(T,)`."""
    tiny_transformer.runs += 1
    normed = lambda x: x / x.square().mean(-1, keepdim=True).sqrt()
    x = weights["embd"][tokens]  # (T, C)
    future = torch.ones(len(tokens), len(tokens)).triu(1).bool()
    for layer in (0, 1):
        q, k, v = (normed(x) @ weights[f"{layer}.{name}"].T for name in "qkv")  # (T, C) each
        scores = (q @ k.T / q.shape[1] ** 0.5).masked_fill(future, -torch.inf)
        x = x + scores.softmax(-1) @ v @ weights[f"{layer}.o"].T
        x = x + (normed(x) @ weights[f"{layer}.up"].T).relu() @ weights[f"{layer}.down"].T
    return normed(x) @ weights["head"].T


tiny_transformer.runs = 0


def last_logits(weights, x):
    """The tiny transformer's logits of the last tokens; x: {"tokens": int64 `(T,)`, "last": how many}."""
    return tiny_transformer(weights, x["tokens"])[-x["last"] :]


# %% nbgrader={"grade": false, "grade_id": "swap", "locked": false, "schema_version": 3, "solution": true, "task": false}
def swap_one(run, weights, replacements, x):
    """Damage (mean KL divergence from the untouched model, in nats) of each replacement alone, by name.

    ValueError for an unknown name or another shape.
    """
    ### BEGIN SOLUTION
    for name, matrix in replacements.items():
        if name not in weights or matrix.shape != weights[name].shape:
            raise ValueError(f"{name} is not in the model, or has another shape there")
    base = run(weights, x).double().log_softmax(-1)  # (T, V)
    damages = {}
    for name, matrix in replacements.items():
        swapped = run({**weights, name: matrix}, x).double().log_softmax(-1)
        damages[name] = (base.exp() * (base - swapped)).sum(-1).mean().item()
    return damages
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# A new dict for each run, and nothing has to be put back.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Check all names and shapes first. Run the untouched model once and keep its log-probabilities in float64. In the divergence the untouched model gives the
# weights of the mean: what it holds likely counts.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# log_p = log_softmax(run(weights, x)) in float64
# for each name and its matrix:
#     log_q = log_softmax(run(weights with this one name exchanged, x))
#     damage = mean over tokens of sum over v of exp(log_p) * (log_p - log_q)
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-swap", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
import math

import torch

from course.checks import check_close, check_raises

WHY = "10⁻⁶ nats + 0.01 %"


def tiny_weights(seed, vocab=48, width=24, gain=1.0):
    """Random weights of the tiny transformer, and changes of them."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embd": (vocab, width)}
    for layer in (0, 1):
        shapes |= {f"{layer}.{name}": (width, width) for name in "qkvo"}
        shapes |= {f"{layer}.up": (3 * width, width), f"{layer}.down": (width, 3 * width)}
    shapes["head"] = (vocab, width)
    size = lambda name, shape: gain * (1 if name == "embd" else 1.5 / shape[1] ** 0.5)
    weights = {name: torch.randn(shape, generator=generator) * size(name, shape) for name, shape in shapes.items()}
    step = {name: weight.abs().amax(1, keepdim=True) / 3 for name, weight in weights.items()}
    return weights, {name: (weight / step[name]).round() * step[name] for name, weight in weights.items()}


def check_damages(got, expected, what, mistakes=None):
    assert list(got) == list(expected), f"{what}: names {list(got)}, expected {list(expected)}"
    for name, value in expected.items():
        wrong = {text: (lambda make=make: make()[name]) for text, make in (mistakes or {}).items()}
        check_close(got[name], value, 1e-6 + 1e-4 * value, f"{what}: {name!r}", WHY, wrong)


weights, rounded = tiny_weights(1)
tokens = torch.arange(12) * 5 % 48
got = swap_one(tiny_transformer, weights, {"1.up": rounded["1.up"], "0.v": rounded["0.v"]}, tokens)
names = {
    "the divergence is taken the other way round: the swapped model gives the weights": (0.010638, 0.023893),
    "tensors are not put back: each damage holds those before it": (0.010466, 0.037462),
    "all tensors but the named one are replaced": (0.023738, 0.010466),
    "it is what sparing one of all replaced tensors would gain, not what replacing it costs": (0.013724, 0.026996),
    "the divergence is summed over tokens, not averaged": (0.125589, 0.284856),
    "the mean goes over the vocabulary too": (0.000218, 0.000495),
    "it is in bits; nats are asked for": (0.015099, 0.034247),
    "it is the squared error of the logits": (0.021490, 0.058458),
    "the softmax goes over the tokens, not over the vocabulary": (0.007961, 0.018471),
    "it is the error of the weights": (0.004503, 0.004494),
}
mistakes = {text: lambda pair=pair: {"1.up": pair[0], "0.v": pair[1]} for text, pair in names.items()}
check_damages(got, {"1.up": 0.010466, "0.v": 0.023738}, "swap_one of two tensors", mistakes)
assert swap_one(tiny_transformer, weights, {}, tokens) == {}, "swap_one of no tensor: expected an empty dict"
same = swap_one(tiny_transformer, weights, {"0.q": weights["0.q"]}, tokens)
check_damages(same, {"0.q": 0.0}, "swap_one of a tensor by itself")
for what, wrong in (
    ("an unknown name", {"0.w": rounded["0.q"]}),
    ("one row for all", {"0.q": rounded["0.q"][:1]}),
    ("one column for all", {"0.q": rounded["0.q"][:, :1]}),
    ("a matrix turned", {"0.up": rounded["0.up"].T}),
):
    check_raises(ValueError, f"swap_one with {what}", swap_one, tiny_transformer, weights, wrong, tokens)
    wrong = {"0.v": rounded["0.v"], **wrong}
    check_raises(
        ValueError, f"swap_one with {what} after a right one", swap_one, tiny_transformer, weights, wrong, tokens
    )
### BEGIN HIDDEN TESTS
import torch.nn.functional as F


def forward(weights, tokens):
    """The tiny transformer, written once more, with torch's own attention and norm."""
    norm = lambda x: F.rms_norm(x, x.shape[-1:], eps=0.0)
    x = F.embedding(tokens, weights["embd"])
    for layer in "01":
        q, k, v = (F.linear(norm(x), weights[f"{layer}.{name}"])[None] for name in "qkv")
        x = x + F.linear(F.scaled_dot_product_attention(q, k, v, is_causal=True)[0], weights[f"{layer}.o"])
        x = x + F.linear(F.linear(norm(x), weights[f"{layer}.up"]).relu(), weights[f"{layer}.down"])
    return F.linear(norm(x), weights["head"]).double()


def kl(base, other):
    target, guess = base.log_softmax(-1), other.log_softmax(-1)
    return F.kl_div(guess, target, reduction="batchmean", log_target=True).item()


def mistaken(weights, replacements, tokens, base, swapped):
    def measured(measure):
        return lambda: {name: measure(base, other) for name, other in swapped.items()}

    def in_turn():
        now, damages = dict(weights), {}
        for name, matrix in replacements.items():
            now[name] = matrix
            damages[name] = kl(base, forward(now, tokens))
        return damages

    def all_but_one():
        every = {**weights, **replacements}
        joint = forward(every, tokens)
        spared = {name: forward({**every, name: weights[name]}, tokens) for name in replacements}
        return {
            "spared": {name: kl(base, other) for name, other in spared.items()},
            "gain": {name: kl(base, joint) - kl(base, other) for name, other in spared.items()},
        }

    rows = len(base)
    return {
        "the divergence is taken the other way round: the swapped model gives the weights": measured(
            lambda b, o: kl(o, b)
        ),
        "tensors are not put back: each damage holds those before it": in_turn,
        "all tensors but the named one are replaced": lambda: all_but_one()["spared"],
        "it is what sparing one of all replaced tensors would gain, not what replacing it costs": lambda: all_but_one()[
            "gain"
        ],
        "the divergence is summed over tokens, not averaged": measured(lambda b, o: rows * kl(b, o)),
        "the mean goes over the vocabulary too": measured(lambda b, o: kl(b, o) / b.shape[1]),
        "it is in bits; nats are asked for": measured(lambda b, o: kl(b, o) / math.log(2)),
        "only the last token counts": measured(lambda b, o: kl(b[-1:], o[-1:])),
        "it is the squared error of the logits": measured(lambda b, o: (b - o).square().mean().item()),
        "the softmax goes over the tokens, not over the vocabulary": measured(lambda b, o: kl(b.T, o.T)),
        "it is the error of the weights": lambda: {
            name: (matrix - weights[name]).double().square().mean().item() for name, matrix in replacements.items()
        },
    }


weights, rounded = tiny_weights(713)
tokens = torch.randint(0, 48, (15,), generator=torch.Generator().manual_seed(713))
replacements = {name: rounded[name] for name in ("1.down", "0.q", "head")}
what = "swap_one with last_logits, 15 tokens, the last 5"
try:
    got = swap_one(last_logits, weights, replacements, {"tokens": tokens, "last": 5})
except Exception as error:
    text = "call the `run` that is given, with x as it is, and take T from the logits"
    raise AssertionError(f"{what}: {type(error).__name__}: {error}: {text}") from None
base = forward(weights, tokens)[-5:]
expected = {name: kl(base, forward({**weights, name: matrix}, tokens)[-5:]) for name, matrix in replacements.items()}
text = "the sum over tokens is divided by the length of x, not by the rows of the logits"
check_damages(got, expected, what, {text: lambda: {name: 5 / 2 * value for name, value in expected.items()}})

for seed, gain, length in ((710, 1.0, 20), (711, 1.6, 7), (712, 0.7, 33)):
    weights, rounded = tiny_weights(seed, gain=gain)
    tokens = torch.randint(0, 48, (length,), generator=torch.Generator().manual_seed(seed))
    replacements = {name: rounded[name] for name in list(rounded)[:: -1 if seed % 2 else 1]}
    replacements["0.k"] = weights["0.k"] + 0.02 * torch.sin(torch.arange(24.0))  # small damage
    replacements["0.o"] = (weights["0.o"] * 0.9).T.contiguous().T  # strided
    before = tiny_transformer.runs
    got = swap_one(tiny_transformer, weights, replacements, tokens)
    calls = tiny_transformer.runs - before
    base = forward(weights, tokens)
    swapped = {name: forward({**weights, name: matrix}, tokens) for name, matrix in replacements.items()}
    expected = {name: kl(base, other) for name, other in swapped.items()}
    what = f"swap_one, {len(replacements)} tensors, {length} tokens"
    check_damages(got, expected, what, mistaken(weights, replacements, tokens, base, swapped))
    assert calls <= 1 + len(replacements), (
        f"{what}: the model ran {calls} times, at most {1 + len(replacements)} are allowed: "
        "the untouched model needs to run only once"
    )
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (e): may damages be added up?
#
# *10 minutes, 5 points: 3 for `forecast`, 2 for `verdict`*
#
# n single measurements cost n runs; all subsets would cost 2ⁿ. So everybody adds up. When is that right? Call δ_i the change of the logits when tensor i alone
# is swapped, and D(·) the divergence of exercise (d) that a change makes. While changes are small, D is quadratic in them:
#
# ```
# D(δ) ≈ ½ δᵀ F δ        D(δ_1 + δ_2)  ≈  D(δ_1) + D(δ_2)  +  δ_1ᵀ F δ_2
#                                         └── additive ───┘     └─ cross term: about 0 for unrelated
#                                                                errors, not for a common part
# ```
#
# Two forecasts of the damage of all swaps together follow, neither of which runs the model again:
#
# | forecast | assumes |
# |:--|:--|
# | **additive**: Σ_i D(δ_i) | D is quadratic, and the errors are unrelated |
# | **superposed**: D(Σ_i δ_i) | the changes of the logits add up, related or not: no tensor's error changes what another one does |
#
# ```
# forecast  base     float32 (T, V)                 logits of the untouched model
#           singles  dict: name → float32 (T, V)    logits with this tensor alone swapped; 2 names or more
#                    →  {"additive": float, "superposed": float, "pair": (name, name)}
#
# verdict   base, singles, joint: float32 (T, V), tolerance: float
#                    →  "additive", "superposed" or "interacting"
# ```
#
# | | |
# |:--|:--|
# | D | mean over tokens of Σ_v p (ln p − ln q) in nats: p = softmax of `base`, q = softmax of the changed logits; float64 |
# | Change | δ_i = `singles[i] − base`. Logits are known up to a constant per token; no result depends on it |
# | `"pair"` | the two names, in the order of `singles`, with the largest **magnitude** of D(δ_i + δ_j) − D(δ_i) − D(δ_j), with D itself, not its quadratic form: the errors that reinforce or cancel each other most |
# | `joint` | the measured logits with all swaps at once; its damage is J |
# | `verdict` | `"additive"` if the additive forecast is within `tolerance · J` of J; else `"superposed"` if the superposed one is; else `"interacting"` |
# | Tolerance | 10⁻⁶ nats + 0.01 % of the value. The tests' pairs and verdicts are clear by 1 % at least |


# %% nbgrader={"grade": false, "grade_id": "joint", "locked": false, "schema_version": 3, "solution": true, "task": false}
def forecast(base, singles):
    """Additive and superposed forecasts (nats) of the joint damage, and the pair of names with the largest cross term.

    base: float32 `(T, V)` logits; singles: dict of name to logits with that tensor alone swapped.
    """
    ### BEGIN SOLUTION
    z = base.double()
    p = z.log_softmax(-1)

    def damage(change):
        return (p.exp() * (p - (z + change).log_softmax(-1))).sum(-1).mean().item()

    changes = {name: logits.double() - z for name, logits in singles.items()}
    alone = {name: damage(change) for name, change in changes.items()}
    names = list(changes)
    pairs = [(one, other) for i, one in enumerate(names) for other in names[i + 1 :]]

    def cross(pair):
        one, other = pair
        return abs(damage(changes[one] + changes[other]) - alone[one] - alone[other])

    return {
        "additive": sum(alone.values()),
        "superposed": damage(sum(changes.values())),
        "pair": max(pairs, key=cross),
    }
    ### END SOLUTION


def verdict(base, singles, joint, tolerance):
    """Which forecast holds for the measured joint logits: "additive", "superposed" or "interacting"."""
    ### BEGIN SOLUTION
    p = base.double().log_softmax(-1)
    measured = (p.exp() * (p - joint.double().log_softmax(-1))).sum(-1).mean().item()
    forecasts = forecast(base, singles)
    if abs(forecasts["additive"] - measured) <= tolerance * measured:
        return "additive"
    if abs(forecasts["superposed"] - measured) <= tolerance * measured:
        return "superposed"
    return "interacting"
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# One small function, the damage of a change of the logits, gives every number that is asked for.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Take differences to the base first: a sum of all single logits would hold the base n times. The softmax of base plus a sum of changes normalises by
# itself, so constants per token fall away. For the pair compare magnitudes: two errors that cancel each other are a find too.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# damage = lambda change: divergence of softmax(base) from softmax(base + change)
# delta = {name: logits - base}
# additive = sum of damage(delta[name]);  superposed = damage(sum of all deltas)
# cross term of a pair = damage(delta[a] + delta[b]) - damage(delta[a]) - damage(delta[b])
# # verdict: compare |forecast - J| with tolerance * J, the additive forecast first
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-forecast", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
import math

import torch

from course.checks import check_close

WHY = "10⁻⁶ nats + 0.01 %"


def check_forecast(got, expected, what, mistakes=None):
    assert set(got) == {"additive", "superposed", "pair"}, f"{what}: keys {sorted(map(str, got))}"
    for key in ("additive", "superposed"):
        wrong = {text: make for text, (part, make) in (mistakes or {}).items() if part == key}
        check_close(got[key], expected[key], 1e-6 + 1e-4 * expected[key], f'{what}: "{key}"', WHY, wrong)
    found = tuple(got["pair"])
    named = [text for text, (part, make) in (mistakes or {}).items() if part == "pair" and make() == found]
    text = f"what you get when {named[0]}; " if named else ""
    assert found == expected["pair"], f'{what}: "pair": {text}got {found}, expected {expected["pair"]}'


# one token, two equally likely outcomes; the changes are ln 2, −ln 4 and ln 4 of the first logit
base, two = torch.zeros(1, 2), math.log(2)
singles = {name: torch.tensor([[value * two, 0.0]]) for name, value in (("a", 1), ("c", -2), ("b", 2))}
damage = lambda shift: math.log((2**shift + 1) / 2) - shift * two / 2
expected = {"additive": damage(1) + 2 * damage(2), "superposed": damage(1), "pair": ("c", "b")}
mistakes = {
    "the divergence is taken the other way round: the swapped model gives the weights": ("additive", lambda: 0.442123),
    "single damages are averaged, not added": ("additive", lambda: expected["additive"] / 3),
    "the logits are averaged": ("superposed", lambda: 0.006658),
    "probabilities are averaged; changes of logits add up": ("superposed", lambda: 0.006211),
    "log-probabilities are added without normalising the sum": ("superposed", lambda: expected["additive"]),
    "what cancels is a find too: pairs whose errors cancel each other are missed": ("pair", lambda: ("a", "b")),
}
for constant in (0.0, 5.0):  # a constant per token changes nothing
    got = forecast(base, {**singles, "b": singles["b"] + constant})
    check_forecast(got, expected, "forecast of the changes ln 2, −ln 4, ln 4", mistakes)
### BEGIN HIDDEN TESTS
from itertools import combinations

import torch.nn.functional as F


def kl(base, other):
    return F.kl_div(other.log_softmax(-1), base.log_softmax(-1), reduction="batchmean", log_target=True).item()


def right_forecast(base, singles):
    z, deltas = base.double(), {name: logits.double() - base.double() for name, logits in singles.items()}
    alone = {name: kl(z, z + delta) for name, delta in deltas.items()}
    cross = {(a, b): kl(z, z + deltas[a] + deltas[b]) - alone[a] - alone[b] for a, b in combinations(deltas, 2)}
    order = sorted(cross, key=lambda pair: -abs(cross[pair]))
    assert len(order) < 2 or abs(cross[order[0]]) > 1.01 * abs(cross[order[1]]), "the test's pair is not clear"
    superposed = kl(z, z + sum(deltas.values()))
    return {"additive": sum(alone.values()), "superposed": superposed, "pair": order[0]}, alone, cross


def mistaken(base, singles, alone, cross):
    z, others = base.double(), [logits.double() for logits in singles.values()]
    p, q = z.softmax(-1), [logits.softmax(-1) for logits in others]
    unnormalised = z.log_softmax(-1) + sum(logits.log_softmax(-1) - z.log_softmax(-1) for logits in others)
    divergence = lambda mix: (p * (p.log() - mix.clamp(min=1e-300).log())).sum(-1).mean().item()
    similar = {
        (a, b): F.cosine_similarity((singles[a] - base).flatten(), (singles[b] - base).flatten(), 0).item()
        for a, b in cross
    }
    return {
        "the divergence is taken the other way round: the swapped model gives the weights": (
            "additive",
            lambda: sum(kl(other, z) for other in others),
        ),
        "single damages are averaged, not added": ("additive", lambda: sum(alone.values()) / len(alone)),
        "the divergence is summed over tokens": ("additive", lambda: len(z) * sum(alone.values())),
        "the logits are added up, and the base with them n times": ("superposed", lambda: kl(z, sum(others))),
        "the logits are averaged": ("superposed", lambda: kl(z, sum(others) / len(others))),
        "probabilities are averaged; changes of logits add up": ("superposed", lambda: divergence(sum(q) / len(q))),
        "changes of probabilities are added; changes of logits add up": (
            "superposed",
            lambda: divergence(p + sum(one - p for one in q)),
        ),
        "log-probabilities are added without normalising the sum": (
            "superposed",
            lambda: (p * (p.log() - unnormalised)).sum(-1).mean().item(),
        ),
        "what cancels is a find too: pairs whose errors cancel each other are missed": (
            "pair",
            lambda: max(cross, key=cross.get),
        ),
        "the two most damaging tensors are returned": (
            "pair",
            lambda: max(cross, key=lambda ab: alone[ab[0]] + alone[ab[1]]),
        ),
        "the pair with the largest joint damage is returned": (
            "pair",
            lambda: max(cross, key=lambda ab: cross[ab] + alone[ab[0]] + alone[ab[1]]),
        ),
        "the pair with the most similar changes is returned, however small they are": (
            "pair",
            lambda: max(similar, key=similar.get),
        ),
        "only neighbouring names are compared": (
            "pair",
            lambda: max(zip(singles, list(singles)[1:]), key=lambda pair: abs(cross[pair])),
        ),
        "the plain product of the changes decides: the outcomes' probabilities are left out": (
            "pair",
            lambda: max(products(base, singles), key=products(base, singles).get),
        ),
        "the product weighted with p decides, the cross term of the quadratic form: D itself is asked for": (
            "pair",
            lambda: max(products(base, singles, p), key=products(base, singles, p).get),
        ),
    }


def products(base, singles, weights=None):
    """Magnitude of δ_iᵀ δ_j of each pair, with the changes' means taken out; with weights p, of δ_iᵀ F δ_j."""
    weights = torch.full(base.shape, 1 / base.shape[1]).double() if weights is None else weights
    deltas = {name: logits.double() - base.double() for name, logits in singles.items()}
    deltas = {name: delta - (weights * delta).sum(-1, keepdim=True) for name, delta in deltas.items()}
    return {(a, b): (weights * deltas[a] * deltas[b]).sum().abs().item() for a, b in combinations(deltas, 2)}


def model_like(seed, size, T=16, V=40, common=0.0):
    """Base logits, and singles with unrelated changes of different sizes and a common part."""
    generator = torch.Generator().manual_seed(seed)
    base = 2 * torch.randn(T, V, generator=generator)
    part = torch.randn(T, V, generator=generator)
    scales = size * torch.logspace(-0.6, 0, 5)[[3, 1, 4, 0, 2]]
    return base, {
        name: base + scale * (torch.randn(T, V, generator=generator) + common * part)
        for name, scale in zip(("v", "down", "q", "up", "o"), scales.tolist())
    }


cases = {"unrelated changes": model_like(720, 0.3), "a common part": model_like(721, 0.3, common=1.0)}
base, singles = model_like(722, 0.5)
cases["two that cancel"] = base, {**singles, "o": base - 0.8 * (singles["down"] - base)}
larger = {name: 1.5 * singles[name] - 0.5 * base for name in ("v", "q")}
cases["two that cancel, and two large ones"] = (
    base,
    {**singles, **larger, "o": base - 3 * (singles["down"] - base)},
)
base, singles = model_like(723, 0.2, common=0.5)
shifts = torch.linspace(-9, 9, 16).unsqueeze(1)
cases["logits with a constant per token"] = (
    base,
    {name: logits + (i - 2) * shifts for i, (name, logits) in enumerate(singles.items())},
)
cases["log-probabilities"] = base.log_softmax(-1), {name: logits.log_softmax(-1) for name, logits in singles.items()}
cases["two tensors"] = base, {name: singles[name] for name in ("o", "up")}
cases["large changes"] = model_like(744, 3.0)
generator = torch.Generator().manual_seed(725)
likely = torch.arange(40) < 6
base, often, rare = torch.randn(3, 16, 40, generator=generator)
base, often, rare = base + 8 * likely, 0.5 * often * likely, 1.2 * rare * ~likely
shared = {"v": often, "down": rare, "q": 0 * rare, "up": rare, "o": often}
cases["two that agree on likely outcomes, two on unlikely ones"] = (
    base,
    {name: base + part + 0.1 * torch.randn(16, 40, generator=generator) for name, part in shared.items()},
)
tried = {}
for name, (base, singles) in cases.items():
    expected, alone, cross = right_forecast(base, singles)
    rivals = {
        "large changes": base.double().softmax(-1),
        "two that agree on likely outcomes, two on unlikely ones": None,
    }
    if name in rivals:
        rival = products(base, singles, rivals[name])
        assert max(rival, key=rival.get) != expected["pair"], f"{name}: the case does not tell the products apart"
    tried[name] = forecast(base, singles), expected, mistaken(base, singles, alone, cross)
for name, (got, expected, mistakes) in tried.items():
    held = {  # a misconception of the pair must hold in every case
        text: (part, make)
        for text, (part, make) in mistakes.items()
        if part != "pair" or all(made[text][1]() == tuple(mine["pair"]) for mine, _, made in tried.values())
    }
    check_forecast(got, expected, f"forecast, {name}", held)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-verdict", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
import math

import torch

# one token, two equally likely outcomes: small changes of the first logit, and what all swaps together give;
# damage goes with the square of the change
base, logit = torch.zeros(1, 2), lambda value: torch.tensor([[value, 0.0]])
changes = ((0.1, 0.1, 0.1414), (0.1, 0.1, 0.2), (0.2, -0.1, 0.1), (0.1, 0.1, 0.3))
right = ["additive", "superposed", "superposed", "interacting"]
mistakes = {
    "the tolerance is taken as nats, not as a share": ["additive"] * 4,
    "only a joint damage above the forecast counts as a deviation": [
        "additive",
        "superposed",
        "additive",
        "interacting",
    ],
    "only a joint damage below the forecast counts as a deviation": ["additive", "additive", "superposed", "additive"],
    "the superposed forecast is never asked": ["additive"] + ["interacting"] * 3,
    "the verdict goes to the nearer forecast": ["additive"] + ["superposed"] * 3,
}
found = [verdict(base, {"a": logit(a), "b": logit(b)}, logit(joint), 0.1) for a, b, joint in changes]
named = [f"what you get when {text}; " for text, verdicts in mistakes.items() if verdicts == found]
for change, one, expected in zip(changes, found, right):
    what = f"verdict, changes {change[0]}, {change[1]} and together {change[2]}"
    assert one == expected, f"{what}: {''.join(named[:1])}got {one!r}, expected {expected!r}"
### BEGIN HIDDEN TESTS
from itertools import product

import torch.nn.functional as F


def kl(base, other):
    log_p, log_q = base.double().log_softmax(-1), other.double().log_softmax(-1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True).item()


def name_of(first, second):
    return "additive" if first else "superposed" if second else "interacting"


def judged(additive, superposed, joint, tolerance):
    off = [abs(value - joint) for value in (additive, superposed)]
    return name_of(off[0] <= tolerance * joint, off[1] <= tolerance * joint)


def mistaken(additive, superposed, joint, reverse, tolerance):
    off = [abs(value - joint) for value in (additive, superposed)]
    near = [value <= tolerance * joint for value in off]
    return {
        "the superposed forecast is asked first": "superposed" if near[1] else name_of(near[0], False),
        "the superposed forecast is never asked": name_of(near[0], False),
        "the verdict goes to the nearer forecast": name_of(near[0], off[1] < off[0]),
        "the deviation is taken relative to the forecast, not to the measured damage": name_of(
            off[0] <= tolerance * additive, off[1] <= tolerance * superposed
        ),
        "the tolerance is taken as nats, not as a share": name_of(off[0] <= tolerance, off[1] <= tolerance),
        "only a joint damage above the forecast counts as a deviation": name_of(
            joint - additive <= tolerance * joint, joint - superposed <= tolerance * joint
        ),
        "only a joint damage below the forecast counts as a deviation": name_of(
            additive - joint <= tolerance * joint, superposed - joint <= tolerance * joint
        ),
        "the joint damage is taken the other way round: the swapped model gives the weights": judged(
            additive, superposed, reverse, tolerance
        ),
    }


generator = torch.Generator().manual_seed(730)
checked = []  # for each case: what was found, what is right, what each misconception says, the figures
for size, common, stretch in product((0.05, 0.5), (0.0, 1.0, -1.0), (0.6, 0.8, 0.95, 1.0, 1.1, 1.7)):
    base = 2 * torch.randn(8, 24, generator=generator)
    part = torch.randn(8, 24, generator=generator)
    deltas = [size * (torch.randn(8, 24, generator=generator) + sign * common * part) for sign in (1, 1, -1)]
    if common < 0:
        deltas[1] = -0.9 * deltas[0]
    singles = {name: base + delta for name, delta in zip(("0.v", "1.up", "1.down"), deltas)}
    joint = base + stretch * sum(deltas) + 3.0
    additive, superposed = sum(kl(base, logits) for logits in singles.values()), kl(base, base + sum(deltas))
    measured = kl(base, joint)
    for tolerance in (0.05, 0.1, 0.3):
        off = [abs(value - measured) / measured for value in (additive, superposed)]
        if any(0.99 < value / tolerance < 1.01 for value in off):
            continue  # not clear enough
        figures = (
            f"joint {measured:.4g}, additive {additive:.4g}, superposed {superposed:.4g} nats, tolerance {tolerance}"
        )
        wrong = mistaken(additive, superposed, measured, kl(joint, base), tolerance)
        right = judged(additive, superposed, measured, tolerance)
        checked.append((verdict(base, singles, joint, tolerance), right, wrong, figures))
assert {right for _, right, _, _ in checked} == {"additive", "superposed", "interacting"}, "a verdict is not shown"
named = [text for text in checked[0][2] if all(wrong[text] == got for got, _, wrong, _ in checked)]
text = f"what you get when {named[0]}; " if named else ""
for got, right, _, figures in checked:
    assert got == right, f"verdict: {text}got {got!r}, expected {right!r}: {figures}"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise (f): a detector for biased rounding
#
# *8 minutes, 5 points: 3 for `rounding_report`, 2 for `dot_drift`*
#
# A new kernel gives slightly other results than the old one. You have its inputs x, its codes q and the step d. Which rounding does it use, and what
# does that do to a dot product? If x / d falls evenly between the codes, each rounding has its own mean error, in steps, on either side of zero:
#
# | mode | error for x > 0 | error for x < 0 | rms error | variance about the mean |
# |:--|--:|--:|--:|--:|
# | `"nearest"` | 0 | 0 | √(1/12) = 0.289 | 1/12 |
# | `"stochastic"` (up with probability x/d − ⌊x/d⌋) | 0 | 0 | √(1/6) = 0.408 | 1/6 |
# | `"toward zero"` (trunc; a C cast) | −1/2 | +1/2 | √(1/3) = 0.577 | 1/12 |
# | `"away from zero"` | +1/2 | −1/2 | √(1/3) | 1/12 |
# | `"down"` (floor; an arithmetic shift) | −1/2 | −1/2 | √(1/3) | 1/12 |
# | `"up"` (ceil) | +1/2 | +1/2 | √(1/3) | 1/12 |
#
# ```
# rounding_report  x: float32 (n,), q: int32 (n,), n ≥ 1, d: float > 0
#                  →  {"positive": float, "negative": float, "rms": float, "mode": str}
# dot_drift        a: float32 (n,), x: float32 (n,), d: float > 0, mode: a name of the table
#                  →  (shift, spread): mean and standard deviation of the error of Σ a_i x_i
#                     when d · q_i takes the place of x_i
# ```
#
# | | |
# |:--|:--|
# | Error | e = q − x / d, in steps, float64 |
# | `"positive"`, `"negative"` | mean of e over the elements with x > 0, and with x < 0; 0.0 if there are none. An x of 0 is on neither side |
# | `"rms"` | root mean square of e over all elements |
# | `"mode"` | the line of the table whose three numbers (positive, negative, rms) have the least squared distance from those of the report |
# | Forecast | errors are independent, with the table's mean and variance for the side of each x_i; an x_i of 0 has neither |
# | Tolerance | report: 10⁻⁴ steps (float32 division of up to 200 steps). Drift: 10⁻⁵ · d · Σ abs(a) |
# | Modes in the tests | x has both signs and no mode is near a border between two lines |


# %% nbgrader={"grade": false, "grade_id": "rounding", "locked": false, "schema_version": 3, "solution": true, "task": false}
def rounding_report(x, q, d):
    """Mean error in steps for positive and for negative x, its rms, and the rounding mode that they betray.

    x: float32 `(n,)`, q: int32 `(n,)`, d: the step.
    """
    ### BEGIN SOLUTION
    half, wide = 0.5, (1 / 3) ** 0.5
    lines = {
        "nearest": (0, 0, (1 / 12) ** 0.5),
        "stochastic": (0, 0, (1 / 6) ** 0.5),
        "toward zero": (-half, half, wide),
        "away from zero": (half, -half, wide),
        "down": (-half, -half, wide),
        "up": (half, half, wide),
    }
    e = q.double() - x.double() / d
    sides = [e[mask].mean().item() if mask.any() else 0.0 for mask in (x > 0, x < 0)]
    found = (*sides, e.square().mean().sqrt().item())
    mode = min(lines, key=lambda name: sum((a - b) ** 2 for a, b in zip(lines[name], found)))
    return {"positive": found[0], "negative": found[1], "rms": found[2], "mode": mode}
    ### END SOLUTION


def dot_drift(a, x, d, mode):
    """Mean and standard deviation of the error of sum(a * x) when x is rounded to steps of d in a mode.

    a, x: float32 `(n,)`.
    """
    ### BEGIN SOLUTION
    above, below = {
        "nearest": (0, 0),
        "stochastic": (0, 0),
        "toward zero": (-0.5, 0.5),
        "away from zero": (0.5, -0.5),
        "down": (-0.5, -0.5),
        "up": (0.5, 0.5),
    }[mode]
    a = a.double()
    shift = d * (above * a[x > 0].sum() + below * a[x < 0].sum())
    variance = (1 / 6 if mode == "stochastic" else 1 / 12) * a[x != 0].square().sum()
    return shift.item(), d * variance.sqrt().item()
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# On data of both signs the mean error of truncation is zero. Split by the sign of x, and it is not.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# The table is data: put it into a dict, then the mode is the nearest of six points in three dimensions. For the dot product: means add with
# their signs and with a_i, variances add with a_i².
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# e = codes - x / d
# numbers = (mean of e where x > 0, mean of e where x < 0, root of the mean of e * e)
# mode = key of TABLE with the least sum of squared differences to numbers
# # the dot product
# shift = d * (mean_above * sum of a where x > 0  +  mean_below * sum of a where x < 0)
# spread = d * sqrt(variance of the mode * sum of a * a where x is not 0)
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-rounding", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_close, check_equal

WHY = "10⁻⁴ steps: float32 division of up to 200 steps"


def check_report(got, expected, what, mistakes=None):
    assert set(got) == set(expected), f"{what}: keys {sorted(map(str, got))}, expected {sorted(expected)}"
    for key in ("positive", "negative", "rms"):
        wrong = {text: (lambda make=make: make()[key]) for text, make in (mistakes or {}).items()}
        check_close(got[key], expected[key], 1e-4, f'{what}: "{key}"', WHY, wrong)
    wrong = {text: make()["mode"] for text, make in (mistakes or {}).items()}
    check_equal(got["mode"], expected["mode"], f'{what}: "mode"', wrong)


x = torch.tensor([1.8, 2.4, -1.8, -2.4, 0.0])
q = torch.tensor([3, 4, -3, -4, 0], dtype=torch.int32)  # x / 0.5 = ±3.6, ±4.8: cut off toward zero
expected = {"positive": -0.7, "negative": 0.7, "rms": 0.632456, "mode": "toward zero"}
mistakes = {
    "the mean goes over both signs, and truncation looks unbiased": lambda: {
        "positive": 0.0,
        "negative": 0.0,
        "rms": 0.632456,
        "mode": "stochastic",
    },
    "errors are x / d − q: the sign is turned": lambda: {
        "positive": 0.7,
        "negative": -0.7,
        "rms": 0.632456,
        "mode": "away from zero",
    },
    "errors are in the unit of x, not in steps": lambda: {
        "positive": -0.35,
        "negative": 0.35,
        "rms": 0.316228,
        "mode": "nearest",
    },
    "an x of 0 is left out of the rms": lambda: {**expected, "rms": 0.707107},
    "an x of 0 counts as positive": lambda: {**expected, "positive": -1.4 / 3},
    "an x of 0 counts as negative": lambda: {**expected, "negative": 1.4 / 3},
}
for d in (0.5, 2.0):
    what = f"rounding_report of ±3.6, ±4.8 and 0 steps of {d}, cut off"
    check_report(rounding_report(2 * d * x, q, d), expected, what, mistakes)
### BEGIN HIDDEN TESTS
import numpy as np

LINES = {
    "nearest": (0, 0, 12**-0.5),
    "stochastic": (0, 0, 6**-0.5),
    "toward zero": (-0.5, 0.5, 3**-0.5),
    "away from zero": (0.5, -0.5, 3**-0.5),
    "down": (-0.5, -0.5, 3**-0.5),
    "up": (0.5, 0.5, 3**-0.5),
}


def report(x, q, d, split=True, unit=1.0, sign=1, zero="neither", std=False, absolute=False, only_mean=False):
    """The contract in numpy, or one misconception of it."""
    x = x.double().numpy()
    e = sign * unit * (q.numpy() - x / d)
    above, below = (x >= 0 if zero == "above" else x > 0), (x <= 0 if zero == "below" else x < 0)
    if not split:
        above = below = np.ones(len(x), dtype=bool)
    sides = [e[side].mean() if side.any() else 0.0 for side in (above, below)]
    if absolute:
        sides = [np.abs(e[side]).mean() if side.any() else 0.0 for side in (above, below)]
    counted = e[x != 0] if zero == "left out" else e
    rms = counted.std() if std else np.sqrt((counted**2).mean())
    found = np.array([*sides, rms])
    weights = np.array([1, 1, 0]) if only_mean else np.ones(3)
    mode = min(LINES, key=lambda name: (weights * (found - LINES[name]) ** 2).sum())
    return {"positive": found[0], "negative": found[1], "rms": found[2], "mode": mode}


generator = torch.Generator().manual_seed(740)
n = 4000
away = lambda v: v.sign() * v.abs().ceil()
kernels = {
    "round": torch.round,
    "half away": lambda v: v.sign() * (v.abs() + 0.5).floor(),
    "dithered": lambda v: (v + torch.rand(v.shape, generator=generator).double()).floor(),
    "trunc": torch.trunc,
    "away": away,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "floor of + 0.4": lambda v: (v + 0.4).floor(),
    "trunc, then floor for a third": lambda v: torch.where(torch.arange(len(v)) % 3 == 0, v.floor(), v.trunc()),
}
misconceptions = {
    "the mean goes over both signs, and truncation looks unbiased": {"split": False},
    "errors are x / d − q: the sign is turned": {"sign": -1},
    "an x of 0 counts as positive": {"zero": "above"},
    "an x of 0 counts as negative": {"zero": "below"},
    "an x of 0 is left out of the rms": {"zero": "left out"},
    "it is the standard deviation, which hides the bias, not the rms": {"std": True},
    "absolute errors are averaged, which hides the bias": {"absolute": True},
    "the rms does not take part in the choice of the mode": {"only_mean": True},
}
for name, kernel in kernels.items():
    for d, mean in ((0.03, 0.0), (1.7, 0.4)):
        steps = 20 * (torch.randn(n, generator=generator) + mean)
        x = (steps * d).float() * (torch.arange(n) % 10 > 0)  # a tenth is 0, as after a ReLU
        q = kernel(x.double() / d).int()
        mistakes = {
            text: lambda changes=changes: report(x, q, d, **changes) for text, changes in misconceptions.items()
        }
        mistakes["errors are in the unit of x, not in steps"] = lambda: report(x, q, d, unit=d)
        expected = report(x, q, d)
        what = f"rounding_report, {name}, d = {d}, mean {mean * 20:g} steps"
        check_report(rounding_report(x, q, d), expected, what, mistakes)
one_sided = torch.tensor([0.3, 0.6, 1.2]), torch.tensor([0, 0, 1], dtype=torch.int32)
for sign, sides in ((1, (-1.1 / 3, 0.0)), (-1, (0.0, 1.1 / 3))):
    got = rounding_report(sign * one_sided[0], sign * one_sided[1], 1.0)
    for key, right in zip(("positive", "negative"), sides):
        what = f'rounding_report of three x of one sign: "{key}"'
        check_close(got[key], right, 1e-4, what, "0.0 where there are none")
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-drift", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import check_close

WHY = "10⁻⁵ · d · Σ|a|"


def check_drift(got, expected, margin, what, mistakes=None):
    assert len(got) == 2, f"{what}: {len(got)} values, expected shift and spread"
    for i, part in enumerate(("shift", "spread")):
        wrong = {text: make()[i] for text, make in (mistakes or {}).items()}
        check_close(got[i], expected[i], margin, f"{what}: {part}", WHY, wrong)


a, x = torch.tensor([1.0, -2.0, 3.0, 5.0]), torch.tensor([3.3, -1.4, 0.7, 0.0])
mistakes = {
    "the bias is taken as 0, since it has both signs": lambda: (0.0, 0.1 * (14 / 12) ** 0.5),
    "spreads are added; variances add up": lambda: (-0.3, 0.1 * 6 / 12**0.5),
    "the table's rms is taken for the spread: it holds the bias too": lambda: (-0.3, 0.1 * (14 / 3) ** 0.5),
    "d is left out": lambda: (-3.0, (14 / 12) ** 0.5),
    "a is left out of the sums": lambda: (-0.05, 0.1 * (3 / 12) ** 0.5),
    "magnitudes of a are taken: the shifts' signs are lost": lambda: (-0.1, 0.1 * (14 / 12) ** 0.5),
    "an x of 0 is given an error": lambda: (-0.55, 0.1 * (39 / 12) ** 0.5),
}
for factor in (1, 4):  # 0.1 · (−½ · (1 + 3) + ½ · (−2)), 0.1 · √((1 + 4 + 9) / 12), and four times that
    expected = -0.3 * factor, 0.1 * (14 / 12) ** 0.5 * factor
    what = f"dot_drift of {factor} · (1, −2, 3, 5) and (3.3, −1.4, 0.7, 0), toward zero"
    check_drift(dot_drift(factor * a, x, 0.1, "toward zero"), expected, 1e-5 * factor, what, mistakes)
### BEGIN HIDDEN TESTS
MEANS = {
    "nearest": (0, 0),
    "stochastic": (0, 0),
    "toward zero": (-0.5, 0.5),
    "away from zero": (0.5, -0.5),
    "down": (-0.5, -0.5),
    "up": (0.5, 0.5),
}


def drift(a, x, d, mode, zeros=False, twelfth=False):
    above, below = MEANS[mode]
    a, x = a.double(), x.double()
    mean = above * (x >= 0 if zeros else x > 0) + below * (x < 0)
    variance = 1 / 6 if mode == "stochastic" and not twelfth else 1 / 12
    weights = a.square() if zeros else a.square() * (x != 0)
    return d * (mean * a).sum().item(), d * (variance * weights.sum()).sqrt().item()


def mistaken(a, x, d, mode):
    shift, spread = drift(a, x, d, mode)
    used = a.double() * (x != 0)
    deviation = (1 / 6 if mode == "stochastic" else 1 / 12) ** 0.5
    rms = max(deviation, (deviation**2 + MEANS[mode][0] ** 2) ** 0.5)
    return {
        "the bias is taken as 0, since it has both signs": lambda: (0.0, spread),
        "spreads are added; variances add up": lambda: (shift, d * deviation * used.abs().sum().item()),
        "the table's rms is taken for the spread: it holds the bias too": lambda: (shift, d * rms * used.norm().item()),
        "d is left out": lambda: (shift / d, spread / d),
        "a is left out of the sums": lambda: drift(torch.ones_like(a), x, d, mode),
        "magnitudes of a are taken: the shifts' signs are lost": lambda: drift(a.abs(), x, d, mode),
        "an x of 0 is given an error": lambda: drift(a, x, d, mode, zeros=True),
        "stochastic rounding is given the variance 1/12 of rounding to nearest": lambda: drift(
            a, x, d, mode, twelfth=True
        ),
        "errors below zero are given the sign of those above": lambda: (
            d * MEANS[mode][0] * used.sum().item(),
            spread,
        ),
        "the spread is multiplied by n instead of √n": lambda: (shift, spread * (x != 0).sum().item() ** 0.5),
    }


generator = torch.Generator().manual_seed(741)
for mode in MEANS:
    for n, d in ((300, 0.05), (41, 3.0)):
        a, x = torch.randn(2, n, generator=generator)
        x = 20 * d * x * (torch.arange(n) % 7 > 0)
        a = a + 0.7 * x.sign()  # products that go one way, as in a trained network
        for part in (slice(None), slice(None, None, 2)):
            what = f"dot_drift, {mode}, {len(a[part])} elements, d = {d}"
            margin = 1e-5 * d * a[part].abs().sum().item()
            expected = drift(a[part], x[part], d, mode)
            check_drift(
                dot_drift(a[part], x[part], d, mode), expected, margin, what, mistaken(a[part], x[part], d, mode)
            )

# the forecast against 2 000 dot products: the table and this test agree with what rounding really does
a, x = torch.rand(256, generator=generator), torch.randn(2000, 256, generator=generator).abs() * 2000
shift, spread = dot_drift(a, x[0], 1.0, "toward zero")
errors = ((x.trunc() - x).double() * a).sum(1)
what = "dot_drift against 2000 truncated dot products"
for part, got, right, margin, why in (
    ("shift", shift, errors.mean().item(), 4 * spread / 2000**0.5, "4 standard errors"),
    ("spread", spread, errors.std().item(), 0.1 * spread, "10 %"),
):
    check_close(got, right, margin, f"{what}: {part}", why)
### END HIDDEN TESTS

# %% [markdown]
# ## Experiment: where a 3-bit model is hurt
#
# Four measurements with **your** functions: the noise budget and the clip on N(0, 1); the sensitivity of every matrix of the course model (8 layers, stored as
# F16); what predicts it; and whether damages add up. The sensitivities are measured on numpy's docstrings, and what they are good for is tested on another
# text. None of this is graded.
#
# **First: (a) and (b) on N(0, 1)**, 32 × 4 096 weights: SQNR in dB, predicted from the steps alone (`-10 log10(predicted / power)`), measured with absmax,
# and measured with the best clip.

# %% tags=["experiment"]
import math

import torch

normal = torch.randn(32, 4096, generator=torch.Generator().manual_seed(0))
power = normal.square().mean().item()


def requantized(w, bits, group, clip):
    """w after quantization with a clip per group."""
    m = 2 ** (bits - 1) - 1
    blocks = w.reshape(len(w), -1, group)
    d = clip.unsqueeze(-1) * blocks.abs().amax(-1, keepdim=True) / m
    return (d * torch.where(d == 0, 0, blocks / d).round().clamp(-m, m)).reshape(w.shape)


def decibels(w, approximation):
    return 10 * math.log10(w.square().sum() / (approximation - w).square().sum())


print("bits  group   predicted  absmax   best clip   its mean   overload's share of the noise")
for bits in (2, 3, 4, 8):
    for group in (32, 4096):
        budget = noise_budget(normal, bits, group)
        clip = best_clip(normal, bits, group)
        found = requantized(normal, bits, group, clip)
        limit = (clip * normal.abs().unflatten(1, (-1, group)).amax(-1)).repeat_interleave(group, 1)
        noise, beyond = (found - normal).square(), normal.abs() > limit
        print(
            f"{bits:4}  {group:5}   {-10 * math.log10(budget['predicted'] / power):9.2f}  {budget['sqnr']:6.2f}"
            f"   {decibels(normal, found):9.2f}  {clip.mean():9.2f}   {100 * noise[beyond].sum() / noise.sum():8.0f} %"
        )

# %% [markdown]
# **How to read it.** The prediction needs the steps alone, and from 3 bits on it is within 0.02 dB in groups of 4 096. In groups of 32 it is 0.14 dB low: one
# element of 32, the largest, is met exactly, and 10 · log10(32/31) = 0.14. At 2 bits it fails: most weights fall into the one cell around 0, where the density is
# not flat. From 3 to 4 bits m grows from 3 to 7, so the gain is 20 · log10(7/3) = 7.4 dB and not 6.02. The clip buys 6.4 dB at 2 bits in large groups, 0.6 dB
# at 4 bits in small ones, and 0.12 dB at most at 8. At the optimum overload has the share that background 1 predicts in groups of 4 096, and a smaller one in groups of 32.
#
# **Second: swap one, 57 times.** Every matrix of the course model in turn goes to 3 bits (absmax, groups of 64). Damage in nats per token over 512 tokens.

# %% tags=["experiment"]
import matplotlib.pyplot as plt
import torch

import quant_kernels as qk
from course.fetch import fetch
from course.texts import calibration_text, evaluation_text
from quant_kernels.methods.sensitivity import divergence, sensitivity

model = qk.load_model(fetch("course-model"))
originals = {name: weight.detach() for name, weight in model.weights().items()}


def run(weights, tokens):
    """The course model's logits, (T, V), with these matrices."""
    with torch.inference_mode(), model.replaced(weights):
        return model(tokens).flatten(0, 1)


def three_bits(weight, bits=3):
    return requantized(weight, bits, 64, torch.ones(len(weight), weight.shape[1] // 64))


calibration = torch.tensor(model.tokenizer.encode(calibration_text()[:6000])[:512]).unsqueeze(0)
rounded = {name: three_bits(weight) for name, weight in originals.items()}
damages = swap_one(run, originals, rounded, calibration)

some = ("blk.0.ffn_up.weight", "blk.7.attn_v.weight")
library = sensitivity(model, {name: rounded[name] for name in some}, divergence(model, calibration))
print("beside the library's:", *(f"{name} {damages[name]:.6f} and {library[name]:.6f}" for name in some), sep="\n  ")

kinds = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
table = [[1000 * damages[f"blk.{layer}.{kind}.weight"] for layer in range(8)] for kind in kinds]
figure, axes = plt.subplots(figsize=(7.5, 3.9))
axes.imshow(torch.tensor(table).clamp(min=0.02).log(), cmap="YlOrRd", aspect="auto")
for row, line in enumerate(table):
    for layer, value in enumerate(line):
        colour = "white" if value > 5 else "black"
        axes.text(layer, row, f"{value:.2g}", ha="center", va="center", fontsize=9, color=colour)
axes.set_yticks(range(7), kinds)
axes.set(
    xlabel="layer",
    title=f"Damage of one matrix at 3 bits, in millinats per token (token_embd: {1000 * damages['token_embd.weight']:.0f})",
)
plt.show()

# %% [markdown]
# **How to read it.** The single damages differ by a factor of 5 000, though the step rule is the same everywhere. No rule of thumb holds: the last layer is sensitive, and so
# is the first in its feed-forward part and attn_output, while its q and k hardly matter; the feed-forward part of layer 1 hardly matters. `token_embd` stands apart with 80 millinats: it is input *and* output matrix, since the model ties them. In
# a ranking for a budget it also counts that it has 13 % of the weights.
#
# **Third: what would have predicted that?** The relative error of the weights, or the output error of your exercise (c), with H from the same 512 tokens?

# %% tags=["experiment"]
import matplotlib.pyplot as plt
import torch

from quant_kernels.methods.linears import calibrate

inputs = {}
calibrate(model, calibration, lambda name, x: inputs.setdefault(f"{name}.weight", []).append(x))
moments = {name: second_moment(batches) for name, batches in inputs.items()}
names = list(moments)


def ranks(values):
    return torch.tensor(values).argsort().argsort().double()


predictors = {
    "relative weight error, %": [
        100 * ((rounded[name] - originals[name]).norm() / originals[name].norm()).item() for name in names
    ],
    "output error tr(ΔW H ΔWᵀ), square root": [
        output_error(rounded[name] - originals[name], moments[name]) ** 0.5 for name in names
    ],
}
measured = [damages[name] for name in names]
figure, panels = plt.subplots(1, 2, figsize=(9, 4.1), sharey=True, layout="constrained")
for axes, (label, values) in zip(panels, predictors.items()):
    rho = torch.corrcoef(torch.stack([ranks(values), ranks(measured)]))[0, 1]
    for kind, marker in zip(kinds, "osD^v<P"):
        mine = [i for i, name in enumerate(names) if f".{kind}." in name]
        axes.scatter([values[i] for i in mine], [1000 * measured[i] for i in mine], s=22, marker=marker, label=kind)
    axes.set(xlabel=label, yscale="log", title=f"rank correlation {rho:.2f}")
    axes.grid(alpha=0.3)
panels[1].set_xscale("log")
panels[0].set_ylabel("damage, millinats per token")
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", fontsize=8, ncols=7, frameon=False)
plt.show()

print("best clip against absmax, where the two errors choose differently, and one where they agree:")
for name in names:
    w, h = originals[name], moments[name]
    clip = best_clip(w, 3, 64)
    clipped = requantized(w, 3, 64, clip)
    by_weight, by_output = pick(w, [rounded[name], clipped], h)
    if by_weight == by_output and name != "blk.3.attn_v.weight":
        continue
    beyond = w.abs() > (clip * w.abs().unflatten(1, (-1, 64)).amax(-1)).repeat_interleave(64, 1)
    strength = (h.diagonal().expand_as(w)[beyond].mean() / h.diagonal().mean()).item()
    weight_ratio = ((clipped - w).square().sum() / (rounded[name] - w).square().sum()).item()
    output_ratio = output_error(clipped - w, h) / output_error(rounded[name] - w, h)
    print(
        f"  {name:21} weight error × {weight_ratio:.2f}, output error × {output_ratio:.2f}; "
        f"inputs of the clipped weights have {strength:.1f} times the mean power"
    )

# %% [markdown]
# **How to read it.** All relative weight errors lie between 24.8 and 28.6 %, and the three above 27 % belong to matrices with hardly any damage: rank correlation −0.06. The output error reaches
# 0.63. It still lacks the way from the layer's output to the loss, which differs between kinds of tensors; *within* one tensor it is the right judge. There the three contrary matrices are the lesson:
# their largest weights sit on inputs of 1.9 to 2.8 times the mean power, and the clip cuts off just these.
#
# **Fourth: do the damages add up?** The layers' 7 matrices are swapped together, layer by layer, and then all 56 at once: your forecasts from 8 runs,
# beside what the model says. Two columns take the superposed forecast apart: ½ δᵀ F δ of the summed changes, and the mean divergence when each change gets a random sign, which leaves no common part.

# %% tags=["experiment"]
import torch.nn.functional as F


def last_tokens(weights):
    """Logits of the last 256 tokens: they have the longest context, and pairs cost time."""
    return run(weights, calibration)[-256:]


def divergence_of(logits):
    log_p, log_q = base.double().log_softmax(-1), logits.double().log_softmax(-1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True).item()


base = last_tokens(originals)
signs = 2 * torch.randint(0, 2, (32, 8), generator=torch.Generator().manual_seed(2)) - 1
print("bits  additive  superposed  its quadratic form  signs at random  all at once  verdict, 15 %  pair of layers")
for bits in (4, 3, 2):
    changed = {name: three_bits(originals[name], bits) for name in names}
    layers = {f"blk.{i}.": {name: changed[name] for name in names if name.startswith(f"blk.{i}.")} for i in range(8)}
    singles = {layer: last_tokens({**originals, **matrices}) for layer, matrices in layers.items()}
    joint = last_tokens({**originals, **changed})
    guess = forecast(base, singles)
    deltas = torch.stack([logits.double() - base.double() for logits in singles.values()])
    p, change = base.double().softmax(-1), deltas.sum(0)
    quadratic = ((p * change.square()).sum(-1) - (p * change).sum(-1).square()).mean() / 2
    turned = [divergence_of(base + torch.einsum("i,itv->tv", sign.double(), deltas)) for sign in signs]
    print(
        f"{bits:4}  {guess['additive']:8.4f}  {guess['superposed']:10.4f}  {quadratic:18.4f}  {sum(turned) / 32:15.4f}"
        f"  {divergence_of(joint):11.4f}  {verdict(base, singles, joint, 0.15):13}  {' and '.join(guess['pair'])}"
    )

# %% [markdown]
# **How to read it.** When we ran it (nats per token, two cores of a server CPU): at 4 bits the sum is right, 0.0286 against 0.0287. At 3 bits the truth is 0.199, 22 % above the sum, and superposing the
# changes of the logits (0.216) comes within 9 %. Is that a common part of the errors? The control says yes: with signs at random (mean of 32 draws) the excess is gone, 0.163. The quadratic form of the summed changes, 0.192, has that part; the other
# 0.024 of the forecast is the curvature of D. The verdict alone could not tell: changes that are unrelated but large get it too. At 2 bits neither forecast holds: 2.2 and 7.1 against 3.7. There each
# layer computes on what the ruined layers before it hand over, and single swaps describe another model than the one that you ship.
#
# **Last: is the ranking worth anything?** Of the 56 matrices at 3 bits, keep some at F16, up to a tenth of their weights: the ones with the most damage per
# weight, the ones with the largest relative weight error, or any. The text is now another one: Python's language reference; KL divergence as before.

# %% tags=["experiment"]
held_out = torch.tensor(model.tokenizer.encode(evaluation_text()[:12000])[:1024]).view(2, 512)
truth = run(originals, held_out)
budget = sum(originals[name].numel() for name in names) // 10
weight_error = dict(zip(names, predictors["relative weight error, %"]))


def shuffled(seed):
    return [names[i] for i in torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()]


orders = {
    "none": [],
    **{f"any, shuffle {seed}": shuffled(seed) for seed in range(4)},
    "largest weight error": sorted(names, key=lambda name: -weight_error[name]),
    "most damage per weight": sorted(names, key=lambda name: -damages[name] / originals[name].numel()),
}
losses = {}
for label, order in orders.items():
    kept, spent = [], 0
    for name in order:
        if spent + originals[name].numel() <= budget:
            kept.append(name)
            spent += originals[name].numel()
    swapped = {name: rounded[name] for name in names if name not in kept}
    log_p, log_q = truth.log_softmax(-1), run({**originals, **swapped}, held_out).log_softmax(-1)
    losses[label] = (log_p.exp() * (log_p - log_q)).sum(-1)
    gain = losses["none"] - losses[label]
    print(
        f"{label:22} {len(kept):3} kept, {100 * spent / (10 * budget):4.1f} %   {losses[label].mean():.4f} nats per token,"
        f" less than none by {gain.mean():.4f} ± {gain.std() / len(gain) ** 0.5:.4f}"
    )

# %% [markdown]
# **How to read it.** 0.200 nats with nothing kept; 0.160 to 0.190 with any tenth (four shuffles); 0.180 with the tenth that has the largest weight errors, which is *no better than
# chance*; 0.120 with the most damage per weight. Every order spends 9.6 %. All lines are over the same 1 024 tokens, so the differences are what to compare: 0.080 ± 0.004 against 0.040 ± 0.003 at best for a shuffle. These ± count tokens as
# independent, and know two windows of one text.
#
# **And (f) on real blocks:** N(0, 1) in blocks of 32 with d = max|x| / 127, the codes once rounded and once cut off.

# %% tags=["experiment"]
blocks = normal.reshape(-1, 32)
scaled = (127 * blocks / blocks.abs().amax(1, keepdim=True)).flatten()
for rounding in (torch.round, torch.trunc):
    report = rounding_report(scaled, rounding(scaled).int(), 1.0)
    print(
        f"torch.{rounding.__name__:6}",
        {key: round(value, 3) if key != "mode" else value for key, value in report.items()},
    )

# %% [markdown]
# **How to read it.** 0.284 against 0.571 steps rms, and the split by sign shows why: truncation pulls each value toward zero by 0.49 steps. Both numbers are a little below 0.289 and 0.577, since the block's
# largest value is met exactly and the smallest ones span few steps. That loss of magnitude does not average out: it scales every dot product down.

# %% [markdown]
# ## Rubric
#
# An instructor scores the next three answers and the talk at the end, 7 points each; alone, score yourself by the tables. Write into the
# cells "Your answer".

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-models", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Error models (7 points)
#
# Take the first table of the experiment. In 250 words or fewer: from which quantities do you predict the SQNR of absmax on N(0, 1) at 3 and 4 bits, in groups of 32 and of 4 096?
# Why do you gain more than 6.02 dB from 3 to 4 bits? Where does d²/12 fail, and why? What does the best clip buy at 2, 4 and 8 bits, and what pays for it?
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | "6 dB per bit" | d²/12 and a step from the largest weight; no numbers | Numbers within 0.3 dB, granular and overload told apart, the 2-bit failure explained | Also the 20 · log10(7/3), the exactly met extremes, the noise shares at the optimum, and which weights pay |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** SQNR = 10 log10(12 m² / E max²): E max² is about 5.7 for 32 normals and 14.7 for 4 096, so 12.8 and 20.1 dB, 8.7 and 16.0 dB; measured 12.90, 20.26, 8.66, 16.03. In groups of 32 one element of 32, the largest, is met
# exactly: 10 log10(32/31) = 0.14 dB, which closes the gap. From 3 to 4 bits m grows from 3 to 7: 20 log10(7/3) = 7.36 dB; 6.02 only in the limit. d²/12 needs an error that is uniform within a step, so a density that is flat over a cell: at 2 bits
# the cell around 0 holds most weights (0.81 dB measured, −0.89 predicted, groups of 4 096).
# Clip, groups of 4 096 | 32: +6.4 | +3.9 dB at 2 bits, +2.9 | +0.6 at 4, +0.1 | 0 at 8. It trades overload for granular noise; the optimum sits where their derivatives cancel, not where they are equal: overload is 48, 21 and 2 % of the noise. The largest weights pay: a mean square over
# many small ones outvotes them, which is wrong where they meet the strong inputs.
#
# **Strong, 7 of 7.** *"The step is max/m and granular noise is its mean square over 12, so SQNR = 12 m²/E max². With E max² near 5.7 and 14.7 I get 12.8 and 20.1 dB at group 32, 8.7 and 16.0 at 4 096; measured 12.90, 20.26, 8.66, 16.03.
# The 0.14 dB at group 32 is the maximum that is exact: 32/31. 3 to 4 bits is m from 3 to 7, 7.36 dB, since symmetric codes waste one of 2^b. At 2 bits the model misses by up to 1.7 dB: three cells, the middle one holds the peak of the density, the error is not uniform.
# Best clip buys 6.4, 2.9 and 0.1 dB at 4 096, and 3.9, 0.6 and 0 at 32, because a small group's maximum is not far out. It buys finer steps for everyone with errors of the few beyond the limit, half of the noise at 2 bits. If these few sit on strong channels, the trade loses."* Numbers, remainder, mechanism, limit.
#
# **Middling, 4 of 7.** *"Noise is d²/12 with d = max/m. Larger groups have larger maxima: about 2.35 against 3.8 sigma, so 4 dB worse, as measured (12.9 and 8.7). At 2 bits it does not fit because the cells are too wide for a uniform error. Clipping gives up outliers for smaller steps and helps most at
# 2 bits, with 8 bits hardly at all."* Right mechanism, ratio and failure. Nothing on 7.36, on the exact extremes or on who pays.
#
# **Weak, 1 of 7.** *"Each bit gives 6 dB, so 4 bits have 24 dB. Clipping should be avoided because it makes the largest error worse."* No step from data; judges by the largest error.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (error models):

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-outputs", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### From weights to outputs (7 points)
#
# For three matrices of the course model the best clip lowers the weight error and raises the output error. In 250 words or fewer: derive the identity, explain how that can be, say what GPTQ, importance weights and bias correction each do with H,
# and why tr(ΔW H ΔWᵀ) still ranks the *tensors of a model* only roughly (rank correlation in the third experiment).
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | "Less weight error is a better layer" | Names activations as weights of the error; no derivation | Identity derived, clip explained by strong inputs, one method placed | All three methods placed; mean part told apart; says what lies beyond the layer's output |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** mean ‖ΔW x‖² = mean tr(ΔW x xᵀ ΔWᵀ) = tr(ΔW H ΔWᵀ), H not centred. Weight error is H = I. Clipping moves error from many weights to the few largest; in the three matrices these sit on inputs of 1.9 to 2.8 times the mean power (1.0 where clipping helps), and all clipped weights err toward zero, so their errors also line up. Importance weights (llama.cpp's imatrix) keep diag(H) and weight the search
# for scales; they may raise the plain error. GPTQ uses all of H: it makes up for each column's rounding in the columns not yet rounded, so it needs the correlations; with H = I it is plain rounding. Bias correction: H = C + μμᵀ; the part ‖ΔW μ‖² is a constant shift of the outputs, which a bias
# removes at no cost, C's part is not removable so. Across tensors: the outputs have different units and different ways to the loss (norms behind them, residual stream, softmax saturation, how many later layers); a gradient or Fisher weighting would be needed, or the swap. H comes from calibration text, and from the *unquantized* layers before it.
#
# **Strong, 7 of 7.** *"ΔW x is the output's change; its mean square is the trace with H = E x xᵀ, not centred, because a constant input shifts the output too. Weight error pretends H = I. The clip is chosen for many small weights and puts error on the largest ones; in blk.0.attn_q the clipped ones have inputs of twice the mean power, so the output pays. imatrix keeps H's diagonal
# as weights in the scale search, GPTQ uses the off-diagonals to let later columns cancel earlier errors, bias correction takes out ΔW μ, the rank-one part μμᵀ. Between tensors the trace is in each layer's own units: an error in attn_q passes a softmax that may be saturated, one in ffn_down goes straight into the residual stream. So it ranks the 56 roughly (0.6) where the weight error
# does not at all; to compare tensors I swap, or weight by gradients."* Derivation, three methods, the limit.
#
# **Middling, 4 of 7.** *"E‖ΔW x‖² = tr(ΔW H ΔWᵀ), H = XᵀX/T. Weights on large activations count more, and clipping hurts exactly the large weights. GPTQ minimises this trace column by column. For the whole model it is only a proxy."* Right, brief; no diagonal or mean, no reason for the proxy's limit.
#
# **Weak, 1 of 7.** *"Clipping reduces the MSE, so the output must be better on average; the three are noise from too little data."* Denies what the identity shows.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (from weights to outputs):

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-attribution", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Measurement and attribution (7 points)
#
# A model of 300 matrices lost quality at 3 bits, and you may keep 10 % of the weights at higher precision. In 250 words or fewer: which runs do you make, on which text, with which measure; how do you use additivity and how do you test it; how do you know that your choice is better than chance?
# Use your own figures of the fourth and the last experiment.
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | "Keep the first and last layers" | Swaps one tensor; one text, one number | KL divergence, separate texts, damage per byte, joint measured against the sum | Also the two forecasts and what each failure means, error bars or a control, cost in runs |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** KL divergence from the unquantized model: no labels, less noise than perplexity, which may fall by chance. One base run, 300 swaps; or groups first, then within the bad ones. Rank on calibration text, report on another: ranking on the text of the report is fitting the test set. Damage per byte, not damage: a
# large tensor's damage buys more. Additivity: measured 0.0286 against 0.0287 at 4 bits, 0.162 against 0.199 at 3, 2.2 against 3.7 at 2 (nats, sum of 8 layers and all at once): use it to rank and to allocate, measure the result. Fails when errors share a part (superposed forecast right: 0.216 at 3 bits, within 15 %; the control with signs at random falls back to 0.163, the sum; of the rest 0.024 is curvature of D), or when one error changes what the other does, or saturates (2 bits:
# superposed 7.1, measured 3.7). Rankings may change with the order of damage, so allocate, measure, repeat with the kept tensors out. Control: 0.200 with none kept, 0.160 to 0.190 with any (four shuffles), 0.180 by weight error, 0.120 by damage per weight; paired over the same tokens the last gains 0.080 ± 0.004, the shuffles 0.010 to 0.040 ± 0.003.
#
# **Strong, 7 of 7.** *"KL divergence in nats against the F16 model over a few thousand tokens: paired, no labels. One base run plus 300 swaps; if that is too dear, 30 layers first. I rank by damage per byte on calibration text, fill 10 %, and report on held-out text. I use sums to choose and never to report: at 4 bits sum and joint agreed (0.0286, 0.0287), at 3 the joint was 22 % above the sum, superposing
# the logit changes came within 9 %, and with random signs the excess was gone, so errors line up; at 2 bits superposition is off by a factor of two, so the network itself reacts and single swaps no longer describe it. Control: my choice gained 0.080 ± 0.004 of 0.200, paired over the same tokens; four random choices of the same size 0.010 to 0.040; by weight error 0.020, no better than chance. The ± knows one text only. Next: swap again with the chosen ones kept."* Cost, texts, control, failure modes.
#
# **Middling, 4 of 7.** *"Swap each tensor, measure KLD on calibration data, sort by damage divided by size, keep the top until 10 % is used, then evaluate on WikiText. Damages add up only for small errors, so I measure the final mix. In my run 0.12 against 0.20 without."* Sound. No control, no error bars, no reading of how additivity fails.
#
# **Weak, 1 of 7.** *"The first layers are the most sensitive because errors accumulate, and attention matters more than the FFN, so I keep these and check perplexity on the test set until it is good."* A rule in place of a measurement, tuned on the test set.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (measurement and attribution):

# %% [markdown]
# ## Follow-up questions
#
# Try each aloud before you unfold what a strong answer touches.
#
# **1. A report shows two builds. Build A has the higher mean SQNR over its layers, build B the better perplexity. Is the report wrong?**
#
# <details><summary>A strong answer touches</summary>
#
# Not necessarily. A mean of decibels is a geometric mean of ratios: one ruined layer costs little in it, and exact layers lift it without end. Pooled SQNR adds noise energies, so the worst large layer decides. Both look at weights only:
# neither knows the inputs, or what the layer's output is used for.
#
# </details>
#
# **2. GPTQ minimises the layer's output error, yet an early table has plain rounding ahead of it: LLaMA-7B at 4 bits without groups, context 2 048, perplexity 5.67 at FP16, 6.28 rounded, 6.79 GPTQ (README of GPTQ-for-LLaMa, 8 March 2023). How can that be?**
#
# <details><summary>A strong answer touches</summary>
#
# The objective is one layer's error on calibration text. It may overfit H (few tokens, little damping, an ill-conditioned H), push large corrections into columns that the calibration hardly used, and suffer from the order of the columns. Two weeks later the same README has it: `--act-order` (columns by decreasing activation) and `--true-sequential` bring 7B to 6.09. The first table's 6.16 with groups
# of 64 proves nothing, since it lists no plain rounding in groups. So: compare on other text, look at tr(ΔW H ΔWᵀ) with an H from held-out text, try damping and the order of columns.
#
# </details>
#
# **3. A 4-bit Llama-2-7B goes from 5.47 to 10.44 in perplexity on WikiText-2, and from 6.97 to 7.42 on C4 (intel/auto-round issue 116). What do you look at first?**
#
# <details><summary>A strong answer touches</summary>
#
# The losses token by token: a mean of logarithms can be carried by a few tokens with huge loss. Median and percentiles of the divergence, which tokens and windows, whether a special token or a massive activation is involved. Then swap layers back to find the one. Not: averaging
# the two corpora, or calling one of them unlucky.
#
# </details>
#
# **4. 57 swaps took seconds here. For a model of 70 billion parameters each costs an evaluation. What is cheaper?**
#
# <details><summary>A strong answer touches</summary>
#
# Groups of tensors first, and inside the bad ones only. tr(ΔW H ΔWᵀ) from one calibration run, for formats within one tensor. Between tensors a gradient weighting: second-order estimates as in HAWQ (arXiv 1905.03696), Fisher information from one backward pass. Fewer tokens, chosen once and for all, paired. And a check of the cheap ranking by a few real swaps.
#
# </details>
#
# **5. Where is stochastic rounding worth its double variance?**
#
# <details><summary>A strong answer touches</summary>
#
# It has no bias for any value, where rounding to nearest has none only on average over a spread of values: a small update added to a large low-precision number is always lost by nearest, and kept in the mean by stochastic. So: training and accumulators of low precision, gradients. Not for weights that are rounded once for inference:
# variance 1/6 in place of 1/12, 3 dB, for an unbiasedness that nothing accumulates; there it costs, and makes builds irreproducible.
#
# </details>
#
# **6. A kernel scales its int32 sums down by `(v + 64) >> 7`. Is that unbiased? And `v >> 7`?**
#
# <details><summary>A strong answer touches</summary>
#
# If v mod 128 is evenly spread, the first has mean error +1/256 of a step: halves always go up. By a shift of 1 in place of 7 the same rule would have +1/4. `v >> 7` is floor: −127/256, nearly half a step, the same direction in every output, which the next layer's dot products add up in proportion to n. Detect it with the error
# split by sign, as in (f); on integers count the ties.
#
# </details>
#
# **7. Your two swaps each cost 0.5 nats, together they cost 0.01. Measurement error?**
#
# <details><summary>A strong answer touches</summary>
#
# Perhaps an equivalence: one matrix scaled by s and its successor by 1/s (SmoothQuant, AWQ, a rotation folded into both sides) leaves the function as it is only when both are swapped. Single swaps of such tensors mean nothing: swap what was transformed together. The pair search of (e) shows it as a large negative cross term.
#
# </details>

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-communication", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Communication: the talk (7 points)
#
# Answer the question at the top in 15 minutes, to an interviewer who may ask any of the follow-ups. Speak, draw, show your code. Then write below what you said, in ten lines or fewer.
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | A list of metrics; loses the thread | Understandable; answers what was asked and no more | Model, measurement, attribution in order; takes the report's three claims apart | Teaches: a picture first, numbers predicted before shown, ends in a decision, limits named unasked |
#
# === BEGIN MARK SCHEME ===
#
# **The model answer, in five parts of three minutes.**
#
# 1. *The claims.* "Mean SQNR fine": decibels were averaged; powers add, and one layer at 10 dB among twenty at 30 dB brings the pool, at equal energies, from 30 to 22 dB, the mean of the column only to 29. "Largest weight error small": half a step is what absmax is good at, and it has up to 6 dB more noise than the best clip. "Errors average out": noise does, bias does not; and errors of different tensors may share a part.
# 2. *What the error is made of.* Draw the staircase with its two ends. Granular d²/12, overload (|x| − A)², SQNR = 12 m²/E max². Predict 12.8 and 8.7 dB at 3 bits for groups of 32 and 4 096, show 12.90 and 8.66. Fails at 2 bits, and why. Clip: 1.95 σ at 3 bits, +4.6 dB at 4 096.
# 3. *What it does to outputs.* tr(ΔW H ΔWᵀ), one line of algebra, H once over batches. Three of 56 matrices where the better weights make the worse output. What uses H: importance weights, GPTQ, bias correction (μμᵀ).
# 4. *Who carries it.* Swap one, KL divergence, calibration text; the map of 8 × 7 damages: they differ by a factor of 5 000, while all weight errors lie between 25 and 29 %. Add up with care: right at 4 bits, 18 % low at 3 (errors line up), useless at 2. Keep a tenth of the weights by damage per weight: 0.200 → 0.120 on other text, against 0.160 to 0.190 for any tenth.
# 5. *How a wrong rounding shows.* Error in steps, split by the sign of x: trunc −½, +½, rms 0.571 against 0.284 on 8-bit blocks. Shift grows with n, spread with √n. *Decision:* clip or smaller groups, a tenth of the weights at F16, report KL divergence with its error on held-out text. *Open:* one small model, one text of 1 024 tokens; ranking of larger models has to be measured there.
#
# Score the talk itself where you heard it; the samples are what candidates wrote of theirs.
#
# **Strong, 7 of 7.** *"I took the three claims in turn. I averaged 30, 30 and 10 dB on the board both ways: 23.3 as a mean, 14.7 pooled. Then the staircase: granular, overload, one knob; I predicted 12.8 dB for 3 bits and groups of 32 and showed 12.90, and named 2 bits as the place where it breaks. One line from ΔW to tr(ΔW H ΔWᵀ), and blk.0.attn_q, where the clip helps the weights and hurts the output.
# Map of swaps: the weight errors lie between 25 and 29 %, the damages differ by a factor of 5 000. The sum of damages held at 4 bits, was 18 % low at 3, and I said why. I closed with a decision, 0.200 to 0.120 nats on text that the ranking had not seen, a control at 0.160 at best, and with what I do not know: one small model."* Picture, predictions, decision, limits.
#
# **Middling, 4 of 7.** *"I explained granular and overload noise, the clip search, the identity with H, and the swap. I showed my tables. Asked about additivity I said that it holds for small errors and showed the three lines. Keeping the sensitive matrices brought the divergence from 0.20 to 0.12."* Complete and right; nothing predicted, the report's claims not answered as such.
#
# **Weak, 1 of 7.** *"I went through my functions; all tests pass. SQNR is the main metric, more bits are better, and the first layers should stay in FP16."* No model, no measurement of one's own, and the rule contradicts the map.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (the talk, in ten lines or fewer):
