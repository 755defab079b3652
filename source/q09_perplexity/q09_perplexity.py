# ---
# jupyter:
#   course:
#     number: 9
#     title: Perplexity measurement implementation
#     category: Technical
#     difficulty: Mid-Senior
#     levels: [mid, senior]
#     companies: []
#     minutes: {talk: 15, code: 50}
#     prerequisites:
#       - softmax, cross-entropy and their gradient-free evaluation in torch or numpy
#       - float16 and float32 ranges
#       - variance, covariance, standard error of a mean
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
# # Question 9: Perplexity measurement implementation
#
# | | |
# |:--|:--|
# | **Category** | Technical |
# | **Difficulty** | Mid-Senior; marked for the levels mid and senior |
# | **Time** | 50 minutes of code, then a talk of 15 minutes |
# | **You should know** | softmax and cross-entropy in torch or numpy, the range of float16, standard error and covariance |
# | **Code points** | 30, in six exercises |
# | **Rubric points** | 28, in four categories of 7 |
# | **Mid passes with** | 12 rubric points and 60 % of the code points |
# | **Senior passes with** | 18 rubric points and 80 % of the code points |

# %% [markdown]
# ## The question
#
# > "I have four numbers on my desk: 5.12, 5.47, 5.79 and 8.71. Each is said to be the perplexity of Llama-2-7B in 16 bits on
# > WikiText-2, and none of them is a mistake. Write the code that measures perplexity, so that I can see where the four come
# > from. Your numbers have to equal llama-perplexity's. Then tell me how many tokens we need to see a loss of one percent
# > after quantizing, and what you would print next to a perplexity before you put it into a table."

# %% [markdown]
# ## What is looked for
#
# **Competencies.** A definition carried into code without an off-by-one; numerics of log-softmax; windows and masks; units;
# paired statistics; the habit of naming the convention with the number.
#
# | Green flags | Red flags |
# |:--|:--|
# | Asks which windows, which tokens are scored, which unit | "Perplexity is exp of the loss" |
# | Sums nats and counts tokens, divides once | Averages the perplexities of batches, lines or windows |
# | Tests on models with a known answer: uniform, perfect, a table | Tests by "the number looks about right" |
# | Knows what the first token of a window costs | Counts overlapping tokens twice, or padding at all |
# | Compares models on the same tokens, by differences | Subtracts two numbers with ± that were measured apart |
# | Compares tokenizers per byte | Ranks models of different vocabularies by token perplexity |

# %% [markdown]
# ## Background 1: from losses to one number
#
# A language model gives every possible next token a probability. What it gives the token that the text really has is *p*; the loss
# of the token is −ln *p*, in nats. The loss of a text is the **sum** of its tokens' losses, because probabilities multiply. Perplexity is
#
# &nbsp;&nbsp;&nbsp;&nbsp;exp( Σ losses / number of scored tokens ) = 1 / (geometric mean of the *p*)
#
# A model that knows nothing has the vocabulary's size *V*, a perfect one has 1. The cell shows the losses of one sentence, by the
# course model, which the course trained itself.

# %% tags=["experiment"]
import math

import matplotlib.pyplot as plt
import torch

import quant_kernels as qk
from course.fetch import fetch
from course.texts import evaluation_text

course_model = qk.load_model(fetch("course-model"))
sentence = "The for statement is used to iterate over the elements of a sequence (such as a string, tuple or list)"
ids = torch.tensor(course_model.tokenizer.encode(sentence))
with torch.inference_mode():
    losses = -course_model(ids[None])[0, :-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]
pieces = [course_model.tokenizer.decode([token]) for token in ids[1:].tolist()]
mean = losses.mean().item()

figure, axes = plt.subplots(figsize=(9, 3.4))
bars = axes.bar(range(len(losses)), losses)
for label in axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=2):
    label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})
axes.axhline(mean, color="C3", zorder=0)
axes.text(
    len(losses) - 0.4,
    mean,
    f"mean {mean:.2f}:\nperplexity e^{mean:.2f} = {math.exp(mean):.1f}",
    color="C3",
    va="center",
)
axes.axhline(math.log(4096), color="grey", linestyle=":")
axes.text(len(losses) - 0.4, math.log(4096), "ln 4096: knows nothing", color="grey", va="center", fontsize=9)
axes.set_xticks(range(len(losses)), [piece.replace(" ", "·") for piece in pieces], rotation=60, ha="right")
axes.set(ylabel="loss, nats", title=f"the loss of each token after “{sentence[:3]}”", xlim=(-0.7, len(losses) - 0.5))
for side in ("top", "right"):
    axes.spines[side].set_visible(False)
plt.show()

# %% [markdown]
# The first token has no bar: nothing stands before it, so no logits predict it. Some tokens cost next to nothing, a few pay for the
# sentence. That spread is why one perplexity has a large standard error.
#
# **A claim that you will meet:** `perplexity = exp(cross_entropy_loss)`. It holds for one loss only: the mean over *all* scored tokens, in nats. What a loop over batches
# prints as its loss is often another mean. The cell reads 4 096 tokens of text line by line, as many scripts do, and divides in three ways.

# %% tags=["experiment"]
tokens = torch.tensor(course_model.tokenizer.encode(evaluation_text()))
lines = []
with torch.inference_mode():
    for line in course_model.tokenizer.decode(tokens[:4096].tolist()).splitlines():
        ids = torch.tensor(course_model.tokenizer.encode(line))
        if len(ids) > 1:
            lines.append(-course_model(ids[None])[0, :-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0])
means = torch.stack([line.mean() for line in lines])
print(
    f"{len(lines)} lines, {sum(map(len, lines))} scored tokens, the worst line's perplexity is {means.max().exp():.0f}"
)
print(f"exp(sum of losses / tokens)       {torch.cat(lines).mean().exp():6.1f}")
print(f"exp(mean of the lines' means)     {means.mean().exp():6.1f}")
print(f"mean of the lines' perplexities   {means.exp().mean():6.1f}")

# %% [markdown]
# Only the first is a perplexity. The second gives a token of a short line more weight; the third averages after exp, and a few hopeless lines rule it.
# All three are far above what about the same tokens cost in windows of 512, the next section's subject: 25.4: a line by itself has lost its context.

# %% [markdown]
# ## Background 2: the windows are part of the measurement
#
# A model reads at most *n_ctx* tokens at once, and a text is longer. Where it is cut decides how many tokens stand before each scored
# one. The cell reads the course model's evaluation text (Python's language reference) in 16 windows of 512 tokens and sorts the losses by
# their place in the window.

# %% tags=["experiment"]
windows = tokens[: 16 * 512].view(16, 512)
with torch.inference_mode():
    by_place = torch.cat(
        [-course_model(some)[:, :-1].log_softmax(-1).gather(2, some[:, 1:, None])[..., 0] for some in windows.split(2)]
    )  # (16, 511): the loss of a token that has 1, 2, … 511 tokens before it

edges = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 511]
in_bins = torch.stack([by_place[:, low:high].mean(1) for low, high in zip(edges, edges[1:])])  # (bins, 16)
heights, errors = in_bins.mean(1), in_bins.std(1) / 4  # standard errors over the 16 windows
middles = [math.sqrt((low + 1) * (high + 1)) for low, high in zip(edges, edges[1:])]
everything, second_half = by_place.mean().item(), by_place[:, 256:].mean().item()

figure, axes = plt.subplots(figsize=(7.5, 3.6))
axes.stairs(heights, [edge + 1 for edge in edges], baseline=None, color="C0", linewidth=2)
axes.errorbar(middles, heights, errors, fmt="none", color="C0", capsize=3)
axes.hlines(everything, 1, 512, color="C1")
axes.text(1.1, everything - 0.12, f"all 511: perplexity {math.exp(everything):.1f}", color="C1", va="top")
axes.hlines(second_half, 257, 512, color="C3")
axes.text(512, second_half - 0.12, f"second half: {math.exp(second_half):.1f}", color="C3", ha="right", va="top")
axes.set(
    xscale="log",
    xlabel="tokens before the scored one, within its window",
    ylabel="mean loss, nats",
    title="course model: what a token costs, by its place in a window of 512",
    ylim=(2.4, 7.2),
)
axes.set_xticks([1, 2, 4, 8, 16, 32, 64, 128, 256, 512], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512])
axes.minorticks_off()
axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# The bars are standard errors over the 16 windows. One model, one text, one tokenizer: which of these losses are averaged is a convention. Three occur below.
#
# ```
# text                 0 1 2 3 4 5 6 7 8 9 …                 · read, not scored   # read and scored
#
# disjoint             · # # # # # # #                       a window's first token has nothing
#                                      · # # # # # # #       before it
#
# llama-perplexity     · · · · · # # #                       the first half only warms the
#                                      · · · · · # # #       model up
#
# sliding, stride 4    · # # # # # # #                       every token but the first is scored
#                              · · · · # # # #               once, with half a window before it
#                                      · · · · # # # #       or more
# ```

# %% [markdown]
# ## Background 3: four numbers of one model
#
# Llama-2-7B, 16 bits, test set of WikiText-2:
#
# | figure | per | windows | scored | where it is printed |
# |--:|:--|:--|:--|:--|
# | 5.12 | token | 4 096 tokens, disjoint | all but each window's first | issue 3 of xvyaward/owq |
# | 5.47 | token | 2 048 tokens, disjoint | all but each window's first | the same issue; issue 2301 of lm-evaluation-harness quotes it from papers |
# | 5.7946 | token | 512 tokens, disjoint, each begun by a BOS | second half | llama.cpp, `tools/perplexity/README.md` |
# | 8.7071 | **word** | documents, rolling | all | issue 2301 of lm-evaluation-harness |
#
# The last divides the nats by the number of *words*, counted in the text before it is detokenized
# (`lm_eval/tasks/wikitext/preprocess_wikitext.py`; it splits at Unicode's whitespace and counts the empty strings at the ends). Issue 560 of Hugging Face's `evaluate` adds a fifth, 60.98: every line of the file by itself, and
# then the mean of the lines' perplexities. You will write all the parts of which such numbers are made.

# %% [markdown]
# ## Exercises
#
# Tensors are CPU tensors of torch; functions leave their arguments as they are. A number may be returned as a Python number or as a
# tensor or array of one element. Use torch or numpy; results of more than one element are tensors. `quant_kernels` is not there when your answer is graded. The exercises do not build on one
# another: each is scored alone.

# %%
import math

import numpy as np
import torch

# %% [markdown]
# ### Exercise (a): perplexity from logits
#
# *7 minutes, 6 points: 3 for shift, padding and weights, 2 for numerics, 1 for infinity and errors*
#
# ```
# corpus_perplexity   chunks: list of (logits, ids)  →  (perplexity, count)
#
#   logits  float16 or float32 (B, T, V)          ids       a   b   c  −100     one row, padded
#   ids     int64 (B, T); −100 is not scored,     logits    l0  l1  l2  l3
#           wherever it stands in a row                       ╲   ╲
#                                                 scored        b   c           by l0 and l1
# ```
#
# | | |
# |:--|:--|
# | Scored | every `ids[b, t]` with t ≥ 1 that is not −100, by `logits[b, t − 1]` |
# | Loss | −ln softmax(logits)[id], computed in float32 or float64 |
# | Perplexity | `exp(Σ losses / count)`: one sum and one count over **all** chunks, whose B, T and padding differ (V does not) |
# | `count` | the number of scored tokens, an integer |
# | Logits | finite numbers of any size, in float32 up to 10⁵; −∞ rules a token out. Where nothing is scored they may hold NaN |
# | Infinite | a mean too large for `exp` in float64 (above 709.78), or the loss of a token that is ruled out: `math.inf` |
# | Error | `ValueError` if no token is scored |
# | Tolerance | relative 10⁻⁴ + 2⁻²² · M, where M is the largest finite \|logit\|: float32 keeps 24 bits of a logit |


# %% nbgrader={"grade": false, "grade_id": "corpus", "locked": false, "schema_version": 3, "solution": true, "task": false}
def corpus_perplexity(chunks):
    """Perplexity of all scored tokens of chunks `(logits (B, T, V), ids (B, T))`, and their number.

    ids of −100 are not scored. ValueError if no token is.
    """
    ### BEGIN SOLUTION
    nats, count = 0.0, 0
    for logits, ids in chunks:
        targets = ids[:, 1:]
        scored = targets != -100  # (B, T - 1)
        rows = logits[:, :-1][scored].float().log_softmax(-1)  # (n, V)
        losses = -rows.gather(1, targets[scored][:, None])  # (n, 1)
        nats += losses.double().sum().item()
        count += len(losses)
    if count == 0:
        raise ValueError("no token is scored")
    mean = nats / count
    return math.exp(mean) if mean < 709.78 else math.inf, count
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Which of the T logits of a row predict something, and which of the T ids are predicted? Neither number is T.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Pick the scored rows of the logits with a boolean mask before you compute anything, so that NaN rows and the index −100 never occur. Widen to
# float32 before `log_softmax`: in float16, e^11.1 is already infinite, and a loss of 9 is rounded to a 128th. Keep a sum and a count.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# for each chunk:
#     wanted = ids without the first column;  mask = wanted is not -100
#     log_p = (logits without the last position)[mask], widened, log_softmax over V
#     total -= sum of log_p at (row, wanted[mask]);  n += number of rows
# n == 0: ValueError
# return exp(total / n) or inf, n
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-corpus", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
import math

import torch

from course.checks import Points, check_close, check_equal, check_raises


