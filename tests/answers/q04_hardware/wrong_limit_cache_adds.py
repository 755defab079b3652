# fails: test-limit
# says: cache is added
"""Adds the cache to what has to be read."""


# %% limit
def speed_limit(row, devices):
    if row["device"] not in devices:
        raise ValueError(f"{row['device']} is not a device with a known memory")
    device = devices[row["device"]]
    step = max(0, row["file"] - row["lookup"] + device["cache"])
    return row["batch"] * device["bandwidth"] / step if step else math.inf
