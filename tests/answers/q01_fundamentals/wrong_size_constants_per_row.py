# fails: test-size
# says: the constants are counted once per row
"""Counts one set of constants per row."""


# %% size
def tensor_bytes(shape, layout):
    code_bits, block, constant_bits = layout
    *outer, columns = shape
    blocks = -(-columns // block)
    row_bits = blocks * block * code_bits + constant_bits
    return math.prod(outer) * -(-row_bits // 8)


def model_size(tensors):
    n_bytes = sum(tensor_bytes(shape, layout) for shape, layout in tensors.values())
    n_weights = sum(math.prod(shape) for shape, layout in tensors.values())
    return {
        "bytes": n_bytes,
        "GB": n_bytes / 10**9,
        "GiB": n_bytes / 2**30,
        "bits_per_weight": 8 * n_bytes / n_weights,
    }
