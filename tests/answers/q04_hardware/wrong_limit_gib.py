# fails: test-limit
# says: GB are taken for GiB
"""Takes the bandwidth's GB for GiB."""


# %% limit
def speed_limit(row, devices):
    if row["device"] not in devices:
        raise ValueError(f"{row['device']} is not a device with a known memory")
    device = devices[row["device"]]
    step = max(0, row["file"] - row["lookup"] - device["cache"])
    return row["batch"] * device["bandwidth"] / 1.024**3 / step if step else math.inf
