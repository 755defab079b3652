"""Hadamard rotations as in QuaRot (Ashkboos et al., arXiv 2404.00456): outlier channels are spread over all channels.

A rotation of the residual stream is folded into the weights and costs nothing; only the one before ffn_down, behind a
nonlinearity, has to run. Left out: rotations of heads (values, and queries and keys after RoPE), learned rotations
(SpinQuant, arXiv 2405.16406), and Hadamard matrices beyond Paley's and Sylvester's.
"""

import math
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from ..models.llama import Llama
from .folding import CONSUMERS, NORMS
from .linears import clone


def hadamard_transform(x: Tensor) -> Tensor:
    """x H / sqrt(n) along the last dimension, for a Hadamard matrix H, (n, n): entries +-1, orthogonal rows.

    n is m * 2**k, with m = 1 or a Paley matrix's order: 12, 20, 28, 36, 60, ... (q + 1 for a prime q = 3 mod 4, 2 q + 2
    for a prime q = 1 mod 4). H is the Kronecker product of that matrix and Sylvester's, whose k steps are sums and
    differences. It keeps lengths and angles. Raises ValueError for another n.

    >>> hadamard_transform(torch.tensor([2.0, 0.0, 0.0, 0.0]))
    tensor([1., 1., 1., 1.])
    """
    n = x.shape[-1]
    m = base_order(n)
    step = 1
    while step < n // m:
        even, odd = x.reshape(*x.shape[:-1], n // (2 * step), 2, step).unbind(-2)  # (..., n / 2 step, step)
        x = torch.stack((even + odd, even - odd), dim=-2).flatten(-3)  # (..., n)
        step *= 2
    if m > 1:
        base = paley(m).to(x)
        x = (x.unflatten(-1, (m, n // m)).transpose(-1, -2) @ base).transpose(-1, -2).flatten(-2)  # (..., n)
    return x / math.sqrt(n)


def base_order(n: int) -> int:
    """The smallest m for which n = m * 2**k and a matrix of order m is known."""
    m = n // (n & -n) if n else 0  # n & -n is the largest power of two that divides n
    while m and m <= n:
        if m == 1 or paley_prime(m):
            return m
        m *= 2
    raise ValueError(
        f"no Hadamard matrix of order {n} is known here: it is not 2**k times 1 or a Paley order (12, ...)"
    )


def paley_prime(order: int) -> int | None:
    """The prime q that Paley's construction of this order starts from."""
    if order % 4 == 0 and is_prime(order - 1):
        return order - 1
    q = order // 2 - 1
    return q if order % 4 == 0 and q % 4 == 1 and is_prime(q) else None


def is_prime(q: int) -> bool:
    return q > 1 and all(q % divisor for divisor in range(2, math.isqrt(q) + 1))


@lru_cache
def paley(order: int) -> Tensor:
    """Paley's Hadamard matrix, float32 (order, order), from which numbers are squares modulo a prime q."""
    q = paley_prime(order)
    squares = {i * i % q for i in range(1, q)}
    residue = torch.tensor([0, *(1 if i in squares else -1 for i in range(1, q))])  # the Legendre symbol, (q,)
    jacobsthal = residue[(torch.arange(q)[:, None] - torch.arange(q)) % q]  # (q, q)
    sign = -1 if q % 4 == 3 else 1
    conference = torch.zeros(q + 1, q + 1, dtype=torch.long)
    conference[0, 1:], conference[1:, 0], conference[1:, 1:] = 1, sign, jacobsthal
    one = torch.eye(q + 1, dtype=torch.long)
    if q % 4 == 3:
        return (one + conference).float()
    double = torch.kron(conference, torch.tensor([[1, 1], [1, -1]])) + torch.kron(
        one, torch.tensor([[1, -1], [-1, -1]])
    )
    return double.float()


def random_signs(n: int, seed: int = 0) -> Tensor:
    """n times +1 or -1: in front of a Hadamard transform they make it a random one, which no weight is aligned with."""
    return torch.randint(0, 2, (n,), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1


def incoherence(x: Tensor) -> float:
    """The largest magnitude over the root mean square: sqrt(n) for one outlier among n, some 3 to 4 for a Gaussian.

    >>> incoherence(torch.tensor([0.0, 0.0, 5.0, 0.0])), incoherence(torch.tensor([1.0, -1.0]))
    (2.0, 1.0)
    """
    return (x.abs().max() / x.square().mean().sqrt()).item()


def rotate_llama(model: Llama, seed: int = 0, *, online_down: bool = False) -> Llama:
    """A copy of the model whose residual stream is rotated by a random Hadamard transform Q; its logits are the same.

    The norms' gains go into the matrices that read them first: only a norm without gains commutes with a rotation.
    W becomes W Q where it reads the stream, Q^T W where it writes to it; the embedding writes, the output matrix, of
    its own from now on, reads. With `online_down`, a transform runs before ffn_down and its inverse is in the weight.
    Logits agree to the rounding of floats. Raises ValueError for an n_embd (or n_ff) that has no Hadamard matrix here.
    """
    signs = random_signs(model.config.n_embd, seed)
    rotated = clone(model)
    fold_gains(rotated)
    rotated.token_embd.weight = nn.Parameter(turned(rotated.token_embd.weight, signs))
    rotated.output.weight = nn.Parameter(turned(rotated.output.weight, signs))
    for block in rotated.blk:
        for reader in (reader for norm in NORMS for reader in CONSUMERS[norm]):
            linear = getattr(block, reader)
            linear.weight = nn.Parameter(turned(linear.weight, signs))  # W Q
        for writer in (block.attn_output, block.ffn_down):
            writer.weight = nn.Parameter(turned(writer.weight.T, signs).T.contiguous())  # Q^T W
        if online_down:
            block.ffn_down = rotated_linear(block.ffn_down)
    return rotated


def turned(weight: Tensor, signs: Tensor) -> Tensor:
    """W Q, Q being the signs, then the transform; in float64, so that rotating adds one rounding only."""
    return hadamard_transform(weight.detach().double() * signs.to(weight.device)).to(weight.dtype)


def fold_gains(model: Llama) -> None:
    """Moves the gains of all norms into the matrices that read them, which unties the output from the embedding."""
    if model.config.tied:
        model.config = replace(model.config, tied=False)
        model.output = nn.Linear(model.config.n_embd, model.config.vocab, bias=False, device="meta")
        model.output.weight = model.token_embd.weight
    for block in model.blk:
        for norm in NORMS:
            absorb(getattr(block, norm), [getattr(block, reader) for reader in CONSUMERS[norm]])
    absorb(model.output_norm, [model.output])


def absorb(norm: nn.Module, readers: list[nn.Linear]) -> None:
    for reader in readers:
        reader.weight = nn.Parameter(reader.weight.detach() * norm.weight.detach())
    norm.weight = nn.Parameter(torch.ones_like(norm.weight))


class HadamardTransform(nn.Module):
    """`hadamard_transform` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return hadamard_transform(x)


def rotated_linear(linear: nn.Linear) -> nn.Sequential:
    """The same function as the linear layer: the transform, then a linear layer whose weight has its inverse."""
    other = nn.Linear(linear.in_features, linear.out_features, bias=False, device="meta")
    other.weight = nn.Parameter(hadamard_transform(linear.weight.detach().double()).to(linear.weight.dtype))
    other.bias = linear.bias
    return nn.Sequential(HadamardTransform(), other)
