# fails: test-swap
# says: what sparing one
"""Measures what sparing a tensor gains."""


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
    joint = run({**weights, **replacements}, x).double().log_softmax(-1)
    for name, matrix in replacements.items():
        spared = run({**weights, **replacements, name: weights[name]}, x).double().log_softmax(-1)
        damages[name] = (base.exp() * (spared - joint)).sum(-1).mean().item()
    return damages
