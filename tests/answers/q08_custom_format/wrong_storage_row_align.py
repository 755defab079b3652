# fails: test-storage
# says: every row is filled up
"""Fills every row up."""


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
    row = whole(n_blocks // rows * block_bytes, layout["align"]) * layout["align"]
    total = rows * row + packed(layout["tensor"])
    total = whole(total, layout["align"]) * layout["align"]
    return block_bytes, total, 8 * total / (rows * columns)
