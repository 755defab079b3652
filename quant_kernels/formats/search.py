"""How a format chooses its scale: the extremes of a block, and ggml's searches for the least weighted error.

The searches repeat ggml's float32 arithmetic operation for operation, because a sum in another order or a fused
multiply-add ends in other bytes. They work on columns, (block_size, n_blocks): a sum over a block is taken in the order
of its elements, while each addition runs over all blocks.
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch

from ..compilation import compilable, eagerly

ALL_ZERO = float(np.float32(1e-15))  # a block below this magnitude counts as zero in a search
ROUNDER = 12582912.0  # 1.5 * 2**23: a float32 around it has no bits for a fraction
WRAPS = 2.0**22  # from here on a number and ROUNDER no longer add up to one with the exponent of ROUNDER


def first_minimum(x: torch.Tensor) -> torch.Tensor:
    """The least element of each block: (n_blocks, 32) to (n_blocks, 1). The sign of a zero is the first zero's."""
    low = x.amin(-1, keepdim=True)
    zero = (low == 0)[:, 0].nonzero()[:, 0]
    if len(zero):
        blocks = x[zero]
        low[zero] = blocks.gather(-1, blocks.argmin(-1, keepdim=True))
    return low


def first_extreme(x: torch.Tensor) -> torch.Tensor:
    """The element of largest magnitude of each block: (n_blocks, 32) to (n_blocks, 1). On a tie, the first one."""
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    extreme = torch.where(high > -low, high, low)
    tie = (high == -low)[:, 0].nonzero()[:, 0]
    if len(tie):
        blocks = x[tie]
        extreme[tie] = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    return extreme + 0.0  # a zero is positive


def divide(a: torch.Tensor | float, b: torch.Tensor | float) -> torch.Tensor:
    """a / b, rounded once; one of them is a number.

    With a Python number torch computes `15 / x` as 15 * (1 / x), and `x / 15` on a GPU as x * (1 / 15): rounded twice.
    """
    device = a.device if isinstance(a, torch.Tensor) else b.device
    a, b = (torch.as_tensor(side, dtype=torch.float32, device=device) for side in (a, b))
    return a / b


def inverse(d: torch.Tensor) -> torch.Tensor:
    """1 / d, and 0 where that is infinite: for d = 0 and for |d| < 2**-128."""
    id = d.reciprocal()
    return id.masked_fill_(id.isinf(), 0.0)


def sqrt(x: torch.Tensor) -> torch.Tensor:
    """The square root, correctly rounded; `torch.sqrt` of float32 is one unit off in one value of 150 on a CPU."""
    return x.double().sqrt().float()


def mean_square(rows: torch.Tensor) -> torch.Tensor:
    """The mean of the squares of each row, summed from left to right: (n_rows, n) to (n_rows, 1).

    `torch.sum` and `numpy.sum` add in another order, `torch.cumsum` in double precision.
    """
    with np.errstate(over="ignore"):  # as torch and C, which say nothing
        sums = np.cumsum((rows * rows).cpu().numpy(), axis=-1, dtype=np.float32)[:, -1:]
    return torch.from_numpy(sums / np.float32(rows.shape[-1])).to(rows.device)


def ordered_sum(columns: torch.Tensor, start: float = 0.0) -> torch.Tensor:
    """The sum over the first dimension, from its first element to its last: (32, n_blocks) to (n_blocks,)."""
    first, *others = columns.unbind()
    total = first + start
    for column in others:
        total += column
    return total


def round_half_away(x: torch.Tensor) -> torch.Tensor:
    """The nearest int8, halves away from zero, as C's roundf; `torch.round` rounds halves to even.

    What is added is the float32 below 0.5: with 0.5 itself 0.49999997 would become 1.
    """
    below_half = torch.tensor(0.49999997, dtype=torch.float32, device=x.device)
    return (x + torch.copysign(below_half, x)).to(torch.int8)


