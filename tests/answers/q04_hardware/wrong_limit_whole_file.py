# fails: test-limit
# says: look-up table and the cache are not taken off
"""Divides by the whole file."""


# %% limit
def speed_limit(row, devices):
    if row["device"] not in devices:
        raise ValueError(f"{row['device']} is not a device with a known memory")
    device = devices[row["device"]]
    step = max(0, row["file"])
    return row["batch"] * device["bandwidth"] / step if step else math.inf
