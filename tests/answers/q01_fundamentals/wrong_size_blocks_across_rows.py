# fails: test-size
# says: blocks run on from row to row
"""Lets blocks run on from row to row."""


# %% size
def tensor_bytes(shape, layout):
    code_bits, block, constant_bits = layout
    blocks = -(-math.prod(shape) // block)
    row_bits = blocks * (block * code_bits + constant_bits)
    return -(-row_bits // 8)


def model_size(tensors):
    n_bytes = sum(tensor_bytes(shape, layout) for shape, layout in tensors.values())
    n_weights = sum(math.prod(shape) for shape, layout in tensors.values())
    return {
        "bytes": n_bytes,
        "GB": n_bytes / 10**9,
        "GiB": n_bytes / 2**30,
        "bits_per_weight": 8 * n_bytes / n_weights,
    }
