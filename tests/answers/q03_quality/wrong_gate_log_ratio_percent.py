# fails: test-gate
# says: 100 times the log ratio is taken for percent
"""Takes the log ratio for the relative change."""


# %% gate
def interval(metric, estimate, standard_error, z=1.645):
    """Ends `(low, high)` of a metric's damage: percent of perplexity, percentage points of accuracy, nats."""
    centre = -estimate if metric == "accuracy" else estimate
    low, high = centre - z * standard_error, centre + z * standard_error
    if metric == "perplexity":
        return 100 * low, 100 * high
    unit = 100 if metric == "accuracy" else 1
    return unit * low, unit * high


def release_gate(measured, budgets, z=1.645):
    """Verdict "pass", "fail" or "inconclusive" for each application's budget."""

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
