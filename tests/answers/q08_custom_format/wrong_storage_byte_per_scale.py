# fails: test-storage
# says: take whole bytes each
"""Gives each 6-bit scale a byte."""


# %% storage
def storage(layout, rows, columns):
    """Return the bytes of one block, the bytes of a tensor, and bits per weight, all metadata included."""

    def whole(n, unit):
        return -(-n // unit)

    def packed(fields):
        return whole(sum(count * (-(-bits // 8) * 8 if bits != 4 else 4) for count, bits in fields.values()), 8)

    block_bytes = whole(packed(layout["fields"]), layout["block_align"]) * layout["block_align"]
    n_blocks = rows * whole(columns, layout["block"])
    total = n_blocks * block_bytes + packed(layout["tensor"])
    total = whole(total, layout["align"]) * layout["align"]
    return block_bytes, total, 8 * total / (rows * columns)
