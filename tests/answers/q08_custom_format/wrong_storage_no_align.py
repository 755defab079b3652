# fails: test-storage
# says: not filled up to `align`
"""Forgets to fill the tensor up."""


# %% storage
def storage(layout, rows, columns):
    """Return the bytes of one block, the bytes of a tensor, and bits per weight, all metadata included."""

    def whole(n, unit):
        return -(-n // unit)

    def packed(fields):
        return whole(sum(count * bits for count, bits in fields.values()), 8)

    block_bytes = whole(packed(layout["fields"]), layout["block_align"]) * layout["block_align"]
    n_blocks = rows * whole(columns, layout["block"])
    total = n_blocks * block_bytes + packed(layout["tensor"])
    return block_bytes, total, 8 * total / (rows * columns)