def check_corpus(chunks, value, count, what, mistakes=None, counts=None):
    try:
        got = corpus_perplexity(chunks)
    except OverflowError:
        raise AssertionError(f"{what}: OverflowError; for a mean loss above 709.78 the result is math.inf") from None
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    assert isinstance(got, tuple | list) and len(got) == 2, f"{what}: expected (perplexity, count), got {got!r:.80}"
    check_equal(got[1], count, f"{what}, count", counts)
    if math.isinf(value):
        check_close(got[0], value, 0.0, what, "exp overflows, or a token is ruled out")
        return
    assert torch.as_tensor(got[0], dtype=torch.float64).isfinite().all(), (
        f"{what}: got {got[0]}, expected {value:.6g}: exp overflows (in float32 beyond e^88.7), or a softmax "
        "underflows to 0 before its logarithm, or a position that is not scored takes part"
    )
    peak = max(logits[logits.isfinite()].abs().max().item() for logits, _ in chunks)
    why = f"relative 10⁻⁴ + 2⁻²² · {peak:.3g}"
    check_close(got[0], value, value * (1e-4 + 2**-22 * peak), what, why, mistakes)


### BEGIN HIDDEN TESTS
import torch.nn.functional as F


def losses_of(logits, ids):
    targets = ids[:, 1:]
    scored = targets != -100
    rows = logits[:, :-1][scored].double()
    return F.cross_entropy(rows, targets[scored], reduction="none")


def expected(chunks):
    losses = torch.cat([losses_of(*chunk) for chunk in chunks])
    return losses.mean().exp().item(), len(losses)


def per_chunk(chunks):
    return [losses_of(*chunk).mean() for chunk in chunks if len(losses_of(*chunk))]


def shifted(chunks, by):
    """What a wrong shift gives: logits[t] score ids[t + by]."""
    losses = []
    for logits, ids in chunks:
        rows = logits[:, 1:].nan_to_num(nan=0.0)
        targets = ids[:, 1:] if by == 0 else ids[:, :-1]
        scored = targets != -100
        losses.append(F.cross_entropy(rows[scored].double(), targets[scored], reduction="none"))
    mean = torch.cat(losses).mean().item()
    return math.exp(mean) if mean < 709 else math.inf


def through(chunks, log_p):
    """What another logarithm of the softmax gives; log_p takes logits (n, V)."""
    total, count = 0.0, 0
    for logits, ids in chunks:
        targets = ids[:, 1:]
        scored = targets != -100
        total -= log_p(logits[:, :-1][scored]).gather(1, targets[scored][:, None]).double().sum().item()
        count += int(scored.sum())
    return math.exp(total / count) if total / count < 700 else math.inf


def half_sum(chunks):
    """What a sum in float16 gives, token by token."""
    nats, count = torch.zeros((), dtype=torch.float16), 0
    for chunk in chunks:
        for loss in losses_of(*chunk).half():
            nats, count = nats + loss, count + 1
    return math.exp(nats.item() / count) if nats.item() / count < 709 else math.inf


def mistakes_of(chunks):
    total = sum(losses_of(*chunk).sum().item() for chunk in chunks)
    count = sum(int((ids[:, 1:] != -100).sum()) for _, ids in chunks)
    places = sum(ids[:, 1:].numel() for _, ids in chunks)
    return {
        "logits[t] score ids[t], not ids[t + 1]": lambda: shifted(chunks, 0),
        "logits[t] score ids[t − 1]: the shift goes the wrong way": lambda: shifted(chunks, -1),
        "perplexities of chunks are averaged; sum the losses and divide once": lambda: (
            torch.stack(per_chunk(chunks)).exp().mean().item()
        ),
        "the means of chunks are averaged; every token counts alike": lambda: (
            torch.stack(per_chunk(chunks)).mean().exp().item()
        ),
        "padding counts in the divisor": math.exp(total / places),
        "the sum is divided by T, not by the number of scored tokens": math.exp(
            total / sum(ids.numel() for _, ids in chunks)
        ),
        "losses are in nats, but the result is 2 to the power of their mean": 2 ** (total / count),
        "the sum of the losses is kept in float16": lambda: half_sum(chunks),
        "log-softmax is computed in float16": lambda: through(chunks, lambda rows: rows.half().log_softmax(-1)),
        "a small number is added to p before the logarithm": lambda: through(
            chunks, lambda rows: (rows.double().softmax(-1) + 1e-10).log()
        ),
        "a smaller number is added to p before the logarithm": lambda: through(
            chunks, lambda rows: (rows.double().softmax(-1) + 1e-12).log()
        ),
    }


generator = torch.Generator().manual_seed(901)


def random_chunk(rows, length, vocab, scale=2.0, dtype=torch.float32, padded=()):
    logits = torch.randn(rows, length, vocab, generator=generator) * scale
    ids = torch.randint(0, vocab, (rows, length), generator=generator)
    for row, keep in padded:
        ids[row, keep:] = -100
        logits[row, keep:] = math.nan  # these predict nothing
    return logits.to(dtype), ids


def check_cases(cases):
    for name, chunks in cases.items():
        value, count = expected(chunks)
        counts = {
            "the first token of a row is counted; nothing predicts it": sum(
                int((ids != -100).sum()) for _, ids in chunks
            ),
            "padding is counted": sum(ids[:, 1:].numel() for _, ids in chunks),
            "padding and the first token of a row are counted": sum(ids.numel() for _, ids in chunks),
        }
        check_corpus(chunks, value, count, f"corpus_perplexity, {name}", mistakes_of(chunks), counts)


big = torch.randn(2, 9, 40, generator=generator) * 3 + 1e5
behind = random_chunk(3, 12, 30)
behind[1][0, :7] = behind[1][1, 4:6] = -100
far = torch.zeros(1, 62, 12)
far[0, 30, 0] = 2000.0  # the token after place 30 has a loss of 2000, among 61
strided = torch.randn(40, 12, 3, generator=generator).permute(2, 1, 0)
ruled_out = torch.randn(2, 6, 20, generator=generator)
ruled_out[..., 16:] = -math.inf  # a vocabulary padded from 16 to 20
cases = {
    "chunks of different length": [random_chunk(1, 30, 64), random_chunk(4, 5, 64, 4.0), random_chunk(2, 2, 64, 6.0)],
    "rows of different length": [
        random_chunk(4, 20, 50, padded=((0, 3), (1, 20), (2, 1), (3, 11))),
        random_chunk(2, 6, 50, padded=((1, 2),)),
    ],
    "a chunk of padding alone": [random_chunk(1, 8, 30), random_chunk(2, 8, 30, padded=((0, 0), (1, 1)))],
    "logits that are not contiguous": [(strided, torch.randint(0, 40, (3, 12), generator=generator))],
    "a row of two tokens": [random_chunk(1, 2, 9)],
    "ids of −100 in front and between": [behind, random_chunk(1, 4, 30)],
}
numbers = {
    "float16 logits": [random_chunk(1, 4, 300, 3.0, torch.float16), random_chunk(1, 3, 300, 3.0, torch.float16)],
    "float16 logits around 30 000": [
        (
            (torch.randn(2, 8, 20, generator=generator) * 40 + 3e4).half(),
            torch.randint(0, 20, (2, 8), generator=generator),
        )
    ],
    "logits around 100 000": [(big, torch.randint(0, 40, (2, 9), generator=generator))],
    "one token with a loss of 2 000": [(far, torch.ones(1, 62, dtype=torch.int64))],
    "tokens that are ruled out": [(ruled_out, torch.randint(0, 16, (2, 6), generator=generator))],
    "one float16 loss": [random_chunk(1, 2, 300, 5.0, torch.float16)],
    "a mean loss of 200": [(far[:, 25:36], torch.ones(1, 11, dtype=torch.int64))],
    "a mean loss of 667": [(far[:, 29:33], torch.ones(1, 4, dtype=torch.int64))],
}
### END HIDDEN TESTS

points = Points()
with points.part(3, "shift, padding, weights"):
    # token 0 has p = 1/2, 1 has 1/4, 2 has 1/8, 3 has 1/8, wherever it stands: losses of 1, 2, 3 and 3 times ln 2
    table = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    chunks = [
        (table.expand(1, 5, 4).clone(), torch.tensor([[3, 0, 0, 0, 0]])),  # 4 scored: 1 + 1 + 1 + 1
        (table.expand(2, 3, 4).clone(), torch.tensor([[0, 3, -100], [3, 2, -100]])),  # 2 scored: 3 + 3
    ]
    mistakes = {
        "perplexities of chunks are averaged; sum the losses and divide once": 5.0,
        "the means of chunks are averaged; every token counts alike": 4.0,
        "losses are in nats, but the result is 2 to the power of their mean": 2 ** (math.log(2) * 10 / 6),
        "padding counts in the divisor": 2 ** (10 / 8),
    }
    counts = {"the first token of a row is counted; nothing predicts it": 9, "padding is counted": 8}
    check_corpus(
        chunks,
        2 ** (10 / 6),
        6,
        "corpus_perplexity of two chunks, losses 1, 1, 1, 1, 3, 3 times ln 2",
        mistakes,
        counts,
    )
    uniform = [(torch.full((2, 7, 50), 3.0), torch.arange(14).view(2, 7))]
    check_corpus(uniform, 50.0, 12, "corpus_perplexity of a model that knows nothing, V = 50")
    eye = torch.eye(10)
    knows = [
        (9 * eye[3:8][None] + 6 * eye[2:7][None], torch.arange(2, 7)[None])
    ]  # 9 for the next id, 6 for the present one
    rest = 8 + math.exp(9) + math.exp(6)
    mistakes = {
        "logits[t] score ids[t], not ids[t + 1]": rest / math.exp(6),
        "logits[t] score ids[t − 1]: the shift goes the wrong way": rest,
    }
    check_corpus(
        knows, rest / math.exp(9), 4, "corpus_perplexity of a model that is rather sure of the next id", mistakes
    )
    ### BEGIN HIDDEN TESTS
    check_cases(cases)
    ### END HIDDEN TESTS
with points.part(2, "numerics"):
    high = [(torch.full((1, 4, 8), 6e4).half(), torch.arange(4)[None])]
    check_corpus(high, 8.0, 3, "corpus_perplexity of float16 logits that are all 60 000, V = 8")
    ### BEGIN HIDDEN TESTS
    check_cases(numbers)
    ### END HIDDEN TESTS
with points.part(1, "infinity and errors"):
    for rows in (1, 2):
        nothing = [(torch.zeros(rows, 1, 4), torch.zeros(rows, 1, dtype=torch.int64))]
        check_raises(ValueError, f"corpus_perplexity of {rows} rows of one token", corpus_perplexity, nothing)
    ### BEGIN HIDDEN TESTS
    ruled = torch.zeros(1, 3, 4)
    ruled[..., 2] = -math.inf
    check_corpus([(ruled, torch.tensor([[0, 2, 1]]))], math.inf, 2, "corpus_perplexity, a ruled-out token in the text")
    hopeless = torch.zeros(1, 3, 4)
    hopeless[..., 1] = 5000.0
    check_corpus([(hopeless, torch.tensor([[0, 2, 0]]))], math.inf, 2, "corpus_perplexity, mean loss 5 000")
    padding = [(torch.zeros(2, 5, 4), torch.full((2, 5), -100))]
    for name, chunks in {"padding alone": padding, "no chunk": []}.items():
        check_raises(ValueError, f"corpus_perplexity of {name}", corpus_perplexity, chunks)
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ### Exercise (b): llama-perplexity's windows
#
# *7 minutes, 5 points: 2 for the inputs, 3 for the targets*
#
# ```
# llama_windows   ids: int64 (n,), n_ctx: int, bos: int or None  →  (inputs, targets), int64 (W, n_ctx)
#
# ids            10 11 12 13 14 15 16 17 │ 18 19 20 21 22 23 24 25 │ 26 27 28       n = 19, n_ctx = 8
#
# inputs[0]      B  11 12 13 14 15 16 17                                            B: the BOS
# targets[0]     .  .  .  .  15 16 17 .                                             . : −100
#
# inputs[1]                                B  19 20 21 22 23 24 25
# targets[1]                               .  .  .  .  23 24 25 .
# ```
#
# Plan what llama.cpp's tool of that name reads and scores. `inputs` are the tokens that the model is given. `targets[w, t]` is the token that the
# **logits at position t** are scored with, or −100 where they score nothing. So the targets are shifted already.
#
# | | |
# |:--|:--|
# | Windows | W = n // n_ctx windows of n_ctx tokens, one after another; the tokens that fill none are dropped |
# | `ids` | as the tool tokenizes the text: for a file that asks for a BOS they begin with one |
# | BOS | where `bos` is not None it **replaces** the first token of each window, not only of the first |
# | Scored | the logits at positions n_ctx // 2 … n_ctx − 2, each with the token of the text that follows |
# | Error | `ValueError` for n < n_ctx, or n_ctx < 3 |
# | Tolerance | none |
#
# Source: `tools/perplexity/perplexity.cpp` in llama.cpp. (The tool itself asks for two windows or more; one is enough here.)


