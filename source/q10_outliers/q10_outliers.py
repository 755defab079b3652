# ---
# jupyter:
#   course:
#     number: 10
#     title: Outlier handling in quantization
#     category: Technical
#     difficulty: Senior
#     levels: [mid, senior]
#     companies: []
#     minutes: {talk: 15, code: 55}
#     prerequisites:
#       - matrix products in torch or numpy, RMSNorm and LayerNorm, the layers of a Llama
#       - "Question 5: W8A8, a scale per token and a scale per row"
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
# # Question 10: Outlier handling in quantization
#
# | | |
# |:--|:--|
# | **Category** | Technical |
# | **Difficulty** | Senior; marked for the levels mid and senior |
# | **Time** | 55 minutes of code, then a talk of 15 minutes |
# | **You should know** | matrix products in torch or numpy, norms, the layers of a Llama, W8A8 (question 5) |
# | **Code points** | 30, in six exercises |
# | **Rubric points** | 28, in four categories of 7 |
# | **Mid passes with** | 12 rubric points and 60 % of the code points |
# | **Senior passes with** | 18 rubric points and 80 % of the code points |

# %% [markdown]
# ## The question
#
# > "We quantized weights and activations to 8 bits and the model fell apart; somebody says 'outliers' and wants to clip
# > them. Tell me what they are, where they sit, and how you would find out. Then take the remedies one by one: keep them apart, scale them
# > away, rotate them, clip them. Write each as an identity and implement it. Which are exact before anything is rounded?
# > What does each cost when the model is served, and what can be folded into the weights? At the end I want a table with the perplexity of each on a
# > real model, and your reason why one of them failed."

# %% [markdown]
# ## What is looked for
#
# **Competencies.** Telling channel outliers from massive activations of single tokens and from large weights, by measurement; exact algebra
# around one matrix product; knowing where a transformation can be folded; judging a remedy by its cost in a running engine.
#
# | Green flags | Red flags |
# |:--|:--|
# | Plots max abs(x) per channel, per token and per layer first | "Clip at the 99.9th percentile" |
# | Writes the identity before the code, and tests it before quantizing | Tests only the quantized result, with a wide tolerance |
# | Knows why a scale per channel of x does not leave the sum | "Use a scale per channel for the activations" |
# | Folds into norms and matrices; names what has to run online | Multiplies at run time what could be folded |
# | Divides a LayerNorm's bias too, and looks for *all* readers | Forgets a reader: one projection, the experts of an MoE |
# | "AWQ scales 1 % of the channels up" | "AWQ keeps 1 % of the weights in FP16" |
# | Reports which remedy failed, and where | One perplexity, no layer, no token |

# %% [markdown]
# ## Background 1: one scale, and who sets it
#
# In W8A8 a token's activations share one scale, max abs(x) / 127. Let 5 of 512 channels be 60 times as large as the others, for all
# tokens: the other 507 channels, which are 99 % of the numbers, get by with the few codes that are left of 255. The cell draws both, and prints the error
# of the output, 100 · norm(ŷ − y) / norm(y), with a scale per tensor, with one per token, and for comparison without the outliers.

# %% tags=["experiment"]
import matplotlib.pyplot as plt
import torch


def int8(v, per):
    peak = v.abs().amax() if per == "tensor" else v.abs().amax(1, keepdim=True)
    return (v / (peak / 127)).round(), peak / 127


def w8a8_error(x, w, per):
    (q_x, s_x), (q_w, s_w) = int8(x, per), int8(w, "row")
    y = x @ w.T
    return 100 * ((s_x * (q_x @ q_w.T) * s_w.T - y).norm() / y.norm()).item()


generator = torch.Generator().manual_seed(0)
plain = torch.randn(256, 512, generator=generator)
factor = torch.ones(512)
factor[torch.randperm(512, generator=generator)[:5]] = 60
x, w = plain * factor, torch.randn(512, 512, generator=generator)

figure, axes = plt.subplots(1, 2, figsize=(10, 3.3), width_ratios=[1.3, 1])
axes[0].semilogy(x.abs().amax(0), lw=0.8, color="#0072B2")
axes[0].set(xlabel="channel", ylabel="max abs(x) over 256 tokens", title="Five channels are 60 times as large")
for data, label, colour in ((x, "with the five", "#D55E00"), (plain, "without", "#0072B2")):
    codes = int8(data, "token")[0][:, factor == 1]
    values, counts = codes.unique(return_counts=True)
    axes[1].step(values, 100 * counts / codes.numel(), where="mid", color=colour, label=label)
axes[1].set(xlim=(-60, 60), xlabel="int8 code", ylabel="% of codes", title="Codes of the 507 other channels, per token")
axes[1].legend(frameon=False)
plt.tight_layout()
plt.show()
for data, label in ((x, "with the five"), (plain, "without")):
    errors = ", ".join(f"per {per} {w8a8_error(data, w, per):.2f} %" for per in ("tensor", "token"))
    print(f"{label:14} output error: {errors}")

# %% [markdown]
# A scale per token helps by a factor of two and no more: every token has the outliers. A scale per **channel** of x would fit, and
# cannot be used in integer arithmetic: in y_tm = Σ_j x_tj · w_mj the index j is summed over. A factor that depends on t or on m comes out of the sum;
# one that depends on j stays in it. Every remedy below deals with this one fact.

# %% [markdown]
# ## Background 2: four remedies, one product
#
# ```
# y = x Wᵀ       x: (tokens, n)     W: (m, n)     column j of x meets column j of W
#
# split          x_o W_oᵀ + x_r W_rᵀ    columns o in float, columns r in int8     LLM.int8()
# smooth         (x / s) (W · s)ᵀ       one s_j > 0 for each channel              SmoothQuant
# rotate         (x Q) (W Q)ᵀ           Q Qᵀ = 1: each channel a mixture of all   QuaRot, SpinQuant
# clip           clamp(x, −c, c) Wᵀ     y only where nothing is clipped
# ```
#
# The first three are **exact** before anything is rounded: that is the property to test first. They differ in what they cost. A split needs
# two kernels and decides by looking at the data. Scales and rotations can often be **folded** into what comes before, so that nothing is added at run time:
#
# ```
#               ┌─────────────┐     x / s     ┌───────────────────────────┐
#   residual ──►│ norm: g / s │──────────────►│ W_q · s  W_k · s  W_v · s │   every reader, none left out
#               └─────────────┘               └───────────────────────────┘
# ```
#
# AWQ is the second line with W alone being rounded. Papers: LLM.int8() (arXiv 2208.07339), SmoothQuant (2211.10438), AWQ (2306.00978), QuaRot (2404.00456), SpinQuant (2405.16406), KIVI (2402.02750).

# %% [markdown]
# ## Exercises
#
# All functions take and return CPU tensors of torch, float32 where nothing else is said, and leave their arguments as they are. Inputs are finite and may have
# any strides; so may results. Use torch or numpy; `quant_kernels` is not there when your answer is graded. The exercises do not build on one another:
# each is scored alone.
#
# The next cell gives you the two quantizers that occur below, so that your time goes into outliers. Use them, or write your own of the same meaning.
# Exact halves may be rounded to either side: no test depends on it.

# %%
import torch


def int8_rows(v):
    """Symmetric int8 of each row of v, (rows, n): codes −127 … 127 as float32, and scales, (rows, 1)."""
    peak = v.abs().amax(1, keepdim=True)
    scale = torch.where(peak == 0, 1, peak / 127)
    return (v / scale).round(), scale


def w8a8(x, w):
    """x wᵀ with x, (tokens, n), in int8 per token and w, (m, n), in int8 per row: (tokens, m)."""
    (q_x, s_x), (q_w, s_w) = int8_rows(x), int8_rows(w)
    return s_x * (q_x @ q_w.T) * s_w.T  # whole numbers: float32 adds them exactly below 2²⁴


def group_quantized(w, bits, group):
    """What is left of w, (m, n), in `bits` bits, asymmetric, in groups of neighbours along each row."""
    blocks = w.reshape(len(w), -1, group)  # (m, n / group, group)
    low, high = blocks.amin(-1, keepdim=True).clamp(max=0), blocks.amax(-1, keepdim=True).clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale == 0, 1, scale)
    zero = (-low / scale).round()
    codes = ((blocks / scale).round() + zero).clamp(0, 2**bits - 1)
    return ((codes - zero) * scale).reshape(w.shape)


def percent(y_hat, y):
    """The relative error of an output in percent: 100 · norm(ŷ − y) / norm(y), over the whole tensor."""
    return 100 * ((y_hat - y).norm() / y.norm()).item()


# %% [markdown]
# ### Exercise (a): split the columns, as LLM.int8() does
#
# *8 minutes, 5 points*
#
# ```
# outlier_columns  x: (tokens, n), threshold: number              →  bool (n,)
# llm_int8         x: (tokens, n), w: (m, n), threshold = 6.0     →  y: (tokens, m)
#
#          n columns                      a column is an outlier for ALL tokens
#        ┌──┬─────┬──┬────────┐           as soon as ONE token has |x| ≥ threshold in it
# tokens │  │  o  │  │   o    │
#        │  │ 9.1 │  │        │           y =  x[:, o] w[:, o]ᵀ  in float32
#        │  │     │  │ −6.0   │             + x[:, r] w[:, r]ᵀ  in int8
#        └──┴─────┴──┴────────┘
# ```
#
# | | |
# |:--|:--|
# | Outliers | columns o in which some token has abs(x) ≥ threshold (equality counts); r are all others |
# | Float part | float32, from x and w themselves |
# | Int8, x | one scale per token over the columns r only: max abs / 127; codes −127 … 127, round to nearest |
# | Int8, w | one scale per row over **all** n columns: w was quantized when the model was loaded, before any token came |
# | Edge cases | no outlier column: plain W8A8. All columns: the float product. A token or a row of zeros: zeros, no NaN |
# | Tolerance | (n + 6) · 2⁻²⁴ · Σ_j abs(x̂_tj · ŵ_mj) for each output: one rounding per addition and a few for the scales. No test has a code within 0.1 of a half |


# %% nbgrader={"grade": false, "grade_id": "llm_int8", "locked": false, "schema_version": 3, "solution": true, "task": false}
def outlier_columns(x, threshold):
    """Which columns of x, (tokens, n), have a magnitude of the threshold or more in any token: bool (n,)."""
    ### BEGIN SOLUTION
    return (x.abs() >= threshold).any(0)
    ### END SOLUTION


def llm_int8(x, w, threshold=6.0):
    """x wᵀ, the outlier columns in float32 and the others in int8: (tokens, n) and (m, n) to (tokens, m)."""
    ### BEGIN SOLUTION
    outlier = outlier_columns(x, threshold)  # (n,)
    y = x[:, outlier] @ w[:, outlier].T  # (tokens, m)
    if outlier.all():
        return y
    q_x, s_x = int8_rows(x[:, ~outlier])
    q_w, s_w = int8_rows(w)
    return y + s_x * (q_x @ q_w[:, ~outlier].T) * s_w.T
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# One boolean mask over columns, two products, one sum. Which of the four scales must not see the outlier columns?
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Reduce `x.abs() >= threshold` over the tokens. Quantize w first, as a whole, then pick columns of its codes. Quantize x after picking its columns.
# With no column left, `amax` has nothing to reduce: return early.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# mask = (some token is large in this column)
# exact = x[:, mask] times w[:, mask] transposed
# codes_x, scale_x = int8_rows(x without those columns)
# codes_w, scale_w = int8_rows(w)                         # all columns, then without those columns
# result = exact + scale_x * (codes_x times codes_w transposed) * scale_w as a row
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-llm_int8", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import Points, check_close, check_equal

WHY = "(n + 6) · 2⁻²⁴ · Σ|x̂ · ŵ|"
points = Points()


### BEGIN HIDDEN TESTS
def codes(v, scale_of=None):
    """v rounded to int8 and back, in float64; the scale per row from v, or from another tensor."""
    if not v.numel():
        return v.double()
    peak = (v if scale_of is None else scale_of).float().abs().amax(1, keepdim=True)
    scale = torch.where(peak == 0, 1, peak / 127).double()
    return (v.double() / scale).round().clamp(-127, 127) * scale


def multiplied(pair):
    return pair[0] @ pair[1].T


def tie_free(rows, n, generator):
    """Rows up to 1 … 2 in size whose codes are at least 0.1 away from a half."""
    q = torch.randint(-126, 127, (rows, n), generator=generator)
    v = q + 0.8 * torch.rand(rows, n, generator=generator) - 0.4
    v[:, 0] = 127.0
    order = torch.rand(rows, n, generator=generator).argsort(1)
    return v.gather(1, order) * (1 + torch.rand(rows, 1, generator=generator)) / 127


def splitting(x, w, split):
    """(x̂, ŵ) side by side, such that x̂ ŵᵀ is the answer."""
    x_hat = torch.cat([x[:, split].double(), codes(x[:, ~split])], 1)
    return x_hat, torch.cat([w[:, split].double(), codes(w)[:, ~split]], 1)


def mistaken(x, w, threshold):
    split = (x.abs() >= threshold).any(0)
    large = x.abs() >= threshold
    q_x, q_w = codes(x), codes(w)
    rest = x[:, ~split]
    one_scale = codes(rest.reshape(1, -1)).reshape(rest.shape)
    one_w = codes(w.reshape(1, -1)).reshape(w.shape)
    float_part = x[:, split].double() @ w[:, split].double().T
    int8_x, int8_w, own_w = codes(rest), q_w[:, ~split], codes(w[:, ~split])
    half = (x[:, split].half().double() @ w[:, split].half().double().T).half().double()
    named = {
        "nothing is split: the outliers set the tokens' scales": q_x @ q_w.T,
        "the outliers are clipped to the threshold": codes(x.clamp(-threshold, threshold)) @ q_w.T,
        "the outlier columns are dropped": int8_x @ int8_w.T,
        "one outlier sends the whole product to float": x.double() @ w.double().T,
        "each token splits off its own columns only; a column is split for all tokens": (
            (x * large).double() @ w.double().T + codes(x * ~large) @ q_w.T
        ),
        "the scale of a token counts the outlier columns": float_part + codes(rest, scale_of=x) @ int8_w.T,
        "one scale serves all tokens": float_part + one_scale @ int8_w.T,
        "one scale serves all of w": float_part + int8_x @ one_w[:, ~split].T,
        "the scales of w leave out the outlier columns; w was quantized before any token came": (
            float_part + int8_x @ own_w.T
        ),
        "the outlier columns are counted in the int8 part too": float_part + q_x @ q_w.T,
        "the outlier columns read the int8 weight": x[:, split].double() @ q_w[:, split].T + int8_x @ int8_w.T,
        "the outlier columns are multiplied in float16": half + int8_x @ int8_w.T,
        "equality with the threshold does not count": multiplied(splitting(x, w, (x.abs() > threshold).any(0))),
        "the sign is not taken off before comparing": multiplied(splitting(x, w, (x >= threshold).any(0))),
    }
    return {text: value.float() for text, value in named.items()}


