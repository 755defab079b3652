# fails: test-calibrate
# says: expected ValueError, but it returned
"""Gives a default range where nothing was calibrated."""


# %% observers
def calibrate(batches, rule, rate=0.1, percent=99.9):
    if not batches:
        return -1.0, 1.0
    ends = [(batch.min().item(), batch.max().item()) for batch in batches]
    if rule == "min-max":
        return min(low for low, _ in ends), max(high for _, high in ends)
    if rule == "average":
        low, high = ends[0]
        for batch_low, batch_high in ends[1:]:
            low, high = low + rate * (batch_low - low), high + rate * (batch_high - high)
        return low, high
    if rule == "percentile":
        values = torch.cat([batch.flatten() for batch in batches]).double().numpy()
        cut = (100 - percent) / 2
        low, high = np.percentile(values, [cut, 100 - cut])
        return float(low), float(high)
    raise ValueError(rule)


def fake_quantize(x, low, high):
    low = torch.as_tensor(low, dtype=torch.float32).clamp(max=0)
    high = torch.as_tensor(high, dtype=torch.float32).clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, 1.0, scale)
    zero = (-low / scale).round()
    q = ((x / scale).round() + zero).clamp(0, 255)
    return scale * (q - zero)


def stream_errors(stream, limits=None):
    errors = []
    for x in stream:
        low, high = limits or (x.amin(-1, keepdim=True), x.amax(-1, keepdim=True))
        errors.append((100 * (fake_quantize(x, low, high) - x).norm() / x.norm()).item())
    return errors
