"""8da4w, the linear layer of phones: weights of 4 bits in groups of 32, activations to 8 bits token by token.

As torchao (Int8DynamicActivationIntxWeightConfig) and ExecuTorch do for Llama 3.2. Left out: packing, kernels, bias,
the 8-bit embedding that goes with it.
"""

import torch
from torch import Tensor

from .affine import Affine, check_values, nonzero, quantize_affine, to_codes, value_range

EXACT = 2**24  # below this, sums of integers in float32 are exact whatever their order


def quantize_int4(w: Tensor, group: int = 32) -> Affine:
    """Quantizes w to codes -8 to 7 with a scale per group, the largest magnitude / 7.5.

    w: (rows, columns), floating point, columns a multiple of group. The 15 steps span the range of both signs, so that
    the largest magnitude is off by half a step, like any other weight at worst: code 7 if it is positive, if not a tie
    between -8 and -7, which the rounding of the scale decides. Raises TypeError or ValueError for other input.
    Source: MappingType.SYMMETRIC of torchao.

    >>> quantize_int4(torch.tensor([[7.5, -7.5, 3.2, 0.0]]), group=4).codes.tolist()
    [[7, -8, 3, 0]]
    """
    check_values(w)
    if w.dim() != 2:
        raise ValueError(f"w of shape {tuple(w.shape)} is not a matrix (rows, columns)")
    low, high = value_range(w, group)
    scale = nonzero(torch.maximum(high, -low) / 7.5)  # (rows, columns / group)
    return to_codes(w, scale, torch.zeros_like(scale, dtype=torch.int32), 4, symmetric=True, full_range=True)


def linear_8da4w(x: Tensor, weight: Affine) -> Tensor:
    """y = x W^T from integers: x is quantized to 8 bits per token, asymmetrically, as it comes.

    x: (..., columns), floating point; weight: of `quantize_int4`, (rows, columns). Returns float32 (..., rows). The
    only errors are those of quantizing x and W, and of rounding the sum over groups.
    Raises TypeError or ValueError for other input.

    >>> weight = quantize_int4(torch.tensor([[7.5, -7.5, 3.0, 0.0]]), group=4)
    >>> linear_8da4w(torch.tensor([[255.0, 0.0, 2.0, 1.0]]), weight)  # 255 * 7 + 2 * 3
    tensor([[1791.]])
    """
    rows, columns = weight.codes.shape
    if x.shape[-1:] != (columns,):
        raise ValueError(f"x has shape {tuple(x.shape)}, its last dimension is not W's {columns} columns")
    tokens = quantize_affine(x.reshape(-1, columns), per="row")
    y = torch.zeros(len(tokens.codes), rows, device=x.device)
    for i, scale in enumerate(weight.scale.T):  # (rows,)
        y += group_sums(tokens, weight, i) * scale
    return (y * tokens.scale).view(*x.shape[:-1], rows)


def group_sums(tokens: Affine, weight: Affine, i: int) -> Tensor:
    """The integers that group i adds to each output, exact, as float32 (n_tokens, rows).

    codes - zero point would need 9 bits; in codes * w - zero point * (sum of w) they have 8, and the sum of w is known.
    """
    size = weight.codes.shape[1] // weight.scale.shape[1]
    if 255 * 8 * size >= EXACT:
        raise ValueError(f"sums over groups of {size} do not fit the {EXACT} that float32 counts to")
    part = slice(i * size, (i + 1) * size)
    w = weight.codes[:, part].float()  # (rows, group)
    return tokens.codes[:, part].float() @ w.T - tokens.zero_point * w.sum(-1)
