# fails: test-hadamard
# says: sorted by their sign changes
"""Sorts the rows by their sign changes, as Walsh did."""


# %% hadamard
def hadamard(x):
    n = x.shape[-1]
    if n < 1 or n & (n - 1):
        raise ValueError(f"last dimension {n} is not a power of two")
    h = torch.ones(1, 1)
    while len(h) < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    h = h[(h[:, 1:] != h[:, :-1]).sum(1).argsort()].to(x.dtype)
    return x @ h.T / n**0.5


def rotate_mlp(gain, w_gate, w_up, w_down, online):
    w_down = hadamard(w_down.T).T
    if online:
        w_down = hadamard(w_down)
    return torch.ones_like(gain), hadamard(w_gate * gain), hadamard(w_up * gain), w_down
