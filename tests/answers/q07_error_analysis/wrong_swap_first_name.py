# fails: test-swap
# says: after a right one: expected ValueError
"""Checks the first replacement only."""


# %% swap
def swap_one(run, weights, replacements, x):
    """Damage (mean KL divergence from the untouched model, in nats) of each replacement alone, by name.

    ValueError for an unknown name or another shape.
    """
    for name, matrix in list(replacements.items())[:1]:
        if name not in weights or matrix.shape != weights[name].shape:
            raise ValueError(f"{name} is not in the model, or has another shape there")
    base = run(weights, x).double().log_softmax(-1)  # (T, V)
    damages = {}
    for name, matrix in replacements.items():
        swapped = run({**weights, name: matrix}, x).double().log_softmax(-1)
        damages[name] = (base.exp() * (base - swapped)).sum(-1).mean().item()
    return damages
