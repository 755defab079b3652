"""W8A8: weights and activations in integers, their products summed in int32, the scales applied once at the end.

Left out: kernels (the sums are exact here by float64) and what epilogues fuse.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from .affine import Affine, quantize_affine

PER_TOKEN = partial(quantize_affine, symmetric=True, per="row")
PER_TENSOR = partial(quantize_affine, symmetric=True, per="tensor")
MAX_COLUMNS = (2**31 - 1) // (255 * 128)  # 65793: more products of two bytes can overflow int32


def integer_matmul(a: Tensor, b: Tensor) -> Tensor:
    """The products of all rows of a, (..., n), with all rows of b, (m, n): int32 (..., m), from int8 or uint8."""
    n = a.shape[-1]
    if n > MAX_COLUMNS:
        raise ValueError(f"sums over {n} columns can overflow int32, which holds those over {MAX_COLUMNS}")
    return (a.double() @ b.double().T).to(torch.int32)  # float64 is exact up to 2**53


def integer_linear(x: Affine, weight: Affine) -> Tensor:
    """y = x W^T, exactly the product of the dequantized tensors but for one rounding to float32 and the scales' own.

    x: codes (..., n), a scale per tensor or per row (token). weight: codes (m, n), a scale per tensor or per row.
    With zero points, sum (a - z_a) (b - z_b) = sum a b - z_a sum b - z_b sum a + n z_a z_b, where sum b is known ahead.
    Returns float32 (..., m). Raises ValueError for scales per column or group: inside a sum over columns they do not
    factor out of it.
    """
    check_pair(x, weight)
    z_x, z_w = x.zero_point.long(), weight.zero_point.long().flatten()  # (..., 1), (m,)
    sum_x, sum_w = x.codes.sum(-1, keepdim=True), weight.codes.sum(-1)  # int64: (..., 1), (m,)
    n = x.codes.shape[-1]
    total = integer_matmul(x.codes, weight.codes) - z_x * sum_w - sum_x * z_w + n * z_x * z_w  # (..., m)
    return total * x.scale * weight.scale.flatten()  # (..., m)


def w8a8_linear(x: Tensor, weight: Tensor | Affine, activation: Callable[[Tensor], Affine] = PER_TOKEN) -> Tensor:
    """y = x W^T in integers, with x quantized on the fly.

    x: floating point, (..., n). weight: (m, n), or what quantizing it gave; it is quantized symmetrically per row.
    activation: how x is quantized: per token, the default; `PER_TENSOR`; another partial of `quantize_affine`; or the
    `quantize` of a calibrated observer, which makes the scales static. Returns float32 (..., m).

    >>> w8a8_linear(torch.tensor([[1.0, 127.0]]), torch.tensor([[127.0, 0.0], [2.0, 127.0]]))
    tensor([[  127., 16131.]])
    """
    return integer_linear(activation(x), weight if isinstance(weight, Affine) else PER_TOKEN(weight))


class W8A8Linear(nn.Module):
    """A linear layer that multiplies integers. Its `activation` quantizes the input, see `w8a8_linear`."""

    def __init__(self, weight: Affine, bias: Tensor | None = None, activation: Callable[[Tensor], Affine] = PER_TOKEN):
        super().__init__()
        self.register_buffer("codes", weight.codes)  # (m, n)
        self.register_buffer("scale", weight.scale)  # (m, 1)
        self.register_buffer("zero_point", weight.zero_point)  # (m, 1)
        self.register_buffer("bias", bias)  # (m,)
        self.bits, self.activation = weight.bits, activation

    @classmethod
    def from_linear(cls, linear: nn.Linear, bits: int = 8, activation: Callable = PER_TOKEN) -> "W8A8Linear":
        """Quantizes the weight symmetrically per row, to `bits` bits."""
        bias = None if linear.bias is None else linear.bias.detach()
        return cls(PER_TOKEN(linear.weight, bits), bias, activation)

    def forward(self, x: Tensor) -> Tensor:
        weight = Affine(self.codes, self.scale, self.zero_point, self.bits)
        y = w8a8_linear(x, weight, self.activation)  # (..., m)
        return y if self.bias is None else y + self.bias


def check_pair(x: Affine, weight: Affine) -> None:
    n = x.codes.shape[-1]
    if weight.codes.dim() != 2 or weight.codes.shape[1] != n:
        raise ValueError(f"x has {n} columns, a weight of shape {tuple(weight.codes.shape)} does not fit")
    for name, value in (("x", x), ("weight", weight)):
        if value.scale.shape[-1] != 1:
            raise ValueError(
                f"{name} has {value.scale.shape[-1]} scales along its {n} columns: they do not factor out of the sum"
            )
        if value.zero_point.is_floating_point():
            raise ValueError(f"the zero point of {name} is a float, and not a code that integers can subtract")
