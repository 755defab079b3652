# fails: test-limit
# says: cache is not taken off
"""Forgets the cache."""


# %% limit
def speed_limit(row, devices):
    if row["device"] not in devices:
        raise ValueError(f"{row['device']} is not a device with a known memory")
    device = devices[row["device"]]
    step = max(0, row["file"] - row["lookup"])
    return row["batch"] * device["bandwidth"] / step if step else math.inf
