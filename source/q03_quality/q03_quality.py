# ---
# jupyter:
#   course:
#     number: 3
#     title: Quantization impact on model quality
#     category: Conceptual
#     difficulty: Mid
#     levels: [mid, senior]
#     companies: [Anthropic, OpenAI, Cohere]
#     minutes: {talk: 15, code: 50}
#     prerequisites:
#       - softmax, cross-entropy and logits in torch or numpy
#       - mean, variance, standard error, what a confidence interval says
#       - "Question 2: the names of llama.cpp's mixes, from Q8_0 to Q2_K"
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
# # Question 3: Quantization impact on model quality
#
# | | |
# |:--|:--|
# | **Category** | Conceptual |
# | **Difficulty** | Mid; marked for the levels mid and senior |
# | **Companies** | Anthropic, OpenAI, Cohere |
# | **Time** | 50 minutes of code, then a talk of 15 minutes |
# | **You should know** | logits and cross-entropy in torch or numpy, standard errors, the names of llama.cpp's mixes (question 2) |
# | **Code points** | 30, in six exercises |
# | **Rubric points** | 28, in four categories of 7 |
# | **Mid passes with** | 12 rubric points and 60 % of the code points |
# | **Senior passes with** | 18 rubric points and 80 % of the code points |

# %% [markdown]
# ## The question
#
# > "We want to replace our 16-bit model by a 4-bit build of it. How do you find out what the quantization did to the model's quality?
# > Which measures do you take, and what does each of them fail to see? At the end I need one word for the release meeting: yes, no, or
# > 'we do not know yet'. How do you get from the measurements to that word, and who set the limits?"

# %% [markdown]
# ## What is looked for
#
# **Competencies.** Measures that are computed right, with their units and their errors; the statistics of paired comparisons; a
# release rule that separates evidence from taste; suspicion of single figures of merit.
#
# | Green flags | Red flags |
# |:--|:--|
# | Compares the quantized model with **its own base**, token by token | Compares two perplexities from two tables |
# | Every figure has a ±, and says over what it was taken | "5.68 against 5.62, so 1 % worse" |
# | Pairs the measurements before computing the error | "The error bars overlap, so there is no difference" |
# | Says percent or percentage points, and means it | "−0.5 %" for 72.3 % → 71.8 % |
# | Knows that equal accuracy can hide changed answers | "The same MMLU, so the same model" |
# | Has three verdicts, and says what would turn *inconclusive* into one of the others | Calls a test that saw nothing a proof of no damage |
# | Chooses the fastest build *within* a quality budget | Multiplies quality by speed |

# %% [markdown]
# ## Background 1: pair first, then average
#
# Perplexity is exp(mean loss), and the mean has an error because texts differ: some tokens are easy, some hard. But they are easy and
# hard for **both** models. The cell takes the losses of the course model and of its Q4_K_M build on the same 1,020 tokens. (The course model is a small
# Llama that the course trained itself; the text is Python's language reference, which it has not seen.)

# %% tags=["experiment"]
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import quant_kernels as qk
from course.fetch import fetch
from course.texts import evaluation_text

model = qk.load_model(fetch("course-model"))
windows = torch.tensor(model.tokenizer.encode(evaluation_text())[: 4 * 512]).view(4, 512)


def losses_of(some_model):
    with torch.inference_mode():
        logits = some_model(windows, slice(256, 511)).flatten(0, 1)  # the second half of each window is scored
    return F.cross_entropy(logits, windows[:, 257:].flatten(), reduction="none").double()


base, other = losses_of(model), losses_of(qk.quantize_model(model, "Q4_K_M"))
n = len(base)
unpaired = ((base.var() + other.var()) / n).sqrt().item()
paired = ((other - base).std() / n**0.5).item()

figure, axes = plt.subplots(figsize=(7.5, 3.8))
axes.scatter(base, other, s=6, alpha=0.5)
axes.plot([0, 16], [0, 16], color="grey", linewidth=1)
axes.set(
    xlabel="loss of the base, nats",
    ylabel="loss of Q4_K_M, nats",
    title=f"{n} tokens, one dot each: correlation {torch.corrcoef(torch.stack([base, other]))[0, 1]:.4f}",
)
axes.text(
    0.4,
    11.6,
    f"mean difference {(other - base).mean():+.4f} nats\n± {unpaired:.4f}  as two separate samples\n± {paired:.4f}  paired",
    va="center",
)
axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# In our run the mean difference is +0.0167 nats: a seventh of its error if the two are taken as separate samples (± 0.1167), more than three times its error if the tokens are paired (± 0.0052).
# No more was measured; the same losses were subtracted **before** averaging. All that follows rests on that.

# %% [markdown]
# ## Background 2: what each measure sees
#
# ```
# a text ─▶ the model ─▶ a distribution over the vocabulary at every token
#                         │
#                         ├─▶ −ln p of the text's own token, mean, exp  =  perplexity
#                         ├─▶ p of the own token, other − base          =  Δp, with its percentiles
#                         ├─▶ largest entry: the same as the base's?    =  top-1 agreement
#                         └─▶ Σ p · ln(p/q) over all entries            =  KL divergence
#
# a prompt ─▶ the model ─▶ an answer ─┬─▶ right or wrong  =  accuracy, and flips against the base
#                                     └─▶ better or worse =  preference of readers
# ```
#
# Perplexity can stand still while much changes, since a token that became likelier pays for one that became rarer. KL divergence cannot:
# at every token it is ≥ 0, and 0 only where nothing changed. Accuracy has the same blindness as perplexity: answers that
# turn from wrong to right pay for those that turn from right to wrong. The paper *Accuracy is Not All You Need*
# (arXiv 2407.09141) counts these **flips** for quantized models and finds that they go with KL divergence.
#
# What llama.cpp's own table says (README of its perplexity tool; WikiText-2, windows of 512):
#
# | model, mix | perplexity | KL divergence | same top token |
# |:--|--:|--:|--:|
# | Llama-2-7B, Q4_K_M | +1.42 % | 0.0127 | 94.67 % |
# | Llama-2-7B, Q2_K | +10.8 % | – | 85.6 % |
# | Llama-3-8B, Q4_K_M | +2.82 % | 0.0313 | 91.9 % |
# | Llama-3-8B, Q2_K | +56.5 % | 0.445 | 71.1 % |
#
# The same mix costs one model twice what it costs another: a limit in percent of perplexity can be checked only on *your* model.

# %% [markdown]
# ## Exercises
#
# Arguments are CPU tensors of torch, or Python numbers, strings, lists and dicts; leave them as they are. Inputs are finite where nothing else is said.
# Work in float64: the differences of nearly equal models are small. Numbers may come back as Python floats, numpy scalars or 0-dimensional tensors.
# Use torch or numpy; `quant_kernels` is not there when your answer is graded, nor is scipy. The exercises do not build on one another: each is scored alone.

# %%
import math

import numpy as np
import torch

# %% [markdown]
# ### Exercise (a): perplexity of a corpus, with two errors
#
# *6 minutes, 4 points*
#
# ```
# corpus_perplexity  documents: list of D float32 tensors (n_d,)  →  (perplexity, se_tokens, se_documents)
#
# document 1   2.1  0.3  5.8                 each number is the loss of one token, −ln p, in nats
# document 2   0.9  1.7  0.2  3.3  2.8       D ≥ 2, n_d ≥ 1,  N = Σ n_d
# ```
#
# | | |
# |:--|:--|
# | Mean | `m = Σ loss / N`: every token counts alike, whichever document it stands in |
# | Perplexity | `exp(m)` |
# | `se_tokens` | `exp(m) · s / √N`, with s the standard deviation of all losses (divisor N − 1): the error if tokens were independent |
# | `se_documents` | `exp(m) · √(D/(D − 1) · Σ_d r_d²) / N`, with `r_d = Σ (loss − m)` over document d: the error if only documents are independent |
# | Tolerance | 10⁻⁵ relative: float64 leaves 10⁻¹², float32 with a good order of summation 10⁻⁶ |
#
# The factor exp(m) in front is the slope of exp at m: an error of ε nats in the mean is one of exp(m) · ε in the perplexity.
# How to window a text is question 9's subject; here the losses are given.


# %% nbgrader={"grade": false, "grade_id": "perplexity", "locked": false, "schema_version": 3, "solution": true, "task": false}
def corpus_perplexity(documents):
    """Perplexity of a list of loss tensors `(n_d,)`, and its standard errors over tokens and over documents."""
    ### BEGIN SOLUTION
    losses = torch.cat(documents).double()  # (N,)
    n, n_documents = len(losses), len(documents)
    mean = losses.mean()
    value = mean.exp().item()
    residuals = torch.stack([(document.double() - mean).sum() for document in documents])  # (D,)
    over_documents = (n_documents / (n_documents - 1) * residuals.square().sum()).sqrt().item() / n
    return value, value * losses.std().item() / math.sqrt(n), value * over_documents
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# A perplexity per document is never needed, and the mean of such perplexities is another quantity.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# Join all losses for the mean and for the first error. For the second, a document is one observation: what it contributes to the sum beyond its share.
# The residuals of all documents add up to 0.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# everything = joined losses, float64
# m = everything.mean()
# surplus = [sum of (document - m) for each document]
# error_of_mean = sqrt(D / (D - 1) * sum of squares of surplus) / N
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-perplexity", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
import math

import torch

from course.checks import Points, check_close

two, eight = math.log(2), math.log(8)
# two documents of two tokens, perplexities 2 and 8; each loss lies ln 2 away from the mean ln 4
documents = [torch.tensor([two, two]), torch.tensor([eight, eight])]
mistakes = (
    {
        "the documents' perplexities are averaged; exp comes after the mean": 5.0,
        "2 is raised to a loss in nats; the base is e": 2 ** (2 * two),
    },
    {
        "the error of the mean loss is not multiplied by the perplexity": two / math.sqrt(3),
        "the standard deviation is not divided by √N": 8 * two / math.sqrt(3),
        "the variance is divided by N, not by N − 1": 2 * two,
    },
    {
        "the error of the mean loss is not multiplied by the perplexity": two,
        "the factor D/(D − 1) is left out": 4 * two / math.sqrt(2),
        "tokens are taken as independent": 4 * two / math.sqrt(3),
    },
)
cases = {"perplexities 2 and 8": (documents, (4.0, 4 * two / math.sqrt(3), 4 * two), mistakes)}
### BEGIN HIDDEN TESTS
import quant_kernels as qk


def expected_of(documents):
    losses = torch.cat(documents).double()
    n, d, mean = len(losses), len(documents), losses.mean().item()
    value = math.exp(mean)
    residuals = [sum(loss - mean for loss in document.tolist()) for document in documents]
    over_documents = math.sqrt(d / (d - 1) * sum(r * r for r in residuals)) / n
    return value, value * losses.std().item() / math.sqrt(n), value * over_documents


def mistakes_of(documents):
    losses = torch.cat(documents).double()
    n, d, mean = len(losses), len(documents), losses.mean().item()
    value, se, se_documents = expected_of(documents)
    means = torch.stack([document.double().mean() for document in documents])
    return (
        {
            "the documents' perplexities are averaged; exp comes after the mean": lambda: means.exp().mean().item(),
            "every document counts alike; every token should": lambda: math.exp(means.mean()),
            "2 is raised to a loss in nats; the base is e": lambda: 2**mean,
        },
        {
            "the error of the mean loss is not multiplied by the perplexity": lambda: se / value,
            "the standard deviation is not divided by √N": lambda: se * math.sqrt(n),
            "the variance is divided by N, not by N − 1": lambda: se * math.sqrt((n - 1) / n),
            "the error is that of the mean of exp(loss)": lambda: losses.exp().std().item() / math.sqrt(n),
        },
        {
            "the error of the mean loss is not multiplied by the perplexity": lambda: se_documents / value,
            "the factor D/(D − 1) is left out": lambda: se_documents * math.sqrt((d - 1) / d),
            "tokens are taken as independent": lambda: se,
            "documents of every length count alike": lambda: value * means.std().item() / math.sqrt(d),
        },
    )


generator = torch.Generator().manual_seed(303)
topics = torch.randn(30, generator=generator)
lengths = torch.randint(1, 60, (30,), generator=generator).tolist()
correlated = [(topic + torch.randn(n, generator=generator)).exp() for topic, n in zip(topics, lengths, strict=True)]
documents_of = {
    "documents of different lengths": correlated,
    "two documents, one of them a single token": [torch.tensor([7.0]), torch.rand(9, generator=generator)],
    "every second loss of longer tensors": [torch.rand(2 * n, generator=generator)[::2] * 5 for n in (3, 50, 200)],
}
for name, documents in documents_of.items():
    cases[name] = (documents, expected_of(documents), mistakes_of(documents))

table = torch.randn(50, 50, generator=generator)
tokens = torch.randint(0, 50, (400,), generator=generator)
reference = qk.perplexity(lambda ids: table[ids], tokens, n_ctx=40)
rows = tokens.view(10, 40)
losses = -table[rows[:, 20:39]].log_softmax(-1).gather(-1, rows[:, 21:, None])[..., 0]  # (10, 19)
documents = list(losses)
cases["windows that llama-perplexity scores"] = (
    documents,
    (reference.value, reference.standard_error, expected_of(documents)[2]),
    mistakes_of(documents),
)
### END HIDDEN TESTS
points = Points()
for place, (worth, what) in enumerate(((2, "perplexity"), (1, "se_tokens"), (1, "se_documents"))):
    with points.part(worth, what):
        for name, (documents, expected, mistakes) in cases.items():
            got = corpus_perplexity(documents)
            assert len(got) == 3, f"corpus_perplexity returns {len(got)} values, not 3"
            check_close(
                got[place], expected[place], 1e-5 * expected[place], f"{what}, {name}", "10⁻⁵ relative", mistakes[place]
            )
points.earned

