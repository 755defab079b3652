"""LLM.int8() (Dettmers et al., arXiv 2208.07339): columns with outliers in float, all others in int8.

Left out: fp16 (the float part is in the input's dtype) and a kernel; which columns are split off depends on the whole
batch, as in the paper.
"""

from torch import Tensor, nn

from .affine import Affine, check_values
from .w8a8 import PER_TOKEN, integer_linear

THRESHOLD = 6.0  # the paper's


def outlier_columns(x: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """The columns in which any token of x, (..., n), has a magnitude of the threshold or more: bool (n,)."""
    return (x.abs() >= threshold).reshape(-1, x.shape[-1]).any(0)


def llm_int8_linear(x: Tensor, weight: Tensor, quantized: Affine | None = None, threshold: float = THRESHOLD) -> Tensor:
    """y = x W^T, the sum of a product in float over the outlier columns and one in int8 over the others.

    x: (..., n), scaled per token over the columns that are left. weight: W, (m, n), in float, whose outlier columns are
    read; quantized: W in int8, a scale per row over all columns, computed if not given. With threshold 0 all is float.
    Returns (..., m). Raises ValueError for shapes that do not fit and for input that is empty or not finite.
    """
    check_values(x)
    if weight.dim() != 2 or weight.shape[1] != x.shape[-1]:
        raise ValueError(f"x has {x.shape[-1]} columns, a weight of shape {tuple(weight.shape)} does not fit")
    if threshold < 0:
        raise ValueError(f"threshold is {threshold}, not at least 0")
    outliers = outlier_columns(x, threshold)  # (n,)
    y = x[..., outliers] @ weight[:, outliers].T  # (..., m)
    if outliers.all():
        return y
    q = PER_TOKEN(weight) if quantized is None else quantized
    rest = Affine(q.codes[:, ~outliers], q.scale, q.zero_point, q.bits)
    return y + integer_linear(PER_TOKEN(x[..., ~outliers]), rest)


class LLMInt8Linear(nn.Module):
    """A linear layer that splits its input's columns. It holds its weight twice, in float and in int8."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, threshold: float = THRESHOLD):
        super().__init__()
        quantized = PER_TOKEN(weight)
        self.register_buffer("weight", weight)  # (m, n)
        self.register_buffer("bias", bias)  # (m,)
        self.register_buffer("codes", quantized.codes)  # (m, n)
        self.register_buffer("scale", quantized.scale)  # (m, 1)
        self.register_buffer("zero_point", quantized.zero_point)  # (m, 1)
        self.threshold = threshold

    @classmethod
    def from_linear(cls, linear: nn.Linear, threshold: float = THRESHOLD) -> "LLMInt8Linear":
        return cls(linear.weight.detach(), None if linear.bias is None else linear.bias.detach(), threshold)

    def forward(self, x: Tensor) -> Tensor:
        quantized = Affine(self.codes, self.scale, self.zero_point, 8)
        y = llm_int8_linear(x, self.weight, quantized, self.threshold)  # (..., m)
        return y if self.bias is None else y + self.bias
