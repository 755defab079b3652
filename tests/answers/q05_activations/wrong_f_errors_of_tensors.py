# fails: test-split
# says: the errors are those of the tensors
"""Measures the tensors' errors, not the product's."""


# %% audit
def possible(groups):
    shares = sum(share for share, _ in groups)
    needed = sum(share * k**2 for share, k in groups)
    return shares <= 1 and needed <= 1


def error_split(x, weight, weight_bits, activation_bits):
    def decoded(values, bits):
        scale = values.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
        return torch.where(scale == 0, 0.0, (values / scale).round() * scale)

    def percent(y):
        return (100 * (y - exact).norm() / exact.norm()).item()

    exact = x @ weight.T
    coarse, rough = decoded(weight, weight_bits), decoded(x, activation_bits)
    return (
        (100 * (coarse - weight).norm() / weight.norm()).item(),
        (100 * (rough - x).norm() / x.norm()).item(),
        percent(rough @ coarse.T),
    )