# %% [markdown]
# ### Exercise (b): two sets of logits
#
# *8 minutes, 6 points*
#
# The base model and a quantized one have read the same text. What changed?
#
# ```
# compare_logits  base, other: float32 (n, V)    logits at n tokens
#                 targets: int64 (n,)            the token that the text has there
#                 →  dict with the five keys below
# ```
#
# With p and q the softmax of `base` and of `other`, at each token:
#
# | key | what | over the n tokens |
# |:--|:--|:--|
# | `"kl_divergence"` | Σ over the vocabulary of p · (ln p − ln q), in nats | mean |
# | `"kl_99"` | the same | 99th percentile |
# | `"same_top"` | 1 where the largest entries of `base` and `other` stand at the same place (of equal ones the first counts), else 0 | mean: a share from 0 to 1 |
# | `"delta_p_rms"` | Δp = q(target) − p(target) | root of the mean square |
# | `"delta_p_percentiles"` | the same Δp, with its sign | list of the 1st, 5th, 50th, 95th and 99th percentile |
#
# | | |
# |:--|:--|
# | Percentiles | interpolate linearly between neighbouring values, as `numpy.percentile` and `torch.quantile` do by default |
# | Ruled-out tokens | a logit may be −inf: then the probability is 0. Where p = 0 the term is 0, whatever q is. Where q = 0 and p > 0 it is inf |
# | Large logits | up to ±10,000; no overflow |
# | Tolerance | 10⁻⁶ relative plus 10⁻⁹: float64 throughout reaches it, float32 does not where the models are nearly equal |
#
# These are llama.cpp's conventions (`llama-perplexity --kl-divergence`), except that it prints shares and Δp in percent. Your work ends
# with the summary; the means' standard errors come in (c).


# %% nbgrader={"grade": false, "grade_id": "compare", "locked": false, "schema_version": 3, "solution": true, "task": false}
def compare_logits(base, other, targets):
    """KL divergence, top-1 agreement and change of probability of `other` against `base`, logits `(n, V)`."""
    ### BEGIN SOLUTION
    log_p, log_q = base.double().log_softmax(-1), other.double().log_softmax(-1)  # (n, V)
    p = log_p.exp()
    divergence = torch.where(p == 0, 0, p * (log_p - log_q)).sum(-1)  # (n,)
    same_top = base.argmax(-1) == other.argmax(-1)
    own = targets.unsqueeze(-1)
    delta_p = (log_q.gather(-1, own).exp() - p.gather(-1, own)).squeeze(-1)  # (n,)
    return {
        "kl_divergence": divergence.mean().item(),
        "kl_99": float(np.percentile(divergence.numpy(), 99)),
        "same_top": same_top.double().mean().item(),
        "delta_p_rms": delta_p.square().mean().sqrt().item(),
        "delta_p_percentiles": np.percentile(delta_p.numpy(), [1, 5, 50, 95, 99]).tolist(),
    }
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Stay in log-probabilities as long as you can: `log_softmax` neither overflows nor takes the logarithm of 0.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# p comes from the base: the question is what is lost by using q where p is the truth. 0 · (−inf − …) is NaN in floats, so put the 0 there
# by `torch.where`. `gather` along the last dimension fetches the text's own token.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# lp, lq = log-probabilities in float64
# terms = where p is 0: 0, else p * (lp - lq)
# kl = terms summed over the vocabulary                # (n,)
# change = exp(lq at target) - exp(lp at target)       # (n,)
# summary = mean and 99th percentile of kl, mean of (argmax == argmax),
#           sqrt of mean square of change, percentiles of change
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-compare", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
import math

import numpy as np
import torch

from course.checks import Points, check_close

WHY = "10⁻⁶ relative plus 10⁻⁹: float64 throughout"
AT = (1, 5, 50, 95, 99)

# row 0: p = (0.5, 0.3, 0.2), q = (0.4, 0.5, 0.1), the text has token 0; row 1: nothing changed
base = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1]]).double().log()
other = torch.tensor([[0.4, 0.5, 0.1], [0.6, 0.3, 0.1]]).double().log()
divergence = 0.5 * math.log(0.5 / 0.4) + 0.3 * math.log(0.3 / 0.5) + 0.2 * math.log(0.2 / 0.1)  # 0.096953
backward = 0.4 * math.log(0.4 / 0.5) + 0.5 * math.log(0.5 / 0.3) + 0.1 * math.log(0.1 / 0.2)
expected = {
    "kl_divergence": divergence / 2,
    "kl_99": 0.99 * divergence,
    "same_top": 0.5,
    "delta_p_rms": 0.1 / math.sqrt(2),
    "delta_p_percentiles": [-0.099, -0.095, -0.05, -0.005, -0.001],
}
mistakes = {
    "kl_divergence": {
        "p is taken from the quantized model; it comes from the base": backward / 2,
        "the divergence is in bits, not in nats": divergence / 2 / math.log(2),
        "tokens are summed, not averaged": divergence,
        "the sum over the vocabulary is a mean (as reduction='mean' of kl_div gives)": divergence / 6,
        "only the text's own token counts; the sum runs over the vocabulary": math.log(0.5 / 0.4) / 2,
    },
    "kl_99": {"percentiles do not interpolate": divergence},
    "same_top": {
        "it is in percent; a share is asked for": 50.0,
        "the other's top token is compared with the text's, not with the base's": 0.0,
    },
    "delta_p_rms": {
        "the square root is missing": 0.005,
        "it is the change of ln p, not of p": math.log(0.5 / 0.4) / math.sqrt(2),
        "it is the mean, not the root of the mean square": -0.05,
        "it is the mean of |Δp|, not the root of the mean square": 0.05,
    },
    "delta_p_percentiles": {
        "Δp is base − other; it is other − base": [0.001, 0.005, 0.05, 0.095, 0.099],
        "the largest comes first": [-0.001, -0.005, -0.05, -0.095, -0.099],
    },
}
cases = {"two tokens by hand": (base.float(), other.float(), torch.tensor([0, 1]), expected, lambda *logits: mistakes)}
### BEGIN HIDDEN TESTS
import quant_kernels as qk


def scored(tables, tokens, n_ctx):
    """Logits of the models that look up a token and a place in tables, at the tokens that llama-perplexity scores."""
    rows, first = tokens.view(-1, n_ctx), n_ctx // 2
    base, other = (words[rows[:, first:-1]] + places[first : n_ctx - 1] for words, places in tables)
    return base.flatten(0, 1), other.flatten(0, 1), rows[:, first + 1 :].flatten()


def summary(divergence, same_top, delta_p):
    return {
        "kl_divergence": divergence.mean().item(),
        "kl_99": float(np.percentile(divergence, 99)),
        "same_top": same_top.double().mean().item(),
        "delta_p_rms": delta_p.square().mean().sqrt().item(),
        "delta_p_percentiles": np.percentile(delta_p, AT).tolist(),
    }


def reference_of(base, other, targets):
    p, q = base.double().softmax(-1), other.double().softmax(-1)
    gap = base.double().log_softmax(-1) - other.double().log_softmax(-1)
    rows = torch.arange(len(p))
    divergence = torch.where(p > 0, p * torch.where(p > 0, gap, 0), 0).sum(-1)
    return summary(divergence, base.argmax(-1) == other.argmax(-1), q[rows, targets] - p[rows, targets])


def exploded(base, other):
    """ln(p/q) by exp of the bare logits."""
    p, q = (x.double().exp() / x.double().exp().sum(-1, keepdim=True) for x in (base, other))
    return torch.where(p == 0, 0, p.log() - q.log())


def mistakes_of(base, other, targets):
    p, q = base.double().softmax(-1), other.double().softmax(-1)
    log_p, log_q = base.double().log_softmax(-1), other.double().log_softmax(-1)
    rows, n = torch.arange(len(p)), len(p)
    right = reference_of(base, other, targets)
    turned = reference_of(other, base, targets)
    divergence = torch.where(p > 0, p * (log_p - log_q), 0).sum(-1)
    delta_p = q[rows, targets] - p[rows, targets]
    top = base.argmax(-1)
    top_change = q[rows, top] - p[rows, top]
    own = {"it is the change of ln p, not of p": log_q[rows, targets] - log_p[rows, targets]}
    own["it is the base's top token that is followed, not the text's own"] = top_change
    return {
        "kl_divergence": {
            "0 · (−inf) is left to make a NaN": (p * (log_p - log_q)).sum(-1).mean().item(),
            "exp overflows; log_softmax takes the largest logit off first": (p * exploded(base, other))
            .sum(-1)
            .mean()
            .item(),
            "p is taken from the quantized model; it comes from the base": turned["kl_divergence"],
            "the divergence is in bits, not in nats": right["kl_divergence"] / math.log(2),
            "tokens are summed, not averaged": right["kl_divergence"] * n,
            "the sum over the vocabulary is a mean (as reduction='mean' of kl_div gives)": right["kl_divergence"]
            / p.shape[-1],
            "only the text's own token counts; the sum runs over the vocabulary": (log_p - log_q)[rows, targets]
            .mean()
            .item(),
        },
        "kl_99": {
            "p is taken from the quantized model; it comes from the base": turned["kl_99"],
            "it is the 1st percentile": float(np.percentile(divergence, 1)),
            "percentiles do not interpolate": float(np.percentile(divergence, 99, method="nearest")),
            "percentiles do not interpolate; the higher neighbour is taken": float(
                np.percentile(divergence, 99, method="higher")
            ),
            "it is the mean, not the 99th percentile": right["kl_divergence"],
        },
        "same_top": {
            "it is in percent; a share is asked for": 100 * right["same_top"],
            "the other's top token is compared with the text's, not with the base's": (other.argmax(-1) == targets)
            .double()
            .mean()
            .item(),
            "it is the share of tokens whose top token changed": 1 - right["same_top"],
        },
        "delta_p_rms": {
            "the square root is missing": right["delta_p_rms"] ** 2,
            "it is the standard deviation, which leaves out the mean": delta_p.std().item(),
            "it is the mean, not the root of the mean square": delta_p.mean().item(),
            "it is the mean of |Δp|, not the root of the mean square": delta_p.abs().mean().item(),
            **{text: lambda value=value: value.square().mean().sqrt().item() for text, value in own.items()},
        },
        "delta_p_percentiles": {
            "Δp is base − other; it is other − base": np.percentile(-delta_p, AT).tolist(),
            "Δp has lost its sign": np.percentile(delta_p.abs(), AT).tolist(),
            **{text: lambda value=value: np.percentile(value, AT).tolist() for text, value in own.items()},
        },
    }


generator = torch.Generator().manual_seed(305)


def randn(*shape):
    return torch.randn(*shape, generator=generator)


forbidding = torch.zeros(3, 5)
forbidding[1, 2] = -math.inf
cases["a token that only the other rules out"] = (
    torch.zeros(3, 5),
    forbidding,
    torch.tensor([0, 1, 3]),
    {"kl_divergence": math.inf},
    mistakes_of,
)
words, places, tokens = 2 * randn(300, 300), randn(64, 300), torch.randint(0, 300, (256,), generator=generator)
tables = [(words, places), (words + 0.3 * randn(300, 300), places)]
found = qk.compare(*(lambda ids, w=w, p=p: w[ids] + p[: ids.shape[1]] for w, p in tables), tokens, n_ctx=64)
base, other, targets = scored(tables, tokens, 64)
expected = {
    "kl_divergence": found.kl_divergence.value,
    "kl_99": found.kl_percentiles[99],
    "same_top": found.same_top.value,
    "delta_p_rms": found.delta_p_rms.value,
    "delta_p_percentiles": [found.delta_p_percentiles[at] for at in AT],
}
cases["a bigram model and a noisy copy"] = (base, other, targets, expected, mistakes_of)

inputs = {
    "models that are nearly equal": (base, base + 1e-3 * randn(*base.shape)),
    "logits of thousands": (500 * randn(90, 40), 500 * randn(90, 40)),
    "ties at the top": (randn(90, 40).round(), randn(90, 40).round()),
    "transposed memory": (randn(40, 90).T, randn(40, 90).T),
    "one token": (randn(1, 40), randn(1, 40)),
}
masked, masked_too = randn(90, 40), randn(90, 40)
masked[:, ::7], masked_too[:, ::14] = -math.inf, -math.inf
inputs["tokens that the base rules out, some of them ruled out by both"] = (masked, masked_too)
for name, (base, other) in inputs.items():
    targets = torch.randint(0, base.shape[1], (len(base),), generator=generator)
    cases[name] = (base, other, targets, reference_of(base, other, targets), mistakes_of)
### END HIDDEN TESTS


def check(key):
    for name, (base, other, targets, expected, mistakes_of) in cases.items():
        if key not in expected:
            continue
        what = f'compare_logits, {name}: "{key}"'
        with np.errstate(all="ignore"):  # percentiles of infinite values are asked of nobody, and would warn
            got, right = compare_logits(base, other, targets)[key], expected[key]
        if right == math.inf:
            assert float(got) == math.inf, f"{what}: got {float(got):.6g}, expected inf: q is 0 where p is not"
            continue
        if isinstance(right, list):
            assert len(got) == 5, f"{what} has {len(got)} entries, not 5"
            got = [float(value) for value in got]
        got, right = torch.as_tensor(got).double(), torch.tensor(right).double()
        tolerance = 1e-6 * right.abs() + 1e-9
        if (got - right).abs().gt(tolerance).any() or got.isnan().any():
            with np.errstate(all="ignore"):
                wrong = mistakes_of(base, other, targets).get(key, {})
                wrong = {text: value() if callable(value) else value for text, value in wrong.items()}
            wrong = {text: torch.tensor(value).double() for text, value in wrong.items()}
            check_close(got, right, tolerance, what, WHY, wrong)


points = Points()
for worth, key in ((2, "kl_divergence"), (1, "kl_99"), (1, "same_top"), (1, "delta_p_rms"), (1, "delta_p_percentiles")):
    with points.part(worth, key):
        check(key)
points.earned

