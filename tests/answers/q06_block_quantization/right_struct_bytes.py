# fails:
"""Right: bytes objects and the struct module; the first two formats share a helper that later cells use too."""

# %% q8_0
import struct

import numpy as np
import torch


def single(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def to_tensor(chunks, shape):
    return torch.tensor(list(b"".join(chunks)), dtype=torch.uint8).view(*shape[:-1], -1)


def q8_0_quantize(x):
    if x.shape[-1] % 32:
        raise ValueError(f"{x.shape[-1]} % 32 != 0")
    chunks = []
    for block in x.reshape(-1, 32).tolist():
        d = single(max(abs(v) for v in block) / 127)
        inverse = single(1 / d) if d else 0.0
        codes = []
        for v in block:
            scaled = single(v * inverse)
            codes.append(int(scaled + 0.5) if scaled >= 0 else -int(0.5 - scaled))
        chunks.append(struct.pack("<e32b", d, *codes))
    return to_tensor(chunks, x.shape)


def q8_0_dequantize(data):
    values = []
    for block in data.reshape(-1, 34).tolist():
        d, *codes = struct.unpack("<e32b", bytes(block))
        values += [d * code for code in codes]
    return torch.tensor(values).view(*data.shape[:-1], -1)


# %% q4_0
def q4_0_quantize(x):
    if x.shape[-1] % 32:
        raise ValueError(f"{x.shape[-1]} % 32 != 0")
    chunks = []
    for block in x.reshape(-1, 32).tolist():
        largest = max(block, key=abs)  # of equal ones the first
        d = largest / -8
        inverse = single(1 / d) if d else 0.0
        q = [min(15, int(single(single(v * inverse) + 8.5))) for v in block]
        chunks.append(struct.pack("<e", d) + bytes(low + 16 * high for low, high in zip(q[:16], q[16:])))
    return to_tensor(chunks, x.shape)


def q4_0_dequantize(data):
    values = []
    for block in data.reshape(-1, 18).tolist():
        (d,) = struct.unpack("<e", bytes(block[:2]))
        values += [d * (byte % 16 - 8) for byte in block[2:]] + [d * (byte // 16 - 8) for byte in block[2:]]
    return torch.tensor(values, dtype=torch.float32).view(*data.shape[:-1], -1)


# %% group3
def group3_quantize(x):
    rows, n = x.shape
    chunks, scales, lows = [], [], []
    for row in x.numpy():
        number, count = 0, 0
        for start in range(0, n, 128):
            group = row[start : start + 128]
            scale, low = ((group.max() - group.min()) / np.float32(7)).astype(np.float16), np.float16(group.min())
            scales.append(float(scale))
            lows.append(float(low))
            for v in group:
                code = 0
                if scale:
                    code = int(min(max(np.rint((v - np.float32(low)) / np.float32(scale)), 0), 7))
                number |= code << count
                count += 3
        chunks.append(number.to_bytes(-(-3 * n // 8), "little"))
    scale, low = (torch.tensor(part).view(rows, -1).half() for part in (scales, lows))
    return to_tensor(chunks, x.shape), scale, low


def group3_dequantize(packed, scale, low, n):
    rows = []
    for stream, s, m in zip(packed.tolist(), scale.float(), low.float()):
        number = int.from_bytes(bytes(stream), "little")
        codes = torch.tensor([number >> 3 * i & 7 for i in range(n)])
        group = torch.arange(n).div(128, rounding_mode="floor")
        rows.append(s[group] * codes + m[group])
    return torch.stack(rows)


# %% q4_k
def q4_k_dequantize(data):
    values = []
    for block in data.reshape(-1, 144).tolist():
        d, dmin = struct.unpack("<2e", bytes(block[:4]))
        a, b, c = block[4:8], block[8:12], block[12:16]
        sc = [v & 63 for v in a] + [(low & 15) + (top >> 6) * 16 for low, top in zip(c, a)]
        m = [v & 63 for v in b] + [(low >> 4) + (top >> 6) * 16 for low, top in zip(c, b)]
        for j in range(8):
            shift = 4 * (j % 2)
            for byte in block[16 + 32 * (j // 2) : 48 + 32 * (j // 2)]:
                values.append(single(d * sc[j] * (byte >> shift & 15) - dmin * m[j]))
    return torch.tensor(values).view(*data.shape[:-1], -1)


# %% gemv
def q4_0_q8_0_gemv(w, x):
    blocks = [struct.unpack("<e32b", bytes(block)) for block in x.view(-1, 34).tolist()]
    d_x = np.array([block[0] for block in blocks], dtype=np.float32)
    q_x = np.array([block[1:] for block in blocks], dtype=np.int64)
    eight_sums = 8 * q_x.sum(1)
    y = []
    for row in w.numpy():
        row = row.reshape(-1, 18)
        d_w = np.ascontiguousarray(row[:, :2]).view("<f2")[:, 0].astype(np.float32)
        codes = np.concatenate([row[:, 2:] % 16, row[:, 2:] // 16], axis=1).astype(np.int64)
        dots = (codes * q_x).sum(1) - eight_sums
        y.append(float(np.dot(d_w.astype(np.float64) * d_x, dots)))
    return torch.tensor(y, dtype=torch.float32)
