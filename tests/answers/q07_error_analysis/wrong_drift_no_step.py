# fails: test-drift
# says: d is left out
"""Forgets the step."""


# %% rounding
def rounding_report(x, q, d):
    """Mean error in steps for positive and for negative x, its rms, and the rounding mode that they betray.

    x: float32 `(n,)`, q: int32 `(n,)`, d: the step.
    """
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


def dot_drift(a, x, d, mode):
    """Mean and standard deviation of the error of sum(a * x) when x is rounded to steps of d in a mode.

    a, x: float32 `(n,)`.
    """
    above, below = {
        "nearest": (0, 0),
        "stochastic": (0, 0),
        "toward zero": (-0.5, 0.5),
        "away from zero": (0.5, -0.5),
        "down": (-0.5, -0.5),
        "up": (0.5, 0.5),
    }[mode]
    a = a.double()
    shift = above * a[x > 0].sum() + below * a[x < 0].sum()
    variance = (1 / 6 if mode == "stochastic" else 1 / 12) * a[x != 0].square().sum()
    return shift.item(), variance.sqrt().item()
