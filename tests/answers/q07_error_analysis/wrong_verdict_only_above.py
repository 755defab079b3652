# fails: test-verdict
# says: only a joint damage above
"""Minds only a joint damage that is larger than forecast."""


# %% joint
def forecast(base, singles):
    """Additive and superposed forecasts (nats) of the joint damage, and the pair of names with the largest cross term.

    base: float32 `(T, V)` logits; singles: dict of name to logits with that tensor alone swapped.
    """
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


def verdict(base, singles, joint, tolerance):
    """Which forecast holds for the measured joint logits: "additive", "superposed" or "interacting"."""
    p = base.double().log_softmax(-1)
    measured = (p.exp() * (p - joint.double().log_softmax(-1))).sum(-1).mean().item()
    forecasts = forecast(base, singles)
    if measured - forecasts["additive"] <= tolerance * measured:
        return "additive"
    if measured - forecasts["superposed"] <= tolerance * measured:
        return "superposed"
    return "interacting"
