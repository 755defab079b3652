# fails: test-noise
# says: the rule 6.02 · bits (+ 1.76) is followed
"""Trusts the rule 6.02 · bits + 1.76."""


# %% noise
def sqnr(x, decoded):
    signal, noise = x.double().square().sum(), (x.double() - decoded).square().sum()
    return 10 * math.log10(signal / noise) if noise else math.inf


def noise_parts(x, bits, limit):
    x = x.double()
    top = 2 ** (bits - 1) - 1
    step = limit / top
    missed = (x - step * (x / step).round().clamp(-top, top)).square() / x.square().sum()
    inside = x.abs() <= limit
    return missed.where(inside, 0).sum().item(), missed.where(~inside, 0).sum().item()


def bits_needed(x, limit, decibels):
    return max(2, math.ceil((decibels - 1.76) / 6.02))
