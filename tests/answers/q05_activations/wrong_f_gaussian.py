# fails: test-possible
# says: 0.75 σ² of variance
"""Takes every distribution for a Gaussian."""


# %% audit
def possible(groups):
    import math

    return all(share <= math.erfc(k / math.sqrt(2)) for share, k in groups)


def error_split(x, weight, weight_bits, activation_bits):
    def decoded(values, bits):
        scale = values.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
        return torch.where(scale == 0, 0.0, (values / scale).round() * scale)

    def percent(y):
        return (100 * (y - exact).norm() / exact.norm()).item()

    exact = x @ weight.T
    coarse, rough = decoded(weight, weight_bits), decoded(x, activation_bits)
    return percent(x @ coarse.T), percent(rough @ weight.T), percent(rough @ coarse.T)