# %% [markdown]
# ### Exercise (c): three comparisons of the same items
#
# *10 minutes, 6 points*
#
# ```
# paired_log_ratio  base, other: float32 (n,), losses of the same n ≥ 2 tokens
#                   →  (log_ratio, se_paired, se_unpaired)
# mcnemar           base, other: bool (n,), right or wrong at the same n items
#                   →  (lost, won, p_value)
# votes_needed      preference, alpha=0.05, power=0.8
#                   →  int
# ```
#
# **Perplexities.** ln(perplexity of other / perplexity of base) is the mean of the differences of the losses, other − base. `se_paired` is
# the standard error of that mean: the standard deviation of the differences (divisor n − 1) over √n. `se_unpaired` is what you get if you forget that the tokens are
# the same: √(var(base)/n + var(other)/n), divisors n − 1.
#
# **Accuracies.** Items that both models get right, or both wrong, say nothing about which is better. What counts are the flips:
#
# ```
#                     other right   other wrong
# base right                ·           lost            with no difference between the models,
# base wrong               won            ·             each flip is a toss of a fair coin
# ```
#
# `p_value` is McNemar's exact two-sided one: min(1, 2 · P(X ≤ min(lost, won))) for X ~ Binomial(lost + won, ½); 1 if nothing flipped.
#
# **Votes.** Readers see one answer of each model and prefer one (no ties). How many votes does a two-sided test of "50 %" at level `alpha` need to
# find a true preference with probability `power`? By the normal approximation, each variance at its own hypothesis,
#
# ```
#     ⎡ ( z(1 − alpha/2) · √(½ · ½)  +  z(power) · √(preference · (1 − preference)) )² ⎤
# n = ⎢ ────────────────────────────────────────────────────────────────────────────── ⎥
#     ⎢                             (preference − ½)²                                  ⎥
# ```
#
# rounded up, with z the quantile of the standard normal distribution (`statistics.NormalDist().inv_cdf`). A `preference` of exactly ½ raises `ValueError`. For 55 %: **783**.
#
# | | |
# |:--|:--|
# | Range | several thousand flips: ½ⁿ is below the smallest float64 from n = 1,075 on, and integers of Python have no such limit |
# | Tolerance | 10⁻⁵ relative for the log ratio (plus 10⁻⁷) and its errors; 10⁻⁶ relative for p; the counts and votes are exact |

# %% nbgrader={"grade": false, "grade_id": "paired", "locked": false, "schema_version": 3, "solution": true, "task": false}
from statistics import NormalDist


def paired_log_ratio(base, other):
    """ln of the ratio of two perplexities on the same tokens, its standard error paired, and unpaired."""
    ### BEGIN SOLUTION
    base, other = base.double(), other.double()
    n, differences = len(base), other - base
    unpaired = ((base.var() + other.var()) / n).sqrt().item()
    return differences.mean().item(), differences.std().item() / math.sqrt(n), unpaired
    ### END SOLUTION


def mcnemar(base, other):
    """Items lost and won by `other`, and McNemar's exact two-sided p-value."""
    ### BEGIN SOLUTION
    lost, won = int((base & ~other).sum()), int((~base & other).sum())
    flips = lost + won
    tail = sum(math.comb(flips, k) for k in range(min(lost, won) + 1))
    return lost, won, min(1.0, 2 * tail / 2**flips)
    ### END SOLUTION


def votes_needed(preference, alpha=0.05, power=0.8):
    """Votes that tell `preference` from one half; ValueError if it is one half."""
    ### BEGIN SOLUTION
    if preference == 0.5:
        raise ValueError("no number of votes tells 50 % from 50 %")
    quantile = NormalDist().inv_cdf
    spread = quantile(1 - alpha / 2) * 0.5 + quantile(power) * math.sqrt(preference * (1 - preference))
    return math.ceil((spread / (preference - 0.5)) ** 2)
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Subtract first, then take mean and deviation. The p-value depends on two integers and on nothing else.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# `math.comb` counts the ways exactly; the quotient of two large integers of Python is correctly rounded. (`math.lgamma` would do too.)
# If lost = won, twice the tail is above 1. `math.ceil` rounds up.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# d = other - base
# result = d.mean(), d.std() / sqrt(n), sqrt((base.var() + other.var()) / n)
#
# ways = sum of comb(lost + won, k) for k = 0 ... min(lost, won)
# p = min(1, 2 * ways / 2 ** (lost + won))
#
# n = ((z_alpha * 0.5 + z_power * sqrt(w * (1 - w))) / (w - 0.5)) ** 2          # then round up
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-paired", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
import math

import torch

from course.checks import Points, check_close, check_equal, check_raises

losses = {"three tokens": (torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.1, 2.3, 3.2]))}
ratios = {"three tokens": (0.2, 0.1 / math.sqrt(3), math.sqrt((1.0 + 1.11) / 3))}  # differences 0.1, 0.3, 0.2
answers = {"10 lost, 2 won": (10, 2, 2 * (1 + 12 + 66) / 4096), "3 lost, 3 won": (3, 3, 1.0), "no flip": (0, 0, 1.0)}
votes = {(0.55, 0.05, 0.8): 783}


def p_mistakes(lost, won, n):
    one_side = {(10, 2): 79 / 4096, (3, 3): 42 / 64}.get((lost, won), 1.0)
    return {
        "only one side is counted; the test is two-sided": one_side,
        "the p-value is above 1: it is cut off there": 2 * one_side,
    }


def vote_mistakes(preference, alpha, power):
    return {
        "alpha is one-sided; half of it lies on each side": 617,
        "power is left out: that many find it in half of the experiments only": 385,
        "both variances are those of a fair coin": 785,
        "two groups of voters are compared; every vote compares both answers": 1566,
        "the number is rounded down: one vote short": 782,
    }


### BEGIN HIDDEN TESTS
from statistics import NormalDist

import quant_kernels as qk

generator = torch.Generator().manual_seed(307)


def randn(*shape):
    return torch.randn(*shape, generator=generator)


base = randn(4000).exp()
losses["4,000 losses, nearly equal"] = (base, base + 0.01 * randn(4000) + 0.0005)
losses["the other is better"] = (base[:500], 0.9 * base[:500] + 0.02 * randn(500))
losses["every second loss of longer tensors"] = (base[::2], base[1::2])
for name, (base, other) in losses.items():
    d, n = other.double() - base.double(), len(base)
    variances = base.double().var() + other.double().var()
    ratios[name] = (d.mean().item(), d.std().item() / math.sqrt(n), math.sqrt(variances / n))
words = 2 * randn(200, 200)
tables = (words, words + 0.2 * randn(200, 200))
tokens = torch.randint(0, 200, (640,), generator=generator)
found = qk.compare(*(lambda ids, table=table: table[ids] for table in tables), tokens, n_ctx=64)
rows = tokens.view(10, 64)
base, other = (-table[rows[:, 32:63]].log_softmax(-1).gather(-1, rows[:, 33:, None]).flatten() for table in tables)
name = "the tokens that llama-perplexity scores"
losses[name] = (base, other)
ratios[name] = (
    found.log_ratio.value,
    found.log_ratio.standard_error,
    math.sqrt((base.double().var() + other.double().var()) / len(base)),
)
for lost, won in ((0, 1), (0, 9), (7, 0), (40, 61), (1600, 1450)):
    flips, fewer = lost + won, min(lost, won)
    terms = [
        math.exp(math.lgamma(flips + 1) - math.lgamma(k + 1) - math.lgamma(flips - k + 1) - flips * math.log(2))
        for k in range(fewer + 1)
    ]
    answers[f"{lost} lost, {won} won"] = (lost, won, min(1.0, 2 * math.fsum(terms)))
for asked in ((0.6, 0.05, 0.8), (0.52, 0.05, 0.9), (0.55, 0.01, 0.8), (0.45, 0.05, 0.8), (0.9, 0.05, 0.8)):
    w, z = asked[0], NormalDist().inv_cdf
    n = ((z(1 - asked[1] / 2) / 2 + z(asked[2]) * math.sqrt(w * (1 - w))) / (w - 0.5)) ** 2
    votes[asked] = math.ceil(n)


def p_mistakes(lost, won, n):
    flips = lost + won
    statistic = (lost - won) / math.sqrt(flips) if flips else 0.0
    corrected = max(0, abs(lost - won) - 1) / math.sqrt(flips) if flips else 0.0
    same = (n - flips) // 2
    right, right_too = (lost + same) / n, (won + same) / n
    separate = math.sqrt((right * (1 - right) + right_too * (1 - right_too)) / n)
    once = sum(math.comb(flips, k) for k in range(min(lost, won) + 1)) / 2**flips
    of_all = 2 * sum(math.comb(n, k) for k in range(min(lost, won) + 1)) / 2**n
    return {
        "only one side is counted; the test is two-sided": once,
        "the p-value is above 1: it is cut off there": 2 * once,
        "the chi-square approximation is used; the exact sum is asked for": math.erfc(abs(statistic) / math.sqrt(2)),
        "the chi-square approximation with its continuity correction is used": math.erfc(corrected / math.sqrt(2)),
        "the accuracies are compared as two separate samples; count the flips": math.erfc(
            abs(right - right_too) / separate / math.sqrt(2)
        ),
        "items without a flip are counted as tosses": min(1.0, of_all),
    }


def vote_mistakes(preference, alpha, power):
    z = NormalDist().inv_cdf
    two_sided, sure, spread = z(1 - alpha / 2), z(power), math.sqrt(preference * (1 - preference))
    roots = {
        "alpha is one-sided; half of it lies on each side": z(1 - alpha) / 2 + sure * spread,
        "power is left out: that many find it in half of the experiments only": two_sided / 2,
        "both variances are those of a fair coin": (two_sided + sure) / 2,
        "both variances are those of the preference": (two_sided + sure) * spread,
        "two groups of voters are compared; every vote compares both answers": math.sqrt(2)
        * (two_sided / 2 + sure * spread),
        "1 − power is used where power belongs": two_sided / 2 + z(1 - power) * spread,
    }
    needed = {text: math.ceil((root / (preference - 0.5)) ** 2) for text, root in roots.items()}
    return needed | {"the number is rounded down: one vote short": votes[preference, alpha, power] - 1}


### END HIDDEN TESTS


def check_ratios():
    for name, (base, other) in losses.items():
        got, (ratio, paired, unpaired) = paired_log_ratio(base, other), ratios[name]
        assert len(got) == 3, f"paired_log_ratio returns {len(got)} values, not 3"
        n, what = len(base), f"paired_log_ratio, {name}"
        mistakes = {
            "the sign is turned: it is other − base": -ratio,
            "the ratio of the mean losses is taken; perplexities are exp of them": lambda: math.log(
                other.mean() / base.mean()
            ),
            "it is the ratio, not its logarithm": math.exp(ratio),
            "it is the difference of the perplexities": lambda: (other.mean().exp() - base.mean().exp()).item(),
            "it is the change in percent": lambda: 100 * (math.exp(ratio) - 1),
        }
        check_close(got[0], ratio, 1e-5 * abs(ratio) + 1e-7, f"{what}: log_ratio", "10⁻⁵ relative plus 10⁻⁷", mistakes)
        mistakes = {
            "the two samples are taken as separate; subtract before you average": unpaired,
            "the standard deviation is not divided by √n": paired * math.sqrt(n),
            "the variance is divided by n, not by n − 1": paired * math.sqrt((n - 1) / n),
        }
        check_close(got[1], paired, 1e-5 * paired, f"{what}: se_paired", "10⁻⁵ relative", mistakes)
        mistakes = {
            "the covariance is taken off; that is the paired error": paired,
            "the errors are added, not their squares": lambda: (
                (base.double().std() + other.double().std()).item() / math.sqrt(n)
            ),
            "the variances are divided by n, not by n − 1": unpaired * math.sqrt((n - 1) / n),
        }
        check_close(got[2], unpaired, 1e-5 * unpaired, f"{what}: se_unpaired", "10⁻⁵ relative", mistakes)


def flipped(lost, won, same=9):
    """Answers with so many flips, and as many that agree, in some order."""
    pairs = [(True, False)] * lost + [(False, True)] * won + [(True, True)] * same + [(False, False)] * same
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(1))
    return torch.tensor(pairs)[order].unbind(1)


def check_mcnemar():
    for name, (lost, won, p_value) in answers.items():
        base, other = flipped(lost, won)
        got = mcnemar(base, other)
        assert len(got) == 3, f"mcnemar returns {len(got)} values, not 3"
        what = f"mcnemar, {name}"
        check_close(got[0], lost, 0.0, f"{what}: lost", "exact", {"lost and won are swapped": won})
        check_close(got[1], won, 0.0, f"{what}: won", "exact", {"lost and won are swapped": lost})
        mistakes = p_mistakes(lost, won, len(base))
        check_close(got[2], p_value, 1e-6 * p_value, f"{what}: p_value", "10⁻⁶ relative", mistakes)


def check_votes():
    for (preference, alpha, power), right in votes.items():
        what = f"votes_needed({preference}, {alpha}, {power})"
        got = votes_needed(preference) if (alpha, power) == (0.05, 0.8) else votes_needed(preference, alpha, power)
        check_close(got, right, 0.0, what, "exact", vote_mistakes(preference, alpha, power))
    check_raises(ValueError, "votes_needed(0.5)", votes_needed, 0.5)


points = Points()
with points.part(2, "paired_log_ratio"):
    check_ratios()
with points.part(2, "mcnemar"):
    check_mcnemar()
with points.part(2, "votes_needed"):
    check_votes()
points.earned

