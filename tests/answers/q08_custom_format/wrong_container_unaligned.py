# fails: test-container
# says: multiple of 32
"""Begins the payload right behind the header."""


# %% container
def save_tensor(kind, shape, payload):
    """Return the bytes of a file that holds one tensor; ValueError for what the format cannot hold."""
    kinds = {"Q8_0": (1, 32, 34), "Q4_0": (2, 32, 18), "Q4_K": (3, 256, 144), "MXFP4": (4, 32, 17)}
    if kind not in kinds:
        raise ValueError(f"kind {kind!r} is unknown; known are {', '.join(kinds)}")
    number, weights, block_bytes = kinds[kind]
    if not 1 <= len(shape) <= 4 or not all(1 <= n < 2**64 for n in shape) or shape[-1] % weights:
        raise ValueError(f"shape {shape} is impossible for {kind}: 1 to 4 dimensions, rows of a multiple of {weights}")
    size = block_bytes * shape[-1] // weights
    for n in shape[:-1]:
        size *= n  # Python's integers do not wrap around
    if size != len(payload):
        raise ValueError(f"{kind} of shape {shape} has {size} bytes, the payload {len(payload)}")
    head = struct.pack(f"<4sHHBB6x{len(shape)}QQ", b"\x89QTF", 1, 0, number, len(shape), *shape, size)
    body = head + payload
    return body + struct.pack("<I", zlib.crc32(body))


def load_tensor(data):
    """Return kind, shape and payload of a file; ValueError for everything that `save_tensor` does not write."""
    if len(data) < 24 + 8 + 4:
        raise ValueError(f"{len(data)} bytes are too few for a file")
    magic, version, flags, number, n_dims = struct.unpack_from("<4sHHBB", data)
    if magic != b"\x89QTF":
        raise ValueError(f"magic {magic!r} is not that of this format")
    if version != 1:
        raise ValueError(f"version {version} is unknown; this reader knows version 1")
    if flags:
        raise ValueError(f"flags {flags:#x} are unknown")
    kinds = {1: "Q8_0", 2: "Q4_0", 3: "Q4_K", 4: "MXFP4"}
    if number not in kinds or not 1 <= n_dims <= 4 or len(data) < 28 + 8 * n_dims:
        raise ValueError(f"kind {number} or {n_dims} dimensions are impossible, or the file is cut off")
    if zlib.crc32(memoryview(data)[:-4]) != int.from_bytes(data[-4:], "little"):
        raise ValueError("the checksum does not match: the file is damaged, cut off or continued")
    *shape, size = struct.unpack_from(f"<{n_dims + 1}Q", data, 16)
    start = -(-(24 + 8 * n_dims) // 32) * 32
    if start + size + 4 != len(data):
        raise ValueError(f"the file has {len(data)} bytes, its header says {start + size + 4}")
    payload = data[start:-4]
    if save_tensor(kinds[number], tuple(shape), payload) != data:  # its checks are ours; and all zeros are zero
        raise ValueError("the file is not as this format writes it")
    return kinds[number], tuple(shape), payload
