"""H, the second moments of a layer's inputs: what GPTQ compensates with and what the output error depends on.

For y = x W^T an error dW of the weights changes the output by x dW^T, whose mean square over tokens, summed over
outputs, is tr(dW H dW^T) with H = mean of x^T x. Half the second derivative of that error with respect to a row of W is
H too, hence its name. Optimal Brain Surgeon (1993); Frantar et al., arXiv 2208.11580. Left out: gradients.
"""

import torch
from torch import Tensor

from ..models.llama import Llama
from .affine import check_values
from .linears import calibrate


class Hessian:
    """A running mean of x^T x over the tokens that `add` is given.

    >>> h = Hessian(2)
    >>> h.add(torch.tensor([[1.0, 0.0]]))
    >>> h.add(torch.tensor([[1.0, 2.0]]))
    >>> h.mean.tolist(), h.n_tokens
    ([[1.0, 1.0], [1.0, 2.0]], 2)
    """

    def __init__(self, columns: int, device: torch.device | str | None = None):
        self.total = torch.zeros(columns, columns, dtype=torch.float64, device=device)
        self.n_tokens = 0

    def add(self, x: Tensor) -> None:
        """Adds tokens: (..., columns), floating point. Raises ValueError for another width, NaN or Inf."""
        if x.shape[-1:] != self.total.shape[:1]:
            raise ValueError(f"x of shape {tuple(x.shape)} does not have {len(self.total)} columns")
        check_values(x)
        x = x.detach().reshape(-1, len(self.total)).float()
        self.total += (x.T @ x).double()
        self.n_tokens += len(x)

    @property
    def mean(self) -> Tensor:
        """Returns float32 (columns, columns). Raises ValueError where no tokens were added."""
        if not self.n_tokens:
            raise ValueError("no tokens were added: the mean is not known")
        return (self.total / self.n_tokens).float()


def hessian(x: Tensor) -> Tensor:
    """The mean of x^T x over the tokens of x, (..., columns): float32 (columns, columns)."""
    moments = Hessian(x.shape[-1] if x.dim() else 0, x.device)
    moments.add(x)
    return moments.mean


def output_error(dw: Tensor, h: Tensor) -> float:
    """tr(dW H dW^T): the squared error of the outputs per token, from the error of the weights and H alone.

    dw: the change of the weights, (rows, columns); h: (columns, columns). Raises ValueError for other shapes.

    >>> x, dw = torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.tensor([[0.5, 0.25]])
    >>> output_error(dw, hessian(x)), (x @ dw.T).square().sum(-1).mean().item()
    (1.28125, 1.28125)
    """
    check_hessian(h, dw)
    dw = dw.double()
    return ((dw @ h.double()) * dw).sum().item()


def check_hessian(h: Tensor, w: Tensor) -> None:
    """Raises for an H that is not one of inputs of the matrix w."""
    check_values(w)
    if w.dim() != 2:
        raise ValueError(f"w of shape {tuple(w.shape)} is not a matrix (rows, columns)")
    if h.shape != (w.shape[1], w.shape[1]):
        raise ValueError(f"H has shape {tuple(h.shape)}, not {(w.shape[1], w.shape[1])} for w's {w.shape[1]} columns")
    check_values(h)
    diagonal = h.diagonal()
    if diagonal.min() < 0:
        raise ValueError(f"H is no mean of x^T x: its diagonal has {diagonal.min().item()}")
    asymmetry = (h - h.T).abs().max()
    if asymmetry > 1e-3 * diagonal.max():
        raise ValueError(f"H is no mean of x^T x: it differs from its transpose by {asymmetry.item()}")


def input_hessians(model: Llama, windows: Tensor) -> dict[str, Tensor]:
    """H of the inputs of the linear layers of the blocks, by the GGUF names of their weights.

    windows: token ids, (W, T). Matrices that read the same input (attn_q, attn_k, attn_v; ffn_gate, ffn_up) have the
    same H, one copy each.
    """
    moments: dict[str, Hessian] = {}

    def see(name: str, x: Tensor) -> None:
        moments.setdefault(f"{name}.weight", Hessian(x.shape[-1], x.device)).add(x)

    calibrate(model, windows, see)
    return {name: moment.mean for name, moment in moments.items()}