# %% [markdown]
# ### Exercise (d): a release gate per application
#
# *7 minutes, 4 points*
#
# A claim you will meet: "72.3 % → 71.8 %, that is −0.5 %, acceptable"; and a gate that rejects above 3 % of perplexity, whatever the model is for. The first is a fall of
# 0.5 percentage **points** (0.7 percent), and without an error it says nothing. The second cannot be right for a batch job and for medical texts at once.
#
# ```
# interval      metric, estimate, standard_error, z=1.645  →  (low, high)
# release_gate  measured, budgets, z=1.645                 →  {application: verdict}
#
# measured = {metric: (estimate, standard_error), ...}
# budgets  = {application: {metric: limit, ...}, ...}
# verdict  = "pass", "fail" or "inconclusive"
# ```
#
# | metric | `estimate` and `standard_error` | damage: unit of the limit, of `low` and of `high` | `low` and `high` |
# |:--|:--|:--|:--|
# | `"perplexity"` | log ratio, other against base | increase in **percent** | 100 · (exp(estimate ∓ z · se) − 1) |
# | `"accuracy"` | other − base, as shares from 0 to 1 | **drop** in **percentage points** | 100 · (−estimate ∓ z · se) |
# | `"kl_divergence"` | nats | nats | estimate ∓ z · se |
#
# ```
#                    limit
#        ├──●──┤       ┊                       pass            high ≤ limit
#                  ├───┊●───┤                  inconclusive    neither
#                      ┊     ├──●──┤           fail            low > limit
# ───────────────────────────────────────▶ damage
# ```
#
# | | |
# |:--|:--|
# | z = 1.645 | each end is a one-sided bound of 95 %: a build on the limit passes in about 5 % of the experiments |
# | Application | `"fail"` if a metric of its budget fails; else `"inconclusive"` if one is inconclusive; else `"pass"` |
# | No measurement | a metric that the budget asks for and `measured` lacks is inconclusive; one that the budget does not ask for is not looked at |
# | NaN | an estimate or a standard error that is NaN fails: the model produced NaN |
# | Errors | `ValueError` for a budget without any limit: it would pass everything |
# | Tolerance | 10⁻⁹ relative plus 10⁻¹²; verdicts are exact |


# %% nbgrader={"grade": false, "grade_id": "gate", "locked": false, "schema_version": 3, "solution": true, "task": false}
def interval(metric, estimate, standard_error, z=1.645):
    """Ends `(low, high)` of a metric's damage: percent of perplexity, percentage points of accuracy, nats."""
    ### BEGIN SOLUTION
    centre = -estimate if metric == "accuracy" else estimate
    low, high = centre - z * standard_error, centre + z * standard_error
    if metric == "perplexity":
        return 100 * math.expm1(low), 100 * math.expm1(high)
    unit = 100 if metric == "accuracy" else 1
    return unit * low, unit * high
    ### END SOLUTION


def release_gate(measured, budgets, z=1.645):
    """Verdict "pass", "fail" or "inconclusive" for each application's budget."""
    ### BEGIN SOLUTION

    def verdict(metric, limit):
        if metric not in measured:
            return "inconclusive"
        low, high = interval(metric, *measured[metric], z)
        if math.isnan(low) or low > limit:
            return "fail"
        return "pass" if high <= limit else "inconclusive"

    verdicts = {}
    for application, budget in budgets.items():
        if not budget:
            raise ValueError(f"the budget of {application!r} has no limit: it would pass everything")
        found = {verdict(metric, limit) for metric, limit in budget.items()}
        verdicts[application] = next(word for word in ("fail", "inconclusive", "pass") if word in found)
    return verdicts
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Turn everything into "damage, larger is worse" in the budget's unit first. Then there is one comparison for all metrics.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# The interval of a ratio is symmetric in its logarithm: shift there, then exponentiate. A drop is minus the change. Every comparison with NaN is false:
# ask for it by name, or a broken model ends as inconclusive.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# for each (metric, limit) of the budget:
#     absent from measured              -> "inconclusive"
#     low is NaN, or low > limit        -> "fail"
#     high <= limit                     -> "pass"
#     otherwise                         -> "inconclusive"
# worst of them: fail before inconclusive before pass
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-gate", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
import math

from course.checks import Points, check_close, check_equal, check_raises

BUDGETS = {
    "chat": {"perplexity": 2.0, "accuracy": 1.0},
    "batch summaries": {"perplexity": 5.0},
    "code completion": {"kl_divergence": 0.01, "accuracy": 0.5},
}
intervals = {
    ("perplexity", math.log(1.03), 0.0): (3.0, 3.0),
    ("accuracy", -0.005, 0.002): (0.171, 0.829),  # 72.3 % → 71.8 %
    ("kl_divergence", 0.009, 0.001): (0.007355, 0.010645),
}
# +1.07 % ± 0.2 % of perplexity, −0.5 ± 0.2 points of accuracy, 0.0090 ± 0.0001 nats
good = {"perplexity": (0.0106, 0.002), "accuracy": (-0.005, 0.002), "kl_divergence": (0.009, 0.0001)}
cases = [
    ("a good build", good, BUDGETS, {"chat": "pass", "batch summaries": "pass", "code completion": "inconclusive"}),
    (
        "4.8 % of perplexity, nothing else measured",
        {"perplexity": (math.log(1.048), 0.004)},
        BUDGETS,
        {"chat": "fail", "batch summaries": "inconclusive", "code completion": "inconclusive"},
    ),
]


def idea_behind(verdicts):
    return ""


### BEGIN HIDDEN TESTS
for estimate, error in ((-0.0002, 0.0006), (0.024, 0.003), (0.45, 0.02), (0.0, 0.01)):
    ends = [100 * (math.exp(estimate + sign * 1.645 * error) - 1) for sign in (-1, 1)]
    intervals["perplexity", estimate, error] = tuple(ends)
    intervals["accuracy", estimate / 10, error] = (-10 * estimate - 164.5 * error, -10 * estimate + 164.5 * error)
    intervals["kl_divergence", estimate, error] = (estimate - 1.645 * error, estimate + 1.645 * error)

nan = math.nan
one = {"a": {"perplexity": 2.0}}
share = {"a": {"accuracy": 1.0}}
nats = {"a": {"kl_divergence": 0.02}}
both = {"a": {"kl_divergence": 0.02, "accuracy": 1.0}, "b": {"accuracy": 3.0, "kl_divergence": 0.5}}
cases += [
    ("a point value below the limit, an interval across it", {"perplexity": (0.015, 0.01)}, one, {"a": "inconclusive"}),
    ("a point value above the limit, an interval across it", {"perplexity": (0.025, 0.01)}, one, {"a": "inconclusive"}),
    ("far above", {"perplexity": (0.12, 0.003)}, one, {"a": "fail"}),
    ("a perplexity that fell", {"perplexity": (-0.05, 0.003)}, one, {"a": "pass"}),
    ("an accuracy that rose by 5 points", {"accuracy": (0.05, 0.01)}, share, {"a": "pass"}),
    ("an accuracy that fell by 5 points", {"accuracy": (-0.05, 0.01)}, share, {"a": "fail"}),
    ("an accuracy that fell by 0.9 points, for sure", {"accuracy": (-0.009, 0.0001)}, share, {"a": "pass"}),
    ("an accuracy that fell by 0.9 points, or not", {"accuracy": (-0.009, 0.003)}, share, {"a": "inconclusive"}),
    ("a high end on the limit", {"kl_divergence": (0.02, 0.0)}, nats, {"a": "pass"}),
    ("nothing measured", {}, nats, {"a": "inconclusive"}),
    ("NaN nats", {"kl_divergence": (nan, nan)}, nats, {"a": "fail"}),
    ("a NaN error", {"kl_divergence": (0.001, nan)}, nats, {"a": "fail"}),
    ("infinite nats", {"kl_divergence": (math.inf, 0.001)}, nats, {"a": "fail"}),
    (
        "fail and inconclusive together",
        {"kl_divergence": (0.04, 0.001), "accuracy": (-0.01, 0.01)},
        both,
        {"a": "fail", "b": "pass"},
    ),
    ("one of two measured", {"accuracy": (0.0, 0.001)}, both, {"a": "inconclusive", "b": "inconclusive"}),
    (
        "one fails, one is not measured",
        {"accuracy": (-0.2, 0.001)},
        both,
        {"a": "fail", "b": "fail"},
    ),
    (
        "what fails is not in the budget",
        {"kl_divergence": (9.0, 0.001), "perplexity": (0.001, 0.0001)},
        one,
        {"a": "pass"},
    ),
    ("no application", good, {}, {}),
]


def gate_by(
    measured, budgets, absent="inconclusive", across="inconclusive", at=None, nan="fail", worst=("fail", "inconclusive")
):
    """The verdicts of a gate with one misconception."""

    def word(metric, limit):
        if metric not in measured:
            return absent
        estimate, error = measured[metric]
        centre = -estimate if metric == "accuracy" else estimate
        ends = [centre + sign * (0 if at == "point" else 1.645) * error for sign in (-1, 1)]
        low, high = (100 * (math.exp(end) - 1) if metric == "perplexity" else end for end in ends)
        low, high = (100 * end if metric == "accuracy" else end for end in (low, high))
        if math.isnan(low):
            return nan
        return "fail" if low > limit else "pass" if high <= limit else across

    found = {name: [word(*item) for item in budget.items()] for name, budget in budgets.items()}
    return {name: next((bad for bad in worst if bad in words), "pass") for name, words in found.items()}


IDEAS = {
    "the point value is compared, and its error is ignored": {"at": "point"},
    "an interval across the limit passes; it is inconclusive": {"across": "pass"},
    "an interval across the limit fails; it is inconclusive": {"across": "fail"},
    "what was not measured passes": {"absent": "pass"},
    "what was not measured fails; it is inconclusive": {"absent": "fail"},
    "NaN is not asked for by name, and ends as inconclusive": {"nan": "inconclusive"},
    "NaN passes": {"nan": "pass"},
    "inconclusive outranks fail": {"worst": ("inconclusive", "fail")},
}


def idea_behind(verdicts):
    """The idea that gives all these verdicts, in words."""
    for text, idea in IDEAS.items():
        if verdicts == [gate_by(measured, budgets, **idea) for _, measured, budgets, _ in cases]:
            return f"what you get when {text}; "
    return ""


### END HIDDEN TESTS


def check_intervals():
    for (metric, estimate, error), ends in intervals.items():
        got = interval(metric, estimate, error)
        assert len(got) == 2, f"interval returns {len(got)} values, not 2"
        sign = -1 if metric == "accuracy" else 1
        for place, (name, right) in enumerate(zip(("low", "high"), ends)):
            shift = (place * 2 - 1) * 1.645 * error
            mistakes = {
                "the unit is a share; percent and percentage points are 100 times as many": right / 100,
                "low and high are swapped": ends[1 - place],
                "the half width is one standard error, not z of them": lambda: (
                    100 * (math.exp(estimate + shift / 1.645) - 1)
                    if metric == "perplexity"
                    else (100 if metric == "accuracy" else 1) * (sign * estimate + shift / 1.645)
                ),
            }
            if metric == "accuracy":
                mistakes["the change is taken, not the drop: a fall of accuracy is positive damage"] = 100 * (
                    estimate + shift
                )
            if metric == "perplexity":
                mistakes["100 times the log ratio is taken for percent"] = 100 * (estimate + shift)
                mistakes["the interval is put around the ratio, not around its logarithm"] = 100 * (
                    math.exp(estimate) * (1 + shift) - 1
                )
            what = f'interval("{metric}", {estimate:.6g}, {error}): {name}'
            check_close(got[place], right, 1e-9 * abs(right) + 1e-12, what, "10⁻⁹ relative plus 10⁻¹²", mistakes)
    wide = interval("kl_divergence", 1.0, 0.5, 2.0)
    check_close(wide[1], 2.0, 1e-12, 'interval("kl_divergence", 1, 0.5, z=2): high', "float64")


def check_verdicts():
    verdicts = []
    for name, measured, budgets, right in cases:
        got = release_gate(measured, budgets)
        assert isinstance(got, dict) and got.keys() == right.keys(), (
            f"release_gate, {name}: the keys are {list(got)}, expected the applications {list(right)}"
        )
        verdicts.append(dict(got))
    for (name, _, _, right), got in zip(cases, verdicts, strict=True):
        for application, word in right.items():
            if got[application] != word:
                idea = idea_behind(verdicts)
                raise AssertionError(
                    f'release_gate, {name}: "{application}": {idea}got {got[application]!r}, expected {word!r}.'
                )
    check_raises(ValueError, "release_gate with an empty budget", release_gate, good, {"all": {}})
    got = release_gate({"kl_divergence": (0.015, 0.002)}, {"a": {"kl_divergence": 0.02}}, 3.0)
    check_equal(got["a"], "inconclusive", "release_gate with z = 3: 0.015 ± 0.006 against 0.02")


points = Points()
with points.part(2, "interval"):
    check_intervals()
with points.part(2, "release_gate"):
    check_verdicts()
points.earned

# %% [markdown]
# ### Exercise (e): audit a score
#
# *8 minutes, 4 points*
#
# A score you will meet puts quality and speed into one number, larger is better, the base has 1:
#
# ```
# score = (base_perplexity / perplexity)^0.7 · (tokens_per_second / base_tokens_per_second)^0.3
# ```
#
# It comes with this table, whose figures name neither model nor machine, and with the sentence "Q4_K_M: (5.62/5.68)^0.7 · (52/28)^0.3 = 1.29, 29 % better!"
#
# | | perplexity | tokens/s |
# |:--|--:|--:|
# | FP16 | 5.62 | 28 |
# | Q4_K_M | 5.68 | 52 |
# | Q3_K_M | 5.89 | 61 |
# | Q2_K | 7.12 (the same text calls it unacceptable) | |
#
# Check the sentence, find the speed at which damage is paid for, and write a choice that cannot be bribed.
#
# ```
# quality_efficiency  perplexity, tokens_per_second, base_perplexity, base_tokens_per_second
#                     →  the score above
# break_even_speed    perplexity, score, base_perplexity, base_tokens_per_second
#                     →  tokens/s at which a model of that perplexity has that score
# fastest_within      candidates, budget, z=1.645
#                     →  a name of candidates, or None
#
# candidates = {name: {"tokens_per_second": v,
#                      "kl_divergence": (nats, se),
#                      "accuracy_drop": (percentage points, se)}, ...}
# budget     = {"kl_divergence": nats}, or {"accuracy_drop": percentage points}, or both
# ```
#
# | | |
# |:--|:--|
# | Eligible | a candidate with value + z · se ≤ limit for **every** metric of the budget; a candidate that lacks one of these metrics is not eligible |
# | Choice | the eligible one with the most tokens/s; of equally fast ones the smaller `kl_divergence` value; `None` if nobody is eligible |
# | Given | `candidates` and `budget` have an entry or more; every candidate has its speed and its `kl_divergence`, but not always an `accuracy_drop` |
# | Tolerance | 10⁻⁹ relative |
#
# Hidden tests check properties too: a build over the budget is never chosen, however fast it gets; a larger budget never gives a slower choice;
# the order of the candidates does not matter.


