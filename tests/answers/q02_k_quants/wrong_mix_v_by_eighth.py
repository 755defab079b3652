# fails: test-mix
# says: it is the first 4 layers
"""Gives attn_v more bits in the first eighth, as ffn_down."""


# %% mix
def use_more_bits(layer, n_layer):
    """Tell whether a layer is among those to which Q4_K_M gives more bits."""
    eighth = n_layer // 8
    return layer < eighth or layer >= 7 * n_layer // 8 or (layer - eighth) % 3 == 2


def tensor_types(shapes, mix):
    """Return the type of every tensor, by name, in the mix "Q4_K_S" or "Q4_K_M".

    ValueError for another mix.
    """
    if mix not in ("Q4_K_S", "Q4_K_M"):
        raise ValueError(f"unknown mix {mix!r}; known are Q4_K_S and Q4_K_M")
    layers = {name: int(name.split(".")[1]) for name in shapes if name.startswith("blk.")}
    n_layer = len(set(layers.values()))
    head = "output.weight" if "output.weight" in shapes else "token_embd.weight"

    def wanted(name):
        kind, layer = name.removesuffix(".weight").split(".")[-1], layers.get(name)
        if name == head:
            return "Q6_K"
        if kind not in ("attn_v", "ffn_down"):
            return "Q4_K"
        if mix == "Q4_K_M":
            return "Q6_K" if use_more_bits(layer, n_layer) else "Q4_K"
        return "Q5_K" if layer < n_layer // 8 else "Q4_K"

    def fitting(qtype, columns):
        if columns % 256:
            qtype = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}[qtype]
        return "F16" if columns % 32 else qtype

    return {name: "F32" if len(shape) == 1 else fitting(wanted(name), shape[-1]) for name, shape in shapes.items()}


def file_size(shapes, types):
    """Return the bytes of all tensors' data, and the bits per weight."""
    weights = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    n_bytes = sum(count // BLOCKS[types[name]][0] * BLOCKS[types[name]][1] for name, count in weights.items())
    return n_bytes, 8 * n_bytes / sum(weights.values())
