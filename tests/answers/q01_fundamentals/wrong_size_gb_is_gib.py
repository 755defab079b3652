# fails: test-size
# says: a GB is taken for 2³⁰ bytes
"""Takes a GB for 2^30 bytes."""


# %% size
def tensor_bytes(shape, layout):
    code_bits, block, constant_bits = layout
    *outer, columns = shape
    blocks = -(-columns // block)
    row_bits = blocks * (block * code_bits + constant_bits)
    return math.prod(outer) * -(-row_bits // 8)


def model_size(tensors):
    n_bytes = sum(tensor_bytes(shape, layout) for shape, layout in tensors.values())
    n_weights = sum(math.prod(shape) for shape, layout in tensors.values())
    return {
        "bytes": n_bytes,
        "GB": n_bytes / 2**30,
        "GiB": n_bytes / 2**30,
        "bits_per_weight": 8 * n_bytes / n_weights,
    }