# %% nbgrader={"grade": false, "grade_id": "score", "locked": false, "schema_version": 3, "solution": true, "task": false}
def quality_efficiency(perplexity, tokens_per_second, base_perplexity, base_tokens_per_second):
    """The score under audit."""
    ### BEGIN SOLUTION
    return (base_perplexity / perplexity) ** 0.7 * (tokens_per_second / base_tokens_per_second) ** 0.3
    ### END SOLUTION


def break_even_speed(perplexity, score, base_perplexity, base_tokens_per_second):
    """Tokens per second at which a model of this perplexity reaches the score."""
    ### BEGIN SOLUTION
    return base_tokens_per_second * (score * (perplexity / base_perplexity) ** 0.7) ** (1 / 0.3)
    ### END SOLUTION


def fastest_within(candidates, budget, z=1.645):
    """Name of the fastest candidate whose damage is within the budget with 95 % confidence, or None."""
    ### BEGIN SOLUTION

    def within(candidate):
        return all(
            metric in candidate and candidate[metric][0] + z * candidate[metric][1] <= limit
            for metric, limit in budget.items()
        )

    def merit(name):
        candidate = candidates[name]
        return candidate["tokens_per_second"], -candidate.get("kl_divergence", (0, 0))[0]

    return max(filter(lambda name: within(candidates[name]), candidates), key=merit, default=None)
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Solve the score for the speed. For the choice: first throw out, then compare; what was thrown out has no speed any more.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# score^(1/0.3) undoes the exponent. The base/perplexity factor goes to the other side as perplexity/base. `max` takes a key that is a tuple
# (speed, minus divergence) and a `default` for the empty case.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# speed = base_speed * (score * (perplexity / base_perplexity) ** 0.7) ** (1 / 0.3)
#
# eligible = [name for name in candidates if every metric of the budget has value + z * se <= limit]
# choice = the eligible name with the largest (tokens_per_second, -divergence), or None
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-score", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
import math

from course.checks import Points, check_close

scores = {"Q4_K_M": ((5.68, 52, 5.62, 28), 1.1951576057)}
speeds = {"Q2_K, to tie with FP16": ((7.12, 1.0, 5.62, 28), 48.62876948)}
builds = {
    "Q8_0": {"tokens_per_second": 45.0, "kl_divergence": (0.001, 0.0001), "accuracy_drop": (0.0, 0.1)},
    "Q4_K_M": {"tokens_per_second": 70.0, "kl_divergence": (0.010, 0.0005), "accuracy_drop": (0.4, 0.3)},
    "Q3_K_M": {"tokens_per_second": 78.0, "kl_divergence": (0.032, 0.0010), "accuracy_drop": (1.1, 0.4)},
    "Q2_K": {"tokens_per_second": 95.0, "kl_divergence": (0.140, 0.0030), "accuracy_drop": (4.0, 0.8)},
}
choices = [
    ("0.02 nats", builds, {"kl_divergence": 0.02}, "Q4_K_M"),
    ("0.0102 nats, where Q4_K_M's value fits and its interval does not", builds, {"kl_divergence": 0.0102}, "Q8_0"),
    ("0.0001 nats", builds, {"kl_divergence": 0.0001}, None),
]
more_checks = []


def score_mistakes(*arguments):
    return {"it is the sentence's own number; the formula gives another": 1.29, "the exponents are swapped": 1.5374752}


def speed_mistakes(*arguments):
    return {"the exponent 0.3 is not undone": 33.0429342, "the speed is relative to the base": 1.7367418}


def idea_behind(picked):
    return ""


### BEGIN HIDDEN TESTS
import random

more_scores = {
    "Q4_K_M": (5.68, 52, 5.62, 28),
    "Q3_K_M": (5.89, 61, 5.62, 28),
    "Q2_K at 88 tokens/s": (7.12, 88.0, 5.62, 28),
    "the base": (5.62, 28, 5.62, 28),
    "slower and better": (5.0, 10.0, 6.0, 20.0),
}
more_speeds = {
    "Q2_K, to tie with FP16": (7.12, 1.0, 5.62, 28),
    "Q2_K, to tie with Q4_K_M": (7.12, (5.62 / 5.68) ** 0.7 * (52 / 28) ** 0.3, 5.62, 28),
    "a perplexity of 11 and a score of 2": (11.0, 2.0, 8.0, 15.0),
}
for name, (ppl, speed, base, base_speed) in more_scores.items():
    scores[name] = ((ppl, speed, base, base_speed), (base / ppl) ** 0.7 * (speed / base_speed) ** 0.3)
for name, (ppl, score, base, base_speed) in more_speeds.items():
    speeds[name] = ((ppl, score, base, base_speed), base_speed * (score * (ppl / base) ** 0.7) ** (1 / 0.3))


def score_mistakes(ppl, speed, base, base_speed):
    return {
        "it is the sentence's own number; the formula gives another": 1.29,
        "perplexity / base is taken: larger would be worse": (ppl / base) ** 0.7 * (speed / base_speed) ** 0.3,
        "the exponents are swapped": (base / ppl) ** 0.3 * (speed / base_speed) ** 0.7,
        "the factors are added": 0.7 * base / ppl + 0.3 * speed / base_speed,
    }


def speed_mistakes(ppl, score, base, base_speed):
    return {
        "a worse perplexity lowers the speed that is needed": base_speed * (score * (base / ppl) ** 0.7) ** (1 / 0.3),
        "the exponent 0.3 is not undone": base_speed * score * (ppl / base) ** 0.7,
        "the speed is relative to the base": (score * (ppl / base) ** 0.7) ** (1 / 0.3),
        "the power 1/0.3 does not reach the perplexities": base_speed * score ** (1 / 0.3) * (ppl / base) ** 0.7,
    }


sure = {name: build | {"kl_divergence": (build["kl_divergence"][0], 0.0)} for name, build in builds.items()}
twins = {
    name: {"tokens_per_second": 50.0, "kl_divergence": (nats, 0.0)}
    for name, nats in (("a", 0.3), ("b", 0.1), ("c", 0.2))
}
rushed = builds | {"Q2_K": builds["Q2_K"] | {"tokens_per_second": 1e6}}
unmeasured = builds | {"new": {"tokens_per_second": 300.0, "kl_divergence": (0.001, 0.0001)}}
choices += [
    ("1 point", builds, {"accuracy_drop": 1.0}, "Q4_K_M"),
    ("0.5 points, where Q4_K_M's value fits and its interval does not", builds, {"accuracy_drop": 0.5}, "Q8_0"),
    ("1 nat and 1 point", builds, {"kl_divergence": 1.0, "accuracy_drop": 1.0}, "Q4_K_M"),
    ("0.002 nats and 9 points", builds, {"kl_divergence": 0.002, "accuracy_drop": 9.0}, "Q8_0"),
    ("1 nat", builds, {"kl_divergence": 1.0}, "Q2_K"),
    ("0.02 nats, and Q2_K makes a million tokens/s", rushed, {"kl_divergence": 0.02}, "Q4_K_M"),
    ("a limit that is met exactly", sure, {"kl_divergence": 0.032}, "Q3_K_M"),
    ("equally fast", twins, {"kl_divergence": 1.0}, "b"),
    ("equally fast, one of them out", twins, {"kl_divergence": 0.25}, "b"),
    (
        "a fast build whose accuracy nobody measured",
        unmeasured,
        {"kl_divergence": 0.02, "accuracy_drop": 1.0},
        "Q4_K_M",
    ),
]
rng = random.Random(309)


def random_builds(n):
    return {
        f"build {i}": {
            "tokens_per_second": rng.uniform(20, 120),
            "kl_divergence": (rng.uniform(0, 0.1), rng.uniform(0, 0.01)),
            "accuracy_drop": (rng.uniform(-1, 4), rng.uniform(0, 1)),
        }
        for i in range(n)
    }


def bound(build, metric):
    return build[metric][0] + 1.645 * build[metric][1]


def check_properties():
    for _ in range(12):
        candidates = random_builds(6)
        budget = {"kl_divergence": rng.uniform(0.02, 0.1), "accuracy_drop": rng.uniform(0, 4)}
        what = "fastest_within, six random builds"
        choice = fastest_within(candidates, budget)
        good = [
            name
            for name, build in candidates.items()
            if all(bound(build, metric) <= budget[metric] for metric in budget)
        ]
        assert choice is None or choice in candidates, f"{what}: got {choice!r}, which is no candidate"
        assert (choice is None) == (not good), f"{what}: got {choice!r}; eligible are {good or 'none'}"
        assert choice is None or choice in good, f"{what}: got {choice!r}, which is over the budget"
        speed = candidates[choice]["tokens_per_second"] if choice else 0.0
        order = rng.sample(sorted(candidates), len(candidates))
        shuffled = fastest_within({name: candidates[name] for name in order}, budget)
        assert shuffled == choice, f"{what}: the choice depends on the order of the candidates"
        wider = fastest_within(candidates, {metric: 1.5 * limit + 0.01 for metric, limit in budget.items()})
        assert not choice or candidates[wider]["tokens_per_second"] >= speed, (
            f"{what}: a larger budget gives a slower choice"
        )
        for name in sorted(candidates.keys() - set(good))[:1]:
            faster = candidates | {name: candidates[name] | {"tokens_per_second": 1e9}}
            assert fastest_within(faster, budget) == choice, (
                f"{what}: a build over the budget changes the choice when it gets faster: damage is paid for with speed"
            )
        if choice:
            worse = candidates | {choice: candidates[choice] | {"kl_divergence": (9.0, 0.0)}}
            assert fastest_within(worse, budget) != choice, f"{what}: the choice stays when its damage grows to 9 nats"


more_checks.append(check_properties)


def choose_by(candidates, budget, z=1.645, fits=all, absent=False, key=None):
    """The choice with one misconception."""

    def within(build, metric):
        return build[metric][0] + z * build[metric][1] <= budget[metric] if metric in build else absent

    good = [name for name, build in candidates.items() if fits(within(build, metric) for metric in budget)]
    return max(good, key=lambda name: key(candidates[name]), default=None)


def fast(build):
    return build["tokens_per_second"]


IDEAS = {
    "the standard error is ignored": {"z": 0.0, "key": lambda build: (fast(build), -build["kl_divergence"][0])},
    "speed decides, and the budget does not": {
        "fits": lambda checks: True,
        "key": lambda build: (fast(build), -build["kl_divergence"][0]),
    },
    "one metric within its limit is enough": {
        "fits": any,
        "key": lambda build: (fast(build), -build["kl_divergence"][0]),
    },
    "what was not measured counts as no damage": {
        "absent": True,
        "key": lambda build: (fast(build), -build["kl_divergence"][0]),
    },
    "of equally fast builds the first wins, not the smaller divergence": {"key": fast},
    "the least damage is chosen, not the most speed within the budget": {
        "key": lambda build: -build["kl_divergence"][0]
    },
    "damage is weighed against speed, and the budget does not decide": {
        "fits": lambda checks: True,
        "key": lambda build: fast(build) ** 0.3 * math.exp(-0.7 * build["kl_divergence"][0]),
    },
}


def idea_behind(picked):
    """The idea that makes all these choices, in words."""
    for text, idea in IDEAS.items():
        if picked == [choose_by(candidates, budget, **idea) for _, candidates, budget, _ in choices]:
            return f"what you get when {text}; "
    return ""


### END HIDDEN TESTS


def check_scores():
    for name, (arguments, right) in scores.items():
        what, mistakes = f"quality_efficiency, {name}", score_mistakes(*arguments)
        check_close(quality_efficiency(*arguments), right, 1e-9 * right, what, "10⁻⁹ relative", mistakes)


def check_speeds():
    for name, (arguments, right) in speeds.items():
        what, mistakes = f"break_even_speed, {name}", speed_mistakes(*arguments)
        check_close(break_even_speed(*arguments), right, 1e-9 * right, what, "10⁻⁹ relative", mistakes)


def check_choices():
    picked = [fastest_within(candidates, budget) for _, candidates, budget, _ in choices]
    for (name, _, _, right), got in zip(choices, picked, strict=True):
        if got != right:
            idea = idea_behind(picked)
            raise AssertionError(f"fastest_within, {name}: {idea}got {got!r}, expected {right!r}.")


points = Points()
with points.part(1, "quality_efficiency"):
    check_scores()
with points.part(1, "break_even_speed"):
    check_speeds()
with points.part(2, "fastest_within"):
    for check in (check_choices, *more_checks):
        check()
points.earned

# %% [markdown]
# ### Exercise (f): multiple choice by log-likelihood
#
# *11 minutes, 6 points*
#
# Most benchmark figures for base models come from EleutherAI's lm-evaluation-harness. The model never writes an answer: each choice is appended to the
# question, and its log-likelihood is read off. You write the three steps, with that harness's conventions.
#
# ```
# request             encode, context, choice, n_ctx         →  (input_ids, continuation_ids)
# score_continuation  logits (T, V) float32, continuation_ids  →  (log_likelihood, is_greedy)
# accuracies          items                →  {"acc": share, "acc_norm": share, "acc_bytes": share}
#
# context "A list is a mutable", choice "sequence type"
#
# tokens        A   list   is   a   mutable    sequence   type         encoded as one text
#              └───────── context ────────┘  └─ continuation ─┘
# input_ids     A   list   is   a   mutable    sequence                the last one is not fed
# logits        ·    ·     ·    ·      │          │                    row t predicts what follows
#                                      ▼          ▼                    input t: the last rows count
#                                   sequence     type
# ```
#
# | `request` | |
# |:--|:--|
# | Text | the continuation is `" " + choice`; white space at the end of `context` moves to the front of the continuation, and none of it is lost |
# | Tokens | `whole = encode(context + continuation)`; the continuation's are those of `whole` behind the first `len(encode(context))` (context without its trailing white space) |
# | Input | context's tokens + continuation's, of these the last `n_ctx + 1`, of these all but the last one |
# | Given | `encode` turns text into a list of int; `context` has a character that is not white space; the continuation has at least one token and at most `n_ctx` |
#
# | `score_continuation` | |
# |:--|:--|
# | Likelihood | Σ ln p of the continuation's tokens over the **last** `len(continuation_ids)` rows; T may be larger |
# | Greedy | `True` if every one of these tokens is the largest entry of its row (of equal ones the first) |
# | Tolerance | 10⁻⁵ per token, which float32's log_softmax keeps |
#
# | `accuracies` | |
# |:--|:--|
# | Items | a list of `(log_likelihoods, choices, answer)`: list of floats, list of str, index of the right one |
# | `"acc"` | share of items whose largest log-likelihood is the answer's (of equal ones the first) |
# | `"acc_norm"` | the same with log-likelihood / `len(choice)`, length in **characters** |
# | `"acc_bytes"` | the same with log-likelihood / length of the choice in UTF-8 **bytes** |
# | Length | that of the choice alone, without the space in front |
#
# Source: `lm_eval/api/model.py`, `lm_eval/models/huggingface.py` and `lm_eval/api/task.py` of EleutherAI/lm-evaluation-harness. The next cell is a toy tokenizer
# for you to try `request` with; like byte-level BPE it keeps a space with the word that follows, and like many tokenizers it puts a BOS in front of every text.

