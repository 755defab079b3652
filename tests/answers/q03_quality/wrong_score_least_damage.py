# fails: test-score
# says: the least damage is chosen
"""Takes the least damage within the budget."""


# %% score
def quality_efficiency(perplexity, tokens_per_second, base_perplexity, base_tokens_per_second):
    """The score under audit."""
    return (base_perplexity / perplexity) ** 0.7 * (tokens_per_second / base_tokens_per_second) ** 0.3


def break_even_speed(perplexity, score, base_perplexity, base_tokens_per_second):
    """Tokens per second at which a model of this perplexity reaches the score."""
    return base_tokens_per_second * (score * (perplexity / base_perplexity) ** 0.7) ** (1 / 0.3)


def fastest_within(candidates, budget, z=1.645):
    """Name of the fastest candidate whose damage is within the budget with 95 % confidence, or None."""

    def within(candidate):
        return all(
            metric in candidate and candidate[metric][0] + z * candidate[metric][1] <= limit
            for metric, limit in budget.items()
        )

    def merit(name):
        candidate = candidates[name]
        return -candidate["kl_divergence"][0]

    return max(filter(lambda name: within(candidates[name]), candidates), key=merit, default=None)
