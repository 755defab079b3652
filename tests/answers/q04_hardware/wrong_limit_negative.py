# fails: test-limit
# says: a model that the caches hold
"""Gives a negative limit for a model that a cache holds."""


# %% limit
def speed_limit(row, devices):
    if row["device"] not in devices:
        raise ValueError(f"{row['device']} is not a device with a known memory")
    device = devices[row["device"]]
    step = row["file"] - row["lookup"] - device["cache"]
    return row["batch"] * device["bandwidth"] / step if step else math.inf