# %%
import re
import zlib


def toy_encode(text):
    """A 1 for the beginning of the text, then one id per word, each word with the space in front of it."""
    pieces = re.findall(r" ?\w+| ?[^\w\s]+|\s+(?!\S)|\s", text)
    return [1, *(zlib.crc32(piece.encode()) % 10_000 for piece in pieces)]


toy_encode("A list"), toy_encode(" list"), toy_encode("list")


# %% nbgrader={"grade": false, "grade_id": "harness", "locked": false, "schema_version": 3, "solution": true, "task": false}
def request(encode, context, choice, n_ctx):
    """Token ids to feed, and token ids of the continuation whose likelihood is asked for."""
    ### BEGIN SOLUTION
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + " " + choice
    context_ids = encode(stripped)
    continuation_ids = encode(stripped + continuation)[len(context_ids) :]
    return (context_ids + continuation_ids)[-(n_ctx + 1) :][:-1], continuation_ids
    ### END SOLUTION


def score_continuation(logits, continuation_ids):
    """Log-likelihood of a continuation by the last rows of logits `(T, V)`, and whether greedy decoding writes it."""
    ### BEGIN SOLUTION
    rows = logits[-len(continuation_ids) :].double()
    ids = torch.tensor(continuation_ids)
    log_likelihood = rows.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).sum().item()
    return log_likelihood, bool((rows.argmax(-1) == ids).all())
    ### END SOLUTION


def accuracies(items):
    """Shares of items answered rightly by log-likelihood: plain, per character and per byte."""
    ### BEGIN SOLUTION

    def share(length):
        hits = 0
        for log_likelihoods, choices, answer in items:
            scores = [value / length(choice) for value, choice in zip(log_likelihoods, choices)]
            hits += scores.index(max(scores)) == answer
        return hits / len(items)

    return {
        "acc": share(lambda choice: 1),
        "acc_norm": share(len),
        "acc_bytes": share(lambda choice: len(choice.encode())),
    }
    ### END SOLUTION


# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# `"mutable " + "sequence"` and `"mutable" + " sequence"` are the same text, but only the second splits at a border of tokens.
# That is why the space belongs to the continuation.
#
# </details>
# <details><summary>Hint 2: the approach</summary>
#
# `rstrip` the context and put what it lost before the space. Never encode the continuation by itself: encode the whole text, and cut it by the length of the
# encoded context. Count rows of logits from the end.
#
# </details>
# <details><summary>Hint 3: almost the code</summary>
#
# ```python
# bare = context without trailing white space
# tail = what was stripped + " " + choice
# c = encode(bare);  k = encode(bare + tail)[len(c):]
# fed = (c + k)[-(n_ctx + 1):][:-1]
#
# rows = last len(k) rows of logits, as log-probabilities;  sum of rows[i][k[i]]
# best = first index of the largest value / length(choice)
# ```
#
# </details>

# %% nbgrader={"grade": true, "grade_id": "test-harness", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
import re
import zlib

import torch

from course.checks import Points, check_close


def ids_of(*pieces):
    return [zlib.crc32(piece.encode()) % 10_000 for piece in pieces]


front = [1, *ids_of("A", " list", " is", " a", " mutable")]
requests = {
    ("A list is a mutable", "sequence type", 512): [front + ids_of(" sequence"), ids_of(" sequence", " type")],
    ("A list is a mutable ", "sequence type", 512): [
        front + ids_of(" ", " sequence"),
        ids_of(" ", " sequence", " type"),
    ],
}
scores = {
    # ln ½ + ln ¼: the first token is the most likely one of its row, the second is not
    "two tokens": (
        torch.tensor([[0.6, 0.2, 0.2], [0.5, 0.3, 0.2], [0.25, 0.5, 0.25], [0.1, 0.65, 0.25]]).log(),
        [1, 2],
        -2.0794415,
        False,
    ),
    "one token": (torch.tensor([[0.1, 0.1, 0.8], [0.2, 0.5, 0.3]]).log(), [1], -0.6931472, True),
}
# the first of equals wins; "certainly" has the better log-likelihood per letter
tasks = {
    "two of two": ([([-3.0, -2.0], ["cat", "dog"], 1), ([-1.0, -1.0], ["cat", "dog"], 0)], (1.0, 1.0, 1.0)),
    "a long answer": ([([-2.0, -3.0], ["no", "certainly"], 1)], (0.0, 1.0, 1.0)),
}


def request_idea(got):
    return ""


def score_mistakes(logits, ids, right):
    return {
        "it is the mean over the tokens, not the sum": right / len(ids),
        "rows are counted from the front": -3.2188758,
        "rows are one too early: row t predicts the token after input t": -2.5902672,
    }


def flag_idea(flags):
    return ""


def share_mistakes(items, key, right):
    return {
        "it is in percent; a share is asked for": 100 * right,
        "hits are counted; a share is asked for": right * len(items),
    }


### BEGIN HIDDEN TESTS
more_requests = [
    *requests,
    ("Zeilen \n", "enden hier.", 512),
    ("two spaces  ", "and more", 512),
    ("def add(a, b): return", "a + b", 512),
    ("a question of more words than the window has", "two words", 6),
    ("a question of more words than the window has", "two words", 2),
    ("nine words of context and four words of choice", "one two three four", 12),
]


def encode_here(text):
    return [1, *ids_of(*re.findall(r" ?\w+| ?[^\w\s]+|\s+(?!\S)|\s", text))]


def parts(context, choice, bare=None, tail=None, alone=False):
    """Tokens of the context and of the continuation."""
    bare = context.rstrip() if bare is None else bare
    tail = context[len(bare) :] + " " + choice if tail is None else tail
    front = encode_here(bare)
    return front, encode_here(tail) if alone else encode_here(bare + tail)[len(front) :]


def window(whole, n_ctx):
    return whole[-(n_ctx + 1) :][:-1]


def requests_by(parts=parts, window=window):
    split = [(*parts(context, choice), n_ctx) for context, choice, n_ctx in more_requests]
    return [[window(front + tail, n_ctx), tail] for front, tail, n_ctx in split]


requests = dict(zip(more_requests, requests_by(), strict=True))
WRONG_PARTS = {
    "the choice is encoded without the space in front": lambda c, a: parts(c, a, c.rstrip(), a, alone=True),
    "white space stays at the end of the context": lambda c, a: parts(c, a, c, " " + a),
    "the context's white space is thrown away": lambda c, a: parts(c, a, tail=" " + a),
    "context and choice are joined without a space": lambda c, a: parts(c, a, tail=c[len(c.rstrip()) :] + a),
    "the continuation is encoded by itself, not as part of the whole text": lambda c, a: parts(c, a, alone=True),
}
WRONG_WINDOWS = {
    "the last token is fed too; nothing is asked about what follows it": lambda whole, n: whole[-(n + 1) :],
    "the input is cut to n_ctx tokens before the last one is dropped": lambda whole, n: whole[-n:][:-1],
    "the end is cut off, not the beginning": lambda whole, n: whole[:-1][:n],
    "the window's length is ignored": lambda whole, n: whole[:-1],
}


def request_idea(got):
    """The idea behind all these requests, in words."""
    rules = {text: {"parts": rule} for text, rule in WRONG_PARTS.items()}
    rules |= {text: {"window": rule} for text, rule in WRONG_WINDOWS.items()}
    return next((f"what you get when {text}; " for text, rule in rules.items() if requests_by(**rule) == got), "")


generator = torch.Generator().manual_seed(311)
for rows, count in ((5, 3), (9, 9), (40, 1), (12, 6)):
    logits = 3 * torch.randn(rows, 60, generator=generator)
    ids = torch.randint(0, 60, (count,), generator=generator).tolist()
    best = logits[-count:].argmax(-1).tolist()
    wanted_by = {
        "random tokens": ids,
        "the greedy tokens": best,
        "greedy but for the last": [*best[:-1], (best[-1] + 1) % 60],
        "greedy but for the first": [(best[0] + 1) % 60, *best[1:]],
    }
    for kind, wanted in wanted_by.items():
        tokens = logits[-count:].double().log_softmax(-1)[torch.arange(count), wanted]
        scores[f"{count} of {rows} rows, {kind}"] = (logits, wanted, tokens.sum().item(), wanted == best)
flat = torch.zeros(3, 4)
scores["ties"] = (flat, [0, 0], -2.7725887, True)
scores["ties, the second of equals"] = (flat, [0, 1], -2.7725887, False)
scores["large logits"] = (1000 * flat.clone().fill_diagonal_(1.0), [1, 2], 0.0, True)

import random

rng = random.Random(313)
words = ["π", "größer", "x", "a list", "an exception that is raised", "naïve", "жук", "None"]


def best_of(items, length):
    hits = 0
    for values, choices, answer in items:
        scored = [value / length(choice) for value, choice in zip(values, choices)]
        hits += scored.index(max(scored)) == answer
    return hits / len(items)


def random_items(n):
    picked = (rng.sample(words, rng.choice([2, 4])) for _ in range(n))
    return [
        ([rng.uniform(-3, -1) * (len(word) + 1) for word in choices], choices, rng.randrange(len(choices)))
        for choices in picked
    ]


tasks["bytes and characters differ"] = ([([-4.4, -3.0], ["ππππ", "abc"], 0)], (0.0, 0.0, 1.0))
tasks["characters, not tokens, and without the space"] = ([([-3.0, -2.1], ["ab", "c"], 0)], (0.0, 1.0, 1.0))
for n in (40, 41):
    items = random_items(n)
    right = tuple(best_of(items, length) for length in (lambda word: 1, len, lambda word: len(word.encode())))
    tasks[f"{n} random items"] = (items, right)
ties = [([-2.0, -2.0, -2.0], ["aa", "bb", "cc"], place) for place in range(3)]
tasks["ties"] = (ties, (1 / 3, 1 / 3, 1 / 3))


def score_mistakes(logits, ids, right):
    n, rows = len(ids), logits.double().log_softmax(-1)
    picked = torch.arange(n)
    early = torch.cat([rows[:1], rows])[-n - 1 : -1]
    return {
        "it is the mean over the tokens, not the sum": right / n,
        "the logits themselves are added; they have no softmax yet": logits[-n:][picked, ids].sum().item(),
        "rows are counted from the front": rows[:n][picked, ids].sum().item(),
        "rows are one too early: row t predicts the token after input t": early[picked, ids].sum().item(),
        "it is the likelihood, not its logarithm": rows[-n:][picked, ids].sum().exp().item(),
        "the logarithm is of base 2": right / 0.6931471805599453,
    }


def flag_idea(flags):
    hits = [
        [a == b for a, b in zip(logits[-len(ids) :].argmax(-1).tolist(), ids, strict=True)]
        for logits, ids, *_ in scores.values()
    ]
    ideas = {
        "the last token alone is looked at": [hit[-1] for hit in hits],
        "the first token alone is looked at": [hit[0] for hit in hits],
        "one greedy token is enough; all must be": [any(hit) for hit in hits],
    }
    return next((f"what you get when {text}; " for text, values in ideas.items() if values == flags), "")


def share_mistakes(items, key, right):
    lengths = {
        "it is divided by bytes, not by characters": lambda word: len(word.encode()),
        "it is divided by characters, not by bytes": len,
        "the space in front is counted in the length": lambda word: len(word) + 1,
        "it is divided by the number of words, not of characters": lambda word: len(word.split()),
        "it is not divided by the length": lambda word: 1,
        "it is multiplied by the length": lambda word: 1 / len(word),
    }
    length = {"acc": lambda word: 1, "acc_norm": len, "acc_bytes": lambda word: len(word.encode())}[key]
    turned = [([-value for value in values], choices, answer) for values, choices, answer in items]
    backward = [(values[::-1], choices[::-1], len(values) - 1 - answer) for values, choices, answer in items]
    return {
        **{text: best_of(items, wrong) for text, wrong in lengths.items()},
        "the smallest value wins; log-likelihoods are negative, and the largest is best": best_of(turned, length),
        "of equal ones the last wins": best_of(backward, length),
        "it is in percent; a share is asked for": 100 * right,
        "hits are counted; a share is asked for": right * len(items),
    }


### END HIDDEN TESTS


def check_requests():
    got = []
    for arguments in requests:
        pair = request(toy_encode, *arguments)
        assert len(pair) == 2, f"request returns {len(pair)} values, not 2"
        got.append([[int(i) for i in ids] for ids in pair])
    for (context, choice, n_ctx), mine, expected in zip(requests, got, requests.values(), strict=True):
        for part, name in ((1, "continuation_ids"), (0, "input_ids")):
            assert mine[part] == expected[part], (
                f"request(toy_encode, {context!r}, {choice!r}, {n_ctx}): {name}: {request_idea(got)}"
                f"got {mine[part]}, expected {expected[part]}."
            )


