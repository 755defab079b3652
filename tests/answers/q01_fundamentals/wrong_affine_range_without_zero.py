# fails: test-affine
# says: the range is not widened to hold zero
"""Takes the range as it is, so that 0 need not be a grid point."""


# %% affine
def affine_parameters(low, high, bits):
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale == 0, 1.0, scale)
    return scale, (-low / scale).round().to(torch.int32)


def affine_quantize(x, scale, zero_point, bits):
    codes = (x / scale).round() + zero_point
    return codes.clamp(0, 2**bits - 1).to(torch.uint8)


def affine_dequantize(codes, scale, zero_point):
    return scale * (codes.to(torch.int32) - zero_point)
