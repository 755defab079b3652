# fails: test-errors
# says: without looking at their errors
"""Takes it for granted that Q4_0 beats max|x| / 7 on any data."""


# %% errors
def error_table(x):
    blocks = x.reshape(-1, 32)
    low, high = blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)  # (n_blocks, 1)
    peak = torch.maximum(high, -low)
    signed = torch.where(high >= -low, high, low)

    def error(d, smallest, largest, offset=0.0):
        q = torch.where(d == 0, 0, (blocks - offset) / d).round().clamp(smallest, largest)
        return 100 * ((d * q + offset - blocks).norm() / blocks.norm()).item()

    return {
        "Q8_0": error(peak / 127, -127, 127),
        "min-max": error((high - low) / 15, 0, 15, low),
        "Q4_0": error(signed / -8, -8, 7),
        "absmax/7": error(peak / 7, -7, 7),
    }


def cheapest(x, target):
    bits = {"Q8_0": 8.5, "min-max": 5.0, "Q4_0": 4.5, "absmax/7": 4.5}
    errors = error_table(x)
    reached = [name for name in errors if errors[name] <= target]
    if not reached:
        raise ValueError(f"no scheme reaches {target} %; the best has {min(errors.values()):.3g} %")
    if "absmax/7" in reached:
        return "Q4_0"
    return min(reached, key=lambda name: (bits[name], errors[name]))
