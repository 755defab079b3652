"""The scales of K-quants: ggml's searches that move one code at a time, and the scales of scales.

As in `search`, the arithmetic is ggml's float32 operation for operation, on columns (positions, n_blocks).
"""

from functools import cache

import numpy as np
import torch

from ..compilation import compilable, eagerly
from .search import ALL_ZERO, WRAPS, as_code, divide, first_extreme, nearest_int, ordered_sum

PASSES = 5  # over a block, at most


def search_one_by_one(x: torch.Tensor, nmax: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale d and codes q in [0, 2 * nmax) that make sum(x**2 * (x - d * (q - nmax))**2) small.

    x and q are columns (16, n_blocks), d is (n_blocks,). From the codes of the inverse scale -nmax / extreme on, each
    code in turn is rounded anew with the best scale of the others, though only where the extreme is negative: for ggml
    the sum of x**3 * (q - nmax) has to be positive. Source: `make_q3_quants` of ggml, with its do_rmse.
    """
    extreme = first_extreme(x.T)[:, 0]
    weights = x * x
    q = as_code(x * divide(-nmax, extreme), -nmax, nmax - 1, by_bits=False)  # an extreme of 0 counts for nothing below
    d, q = _improve(x, weights, q, low=-nmax, high=nmax - 1)
    zero = extreme.abs() < ALL_ZERO
    return torch.where(zero, 0.0, d), torch.where(zero, 0.0, q + nmax)


def search_positive(x: torch.Tensor, weights: torch.Tensor, nmax: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale d and codes q <= nmax that make sum(weights * (x - d * q)**2) small, for the scales of a block.

    x, weights and q are (n_blocks, 8 or 16), d is (n_blocks, 1). The best of 9 inverse scales around nmax / max gives
    codes, then each code in turn is rounded anew with the best scale of the others. A negative x, which is rare, ends
    as a byte from 128 on. Source: `make_qp_quants` of ggml.
    """
    high = x.amax(-1)
    x, weights = x.T.contiguous(), weights.T.contiguous()  # (8 or 16, n_blocks)

    iscale = _best_inverse(x, weights, high, positive_trials(nmax).to(x.device), nmax)
    q = nearest_int(x * iscale).clamp_(max=nmax).float()
    d, q = _improve(x, weights, q, low=None, high=nmax)
    zero = high < ALL_ZERO
    return torch.where(zero, 0.0, d)[:, None], as_bytes(torch.where(zero, 0.0, q).T)


@cache
def positive_trials(nmax: int) -> torch.Tensor:
    """The numerators of the inverse scales that `search_positive` tries, (9,) float32."""
    steps = (0, -4, -3, -2, -1, 1, 2, 3, 4)
    tried = [np.float32(0.1) * np.float32(step) + np.float32(nmax) for step in steps]
    return torch.from_numpy(np.array(tried, np.float32))


@compilable(dim=-1)
def _best_inverse(
    x: torch.Tensor, weights: torch.Tensor, high: torch.Tensor, numerators: torch.Tensor, nmax: int
) -> torch.Tensor:
    """The inverse scale, (n_blocks,), with the least error of x, (positions, n_blocks)."""

    def error(iscale: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        difference = x - iscale.reciprocal() * q
        return ordered_sum(weights * difference * difference)

    first, *others = numerators
    best_iscale = first / high
    best = error(best_iscale, as_bytes(nearest_int(x * best_iscale)))
    for numerator in others:
        iscale = numerator / high
        trial = error(iscale, nearest_int(x * iscale).clamp(max=nmax))
        better = trial < best
        best, best_iscale = torch.where(better, trial, best), torch.where(better, iscale, best_iscale)
    return best_iscale


def scale_codes(x: torch.Tensor, nmax: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale d = max / nmax, (n_blocks, 1), and codes as bytes, of x = d * q, both (n_blocks, 8 or 16)."""
    high = x.amax(-1, keepdim=True)
    high = torch.where(high > 0, high, 0.0)
    iscale = divide(nmax, high)
    # An infinite iscale gives only zeros, in ggml too: the last eight bits of -2**22.
    return divide(high, nmax), as_bytes(nearest_int(x * iscale.masked_fill_(iscale.isinf(), 0.0)))


def signed_scale_codes(x: torch.Tensor, nmax: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale d = extreme / -nmax, (n_blocks, 1), and codes in [-nmax, nmax), int32, of x = d * q, (n_blocks, 16)."""
    extreme = first_extreme(torch.where(x.isnan(), 0.0, x))
    iscale = divide(-nmax, extreme)
    q = nearest_int(x * iscale).clamp_(-nmax, nmax - 1)
    zero = extreme == 0
    return torch.where(zero, 0.0, divide(1.0, iscale)), torch.where(zero, 0, q)


def as_bytes(q: torch.Tensor) -> torch.Tensor:
    """The last eight bits of whole numbers, as uint8: -1 becomes 255."""
    return q.to(torch.int32).bitwise_and_(0xFF).to(torch.uint8)


def _improve(
    x: torch.Tensor, weights: torch.Tensor, q: torch.Tensor, low: int | None, high: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round each code in turn with the best scale of the others, where that makes the error smaller.

    x, weights and q are (positions, n_blocks), d is (n_blocks,). Codes are limited to [low, high]; without `low` they
    are bytes, of which a negative one wraps around. A block in which a pass changes nothing is left alone from then on.
    """
    terms = weights * x * q
    sum_qx, sum_q2 = ordered_sum(terms), ordered_sum(weights * q * q)  # of the codes before they are bytes
    found = q if low is not None else as_bytes(q).float(), sum_qx, sum_q2
    blocks = (terms > 0).any(0).nonzero()[:, 0]  # without a positive term no rest of the sum is positive
    for _ in range(PASSES):
        some = [part.index_select(-1, blocks) for part in (x, weights, *found)]
        *better, changed, wild = _improve_once(*some, low, high, False)
        if wild.any():
            with eagerly():
                *better, changed, _ = _improve_once(*some, low, high, True)
        found = [all.index_copy(-1, blocks, part) for all, part in zip(found, better, strict=True)]
        blocks = blocks[changed]
        if len(blocks) == 0:
            break
    q, sum_qx, sum_q2 = found
    return torch.where(sum_q2 > 0, sum_qx / sum_q2, 0.0), q


@compilable(dim=-1)
def _improve_once(
    x: torch.Tensor,
    weights: torch.Tensor,
    q: torch.Tensor,
    sum_qx: torch.Tensor,
    sum_q2: torch.Tensor,
    low: int | None,
    high: int,
    by_bits: bool,
) -> tuple[torch.Tensor, ...]:
    """One pass over the positions: codes, two sums, where they have changed, and where `by_bits` would matter."""
    codes, changed, wild = [], sum_qx != sum_qx, sum_qx != sum_qx
    for position, weight, old in zip(x, weights, q, strict=True):
        wx = weight * position
        rest_qx, rest_q2 = sum_qx - wx * old, sum_q2 - weight * old * old
        exact = position * rest_q2 / rest_qx
        code = as_code(exact, low, high, by_bits)
        trial_qx, trial_q2 = rest_qx + wx * code, rest_q2 + weight * code * code
        better = (rest_qx > 0) & (code != old) & (trial_q2 > 0)
        better = better & (trial_qx * trial_qx * sum_q2 > sum_qx * sum_qx * trial_q2)
        wild = wild | (rest_qx > 0) & ~(exact.abs() < WRAPS)
        if low is None:
            better = better & (rest_q2 > 0)
            code = torch.where(code < 0, code + 256, code) if not by_bits else as_bytes(code).float()
        codes.append(torch.where(better, code, old))
        sum_qx, sum_q2 = torch.where(better, trial_qx, sum_qx), torch.where(better, trial_q2, sum_q2)
        changed = changed | better
    return torch.stack(codes), sum_qx, sum_q2, changed, wild
