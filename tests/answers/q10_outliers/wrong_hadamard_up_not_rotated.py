# fails: test-hadamard
# says: w_gate is rotated and w_up is not
"""Forgets the second reader of the norm."""


# %% hadamard
def hadamard(x):
    n = x.shape[-1]
    if n < 1 or n & (n - 1):
        raise ValueError(f"last dimension {n} is not a power of two")
    y, step = x, 1
    while step < n:
        even, odd = y.reshape(*x.shape[:-1], n // (2 * step), 2, step).unbind(-2)
        y = torch.stack([even + odd, even - odd], -2).reshape(x.shape)
        step *= 2
    return y / n**0.5


def rotate_mlp(gain, w_gate, w_up, w_down, online):
    w_down = hadamard(w_down.T).T
    if online:
        w_down = hadamard(w_down)
    return torch.ones_like(gain), hadamard(w_gate * gain), w_up * gain, w_down
