# fails:
"""Right: one block after another in numpy, as one would write it in C."""

# %% q8_0
import numpy as np
import torch


def q8_0_quantize(x):
    if x.shape[-1] % 32 != 0:
        raise ValueError("the last dimension must be a multiple of 32")
    out = []
    for block in x.numpy().reshape(-1, 32):
        d = np.abs(block).max() / np.float32(127)
        inverse = np.float32(1) / d if d > 0 else np.float32(0)
        codes = [int(np.floor(abs(v) + np.float32(0.5))) * (1 if v > 0 else -1) for v in block * inverse]
        out.append(np.float16(d).tobytes() + np.array(codes, dtype=np.int8).tobytes())
    flat = np.frombuffer(b"".join(out), dtype=np.uint8).copy()
    return torch.from_numpy(flat.reshape(*x.shape[:-1], -1))


def q8_0_dequantize(data):
    out = []
    for block in data.numpy().reshape(-1, 34):
        d = np.float32(block[:2].view(np.float16)[0])
        out.append(d * block[2:].view(np.int8).astype(np.float32))
    return torch.from_numpy(np.concatenate(out).reshape(*data.shape[:-1], -1))


# %% q4_0
def q4_0_quantize(x):
    if x.shape[-1] % 32 != 0:
        raise ValueError("the last dimension must be a multiple of 32")
    out = np.zeros((x.numel() // 32, 18), dtype=np.uint8)
    for block, row in zip(x.numpy().reshape(-1, 32), out):
        largest = np.float32(0)
        for v in block:
            if abs(v) > abs(largest):
                largest = v
        d = largest / np.float32(-8)
        inverse = np.float32(1) / d if d != 0 else np.float32(0)
        codes = [min(15, int(v * inverse + np.float32(8.5))) for v in block]
        row[:2] = np.frombuffer(np.float16(d).tobytes(), dtype=np.uint8)
        for j in range(16):
            row[2 + j] = codes[j] | codes[j + 16] << 4
    return torch.from_numpy(out.reshape(*x.shape[:-1], -1))


def q4_0_dequantize(data):
    blocks = data.numpy().reshape(-1, 18)
    out = np.zeros((len(blocks), 32), dtype=np.float32)
    for block, row in zip(blocks, out):
        d = np.float32(block[:2].copy().view(np.float16)[0])
        for j in range(16):
            row[j] = d * np.float32(int(block[2 + j] & 15) - 8)
            row[j + 16] = d * np.float32(int(block[2 + j] >> 4) - 8)
    return torch.from_numpy(out.reshape(*data.shape[:-1], -1))


# %% group3
def group3_quantize(x):
    rows, n = x.shape
    groups = (n + 127) // 128
    packed = np.zeros((rows, (3 * n + 7) // 8), dtype=np.uint8)
    scale = np.zeros((rows, groups), dtype=np.float16)
    low = np.zeros((rows, groups), dtype=np.float16)
    for r in range(rows):
        for g in range(groups):
            values = x[r, g * 128 : (g + 1) * 128].numpy()
            scale[r, g] = (values.max() - values.min()) / np.float32(7)
            low[r, g] = values.min()
            s, m = np.float32(scale[r, g]), np.float32(low[r, g])
            for k, v in enumerate(values):
                code = int(np.clip(np.round((v - m) / s), 0, 7)) if s else 0
                bit = 3 * (g * 128 + k)
                packed[r, bit // 8] |= code << bit % 8 & 255
                if bit % 8 > 5:
                    packed[r, bit // 8 + 1] |= code >> 8 - bit % 8
    return torch.from_numpy(packed), torch.from_numpy(scale), torch.from_numpy(low)


def group3_dequantize(packed, scale, low, n):
    out = np.zeros((len(packed), n), dtype=np.float32)
    for r, stream in enumerate(packed.numpy()):
        number = int.from_bytes(stream.tobytes(), "little")
        for i in range(n):
            code = np.float32(number >> 3 * i & 7)
            out[r, i] = np.float32(scale[r, i // 128].item()) * code + np.float32(low[r, i // 128].item())
    return torch.from_numpy(out)


# %% q4_k
def q4_k_dequantize(data):
    out = []
    for block in data.numpy().reshape(-1, 144):
        d, dmin = block[:4].copy().view(np.float16).astype(np.float32)
        scales, qs = block[4:16], block[16:]
        for j in range(8):
            if j < 4:
                sc, m = scales[j] & 63, scales[j + 4] & 63
            else:
                sc = (scales[j + 4] & 15) | ((scales[j - 4] >> 6) << 4)
                m = (scales[j + 4] >> 4) | ((scales[j] >> 6) << 4)
            chunk = qs[j // 2 * 32 : j // 2 * 32 + 32]
            q = chunk >> 4 if j % 2 else chunk & 15
            out.append(d * np.float32(sc) * q.astype(np.float32) - dmin * np.float32(m))
    return torch.from_numpy(np.concatenate(out).reshape(*data.shape[:-1], -1))


# %% gemv
def q4_0_q8_0_gemv(w, x):
    blocks = x.numpy().reshape(-1, 34)
    dx = blocks[:, :2].copy().view(np.float16)[:, 0].astype(np.float32)
    qx = blocks[:, 2:].copy().view(np.int8).astype(np.int32)
    y = np.zeros(len(w), dtype=np.float32)
    for r, row in enumerate(w.numpy()):
        row = row.reshape(-1, 18)
        dw = row[:, :2].copy().view(np.float16)[:, 0].astype(np.float32)
        low, high = row[:, 2:] & 15, row[:, 2:] >> 4
        dots = ((low.astype(np.int32) - 8) * qx[:, :16] + (high.astype(np.int32) - 8) * qx[:, 16:]).sum(1)
        y[r] = (dw * dx * dots.astype(np.float32)).sum()
    return torch.from_numpy(y)


# %% errors
def error_table(x):
    blocks = x.numpy().reshape(-1, 32).astype(np.float64)
    total = (blocks**2).sum()
    names = ["Q8_0", "min-max", "Q4_0", "absmax/7"]
    return {name: float(100 * np.sqrt(sum(squared(b, name) for b in blocks) / total)) for name in names}


def squared(b, name):
    offset, lowest, highest = 0.0, -7, 7
    if name == "min-max":
        d, offset, lowest, highest = (b.max() - b.min()) / 15, b.min(), 0, 15
    elif name == "Q4_0":
        d, lowest = b[np.argmax(np.abs(b))] / -8, -8
    elif name == "Q8_0":
        d, lowest, highest = np.abs(b).max() / 127, -127, 127
    else:
        d = np.abs(b).max() / 7
    if d == 0:
        return ((b - offset) ** 2).sum()
    q = np.clip(np.round((b - offset) / d), lowest, highest)
    return ((d * q + offset - b) ** 2).sum()


def cheapest(x, target):
    table = error_table(x)
    four = min(["Q4_0", "absmax/7"], key=table.get)
    for name in (four, "min-max", "Q8_0"):
        if table[name] <= target:
            return name
    raise ValueError(f"nothing reaches {target} %")
