# fails: test-floats
# says: scale of the tensor is ignored
"""Ignores the tensor's scale."""


# %% floats
def mxfp4_encode(x):
    """Return E8M0 scales, uint8 `(..., n / 32)`, and E2M1 codes, uint8 `(..., n)`, of float32 `(..., n)`."""
    blocks = x.unflatten(-1, (-1, 32))
    peak = blocks.abs().amax(-1)  # (..., n / 32)
    exponent = torch.frexp(peak).exponent - 1 - 2
    scale = torch.ldexp(torch.ones_like(peak), exponent).unsqueeze(-1)
    midpoints = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    q = torch.bucketize((blocks / scale).abs().contiguous(), midpoints)  # on a midpoint the lower code
    q = q + 8 * ((blocks < 0) & (q > 0))
    e = torch.where(peak > 0, exponent + 127, 0)
    return e.to(torch.uint8), q.to(torch.uint8).flatten(-2)


def nvfp4_encode(x, tensor_scale):
    """Return E4M3 scales, uint8 `(..., n / 16)`, and E2M1 codes, uint8 `(..., n)`, of float32 `(..., n)`."""
    blocks = x.double().unflatten(-1, (-1, 16))
    d = (blocks.abs().amax(-1) / 6).clamp(max=448).float().to(torch.float8_e4m3fn)  # (..., n / 16)
    scale = d.double().unsqueeze(-1)
    midpoints = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], dtype=torch.float64)
    q = torch.bucketize(torch.where(scale > 0, (blocks / scale).abs(), 0), midpoints)
    q = q + 8 * ((blocks < 0) & (q > 0))
    return d.view(torch.uint8), q.to(torch.uint8).flatten(-2)
