# fails: test-speed
# says: the layers are forgotten
"""Counts one layer's cache."""


# %% speed
def kv_bytes_per_token(config, bits):
    head_dim = config["n_embd"] // config["n_head"]
    return 2 * config["n_head_kv"] * head_dim * bits / 8


def decode_bound(weights, kv_per_token, context, batch, bandwidth):
    return batch * bandwidth / (weights + batch * context * kv_per_token)


def audit(claims):
    found = []
    for claim in claims:
        step = [claim[key] for key in ("weights", "kv_per_token", "context", "batch")]
        share = claim["speed"] / decode_bound(*step, max(claim["bandwidths"]))
        needed = claim["speed"] / decode_bound(*step, 1.0)
        found.append({"verdict": "impossible" if share > 1 else "possible", "share": share, "needed": needed})
    return found
