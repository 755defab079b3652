"""GPTQ: rounds a matrix column by column, and lets the columns that are left make up for each column's error.

Frantar et al., arXiv 2210.17323. Left out: packing of the codes, scales of the original weights with act_order
("static groups"), search of the clip range, lm_head.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..models.llama import Block, Llama
from .affine import Affine, affine_parameters, to_codes, value_range
from .hessian import Hessian, check_hessian
from .linears import BATCH_TOKENS

BLOCK = 128  # columns after which the errors are spread over all the columns that are left
STAGES = (("attn_q", "attn_k", "attn_v"), ("attn_output",), ("ffn_gate", "ffn_up"), ("ffn_down",))  # by their inputs


@dataclass(frozen=True)
class GPTQ:
    """What `gptq` found. The columns of `affine` are in the order in which they were rounded, and so are its groups.

    order: int64 (columns,), the places of these columns in the matrix; ascending without act_order.
    """

    affine: Affine
    order: Tensor

    def dequantize(self) -> Tensor:
        """Returns float32 (rows, columns), the columns in the matrix's own order."""
        return torch.empty_like(self.affine.codes, dtype=torch.float32).index_copy_(
            1, self.order, self.affine.dequantize()
        )

    def group_of(self) -> Tensor:
        """The group of each of the matrix's columns, the `g_idx` of GPTQ files: int64 (columns,)."""
        size = len(self.order) // self.affine.scale.shape[1]
        return torch.empty_like(self.order).index_copy_(
            0, self.order, torch.arange(len(self.order), device=self.order.device) // size
        )


def gptq(
    w: Tensor,
    h: Tensor,
    bits: int = 4,
    *,
    group: int | None = 128,
    act_order: bool = False,
    damping: float = 0.01,
    **grid: bool,
) -> GPTQ:
    """Quantizes w for the least error of x w^T, with x known by its second moments H.

    w: (rows, columns), floating point; h: (columns, columns), as `hessian.hessian` gives it. group: columns that share
    a scale in each row, None for all. act_order: the columns of the largest moments first, while most others are left
    to make up for them. damping: this part of H's mean diagonal is added to the diagonal, for an H that cannot be
    inverted or is known from few tokens. grid: `symmetric` and so on, as for `quantize_affine`.

    With H = I nothing can be made up for: the codes are those of `quantize_affine`. Columns whose input is always 0
    are rounded, too (the original sets them to 0). Raises TypeError or ValueError for other input, among them an H that
    is not positive definite even so.

    >>> w, h = torch.tensor([[0.6, 0.6, -0.9, 2.1]]), torch.ones(4, 4)
    >>> q = gptq(w, h, bits=2, group=4)  # steps of 1; all inputs are equal, so what counts is the sum of the row
    >>> round(w.sum().item(), 1), [round(x) for x in q.dequantize()[0].tolist()]
    (2.4, [1, 0, -1, 2])
    """
    check_hessian(h, w)
    columns = w.shape[1]
    group = columns if group is None else group
    if not 1 <= group <= columns or columns % group:
        raise ValueError(f"w's {columns} columns are not a multiple of the group size {group}")
    order = h.diagonal().argsort(descending=True) if act_order else torch.arange(columns, device=w.device)
    factor = inverse_factor(h[order][:, order], damping)
    return GPTQ(round_columns(w.detach().float()[:, order], factor, bits, group, grid), order)