### END HIDDEN TESTS
with points.part(1, "outlier_columns"):
    x = torch.tensor([[1.0, -8.0, 0.3, 6.0], [2.0, 0.5, 5.9, 0.0]])
    mistakes = {
        "the sign is not taken off before comparing": torch.tensor([False, False, False, True]),
        "equality does not count": torch.tensor([False, True, False, False]),
    }
    expected = torch.tensor([False, True, False, True])
    check_equal(outlier_columns(x, 6.0), expected, "outlier_columns with threshold 6", mistakes)
    ### BEGIN HIDDEN TESTS
    generator = torch.Generator().manual_seed(1001)
    for tokens, n, threshold in ((1, 7, 1.5), (40, 60, 2.5), (40, 60, 100.0), (5, 3, 0.0)):
        x = torch.randn(tokens, n, generator=generator)
        x[0, 0] = -threshold
        mistakes = {
            "the sign is not taken off before comparing": lambda: (x >= threshold).any(0),
            "equality does not count": lambda: (x.abs() > threshold).any(0),
            "all tokens have to be large": lambda: (x.abs() >= threshold).all(0),
            "the mean over tokens is compared": lambda: x.abs().mean(0) >= threshold,
            "the answer is per token, not per column": lambda: (x.abs() >= threshold).any(1),
        }
        what = f"outlier_columns of {tokens} × {n}, threshold {threshold}"
        check_equal(outlier_columns(x, threshold), (x.abs() >= threshold).any(0), what, mistakes)
    ### END HIDDEN TESTS
with points.part(4, "llm_int8"):
    # column 1 is split off; the scale of the token is 1/64 (from 127/64), that of the row 1/128 (from 127/128)
    x = torch.tensor([[127 / 64, -8.0, 0.3]])  # codes 127, –, 19
    w = torch.tensor([[127 / 128, 0.502, 0.1]])  # codes 127, 64, 13
    rest = (127 * 127 + 19 * 13) / (64 * 128)
    mistakes = {
        "the outlier is clipped to the threshold": torch.tensor([[6 / 127 * (42 * 127 - 127 * 64 + 6 * 13) / 128]]),
        "the outlier columns are dropped": torch.tensor([[rest]]),
        "one outlier sends the whole product to float": x @ w.T,
        "nothing is split: the outliers set the tokens' scales": torch.tensor(
            [[8 / 127 * (32 * 127 - 127 * 64 + 5 * 13) / 128]]
        ),
        "the scale of a token counts the outlier columns": torch.tensor(
            [[8 / 127 * (32 * 127 + 5 * 13) / 128 - 8 * 0.502]]
        ),
        "the outlier columns read the int8 weight": torch.tensor([[rest - 8 * 64 / 128]]),
    }
    atol = 9 * 2**-24 * (4.016 + rest)
    check_close(llm_int8(x, w), torch.tensor([[rest - 8 * 0.502]]), atol, "llm_int8 of one token", WHY, mistakes)
    ### BEGIN HIDDEN TESTS

    generator = torch.Generator().manual_seed(1002)
    base, w = tie_free(24, 96, generator), tie_free(40, 96, generator)
    sizes = 6.5 + 40 * torch.rand(24, 96, generator=generator)
    signs = torch.randn(24, 96, generator=generator).sign()

    def with_outliers(where):
        return torch.where(where, signs * sizes, base)

    columns = torch.zeros(24, 96, dtype=torch.bool)
    columns[:, [5, 40, 41, 95]] = True
    one_token = columns & (torch.arange(24) == 7).unsqueeze(1)
    exact = base.clone()
    exact[3, 10], exact[9, 20] = 6.0, -6.0
    zeros = with_outliers(columns).clone()
    zeros[4, ~columns[0]] = 0
    zero_row = w.clone()
    zero_row[2] = 0
    cases = {
        "outliers in all tokens": (with_outliers(columns), w, 6.0),
        "outliers in one token only": (with_outliers(one_token), w, 6.0),
        "exactly the threshold": (exact, w, 6.0),
        "no outlier": (base, w, 6.0),
        "outliers in all columns": (with_outliers(torch.ones_like(columns)), w, 6.0),
        "a token of zeros, a row of zeros": (zeros, zero_row, 6.0),
        "threshold 20": (torch.where(columns, signs * (sizes + 20), 4 * base), w, 20.0),
        "one token, one output, other strides": (with_outliers(columns).T.contiguous().T[:1], w[:1], 6.0),
    }
    names = list(mistaken(base, w, 6.0))
    for name, (x, weight, threshold) in cases.items():
        split = (x.abs() >= threshold).any(0)
        a, b = splitting(x, weight, split)
        atol = (x.shape[1] + 6) * 2**-24 * (a.abs() @ b.abs().T)
        arguments = (x, weight) if threshold == 6 else (x, weight, threshold)
        mistakes = {text: lambda text=text: mistaken(x, weight, threshold)[text] for text in names}
        check_close(llm_int8(*arguments), (a @ b.T).float(), atol + 1e-30, f"llm_int8, {name}", WHY, mistakes)
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ### Exercise (b): SmoothQuant, folded into the norm
#
# *10 minutes, 6 points*
#
# ```
# smoothing_scales  x_max: (n,), w: (m, n), alpha              →  s: (n,)
# fold_into_norm    gain: (n,), bias: (n,) or None,
#                   weights: list of (m_i, n), s: (n,)         →  gain, bias or None, list of weights
# smooth_sweep      x: (tokens, n), w: (m, n), alphas: list    →  list of errors in percent
#
#             max|x_j| ^ alpha
#   s_j  =  ───────────────────────            quantize  x / s  and  w · s:  the same product
#            max|w_j| ^ (1 − alpha)
# ```
#
# | | |
# |:--|:--|
# | Scales | `x_max`: the largest magnitude of each channel, seen in calibration. max abs(w_j): of **column** j of `w`, which is all matrices that read x, one above the other. 0 ≤ alpha ≤ 1 |
# | Dead channels | s_j = 1 where `x_max[j]` is 0 or column j of `w` is all zeros |
# | Folding | the norm computes gain · unit + bias, where unit is the normalised vector and `bias` is None for an RMSNorm. After folding its output is divided by s, and every matrix of `weights` reads it as before: no operation is added |
# | Sweep | for each alpha: s with `x_max` of `x` itself, then `percent(w8a8(x / s, w * s), x @ w.T)` |
# | Tolerance | scales: 10⁻⁵ relative (float32 powers). Folding: 2⁻²² relative (one division or product). Sweep: 1 % of each error (codes near a half) |


# %% nbgrader={"grade": false, "grade_id": "smooth", "locked": false, "schema_version": 3, "solution": true, "task": false}
def smoothing_scales(x_max, w, alpha):
    """SmoothQuant's scale of each input channel: (n,) and (m, n) to (n,), 1 for dead channels."""
    ### BEGIN SOLUTION
    w_max = w.abs().amax(0)  # (n,)
    alive = (x_max > 0) & (w_max > 0)
    return torch.where(alive, x_max**alpha / w_max ** (1 - alpha), 1.0)
    ### END SOLUTION


def fold_into_norm(gain, bias, weights, s):
    """The norm's parameters and its readers' matrices with x / s between them instead of x: gain, bias, weights."""
    ### BEGIN SOLUTION
    return gain / s, None if bias is None else bias / s, [w * s for w in weights]
    ### END SOLUTION


def smooth_sweep(x, w, alphas):
    """The error of W8A8 after smoothing with each alpha, in percent: a list of numbers."""
    ### BEGIN SOLUTION
    scales = [smoothing_scales(x.abs().amax(0), w, alpha) for alpha in alphas]
    return [percent(w8a8(x / s, w * s), x @ w.T) for s in scales]
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Work out one channel: x is at most 16, w at most 1, alpha = 0.5. After smoothing both sides should have the same largest value.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# `w * s` multiplies columns, since s is along the last dimension. What the norm adds after its gain is divided too. In the sweep smoothing comes
# first, then both sides are quantized; the weights' own error grows with s, and that is the right arm of the U.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# scale = x_max ** alpha / (largest magnitude in each column of w) ** (1 - alpha)
# scale = 1 where one of the two maxima is 0
# folded = gain / scale, bias / scale (if there is one), [matrix * scale for each reader]
# error(alpha) = percent(w8a8(x / scale, w * scale), x @ w.T)
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-smooth", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import Points, check_close, check_equal

points = Points()


### BEGIN HIDDEN TESTS
from quant_kernels.methods.smoothquant import smoothing_scales as reference_scales
from quant_kernels.methods.w8a8 import PER_TENSOR, w8a8_linear


def scales(x_max, w, alpha, reduce=lambda w: w.abs().amax(0), dead=1.0):
    w_max = reduce(w).double()
    alive = (x_max > 0) & (w_max > 0)
    s = x_max.double() ** alpha / w_max ** (1 - alpha)
    return (s if dead is None else torch.where(alive, s, dead)).float()


def error(x, w, s, per=None, outside=False):
    quantized = w8a8_linear(x / s, w * s) if per is None else w8a8_linear(x / s, w * s, per)
    if outside:
        quantized = w8a8_linear(x / s, w)
    y = x @ w.T
    return 100 * ((quantized - y).norm() / y.norm()).item()


### END HIDDEN TESTS
with points.part(2, "smoothing_scales"):
    x_max, w = torch.tensor([16.0, 1.0, 0.0]), torch.tensor([[1.0, -4.0, 3.0], [0.5, 1.0, -1.0]])
    mistakes = {
        "the direction is turned round: 1 / s": torch.tensor([0.25, 2.0, 1.0]),
        "the weights' largest is taken per row": torch.tensor([2.0, 1.0, 1.0]),
        "the largest of w is taken without its sign removed": torch.tensor([4.0, 1.0, 1.0]),
        "dead channels get 0": torch.tensor([4.0, 0.5, 0.0]),
    }
    s = torch.tensor([4.0, 0.5, 1.0])
    check_close(smoothing_scales(x_max, w, 0.5), s, 1e-5 * s, "smoothing_scales, alpha 0.5", "10⁻⁵ relative", mistakes)
    ### BEGIN HIDDEN TESTS

    generator = torch.Generator().manual_seed(1003)
    for m, n, alpha in ((24, 24, 0.5), (7, 40, 0.25), (60, 16, 0.8), (5, 9, 0.0), (5, 9, 1.0)):
        x_max, w = torch.rand(n, generator=generator) * 50, torch.randn(m, n, generator=generator)
        w = w * torch.rand(n, generator=generator)
        x_max[1], w[:, 2] = 0, 0
        s = scales(x_max, w, alpha)
        mistakes = {
            "the direction is turned round: 1 / s": lambda: 1 / s,
            "alpha and 1 − alpha are swapped": lambda: scales(x_max, w, 1 - alpha),
            "the weights' exponent is alpha too": lambda: torch.where(s == 1, 1, (x_max / w.abs().amax(0)) ** alpha),
            "the weights' largest multiplies, and does not divide": lambda: torch.where(
                (x_max > 0) & (w.abs().amax(0) > 0), x_max**alpha * w.abs().amax(0) ** (1 - alpha), 1
            ),
            "dead channels are not looked after: 0, Inf or NaN": lambda: scales(x_max, w, alpha, dead=None),
            "dead channels get 0": lambda: scales(x_max, w, alpha, dead=0.0),
            "the largest of w is taken without its sign removed": lambda: scales(
                x_max, w, alpha, reduce=lambda w: w.amax(0)
            ),
            "the weights' mean magnitude is taken, not the largest": lambda: scales(
                x_max, w, alpha, reduce=lambda w: w.abs().mean(0)
            ),
            "the weights' largest is taken per row": lambda: scales(
                x_max, w, alpha, reduce=lambda w: w.abs().amax(1) if len(w) == len(x_max) else w.abs().amax(0)
            ),
            "one largest serves the whole of w": lambda: scales(
                x_max, w, alpha, reduce=lambda w: torch.where(w.abs().amax(0) > 0, w.abs().max(), 0)
            ),
        }
        what = f"smoothing_scales, w {m} × {n}, alpha {alpha}"
        check_close(smoothing_scales(x_max, w, alpha), s, 1e-5 * s, what, "10⁻⁵ relative", mistakes)
    ### END HIDDEN TESTS
with points.part(2, "fold_into_norm"):
    gain, s = torch.tensor([2.0, 3.0]), torch.tensor([4.0, 0.5])
    weight = torch.tensor([[1.0, 1.0], [2.0, -2.0]])
    new_gain, new_bias, (new_weight,) = fold_into_norm(gain, None, [weight], s)
    assert new_bias is None, "fold_into_norm of an RMSNorm: the bias is not None"
    check_equal(new_gain, torch.tensor([0.5, 6.0]), "fold_into_norm: gain", {"the gain is multiplied by s": gain * s})
    mistakes = {
        "rows of the matrix are scaled, not columns": weight * s[:, None],
        "the matrix is divided by s too": weight / s,
        "the matrix is left as it was": weight,
    }
    check_equal(new_weight, weight * s, "fold_into_norm: weight", mistakes)
    ### BEGIN HIDDEN TESTS
    generator = torch.Generator().manual_seed(1004)
    for n, sizes, with_bias in ((16, (16, 16, 4), False), (12, (20,), True), (24, (24, 8), True)):
        gain, bias = torch.randn(2, n, generator=generator)
        weights = [torch.randn(m, n, generator=generator) for m in sizes]
        s = torch.rand(n, generator=generator) * 8 + 0.1
        got = fold_into_norm(gain, bias if with_bias else None, weights, s)
        mistakes = {"the gain is multiplied by s": gain * s, "the gain is left as it was": gain}
        atol = 2**-22 * (gain / s).abs()
        check_close(got[0], gain / s, atol, f"fold_into_norm, n {n}: gain", "2⁻²² relative", mistakes)
        if with_bias:
            mistakes = {
                "the bias is forgotten: what a LayerNorm adds is not divided by s": bias,
                "the bias is multiplied by s": bias * s,
                "the bias is dropped": torch.zeros(n),
            }
            atol = 2**-22 * (bias / s).abs()
            check_close(got[1], bias / s, atol, f"fold_into_norm, n {n}: bias", "2⁻²² relative", mistakes)
        else:
            assert got[1] is None, "fold_into_norm of an RMSNorm: the bias is not None"
        assert len(got[2]) == len(weights), (
            f"fold_into_norm: {len(got[2])} matrices of {len(weights)} readers came back"
        )
        for i, (mine, weight) in enumerate(zip(got[2], weights, strict=True)):
            mistakes = {
                "a reader is left out: every matrix that reads the norm must be scaled": weight,
                "the matrix is divided by s too": weight / s,
                "rows of the matrix are scaled, not columns": weight * s[: len(weight), None]
                if len(weight) <= n
                else weight,
            }
            atol = 2**-22 * (weight * s).abs()
            what = f"fold_into_norm, n {n}: weight {i + 1} of {len(weights)}"
            check_close(mine, weight * s, atol, what, "2⁻²² relative", mistakes)
    ### END HIDDEN TESTS
