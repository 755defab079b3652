# fails: test-hadamard
# says: expected ValueError
"""Fills up to a power of two and cuts off."""


# %% hadamard
def hadamard(x):
    n = x.shape[-1]
    size = 1
    while size < n:
        size *= 2
    y, step = torch.nn.functional.pad(x, (0, size - n)), 1
    shape = y.shape
    while step < size:
        even, odd = y.reshape(*shape[:-1], size // (2 * step), 2, step).unbind(-2)
        y = torch.stack([even + odd, even - odd], -2).reshape(shape)
        step *= 2
    return y[..., :n] / n**0.5


def rotate_mlp(gain, w_gate, w_up, w_down, online):
    w_down = hadamard(w_down.T).T
    if online:
        w_down = hadamard(w_down)
    return torch.ones_like(gain), hadamard(w_gate * gain), hadamard(w_up * gain), w_down