def check_scores():
    flags = []
    for name, (logits, ids, right, _) in scores.items():
        got = score_continuation(logits, ids)
        assert len(got) == 2, f"score_continuation returns {len(got)} values, not 2"
        what = f"score_continuation, {name}"
        mistakes = score_mistakes(logits, ids, right)
        check_close(got[0], right, 1e-5 * len(ids), f"{what}: log_likelihood", "10⁻⁵ per token", mistakes)
        flag = got[1].item() if hasattr(got[1], "item") else got[1]
        assert flag in (True, False), f"{what}: is_greedy is {flag!r}, neither True nor False"
        flags.append(bool(flag))
    for (name, (*_, greedy)), flag in zip(scores.items(), flags, strict=True):
        assert flag == greedy, f"score_continuation, {name}: {flag_idea(flags)}is_greedy is {flag}, expected {greedy}."


def check_accuracies():
    for name, (items, rights) in tasks.items():
        got = accuracies(items)
        for key, right in zip(("acc", "acc_norm", "acc_bytes"), rights, strict=True):
            assert key in got, f'accuracies has no "{key}"'
            what, mistakes = f'accuracies, {name}: "{key}"', share_mistakes(items, key, right)
            check_close(got[key], right, 1e-9, what, "a quotient of integers", mistakes)


points = Points()
with points.part(2, "request"):
    check_requests()
with points.part(2, "score_continuation"):
    check_scores()
with points.part(2, "accuracies"):
    check_accuracies()
points.earned

# %% [markdown]
# ## Experiment: what five mixes do to the course model
#
# This uses your functions of all six exercises; none of it is graded. The course model (8 layers, 7.9 million weights, F16) is the base. llama.cpp's mixes are made by
# `quant_kernels`, byte for byte as `llama-quantize` does. The text is the first 16 windows of Python's language reference, 255 tokens
# scored in each.

# %% tags=["experiment"]
import torch
import torch.nn.functional as F

import quant_kernels as qk
from course.fetch import fetch
from course.texts import evaluation_text

WINDOWS = 16

model = qk.load_model(fetch("course-model"))
windows = torch.tensor(model.tokenizer.encode(evaluation_text())[: 512 * WINDOWS]).view(WINDOWS, 512)
targets = windows[:, 257:].flatten()


def scored_logits(some_model):
    with torch.inference_mode():
        return torch.cat([some_model(part, slice(256, 511)).flatten(0, 1) for part in windows.split(2)])


def losses_of(logits):
    return F.cross_entropy(logits, targets, reduction="none")


def over_windows(values):
    """The standard error of the mean of all tokens if only the windows are independent."""
    return values.std().item() / math.sqrt(len(values))


base_logits = scored_logits(model)
base_losses = losses_of(base_logits)
value, by_token, by_window = corpus_perplexity(list(base_losses.view(WINDOWS, -1)))
print(f"F16: perplexity {value:.2f} ± {by_token:.2f} if tokens are independent, ± {by_window:.2f} if only windows are")

builds = {mix: qk.quantize_model(model, mix) for mix in ("Q8_0", "Q6_K", "Q4_K_M", "Q3_K_M", "Q2_K")}
changes = {}
print("""
             perplexity   its error, points            KL divergence, nats          same   Δp, points
          MB  change, %  separate  paired  windows     mean ± windows  99th pc     top, %   rms  1 %  99 %""")
for mix, build in builds.items():
    logits = scored_logits(build)
    losses = losses_of(logits)
    ratio, paired, unpaired = paired_log_ratio(base_losses, losses)
    clustered = over_windows((losses - base_losses).double().view(WINDOWS, -1).mean(1))
    whole = compare_logits(base_logits, logits, targets)
    parts = zip(base_logits.chunk(WINDOWS), logits.chunk(WINDOWS), targets.chunk(WINDOWS), strict=True)
    nats_error = over_windows(torch.tensor([compare_logits(*part)["kl_divergence"] for part in parts]).double())
    changes[mix] = whole | {"log_ratio": (ratio, clustered), "unpaired": unpaired, "nats_error": nats_error}
    tail = whole["delta_p_percentiles"]
    print(
        f"{mix:7} {build.n_bytes / 1e6:4.2f} {100 * math.expm1(ratio):+10.2f}"
        f" {100 * unpaired:9.2f} {100 * paired:7.2f} {100 * clustered:8.2f}"
        f"   {whole['kl_divergence']:.5f} ± {nats_error:.5f}   {whole['kl_99']:.4f} {100 * whole['same_top']:10.1f}"
        f" {100 * whole['delta_p_rms']:5.1f} {100 * tail[0]:+4.0f} {100 * tail[4]:+5.0f}"
    )

# %% tags=["experiment"]
import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
for place, changed in enumerate(changes.values()):
    ratio, clustered = changed["log_ratio"]
    for offset, error, colour in ((-0.15, changed["unpaired"], "tab:orange"), (0.15, clustered, "tab:blue")):
        left.errorbar(place + offset, 100 * ratio, yerr=196 * error, fmt="o", color=colour, capsize=4, markersize=5)
left.axhline(0, color="grey", linewidth=1)
left.set_xticks(range(len(changes)), changes)
left.text(1.75, 17.5, "as two separate samples", color="tab:orange", ha="right")
left.text(1.75, -16, "paired, by window", color="tab:blue", ha="right")
left.set(ylabel="change of perplexity, %", title="95 % intervals, paired or not", ylim=(-22, 32))
for mix, changed in changes.items():
    x, y = changed["kl_divergence"], 100 * (1 - changed["same_top"])
    right.plot(x, y, "o", color="tab:blue")
    right.annotate(mix, (x, y), xytext=(-8, 5), textcoords="offset points", ha="right")
right.set(
    xscale="log",
    yscale="log",
    xlabel="KL divergence, nats",
    ylabel="top token changed, %",
    title="What greedy decoding notices",
    xlim=(3e-5, 0.4),
    ylim=(0.4, 50),
)
right.grid(alpha=0.3)
figure.tight_layout()
plt.show()

# %% [markdown]
# **How to read it.** The figures below are those of our run (Python 3.11's text, two cores of a server CPU).
#
# - *Pairing.* Taken as two separate samples every build is "± 6 %": not even Q4_K_M's +1.30 % shows. Paired, its error is 0.25 points.
# - *Dependence.* The losses of a window go together: the base's perplexity is 19.30 ± 0.81 if tokens are independent, and ± 1.91 if only windows are. The paired differences depend on one another much less:
#   0.25 becomes 0.35, and for Q3_K_M 0.46 becomes 0.36. (From 16 windows an error is itself known to about a fifth.)
# - *What perplexity does not see.* Q8_0 and Q6_K cost it nothing that could be measured. Their KL divergences are 0.00011 and 0.00125, eleven times apart; Q6_K has another top token at 2.6 % of the places.
# - *The tail.* Q4_K_M loses 1.3 % on average. At one token in a hundred it takes 9 points or more from the probability of the right one.

# %% [markdown]
# **A task.** `python_docs.jsonl`, beside this notebook, has 96 questions on Python that were written before any model was run on them: a sentence to complete, four choices,
# the right one at a place drawn at random. Chance is 25 %.

# %% tags=["experiment"]
import json
from pathlib import Path

questions = [json.loads(line) for line in Path("python_docs.jsonl").read_text(encoding="utf-8").splitlines()]


def answered(some_model):
    """The items with their log-likelihoods, and how many right answers greedy decoding would write."""
    items, greedy = [], 0
    for question in questions:
        asked = [
            request(model.tokenizer.encode, question["context"], choice, model.config.n_ctx)
            for choice in question["choices"]
        ]
        ids = torch.zeros(len(asked), max(len(fed) for fed, _ in asked), dtype=torch.long)
        for row, (fed, _) in zip(ids, asked, strict=True):
            row[: len(fed)] = torch.tensor(fed)  # what follows a token cannot change its logits
        with torch.inference_mode():
            logits = some_model(ids)
        scores = [
            score_continuation(row[: len(fed)], continuation)
            for row, (fed, continuation) in zip(logits, asked, strict=True)
        ]
        items.append(([value for value, _ in scores], question["choices"], question["answer"]))
        greedy += scores[question["answer"]][1]
    return items, greedy


def chosen(items):
    return [max(range(4), key=lambda i: values[i] / len(choices[i])) for values, choices, _ in items]


def right_ones(items):
    return torch.tensor([accuracies([item])["acc_norm"] == 1 for item in items])


base_items, greedy = answered(model)
base_right, found = right_ones(base_items), accuracies(base_items)
n = len(questions)
error = math.sqrt(found["acc_norm"] * (1 - found["acc_norm"]) / n)
print(
    f"F16     acc {found['acc']:.3f}, acc_norm {found['acc_norm']:.3f} ± {error:.3f}, acc_bytes {found['acc_bytes']:.3f}"
)
print(f"        greedy decoding writes the right choice in {greedy} of {n}")
accuracy_change = {}
for mix, build in builds.items():
    items, _ = answered(build)
    now = right_ones(items)
    lost, won, p_value = mcnemar(base_right, now)
    other_choice = sum(a != b for a, b in zip(chosen(items), chosen(base_items), strict=True))
    change = now.double() - base_right.double()
    accuracy_change[mix] = (change.mean().item(), change.std().item() / math.sqrt(n))
    print(
        f"{mix:7} acc_norm {now.double().mean():.3f}   lost {lost}, won {won}, p = {p_value:.2f}   "
        f"another choice in {other_choice} of {n}"
    )

# %% [markdown]
# In our run Q2_K has 56.2 % where the base has 57.3 %: one point, p = 1.00. A report would say "no significant loss". Yet 13 of 96 choices are others; five right answers were lost and four won. **Equal accuracy
# is not an equal model.** And 96 items cannot say more: if 9 % of the items flip, finding a true loss of one point with a power of 80 % takes about 0.09 · (1.96 + 0.84)² / 0.01² ≈ 7,000 of them.
#
# The greedy flag tells something else: the model that ranks the right choice first in more than half of the questions would *write* it in 3 of 96. Scoring by likelihood measures what the model can recognise.

# %% [markdown]
# **The gate, and the score.** Your gate decides for three made-up applications; the errors of perplexity and divergence are those by window. Then the score under audit and your choice rank the same builds, at the speed that bandwidth allows:
# 100 GB/s divided by the bytes of the file, an upper bound that no build of this small model would reach.

# %% tags=["experiment"]
budgets = {
    "chat": {"perplexity": 2.0, "accuracy": 5.0},
    "code completion": {"perplexity": 1.0, "kl_divergence": 0.01},
    "batch tagging": {"perplexity": 5.0, "kl_divergence": 0.05},
}
n_weights = sum(weight.numel() for weight in model.parameters())
candidates = {}
for mix, changed in changes.items():
    change, error = accuracy_change[mix]
    measured = {
        "perplexity": changed["log_ratio"],
        "accuracy": (change, error or 3 / n / 1.645),  # no flip in n items: the bound is 3/n, and not 0
        "kl_divergence": (changed["kl_divergence"], changed["nats_error"]),
    }
    speed, base_speed = 100e9 / builds[mix].n_bytes, 100e9 / (2 * n_weights)
    candidates[mix] = {"tokens_per_second": speed, "kl_divergence": measured["kl_divergence"]}
    score = quality_efficiency(math.exp(changed["log_ratio"][0]), speed, 1.0, base_speed)
    verdicts = ", ".join(f"{name}: {verdict}" for name, verdict in release_gate(measured, budgets).items())
    print(f"{mix:7} score {score:.3f}   {verdicts}")
for limit in (0.005, 0.02, 0.05):
    print(f"the fastest within {limit} nats: {fastest_within(candidates, {'kl_divergence': limit})}")

# %% [markdown]
# In our run Q4_K_M passes for tagging and is inconclusive for both other products: for chat because 96 questions leave room for a drop of 5.5 points, for completion because both intervals reach across their limits. More questions and more
# windows would settle either. The score ranks Q3_K_M first (1.459), then **Q2_K (1.424) before Q4_K_M (1.399)**: 17 % more perplexity, paid for with speed. The constrained choice takes Q6_K, Q4_K_M or Q3_K_M, as the budget allows, and Q2_K under none of these.
#
# Q8_0 and Q6_K have no flip among 96 items. Their drop is not 0 ± 0: the cell puts in 3/n, the 95 % bound for an event that did not happen in n trials.

