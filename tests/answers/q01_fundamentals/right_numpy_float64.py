# fails:
"""Right: numpy in float64 throughout, rounded to float32 at the end; whole arrays, other algebra."""

# %% affine
import math

import numpy as np
import torch


def affine_parameters(low, high, bits):
    a = np.minimum(low.numpy().astype(np.float64), 0)
    b = np.maximum(high.numpy().astype(np.float64), 0)
    width = b - a
    scale = np.where(width > 0, width / (2**bits - 1), 1.0).astype(np.float32)
    zero = np.rint(-a / scale)
    return torch.as_tensor(scale), torch.as_tensor(zero.astype(np.int32))


def affine_quantize(x, scale, zero_point, bits):
    q = np.rint(x.numpy().astype(np.float64) / scale.numpy()) + zero_point.numpy()
    return torch.from_numpy(np.clip(q, 0, 2**bits - 1).astype(np.uint8))


def affine_dequantize(codes, scale, zero_point):
    steps = codes.numpy().astype(np.int64) - zero_point.numpy()
    return torch.from_numpy((steps * scale.numpy().astype(np.float64)).astype(np.float32))


# %% size
from fractions import Fraction


def tensor_bytes(shape, layout):
    code_bits, block, constant_bits = layout
    rows = 1
    for size in shape[:-1]:
        rows *= size
    blocks = (shape[-1] + block - 1) // block
    return int(rows * np.ceil(blocks * (block * code_bits + constant_bits) / 8))


def model_size(tensors):
    total = Fraction(0)
    weights = 0
    for shape, layout in tensors.values():
        total += tensor_bytes(shape, layout)
        weights += int(np.prod(shape, dtype=np.int64))
    return {
        "bits_per_weight": float(total * 8 / weights),
        "GiB": float(total / 1024**3),
        "GB": float(total / 1000**3),
        "bytes": int(total),
    }


# %% speed
def kv_bytes_per_token(config, bits):
    per_head = config["n_embd"] / config["n_head"] * (bits / 8)
    return config["n_layer"] * config["n_head_kv"] * (per_head + per_head)


def decode_bound(weights, kv_per_token, context, batch, bandwidth):
    seconds = (weights + batch * (context * kv_per_token)) / bandwidth
    return batch / seconds


def audit(claims):
    results = []
    for c in claims:
        step = c["weights"] + c["batch"] * c["context"] * c["kv_per_token"]
        needed = c["speed"] / c["batch"] * step
        share = needed / np.max(c["bandwidths"])
        results.append({"needed": needed, "share": share, "verdict": ["possible", "impossible"][int(share > 1)]})
    return results


# %% groups
def group_error(x, bits, group, scheme):
    values = x.numpy().astype(np.float64)
    if values.shape[-1] % group != 0:
        raise ValueError("group")
    g = values.reshape(-1, group)
    half = 2 ** (bits - 1)
    base = np.zeros((len(g), 1))
    if scheme == "absmax":
        step, lo, hi = np.abs(g).max(1, keepdims=True) / (half - 1), -(half - 1), half - 1
    elif scheme == "signed":
        m = np.take_along_axis(g, np.abs(g).argmax(1)[:, None], 1)
        step, lo, hi = m / -half, -half, half - 1
    else:
        base = g.min(1, keepdims=True)
        step, lo, hi = np.ptp(g, axis=1, keepdims=True) / (2 * half - 1), 0, 2 * half - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.nan_to_num((g - base) / step)
    decoded = np.clip(np.floor(q + 0.5), lo, hi) * step + base
    return float(100 * np.sqrt(np.mean((g - decoded) ** 2) / np.mean(g**2)))


def best_split(x, budget):
    best = None
    for bits in range(8, 1, -1):
        for group in (256, 128, 64, 32, 16):
            if bits * group + 16 <= budget * group:
                error = group_error(x, bits, group, "absmax")
                if best is None or error < best[0]:
                    best = (error, bits, group)
    if best is None:
        raise ValueError("budget")
    return best[1], best[2]


# %% noise
def sqnr(x, decoded):
    x, decoded = x.numpy().astype(np.float64), decoded.numpy().astype(np.float64)
    noise = np.linalg.norm(x - decoded)
    return 20 * np.log10(np.linalg.norm(x) / noise) if noise > 0 else np.inf


def noise_parts(x, bits, limit):
    v = x.numpy().astype(np.float64).ravel()
    top = 2 ** (bits - 1) - 1
    inside = np.abs(v) <= limit
    q = np.rint(v[inside] * top / limit)
    rounded = np.sum((v[inside] - q * limit / top) ** 2)
    clipped = np.sum((np.abs(v[~inside]) - limit) ** 2)
    return rounded / np.sum(v**2), clipped / np.sum(v**2)


def bits_needed(x, limit, decibels):
    allowed = 10 ** (-decibels / 10)
    enough = [b for b in range(2, 17) if sum(noise_parts(x, b, limit)) <= allowed]
    return enough[0] if enough else None
