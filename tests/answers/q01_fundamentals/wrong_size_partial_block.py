# fails: test-size
# says: the last block of a row is stored in part
"""Multiplies the weights by the average bits."""


# %% size
def tensor_bytes(shape, layout):
    code_bits, block, constant_bits = layout
    return math.ceil(math.prod(shape) * (code_bits + constant_bits / block) / 8)


def model_size(tensors):
    n_bytes = sum(tensor_bytes(shape, layout) for shape, layout in tensors.values())
    n_weights = sum(math.prod(shape) for shape, layout in tensors.values())
    return {
        "bytes": n_bytes,
        "GB": n_bytes / 10**9,
        "GiB": n_bytes / 2**30,
        "bits_per_weight": 8 * n_bytes / n_weights,
    }