# %% [markdown]
# ## Rubric
#
# An instructor scores the next three answers and the talk at the end, 7 points each; alone, score yourself by the tables. Write into the
# cells "Your answer".

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-metrics", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Metrics knowledge (7 points)
#
# A 16-bit chat model and a 4-bit build of it lie on your disk. In 250 words or fewer: which measures do you take, in which order, and why in that order?
# For each say its unit, what it sees, and one kind of damage that passes it unseen.
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | One measure | Perplexity and a benchmark, as two numbers | Distribution, task and human measures; one blind spot named | A suite from cheap to dear against the own base; unit, sight and blind spot of each |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** the base is the same model in 16 bits, with the same tokenizer, template, runtime and text. Cheap first: KL divergence and top-1 agreement against the base (nats, share; thousands of comparisons per page of text; blind to whether a change matters), with the tail and not the mean alone;
# perplexity paired (percent; sees the text's own token only; gains pay for losses; depends on text, window, tokenizer). Then tasks with flips (share; sees what is asked and needs thousands of items; choices scored by likelihood say nothing of generation), generation tasks (code that runs, mathematics, tool calls, long context), where
# errors add up over tokens. Then people (preference; dear, hundreds of votes). Blind spots: domain and language of the text; chat template; long context; rare tokens; safety behaviour; calibration text that overlaps with the evaluation text. Speed and memory are measured too, and are not quality.
#
# **Strong, 7 of 7.** *"First that both run the same: token ids, template, runtime. Then, on our own prompts, teacher-forced: KL divergence from the base in nats, mean and 99th percentile, and the share of equal top tokens. Ten thousand tokens give an error of a few percent of the value, in minutes. It says that something changed, not whether
# it hurts. Paired perplexity in percent says in which direction, for the text's own token; it can stand still while answers flip. Then tasks, paired: accuracy in points with lost and won items. Multiple choice by likelihood never generates, so it misses loops, broken JSON, and long chains of thought; therefore code that is executed, mathematics with several seeds, tool calls against a schema, retrieval at 32k tokens.
# Each by slice: languages, code, long inputs. An English text hides damage to Thai. Last, blind preference by readers with the number of votes computed before. I report all against the same base, with errors, and never a text that served as calibration."* Order with a reason, units, a blind spot for each.
#
# **Middling, 4 of 7.** *"Perplexity on WikiText-2, KL divergence against FP16, then MMLU, HellaSwag, GSM8K and HumanEval, and an A/B test with users. Perplexity alone can miss changes because it is an average. KL divergence compares whole distributions."* The right families and one blind spot. No units or errors, nothing on own data, slices or generation.
#
# **Weak, 1 of 7.** *"Perplexity. If it rises by less than 2 %, the model is fine; quantization to 4 bits usually costs 1 to 3 %."* One measure, and a rule that holds for no particular model: the same mix costs Llama-2-7B 1.4 % and Llama-3-8B 2.8 %.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (metrics knowledge):

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-decision", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Decision framework (7 points)
#
# One 4-bit build, three products: a chat assistant, code completion in an editor, summaries of medical letters that a physician signs. In 250 words or fewer: write the release rule.
# Who sets which limit, in which unit, what happens on *inconclusive*, and what after the release?
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | "If it looks good" | One threshold for all | Limits per product, with errors; a rollback | Limits from each product's cost of error, three verdicts with a way out of the middle one, the fastest build within the budget, monitoring that can reverse it |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** limits differ per application, are set before the measurement by whoever bears the cost, on measures of that application (not only perplexity), in stated units. The verdict uses the interval's end. Inconclusive is not pass: more data where it is cheap (how many is computed), a finer format, or no release. All limits must hold at once (requiring every one needs no
# correction for many tests; picking the best of many builds does). Choose the fastest build within the budget; never a product of quality and speed. Rollout: canary, A/A first, rollback by a rule, base kept ready. The medical case: evaluation by experts on the error types that harm; Q8_0 or FP8 is a choice, "do not quantize" need not be; the physician's check is part of the system and no excuse.
#
# **Strong, 7 of 7.** *"For each product its owner signs a budget before we measure. Chat: KL divergence on our own logs at most 0.02 nats, drop of task accuracy at most 1 point, preference for the base below 55 %. Completion: executed tests at most 1 point lower, KL divergence 0.01, acceptance rate unchanged in the canary. Letters: omissions and wrong doses per 1,000 letters, counted by clinicians on both versions
# of the same letters, at most 1 more; else Q8_0. Verdict by the one-sided 95 % bound: pass if the bad end is inside, fail if the good end is outside, otherwise inconclusive. Then I compute how many more items shrink the interval enough; if that is too dear, the next finer mix. NaN or a missing measure never passes. Among builds that pass, the fastest. All limits must hold, so no correction; if I try ten builds I confirm the winner on fresh data.
# Release: shadow traffic, 1 % canary after an A/A test, alarms on loops, invalid JSON, length and acceptance, rollback by rule. The 16-bit model stays deployable."* Application-specific, statistical, reversible.
#
# **Middling, 4 of 7.** *"Chat may lose 2 % of perplexity, code 0.5 %, medical 0.1 %, so Q4_K_M, Q5_K_M and Q8_0. Also no benchmark may drop by more than one point. We roll out to 5 % of users first and go back if complaints rise."* Limits per product and a rollback. Perplexity limits are proxies that nobody derived; no errors, no middle verdict (0.1 % can be below what the test resolves).
#
# **Weak, 1 of 7.** *"We compute (quality ratio)^0.7 × (speed ratio)^0.3 and take the format with the best score for all three."* A score that pays for damage with speed, and no product in it.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (decision framework):

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-statistics", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Statistical rigour (7 points)
#
# A colleague writes: "MMLU (14,042 questions) fell from 72.3 % to 71.8 %, that is −0.5 %. Perplexity rose by 0.4 % ± 1.0 %. 28 of 50 readers preferred the 16-bit answer. So there is no loss: ship it."
# In 250 words or fewer: take the three sentences apart, with numbers, and say what to ask for.
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | "Differences are small" | "Not significant", taken as "no loss" | Units and errors right; pairing demanded | Also numbers for each sentence, power, dependence, and absence of evidence kept apart from evidence of absence |
#
# === BEGIN MARK SCHEME ===
#
# **Look for:** (1) −0.5 percentage points, −0.7 % relative. Standard error of one accuracy √(0.723 · 0.277 / 14,042) = 0.38 points; of the difference of two *separate* samples 0.54: z = 0.9. But the items are the same: with a share f of flips the paired error is about √(f/n): f = 5 % gives 0.19 points and z = 2.7, f = 10 % gives 0.27 and 1.9. The verdict depends on flips that were not reported.
# (2) ±1.0 % looks unpaired or tiny; paired on the same tokens it would be a small fraction. If it is right, the one-sided bound is 0.4 + 1.645 = 2.0 %, no evidence of "no loss". Tokens of one document are dependent: cluster. (3) 28/50 = 56 %, exact 95 % interval 41 to 70 %, p = 0.48; 50 votes find a true 55 % in about one experiment of ten; 783 are needed for 80 % power. "Not significant" three times is not "no loss": set a margin, show that the interval's bad end lies within it.
#
# **Strong, 7 of 7.** *"First the unit: 0.5 points, or 0.7 percent. Two separate samples of 14,042 would have an error of 0.54 points on the difference, so nothing; but these are the same questions. I want lost and won: at 5 % flips, 386 lost and 316 won, the error is 0.19 points and p is 0.009, a real loss; at 10 % it is 1.9 errors. Second, ±1.0 % was hardly paired: on a small model we saw ±6 % unpaired become ±0.3 % paired. As it stands the loss may be 2 %.
# I ask for per-token differences, clustered by document. Third, 28 of 50 has the interval 41–70 % and p = 0.48. The test had a power of 10 % against 55 %; 783 votes give 80 %. All three findings are compatible with a loss that users see. 'Not significant' is no equivalence: name the margin first, say 1 point, 1 %, 55 %, and ship when each bad end is inside. What I need costs no new model run but for the votes: the per-item files."* Numbers for each, and the logic of equivalence.
#
# **Middling, 4 of 7.** *"It is 0.5 percentage points. The standard error of MMLU is about 0.4 points, so a paired test such as McNemar's is needed. The perplexity change is within its error. 50 votes are too few to see 55 %."* Units right, pairing named. The error of the difference, the power and the conclusion "no loss" remain untouched.
#
# **Weak, 1 of 7.** *"All three changes are within the error bars, so the conclusion is right; only the sample of readers might be larger."* Absence of evidence is taken for evidence of absence.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (statistical rigour):

# %% [markdown]
# ## Follow-up questions
#
# Try each aloud before you unfold what a strong answer touches.
#
# **1. The quantized model's perplexity is lower than the base's. Is it better?**
#
# <details><summary>A strong answer touches</summary>
#
# Look at the paired interval first: Q8_0 had −0.02 % ± 0.03 % above. A small fall that is real is possible too: noise that flattens an overconfident distribution helps on some texts, and so does an importance matrix from text like the evaluation text. KL divergence and flips show that
# the model changed; they have no good direction. Against the base as reference, "better" is also a change that users have not been promised.
#
# </details>
#
# **2. Your evaluation text was part of the calibration data. What now?**
#
# <details><summary>A strong answer touches</summary>
#
# The measured loss is too small, most of all for low bits and for methods that learn much (GPTQ, codebooks). llama.cpp's pull request 4930 says never to use test data, not even for the importance matrix. Measure anew on a text that shares no long n-gram with the calibration text, and make the overlap check part of the pipeline.
# Beware of the opposite too: a calibration text of one language or one domain hurts the others.
#
# </details>
#
# **3. The 4-bit model passes MMLU and fails on competition mathematics. How can that be?**
#
# <details><summary>A strong answer touches</summary>
#
# One token against thousands: a choice by likelihood asks once, a chain of thought multiplies chances of going astray; if 5 % of greedy steps change, hardly a long answer stays the same. Not every change is an error, so measure: pass rate over several seeds (30 problems with one sample each have an error of about 9 points at 50 %), length of the answers, loops, where the first
# deviation stands. Same sampling settings, same token budget for both.
#
# </details>
#
# **4. No answer flipped in 300 items. What may you claim?**
#
# <details><summary>A strong answer touches</summary>
#
# Not a drop of 0 ± 0: the estimated standard error vanishes, and the normal interval with it. With no event in n trials the 95 % bound is about 3/n, here 1 percentage point of flips (from (1 − f)ⁿ = 0.05). For a limit of 0.5 points it takes 600 items without a flip. In the gate above, that bound was put in by hand.
#
# </details>
#
# **5. You check six limits for each of ten builds. Do you correct for sixty tests?**
#
# <details><summary>A strong answer touches</summary>
#
# Two questions. *All* limits must hold for a pass: a bad build gets through only if it is lucky at the very limit that it breaks, so each at 5 % keeps the whole at 5 %, with no correction. But the best-looking of ten builds was chosen by its luck: confirm it on fresh data. And each extra limit makes false *fail* and *inconclusive* likelier for good builds, so choose few.
# Never look until it passes: fixed sample sizes, or a sequential test that was built for looking.
#
# </details>
#
# **6. Compare your 4-bit 8B model with another vendor's 3B model in 16 bits.**
#
# <details><summary>A strong answer touches</summary>
#
# Other tokenizer: perplexities per token have different units and KL divergence is undefined. Bits per byte of the same text are comparable, with the same context in bytes. For the decision: the same tasks, paired by item, at equal memory or equal cost per answer. A score with `acc_norm` depends less on the tokenizer than one per token would, because it divides by characters.
#
# </details>
#
# **7. lm-evaluation-harness and llama.cpp report different accuracies for the same file. Where do you look?**
#
# <details><summary>A strong answer touches</summary>
#
# Plain or normalised (`acc`, `acc_norm`); where the space goes, and joint or separate encoding; BOS present, absent or doubled; number and order of examples in the prompt; chat template; truncation from the left; precision of the logits and of the activations (llama.cpp quantizes these on the CPU). Fix it by comparing token ids first, then the log-likelihoods of one item.
#
# </details>

# %% [markdown] nbgrader={"grade": false, "grade_id": "rubric-communication", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": true}
# ### Communication: the talk (7 points)
#
# Answer the question at the top in 15 minutes, to an interviewer who may ask any of the follow-ups. Speak, draw, show your tables. Then write below what you said, in ten lines or fewer.
#
# | Poor (0–1) | Fair (2–3) | Good (4–5) | Excellent (6–7) |
# |:--|:--|:--|:--|
# | A list of benchmark names | Understandable; answers what was asked and no more | Measures, errors, decision in order; every figure has its unit | Leads with the decision, predicts before showing, says what is not known and what would settle it |
#
# === BEGIN MARK SCHEME ===
#
# **The model answer, in five parts of three minutes.**
#
# 1. *The question behind the question.* "Good enough" is a limit on damage per application, set before measuring, by those who bear it. The reference is our own 16-bit model, not a table. Three verdicts: pass, fail, inconclusive. First check that both models get the same tokens and run the same code but for the weights.
# 2. *What to measure.* Draw the tree of background 2. KL divergence and top-1 agreement: every token is a comparison, so pages suffice. Perplexity: one entry per token; the direction of the change. Tasks: flips, not only accuracy. Generation, long context, slices. People last. On the course model Q6_K's perplexity is unchanged (+0.01 % ± 0.09 %), while its KL divergence is eleven times Q8_0's and 2.6 % of the top tokens differ: the measures have different thresholds.
# 3. *How sure.* Pair, then average: ±6 % became ±0.35 % for the same 4,080 tokens. Cluster: the perplexity's own error was 0.81 by tokens and 1.91 by windows. Accuracy: count flips, test them as coin tosses; our 96 questions show Q2_K one point lower with p = 1, while 13 choices changed. Votes: 783 for 55 %. Percentage points are not percent.
# 4. *How to decide.* Interval against limit; missing data and NaN never pass; inconclusive buys data or bits. Published: Q4_K_M costs Llama-2-7B 1.42 % and Llama-3-8B 2.82 % of perplexity (llama.cpp's README), so a limit of 2 % gives two verdicts for one mix. Then the fastest build within the budget. A weighted product of quality and speed ranked our Q2_K, 17 % worse in perplexity, above Q4_K_M; and its advertised 1.29 was 1.195.
# 5. *After the release.* Shadow, A/A, canary; detectors for loops, broken JSON, wrong language; a rule for going back. Open: our text is Python documentation, our task multiple choice; neither says anything of chat in Thai. I would start there.
#
# Score the talk itself where you heard it; the samples are what candidates wrote of theirs.
#
# **Strong, 7 of 7.** *"I opened with the verdict: for tagging yes, for chat we do not know yet, for completion we do not know yet, and what each would cost to settle. Then why: budgets first, own base as reference, a tree of what each measure sees. I predicted that pairing would shrink the error by more than ten, showed ±5.95 against ±0.25 and ±0.35 by window. I showed Q2_K: one point of accuracy, p = 1, but 13 of 96 choices changed and a quarter of
# the top tokens. The score: 1.195, not 1.29, and it prefers Q2_K to Q4_K_M, so I replaced it by a constraint. Limits, unasked: 16 windows, one text, likelihood scoring only, errors by window uncertain by a fifth. Asked about zero flips I gave 3/n."* Decision first, predictions, limits unasked.
#
# **Middling, 4 of 7.** *"I explained perplexity, KL divergence and accuracy and showed my table with errors. Q8_0 and Q6_K pass, Q2_K fails. On request I explained why the paired error is smaller, and that the score can be fooled. I would use Q4_K_M for most cases and monitor it."* Right and in order; the decision has no budget behind it, and the best points had to be asked for.
#
# **Weak, 1 of 7.** *"I showed that all tests pass and went through the functions. Q4_K_M is the usual choice because the loss is about 1 %. In production we would look at thumbs up and down."* A habit in place of a decision, no error, no unit.
#
# === END MARK SCHEME ===

# %% [markdown]
# **Your answer** (the talk, in ten lines or fewer):
