# fails: test-pick
# says: with H twice
"""Takes ‖ΔW H‖² for the output error."""


# %% output
def second_moment(batches):
    """H = mean of x xᵀ over all tokens of a list of float32 `(..., n)`: float64 `(n, n)`; ValueError without tokens."""
    total, tokens = 0, 0
    for batch in batches:
        x = batch.reshape(-1, batch.shape[-1]).double()  # (tokens of the batch, n)
        total = total + x.T @ x
        tokens += len(x)
    if not tokens:
        raise ValueError("no tokens")
    return total / tokens


def output_error(dw, h):
    """tr(ΔW H ΔWᵀ) of float32 `(rows, n)` and `(n, n)`: the mean squared output error per token, as a float."""
    dw, h = dw.double(), h.double()
    return ((dw @ h) * dw).sum().item()


def pick(w, candidates, h):
    """Indices of the candidates with the least weight error and with the least output error."""
    changes = [candidate - w for candidate in candidates]
    numbers = range(len(changes))
    by_weight = min(numbers, key=lambda i: changes[i].double().square().sum().item())
    return by_weight, min(numbers, key=lambda i: (changes[i].double() @ h.double()).square().sum().item())
