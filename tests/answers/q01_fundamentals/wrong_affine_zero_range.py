# fails: test-affine
# says: the zero range has scale 0
"""Lets the scale of the zero range be 0."""


# %% affine
def affine_parameters(low, high, bits):
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    return scale, (-low / scale).round().to(torch.int32)


def affine_quantize(x, scale, zero_point, bits):
    codes = (x / scale).round() + zero_point
    return codes.clamp(0, 2**bits - 1).to(torch.uint8)


def affine_dequantize(codes, scale, zero_point):
    return scale * (codes.to(torch.int32) - zero_point)
