# fails: test-swap
# says: divided by the length of x
"""Counts the tokens in x, which `run` alone knows how to read."""


# %% swap
def swap_one(run, weights, replacements, x):
    """Damage (mean KL divergence from the untouched model, in nats) of each replacement alone, by name.

    ValueError for an unknown name or another shape.
    """
    for name, matrix in replacements.items():
        if name not in weights or matrix.shape != weights[name].shape:
            raise ValueError(f"{name} is not in the model, or has another shape there")
    base = run(weights, x).double().log_softmax(-1)  # (T, V)
    damages = {}
    for name, matrix in replacements.items():
        swapped = run({**weights, name: matrix}, x).double().log_softmax(-1)
        damages[name] = (base.exp() * (base - swapped)).sum().item() / len(x)
    return damages
