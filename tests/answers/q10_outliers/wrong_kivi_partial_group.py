# fails: test-kivi
# says: a group that is not full yet
"""Quantizes a group of keys before it is full."""


# %% kivi
def kivi_cache(k, v, bits, group, window):
    old = max(k.shape[-2] - window, 0)

    def rounded(x):
        parts = []
        for blocks in x.split(group, -1) if x.numel() else ():
            low, high = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
            scale = (high - low) / (2**bits - 1)
            parts.append(torch.where(scale == 0, 0, (blocks - low) / scale).round() * scale + low)
        return torch.cat(parts, -1) if parts else x

    k_old = rounded(k[..., :old, :].transpose(-1, -2)).transpose(-1, -2)
    return torch.cat([k_old, k[..., old:, :]], -2), torch.cat([rounded(v[..., :old, :]), v[..., old:, :]], -2)
