# fails: test-ridge
# says: counted as one operation
"""Counts multiply-adds, while peaks count two operations."""


# %% ridge
def gemm_seconds(scheme, m, n, k, device):
    weight_bits, activation_bits, arithmetic = scheme
    peak = device["peaks"].get(arithmetic)
    if peak is None:
        raise ValueError(f"the device has no {arithmetic} multiplication")
    bits = weight_bits * n * k + activation_bits * m * k + 16 * m * n
    return bits / 8 / device["bandwidth"], m * n * k / peak


def first_compute_bound(scheme, n, k, device):
    memory_1, compute_1 = gemm_seconds(scheme, 1, n, k, device)
    weights = scheme[0] * n * k / 8 / device["bandwidth"]
    gain = compute_1 - (memory_1 - weights)  # by which compute gains on memory with each token
    return max(1, math.ceil(weights / gain)) if gain > 0 else None


def fastest(schemes, m, n, k, device):
    bounds = {}
    for name, scheme in schemes.items():
        if device["peaks"].get(scheme[2]) is not None:
            bounds[name] = max(gemm_seconds(scheme, m, n, k, device))
    if not bounds:
        raise ValueError("the device runs none of these schemes")
    return min(bounds, key=bounds.get)
