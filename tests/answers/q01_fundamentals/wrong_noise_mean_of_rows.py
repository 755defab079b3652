# fails: test-noise
# says: decibels of the rows are averaged
"""Averages the decibels of the rows."""


# %% noise
def sqnr(x, decoded):
    rows = len(x)
    signal = x.double().square().reshape(rows, -1).sum(1)
    noise = (x.double() - decoded).square().reshape(rows, -1).sum(1)
    if not noise.any():
        return math.inf
    return (10 * (signal / noise).log10()).mean().item()


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