# %% nbgrader={"grade": false, "grade_id": "windows", "locked": false, "schema_version": 3, "solution": true, "task": false}
def llama_windows(ids, n_ctx, bos=None):
    """What llama-perplexity reads and scores of ids `(n,)`: inputs and targets, int64 `(n // n_ctx, n_ctx)`.

    ValueError if the ids do not fill a window, or if a window would score nothing.
    """
    ### BEGIN SOLUTION
    if n_ctx < 3 or len(ids) < n_ctx:
        raise ValueError(f"{len(ids)} tokens in windows of {n_ctx} score nothing")
    inputs = ids[: len(ids) // n_ctx * n_ctx].view(-1, n_ctx).clone()
    targets = torch.full_like(inputs, -100)
    targets[:, n_ctx // 2 : -1] = inputs[:, n_ctx // 2 + 1 :]
    if bos is not None:
        inputs[:, 0] = bos
    return inputs, targets
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# How many logits score in a window of 8? Count the digits in the third line of the drawing. Neither 4 nor 5.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Cut the ids to a whole number of windows and reshape. The targets are a tensor full of −100, into which one slice of the windows is
# written, moved by one place. Make the BOS's change on a copy.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# table = ids, cut to whole windows, as (W, n_ctx), copied
# wanted = same shape, all -100
# wanted[:, half up to but without the last] = table[:, half + 1 up to the end]
# table[:, 0] = bos, if there is one
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-windows", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import Points, check_equal, check_raises


def variant(ids, n_ctx, first=None, last=None, by=1):
    """Targets of logits first … last − 1 of each window, taken `by` places further on in the text."""
    rows = ids[: len(ids) // n_ctx * n_ctx].view(-1, n_ctx)
    following = torch.cat([ids, torch.full((1,), -100)])
    first = n_ctx // 2 if first is None else first
    last = n_ctx - 1 if last is None else last
    table = torch.full_like(rows, -100)
    for w in range(len(rows)):
        at = torch.arange(w * n_ctx + first, w * n_ctx + last)
        table[w, first:last] = following[at + by]
    return table


def mistaken_inputs(ids, n_ctx, bos, right):
    plain = ids[: right.numel()].view(-1, n_ctx)
    put = torch.full((len(plain), 1), 0 if bos is None else bos)
    half_apart = ids.unfold(0, n_ctx, n_ctx // 2).clone()
    padded = torch.cat([ids, torch.zeros(-len(ids) % n_ctx, dtype=torch.int64)]).view(-1, n_ctx)
    if bos is not None:
        half_apart[:, 0] = padded[:, 0] = bos
    return {
        "the BOS 0 is taken for no BOS": plain if bos == 0 else right,
        "there is no BOS": plain,
        "the BOS goes into the first window only": torch.cat([right[:1], plain[1:]]),
        "the BOS pushes the tokens along; it replaces the first": torch.cat([put, plain[:, :-1]], 1),
        "the BOS stands in front of the window, which grows by one token": torch.cat([put, plain], 1),
        "the tail is padded to one more window; it is dropped": padded,
        "windows overlap by half; they follow one another": half_apart,
    }


def mistaken_targets(ids, n_ctx):
    half = n_ctx // 2
    return {
        "of an odd n_ctx the half is rounded up; n_ctx // 2 rounds down": variant(ids, n_ctx, (n_ctx + 1) // 2),
        "the logits at n_ctx // 2 − 1 score too; the first to score are those at n_ctx // 2": variant(
            ids, n_ctx, half - 1
        ),
        "the last logits score the next window's first token": variant(ids, n_ctx, half, n_ctx),
        "targets[t] is the token at t; it must be the one that the logits at t predict": variant(
            ids, n_ctx, half + 1, n_ctx, 0
        ),
        "the second half of the ids stands there unshifted": variant(ids, n_ctx, half, n_ctx, 0),
        "the first half is scored, not the second": variant(ids, n_ctx, 0, half - 1),
        "the whole window is scored": variant(ids, n_ctx, 0),
        "the first to score are the logits at n_ctx // 2 + 1; it is those at n_ctx // 2": variant(ids, n_ctx, half + 1),
        "the last logits score their own window's first token": torch.cat(
            [variant(ids, n_ctx)[:, :-1], ids[: len(ids) // n_ctx * n_ctx : n_ctx][:, None]], 1
        ),
    }


def check_windows(which, ids, n_ctx, bos, rows, wanted, what):
    try:
        got = llama_windows(ids, n_ctx, bos)
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    assert isinstance(got, tuple | list) and len(got) == 2, f"{what}: expected (inputs, targets)"
    if which == "inputs":
        check_equal(got[0], rows, f"{what}, inputs", mistaken_inputs(ids, n_ctx, bos, rows))
    else:
        check_equal(got[1], wanted, f"{what}, targets", mistaken_targets(ids, n_ctx))


rows = torch.tensor([[1, 11, 12, 13, 14, 15, 16, 17], [1, 19, 20, 21, 22, 23, 24, 25]])
no = -100
wanted = torch.tensor([[no, no, no, no, 15, 16, 17, no], [no, no, no, no, 23, 24, 25, no]])
what = "llama_windows of 10, 11, … 28 with n_ctx 8 and BOS 1"
plans = {what: (torch.arange(10, 29), 8, 1, rows, wanted)}
### BEGIN HIDDEN TESTS
from quant_kernels.measures.windows import Plan, half_windows


def planned(ids, n_ctx, bos):
    """Inputs and targets as the reference plans them."""
    plan = Plan(ids, half_windows(len(ids), n_ctx), n_ctx, bos_id=bos)
    inputs, targets = [], []
    for rows, first in plan.batches():
        wanted = torch.full_like(rows, -100)
        wanted[:, first:-1] = rows[:, first + 1 :]
        inputs.append(rows)
        targets.append(wanted)
    return torch.cat(inputs), torch.cat(targets)


generator = torch.Generator().manual_seed(902)
sizes = [(40, 8, None), (41, 8, 0), (47, 8, 99), (27, 9, 7), (33, 11, None), (12, 3, 5), (13, 4, None), (64, 64, 2)]
for n, n_ctx, bos in [*sizes, (640, 128, 3)]:
    ids = torch.randint(100, 1000, (n,), generator=generator)
    what = f"llama_windows of {n} tokens with n_ctx {n_ctx} and BOS {bos}"
    plans[what] = (ids, n_ctx, bos, *planned(ids, n_ctx, bos))
ids = torch.randint(0, 5, (40,), generator=generator)
plans["llama_windows of 40 tokens, the BOS 3 among them, n_ctx 8"] = (ids, 8, 3, *planned(ids, 8, 3))
ids = torch.arange(200, 296)[::2]
for bos in (None, 4):
    plans[f"llama_windows of ids that are not contiguous, BOS {bos}"] = (ids, 10, bos, *planned(ids, 10, bos))
### END HIDDEN TESTS

points = Points()
with points.part(2, "inputs"):
    for what, plan in plans.items():
        check_windows("inputs", *plan, what)
with points.part(3, "targets and errors"):
    for what, plan in plans.items():
        check_windows("targets", *plan, what)
    for n, n_ctx in ((7, 8), (0, 4), (9, 2)):
        what = f"llama_windows of {n} tokens with n_ctx {n_ctx}"
        check_raises(ValueError, what, llama_windows, torch.arange(n), n_ctx, None)
points.earned

# %% [markdown]
# ### Exercise (c): sliding windows that count each token once
#
# *8 minutes, 5 points: 4 for the windows, 1 for the mean*
#
# ```
# sliding_windows   n_tokens, n_ctx, stride: int   →  list of tuples of int (start, scored, stop)
# mean_context      windows: list of such tuples   →  float
#
# n_tokens = 11, n_ctx = 6, stride = 2
#
# token          0  1  2  3  4  5  6  7  8  9  10
# (0, 1, 6)      ·  #  #  #  #  #
# (2, 6, 8)            ·  ·  ·  ·  #  #
# (4, 8, 10)                 ·  ·  ·  ·  #  #
# (6, 10, 11)                      ·  ·  ·  ·  #            the last is shorter, and scores what is left
# ```
#
# The model reads tokens start … stop − 1 and tokens scored … stop − 1 are scored.
#
# | | |
# |:--|:--|
# | Start | 0, stride, 2 · stride, … |
# | `stop` | start + n_ctx, or n_tokens if that is less. The first window that reaches n_tokens is the last one |
# | `scored` | tokens that no window before has scored: the window before's `stop`; but a window's own first token is never scored, since nothing stands before it |
# | Left out | a window that would score nothing |
# | Error | `ValueError` for n_ctx < 2, or a stride that is not in 1 … n_ctx, whatever n_tokens. Else fewer than 2 tokens give an empty list |
# | `mean_context` | over all scored tokens of all windows: the mean number of tokens that stand before the scored one in its window. A token that two windows score counts in both. `ValueError` if none is scored. Tolerance 10⁻⁹ relative: sums of integers |
#
# In the drawing token 1 has 1 token before it, token 5 has 5, tokens 6, 8, 10 have 4 and 7 and 9 have 5: 37 / 10 = 3.7.
# `mean_context` takes any such list, also one of windows that follow another convention.


# %% nbgrader={"grade": false, "grade_id": "sliding", "locked": false, "schema_version": 3, "solution": true, "task": false}
def sliding_windows(n_tokens, n_ctx, stride):
    """Windows (start, scored, stop) that score every token once that has a token before it in its window.

    ValueError for n_ctx below 2 or a stride that is not in 1 to n_ctx.
    """
    ### BEGIN SOLUTION
    if n_ctx < 2 or not 1 <= stride <= n_ctx:
        raise ValueError(f"stride {stride} does not suit windows of {n_ctx}")
    windows, start, done = [], 0, 0
    while done < n_tokens:
        stop = min(start + n_ctx, n_tokens)
        scored = max(done, start + 1)
        if scored < stop:
            windows.append((start, scored, stop))
        start, done = start + stride, stop
    return windows
    ### END SOLUTION


def mean_context(windows):
    """Mean number of tokens before a scored token in its window, over the scored tokens of all windows."""
    ### BEGIN SOLUTION
    contexts = [token - start for start, scored, stop in windows for token in range(scored, stop)]
    if not contexts:
        raise ValueError("no token is scored")
    return sum(contexts) / len(contexts)
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Remember one number from window to window: where the last one stopped. Then try stride = n_ctx and n_tokens = 13, n_ctx = 6 by hand.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Loop until the stop has reached n_tokens, not until the start has. The count of fresh tokens is *stop − done*, which is the stride only in the
# middle: the first window has more, the last one fewer. The larger of *done* and *start + 1* is where scoring begins.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# begin = reached = 0
# while reached < n_tokens:
#     end = min(begin + n_ctx, n_tokens)
#     first = max(reached, begin + 1);  keep (begin, first, end) if first < end
#     begin, reached = begin + stride, end
# # mean: sum of (i - begin) over the scored i of all windows, divided by how many there are
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-sliding", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
import torch

from course.checks import Points, check_close, check_equal, check_raises


def as_table(windows):
    rows = [tuple(int(number) for number in window) for window in windows]
    return torch.tensor(rows, dtype=torch.int64).view(len(rows), 3) if rows else torch.empty(0, 3, dtype=torch.int64)


def overlapping(n_tokens, n_ctx, stride, from_first=1):
    """Every window scores all of its tokens, from its place `from_first` on."""
    starts = range(0, max(1, n_tokens - n_ctx + stride), stride)
    return [(start, start + from_first, min(start + n_ctx, n_tokens)) for start in starts]


def mistaken_windows(n_tokens, n_ctx, stride):
    """What misconceptions give, as tables."""
    right = overlapping(n_tokens, n_ctx, stride)
    ends = [0] + [stop for _, _, stop in right]
    with_first = [(start, max(done, start), stop) for (start, _, stop), done in zip(right, ends)]
    later_first = [(start, max(scored, 1), stop) for start, scored, stop in with_first]
    moved_back = [(max(0, stop - n_ctx), scored, stop) for start, scored, stop in later_first]
    whole = range(0, n_tokens - n_ctx + 1, stride)
    in_full = [(start, max(start + 1, start + n_ctx - stride) if start else 1, start + n_ctx) for start in whole]
    fixed = [(start, max(start + 1, stop - stride) if start else 1, stop) for start, _, stop in right]
    first_less = [(start, max(start + 1, start + n_ctx - stride), stop) for start, _, stop in right]
    to_the_end = [
        (start, max(done, start + 1), min(start + n_ctx, n_tokens))
        for start, done in zip(
            range(0, n_tokens, stride), [0] + [min(s + n_ctx, n_tokens) for s in range(0, n_tokens, stride)]
        )
    ]
    return {
        "tokens in the overlap are scored again; each counts once": lambda: as_table(right),
        "the first token of a window is scored; nothing stands before it": lambda: as_table(with_first),
        "the first token of a later window is scored; nothing stands before it": lambda: as_table(later_first),
        "the last window is moved back until it is full; starts are multiples of the stride": lambda: as_table(
            moved_back
        ),
        "the tail that fills no window is dropped": lambda: as_table(in_full),
        "every window scores `stride` tokens, the short last one too": lambda: as_table(fixed),
        "the first window scores `stride` tokens only": lambda: as_table(first_less),
        "windows go on after one has reached the end": lambda: as_table(to_the_end),
        "windows that score nothing are kept": lambda: as_table(
            [(s, max(d, s + 1), e) for (s, _, e), d in zip(right, ends)]
        ),
    }


points = Points()
with points.part(4, "windows"):
    for arguments, right in {
        (11, 6, 2): [(0, 1, 6), (2, 6, 8), (4, 8, 10), (6, 10, 11)],
        (8, 4, 4): [(0, 1, 4), (4, 5, 8)],
        (10, 4, 2): [(0, 1, 4), (2, 4, 6), (4, 6, 8), (6, 8, 10)],
        (5, 8, 3): [(0, 1, 5)],
    }.items():
        what = "sliding_windows of {} tokens, n_ctx {}, stride {}".format(*arguments)
        check_equal(as_table(sliding_windows(*arguments)), as_table(right), what, mistaken_windows(*arguments))
    for arguments in ((9, 4, 0), (9, 4, 5), (9, 4, -1), (9, 1, 1), (9, 0, 0), (1, 4, 5)):
        what = "sliding_windows of {} tokens, n_ctx {}, stride {}".format(*arguments)
        check_raises(ValueError, what, sliding_windows, *arguments)
    ### BEGIN HIDDEN TESTS
    from quant_kernels.measures.windows import strided_windows

    cases = [
        (n, n_ctx, stride)
        for n_ctx in (2, 5, 8)
        for stride in (1, 2, 3, n_ctx)
        if stride <= n_ctx
        for n in (2, n_ctx, n_ctx + 1, 2 * n_ctx, 2 * n_ctx + 1, 23)
    ]
    for arguments in [*cases, (0, 4, 2), (1, 4, 2), (1000, 64, 48), (4097, 512, 256)]:
        what = "sliding_windows of {} tokens, n_ctx {}, stride {}".format(*arguments)
        right = as_table(strided_windows(*arguments))
        got = sliding_windows(*arguments)
        check_equal(as_table(got), right, what, mistaken_windows(*arguments))
        scored = [token for _, first, stop in got for token in range(first, stop)]
        assert len(set(scored)) == len(scored), f"{what}: a token is scored twice"
    ### END HIDDEN TESTS
with points.part(1, "mean context"):
    windows = [(0, 1, 6), (2, 6, 8), (4, 8, 10), (6, 10, 11)]
    mistakes = {
        "the scored token counts itself": 4.7,
        "the means of windows are averaged; every token counts alike": (3 + 4.5 + 4.5 + 4) / 4,
        "the tokens that are read are averaged over, not those that are scored": 2.5 * 6 * 3 / 23 + 2 * 5 / 23,
        "tokens before the text's token are counted, not before it in its window": 5.5,
    }
    what = "mean_context of the windows in the drawing"
    check_close(mean_context(windows), 3.7, 1e-8, what, "10⁻⁹ relative", mistakes)
    for windows in ([], [(3, 4, 4)]):
        check_raises(ValueError, f"mean_context of {windows}", mean_context, windows)
    ### BEGIN HIDDEN TESTS
    from quant_kernels.measures.windows import half_windows, strided_windows

    plans = {
        "llama-perplexity's windows of 512": [tuple(w) for w in half_windows(5000, 512)],
        "windows of 512, stride 256": [tuple(w) for w in strided_windows(5000, 512, 256)],
        "windows of 6 with stride 1": [tuple(w) for w in strided_windows(40, 6, 1)],
        "one window": [(7, 9, 10)],
        "a window that scores its first token": [(0, 0, 4)],
        "windows that score tokens twice": [(0, 1, 4), (2, 3, 6), (8, 9, 9)],
    }
    for name, plan in plans.items():
        contexts = [torch.arange(scored - start, stop - start).double() for start, scored, stop in plan]
        right = torch.cat(contexts).mean().item()
        mistakes = {
            "the scored token counts itself": right + 1,
            "the means of windows are averaged; every token counts alike": torch.stack(
                [context.mean() for context in contexts if len(context)]
            )
            .mean()
            .item(),
            "tokens before the text's token are counted, not before it in its window": torch.cat(
                [torch.arange(scored, stop).double() for _, scored, stop in plan]
            )
            .mean()
            .item(),
        }
        check_close(mean_context(plan), right, 1e-9 * right, f"mean_context, {name}", "10⁻⁹ relative", mistakes)
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ### Exercise (d): per token, per word, per byte
#
# *7 minutes, 4 points: 2 for the units, 2 for the conversion*
#
# ```
# text_units   pieces: list of n bytes objects, scored: bool tensor (n,)  →  (n_bytes, n_words), ints
# per_text     perplexity: float, n_tokens, n_bytes, n_words: int  →  (bits_per_byte, word_perplexity)
#
# pieces    b"Zw"  b"\xc3"  b"\xb6"  b"lf Bo"  b"xk"  b"\xc3\xa4mp"  b"fer\n"       “Zwölf Boxkämpfer\n”
# scored      no     yes      yes       yes      no        no           no          7 bytes, 1 word: Box…
# ```
#
# Token perplexity depends on how the tokenizer cuts the text: fewer, longer tokens mean more nats for each. Per byte and per word the same text counts
# alike for all models. Byte-level tokenizers may cut a character in two, so pieces are bytes, and only joined are they the text.
#
# | | |
# |:--|:--|
# | `n_bytes` | the bytes of the scored pieces; a piece may be empty, and an empty list gives (0, 0) |
# | Words | what `bytes.split()` splits the joined text into: runs without the ASCII whitespace space, `\t`, `\n`, `\v`, `\f`, `\r`. No other byte separates |
# | `n_words` | a word counts if its **first byte** lies in a scored piece, wherever it ends |
# | `bits_per_byte` | the scored tokens' bits (nats / ln 2) divided by n_bytes |
# | `word_perplexity` | the exponential of the scored tokens' nats divided by n_words; `math.inf` if that is too large for float64 |
# | Given | `perplexity` is per token, over n_tokens scored tokens, finite and at least 1. `ValueError` if n_tokens, n_bytes or n_words is below 1 |
# | Tolerance | 10⁻⁹ relative: float64 |


# %% nbgrader={"grade": false, "grade_id": "units", "locked": false, "schema_version": 3, "solution": true, "task": false}
def text_units(pieces, scored):
    """Bytes of the scored pieces of a text, and the words of the text that begin in a scored piece."""
    ### BEGIN SOLUTION
    n_bytes = n_words = 0
    inside = False  # of a word
    for piece, counts in zip(pieces, scored.tolist()):
        n_bytes += len(piece) * counts
        for byte in piece:
            space = byte in b" \t\n\v\f\r"
            n_words += counts and not space and not inside
            inside = not space
    return n_bytes, n_words
    ### END SOLUTION


def per_text(perplexity, n_tokens, n_bytes, n_words):
    """Bits per byte and word perplexity of a text, from the perplexity of its n_tokens scored tokens."""
    ### BEGIN SOLUTION
    if min(n_tokens, n_bytes, n_words) < 1:
        raise ValueError(f"{n_tokens} tokens, {n_bytes} bytes, {n_words} words: each must be 1 or more")
    nats = n_tokens * math.log(perplexity)
    per_word = nats / n_words
    return nats / math.log(2) / n_bytes, math.exp(per_word) if per_word < 709.78 else math.inf
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# What is the same per token, per byte and per word? The sum of the nats. Go back to it first.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# A word begins at a byte that is no whitespace and has whitespace, or nothing, before it: in the joined text, not in the piece. Walk over all bytes with one
# flag, "inside a word", and count only where the piece is scored.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# for piece, is_scored in pairs:
#     total += length, if scored
#     for byte in piece:
#         begins = byte is not whitespace and the byte before was (or there is none)
#         words += 1 if begins and is_scored
# # nats = number of tokens times ln(perplexity);  bits = nats / ln 2;  exp(nats / words)
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-units", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
import math
import re

import torch

from course.checks import Points, check_close, check_equal, check_raises


def two_of(got, what):
    assert isinstance(got, tuple | list) and len(got) == 2, f"{what}: expected two numbers, got {got!r:.80}"
    return got


def joined(pieces, scored):
    return b"".join(piece for piece, counts in zip(pieces, scored.tolist()) if counts)


def mistaken_words(pieces, scored):
    text, flags = b"".join(pieces), scored.tolist()
    owner = [flag for piece, flag in zip(pieces, flags) for _ in piece]
    space = [byte in b" \t\n\v\f\r" for byte in text]
    ends = sum(owner[i] and not space[i] and (i + 1 == len(text) or space[i + 1]) for i in range(len(text)))

    def begun(separates):
        breaks = [separates(byte) for byte in text]
        return sum(owner[i] and not breaks[i] and (i == 0 or breaks[i - 1]) for i in range(len(text)))

    letters = text.decode(errors="surrogateescape")
    starts = [len(letters[: word.start()].encode(errors="surrogateescape")) for word in re.finditer(r"\S+", letters)]
    return {
        "bytes above 127 are taken for whitespace: UTF-8 is not Latin-1": begun(lambda byte: chr(byte).isspace()),
        "Unicode's whitespace separates words too; bytes.split() knows the ASCII kinds": sum(
            owner[start] for start in starts
        ),
        "every control character separates words": begun(lambda byte: byte <= 32),
        r"\v and \f are forgotten": begun(lambda byte: byte in b" \t\n\r"),
        "words count that lie wholly in scored pieces": sum(
            all(owner[word.start() : word.end()]) for word in re.finditer(rb"\S+", text)
        ),
        "the scored pieces are joined and split: a word that began before them counts": len(
            joined(pieces, scored).split()
        ),
        "words count where they end, not where they begin": ends,
        "all words of the text count, not those that begin in a scored piece": len(text.split()),
        "a word is a piece that begins with a space": sum(
            flag and piece.startswith(b" ") for piece, flag in zip(pieces, flags)
        ),
        "pieces are split one by one: a word that goes on in the next piece counts twice": sum(
            len(piece.split()) for piece, flag in zip(pieces, flags) if flag
        ),
        "whitespace is counted, not words": sum(owner[i] and space[i] for i in range(len(text))),
    }


def mistaken_bytes(pieces, scored):
    return {
        "all bytes count, not those of the scored pieces": sum(map(len, pieces)),
        "characters are counted, not bytes": len(joined(pieces, scored).decode(errors="ignore")),
        "characters are counted, not bytes, and those cut in two more than once": sum(
            len(piece.decode(errors="replace")) for piece, flag in zip(pieces, scored.tolist()) if flag
        ),
        "scored pieces are counted, not their bytes": int(scored.sum()),
    }


def check_units(cases):
    """Check all cases; what a few pieces betray by chance is not said, but what holds for all."""
    found = {what: two_of(text_units(pieces, scored), what) for what, (pieces, scored, *_) in cases.items()}
    for place, part, mistaken in ((0, "bytes", mistaken_bytes), (1, "words", mistaken_words)):
        mistakes = {what: mistaken(pieces, scored) for what, (pieces, scored, *_) in cases.items()}
        for what, (pieces, scored, *right) in cases.items():
            held = {
                text: value
                for text, value in mistakes[what].items()
                if all(found[other][place] == mistakes[other][text] for other in cases)
            }
            check_equal(found[what][place], right[place], f"{what}, {part}", held)


points = Points()
with points.part(2, "units"):
    pieces = [b"Zw", b"\xc3", b"\xb6", b"lf Bo", b"xk", b"\xc3\xa4mp", b"fer\n"]
    flags = torch.tensor(
        [[False, True, True, True, False, False, False], [True, False, False, False, False, False, True]]
    )
    cases = {
        "text_units of “Zwölf Boxkämpfer”, pieces 1 to 3": (pieces, flags[0], 7, 1),
        "text_units of “Zwölf Boxkämpfer”, the first and the last piece": (pieces, flags[1], 6, 1),
    }
    ### BEGIN HIDDEN TESTS
    from bisect import bisect
    from itertools import accumulate

    generator = torch.Generator().manual_seed(904)
    alphabet = [
        "a",
        "B",
        "ö",
        "à",
        "猫",
        "🦊",
        "1",
        ".",
        "-",
        " ",
        " ",
        "  ",
        "\n",
        "\t",
        " \n",
        "\r\n",
        "\v",
        "\f",
        "Å",
        "\xa0",
        "\u3000",
        "\x1c",
        "\x1f",
        "\0",
    ]
    for length in (0, 1, 6, 40, 200):
        picks = torch.randint(0, len(alphabet), (length,), generator=generator).tolist()
        text = "".join(alphabet[i] for i in picks).encode()
        pieces = []
        while text:
            size = int(torch.randint(1, 6, (1,), generator=generator))
            pieces, text = [*pieces, text[:size]], text[size:]
        if length == 6:
            pieces.insert(0, b"")  # a control token has no bytes
        for share in (0.0, 0.5, 0.8, 1.0):
            scored = torch.rand(len(pieces), generator=generator) < share
            ends = list(accumulate(map(len, pieces)))
            starts = [word.start() for word in re.finditer(rb"\S+", b"".join(pieces))]  # of bytes, \s is ASCII's
            n_words = sum(bool(scored[bisect(ends, start)]) for start in starts)
            what = f"text_units of {len(pieces)} pieces, drawn with {share}: {int(scored.sum())} scored"
            cases[what] = pieces, scored, len(joined(pieces, scored)), n_words
    ### END HIDDEN TESTS
    check_units(cases)


def check_per_text(arguments, bits, per_word):
    perplexity, n_tokens, n_bytes, n_words = arguments
    what = "per_text of perplexity {:g}, {} tokens, {} bytes, {} words".format(*arguments)
    got = two_of(per_text(*arguments), what)
    nats = n_tokens * math.log(perplexity)
    mistakes = {
        "nats are taken for bits: divide by ln 2": nats / n_bytes,
        "nats are multiplied by ln 2, not divided": nats * math.log(2) / n_bytes,
        "the result is per token, not per byte": math.log2(perplexity),
        "the perplexity is divided by the bytes per token; its logarithm is": math.log2(
            perplexity * n_tokens / n_bytes
        ),
        "the result is the byte perplexity, not its bits": math.exp(nats / n_bytes),
    }
    check_close(got[0], bits, 1e-9 * bits, f"{what}, bits per byte", "10⁻⁹ relative", mistakes)
    mistakes = {
        "the perplexity is multiplied by the tokens per word; it is raised to that power": perplexity
        * n_tokens
        / n_words,
        "tokens per word stand upside down": perplexity ** (n_words / n_tokens),
        "the result is the token perplexity": perplexity,
        "2 is raised to nats": 2 ** min(1000, nats / n_words),
    }
    if math.isinf(per_word):
        check_close(got[1], per_word, 0.0, f"{what}, word perplexity", "too large for float64")
    else:
        check_close(got[1], per_word, 1e-9 * per_word, f"{what}, word perplexity", "10⁻⁹ relative", mistakes)


with points.part(2, "conversion"):
    check_per_text((4.0, 12, 48, 8), 0.5, 8.0)  # 24 bits
    check_per_text((1.0, 5, 20, 4), 0.0, 1.0)
    for counts in ((0, 4, 2), (3, 0, 2), (3, 4, 0), (-1, 4, 2), (3, -1, 2), (3, 4, -1)):
        check_raises(ValueError, "per_text of {} tokens, {} bytes, {} words".format(*counts), per_text, 2.0, *counts)
    ### BEGIN HIDDEN TESTS
    from quant_kernels.measures.perplexity import Perplexity, bits_per_byte, word_perplexity

    for arguments in (
        (5.47, 341, 1290, 245),
        (18.2, 1000, 3620, 520),
        (1.5, 9, 9, 9),
        (60000.0, 50, 70, 3),
        (1e6, 300, 900, 2),
    ):
        value, n_tokens, n_bytes, n_words = arguments
        result = Perplexity(value, 0.0, n_tokens, 1, 512, None, n_tokens * math.log(value))
        check_per_text(arguments, bits_per_byte(result, n_bytes), word_perplexity(result, n_words))
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ### Exercise (e): two models on the same tokens
#
# *11 minutes, 6 points: 3 for the pairs, 3 for the divergence*
#
# ```
# paired       base, other: float64 (n,)                    →  dict of six numbers
# divergence   base, other: float16 or float32 (n, V)       →  (kl: float64 (n,), same_top: bool (n,))
# ```
#
# `paired` gets the losses, in nats, of two models on the same n ≥ 2 tokens. Means m and M of base and other; variances and covariance with the
# divisor n − 1. Tokens are taken as independent, as llama-perplexity takes them.
#
# | key | value | its standard error, under the key with ` se` appended |
# |:--|:--|:--|
# | `"log ratio"` | ln(other's perplexity / base's) = M − m | √((var(other) + var(base) − 2 · cov) / n) |
# | `"ratio"` | exp(M − m) | ratio · the error above |
# | `"difference"` | exp(M) − exp(m) | √((Q² · var(other) + P² · var(base) − 2 · P · Q · cov) / n) with P = exp(m), Q = exp(M) |
#
# The second and third errors are the first-order rule: the slope of exp times the error of its argument. Two models that are near have a covariance close to
# both variances; rounding may leave a sum just below 0 under the root: then the error is 0, and never NaN.
#
# `divergence` gets the logits of two models at the same n places.
#
# | | |
# |:--|:--|
# | `kl[i]` | Σ over the vocabulary of p · (ln p − ln q), in nats, p = softmax(base), q = softmax(other) |
# | Zeros | logits may be −∞. Where p = 0 a term is 0, whatever q is; where only q has the logit −∞ the sum is `inf`. A q that merely underflows is not 0: its logarithm is finite |
# | Arithmetic | float64: near models have divergences of 10⁻⁶ and less, which float32 drowns |
# | `same_top[i]` | whether both have their largest logit at the same place; of equal ones the first counts |
# | Tolerances | `paired`: 10⁻⁹ relative, and 10⁻⁹ (for the difference times the larger of 1, P and Q); for errors 10⁻⁹ relative and 10⁻⁶ of √(var/n), since the subtraction cancels. `divergence`: 10⁻⁹ + 10⁻⁹ · kl |


# %% nbgrader={"grade": false, "grade_id": "compare", "locked": false, "schema_version": 3, "solution": true, "task": false}
def paired(base, other):
    """Log ratio, ratio and difference of two perplexities and their errors, from losses `(n,)` of the same tokens."""
    ### BEGIN SOLUTION
    n = len(base)
    p, q = base.mean().exp().item(), other.mean().exp().item()
    log_ratio = (other.mean() - base.mean()).item()
    centred = torch.stack([base - base.mean(), other - other.mean()])
    (var_base, cov), (_, var_other) = (centred @ centred.T / (n - 1)).tolist()

    def error(a, b):
        return math.sqrt(max(0.0, a * a * var_other + b * b * var_base - 2 * a * b * cov) / n)

    return {
        "log ratio": log_ratio,
        "log ratio se": error(1, 1),
        "ratio": math.exp(log_ratio),
        "ratio se": math.exp(log_ratio) * error(1, 1),
        "difference": q - p,
        "difference se": error(q, p),
    }
    ### END SOLUTION


def divergence(base, other):
    """KL divergence of other from base, float64 `(n,)`, and whether both have the same most likely token, `(n,)`."""
    ### BEGIN SOLUTION
    log_p, log_q = base.double().log_softmax(-1), other.double().log_softmax(-1)
    p = log_p.exp()
    terms = torch.where(p == 0, 0, p * (log_p - log_q))  # (n, V)
    return terms.sum(-1), base.argmax(-1) == other.argmax(-1)
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# The error of M − m is also the error of the mean of the differences. Compute it so and by the table, and see that they agree. In the divergence, which
# model's text is it: who gives p?
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# One function of two weights does both errors: √((a² · var(other) + b² · var(base) − 2ab · cov) / n). For the divergence take two log-softmaxes in float64;
# where p is 0 the product is 0 · ∞ or −∞ − (−∞): choose 0 there by `where` instead of hoping.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# x, y = deviations of other and base from their means
# # this expands to the table's sum:
# spread = lambda a, b: sqrt(max(0, sum((a * x - b * y) ** 2) / (n - 1)) / n)
# # "log ratio se" = spread(1, 1), "difference se" = spread(Q, P)
# kl = where(p is 0, 0, p * (ln p - ln q)) summed over the last dimension
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-compare", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
import math

import torch

from course.checks import Points, check_close, check_equal

KEYS = [f"{name}{error}" for name in ("log ratio", "ratio", "difference") for error in ("", " se")]


def moments(base, other):
    n = len(base)
    both = torch.cov(torch.stack([base, other]))  # divisor n − 1
    return n, base.mean().item(), other.mean().item(), both[0, 0].item(), both[1, 1].item(), both[0, 1].item()


def mistaken_pairs(base, other):
    """key → misconceptions, as functions."""
    n, m, big_m, var_base, var_other, cov = moments(base, other)
    p, q = math.exp(m), math.exp(big_m)

    def error(a, b, cov=cov, n=n):
        return math.sqrt(max(0.0, a * a * var_other + b * b * var_base - 2 * a * b * cov) / n)

    def errors(a, b, factor=1.0):
        return {
            "the models' errors are added as if they were independent; the tokens are the same": factor
            * error(a, b, 0.0),
            "the covariance is added, not subtracted": factor * error(a, b, -cov),
            "the covariance is subtracted once, not twice": factor * error(a, b, cov / 2),
            "it is the spread of a single token: the root of n is missing": factor * error(a, b, cov, 1),
            "the standard deviation is divided by n, not by its root": factor * error(a, b, cov, n * n),
            "the errors' difference is taken, not that of the tokens' losses": factor
            * abs(a * math.sqrt(var_other) - b * math.sqrt(var_base))
            / math.sqrt(n),
            "the divisor of the variances is n, not n − 1": factor * error(a, b) * math.sqrt((n - 1) / n),
            "it is the variance; the root is missing": factor * error(a, b) ** 2,
        }

    ratio = math.exp(big_m - m)
    return {
        "log ratio": {
            "base and other are swapped": m - big_m,
            "the logarithm is to the base 2": (big_m - m) / math.log(2),
            "it is the difference of the perplexities": q - p,
        },
        "log ratio se": errors(1, 1),
        "ratio": {"base and other are swapped": 1 / ratio, "it is the ratio of the mean losses": big_m / m},
        "ratio se": {
            "it is the error of the log ratio: the factor ratio is missing": error(1, 1),
            **errors(1, 1, ratio),
        },
        "difference": {"base and other are swapped": p - q, "it is the difference of the mean losses": big_m - m},
        "difference se": {
            "it is the error of the log ratio: the slopes Q and P are missing": error(1, 1),
            "one slope serves both: the base's perplexity times the error of the log ratio": p * error(1, 1),
            "one slope serves both: the other's perplexity times the error of the log ratio": q * error(1, 1),
            **errors(q, p),
        },
    }


def check_paired(base, other, right, what):
    got = paired(base, other)
    missing = [key for key in KEYS if not isinstance(got, dict) or key not in got]
    assert not missing, f"{what}: expected a dict with {', '.join(KEYS)}; missing: {', '.join(missing)}"
    _, m, big_m, var_base, var_other, _ = moments(base, other)
    plain = math.sqrt(max(var_base, var_other) / len(base))
    slopes = {"log ratio se": 1.0, "ratio se": right["ratio"], "difference se": max(math.exp(m), math.exp(big_m))}
    for key in KEYS:
        largest = max(1.0, math.exp(max(m, big_m))) if key == "difference" else 1.0
        floor = 1e-6 * plain * slopes[key] if "se" in key else 1e-9 * largest
        atol = 1e-9 * abs(right[key]) + floor
        why = "10⁻⁹ relative + 10⁻⁶ · √(var/n)" if "se" in key else f"10⁻⁹ relative + 10⁻⁹ · {largest:.3g}"
        assert not torch.as_tensor(got[key], dtype=torch.float64).isnan().any(), (
            f"{what}, {key}: NaN; rounding left a variance just below 0 under the root"
        )
        check_close(got[key], right[key], atol, f"{what}, {key}", why, mistaken_pairs(base, other)[key])


points = Points()
with points.part(3, "paired"):
    base, other = torch.tensor([1.0, 2, 3, 4]).double(), torch.tensor([1.0, 3, 3, 5]).double()
    p, q = math.exp(2.5), math.exp(3)  # var 5/3 and 8/3, cov 2, n = 4
    right = {
        "log ratio": 0.5,
        "log ratio se": math.sqrt((8 / 3 + 5 / 3 - 4) / 4),
        "ratio": math.exp(0.5),
        "ratio se": math.exp(0.5) * math.sqrt((8 / 3 + 5 / 3 - 4) / 4),
        "difference": q - p,
        "difference se": math.sqrt((q * q * 8 / 3 + p * p * 5 / 3 - 2 * q * p * 2) / 4),
    }
    check_paired(base, other, right, "paired of losses 1, 2, 3, 4 and 1, 3, 3, 5")
    ### BEGIN HIDDEN TESTS
    from quant_kernels.measures.compare import summarize_scores
    from quant_kernels.measures.windows import Plan

    generator = torch.Generator().manual_seed(905)
    common = torch.distributions.Exponential(0.4)
    torch.manual_seed(905)
    shared = common.sample((4000,)).double()
    noise = torch.randn(4000, generator=generator, dtype=torch.float64)
    cases = {
        "near models": (shared, shared + 0.02 + 0.1 * noise),
        "a better model": (shared + 0.3 + 0.2 * noise, shared),
        "unrelated losses": (shared[:900], shared[900:1800] + 1),
        "losses that go opposite ways": (shared[:500], 8 - shared[:500]),
        "two tokens": (shared[:2], shared[2:4]),
        "strided losses": (shared[::2], (shared + 0.05 * noise)[::2]),
    }
    for name, (base, other) in cases.items():
        zero = torch.zeros_like(base)
        found = summarize_scores(torch.stack([zero, zero, base, other], -1), Plan(torch.zeros(1), [], 512))
        right = {}
        for key, estimate in (("log ratio", found.log_ratio), ("ratio", found.ratio), ("difference", found.difference)):
            right |= {key: estimate.value, f"{key} se": estimate.standard_error}
        check_paired(base, other, right, f"paired, {name}")
    hair = {
        f"{n} losses that differ by {k} · 10⁻⁹": (shared[:n], shared[:n] + 1e-9 * k * noise[:n])
        for n in (50, 333, 4000)
        for k in range(1, 6)
    }
    shifted = {"a model that loses 0.01 nats more everywhere": (shared, shared + 0.01)}
    for name, (base, other) in ({"the same model twice": (shared, shared)} | shifted | hair).items():
        n, p, q = len(base), base.mean().exp().item(), other.mean().exp().item()
        gap, error = (other - base).mean().item(), (other - base).std().item() / math.sqrt(n)
        right = {"log ratio": gap, "log ratio se": error, "ratio": math.exp(gap), "ratio se": math.exp(gap) * error}
        right |= {"difference": q - p, "difference se": (q * other - p * base).std().item() / math.sqrt(n)}
        check_paired(base, other, right, f"paired, {name}")
    ### END HIDDEN TESTS


def mistaken_divergences(base, other):
    log_p, log_q = base.double().log_softmax(-1), other.double().log_softmax(-1)
    p, q = log_p.exp(), log_q.exp()
    right = torch.where(p == 0, 0, p * (log_p - log_q)).sum(-1)
    backwards = torch.where(q == 0, 0, q * (log_q - log_p)).sum(-1)
    narrow_p, narrow_q = base.float().log_softmax(-1), other.float().log_softmax(-1)
    narrow = torch.where(narrow_p.exp() == 0, 0, narrow_p.exp() * (narrow_p - narrow_q)).sum(-1)
    return {
        "p and q are swapped: the base gives p": backwards,
        "bits are returned, not nats": right / math.log(2),
        "the mean over the vocabulary is taken, not the sum": right / base.shape[-1],
        "both directions are averaged": (right + backwards) / 2,
        "it is the cross-entropy: p's own entropy is not taken off": -torch.where(p == 0, 0, p * log_q).sum(-1),
        "it is computed in float32": narrow.double(),
        "softmax underflows to 0 before its logarithm; take log_softmax": torch.where(
            p == 0, 0, p * (p.log() - q.log())
        ).sum(-1),
        "a small number is added to p and q before the logarithm": (p * ((p + 1e-12).log() - (q + 1e-12).log())).sum(
            -1
        ),
        "what the base holds less likely than e⁻¹⁶ is left out, as llama-perplexity does": torch.where(
            log_p > -16, p * (log_p - log_q), 0
        ).sum(-1),
        "0 · ∞ is NaN where p = 0": (p * (log_p - log_q)).sum(-1),
        "logits are subtracted, not log-probabilities": (p * (base.double() - other.double())).sum(-1),
    }


def check_divergence(base, other, kl, same, what, rounding=1e-9):
    got = divergence(base, other)
    assert isinstance(got, tuple | list) and len(got) == 2, f"{what}: expected (kl, same_top)"
    why = f"{rounding:.0e} + 10⁻⁹ · kl"
    atol = rounding + 1e-9 * kl.nan_to_num(posinf=0.0).abs()
    check_close(got[0], kl, atol, f"{what}, kl", why, mistaken_divergences(base, other))
    mistakes = {
        "of equal logits the last counts; the first must": lambda: (
            base.flip(-1).argmax(-1) == other.flip(-1).argmax(-1)
        ),
        "the largest logits themselves are compared, not their places": lambda: base.amax(-1) == other.amax(-1),
        "the text's token or the lowest logit is looked at": lambda: base.argmin(-1) == other.argmin(-1),
    }
    check_equal(got[1], same, f"{what}, same_top", mistakes)


with points.part(3, "divergence"):
    base = torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.5, 0.5]]).log()
    other = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]]).log() + 7  # a constant changes no probability
    kl = [0.5 * math.log(4 / 3), 0.75 * math.log(1.5) - 0.25 * math.log(2), 0.5 * math.log(4 / 3)]
    kl = torch.tensor(kl, dtype=torch.float64)
    same = torch.tensor([True, True, False])  # of equal logits the first counts
    what = "divergence of (½, ½), (¾, ¼), (½, ½) and (¾, ¼), (½, ½), (¼, ¾)"
    check_divergence(base, other, kl, same, what, 1e-6)  # float32 logits have these probabilities to 10⁻⁷ only
    ### BEGIN HIDDEN TESTS
    from quant_kernels.measures.compare import score_rows

    def expected(base, other):
        kl, same_top, _, _ = score_rows(base, other, torch.zeros(len(base), 1, dtype=torch.int64))
        return kl, same_top.bool()

    generator = torch.Generator().manual_seed(915)
    logits = torch.randn(30, 120, generator=generator) * 4
    moved = torch.randn(30, 120, generator=generator)
    padded = logits.clone()
    padded[:, 100:] = -math.inf
    padded_too = (logits + 0.3 * moved).clone()
    padded_too[:, 100:] = -math.inf
    ruled_out = (logits + 0.3 * moved).clone()
    ruled_out[::3, 5] = -math.inf
    tied = torch.randint(0, 3, (40, 5), generator=generator).float()
    tied_too = torch.randint(0, 3, (40, 5), generator=generator).float()
    cases = {
        "a rough quantization": (logits, logits + 0.7 * moved),
        "near models": (logits, logits + 1e-3 * moved),
        "the same logits": (logits, logits),
        "a constant between them": (logits, logits - 64),
        "float16 logits": ((3 * logits).half(), (3 * logits + moved).half()),
        "logits of 30 000 in float16": ((logits + 3e4).half(), (logits + 3e4 + 16 * moved).half()),
        "far-away logits": (100 * logits, 100 * logits + 50 * moved),
        "a vocabulary padded with −∞": (padded, padded_too),
        "tokens that the other rules out": (logits, ruled_out),
        "tokens that the base rules out": (ruled_out, logits),
        "equal logits": (tied, tied_too),
        "not contiguous": (logits[:, ::3], (logits + moved)[:, ::3]),
    }
    for name, (base, other) in cases.items():
        check_divergence(base, other, *expected(base, other), f"divergence, {name}")
    ### END HIDDEN TESTS
points.earned

# %% [markdown]
# ### Exercise (f): four conventions, four numbers
#
# *8 minutes, 4 points: one for each convention*
#
# ```
# conventions   losses: float64 (n, C), n_words: int  →  dict of four numbers
#
#                      c = 0    1     2     3            losses[i, c] is the loss of token i of a text
# token 0                NaN   NaN   NaN   NaN           if the model sees just the c tokens before it
# token 1                NaN   2.1   NaN   NaN
# token 2                NaN   3.9   3.1   NaN           NaN where c = 0: nothing to predict from,
# token 3                NaN   0.7   0.6   0.4           and where c > i: the text has no more before it
# token 4                NaN   5.0   4.4   4.1
# …
# ```
#
# The table holds everything that a model of context C can say about a text without a BOS: a convention only chooses entries. In a window that begins at
# token s, token i has i − s tokens before it, so its loss is `losses[i, i − s]`. One that needs NaN is not scored.
#
# | key | windows | scored | value |
# |:--|:--|:--|:--|
# | `"disjoint"` | C tokens each, one after another, the rest dropped | all but the first token of each | exp(Σ / count) |
# | `"half context"` | C // 2 tokens each, one after another, the rest dropped | all but the first token of each | exp(Σ / count) |
# | `"second half"` | those of `"disjoint"` | as llama-perplexity does: the tokens at places C // 2 + 1 … C − 1 | exp(Σ / count) |
# | `"per word"` | C tokens each, one beginning every C // 2 tokens; the first that reaches the end of the text is the last, and may be shorter | every token of the text but the first, once: by the first window that holds it | exp(Σ / n_words) |
#
# C is even and at least 4, n at least C, n_words at least 1; the values are finite. Tolerance 10⁻⁹ relative: float64.


# %% nbgrader={"grade": false, "grade_id": "conventions", "locked": false, "schema_version": 3, "solution": true, "task": false}
def conventions(losses, n_words):
    """Four perplexities of one model on one text, from losses `(n tokens, C tokens of context)`."""
    ### BEGIN SOLUTION
    n, size = losses.shape
    half = size // 2

    def chosen(windows):
        """The losses of tokens scored … stop − 1 of windows (start, scored, stop)."""
        parts = [torch.arange(scored, stop) for _, scored, stop in windows]
        starts = [torch.full((stop - scored,), start) for start, scored, stop in windows]
        token, start = torch.cat(parts), torch.cat(starts)
        return losses[token, token - start]

    def disjoint(length, skipped):
        return chosen([(s, s + skipped, s + length) for s in range(0, n - length + 1, length)])

    sliding = [(0, 1, size)] + [
        (done - half, done, min(done + half, n)) for done in range(size, n, half)
    ]  # half a window is always before the fresh tokens
    return {
        "disjoint": disjoint(size, 1).mean().exp().item(),
        "half context": disjoint(half, 1).mean().exp().item(),
        "second half": disjoint(size, half + 1).mean().exp().item(),
        "per word": (chosen(sliding).sum() / n_words).exp().item(),
    }
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Write down the pairs (i, c) that each convention picks for C = 4 and n = 8: 6, 4, 2 and 7 of them. If your sum is NaN, you picked a token that nothing
# predicts.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# For disjoint windows c is the place in the window, i % length. For sliding ones it is i − start, with the start of the first window that holds i. All four are then one
# indexing of the table with two lists.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# i = all tokens in whole windows of `length`;  c = i % length
# keep c >= 1               # or c >= length // 2 + 1 for the second half
# exp(mean of table[i, c])
# # per word: token i >= C belongs to the window that starts at (i // half - 1) * half;
# #           tokens below C to window 0
# exp(sum of table[i, i - start of i] over i = 1 ... n - 1, divided by n_words)
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-conventions", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
import math

import torch

from course.checks import Points, check_close

NAMES = ("disjoint", "half context", "second half", "per word")


def chosen(losses, windows):
    return torch.cat(
        [losses[range(scored, stop), range(scored - start, stop - start)] for start, scored, stop in windows]
    )


def whole(n, length, skipped):
    return [(start, start + skipped, start + length) for start in range(0, n - length + 1, length)]


def mistaken_conventions(losses, n_words, sliding):
    """name → misconceptions, as functions."""
    n, size = losses.shape
    half = size // 2

    def value(windows):
        return chosen(losses, windows).mean().exp().item()

    def word(windows, divisor=n_words):
        return math.exp(min(700.0, chosen(losses, windows).sum().item() / divisor))

    def mean_of_windows(windows):
        return sum(value([window]) for window in windows) / len(windows)

    tail = [(n // size * size, n // size * size + 1, n)] if n % size > 1 else []
    again = [(start, start + 1, min(start + size, n)) for start in range(0, max(1, n - size + half), half)]
    back = [(max(0, stop - size), scored, stop) for _, scored, stop in sliding]
    nats, count = chosen(losses, sliding).sum().item(), n - 1
    return {
        "disjoint": {
            "windows' perplexities are averaged; sum the losses and divide once": lambda: mean_of_windows(
                whole(n, size, 1)
            ),
            "the tail that fills no window is scored too": lambda: value(whole(n, size, 1) + tail),
            "every token is scored once with a sliding window": lambda: value(sliding),
            "the sum is divided by all tokens, the windows' first ones included": lambda: math.exp(
                chosen(losses, whole(n, size, 1)).sum().item() / (n // size * size)
            ),
        },
        "half context": {
            "the windows are as long as C": lambda: value(whole(n, size, 1)),
            "windows' perplexities are averaged; sum the losses and divide once": lambda: mean_of_windows(
                whole(n, half, 1)
            ),
            "the tail that fills no window of C is dropped; here it is C // 2": lambda: value(
                whole(n // size * size, half, 1)
            ),
            "it is the first half of windows of C": lambda: value(
                [(start, scored, start + half) for start, scored, _ in whole(n, size, 1)]
            ),
        },
        "second half": {
            "the token at place C // 2 is scored too; the first one is at C // 2 + 1": lambda: value(
                whole(n, size, half)
            ),
            "the whole window is scored": lambda: value(whole(n, size, 1)),
            "the first half is scored": lambda: value(
                [(start, scored, start + half) for start, scored, _ in whole(n, size, 1)]
            ),
            "windows' perplexities are averaged; sum the losses and divide once": lambda: mean_of_windows(
                whole(n, size, half + 1)
            ),
        },
        "per word": {
            "tokens in the overlap are counted twice": lambda: word(again),
            "the tail that fills no window is dropped": lambda: word(
                [window for window in sliding if window[2] - window[0] == size]
            ),
            "the last window is moved back until it is full": lambda: word(back),
            "disjoint windows are used, which leave tokens out": lambda: word(whole(n, size, 1)),
            "the sum is divided by the number of tokens, not of words": lambda: word(sliding, count),
            "the token perplexity is multiplied by the tokens per word; its logarithm is": lambda: (
                math.exp(nats / count) * count / n_words
            ),
        },
    }


def check_convention(losses, n_words, name, right, what, sliding):
    got = conventions(losses, n_words)
    assert isinstance(got, dict) and name in got, f'{what}: expected a dict with the key "{name}"'
    assert not torch.as_tensor(got[name], dtype=torch.float64).isnan().any(), (
        f'{what}, "{name}": NaN: a token is scored that has nothing before it in its window'
    )
    mistakes = mistaken_conventions(losses, n_words, sliding)[name]
    check_close(got[name], right, 1e-9 * right, f'{what}, "{name}"', "10⁻⁹ relative", mistakes)


def text_table(n, size, loss):
    """Losses loss(token, context), NaN where there is none."""
    token, context = torch.arange(n)[:, None].double(), torch.arange(size).double()
    return torch.where((context > 0) & (context <= token), loss(token, context), math.nan)


def make_cases():
    # each token costs 4, 3, 2, 1 times ln 2 with 0, 1, 2, 3 tokens before it
    by_hand = text_table(8, 4, lambda token, context: (4 - context) * math.log(2))
    sliding = [(0, 1, 4), (2, 4, 6), (4, 6, 8)]
    yield "conventions of 8 tokens, C = 4, 3 words", by_hand, 3, (4.0, 8.0, 2.0, 16.0), sliding
    ### BEGIN HIDDEN TESTS
    from quant_kernels.measures.windows import half_windows, strided_windows

    generator = torch.Generator().manual_seed(906)
    for n, size, n_words in (
        (8, 8, 5),
        (37, 6, 20),
        (96, 16, 70),
        (103, 16, 60),
        (44, 16, 30),
        (49, 24, 31),
        (300, 32, 201),
    ):
        own = torch.rand(n, 1, generator=generator, dtype=torch.float64) * 4
        jitter = torch.rand(n, size, generator=generator, dtype=torch.float64)
        losses = text_table(n, size, lambda token, context: own + 3 / (context + 1) + 0.3 * jitter)
        sliding = strided_windows(n, size, size // 2)
        plans = [strided_windows(n // length * length, length, length) for length in (size, size // 2)]
        right = [chosen(losses, plan).mean().exp().item() for plan in (*plans, half_windows(n, size))]
        right.append((chosen(losses, sliding).sum() / n_words).exp().item())
        yield f"conventions of {n} tokens, C = {size}, {n_words} words", losses, n_words, right, sliding
    ### END HIDDEN TESTS


points = Points()
for place, name in enumerate(NAMES):
    with points.part(1, name):
        for what, losses, n_words, right, sliding in make_cases():
            check_convention(losses, n_words, name, right[place], what, sliding)
points.earned

# %% [markdown]
# ## Experiment: your numbers against llama.cpp's, and one model in five conventions
#
# It uses your functions of (a) to (e). None of this is graded.
#
# **1. SmolLM2-135M-Instruct** (Apache-2.0, a download of 93 MB) reads *The Zen of Python*, which every Python carries, in windows of 32, 64 and 96
# tokens. The right column was printed by llama-perplexity of llama.cpp 0c1e57098 (the sources in the PyPI package llama-cpp-python 0.3.36) for
# the same file converted to F32, with `-f zen.txt -c N -b N -ub N -ctk f32 -ctv f32 -fa off -t 1`. The file asks for no BOS.

# %% tags=["experiment"]
import codecs
import contextlib
import io
import math

import matplotlib.pyplot as plt
import torch

import quant_kernels as qk
from course.fetch import fetch
from course.texts import evaluation_text
from quant_kernels.measures.units import token_pieces

with contextlib.redirect_stdout(io.StringIO()):
    import this
zen = codecs.decode(this.s, "rot13")
smollm2 = qk.load_model(fetch("smollm2"))
zen_ids = torch.tensor(smollm2.tokenizer.encode(zen))


def read(model, inputs):
    """Logits of windows (W, n_ctx)."""
    with torch.no_grad():
        return torch.cat([model(some) for some in inputs.split(2)])


def as_labels(targets):
    """What (a) calls ids: its function does the shift itself."""
    return torch.cat([torch.full_like(targets[:, :1], -100), targets[:, :-1]], 1)


print(f"{len(zen_ids)} tokens\nn_ctx  windows  scored  yours     llama-perplexity")
for n_ctx, printed in {32: 19.1277, 64: 12.4772, 96: 18.2102}.items():
    inputs, targets = llama_windows(zen_ids, n_ctx, None)
    value, count = corpus_perplexity([(read(smollm2, inputs), as_labels(targets))])
    print(f"{n_ctx:5}  {len(inputs):7}  {count:6}  {value:7.4f}   {printed:7.4f}")

# %% [markdown]
# The same windows of 64 tokens once more, with every matrix of the model rounded to Q4_0 and back, and your functions of (e). The right column is what
# llama-perplexity prints with `--kl-divergence-base FILE --kl-divergence` for the file that `llama-quantize --pure` makes of it, again as F32.

# %% tags=["experiment"]
inputs, targets = llama_windows(zen_ids, 64, None)
scored = targets != -100
wanted = targets[scored][:, None]


def losses_of(logits):
    return -logits.double().log_softmax(-1).gather(1, wanted)[:, 0]


rounded = {
    name: qk.dequantize(qk.quantize(weight, "Q4_0"), "Q4_0")
    for name, weight in smollm2.weights().items()
    if weight.ndim == 2
}
base_logits = read(smollm2, inputs)[scored]
with smollm2.replaced(rounded):
    other_logits = read(smollm2, inputs)[scored]
pair = paired(losses_of(base_logits), losses_of(other_logits))
kl, same_top = divergence(base_logits, other_logits)


def with_error(values):
    values = values.double()
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


rows = {
    "perplexity of the other": (losses_of(other_logits).mean().exp().item(), None, "14.8765"),
    "ln ratio": (pair["log ratio"], pair["log ratio se"], "0.17588 ± 0.15520"),
    "KL divergence": (*with_error(kl), "0.57383 ± 0.09003"),
    "same top, %": (*(100 * number for number in with_error(same_top)), "64.516 ± 4.988"),
}
print(f"{'':24} yours                  llama-perplexity")
for name, (value, error, printed) in rows.items():
    yours = f"{value:.5f}" + (f" ± {error:.5f}" if error is not None else "")
    print(f"{name:24} {yours:22} {printed}")

# %% [markdown]
# All figures agree to 10⁻⁵ of their size but for 0.0002 in the divergence: llama-perplexity leaves out what the base holds less likely than e⁻¹⁶. Do the same and you get its 0.57383.
# Look at what the figures say. On 93 tokens
# the *perplexity* cannot tell whether Q4_0 did any harm: 0.18 ± 0.16. The *divergence* is six errors away from 0. It compares two whole distributions
# at each place, where the loss sees one sampled token. (This model's file was Q4_1 before, so 0.57 is no measure of Q4_0.)
#
# **2. The course model in five conventions**, in 16 bits and with the matrices of its blocks rounded to Q4_0: the same 4 096 tokens of
# Python's language reference each time. The contexts stand to each other as those of Background 3 do: 4 096, 2 048 and 512 there, 512, 256 and 64 here.

# %% tags=["experiment"]
course_model = qk.load_model(fetch("course-model"))
tokens = torch.tensor(course_model.tokenizer.encode(evaluation_text()))[:4096]
blocks = {
    name: qk.dequantize(qk.quantize(weight, "Q4_0"), "Q4_0")
    for name, weight in course_model.weights().items()
    if name.startswith("blk.")
}


def halves(n_ctx):
    """llama-perplexity's windows as (start, scored, stop), from your plan of (b)."""
    _, targets = llama_windows(tokens, n_ctx, None)
    return [(n_ctx * w, n_ctx * w + n_ctx // 2 + 1, n_ctx * (w + 1)) for w in range(len(targets))]


def score(windows):
    """Perplexity and count over windows (start, scored, stop), by your function of (a)."""
    nats = count = 0
    for start, scored, stop in windows:
        ids = tokens[start:stop][None]
        labels = torch.where(torch.arange(start, stop) < scored, -100, ids)
        value, n = corpus_perplexity([(read(course_model, ids), labels)])
        nats, count = nats + n * math.log(value), count + n
    return math.exp(nats / count), count


def five_conventions():
    sliding = sliding_windows(len(tokens), 512, 256)
    plans = {
        "512, disjoint": sliding_windows(len(tokens), 512, 512),
        "256, disjoint": sliding_windows(len(tokens), 256, 256),
        "64, second half": halves(64),
        "512, stride 256": sliding,
    }
    results = {name: (*score(plan), mean_context(plan)) for name, plan in plans.items()}
    value, count, context = results["512, stride 256"]
    is_scored = torch.arange(len(tokens)) > 0
    n_bytes, n_words = text_units(token_pieces(course_model.metadata, tokens.tolist()), is_scored)
    bits, per_word = per_text(value, count, n_bytes, n_words)
    return results | {"the same, per word": (per_word, n_words, context)}, bits


plain, plain_bits = five_conventions()
with course_model.replaced(blocks):
    coarse, coarse_bits = five_conventions()

print("windows               mean context   scored       F16      Q4_0     change")
for name, (value, count, context) in plain.items():
    other = coarse[name][0]
    print(f"{name:20}  {context:12.1f}  {count:7}  {value:8.2f}  {other:8.2f}  {100 * (other / value - 1):+8.2f} %")
print(f"bits per byte, stride 256: {plain_bits:.4f} and {coarse_bits:.4f}")

figure, axes = plt.subplots(figsize=(7.5, 3))
for place, name in enumerate(plain):
    axes.plot([plain[name][0]], [place], "o", color="C0")
    axes.plot([coarse[name][0]], [place], "o", color="C1", mfc="none")
    change = 100 * (coarse[name][0] / plain[name][0] - 1)
    axes.text(coarse[name][0] * 1.1, place, f"{plain[name][0]:.1f}; Q4_0 {change:+.2f} %", va="center")
axes.set_yticks(range(len(plain)), plain)
axes.invert_yaxis()
axes.set(xscale="log", xlabel="perplexity (filled: F16, open: Q4_0)", title="course model: one text, five conventions")
axes.set_xlim(15, 1500)
axes.set_ylim(4.5, -0.5)
axes.set_xticks([20, 50, 100, 200, 500], [20, 50, 100, 200, 500])
axes.minorticks_off()
axes.grid(alpha=0.3, axis="x")
plt.show()

# %% [markdown]
# On two cores of a server CPU we got 23.0, 25.7, 27.9, 21.5 and 323 from one model: the order of 5.12, 5.47, 5.79 and 8.71, and for the same reasons.
#
# - **Context.** In the first three, the fewer tokens stand before the scored one, the higher the figure. Scoring the second half only does not make up for a
#   window that is eight times shorter. The stride buys context with time: twice the tokens are read.
# - **The unit.** 4 095 tokens make 2 176 words, 1.882 tokens a word, and 21.53^1.882 = 323. Nothing about the model has changed.
# - **The change.** All token conventions agree on what Q4_0 costs here: +2.8 to +3.05 %. Per word the same damage is +5.4 %, since the logarithm is 1.88 times as
#   large. A *percentage* of perplexity needs its unit as much as the perplexity does; nats per token, or bits per byte, just add.
#
# **3. What the ± means.** The two models again, in llama-perplexity's windows of 512, three standard errors of the same mean difference: as if the models
# had read different texts; paired, as you wrote it; and paired by windows, for which the tokens of one window need not be independent.

# %% tags=["experiment"]
inputs, targets = llama_windows(tokens, 512, None)
scored = targets != -100
wanted = targets[scored][:, None]
base_losses = losses_of(read(course_model, inputs)[scored])
with course_model.replaced(blocks):
    other_losses = losses_of(read(course_model, inputs)[scored])
pair = paired(base_losses, other_losses)
n = len(base_losses)
apart = math.sqrt((base_losses.var() + other_losses.var()).item() / n)
window_means = (other_losses - base_losses).view(len(inputs), -1).mean(1)
by_windows = window_means.std().item() / math.sqrt(len(inputs))
print(f"{n} tokens: ln ratio {pair['log ratio']:.4f}, perplexity {100 * (pair['ratio'] - 1):+.2f} %")
for name, error in {
    "unpaired": apart,
    "paired (yours)": pair["log ratio se"],
    "paired, by windows": by_windows,
}.items():
    needed = n * (error / 0.005) ** 2
    print(f"{name:20} ± {error:.4f}   tokens until 1 % is two errors: {needed:12,.0f}")

# %% [markdown]
# We got a log ratio of 0.033, with ± 0.084 unpaired, ± 0.0051 paired and ± 0.0043 by windows. Unpaired, Q4_0 looks harmless on these 2 040 tokens; paired, the damage is
# six errors from 0. Pairing saves a factor of 275 in tokens, because a token that is hard for one model is hard for the other: until 1 % is two errors, 2 106 tokens and not 579 000. At two errors a true change is missed every
# other time; to find it with 80 % take ((2 + 0.84) / 2)² = 2 times as many. The error by windows rests on
# eight numbers, so it is itself uncertain by about a quarter (1/√14); with hundreds of windows or documents prefer it, since neighbouring tokens are not independent.

# %% [markdown]
# ## Rubric
#
# An instructor scores the next three answers and the talk at the end, 7 points each; alone, score yourself by the tables. Write into the
# cells "Your answer".

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-definition", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Definition and numerics (7 points)
#
# A colleague's script prints a perplexity ten times that of the paper. It feeds the file line by line, padded to batches; computes log-softmax in float16 and adds the losses up in float16; divides each
# line's sum by the padded length; takes exp; averages over lines. In 250 words or fewer: what is wrong, which way does each fault push the number, and how would you prove your own implementation
# right before you trust a figure from it?
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | "Use the library's loss" | Names the mean of perplexities or the padding | Names most faults, most directions right; tests on a model with a known answer | Every fault with its direction and size, an ordered set of invariants, and an independent tool at the end |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** *lines alone*: no context across lines, the first token of each unscored or scored from a BOS alone: up. *Mean of exps*: exp is convex, so the mean of perplexities is at least exp of the mean loss, and one hopeless short
# line dominates: up, often by far (issue 560 of Hugging Face's evaluate: 60.98 by lines, where 5.47 is usual with windows of 2 048). Equal weight for lines also gives a token of a short line more weight. *Padded length as divisor*: down, if the padding's loss is masked;
# if it is scored as tokens, anything. T and not T − 1: down by (T − 1)/T of the mean loss. *float16*: logits above 11.09 overflow a naive exp (inf, NaN); with the maximum taken off a loss of 8 to 16 is rounded to 1/128, at most 1/256 off, which mostly
# averages out; a float16 *sum* does not: from 2 048 on its steps are 2, so a loss below 1 is lost, and at 65 504 it ends: down, then inf. Repair: mask, widen, log-softmax, sum in float64, count, divide once, exp once.
# Proof: uniform logits give V; a constant added to all logits changes nothing; a table model by hand; a perfect model gives 1 (only with the right shift); padding added, no change; batches of other sizes, no change; then the same token ids through another tool, equal to 4 or 5 digits.
#
# **Strong, 7 of 7.** *"Three faults of averaging. Lines alone lose their context, so losses rise. Mean of exps ≥ exp of mean, and a two-token line of perplexity 10⁴ outweighs everything: up, by far the largest. Padded divisor: down, most for short lines; so the faults
# partly hide each other. Numerics: float16 overflows at e^11.09 without the max; with it single losses are 1/256 off at worst, which averages out; the float16 sum is worse: above 2 048 the step is 2, it stalls. My version: mask first, float32 log-softmax, float64 sum, integer count, one division, one exp. Proof in order: uniform → V;
# add 100 to every logit; a four-token table by hand; a 'next id = id + 1' model must give 1, which fails for any other shift; extra padding and other batch sizes change nothing. Last, compare token ids and then the figure with llama-perplexity: mine agree to 10⁻⁵ on three window lengths. Only then do I read a number."*
# Each fault with direction and size, which of them hide one another, and a proof that ends outside one's own code.
#
# **Middling, 4 of 7.** *"You may not average perplexities; sum the negative log-likelihoods over all tokens and divide by the number of tokens. The mean of perplexities is larger by Jensen. Padding must not be in the divisor, it makes the result too small. float16 overflows in exp, use float32.
# I tested with uniform logits (gives V) and against a hand-computed example."* Three faults with directions, a sound test. Context between lines, the stalled sum and an independent tool are missing.
#
# **Weak, 1 of 7.** *"He should use float32 and CrossEntropyLoss, which is already averaged, and exp at the end. Then the result should be close to the paper."* One fault; the library's mean is per batch, which is the same mistake again.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (definition and numerics):

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-conventions", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Conventions and comparability (7 points)
#
# A blog post ranks four tools by the perplexity that they give Llama-2-7B in 16 bits on WikiText-2: 5.12, 5.47, 5.79, 8.71. It concludes that the last tool damages the model. In 250 words or fewer: explain each figure with the windows, the scored tokens and the unit;
# which can be turned into which without the model; what must be printed next to a perplexity; and what your experiment says about comparing a quantized model across conventions.
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | "Different implementations" | Context length named, or word against token | All four explained, a list of what to print | Also what converts and what cannot, with numbers, and that log ratios survive token conventions but percentages do not survive a change of unit |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** 5.12 and 5.47: disjoint windows of 4 096 and 2 048, all but the first token scored; the longer window has the larger mean context (2 048 and 1 024). 5.79: windows of 512, a BOS in each, second half scored: mean context 384, so still less. 8.71: per word, rolling over documents, and words counted in the text before detokenizing.
# Convertible without the model: unit changes only, over the same scored tokens, given the counts: exp(nats / words), nats / ln 2 / bytes. ln 8.71 = 2.16 nats per word; with 1.63 (ln 5.12) nats per token that would be 1.33 tokens per word, plausible, but only if context and text agreed, and they do not quite. Not convertible: context, windows, BOS, text preparation.
# Print: model and its dtype, text with its preparation, tokenizer and BOS, n_ctx, windows and scored tokens (count), unit, standard error, tool and version. Experiment: 23.0, 25.7, 27.9, 21.5 and 323 for one model; Q4_0 costs +2.8 to +3.05 % in every token convention and +5.4 % per word, because ln is multiplied by 1.88 tokens per word. Across tokenizers: bits per byte.
#
# **Strong, 7 of 7.** *"Same weights, so rank nothing. 5.12 and 5.47: disjoint windows of 4 096 and 2 048; each scored token sees half a window on average, longer sees more. 5.79: llama-perplexity, 512, BOS, second half: 384 tokens of context on average, fewer than either. 8.71: nats per *word*; ln 8.71 = 2.16, at 1.63 nats a token it needs 1.33 tokens
# a word, which is what a 32k vocabulary does; I cannot turn it into 5.12 exactly, since windows and detokenizing differ too. Units convert exactly on the same tokens with their counts; context does not convert at all. Next to a figure: model, dtype, text and preparation, tokenizer, BOS, n_ctx, windows, tokens scored, unit, ±, tool version. In my experiment five conventions gave 23.0, 25.7, 27.9, 21.5, 323,
# and Q4_0's change was +2.8…+3.05 % in the four per token, but +5.4 % per word: same nats, other exponent. So I may quote a log ratio from another token convention with care, never a difference of perplexities and never a percent per word against one per token. The tool is fine; the table is not."*
# Explained by numbers, converted where that is possible and refused where it is not, with evidence of one's own.
#
# **Middling, 4 of 7.** *"They use different context lengths: 4 096, 2 048 and 512, and llama.cpp leaves the first half out. More context gives lower perplexity. 8.71 is word perplexity from the harness: several tokens per word, so it is larger. Always compare the quantized model with the FP16 one in the same tool, and state context length, dataset and tool."*
# All four explained and the rule is right. No conversion, no numbers of the experiment, an incomplete list.
#
# **Weak, 1 of 7.** *"8.71 is probably measured with another dataset version or a bug in the tool. The lower the better, so 5.12 is the right value."* It takes one convention for the truth.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (conventions and comparability):

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-statistics", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Statistics (7 points)
#
# llama.cpp's perplexity README (n_ctx 512, WikiText-2) has for Llama-2-7B Q4_K_M 5.877078 ± 0.032781 beside a base of 5.794552 ± 0.032298, a correlation of 99.71 % and a KL divergence of 0.012686 ± 0.000079. Your manager says: "The difference is 0.083, the error
# 0.046: not significant, ship it." In 250 words or fewer: compute the right error and what pairing saves; what does it assume; how much of the text would you need to see a change of 1 % at two errors, paired and unpaired; what does the divergence add; what do both leave open?
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | Agrees, or says "use more data" | Says that the tokens are the same, no number | Paired error right, size of the saving right, one assumption | Also sample sizes, dependence between tokens, what divergence sees that the mean does not, and that significant is not the same as harmful |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** √(a² + b² − 2ρab) = √(0.032781² + 0.032298² − 2 · 0.9971 · 0.032781 · 0.032298) = 0.0025 (the README prints ΔPPL 0.082526 ± 0.002530, and the ratio 1.014242 ± 0.000432). So 33 errors, not 1.8. Unpaired 0.0460; (0.0460/0.00253)² ≈ 330 times the tokens. At two errors 1 % needs an error of 0.5 % in the ratio: paired (0.000432/0.005)² ≈ 0.75 % of the test set, about a hundredth;
# unpaired 0.0460/5.83 = 0.79 %, so (0.79/0.5)² ≈ 2.5 test sets. (An effect of just two errors is seen half the time; for 80 % twice the tokens.) Assumes: same tokens, same windows; independent tokens (they are not: cluster by windows or documents, compare the two errors); this text stands for the use. Not decided by significance: +1.42 % against a budget. Divergence: whole distributions, non-negative per token, so changes that cancel in the mean loss do not
# cancel here; 0.012686 is 160 errors from 0. It measures distance from the base, not quality; asymmetric, p from the base. Open: tasks, long context, other domains; answers can flip at equal perplexity (arXiv 2407.09141). Choosing the best of many mixes on one text is selection.
#
# **Strong, 7 of 7.** *"0.046 adds the errors as if two texts had been read. Same tokens: √(a² + b² − 2ρab) = 0.0025. The difference is 33 errors: certain. Pairing saves (0.046/0.0025)² ≈ 330-fold in tokens. For 1 % at two errors I need 0.5 %: paired the ratio's error is 0.043 % on the full text, so under 1 % of it will do; unpaired 0.79 %, so two and a half test sets. Assumed: tokens independent.
# They are not; I also compute the error over window means, and if it is twice as large I need four times the text. Certain is not the same as important: +1.42 %; the question is the budget. The divergence, 0.0127, is 160 errors from 0 and sees what the loss of the one sampled token cannot: mass moved among all other tokens, gains that cancel losses. Both say only 'near the base on Wikipedia'. Flipped answers, long contexts, code,
# reasoning: task tests, paired too. And if Q4_K_M was chosen as the best of twenty on this text, its figure is flattered."*
# Every figure computed, the assumption tested and not only named, and significance kept apart from importance.
#
# **Middling, 4 of 7.** *"The models are evaluated on the same tokens so errors are correlated; with 99.71 % correlation the error of the difference is about 0.0025, so the degradation is significant. KL divergence is better than perplexity because it compares the distributions and not just the right token. But 1.4 % is small."* The main computation and the point of the divergence. No sample sizes, no doubt about independence.
#
# **Weak, 1 of 7.** *"The confidence intervals overlap, so the manager is right. One could use more chunks to be sure."* Overlap of unpaired intervals is no test here.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (statistics):

# %% [markdown]
# ## Follow-up questions
#
# Try each aloud before you unfold what a strong answer touches.
#
# **1. For Llama-2-7B Q2_K a README prints perplexity 5.794552, ratio to the base 1.107955, difference 0.625552. What do you reply?**
#
# <details><summary>A strong answer touches</summary>
#
# The three cannot belong together. The columns beside it have the ratio 1.014242 and the difference 0.082526 at 5.877078: both give a base of 5.794552. So the base's figure stands in Q2_K's cell, and the right one is 5.794552 · 1.107955 = 6.4201, or 5.794552 + 0.625552, the same.
# (llama.cpp, `tools/perplexity/README.md`, revision f364eb6f of the table.) Redundant columns are there to be checked.
#
# </details>
#
# **2. Two runs of one harness on one model print 8.7921 per word with 0.5865 bits per byte, and 13.0065 with 0.6102. Is it the model?**
#
# <details><summary>A strong answer touches</summary>
#
# No model is needed for an answer. log₂(word perplexity) / bits per byte is the mean number of bytes per word of the text: 5.35 in the first run, 6.07 in the second. The same text cannot have both, so what was counted as bytes or words changed, beside a smaller change of the
# likelihoods themselves. (Issue 806 of lm-evaluation-harness, on Llama-2-7B; with pull request 833 it is 8.7922 again.)
#
# </details>
#
# **3. Llama-3-8B in 16 bits has 6.23 where Llama-2-7B has 5.79, both by llama-perplexity with n_ctx 512. Has the newer model become worse?**
#
# <details><summary>A strong answer touches</summary>
#
# Not to be read from these two figures (both in llama.cpp's perplexity README). The vocabularies have 128 thousand and 32 thousand tokens: the same text is fewer, longer tokens, each of which carries more nats; and 512 tokens are more text of context. Compare bits per byte over the same bytes. The README says itself that the value is not comparable
# between models, above all with different tokenizers.
#
# </details>
#
# **4. What does a wrong BOS do, and how would you notice?**
#
# <details><summary>A strong answer touches</summary>
#
# llama-perplexity asks the file whether it adds one, and replaces the first token of each window. SmolLM2's file says no. We measured on the 93 tokens of the experiment, windows of 64: 12.48 without, 12.68 with token 0 in front, 13.77 with token 1, `<|im_start|>`: the second is a different prompt, not noise. Unpaired these differences drown in ± 4, paired they need not. Notice it by
# comparing token ids between tools *before* the figures, and look for two BOS where a template and a tokenizer each add one (llama-cpp-python issue 1501).
#
# </details>
#
# **5. Which stride would you take for windows of 512?**
#
# <details><summary>A strong answer touches</summary>
#
# Cost: every scored token makes the model read about n_ctx / stride tokens. After the first window, the least context of a scored token is n_ctx − stride (1 for stride = n_ctx). On 16 384 tokens of the evaluation text we measured for the course model 22.66 disjoint, 20.96 with stride 256 and 20.81 with 128: the first doubling of time buys 7.5 %, the next 0.7 %. For comparing a quantized model with its base even disjoint windows do, since the log ratio barely depends on it.
#
# </details>
#
# **6. An instruction-tuned model has a higher perplexity on WikiText-2 than its base. A bug?**
#
# <details><summary>A strong answer touches</summary>
#
# Expected: tuning moves probability toward dialogue, and llama.cpp's README says that finetunes usually have a higher perplexity even where people prefer them. So perplexity compares one model with its own quantizations. For tuned models take text in their template, score the assistant's part only, and prefer divergence from the 16-bit model and task scores.
#
# </details>
#
# **7. The base's logits of a 128 k vocabulary do not fit the disk. How do you measure divergence?**
#
# <details><summary>A strong answer touches</summary>
#
# float32 logits of a test set of 300 000 tokens, half of them scored, at 128 000 entries: 150 000 · 128 000 · 4 bytes = 77 GB. llama.cpp keeps 16 bits per log-probability and leaves out those below e⁻¹⁶ (its README names 37 GiB for Llama 3). Or run both models side by side, window by window, and keep four numbers per token, as the reference package does. Or keep the top k and
# the rest's mass, and say that the result is a lower bound: merging outcomes never raises a divergence.
#
# </details>

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-communication", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Communication: the talk (7 points)
#
# Answer the question at the top in 15 minutes, to an interviewer who may ask any of the follow-ups. Speak, draw, show your code. Then write below what you said, in ten lines or fewer.
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | Recites the formula; loses the thread | Understandable; answers what was asked and no more | Definition, windows, units, statistics in order, each with a figure | Teaches: a drawing first, figures predicted before shown, the evidence for one's own code, limits named unasked |
#
# === BEGIN MARK SCHEME ===
#
# **The model answer, in five parts of three minutes.**
#
# 1. *The definition.* Draw one row of tokens with the logits shifted by one. A sum of nats, a count, one division, one exp. Three anchors: perfect 1, uniform V, and a table model by hand. "Everything that follows is about which tokens are in the sum and what stands before them."
# 2. *The numerics.* Mask before computing; float32 log-softmax (float16 ends at e^11.09, and rounds a loss of 8 to 16 to 1/128); float64 sum. NaN in padding must not count. Evidence: equal to llama-perplexity to 10⁻⁵ on SmolLM2, n_ctx 32, 64, 96: 19.1277, 12.4772, 18.2102.
# 3. *The windows.* Draw disjoint, second half, sliding. Loss falls with context: 6.1 nats with one token before it, 3.0 with hundreds (course model). Hence 5.12 (4 096), 5.47 (2 048), 5.79 (512, second half, mean context 384). Predict the order of 512, 256 and 64 on the course model, then show 23.0, 25.7, 27.9.
# 4. *The units.* Same nats over words: ln 8.71 = 2.16 per word. On the course model 1.88 tokens a word turn 21.5 into 323, and +2.8 % into +5.4 %. Across tokenizers bits per byte. A label that I print next to every figure: model, dtype, text and preparation, tokenizer and BOS, n_ctx, windows, tokens scored, unit, ±, tool and version.
# 5. *The statistics.* Paired, by covariance: on 2 040 tokens ± 0.0051 for the log ratio and not ± 0.084; 275 times fewer tokens. For 1 % at two errors: some 2 000 tokens here, under a hundredth of WikiText-2 for Llama-2-7B Q4_K_M (ratio ± 0.000432). Then divergence, which on 93 tokens saw (six errors) what perplexity could not (one). Open: dependence between tokens, one domain, tasks; perplexity can stand still while answers flip.
#
# Score the talk itself where you heard it; the samples are what candidates wrote of theirs.
#
# **Strong, 7 of 7.** *"I drew the shift and the three kinds of windows before any code. Anchors: 1, V, a table by hand. I predicted the order of the conventions from mean context (256, 128, 48) and showed 23.0, 25.7, 27.9, then 323 for the same nats per word, and so explained 5.12, 5.47, 5.79 and 8.71. My code equals llama-perplexity's figures to 10⁻⁵ on SmolLM2; I showed the three lines. One percent:
# paired error 0.005 on 2 040 tokens, so about 2 000 tokens at two errors here; unpaired half a million. I gave the label that I print with each figure. Said unasked: tokens are not independent, the text is one domain, SmolLM2's file was quantized before, so its 0.57 measures nothing about Q4_0. Asked about divergence on a 128 k vocabulary I estimated the file and offered to run both models side by side."* A picture first, predictions, evidence, limits.
#
# **Middling, 4 of 7.** *"I explained my functions in order: loss with shift, llama.cpp's windows, sliding windows, words and bytes, paired error. The four numbers come from context length and from words against tokens. On the course model I showed the table. Pairing makes the error smaller because the tokens are the same; I had the number on request."* Right and in order; the drawing, the prediction and the sample size had to be asked for.
#
# **Weak, 1 of 7.** *"Perplexity is exp of the cross-entropy. I showed my code and that the tests pass. The numbers differ because the tools differ. More tokens are better."* No windows, no units, no figure of one's own.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (the talk, in ten lines or fewer):