with points.part(2, "smooth_sweep"):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 512, generator=generator)
    x[:, torch.randperm(512, generator=generator)[:5]] *= 60
    w = torch.randn(512, 512, generator=generator)
    errors = smooth_sweep(x, w, [0.25, 0.75])
    assert len(errors) == 2, f"smooth_sweep of 2 alphas gives {len(errors)} errors"
    for mine, alpha, right, turned, unscaled, inverse in (
        (errors[0], 0.25, 1.455, 1.391, 36.24, 10.15),
        (errors[1], 0.75, 1.391, 1.455, 96.17, 22.97),
    ):
        mistakes = {
            "the error is a fraction, not percent": right / 100,
            "alpha and 1 − alpha are swapped": turned,
            "w is not multiplied by s": unscaled,
            "x is multiplied and w divided by s": inverse,
            "nothing is smoothed before rounding": 3.814,
        }
        what = f"smooth_sweep, 5 of 512 channels × 60, alpha {alpha}"
        check_close(mine, right, 0.01 * right, what, "1 % of the error", mistakes)
    ### BEGIN HIDDEN TESTS
    small = torch.randn(64, 96, generator=generator) * torch.rand(96, generator=generator).pow(-1.5)
    small[:, ::7] = -small[:, ::7].abs()
    for name, data, weight, alphas in (
        ("5 of 512 channels × 60", x, w, [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("channels of many sizes", small, w[:80, :96], [0.6, 0.3]),
    ):
        got = smooth_sweep(data, weight, alphas)
        for alpha, mine in zip(alphas, got, strict=True):
            s = reference_scales(data.abs().amax(0), weight, alpha)
            expected = error(data, weight, s)
            mistakes = {
                "the error is a fraction, not percent": expected / 100,
                "x is multiplied and w divided by s": lambda: error(data, weight, 1 / s),
                "alpha and 1 − alpha are swapped": lambda: error(
                    data, weight, reference_scales(data.abs().amax(0), weight, 1 - alpha)
                ),
                "w is not multiplied by s": lambda: error(data, weight, s, outside=True),
                "one scale serves all tokens": lambda: error(data, weight, s, per=PER_TENSOR),
                "the largest of x is taken without its sign removed": lambda: error(
                    data, weight, reference_scales(data.amax(0).clamp(min=0), weight, alpha)
                ),
                "nothing is smoothed before rounding": lambda: error(data, weight, torch.ones_like(s)),
                "the square root is missing": expected**2 / 100,
            }
            what = f"smooth_sweep, {name}, alpha {alpha}"
            check_close(mine, expected, 0.01 * expected, what, "1 % of the error", mistakes)
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ### Exercise (c): AWQ's search
#
# *9 minutes, 5 points*
#
# AWQ quantizes weights only. A few weight columns matter most: those that read the largest **activations**. It keeps none of them in float. It multiplies
# column j by s_j before rounding and divides by s_j after, so that the rounding error of that column shrinks by s_j, as long as the group's
# step does not grow. (In float it would err less still, but a column of another type breaks the packed layout.) The s are a power of the activations, and the power is found by trying:
#
# ```
# a_j = mean over tokens of abs(x_tj)        s = a ^ alpha         Ŵ = group_quantized(W · s) / s
# alpha = 0, 1/20, 2/20, … 20/20             error = 100 · norm(x Ŵᵀ − x Wᵀ) / norm(x Wᵀ)
#
# awq_errors  w: (m, n), x: (tokens, n), bits, group  →  list of 21 errors in percent
# awq_scales  w: (m, n), x: (tokens, n), bits, group  →  s: (n,), that of the smallest error
# ```
#
# | | |
# |:--|:--|
# | Quantizer | `group_quantized` of the cell above, or your own with its rules: asymmetric, the range made to hold 0, an integer zero point, groups of neighbours along a row; n is a multiple of `group` |
# | Quiet channels | an a_j below 10⁻⁴ · max(a) counts as 10⁻⁴ · max(a); some channel is not silent |
# | Common factor | s and 7 · s quantize alike, so return s in any size: the tests divide it by its geometric mean |
# | Equal errors | the smaller alpha wins. alpha = 0 is plain rounding (RTN) |
# | Tolerance | errors: 1 % of each (codes near a half). s: 10⁻⁴ relative, and every alpha whose error is within 0.5 % of the smallest is accepted |


# %% nbgrader={"grade": false, "grade_id": "awq", "locked": false, "schema_version": 3, "solution": true, "task": false}
def awq_errors(w, x, bits, group):
    """The output's error in percent with AWQ's scales, for alpha = 0, 1/20, … 1: a list of 21 numbers."""
    ### BEGIN SOLUTION
    y = x @ w.T
    errors = []
    for i in range(21):
        s = magnitudes(x) ** (i / 20)
        errors.append(percent(x @ (group_quantized(w * s, bits, group) / s).T, y))
    return errors
    ### END SOLUTION


def awq_scales(w, x, bits, group):
    """The scales, (n,), with which quantizing w changes the output of x least."""
    ### BEGIN SOLUTION
    errors = awq_errors(w, x, bits, group)
    return magnitudes(x) ** (errors.index(min(errors)) / 20)


def magnitudes(x):
    """The mean magnitude of each channel, relative to the largest and at least 1e-4: (n,)."""
    mean = x.abs().mean(0)
    return (mean / mean.max()).clamp(min=1e-4)
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# The whole method is a loop over 21 numbers around one line. Which error decides: that of the weights or that of the output?
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Mean magnitudes of x come first, raised to a floor. For each alpha: scale the columns, quantize, undo the scales, multiply with x,
# compare with x wᵀ. Since a power of a common factor is a common factor, you may divide the magnitudes by their largest.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# size = mean of abs(x) over tokens, not below 1e-4 of its largest
# for step in range(21):
#     scale = size ** (step / 20)
#     rounded = group_quantized(w * scale, bits, group) / scale
#     error = percent(x times rounded transposed, x times w transposed)
# # the scales: those of the step whose error is smallest
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-awq", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import Points, check_close

points = Points()


def salient(tokens, m, n, seed, size=20):
    """Inputs with 1 % of large channels, a weight, and the channels."""
    generator = torch.Generator().manual_seed(seed)
    x, w = torch.randn(tokens, n, generator=generator), torch.randn(m, n, generator=generator)
    channels = torch.randperm(n, generator=generator)[: -(-n // 100)]
    x[:, channels] *= size
    return w, x, channels


### BEGIN HIDDEN TESTS
from quant_kernels.methods.affine import fake_quantize


def powers(x, alpha, reduce=lambda x: x.abs().mean(0)):
    size = reduce(x)
    return torch.maximum(size, 1e-4 * size.max()) ** alpha


def error_with(w, x, bits, group, s, undo=True):
    rounded = fake_quantize(w * s, bits, per=group)
    y = x @ w.T
    return 100 * ((x @ (rounded / s if undo else rounded).T - y).norm() / y.norm()).item()


def all_errors(w, x, bits, group):
    return [error_with(w, x, bits, group, powers(x, i / 20)) for i in range(21)]


def in_float(w, x, bits, group, channels):
    """What mixed precision would give: the salient columns are not quantized at all."""
    rounded = fake_quantize(w, bits, per=group)
    rounded[:, channels] = w[:, channels]
    y = x @ w.T
    return 100 * ((x @ rounded.T - y).norm() / y.norm()).item()


def without_zero(w, bits, group):
    """Groups whose range runs from their smallest weight to their largest, 0 or not."""
    b = w.unflatten(1, (-1, group))
    low = b.amin(-1, keepdim=True)
    d = (b.amax(-1, keepdim=True) - low) / (2**bits - 1)
    z = (-low / d).round()
    return ((((b / d).round() + z).clamp(0, 2**bits - 1) - z) * d).flatten(1)


def check_errors(w, x, bits, group, channels, name):
    for i, mine in enumerate(awq_errors(w, x, bits, group)):
        s = powers(x, i / 20)
        expected = error_with(w, x, bits, group, s)
        rounded = fake_quantize(w * s, bits, per=group) / s
        mistakes = {
            "salient columns are kept in float; AWQ scales them": lambda: in_float(w, x, bits, group, channels),
            "the scales are undone on the wrong side: w is divided and then multiplied": lambda: error_with(
                w, x, bits, group, 1 / s
            ),
            "the scales come from the weights, not from the activations": lambda: error_with(
                w, x, bits, group, powers(w, i / 20)
            ),
            "the scales come from the largest activation, not from the mean magnitude": lambda: error_with(
                w, x, bits, group, powers(x, i / 20, lambda x: x.abs().amax(0))
            ),
            "the scales come from the root mean square, not from the mean magnitude": lambda: error_with(
                w, x, bits, group, powers(x, i / 20, lambda x: x.square().mean(0).sqrt())
            ),
            "the scales are not undone after rounding": lambda: error_with(w, x, bits, group, s, undo=False),
            "it is the error of the weights, not of the output": 100 * ((rounded - w).norm() / w.norm()).item(),
            "nothing is scaled": lambda: error_with(w, x, bits, group, torch.ones_like(s)),
            "alpha runs from 1 to 0": lambda: error_with(w, x, bits, group, powers(x, 1 - i / 20)),
            "a group's range is not made to hold 0": lambda: (
                100 * ((x @ (without_zero(w * s, bits, group) / s - w).T).norm() / (x @ w.T).norm()).item()
            ),
            "one group spans the row": lambda: error_with(w, x, bits, w.shape[1], s),
            "the error is squared": expected**2 / 100,
        }
        assert mine == mine, "awq_errors gives NaN: a silent channel's scale must not be 0"
        what = f"awq_errors, {name}, {bits} bits in groups of {group}, alpha {i / 20:g}"
        check_close(mine, expected, 0.01 * expected, what, "1 % of the error", mistakes)


def relative(s):
    return s / s.log().mean().exp()


### END HIDDEN TESTS
with points.part(3, "awq_errors"):
    w, x, channels = salient(64, 32, 128, 0)
    errors = awq_errors(w, x, 3, 64)
    assert len(errors) == 21, f"awq_errors gives {len(errors)} errors, expected 21"
    mistakes = {"the error is a fraction, not percent": 0.191, "alpha runs from 1 to 0": 25.4}
    check_close(errors[0], 19.1, 0.19, "awq_errors: alpha = 0, plain rounding", "1 % of the error", mistakes)
    mistakes = {
        "salient columns are kept in float; AWQ scales them": 6.442,
        "the scales are undone on the wrong side: w is divided and then multiplied": 72.8,
        "the scales come from the weights, not from the activations": 18.63,
        "the scales come from the largest activation, not from the mean magnitude": 10.753,
        "the scales are not undone after rounding": 27.92,
        "it is the error of the weights, not of the output": 28.42,
        "nothing is scaled": 19.1,
    }
    check_close(errors[10], 10.63, 0.106, "awq_errors: alpha = 0.5", "1 % of the error", mistakes)
    ### BEGIN HIDDEN TESTS

    for bits, group, seed in ((4, 32, 1), (2, 64, 2)):
        w, x, channels = salient(48, 24, 192, seed, 30)
        check_errors(w, x, bits, group, channels, "1 % salient channels")
    w, x, channels = salient(48, 24, 128, 3)
    x[:, 5:8], x[0, 8] = 0, 1e-9
    x[1:, 8] = 0
    check_errors(w, x, 3, 128, channels, "with silent channels")
    w, x, channels = salient(48, 24, 128, 7)
    check_errors(w + 4, x, 3, 64, channels, "weights above 0")
    ### END HIDDEN TESTS
with points.part(2, "awq_scales"):
    w, x, channels = salient(64, 32, 128, 0)
    s = awq_scales(w, x, 3, 64)
    assert tuple(s.shape) == (128,), f"awq_scales: shape {tuple(s.shape)}, expected (128,)"
    mistakes = {
        "the direction is turned round: salient channels are scaled down": 1 / 2.141,
        "the error of the weights decides, not that of the output": 1.0,
        "alpha is always 0.5, and nothing is searched": 4.584,
        "alpha is always 1": 21.02,
    }
    ratio = (s[channels].mean() / s.median()).item()
    check_close(ratio, 2.141, 0.003, "awq_scales: the salient channels over the median", "float32 powers", mistakes)
    ### BEGIN HIDDEN TESTS

    for bits, group, seed, m, tokens in (
        (3, 64, 0, 32, 64),
        (4, 32, 4, 24, 48),
        (2, 128, 5, 40, 30),
        (3, 64, 6, 32, 64),
    ):
        w, x, channels = salient(tokens, m, 128, seed, 25)
        if seed == 6:  # inputs of all sizes, and weights that are tiny where they are large: alpha = 1 is the best
            x *= torch.exp(1.5 * torch.randn(128, generator=torch.Generator().manual_seed(seed)))
            w = w / powers(x, 1.5)
        else:
            x[:, 9] = 0
        errors = all_errors(w, x, bits, group)
        best = min(range(21), key=errors.__getitem__)
        accepted = [i for i in range(21) if errors[i] <= 1.005 * errors[best]]
        weight_errors = [
            (fake_quantize(w * powers(x, i / 20), bits, per=group) / powers(x, i / 20) - w).norm().item()
            for i in range(21)
        ]
        s = awq_scales(w, x, bits, group)
        what = f"awq_scales, {bits} bits in groups of {group}"
        assert s.shape == (128,) and (s > 0).all() and s.isfinite().all(), (
            f"{what}: not 128 positive finite numbers; a silent channel has scale {s.flatten()[9].item():.3g}"
        )
        expected = [relative(powers(x, i / 20)) for i in accepted]
        if not any(((relative(s) / right).log().abs() < 1e-4).all() for right in expected):
            right = relative(powers(x, best / 20))
            by_weights = min(range(21), key=weight_errors.__getitem__)
            mistakes = {
                "the direction is turned round: salient channels are scaled down": relative(1 / powers(x, best / 20)),
                "the error of the weights decides, not that of the output": relative(powers(x, by_weights / 20)),
                "alpha is always 1": relative(powers(x, 1.0)),
                "alpha is always 0.5, and nothing is searched": relative(powers(x, 0.5)),
                "the largest error wins": relative(powers(x, max(range(21), key=errors.__getitem__) / 20)),
                "the scales come from the largest activation": relative(
                    powers(x, best / 20, lambda x: x.abs().amax(0))
                ),
                "the scales come from the weights, not from the activations": relative(powers(w, best / 20)),
            }
            check_close(relative(s.float()), right, 1e-4 * right, what, "10⁻⁴ relative", mistakes)
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ### Exercise (d): Hadamard rotation, and where it folds
#
# *12 minutes, 6 points*
#
# ```
# hadamard    x: (..., n)                                      →  x Hₙ / √n: (..., n), the dtype of x
# rotate_mlp  gain: (n,), w_gate, w_up: (f, n), w_down: (n, f),
#             online: bool                                     →  gain, w_gate, w_up, w_down
#
#        ┌ 1  1  1  1 ┐                       ┌  Hₙ   Hₙ ┐
# H₄  =  │ 1 −1  1 −1 │     H₁ = 1     H₂ₙ =  │          │     entry (i, j) is −1 where i and j have
#        │ 1  1 −1 −1 │                       └  Hₙ  −Hₙ ┘     an odd number of 1 bits in common
#        └ 1 −1 −1  1 ┘
# ```
#
# A row of ±1/√n spreads one large channel over all of them. H is symmetric, and H H = n · 1: only with the factor 1/√n it is a rotation, and its
# own inverse. `rotate_mlp` rotates the residual stream of a feed-forward block. The block, which you do not write, computes
#
# ```
# u = gain · x / sqrt(mean(x²) + 1e-5)                      gain · normalised vector: RMSNorm
# h = silu(u w_gateᵀ) · (u w_upᵀ)
# if online: h = hadamard(h)                                the transform runs here, before w_down
# y = x + h w_downᵀ
# ```
#
# and you return parameters of the same shapes with which **the block maps hadamard(x) to hadamard(y)**, for every x; with `online=True` for a
# block that runs the transform, though the original one did not.
#
# | | |
# |:--|:--|
# | Sizes | n and f are powers of two, 1 included. For any other last dimension, 0 included, `hadamard` raises ValueError |
# | Order of rows | Sylvester's, as drawn (no sorting by sign changes) |
# | Any way | a loop of sums and differences, or a product with the matrix |
# | Rotated parameters | any that give the function; there is more than one right answer |
# | Tolerance | `hadamard`: (n + 4) · 2⁻²⁴ · Σ abs(x_j) / √n (2⁻⁵³ for float64), which holds for every order of summation. `rotate_mlp`: 10⁻⁴ · max abs(y), the float32 rounding of the rotated weights, tested in float64 |


# %% nbgrader={"grade": false, "grade_id": "hadamard", "locked": false, "schema_version": 3, "solution": true, "task": false}
def hadamard(x):
    """x H / sqrt(n) along the last dimension with Sylvester's matrix H. ValueError unless n is a power of two."""
    ### BEGIN SOLUTION
    n = x.shape[-1]
    if n < 1 or n & (n - 1):
        raise ValueError(f"last dimension {n} is not a power of two")
    y, step = x, 1
    while step < n:
        even, odd = y.reshape(*x.shape[:-1], n // (2 * step), 2, step).unbind(-2)  # (..., n / 2 step, step)
        y = torch.stack([even + odd, even - odd], -2).reshape(x.shape)
        step *= 2
    return y / n**0.5
    ### END SOLUTION


def rotate_mlp(gain, w_gate, w_up, w_down, online):
    """Parameters with which the block maps hadamard(x) to hadamard(y): gain, w_gate, w_up, w_down."""
    ### BEGIN SOLUTION
    w_down = hadamard(w_down.T).T  # what is written into the stream is rotated
    if online:
        w_down = hadamard(w_down)  # undoes the transform of h
    return torch.ones_like(gain), hadamard(w_gate * gain), hadamard(w_up * gain), w_down
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# mean(x²) does not change under a rotation, so a norm **without gains** commutes with it. Where can the gains go first?
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# n sums and differences, log₂ n times: pairs at distance 1, 2, 4, … For the block: a matrix that reads u must read hadamard(u) instead, so W becomes W H / √n; one that writes
# y must write hadamard(y), so its **output** side is transformed. silu knows no rotation: nothing of h can be folded into w_gate or w_up.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# for distance in 1, 2, 4, ... below n:
#     first, second = the pairs at that distance
#     first, second = first + second, first - second
# # divide by sqrt(n) at the end
#
# reader = hadamard(matrix * gain)                 # along its input columns; the new gain is all ones
# writer = hadamard along the output rows          # transpose, transform, transpose back
# online: the writer's input columns are transformed as well
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-hadamard", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
import torch
import torch.nn.functional as F

from course.checks import Points, check_close, check_raises

points = Points()


### BEGIN HIDDEN TESTS
def matrix(n):
    common = torch.tensor([[(i & j).bit_count() for j in range(n)] for i in range(n)])
    return (1 - 2 * (common % 2)).double()


def sign_changes(h):
    return (h[:, 1:] != h[:, :-1]).sum(1)


def without_last_step(x):
    """Two transforms of half the size."""
    h = matrix(x.shape[-1] // 2) if x.shape[-1] > 1 else matrix(1)
    return (x.unflatten(-1, (-1, len(h))) @ h / len(h) ** 0.5).flatten(-2)


### END HIDDEN TESTS
with points.part(3, "hadamard"):
    x = torch.tensor([[2.0, 0, 0, 0], [1, 2, 3, 4]])
    mistakes = {
        "it is not normalised: H Hᵀ is n · 1": torch.tensor([[2.0, 2, 2, 2], [10, -2, -4, 0]]),
        "it is divided by n, not by √n": torch.tensor([[0.5, 0.5, 0.5, 0.5], [2.5, -0.5, -1, 0]]),
        "rows are sorted by their sign changes": torch.tensor([[1.0, 1, 1, 1], [5, -2, 0, -1]]),
    }
    right = torch.tensor([[1.0, 1, 1, 1], [5, -1, -2, 0]])
    check_close(hadamard(x), right, 1e-6, "hadamard of (2, 0, 0, 0) and (1, 2, 3, 4)", "float32 rounding", mistakes)
    for n in (3, 12, 576):
        check_raises(ValueError, f"hadamard with last dimension {n}", hadamard, torch.ones(2, n))
    ### BEGIN HIDDEN TESTS

    generator = torch.Generator().manual_seed(1005)
    check_raises(ValueError, "hadamard with last dimension 0", hadamard, torch.ones(2, 0))
    for n in (6, 96):
        check_raises(ValueError, f"hadamard with last dimension {n}", hadamard, torch.ones(2, n))
    for shape, dtype in (
        ((5, 1), torch.float32),
        ((2, 3, 2), torch.float32),
        ((3, 8), torch.float64),
        ((4, 2, 128), torch.float32),
        ((256,), torch.float32),
    ):
        n = shape[-1]
        x = torch.randn(shape, generator=generator, dtype=dtype)
        h, wide = matrix(n), x.double()
        mistakes = {
            "it is not normalised: H Hᵀ is n · 1": lambda: (wide @ h).to(dtype),
            "it is divided by n, not by √n": lambda: (wide @ h / n).to(dtype),
            "rows are sorted by their sign changes": lambda: (wide @ h[sign_changes(h).argsort()].T / n**0.5).to(dtype),
            "the last step is left out: two halves are never mixed": lambda: without_last_step(wide).to(dtype),
            "the result is reversed": lambda: (wide @ h / n**0.5).flip(-1).to(dtype),
            "it is applied twice, which changes nothing": x,
        }
        atol = (n + 4) * (2**-24 if dtype == torch.float32 else 2**-53) * wide.abs().sum(-1, keepdim=True) / n**0.5
        what = f"hadamard of {shape}, {dtype}"
        check_close(
            hadamard(x), (wide @ h / n**0.5).to(dtype), atol.expand(shape), what, "(n + 4) · 2⁻²⁴ · Σ|x| / √n", mistakes
        )
    ### END HIDDEN TESTS


def block(x, gain, w_gate, w_up, w_down, transform=None):
    """The feed-forward block of the exercise, in float64; transform: H / √f, where it runs online."""
    gain, w_gate, w_up, w_down = (part.double() for part in (gain, w_gate, w_up, w_down))
    u = gain * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    h = F.silu(u @ w_gate.T) * (u @ w_up.T)
    return x + (h if transform is None else h @ transform) @ w_down.T


def check_small(online):
    """n = f = 4: the block, fed with rotated vectors."""
    h = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).double() / 2
    gain, w_gate = (
        torch.tensor([1.0, 2, 3, 4]),
        torch.tensor([[1.0, 2, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 2, 1]]),
    )
    w_up, w_down = w_gate.flip(0), w_gate + 1
    x = torch.tensor([[1.0, 2, -1, 0.5], [0, 1, 0, -2]]).double()
    new = rotate_mlp(gain, w_gate, w_up, w_down, online)
    shapes = [tuple(part.shape) for part in new]
    assert shapes == [(4,), (4, 4), (4, 4), (4, 4)], f"rotate_mlp: the parameters have the shapes {shapes}"
    expected = block(x, gain, w_gate, w_up, w_down) @ h
    atol = 1e-4 * expected.abs().max().item()
    what = f"the block with rotate_mlp's parameters, n 4, f 4, online {online}"
    got = block(x @ h, *new, h if online else None)
    mistakes = {
        "the gains stay in the norm; only a norm without gains commutes with a rotation": -119.412161,
        "the gains are lost: they have to go into w_gate and w_up": -7.97985445,
        "the gains are rotated like a vector of the stream": 238.305179,
        "w_gate is rotated and w_up is not": 215.624099,
        "w_down writes an output that is not rotated": -31.6223333,
        "w_down is rotated on its input side": -76.8082235,
        "the online transform is not undone in w_down": -142.70584,
    }
    check_close(
        got[0, 0].item(), expected[0, 0].item(), atol, what + ", first value", "10⁻⁴ of the largest output", mistakes
    )
    check_close(got, expected, atol, what, "10⁻⁴ of the largest output")


### BEGIN HIDDEN TESTS
def spread(x):
    """hadamard, by the definition of H as a Kronecker product."""
    h = torch.ones(1, 1, dtype=x.dtype)
    while len(h) < x.shape[-1]:
        h = torch.kron(torch.tensor([[1, 1], [1, -1]], dtype=x.dtype), h)
    return x @ h / len(h) ** 0.5


def check_block(n, f, online, seed):
    generator = torch.Generator().manual_seed(seed)
    gain = torch.rand(n, generator=generator) * 2 + 0.2
    gain[0] = 30
    w_gate, w_up = torch.randn(2, f, n, generator=generator) / n**0.5
    w_down = torch.randn(n, f, generator=generator) / f**0.5
    x = torch.randn(9, n, generator=generator).double()
    expected = spread(block(x, gain, w_gate, w_up, w_down))
    new = rotate_mlp(gain, w_gate, w_up, w_down, online)
    transform = spread(torch.eye(f).double()) if online else None
    got = block(spread(x), *new, transform)
    ones, readers, gained = torch.ones(n), (spread(w_gate), spread(w_up)), (spread(w_gate * gain), spread(w_up * gain))
    written = spread(w_down.T).T
    down = spread(written) if online else written
    kept = spread(w_down) if online else w_down

    def instead(*parameters):
        return lambda: block(spread(x), *parameters, transform)

    mistakes = {
        "nothing is rotated": instead(gain, w_gate, w_up, w_down),
        "the gains stay in the norm; only a norm without gains commutes with a rotation": instead(gain, *readers, down),
        "the gains are lost: they have to go into w_gate and w_up": instead(ones, *readers, down),
        "the gains are used twice: in the norm and in the matrices": instead(gain, *gained, down),
        "the gains are rotated like a vector of the stream": instead(spread(gain), *readers, down),
        "w_down writes an output that is not rotated": instead(ones, *gained, kept),
        "w_down is rotated on its input side": instead(ones, *gained, spread(w_down)),
        "the online transform is not undone in w_down": instead(ones, *gained, written),
        "the online transform is undone where none runs": instead(ones, *gained, spread(written)),
        "w_gate is rotated and w_up is not": instead(ones, gained[0], w_up * gain, down),
        "H is not normalised": instead(
            ones, *(part * n**0.5 for part in gained), down * n**0.5 * (f**0.5 if online else 1)
        ),
    }
    what = f"the block with rotate_mlp's parameters, n {n}, f {f}, online {online}"
    atol = 1e-4 * expected.abs().max().item()
    check_close(got, expected, atol, what, "10⁻⁴ of the largest output", mistakes)


### END HIDDEN TESTS
with points.part(2, "rotate_mlp"):
    check_small(online=False)
    ### BEGIN HIDDEN TESTS
    for n, f, seed in ((16, 32, 1020), (32, 32, 1006), (64, 16, 1007), (64, 128, 1008)):
        check_block(n, f, online=False, seed=seed)
    ### END HIDDEN TESTS
with points.part(1, "rotate_mlp, online"):
    check_small(online=True)
    ### BEGIN HIDDEN TESTS
    for n, f, seed in ((16, 32, 1021), (32, 32, 1009), (64, 16, 1010), (64, 128, 1011)):
        check_block(n, f, online=True, seed=seed)
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ### Exercise (e): KIVI's axes for the KV cache
#
# *8 minutes, 4 points*
#
# Keys have channels that are large for all tokens; values have none. So keys get a scale per **channel**, over runs of tokens, and values one per
# **token**, over runs of channels. The newest tokens stay in float. You return what the query of the newest token finds in the cache:
#
# ```
# kivi_cache  k, v: (..., T, D), bits, group, window  →  k̂, v̂: (..., T, D)     old = max(T − window, 0)
#
#          keys: T = 6, D = 4, group = 2, window = 1     values, the same
#         ┌───┬───┬───┬───┐                              ┌───────┬───────┐
# token 0 │ ▒ │ ░ │ ▒ │ ░ │  2 tokens make a group:      │ ▒   ▒ │ ░   ░ │  each token by itself:
#       1 │ ▒ │ ░ │ ▒ │ ░ │  D ranges, one per channel   │ ░   ░ │ ▒   ▒ │  D / group ranges, one
#       2 │ ░ │ ▒ │ ░ │ ▒ │  the next group              │ ▒   ▒ │ ░   ░ │  per run of channels
#       3 │ ░ │ ▒ │ ░ │ ▒ │                              │ ░   ░ │ ▒   ▒ │
#       4 │     float     │  old, but no full group      │ ▒   ▒ │ ░   ░ │
#       5 │     float     │  the window                  │     float     │  the window
#         └───────────────┘                              └───────────────┘
# ```
#
# | | |
# |:--|:--|
# | Keys | groups of `group` tokens, counted from token 0. A group is quantized once **all** its tokens are among the first `old`; each channel has its own range in each group |
# | Values | each of the first `old` tokens, in groups of `group` neighbouring channels; D is a multiple of `group` |
# | Quantizer | `scale = (hi − lo) / (2^bits − 1)` from the group's own `lo` and `hi` (zero need not lie inside), `q = round((x − lo) / scale)`, decoded `q · scale + lo`; a constant group decodes to itself |
# | Float tokens | come back unchanged |
# | Tolerance | 2⁻²⁰ · max abs of the tensor: a few float32 roundings of `lo` and of the product. No test has a code within 0.1 of a half |


# %% nbgrader={"grade": false, "grade_id": "kivi", "locked": false, "schema_version": 3, "solution": true, "task": false}
def kivi_cache(k, v, bits, group, window):
    """Keys and values, (..., T, D), as the newest token's query finds them in a KIVI cache."""
    ### BEGIN SOLUTION
    old = max(k.shape[-2] - window, 0)
    whole = old // group * group

    def rounded(x):
        """The last dimension in groups, quantized and dequantized."""
        blocks = x.unflatten(-1, (x.shape[-1] // group, group))  # (..., groups, group)
        low, high = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
        scale = (high - low) / (2**bits - 1)
        q = torch.where(scale == 0, 0, (blocks - low) / scale).round()
        return (q * scale + low).flatten(-2)

    k_old = rounded(k[..., :whole, :].transpose(-1, -2)).transpose(-1, -2)
    v_old = rounded(v[..., :old, :])
    return torch.cat([k_old, k[..., whole:, :]], -2), torch.cat([v_old, v[..., old:, :]], -2)
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# One function that quantizes groups of the last dimension serves both. Transpose the keys before and after.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Two cuts: `old = max(T − window, 0)` for values, and its largest multiple of `group` for keys. What is behind the cut is copied. A constant group has
# scale 0: choose the code 0 there by `torch.where`. Mind the case that nothing is old.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# def rounded(rows):                       # (..., anything, length), length a multiple of group
#     blocks = rows as (..., length / group, group)
#     step = (largest - smallest) / (2 ** bits - 1)
#     return ((blocks - smallest) / step, or 0 where step is 0).round() * step + smallest
#
# keys: transposed first `whole` tokens, rounded, transposed back; then the rest
# values: first `old` tokens, rounded; then the rest
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-kivi", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import Points, check_close

WHY = "2⁻²⁰ of the largest magnitude"
points = Points()
# 4 tokens, 4 channels; 2 bits. The channels' ranges are 0 … 7, 7 … 40, 5 … 5 and −1 … 2
k = torch.tensor([[0.0, 10, 5, -1], [3.2, 40, 5, 0], [0.9, 19, 5, 1], [7, 7, 5, 2]])


### BEGIN HIDDEN TESTS
def in_groups(x, bits, group, zero=False, symmetric=False, steps=None, cut=torch.round):
    """The last dimension in groups, quantized and dequantized in float64; a shorter last group is one too."""
    parts = []
    for part in x.double().split(group, -1):
        low, high = part.amin(-1, keepdim=True), part.amax(-1, keepdim=True)
        if zero:
            low, high = low.clamp(max=0), high.clamp(min=0)
        if symmetric:
            high = torch.maximum(high, -low)
            low = torch.zeros_like(low)
        levels = 2 ** (bits - 1) - 1 if symmetric else steps or 2**bits - 1
        scale = (high - low) / levels
        q = cut(torch.where(scale == 0, 0, (part - low) / scale))
        parts.append(q * scale + low)
    return torch.cat(parts, -1)


def along(axis, x, bits, group, **rules):
    if axis == "token":
        return in_groups(x, bits, group, **rules)
    return in_groups(x.transpose(-1, -2), bits, group, **rules).transpose(-1, -2)


def cached(x, axis, bits, group, window, whole=None, newest_last=True, **rules):
    """x in a cache of that axis; whole: how many tokens are quantized, given how many are old."""
    tokens = x.shape[-2]
    old = max(tokens - window, 0)
    count = (old // group * group if axis == "channel" else old) if whole is None else whole(old)
    count = max(0, min(count, tokens))
    if not count:
        return x
    start = 0 if newest_last else tokens - count
    part = along(axis, x[..., start : start + count, :], bits, group, **rules).float()
    return torch.cat([x[..., :start, :], part, x[..., start + count :, :]], -2)


def on_grid(shape, bits, axis, group, generator):
    """(..., T, D) whose codes are at least 0.1 away from a half; T (channel) or D (token) a multiple of group."""
    *batch, tokens, channels = shape
    rows, length = (channels, tokens) if axis == "channel" else (tokens, channels)
    groups = (*batch, rows, length // group)
    top = 2**bits - 1
    q = torch.randint(0, top + 1, (*groups, group), generator=generator)
    offset = 0.8 * torch.rand(q.shape, generator=generator) - 0.4
    offset = torch.where(q == 0, offset.abs(), torch.where(q == top, -offset.abs(), offset))
    value = q + offset
    value[..., 0], value[..., 1] = 0, top
    order = torch.rand(value.shape, generator=generator).argsort(-1)
    value = value.gather(-1, order)
    low = 2 * torch.randn((*batch, rows, 1, 1), generator=generator)  # stays along the row: a channel's own level
    step = 0.1 + torch.rand((*batch, rows, 1, 1), generator=generator)
    x = (value * step + low + 0.2 * torch.rand((*groups, 1), generator=generator)).flatten(-2)
    return x.transpose(-1, -2).contiguous() if axis == "channel" else x


def check_cache(part, axis, generator):
    other = "token" if axis == "channel" else "channel"
    for batch, tokens, channels, bits, group, window in (
        ((), 32, 32, 2, 8, 0),
        ((2, 3), 23, 16, 2, 8, 5),
        ((2,), 40, 24, 4, 4, 7),
        ((), 12, 16, 2, 8, 20),
        ((2,), 9, 32, 3, 16, 1),
        ((), 16, 16, 2, 8, 8),
    ):
        filled = -(-tokens // group) * group
        x = on_grid((*batch, filled, channels), bits, axis, group, generator)[..., :tokens, :]
        if axis == "channel":
            x[..., 3] = 0.7  # a constant channel
        else:
            x[..., 0, :] = -0.3  # a constant token
        other_tensor = torch.randn(x.shape, generator=generator)
        arguments = (x, other_tensor) if axis == "channel" else (other_tensor, x)
        got = kivi_cache(*arguments, bits, group, window)[0 if axis == "channel" else 1]

        def wrong(along=axis, x=x, bits=bits, group=group, window=window, **rules):
            return lambda: cached(x, along, bits, group, window, **rules)

        def counting(extra, group=group):
            """How many tokens are quantized if that many more are taken for old."""
            return lambda old: (old + extra) // group * group if axis == "channel" else old + extra

        swapped = "keys are quantized per token" if axis == "channel" else "values are quantized per channel"
        mistakes = {
            f"{swapped}; the axes are swapped": wrong(other),
            "the window is ignored, and the newest tokens are quantized": wrong(window=0),
            "the oldest tokens stay in float, not the newest": wrong(newest_last=False),
            "the window is one token too small": wrong(whole=counting(1)),
            "the window is one token too large": wrong(whole=counting(-1)),
            "a group that is not full yet is quantized too": wrong(whole=lambda old: old),
            "values wait for a full group of tokens, as keys do": wrong(whole=lambda old, g=group: old // g * g),
            "the range is made to contain zero": wrong(zero=True),
            "codes are symmetric around zero": wrong(symmetric=True),
            "the scale has one step too many: 2^bits levels have 2^bits − 1 steps": wrong(steps=2**bits),
            "codes are cut off, not rounded": wrong(cut=torch.trunc),
            "one range serves a whole channel or token, not one for each group": wrong(group=10**6, whole=counting(0)),
            "nothing is quantized": x,
        }
        what = f"kivi_cache: {part}, T {tokens}, D {channels}, {bits} bits, group {group}, window {window}"
        expected = cached(x, axis, bits, group, window)
        check_close(got, expected, 2**-20 * x.abs().max().item(), what, WHY, mistakes)


### END HIDDEN TESTS
with points.part(2, "keys"):
    got, _ = kivi_cache(k, k, 2, 4, 0)  # steps of 7/3, 11, 0 and 1
    expected = torch.tensor([[0, 7, 5, -1], [7 / 3, 40, 5, 0], [0, 18, 5, 1], [7, 7, 5, 2]])
    mistakes = {
        "keys are quantized per token; their large channels need a range each": torch.tensor(
            [
                [-1, 10, 19 / 3, -1],
                [0, 40, 0, 0],
                [0.9, 19, 0.9 + 18.1 / 3, 0.9],
                [7, 7, 16 / 3, 2],
            ]
        ),
        "the range is made to contain zero": torch.tensor(
            [[0, 40 / 3, 5, -1], [7 / 3, 40, 5, 0], [0, 40 / 3, 5, 1], [7, 40 / 3, 5, 2]]
        ),
        "the scale has one step too many: 2^bits levels have 2^bits − 1 steps": torch.tensor(
            [[0, 7, 5, -1], [3.5, 40, 5, -0.25], [1.75, 15.25, 5, 1.25], [7, 7, 5, 2]]
        ),
    }
    check_close(got, expected, 4e-5, "kivi_cache: keys, one group of 4 tokens", WHY, mistakes)
    ### BEGIN HIDDEN TESTS

    check_cache("keys", "channel", torch.Generator().manual_seed(1012))
    ### END HIDDEN TESTS
with points.part(2, "values"):
    # 4 tokens, window 2: the ranges of the old ones are 1 … 4 and 0 … 60
    v = torch.tensor([[1.0, 2, 3.2, 4], [0, 7, 40, 60], [5, 6, 7, 9], [0, 1.5, 4, 6]])
    _, got = kivi_cache(v, v, 2, 4, 2)
    first, second, third, fourth = [1.0, 2, 3, 4], [0, 0, 40, 60], [5, 19 / 3, 23 / 3, 9], [0, 2, 4, 6]
    mistakes = {
        "the window is ignored, and the newest tokens are quantized": [first, second, third, fourth],
        "the window is one token too small": [first, second, third, v[3].tolist()],
        "the window is one token too large": [first, *v[1:].tolist()],
        "the oldest tokens stay in float, not the newest": [*v[:2].tolist(), third, fourth],
        "values wait for a full group of tokens, as keys do": v.tolist(),
        "the range is made to contain zero": [[4 / 3, 8 / 3, 8 / 3, 4], second, *v[2:].tolist()],
        "the scale has one step too many: 2^bits levels have 2^bits − 1 steps": [
            [1, 1.75, 3.25, 4],
            [0, 0, 45, 60],
            *v[2:].tolist(),
        ],
    }
    mistakes = {text: torch.tensor(values) for text, values in mistakes.items()}
    expected = torch.tensor([first, second, *v[2:].tolist()])
    check_close(got, expected, 6e-5, "kivi_cache: values, one group of 4 channels, window 2", WHY, mistakes)
    ### BEGIN HIDDEN TESTS
    check_cache("values", "token", torch.Generator().manual_seed(1013))
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ### Exercise (f): audit two claims about clipping
#
# *8 minutes, 4 points*
#
# You will meet these two: "99.9 % of activations lie within ±3σ, the other 0.1 % reach 50σ" and "so clip at the 99.9th percentile, the outliers are noise". The first you check with
# arithmetic: whatever the distribution, how many values can be so far out? The second you check by splitting the error of the output in two:
#
# ```
# largest_share    sigmas > 0                      →  a fraction: how many values of any data whatever
#                                                     can lie that many standard deviations or more
#                                                     from the mean
# clip_errors      x, w, percentile, bits          →  (rounding, clipping, total) in percent
# best_percentile  x, w, percentiles: list, bits   →  the one with the smallest total
#
#      c = percentile of abs(x) over the whole tensor         L = 2^(bits − 1) − 1 steps each side
#      x̂ = s · clamp(round(x / s), −L, L),   s = c / L        one scale per tensor; w stays in float
#
#                        ┌ where abs(x) ≤ c: rounding
#      E = x̂ − x ────────┤                              each:  100 · norm(E_part wᵀ) / norm(x wᵀ)
#                        └ where abs(x) > c: clipping
# ```
#
# | | |
# |:--|:--|
# | Shapes | x: (tokens, n), w: (m, n). E_part is E with zeros elsewhere; `total` is of E as a whole |
# | Percentile | 0 to 100, linear between neighbours, as `torch.quantile` and `numpy.percentile` have it; c > 0 in all tests |
# | Audit | `largest_share(sigmas)` is from 0 to 1, and sharp: some data set reaches it. The standard deviation is that of all values (divided by their number) |
# | Choice | the element of `percentiles` with the smallest total; no test has two that are close |
# | Tolerance | errors: 1 % of each plus 10⁻⁴ percent (codes near a half, values at c itself); share: 10⁻⁹ |


# %% nbgrader={"grade": false, "grade_id": "clip", "locked": false, "schema_version": 3, "solution": true, "task": false}
def largest_share(sigmas):
    """The largest fraction of any data's values that can lie that many standard deviations or more from the mean."""
    ### BEGIN SOLUTION
    return min(1.0, 1 / sigmas**2)  # Chebyshev; reached by three values: m − kσ, m, m + kσ
    ### END SOLUTION


def clip_errors(x, w, percentile, bits):
    """The output's errors by rounding, by clipping, and in total, each in percent, where x is clipped there."""
    ### BEGIN SOLUTION
    c = torch.quantile(x.abs().flatten(), percentile / 100)
    levels = 2 ** (bits - 1) - 1
    s = c / levels
    error = s * (x / s).round().clamp(-levels, levels) - x
    clipped = x.abs() > c
    size = (x @ w.T).norm()
    parts = (error * ~clipped, error * clipped, error)
    return tuple(100 * ((part @ w.T).norm() / size).item() for part in parts)
    ### END SOLUTION


def best_percentile(x, w, percentiles, bits):
    """The percentile at which clipping x gives the smallest total error."""
    ### BEGIN SOLUTION
    return min(percentiles, key=lambda percentile: clip_errors(x, w, percentile, bits)[2])
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# For the audit: a value k σ away from the mean adds k² σ² to a sum of squares. How large is that sum altogether?
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# The squares of all distances have the mean σ². If a fraction p lies at k σ or more, they alone give p k² σ², and that is at most σ². And a fraction cannot exceed 1.
# For the errors: compute E once, mask it in two ways, send each through w.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# p * k ** 2 <= 1                                    # and p <= 1
#
# limit = quantile of abs(x) at percentile / 100
# step = limit / levels
# wrong = step * (rounded codes, clamped) - x
# inside, outside = wrong where abs(x) <= limit, wrong elsewhere
# sizes of inside @ w.T, outside @ w.T, wrong @ w.T over the size of x @ w.T, times 100
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-clip", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import Points, check_close

points = Points()
with points.part(1, "largest_share"):
    data = torch.tensor([-50.0, *[0.0] * 4998, 50.0])  # σ is 1: two values of 5000 are 50 σ away
    share = largest_share(50)
    mistakes = {
        "it is 1 / sigmas": 1 / 50,
        "the answer is in percent, not a fraction": 0.04,
        "one tail only is counted": 1 / 2501,
        "a normal distribution is taken for granted": 0.0,
    }
    check_close(
        share, 2 / len(data), 1e-9, "largest_share(50), of which the data above is an example", "10⁻⁹", mistakes
    )
    ### BEGIN HIDDEN TESTS
    from math import erfc, exp, sqrt

    for sigmas in (3, 2, 1.5, 1, 0.5, 10):
        right = min(1.0, 1 / sigmas**2)
        mistakes = {
            "a normal distribution is taken for granted": erfc(sigmas / sqrt(2)),
            "it is 1 / sigmas": min(1.0, 1 / sigmas),
            "the answer is in percent, not a fraction": 100 * right,
            "it is the share that lies within, not outside": 1 - right,
            "below one sigma it exceeds 1": 1 / sigmas**2,
            "one tail only is counted": 1 / (1 + sigmas**2),
            "it is a bound for sums of independent values": 2 * exp(-(sigmas**2) / 2),
        }
        check_close(largest_share(sigmas), right, 1e-9, f"largest_share({sigmas})", "10⁻⁹", mistakes)
    ### END HIDDEN TESTS


def activations(factor, seed, tokens=64, n=128, m=48):
    """N(0, 1) with two large channels, and weights."""
    generator = torch.Generator().manual_seed(seed)
    x, w = torch.randn(tokens, n, generator=generator), torch.randn(m, n, generator=generator)
    channels = torch.randperm(n, generator=generator)[:2]
    x[:, channels] *= factor
    return x, w, channels


### BEGIN HIDDEN TESTS
def parts_of(x, w, percentile, bits, levels=None, limit=None, clipped=None):
    """(rounding, clipping, total) in percent, in float64."""
    x, w = x.double(), w.double()
    c = torch.quantile(x.abs().flatten(), percentile / 100) if limit is None else limit
    levels = levels or 2 ** (bits - 1) - 1
    error = c / levels * (x * levels / c).round().clamp(-levels, levels) - x
    outside = x.abs() > c if clipped is None else clipped(x, c)
    y = x @ w.T
    return [100 * ((part @ w.T).norm() / y.norm()).item() for part in (error * ~outside, error * outside, error)]


### END HIDDEN TESTS
with points.part(2, "clip_errors"):
    x, w, _ = activations(60, 0)
    wrong = {
        "one step too many on each side: 2^(bits − 1)": (0.777, 63.68, 63.691),
        "the percentile is a share of the largest value": (5.363, 0.281, 5.375),
        "the percentile is taken of x, not of abs(x)": (0.08, 95.165, 95.162),
        "each token has a limit of its own": (0.719, 66.059, 66.051),
        "each channel has a limit of its own": (0.516, 5.75, 5.774),
        "the error of x is measured, not that of the output": (0.887, 63.675, 63.681),
        "rounding and clipping are swapped": (63.68, 0.7965, 63.686),
        "the errors are fractions, not percent": (0.007965, 0.6368, 0.63686),
        "the total is the sum of the two": (0.7965, 63.68, 64.477),
    }
    for percentile, right in ((99, (0.7965, 63.68, 63.686)), (100, (5.408, 0.0, 5.408))):
        got = clip_errors(x, w, percentile, 8)
        assert len(got) == 3, f"clip_errors gives {len(got)} numbers, expected rounding, clipping, total"
        for i, name in enumerate(("rounding", "clipping", "total")):
            mistakes = {text: values[i] for text, values in wrong.items()} if percentile == 99 else {}
            what = f"clip_errors at percentile {percentile}: {name}"
            check_close(got[i], right[i], 0.01 * right[i] + 1e-4, what, "1 % of the error", mistakes)
    ### BEGIN HIDDEN TESTS

    for factor, percentile, bits, seed in (
        (60, 99.5, 8, 1014),
        (1, 99, 4, 1015),
        (8, 97.3, 8, 1016),
        (60, 100, 4, 1017),
    ):
        x, w, _ = activations(factor, seed)
        peak = x.abs().max().double()
        wrong = {
            "one step too many on each side: 2^(bits − 1)": parts_of(x, w, percentile, bits, 2 ** (bits - 1)),
            "the percentile is a share of the largest value": parts_of(
                x, w, percentile, bits, limit=peak * percentile / 100
            ),
            "the percentile is taken of x, not of abs(x)": parts_of(
                x, w, percentile, bits, limit=torch.quantile(x.double().flatten(), percentile / 100)
            ),
            "each token has a limit of its own": parts_of(
                x, w, percentile, bits, limit=torch.quantile(x.double().abs(), percentile / 100, dim=1, keepdim=True)
            ),
            "each channel has a limit of its own": parts_of(
                x, w, percentile, bits, limit=torch.quantile(x.double().abs(), percentile / 100, dim=0, keepdim=True)
            ),
            "rounding and clipping are swapped": [parts_of(x, w, percentile, bits)[i] for i in (1, 0, 2)],
            "the errors are fractions, not percent": [part / 100 for part in parts_of(x, w, percentile, bits)],
            "only positive values count as clipped": parts_of(x, w, percentile, bits, clipped=lambda x, c: x > c),
        }
        right = parts_of(x, w, percentile, bits)
        wrong["the total is the sum of the two"] = [right[0], right[1], right[0] + right[1]]
        wrong["the total is the root of the sum of squares"] = [*right[:2], (right[0] ** 2 + right[1] ** 2) ** 0.5]
        wrong["the error of x is measured, not that of the output"] = parts_of(
            x, torch.eye(x.shape[1]), percentile, bits
        )
        for i, (name, mine) in enumerate(
            zip(("rounding", "clipping", "total"), clip_errors(x, w, percentile, bits), strict=True)
        ):
            mistakes = {text: values[i] for text, values in wrong.items()}
            what = f"clip_errors, channels × {factor}, percentile {percentile}, {bits} bits: {name}"
            check_close(mine, right[i], 0.01 * right[i] + 1e-4, what, "1 % of the error", mistakes)
    ### END HIDDEN TESTS
with points.part(1, "best_percentile"):
    tried = [95, 99, 99.9, 100]
    x, w, _ = activations(60, 0)
    mistakes = {
        "the smallest rounding error decides": 95,
        "outliers are taken for noise, and clipped at 99.9 % unseen": 99.9,
    }
    what = "best_percentile, outliers that carry the output"
    check_close(best_percentile(x, w, tried, 8), 100, 0.0, what, "they are signal", mistakes)
    ### BEGIN HIDDEN TESTS
    x, w, channels = activations(60, 1018)
    unread = w.clone()
    unread[:, channels] = 0
    gauss, _, _ = activations(1, 1019)
    for name, data, weight, bits in (
        ("outliers that carry the output", x, w, 8),
        ("outliers that no weight reads", x, unread, 8),
        ("no outliers, 4 bits", gauss, w, 4),
        ("no outliers, 8 bits", gauss, w, 8),
    ):
        totals = {percentile: parts_of(data, weight, percentile, bits)[2] for percentile in tried}
        by_x = min(tried, key=lambda percentile: parts_of(data, torch.eye(data.shape[1]), percentile, bits)[2])
        best = min(tried, key=totals.get)
        for order in (tried, tried[::-1]):
            got = best_percentile(data, weight, order, bits)
            mistakes = {
                "nothing is ever clipped, or the error of x decides and not that of the output": 100,
                "the error of x decides, not that of the output": by_x,
                "the smallest rounding error decides": 95,
                "99.9 is always taken": 99.9,
            }
            shown = ", ".join(f"{percentile}: {total:.3g} %" for percentile, total in totals.items())
            check_close(got, best, 0.0, f"best_percentile, {name}", f"totals are {shown}", mistakes)
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ## Experiment 1: where the outliers of a real model are
#
# SmolLM2-135M-Instruct (Apache-2.0, a download of 93 MB) reads 512 tokens of documentation. Its weights come quantized to Q4_1, which
# matters little here: we look at its **activations**. First what enters attention, behind the norm, as a map of channels and layers.

# %% tags=["experiment"]
import matplotlib.pyplot as plt
import torch

import quant_kernels as qk
from course.fetch import fetch
from course.texts import calibration_text, evaluation_text
from quant_kernels.methods.linears import calibrate
from quant_kernels.plots.channels import outliers_per_channel

SHOWN = ("blk.15.attn_q", "blk.29.ffn_gate", "blk.11.ffn_down")  # layers whose activations are kept

smollm2 = qk.load_model(fetch("smollm2")).requires_grad_(False)
window = torch.tensor([smollm2.tokenizer.encode(calibration_text())[:512]])
largest, by_token, ratio, kept = {}, {}, {}, {}


def stands_out(values):
    """The largest magnitude over the root mean square."""
    return (values.abs().max() / values.square().mean().sqrt()).item()


def look(name, x):
    largest[name], by_token[name], ratio[name] = x[0].abs().amax(0), x[0].abs().amax(1), stands_out(x)
    if name in SHOWN:
        kept[name] = x[0]  # (512, n)


calibrate(smollm2, window, look)
maxima = torch.stack([largest[f"blk.{i}.attn_q"] for i in range(30)])  # (30, 576)
outliers_per_channel(maxima, title="SmolLM2: largest activation that enters attention")
plt.show()

# %% [markdown]
# Two more claims to audit. "Outliers are a few very large **weights**": how far does the largest number of each tensor stand out, in weights and in
# activations? And "99.9 % within ±3σ, the rest up to 50σ", on the input of ffn_down in layer 11. The cell uses
# `largest_share` of (f) and `outlier_columns` of (a).

# %% tags=["experiment"]
weights = smollm2.weights()
figure, axes = plt.subplots(figsize=(7.5, 3.8))
for kind, colour in (("attn_q", "#0072B2"), ("ffn_down", "#D55E00")):
    names = [f"blk.{i}.{kind}" for i in range(30)]
    axes.semilogy([ratio[name] for name in names], color=colour, marker="o", ms=3, label=f"input of {kind}")
    matrices = [stands_out(weights[f"{name}.weight"]) for name in names]
    axes.semilogy(matrices, color=colour, ls="--", label=f"weights of {kind}")
axes.set(xlabel="layer", ylabel="max abs / root mean square", ylim=(5, 5000))
axes.set_title("SmolLM2: how far the largest number stands out")
axes.legend(frameon=False, fontsize=9, ncols=2)
axes.grid(alpha=0.3)
plt.show()

tops = sorted(((by_token[f"blk.{i}.ffn_down"].max().item(), i) for i in range(30)), reverse=True)
for value, i in tops[:4]:
    tokens = by_token[f"blk.{i}.ffn_down"]
    print(f"ffn_down, layer {i}: {value:5.0f} at token {int(tokens.argmax())}, then {tokens.sort().values[-2]:.0f}")
x = kept["blk.11.ffn_down"]
far = (x - x.mean()).abs() / x.std(correction=0)
for sigmas in (3, 50):
    share, bound = (far >= sigmas).float().mean().item(), largest_share(sigmas)
    print(f"layer 11: {100 * share:.5f} % lie {sigmas} σ or more out; possible are at most {100 * bound:.2f} %")
columns = outlier_columns(kept["blk.15.attn_q"], 6.0).nonzero().flatten().tolist()
print(f"attn_q, layer 15: channels that reach 6 in some token: {columns}")

# %% [markdown]
# **What we saw**, on two cores of a server CPU:
#
# - *Channels.* Three bright columns in the map: channel 507 leads in most of the layers 1 to 8, 247 in 9 to 24, 17 in 25 to 29, at 8 to 26 times the median
#   channel. The same channel for many layers and all tokens: what the papers describe from 6.7 billion parameters on, here in a model of 135 million, milder.
# - *One token.* Layer 11 of ffn_down has one number of 3 082 at the first token, where no other token exceeds 13; layer 28 has 2 342. These are **massive activations** (Sun et al.,
#   arXiv 2402.17762), another animal: one token, not one channel. Per-token scales confine them, per-tensor scales do not.
# - *Weights.* The dashed lines stay between 7 and 30, the activations reach 835. Weights are not where the trouble is.
# - *±3σ.* In layer 11 only 0.00038 % of the values lie beyond 3σ, where a normal distribution has 0.27 %: the outlier itself has set σ. A rule in units of σ sees
#   nothing. And 0.1 % at 50σ is more than any data can have (0.04 %).
# - *Threshold 6.* It is an absolute number. The inputs of attention hardly reach it in this model, so that the split of (a) leaves most outlier channels in int8.

# %% [markdown]
# ## Experiment 2: W8A8 with each remedy
#
# Two models. The course model has hardly any outliers of its own, so it gets some: in every norm five channels of the gain are multiplied by
# 60, and the columns that read them divided by 60, which changes nothing in float. SmolLM2 has its own.
#
# All linear layers of the blocks run in W8A8; embeddings and the output matrix stay in float. The remedies are **your** functions: `llm_int8` of (a),
# `smoothing_scales` and `fold_into_norm` of (b), `hadamard` of (d). Rows of 576 and 768 are no powers of two, so x is rotated in blocks of 64 and of 256,
# and online before each layer. KLD is the mean Kullback-Leibler divergence from the float model in nats per token. All builds see the
# same tokens, so that differences are surer than each ± says.

# %% tags=["experiment"]
from torch import nn

from quant_kernels.methods.linears import clone, input_maxima, replace_linears
from quant_kernels.methods.outliers import inject_outliers


class Layer(nn.Module):
    """A linear layer that computes product(x, w)."""

    def __init__(self, product, weight):
        super().__init__()
        self.product, self.weight = product, weight

    def forward(self, x):  # (B, T, n)
        return self.product(x.flatten(0, -2), self.weight).unflatten(0, x.shape[:-1])


def with_product(model, product):
    """A copy of the model whose blocks multiply by product(x, w)."""
    return replace_linears(model, lambda _, linear: Layer(product, linear.weight.detach()))


def per_tensor(x, w, share=1.0):
    """W8A8 with one scale for all of x, from its largest magnitude or from a lower quantile of it."""
    limit = x.abs().max() if share == 1 else x.abs().flatten().kthvalue(round(share * x.numel())).values
    q_w, s_w = int8_rows(w)
    return limit / 127 * ((x / (limit / 127)).round().clamp(-127, 127) @ q_w.T) * s_w.T


def clipped(x, w):
    return per_tensor(x, w, share=0.999)


def rotated(x, w):
    n = x.shape[-1]
    x, w = (hadamard(part.unflatten(-1, (-1, n & -n))).flatten(-2) for part in (x, w))
    return w8a8(x, w)


READERS = {"attn_norm": ("attn_q", "attn_k", "attn_v"), "ffn_norm": ("ffn_gate", "ffn_up")}


def smoothed(model, windows, alpha=0.5):
    """The model with your scales folded into its norms: the same function."""
    maxima, smooth = input_maxima(model, windows), clone(model)
    for i, block in enumerate(smooth.blk):
        for name, readers in READERS.items():
            norm, linears = getattr(block, name), [getattr(block, reader) for reader in readers]
            matrices = [linear.weight.detach() for linear in linears]
            s = smoothing_scales(maxima[f"blk.{i}.{readers[0]}"], torch.cat(matrices), alpha)
            gain, _, matrices = fold_into_norm(norm.weight.detach(), None, matrices, s)
            norm.weight = nn.Parameter(gain)
            for linear, matrix in zip(linears, matrices):
                linear.weight = nn.Parameter(matrix)
    return smooth


def measure(model, tokens):
    """The loss of each token in the second half of the windows, and the model's log-probabilities there."""
    losses, logs = [], []
    with torch.no_grad():
        for part in tokens.view(-1, 512).split(4):
            logs.append(model(part, slice(255, 511)).log_softmax(-1))
            losses.append(-logs[-1].gather(-1, part[:, 256:].unsqueeze(-1)).flatten())
    return torch.cat(losses), torch.cat(logs)


def compare(builds, tokens, reference=None):
    """Print perplexity and KLD of each build; return the log-probabilities of the first, which is the reference."""
    for name, build in builds.items():
        loss, logs = measure(build, tokens)
        reference = logs if reference is None else reference
        divergence = (reference.exp() * (reference - logs)).sum(-1).mean().item()
        value = loss.mean().exp()
        print(f"{name:34}{value:9.2f} ± {value * loss.std() / len(loss) ** 0.5:<6.2f}{divergence:9.4f}")
    return reference


def remedies(model):
    calibration = torch.tensor([model.tokenizer.encode(calibration_text())[:512]])
    smooth = smoothed(model, calibration)
    return {
        "float": model,
        "W8A8, a scale per tensor": with_product(model, per_tensor),
        "  x clipped at 99.9 %": with_product(model, clipped),
        "  smoothed, alpha 0.5": with_product(smooth, per_tensor),
        "W8A8, a scale per token": with_product(model, w8a8),
        "  split at 6 (a)": with_product(model, llm_int8),
        "  smoothed, alpha 0.5 (b)": with_product(smooth, w8a8),
        "  rotated online (d)": with_product(model, rotated),
    }


course_model = qk.load_model(fetch("course-model")).requires_grad_(False)
tokens = torch.tensor(course_model.tokenizer.encode(evaluation_text())[: 512 * 8])
print(f"The course model with injected outliers:    perplexity         KLD     ({len(tokens) // 2} tokens scored)")
reference = compare(remedies(inject_outliers(course_model, 60.0, 5)), tokens)

# %% [markdown]
# On SmolLM2 four more rows localise the damage: a coarser treatment in one kind of layer only, a scale per token in all others.


# %% tags=["experiment"]
def only_in(model, product, chosen):
    """W8A8 per token, but product(x, w) in the layers whose name is chosen."""
    return replace_linears(model, lambda name, linear: Layer(product if chosen(name) else w8a8, linear.weight.detach()))


tokens = torch.tensor(smollm2.tokenizer.encode(evaluation_text())[:512])
print(f"SmolLM2-135M-Instruct:                      perplexity         KLD     ({len(tokens) // 2} tokens scored)")
reference = compare(remedies(smollm2), tokens)
parts = {"ffn_down only": lambda name: "ffn_down" in name, "all but ffn_down": lambda name: "ffn_down" not in name}
products = {"per tensor": per_tensor, "clipped": clipped}
localised = {
    f"{label}, in {part}": only_in(smollm2, product, chosen)
    for label, product in products.items()
    for part, chosen in parts.items()
}
compare(localised, tokens, reference)
del reference

# %% [markdown]
# **What we measured**, with the text that Python 3.11 brings:
#
# | | course model, outliers injected | | SmolLM2 | |
# |:--|--:|--:|--:|--:|
# | | perplexity | KLD | perplexity | KLD |
# | float | 21.51 | 0 | 17.85 | 0 |
# | a scale per tensor | 60.89 | 0.971 | 30.97 | 0.638 |
# | x clipped at 99.9 % | 27.50 | 0.268 | **1 275.75** | 4.241 |
# | smoothed, per tensor | 21.75 | 0.008 | 29.35 | 0.512 |
# | a scale per token | 25.12 | 0.182 | 18.22 | 0.026 |
# | split at 6 | 21.52 | 0.0003 | 18.32 | 0.013 |
# | smoothed, per token | 21.51 | 0.0006 | 17.93 | 0.011 |
# | rotated, per token | 21.69 | 0.012 | 17.80 | 0.003 |
#
# - **Clipping turns round.** It *helps* where we injected outliers and destroys the real model. Our reading: an injected channel is an ordinary channel that the weights divide by 60:
#   it carries no more of the output than others. A real outlier carries what the model has put there. A benchmark with injected outliers alone would have recommended clipping.
# - **Where.** The localised rows say ffn_down: clipping there alone gives 656, everywhere else 22.0; a scale per tensor there alone 29.8, elsewhere 19.4. No norm stands before ffn_down, so smoothing the norms cannot
#   reach it, and per tensor it gains little (29.35). Per token the same folding halves the KLD.
# - **The best remedy depends on the model.** The split wins on five channels of 60, and only halves the KLD where channels stay below 6. The rotation has the lowest KLD on SmolLM2; it ran online everywhere here, which a served model would not pay for.
# - **What the table does not show.** 256 tokens of one text: trust the order of KLDs that differ by a factor of two, not perplexities that differ by 1 %. And folding the norms' gains before rotating
#   would have removed the *injected* outliers altogether: the injection sits in the gains.

# %% [markdown]
# ## Experiment 3: the U, and the axes of the cache
#
# First your sweep of (b) on the data of Background 1 and on activations of three layers of SmolLM2.

# %% tags=["experiment"]
alphas = [i / 10 for i in range(11)]
generator = torch.Generator().manual_seed(0)
synthetic = torch.randn(256, 512, generator=generator)
synthetic[:, torch.randperm(512, generator=generator)[:5]] *= 60
sweeps = {"N(0, 1), 5 of 512 channels × 60": (synthetic, torch.randn(512, 512, generator=generator))}
for name in SHOWN:
    sweeps[f"SmolLM2, {name}"] = (kept[name], weights[f"{name}.weight"].detach())

figure, axes = plt.subplots(figsize=(7.5, 3.8))
for (name, (x, w)), colour in zip(sweeps.items(), ("#0072B2", "#009E73", "#CC79A7", "#D55E00")):
    errors = smooth_sweep(x, w, alphas)
    axes.semilogy(alphas, errors, marker="o", ms=4, color=colour, label=name)
    plain, best = percent(w8a8(x, w), x @ w.T), min(errors)
    print(f"{name:33} not smoothed {plain:.2f} %, best {best:.2f} % at alpha {alphas[errors.index(best)]}")
axes.set(xlabel="alpha", ylabel="error of the output, %", title="W8A8 per token: error after smoothing")
axes.set_yticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5", "1", "2", "5", "10", "20", "50"])
axes.minorticks_off()
axes.legend(frameon=False, fontsize=9)
axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# Then your cache of (e), on SmolLM2's own keys (after RoPE) and values: both axes for both, in groups of 32 and without a window. The error
# of the tensor itself stands beside that of what attention puts out with it, averaged over the 30 layers.

# %% tags=["experiment"]
cache = {}


def remember(i):
    def attend(q, k, v):
        cache[i] = (q[0], k[0], v[0])  # (9, 512, 64), (3, 512, 64) twice
        return type(smollm2.blk[i]).attend(smollm2.blk[i], q, k, v)

    return attend


def attention_output(q, k, v):
    k, v = k.repeat_interleave(3, 0), v.repeat_interleave(3, 0)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


for i, layer in enumerate(smollm2.blk):
    layer.attend = remember(i)
with torch.no_grad():
    smollm2(window)
for layer in smollm2.blk:
    del layer.attend

print("                      per channel             per token")
print("                    itself    output       itself    output")
for bits in (4, 2):
    for place, name in ((1, "keys"), (2, "values")):
        rows = []
        for qkv in cache.values():
            y, x = attention_output(*qkv), qkv[place]
            changed = kivi_cache(x, x, bits, 32, 0)  # per channel, per token
            outputs = [attention_output(*qkv[:place], part, *qkv[place + 1 :]) for part in changed]
            rows.append([error for part, out in zip(changed, outputs) for error in (percent(part, x), percent(out, y))])
        a, b, c, d = torch.tensor(rows).mean(0).tolist()
        print(f"{bits} bits, {name:7}{a:9.1f} %{b:8.1f} %{c:11.1f} %{d:8.1f} %")

# %% [markdown]
# **How to read it.** The sweep is a U in all four cases: at alpha = 0 the activations keep their outliers, at 1 the weights have inherited them. Its bottom lies between 0.5 and 0.7, a factor of 2.4 to 4.5
# below no smoothing. (For ffn_down the sweep is only on paper: s cannot go into a norm there, though it can go into the rows of ffn_up.)
#
# For keys both columns say the same: per channel, 19.5 against 48.6 % at 2 bits. For values they **contradict** each other. Their own error is smaller per
# channel (35.5 against 42.3 %), but the output's is smaller per token (33.7 against 58.8 %): attention puts its weight on a few tokens, and a token that is quantized by itself does not carry the
# errors of its neighbours. An error measured where it arises is not the error that counts. 2 bits without a window would not be served: KIVI keeps the newest tokens in float.

# %% [markdown]
# ## Rubric
#
# An instructor scores the next three answers and the talk at the end, 7 points each; alone, score yourself by the tables. Write into the
# cells "Your answer".

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-diagnosis", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Diagnosis (7 points)
#
# A 7B model in static W8A8, one scale per activation tensor, answers at chance; weight-only int8 of the same checkpoint is fine. In 250 words or fewer: what do you measure in
# the first hour, in which order, and which result leads to which remedy? How do you tell channel outliers, massive activations of single tokens, a key bias and a plain bug apart?
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | "Outliers; use more bits" or "clip them" | Plots activations; no order of steps, one kind of outlier | Bisects by layer kind; tells channels from tokens; a remedy for each | Also rules out a bug before blaming numbers, names the numbers that decide, and checks the remedy on the output |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** weight-only is fine, so the activations' scales are suspect, not the weights. First the bug: the same build with dynamic per-token scales, or with activations faked in float, must recover; identities (x / s)(W s) checked in float.
# Then bisect: per-token scales everywhere but in one kind of layer (attn inputs, attn_output, ffn_gate/up, ffn_down), KLD against float. Then look at that layer: max per channel over tokens (a few columns, the same for all tokens: smooth, split, rotate),
# max per token over channels (one token, usually the first: per-token scales, keep that position or ffn_down in higher precision, rotate), keys per channel after RoPE (bias of k_proj: per-channel keys).
# Not σ: the outlier sets σ itself. Calibration: did it contain the first token or BOS that the service sends? Numbers: max / median per channel, KLD per swapped kind. Cases: TensorRT-LLM issue 1618 (Llama-2-13B-chat, SmoothQuant per tensor 29.4 MMLU, per token and channel 54.5);
# issue 945 (Yi-6B, 0.0 per tensor, 0.549 per token; the maintainers also knew of bugs in that mode: rule them out first).
#
# **Strong, 7 of 7.** *"Weights are cleared by the weight-only build. Step one, no theory: switch to dynamic per-token scales. If it stays broken I suspect code: I run the graph with quantizers off and compare logits, then check each fold in float. If it recovers, step two: per-token everywhere, per-tensor in one layer kind at a time, KLD to float on 20 prompts.
# Say it is ffn_down. Step three, two plots for that kind: max over tokens per channel, max over channels per token. A column that is large for all tokens is a channel outlier: smooth or rotate it. One row, usually token 0, at thousands: massive activation; per-token scales confine it, static per-tensor never will, and calibration without BOS will not
# even have seen it. For KV I plot keys per channel after RoPE; Qwen-like k biases show there. I do not use σ rules: one value of 3 000 makes everything else lie within 3σ. Done when KLD, not only the layer error, is back to the weight-only build's."* Order, decisions, bug excluded, numbers.
#
# **Middling, 4 of 7.** *"I hook all linear layers and record max abs per channel. If a few channels are 20 times the median I use SmoothQuant with alpha 0.5, and per-token scales. If one layer type is worst I leave it in FP16, often down_proj. Then I measure perplexity again."* A sound procedure for channel outliers and a bisection of sorts. Tokens, bugs and the key cache are missing.
#
# **Weak, 1 of 7.** *"Activations have outliers beyond 3σ, so I would clip at the 99.9th percentile or use a bigger calibration set."* No measurement decides anything, and the remedy removes what the model needs.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (diagnosis):

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-algebra", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Remedies and their algebra (7 points)
#
# For split, smoothing, AWQ, rotation and clipping, in 250 words or fewer: the identity, or why there is none; what is moved from where to where; what each does to the weights' own quantization; and where in a Llama block the transformation can be folded and where not.
# Begin with the reason why a scale per channel of the activations is not the answer.
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | Names methods | Formulas for one or two; direction or side of a scale wrong | All identities right; folding into norms right | Also what each breaks, the places where nothing folds, and conditions such as gains moved before rotating |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** y_tm = Σ_j x_tj w_mj: scales of t and m leave the sum, those of j do not. Split: x_o W_oᵀ + x_r W_rᵀ, exact; data-dependent. Smooth: (x / s)(W s)ᵀ, s = max|x|^α / max|W|^(1−α); difficulty moves into W's columns, which share a row scale: hence the U. Folds into gain **and bias**
# of the norm before q/k/v and gate/up, all readers; into the rows of up for ffn_down, of v for attn_output (with one key head per query head); not into gate (behind SiLU) nor through softmax. AWQ: the same identity for W alone, s = mean|x|^α searched by output error; nothing stays in FP16; the salient column's error shrinks by s while the group's step stays.
# Rotation: (xQ)(WQ)ᵀ, Q = H D / √n; a norm without gains commutes, so gains go into the readers first; embedding, writers, readers, output matrix (untied) rotated; online before ffn_down and for heads after RoPE. It also spreads weight outliers; D (random signs) for vectors aligned with a row of H. n = 2^k, or a known Hadamard matrix times it, or blocks.
# Clip: no identity; rounding falls, clipping grows; right only if nothing reads the clipped values. Deployed scales s: powers of two keep even float bits.
#
# **Strong, 7 of 7.** *"In Σ_j x_tj w_mj an integer kernel can only take out factors of t or m; a scale per j would have to be applied inside the sum. So either move it into W or mix the j. Split keeps columns with any |x| ≥ 6 in fp16: exact, but needs the data. Smooth: x/s and W·s; s large means x easy and W hard since a row of W has one scale; minimum in between, α ≈ 0.5–0.75.
# s goes into the norm's gain and bias and into all readers; ffn_down has no norm: fold into up's rows, because SwiGLU is linear in up; never into gate. AWQ is that identity for weight-only, s from mean |x|, α by grid on the output error; the 1 % are scaled, not kept. Rotation: H/√n orthogonal, first push gains into readers, because RMSNorm commutes with Q only if its gains are equal. W_read Q, Qᵀ W_write, embedding and head
# too; SiLU stops it, so ffn_down's runs online with the inverse in the weight. Clipping is not an identity; it trades rounding for deleted signal."* Everything, with conditions.
#
# **Middling, 4 of 7.** *"SmoothQuant divides activations by s and multiplies weights, folded into LayerNorm, s from maxima with α. LLM.int8 keeps outlier columns in FP16. Rotation multiplies by a Hadamard matrix and its transpose, which cancels. Clipping loses information. AWQ scales weights by activation magnitude."* Identities right in outline. Nothing on the sum over j, biases, SiLU, gains, or what happens to the weights.
#
# **Weak, 1 of 7.** *"Use per-channel quantization for activations; AWQ keeps the top 1 % weights in FP16, SmoothQuant multiplies the activations to make them smoother."* Impossible in the kernel, wrong about AWQ, the scale on the wrong side.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (remedies and their algebra):

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-deployment", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Deployment (7 points)
#
# In 250 words or fewer: choose a remedy for (1) W8A8 serving of a dense 70B with continuous batching, (2) a 4-bit weight-only build for laptops, (3) W4A4 research on the same 70B, (4) a 2-bit KV cache for long contexts. Say what each costs at run time and in calibration,
# what breaks with MoE, GQA or CUDA graphs, and what you would watch in production.
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | One method for all four | Sensible choices without costs | Choices with run-time cost and folding; one structural trap | Also batch dependence, MoE and GQA, measured or sourced figures, and what to monitor |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** (1) smoothing folded offline or FP8 where the hardware has it; dynamic per-token scales (cost: a max per row, fused into the norm); ffn_down looked at separately. Not LLM.int8(): the outlier set depends on the batch, so shapes change (CUDA graphs), a user's output depends on the neighbours in the batch, and it is slow (bitsandbytes issue 347: 32.9 ms became 154.6 ms).
# (2) AWQ or importance-weighted K-quants: activations stay in float or Q8 blocks of 32, whose small blocks already confine outliers. (3) rotations: SpinQuant's README has Llama-2-7B W4A4KV4 at 2e3 (RTN), 6e2 (SmoothQuant), 6.4 (QuaRot), 5.9 (SpinQuant), float 5.5; online transforms cost O(n log n) per token; for NVFP4's blocks of 16 a rotation provably does little (arXiv 2509.23202).
# (4) KIVI: keys per channel, values per token, window in float; the paper reports 2.6 times less peak memory and 2.35 to 3.47 times the throughput; quantized-on-write keys wait for a full group. Traps: MoE: gate and **all** experts read the norm (llm-compressor pull request 1455: gate upscaled, experts not; 2084: only expert 0). GQA: attn_v's channels feed several query heads, so their s must be shared. Tensor parallelism: per-rank maxima.
# Watch: max and saturation rate per layer, drift against calibration, KLD of shadow traffic, first-token behaviour.
#
# **Strong, 7 of 7.** *"(1) SmoothQuant folded, dynamic per-token scales, per-row weights; down_proj kept in FP8/FP16 if its KLD share is large. Zero extra ops but a row max fused in the norm. I would not ship LLM.int8's split: the column set is data-dependent, so no CUDA graph, a result depends on whoever shares the batch, and it was measured slower, 33 to 155 ms on a 3090. (2) AWQ g128 or Q4_K with imatrix; no run-time cost since s is folded. (3) QuaRot/SpinQuant: at W4A4
# scaling alone fails (6e2 against 6.4 in SpinQuant's table); pay two online Hadamards per block. On Blackwell with NVFP4 I would first measure without: 16-blocks leave a rotation little. (4) KIVI with a window of 32–128; keys per channel need whole groups of tokens, so writes are delayed; cost is dequantizing in the attention kernel. MoE: every expert and the router read the norm, all must get s. GQA: v's scale is shared by its query heads.
# Monitor saturation and max per layer against calibration, and KLD on shadow traffic, sliced by prompt language."* Choices, costs, traps, sources, monitoring.
#
# **Middling, 4 of 7.** *"SmoothQuant for serving because it is static and folded; AWQ for laptops; QuaRot for 4-bit activations with an online Hadamard in down_proj; KIVI for the cache. LLM.int8 is slow because of the two GEMMs. Calibrate on a few hundred samples of the domain."* Right choices with reasons. No structural trap, no monitoring, one figure less than promised.
#
# **Weak, 1 of 7.** *"LLM.int8 with threshold 6 everywhere since it is lossless; for speed use INT4."* Ignores its cost, and lossless was claimed of int8 with a float part.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (deployment):

# %% [markdown]
# ## Follow-up questions
#
# Try each aloud before you unfold what a strong answer touches.
#
# **1. Why do the outliers exist at all? Could one train them away?**
#
# <details><summary>A strong answer touches</summary>
#
# Partly known. Massive activations act as constant biases: setting them to zero ruins the model, setting them to their mean does not (arXiv 2402.17762). They go with attention sinks: a head that wants to do nothing has to put its softmax mass somewhere, and puts it on the first token. Explicit attention biases in training
# remove them in that paper's experiments. For channel outliers norm gains and optimizers are suspected; say what is shown and what is guessed.
#
# </details>
#
# **2. LLM.int8() gives different answers to one prompt, depending on the other prompts in the batch. Why, and who cares?**
#
# <details><summary>A strong answer touches</summary>
#
# A column is split off for all tokens as soon as one token is large in it: a neighbour's token moves my columns from int8 to float. Reproducibility, caching of prefixes, A/A tests and speculative decoding care. Fixing the columns in calibration makes it static, and then tokens that calibration never saw are quantized.
#
# </details>
#
# **3. In our table the synthetic model says that clipping helps and the real one says that it kills. Which do you believe?**
#
# <details><summary>A strong answer touches</summary>
#
# Both, for what they are. Injection multiplies a gain and divides the readers: the channel's share of the output is unchanged, its rounding hurts the others. Real outliers carry signal. Exercise (f) separates the cases: outliers that no weight reads should be clipped. Lesson for benchmarks: a synthetic defect keeps only the properties one thought of.
#
# </details>
#
# **4. Where exactly can a rotation of the residual stream not be folded?**
#
# <details><summary>A strong answer touches</summary>
#
# Norms with gains (move the gains first), everything behind a nonlinearity: the input of ffn_down after SiLU; queries and keys after RoPE, which rotates pairs by position; tied embeddings need untying once the output norm's gain is folded. LayerNorm also subtracts the mean: fold the centring into the writers first. Biases of writers are rotated too.
#
# </details>
#
# **5. n is 576 or 14 336. What now?**
#
# <details><summary>A strong answer touches</summary>
#
# 576 = 36 · 16 and 14 336 = 28 · 512: Hadamard matrices of order 36 and 28 exist (Paley), and the Kronecker product with Sylvester's gives n. Or blocks of the largest power of two, 64 and 2 048: cheaper, mixes less. Any random orthogonal matrix works on paper, at n² instead of n log n online. Padding changes the weights' shape.
#
# </details>
#
# **6. SmoothQuant and AWQ use the same identity. Why are their scales different?**
#
# <details><summary>A strong answer touches</summary>
#
# SmoothQuant has two tensors to round and balances their maxima, because a maximum sets the scale. AWQ rounds only W: it wants small error where x is large on average, so it takes mean |x|, and searches the power by the output error. In both, s shrinks one error and may grow another: there the weights', here that of the rest of the group when a scaled weight becomes its largest.
#
# </details>
#
# **7. Does a rotation help every format?**
#
# <details><summary>A strong answer touches</summary>
#
# It helps where many numbers share one scale. Blocks of 16 (NVFP4) confine an outlier already, and the paper 2509.23202 shows that classic remedies provably do little there, while MXFP4's power-of-two scales gain from block-wise transforms. A rotation can also hurt: it makes every block look Gaussian, the quiet ones too.
#
# </details>

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-communication", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Communication: the talk (7 points)
#
# Answer the question at the top in 15 minutes, to an interviewer who may ask any of the follow-ups. Speak, draw, show your table. Then write below what you said, in ten lines or fewer.
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | A list of paper names; loses the thread | Understandable; answers what was asked and no more | Picture, identity, cost, evidence in order; states assumptions | Teaches: one sum explains all remedies, predicts before showing, tells what failed and why, limits unasked |
#
# === BEGIN MARK SCHEME ===
#
# **The model answer, in five parts of three minutes.**
#
# 1. *What and where.* Draw tokens × channels. A few columns 10 to 100 times the median for all tokens: channel outliers. One row, mostly the first token, at thousands: massive activation. Weights are tame (max / rms 7 to 30 in SmolLM2, inputs up to 835). "Not 3σ: the outlier sets σ, and 0.1 % at 50σ cannot exist, Chebyshev allows 0.04 %."
# 2. *Why it hurts.* y_tm = Σ_j x_tj w_mj. Scales of t and m leave the sum, a scale of j does not. Five channels of 60 in 512: 7.3 % output error per tensor, 3.8 % per token, 1.1 % without them.
# 3. *The remedies as identities.* Split, x/s · W s, xQ · (WQ)ᵀ: exact before rounding, tested first. On that data 0.17 % (split), 0.84 % (smooth, bottom of a U), about 0.9 % (rotate). What each moves where; AWQ is the scaling for weights alone, with nothing in FP16; keys per channel and values per token are the same thought in the cache.
# 4. *What it costs.* Folding: norm gain and bias, every reader, all experts; gains before rotating; online before ffn_down. Split: two kernels, batch-dependent columns, no CUDA graph. Dynamic per-token scales need no calibration and one max per row.
# 5. *Evidence.* The table. SmolLM2 in W8A8: 17.85 float, 30.97 per tensor, 18.22 per token, 17.93 smoothed, 17.80 rotated; clipping 1 276, and 656 from ffn_down alone. Clipping helped only where outliers were injected. Limits: 256 tokens, one text; KLD decides, perplexities within 1 % do not; no kernel was timed.
#
# Score the talk itself where you heard it; the samples are what candidates wrote of theirs.
#
# **Strong, 7 of 7.** *"I drew the matrix and asked which index can have a scale: t and m, not j. Everything else followed: keep the j apart, push the scale of j into W, or mix the j. I wrote the three identities, checked them in float, then rounded. I predicted the U (at α = 1 the weights have the outliers) before I plotted it. Then SmolLM2: columns 507, 247 and 17, and one number of 3 082 at token 0 in layer 11. My table: per tensor 31, per token 18.2, smoothed 17.9, rotated 17.8, clip 1 276. I had expected clipping to be merely bad; the synthetic model says it helps. I explained why: injected channels carry
# no more than others. Cost: folding is free, ffn_down is not foldable into a norm, the split depends on the batch. Open: 256 tokens, no timing, no MoE."* One idea carries it; predictions, a surprise explained, limits.
#
# **Middling, 4 of 7.** *"I explained LLM.int8, SmoothQuant, AWQ, QuaRot and KIVI with formulas, showed my code and the table. Per token is much better than per tensor, and smoothing and rotation are close to float. Clipping was bad. SmoothQuant is folded into the norm so it costs nothing."* Correct and complete as a list; why clipping failed and where had to be asked for.
#
# **Weak, 1 of 7.** *"I implemented all exercises; tests pass. Outliers are values beyond 3σ, one can clip or smooth them. Perplexity was fine with smoothing."* No picture, no reason, a wrong definition.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (the talk, in ten lines or fewer):
