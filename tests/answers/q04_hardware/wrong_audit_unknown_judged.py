# fails: test-audit
# says: although the device is unknown
"""Judges the unit of a device that it does not know."""


# %% audit
def audit(row, devices):
    limit, needs, flags = None, None, []
    claimed = row["tokens_per_second"]
    if row["device"] not in devices:
        flags += ["device", "unit"]
    else:
        device = devices[row["device"]]
        limit = speed_limit(row, devices)
        needs = claimed / row["batch"] * max(0, row["file"] - row["lookup"] - device["cache"])
        if row["unit"] not in device["units"]:
            flags.append("unit")
        if claimed > limit:
            flags.append("bandwidth")
    if row["watts"] is not None and abs(claimed / row["watts"] - row["tokens_per_joule"]) > 0.005:
        flags.append("efficiency")
    return {"limit": limit, "needs": needs, "flags": flags}
