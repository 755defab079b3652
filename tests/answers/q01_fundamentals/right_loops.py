# fails:
"""Right: plain Python over single rows and numbers, as on a whiteboard; a list of candidates, recursion, early returns."""

# %% affine
import math

import torch


def affine_parameters(low, high, bits):
    scales, zeros = [], []
    for a, b in zip(low.flatten().tolist(), high.flatten().tolist()):
        a, b = min(a, 0.0), max(b, 0.0)
        scale = (b - a) / (2**bits - 1) or 1.0
        scales.append(scale)
        zeros.append(round(-a / scale))
    return torch.tensor(scales).reshape(low.shape), torch.tensor(zeros, dtype=torch.int32).reshape(low.shape)


def affine_quantize(x, scale, zero_point, bits):
    grid = torch.zeros_like(x) + scale
    zeros = torch.zeros_like(x) + zero_point
    codes = []
    for value, step, zero in zip(x.flatten().tolist(), grid.flatten().tolist(), zeros.flatten().tolist()):
        codes.append(max(0, min(2**bits - 1, round(value / step) + int(zero))))
    return torch.tensor(codes, dtype=torch.uint8).reshape(x.shape)


def affine_dequantize(codes, scale, zero_point):
    table = torch.arange(256, dtype=torch.float32)
    return table[codes.long()].sub(zero_point).mul(scale)


# %% size
def tensor_bytes(shape, layout):
    if len(shape) > 1:
        return shape[0] * tensor_bytes(shape[1:], layout)
    code_bits, block, constant_bits = layout
    bits, left = 0, shape[0]
    while left > 0:
        bits += block * code_bits + constant_bits
        left -= block
    return (bits + 7) // 8


def model_size(tensors):
    n_bytes = n_weights = 0
    for name in tensors:
        shape, layout = tensors[name]
        n_bytes += tensor_bytes(tuple(shape), tuple(layout))
        count = 1
        for size in shape:
            count *= size
        n_weights += count
    return dict(bytes=n_bytes, GB=n_bytes * 1e-9, GiB=n_bytes / (1 << 30), bits_per_weight=n_bytes / n_weights * 8)


# %% speed
def kv_bytes_per_token(config, bits):
    head = config["n_embd"] / config["n_head"]
    total = 0
    for _ in range(config["n_layer"]):
        for _ in ("key", "value"):
            total += config["n_head_kv"] * head * bits
    return total / 8


def decode_bound(weights, kv_per_token, context, batch, bandwidth):
    if batch == 0:
        return 0.0
    return bandwidth / (weights / batch + context * kv_per_token)


def audit(claims):
    def one(claim):
        bounds = [
            decode_bound(claim["weights"], claim["kv_per_token"], claim["context"], claim["batch"], memory)
            for memory in claim["bandwidths"]
        ]
        refuted = all(claim["speed"] > bound for bound in bounds)
        return {
            "verdict": "impossible" if refuted else "possible",
            "share": min(claim["speed"] / bound for bound in bounds),
            "needed": claim["speed"] * (claim["weights"] / claim["batch"] + claim["context"] * claim["kv_per_token"]),
        }

    return list(map(one, claims))


# %% groups
def group_error(x, bits, group, scheme):
    n = x.shape[1]
    if n != group * (n // group):
        raise ValueError(f"{n} is no multiple of {group}")
    missed = torch.zeros(())
    for start in range(0, n, group):
        part = x[:, start : start + group]
        low, high = part.min(1).values, part.max(1).values
        if scheme == "min-max":
            first, last, step, offset = 0, 2**bits - 1, (high - low) / (2**bits - 1), low
        else:
            last, offset = 2 ** (bits - 1) - 1, torch.zeros_like(low)
            first = -last if scheme == "absmax" else -last - 1
            peak = torch.where(low.abs() >= high, low, high)
            step = peak.abs() / last if scheme == "absmax" else peak / first
        safe = step.clone()
        safe[safe == 0] = 1
        codes = torch.clamp(torch.round((part - offset[:, None]) / safe[:, None]), first, last)
        missed = missed + (part - codes * step[:, None] - offset[:, None]).pow(2).sum()
    return float(100 * torch.sqrt(missed / x.pow(2).sum()))


def best_split(x, budget):
    errors = {}
    for group in (16, 32, 64, 128, 256):
        for bits in range(2, 9):
            if bits + 16 / group <= budget:
                errors[group_error(x, bits, group, "absmax")] = (bits, group)
    if len(errors) == 0:
        raise ValueError("too few bits")
    return errors[min(errors)]


# %% noise
def sqnr(x, decoded):
    noise = ((x - decoded) ** 2).sum().item()
    if noise == 0:
        return float("inf")
    return 10 * (math.log10((x**2).sum().item()) - math.log10(noise))


def noise_parts(x, bits, limit):
    top = (1 << (bits - 1)) - 1
    values = x.flatten().float()
    kept = values.clamp(-limit, limit)
    grid_point = (kept * (top / limit)).round() * (limit / top)
    squares = (values - grid_point) ** 2
    clipped = torch.where(values.abs() > limit, squares, torch.zeros(())).sum()
    rounded = torch.where(values.abs() > limit, torch.zeros(()), squares).sum()
    signal = (values**2).sum()
    return float(rounded / signal), float(clipped / signal)


def bits_needed(x, limit, decibels):
    bits = 2
    while bits <= 16:
        rounded, clipped = noise_parts(x, bits, limit)
        noise = rounded + clipped
        if noise == 0 or 10 * math.log10(1 / noise) >= decibels:
            return bits
        bits += 1
