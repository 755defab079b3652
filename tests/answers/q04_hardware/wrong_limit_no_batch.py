# fails: test-limit, test-audit
# says: once for each of its sequences
"""Forgets that a batch shares the weights."""


# %% limit
def speed_limit(row, devices):
    if row["device"] not in devices:
        raise ValueError(f"{row['device']} is not a device with a known memory")
    device = devices[row["device"]]
    step = max(0, row["file"] - row["lookup"] - device["cache"])
    return device["bandwidth"] / step if step else math.inf
