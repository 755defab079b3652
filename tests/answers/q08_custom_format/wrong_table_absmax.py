# fails: test-table
# says: no other scale is tried
"""Puts the largest magnitude at the largest level; no search."""


# %% table
def lloyd_max(samples, k):
    """Return `k` ascending levels, float32, with a small mean squared error for the source of the samples."""
    x = samples.double().sort().values
    sums = torch.cat([x.new_zeros(1), x.cumsum(0)])
    table = x[((torch.arange(k) + 0.5) / k * len(x)).long()]  # quantiles: every cell begins with samples
    for _ in range(1000):
        borders = torch.searchsorted(x, (table[1:] + table[:-1]) / 2)
        borders = torch.cat([torch.tensor([0]), borders, torch.tensor([len(x)])])  # (k + 1,)
        counts = borders.diff()
        moved = torch.where(counts > 0, sums[borders].diff() / counts, table)
        if (moved - table).abs().max() <= 1e-7 * x.abs().max():
            break
        table = moved
    return table.float()


def table_encode(x, table):
    """Return float16 scales `(n_blocks,)` and codes, uint8 `(n_blocks, 32)`, of blocks of 32: x is about d * table[q]."""
    x, levels = x.double(), table.double()
    midpoints = (levels[1:] + levels[:-1]) / 2
    extreme = x.gather(1, x.abs().argmax(1, keepdim=True))  # (n_blocks, 1)

    def codes(d):
        return torch.bucketize(torch.where(d != 0, x / d, 0).contiguous(), midpoints)

    def error(d, q):
        return (d * levels[q] - x).square().sum(1, keepdim=True)

    best = torch.zeros_like(extreme)
    least = x.square().sum(1, keepdim=True)
    for end in (levels[0], levels[-1]):
        for factor in (1.0,):
            value = levels[codes(extreme / end * factor)]
            d = (extreme / end).half().double()  # what the decoder will see
            found = error(d, codes(d))
            best = torch.where(found < least, d, best)
            least = torch.minimum(found, least)
    return best[:, 0].half(), codes(best).to(torch.uint8)
