# fails: test-noise
# says: 20 · log10 is taken of powers
"""Takes 20 · log10 of powers."""


# %% noise
def sqnr(x, decoded):
    signal, noise = x.double().square().sum(), (x.double() - decoded).square().sum()
    return 20 * math.log10(signal / noise) if noise else math.inf


def noise_parts(x, bits, limit):
    x = x.double()
    top = 2 ** (bits - 1) - 1
    step = limit / top
    missed = (x - step * (x / step).round().clamp(-top, top)).square() / x.square().sum()
    inside = x.abs() <= limit
    return missed.where(inside, 0).sum().item(), missed.where(~inside, 0).sum().item()


def bits_needed(x, limit, decibels):
    for bits in range(2, 17):
        if -10 * math.log10(sum(noise_parts(x, bits, limit)) or 1e-300) >= decibels:
            return bits
    return None