def round_columns(w: Tensor, factor: Tensor, bits: int, group: int, grid: dict[str, bool]) -> Affine:
    """Rounds w, (rows, columns), from left to right; w is overwritten with what the rounding was of.

    A column's error, in units of factor[i, i], is taken off the columns to its right in the ratios of factor[i]: at
    once within a block, and at the block's end beyond it. Blocks do not cross the ends of groups, so that a group's
    scale is that of weights which all errors before have reached.
    """
    rows, columns = w.shape
    block = math.gcd(group, BLOCK)
    parts = []
    for start in range(0, columns, block):
        stop = start + block
        errors = torch.empty(rows, block, device=w.device)
        if start % group == 0:
            scale, zero_point = affine_parameters(*value_range(w[:, start : start + group], "row"), bits, **grid)
        for i in range(start, stop):
            column = to_codes(w[:, i : i + 1], scale, zero_point, bits, **code_options(grid))
            parts.append(column)
            error = (w[:, i : i + 1] - column.dequantize()) / factor[i, i]  # (rows, 1)
            w[:, i + 1 : stop] -= error * factor[i, i + 1 : stop]
            errors[:, i - start] = error[:, 0]
        w[:, stop:] -= errors @ factor[start:stop, stop:]
    codes, scale, zero_point = (
        torch.cat([getattr(part, name) for part in parts[::step]], dim=1)
        for name, step in (("codes", 1), ("scale", group), ("zero_point", group))
    )
    return Affine(codes, scale, zero_point, bits)


def code_options(grid: dict[str, bool]) -> dict[str, bool]:
    return {name: value for name, value in grid.items() if name != "exact_zero"}


def inverse_factor(h: Tensor, damping: float) -> Tensor:
    """The upper triangular U with U^T U = H^-1: float32 (columns, columns).

    Row i of it, from i on, is how the columns from i on make up for an error in column i when those before are fixed.
    From H = R R^T with R upper triangular (Cholesky's factor, from the last column to the first) follows U = R^-1.
    """
    if not damping >= 0:
        raise ValueError(f"damping is {damping}, not at least 0")
    h = h.double()
    diagonal = h.diagonal()
    dead = diagonal == 0
    mean = diagonal[~dead].mean() if not dead.all() else torch.ones_like(diagonal[0])
    h = h + torch.diag(dead * mean + damping * mean)
    lower, failed = torch.linalg.cholesky_ex(h.flip(0, 1))
    if failed:
        raise ValueError(f"H is not positive definite with damping {damping}: give more tokens or more damping")
    identity = torch.eye(len(h), dtype=h.dtype, device=h.device)
    return torch.linalg.solve_triangular(lower.flip(0, 1), identity, upper=True).float()


@torch.no_grad()
def gptq_llama(
    model: Llama,
    tokens: Tensor,
    bits: int = 4,
    group: int | None = 128,
    *,
    act_order: bool = False,
    damping: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
    **grid: bool,
) -> dict[str, Tensor]:
    """Quantizes the linear layers of a Llama's blocks; embedding and output stay as they are.

    In the order of computation: each matrix is given the inputs that the matrices before it, quantized already, make
    of the calibration tokens. tokens: (B, T) ids; the other options are those of `gptq`. progress: called with the
    layers done and their number. The model is not changed.

    Returns the dequantized matrices by their GGUF names, for `model.replaced`. Raises ValueError for tokens that the
    model refuses, none among them, or a group that does not divide the columns of every matrix.
    """
    model._check(tokens)
    if len(tokens) == 0:
        raise ValueError(f"tokens of shape {tuple(tokens.shape)} are none: there is no H")
    quantized = {}
    x = model.token_embd(tokens)  # (B, T, C)
    angles = model.rope_freqs(tokens.shape[1])
    for i, block in enumerate(model.blk):
        block = copy.deepcopy(block)
        for stage in STAGES:
            h = input_hessian(block, getattr(block, stage[0]), x, angles)
            for name in stage:
                weight = getattr(block, name).weight
                q = gptq(weight, h, bits, group=group, act_order=act_order, damping=damping, **grid)
                weight.data = q.dequantize()
                quantized[f"blk.{i}.{name}.weight"] = weight.data
        x = run(block, x, angles)
        if progress:
            progress(i + 1, len(model.blk))
    return quantized


def input_hessian(block: Block, layer: nn.Linear, x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """H of what the layer is given when the block is given x, (B, T, C)."""
    moments = Hessian(layer.in_features, x.device)
    hook = layer.register_forward_pre_hook(lambda _, args: moments.add(args[0]))
    run(block, x, angles)
    hook.remove()
    return moments.mean


def run(block: Block, x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """The block's output for (B, T, C), some windows at a time."""
    return torch.cat([block(part, *angles) for part in x.split(max(1, BATCH_TOKENS // x.shape[1]))])