def nearest(x: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """The nearest integers, half to even, limited to [low, high].

    The addition leaves the integer in the last 22 bits of the float. That is ggml's way, and it matters beyond 2**22,
    where these bits wrap around.
    """
    return nearest_int(x).clamp_(low, high).float()


def nearest_int(x: torch.Tensor) -> torch.Tensor:
    """The nearest integers, half to even, as int32; outside of (-2**22, 2**22) they wrap around as in `nearest`.

    Inf and -Inf become -2**22, NaN becomes 0 (on a CPU, whose NaN has only the first bit of the mantissa set).
    """
    bits = (x + ROUNDER).view(torch.int32)
    return bits.bitwise_and_(0x7FFFFF).sub_(0x400000)


def search_symmetric(
    x: torch.Tensor, weights: torch.Tensor, nmax: int, by_bits: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale d and codes q in [0, 2 * nmax) that make sum(weights * (x - d * (q - nmax))**2) small.

    x, weights and q are columns (32, n_blocks), d is (n_blocks,). Each of 19 inverse scales around -nmax / extreme
    gives codes, and the codes give the least-squares d. Source: `make_qx_quants` of ggml, with its rmse_type 1.
    """
    extreme = first_extreme(torch.where(x.isnan(), 0.0, x).T)[:, 0]
    d, q = _best_scale(x, weights, extreme, symmetric_trials(nmax).to(x.device), nmax, by_bits)
    if not by_bits:
        # Scales of scales can be infinite: 0 * Inf in a code
        d, q = again_by_bits(~x.isfinite().all(0), (d, q), partial(search_symmetric, nmax=nmax), x, weights)
    return d, q


@cache
def symmetric_trials(nmax: int) -> torch.Tensor:
    """The numerators of the inverse scales that `search_symmetric` tries, (19, 1) float32."""
    steps = [0, *range(-9, 0), *range(1, 10)]
    tried = [-(nmax + np.float32(0.1) * np.float32(step)) for step in steps]
    return torch.from_numpy(np.array(tried, np.float32))[:, None]


@compilable(dim=-1)
def _best_scale(
    x: torch.Tensor, weights: torch.Tensor, extreme: torch.Tensor, numerators: torch.Tensor, nmax: int, by_bits: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The d that gains most, (n_blocks,), and its codes, (32, n_blocks)."""
    iscales = numerators / extreme  # (19, n_blocks)
    all_qx, all_q2 = 0.0, 0.0
    for position, weight in zip(x, weights, strict=True):
        q = as_code(position * iscales, -nmax, nmax - 1, by_bits)  # (19, n_blocks)
        all_qx, all_q2 = all_qx + weight * position * q, all_q2 + weight * q * q
    sum_qx, sum_q2 = all_qx[0], all_q2[0]
    best_iscale, d = iscales[0], torch.where(sum_q2 == 0, 0.0, sum_qx / sum_q2)
    best = d * sum_qx
    for iscale, sum_qx, sum_q2 in zip(iscales[1:], all_qx[1:], all_q2[1:], strict=True):
        better = (sum_q2 > 0) & (sum_qx * sum_qx > best * sum_q2)
        d = torch.where(better, sum_qx / sum_q2, d)
        best, best_iscale = torch.where(better, d * sum_qx, best), torch.where(better, iscale, best_iscale)
    q = as_code(x * best_iscale, -nmax, nmax - 1, by_bits) + nmax
    zero = extreme.abs() < ALL_ZERO
    return torch.where(zero, 0.0, d), torch.where(zero, 0.0, q)


def search_asymmetric(
    x: torch.Tensor,
    weights: torch.Tensor,
    nmax: int,
    trials: tuple[float, float, int] = (-0.9, 0.05, 37),
    absolute: bool = False,
    by_bits: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The scale d, minimum m <= 0 and codes q in [0, nmax] that make sum(weights * (x - (d * q + m))**2) small.

    x, weights and q are columns (32, n_blocks), d and m are (n_blocks,). Each of 37 inverse scales, from
    (nmax - 0.9) / range to (nmax + 0.9) / range in steps of 0.05 / range, gives codes, and the codes give the
    least-squares d and m; the range starts at the best m so far. `trials` is the first offset, the step and the number
    of these scales; `absolute` compares them by their absolute error. Source: `make_qkx3_quants` and
    `make_qkx2_quants` of ggml.
    """
    low, high = first_minimum(x.T)[:, 0], x.amax(0)
    first, *others = asymmetric_trials(nmax, trials).to(x.device)
    sums, state = _first_line(x, weights, low, high, first, nmax, absolute, by_bits)
    for numerator in others:
        state = _try_line(x, weights, low, high, numerator, *sums, *state, nmax, absolute, by_bits)
    d, m, _, q_least, q_iscale, wild = state
    found = d, m, as_code((x - q_least) * q_iscale, 0, nmax, by_bits)
    if not by_bits:
        search = partial(search_asymmetric, nmax=nmax, trials=trials, absolute=absolute)
        found = again_by_bits(wild, found, search, x, weights)
    return found


@cache
def asymmetric_trials(nmax: int, trials: tuple[float, float, int]) -> torch.Tensor:
    """The numerators of the inverse scales that `search_asymmetric` tries: nmax, then those of `trials`, float32."""
    first, step = np.float32(trials[0]), np.float32(trials[1])
    tried = [first + step * np.float32(trial) + np.float32(nmax) for trial in range(trials[2])]
    return torch.from_numpy(np.array([nmax, *tried], np.float32))


@compilable(dim=-1)
def _first_line(
    x: torch.Tensor,
    weights: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    numerator: torch.Tensor,
    nmax: int,
    absolute: bool,
    by_bits: bool,
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """The sums of weights and of weights * x, and the state of the search at its start, (n_blocks,) each.

    The state is d, m, its error, the m and the inverse scale of its codes, and where codes may have wrapped around.
    """
    sums = ordered_sum(weights, start=-0.0), ordered_sum(weights * x, start=-0.0)
    m = torch.where(low > 0, 0.0, low)
    iscale, wild = _inverse_scale(numerator, low, high, m)
    d = torch.where(high <= m, 0.0, (numerator / (high - m)).reciprocal())
    best = _line_error(x, weights, d, m, as_code((x - m) * iscale, 0, nmax, by_bits), absolute)
    return sums, (d, m, best, m.clone(), iscale, wild)


@compilable(dim=-1)
def _try_line(
    x: torch.Tensor,
    weights: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    numerator: torch.Tensor,
    sum_w: torch.Tensor,
    sum_x: torch.Tensor,
    d: torch.Tensor,
    m: torch.Tensor,
    best: torch.Tensor,
    q_least: torch.Tensor,
    q_iscale: torch.Tensor,
    wild: torch.Tensor,
    nmax: int,
    absolute: bool,
    by_bits: bool,
) -> tuple[torch.Tensor, ...]:
    """The state of the search after one more inverse scale."""
    iscale, trial_wild = _inverse_scale(numerator, low, high, m)
    q = as_code((x - m) * iscale, 0, nmax, by_bits)
    trial_d, trial_m, solvable = _fit_line(x, q, weights, sum_w, sum_x)
    error = _line_error(x, weights, trial_d, trial_m, q, absolute)
    better = solvable & (error < best)
    q_least, q_iscale = torch.where(better, m, q_least), torch.where(better, iscale, q_iscale)
    d, m, best = torch.where(better, trial_d, d), torch.where(better, trial_m, m), torch.where(better, error, best)
    return d, m, best, q_least, q_iscale, wild | trial_wild


def _inverse_scale(
    numerator: torch.Tensor, low: torch.Tensor, high: torch.Tensor, m: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The inverse scale, and where a code in the block may wrap around in `nearest_int`."""
    iscale = numerator / (high - m)
    # An infinite iscale gives only zeros in ggml, also where it meets 0 * Inf.
    iscale = torch.where(iscale.abs() == torch.inf, 0.0, iscale)
    largest = torch.maximum(((high - m) * iscale).abs(), ((low - m) * iscale).abs())
    return iscale, ~(largest < WRAPS)


def _line_error(
    x: torch.Tensor, weights: torch.Tensor, d: torch.Tensor, m: torch.Tensor, q: torch.Tensor, absolute: bool
) -> torch.Tensor:
    difference = d * q + m - x
    return ordered_sum(weights * (difference.abs() if absolute else difference * difference))


def _fit_line(
    x: torch.Tensor, q: torch.Tensor, weights: torch.Tensor, sum_w: torch.Tensor, sum_x: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The weighted least-squares d and m <= 0 of x = d * q + m, (n_blocks,) each, and where they can be found."""
    wq = weights * q
    sum_q, sum_q2, sum_qx = ordered_sum(wq), ordered_sum(wq * q), ordered_sum(wq * x)
    determinant = sum_w * sum_q2 - sum_q * sum_q
    d = (sum_w * sum_qx - sum_x * sum_q) / determinant
    m = (sum_q2 * sum_x - sum_q * sum_qx) / determinant
    positive = m > 0
    d, m = torch.where(positive, sum_qx / sum_q2, d), torch.where(positive, 0.0, m)
    return d, m, determinant > 0


def as_code(x: torch.Tensor, low: int | None, high: int, by_bits: bool) -> torch.Tensor:
    """As `nearest`; not `by_bits` it is twice as fast and right where |x| < WRAPS."""
    return nearest(x, low, high) if by_bits else x.round().clamp(low, high)


def again_by_bits(
    wild: torch.Tensor, found: tuple[torch.Tensor, ...], search: Callable, x: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """What a search found, with the blocks that are `wild`, (n_blocks,) bool, searched again with `by_bits`."""
    blocks = wild.nonzero()[:, 0]
    if len(blocks) == 0:
        return found
    with eagerly():
        again = search(x[:, blocks], weights[:, blocks], by_bits=True)
    return tuple(all.index_copy(-1, blocks, some) for all, some in zip(found, again, strict=True))
