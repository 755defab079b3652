"""QAT: trains on with quantized weights in the forward pass, and passes gradients to the weights behind them.

Straight-through estimator: Bengio et al., arXiv 1308.3432; distillation from the model itself: LLM-QAT, arXiv
2305.17888. Left out: quantized activations and KV cache, learned scales (LSQ), adapters.
"""

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from ..models.llama import Llama
from .affine import affine_parameters, check_values, code_range, per_column, value_range
from .linears import block_linears

WARM_UP = 0.1  # of the steps, over which the learning rate rises from 0; it then falls to 0 again, linearly


class StraightThrough(torch.autograd.Function):
    """Rounds to codes and back; the gradient is that of a clamp: 1 within the range of codes, 0 outside.

    Rounding has the gradient 0 nearly everywhere: with it, nothing would be learnt.
    """

    @staticmethod
    def forward(ctx, w: Tensor, scale: Tensor, zero_point: Tensor, lowest: int, highest: int) -> Tensor:
        codes = torch.round(w / scale) + zero_point
        ctx.save_for_backward((lowest <= codes) & (codes <= highest))
        return (codes.clamp(lowest, highest) - zero_point) * scale

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (within,) = ctx.saved_tensors
        return gradient * within, None, None, None, None


def fake_quantize_ste(
    w: Tensor, bits: int = 4, *, per: str | int = 32, symmetric: bool = False, clip: float = 1.0
) -> Tensor:
    """What quantizing leaves of w, with gradients that pass straight through.

    w: (..., n), floating point; options as for `quantize_affine`, whose values it returns. Scale and zero point follow
    w, but no gradient goes through them.

    >>> w = torch.tensor([-1.0, 0.26, 1.0], requires_grad=True)
    >>> q = fake_quantize_ste(w, 3, per="row", symmetric=True, clip=0.75)
    >>> q.sum().backward()
    >>> q.tolist(), w.grad.tolist()  # 0.75 is the largest: beyond it, nothing changes with w
    ([-0.75, 0.25, 0.75], [0.0, 1.0, 0.0])
    """
    check_values(w)
    low, high = (clip * end for end in value_range(w, per))
    scale, zero_point = affine_parameters(low, high, bits, symmetric=symmetric)
    n = w.shape[-1]
    lowest, highest = code_range(bits, symmetric=symmetric)
    return StraightThrough.apply(w, per_column(scale, n), per_column(zero_point, n), lowest, highest)


def fake_quantized(model: Llama, bits: int, group: int | None, **grid: bool | float) -> dict[str, Tensor]:
    """The quantized weights of the model's blocks by GGUF name, with gradients to the model's own weights."""
    per = "row" if group is None else group
    layers = block_linears(model)
    return {f"{name}.weight": fake_quantize_ste(layer.weight, bits, per=per, **grid) for name, layer in layers.items()}


def train_qat(
    model: Llama,
    tokens: Sequence[int] | Tensor,
    steps: int,
    bits: int = 3,
    group: int | None = 32,
    *,
    n_ctx: int = 128,
    batch: int = 8,
    learning_rate: float = 1e-3,
    distill: bool = True,
    seed: int = 0,
    progress: Callable[[int, int, float], None] | None = None,
    **grid: bool | float,
) -> Llama:
    """A copy of the model whose linear layers in the blocks are quantized, after training it to live with that.

    tokens: (n,) ids, from which each step draws `batch` windows of n_ctx. group: columns that share a scale, None for
    a row; grid: `symmetric` and `clip`, as for `fake_quantize_ste`. All parameters are trained, by AdamW. distill: the
    target is the model's own next-token distribution, so that what is learnt is to undo the damage, and not the text;
    otherwise it is the text. progress: called with the steps done, their number and the loss in nats.

    Returns a model whose matrices hold the dequantized weights. On one machine the same seed gives the same weights.
    Raises ValueError for too few tokens, an n_ctx above the model's, or a group that does not divide the columns.
    """
    tokens = checked_tokens(model, tokens, n_ctx, steps)
    student = copy.deepcopy(model).requires_grad_()
    optimizer = torch.optim.AdamW(student.parameters(), learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        starts = torch.randint(len(tokens) - n_ctx, (batch, 1), generator=generator)
        windows = tokens[starts + torch.arange(n_ctx + 1)]  # (batch, n_ctx + 1)
        logits = functional_call(student, fake_quantized(student, bits, group, **grid), windows[:, :-1])
        loss = distillation(logits, model, windows) if distill else F.cross_entropy(logits.mT, windows[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress:
            progress(step + 1, steps, loss.item())
    with torch.no_grad():
        for name, weight in fake_quantized(student, bits, group, **grid).items():
            student.get_parameter(name).copy_(weight)
    return student


def rate(step: int, steps: int) -> float:
    """The learning rate of a step, as part of the highest."""
    return min((step + 1) / (WARM_UP * steps), (steps - step) / (steps * (1 - WARM_UP)), 1.0)


def distillation(logits: Tensor, teacher: Llama, windows: Tensor) -> Tensor:
    """The mean KL divergence from the teacher's distributions, in nats per token; logits (B, T, V)."""
    with torch.no_grad():
        target = teacher(windows[:, :-1]).log_softmax(-1)
    return F.kl_div(logits.log_softmax(-1).flatten(0, 1), target.flatten(0, 1), reduction="batchmean", log_target=True)


def checked_tokens(model: Llama, tokens: Sequence[int] | Tensor, n_ctx: int, steps: int) -> Tensor:
    tokens = torch.as_tensor(tokens)
    if tokens.ndim != 1 or tokens.is_floating_point():
        raise ValueError(f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}, not (n,) integer ids")
    if not 1 <= n_ctx <= model.config.n_ctx:
        raise ValueError(f"n_ctx {n_ctx} is not from 1 to the model's {model.config.n_ctx}")
    if len(tokens) <= n_ctx:
        raise ValueError(f"{len(tokens)} tokens do not fill a window of n_ctx {n_ctx} and its next token")
    if steps < 1:
        raise ValueError(f"steps is {steps}, not at least 1")
    return tokens.long().to(model.token_embd.weight.device)
