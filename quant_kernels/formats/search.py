"""How a format chooses its scale: the extremes of a block, and ggml's searches for the least weighted error.

The searches repeat ggml's float32 arithmetic operation for operation, because a sum in another order or a fused
multiply-add ends in other bytes. They work on columns, (block_size, n_blocks): a sum over a block is taken in the order
of its elements, while each addition runs over all blocks.
"""

import numpy as np
import torch

ALL_ZERO = 1e-15  # a block below this magnitude counts as zero in a search
ROUNDER = 12582912.0  # 1.5 * 2**23: a float32 around it has no bits for a fraction


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


def search_symmetric(x: torch.Tensor, weights: torch.Tensor, nmax: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale d and codes q in [0, 2 * nmax) that make sum(weights * (x - d * (q - nmax))**2) small.

    x, weights and q are (n_blocks, 32), d is (n_blocks, 1). Each of 19 inverse scales around -nmax / extreme gives
    codes, and the codes give the least-squares d. Source: `make_qx_quants` of ggml, with its rmse_type 1.
    """
    extreme = first_extreme(torch.where(x.isnan(), 0.0, x))[:, 0]
    x, weights = x.T.contiguous(), weights.T.contiguous()  # (32, n_blocks)
    wx = weights * x

    def sums(iscale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        q = nearest(x * iscale, -nmax, nmax - 1)
        return ordered_sum(wx * q), ordered_sum(weights * q * q)

    best_iscale = divide(-nmax, extreme)
    sum_qx, sum_q2 = sums(best_iscale)
    d = torch.where(sum_q2 == 0, 0.0, sum_qx / sum_q2)
    best = d * sum_qx
    for step in [*range(-9, 0), *range(1, 10)]:
        iscale = divide(-(nmax + np.float32(0.1) * np.float32(step)), extreme)
        sum_qx, sum_q2 = sums(iscale)
        better = (sum_q2 > 0) & (sum_qx * sum_qx > best * sum_q2)
        d = torch.where(better, sum_qx / sum_q2, d)
        best = torch.where(better, d * sum_qx, best)
        best_iscale = torch.where(better, iscale, best_iscale)
    q = nearest(x * best_iscale, -nmax, nmax - 1) + nmax
    zero = extreme.abs() < np.float32(ALL_ZERO)
    return torch.where(zero, 0.0, d)[:, None], torch.where(zero, 0.0, q).T


def search_asymmetric(
    x: torch.Tensor,
    weights: torch.Tensor,
    nmax: int,
    trials: tuple[float, float, int] = (-0.9, 0.05, 37),
    absolute: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The scale d, minimum m <= 0 and codes q in [0, nmax] that make sum(weights * (x - (d * q + m))**2) small.

    x, weights and q are (n_blocks, 32), d and m are (n_blocks, 1). Each of 37 inverse scales, from (nmax - 0.9) / range
    to (nmax + 0.9) / range in steps of 0.05 / range, gives codes, and the codes give the least-squares d and m; the
    range starts at the best m so far. `trials` is the first offset, the step and the number of these scales; `absolute`
    compares them by their absolute error. Source: `make_qkx3_quants` and `make_qkx2_quants` of ggml.
    """
    first, step, n_trials = np.float32(trials[0]), np.float32(trials[1]), trials[2]
    low, high = first_minimum(x)[:, 0], x.amax(-1)
    x, weights = x.T.contiguous(), weights.T.contiguous()  # (32, n_blocks)
    sum_w, sum_x = ordered_sum(weights, start=-0.0), ordered_sum(weights * x, start=-0.0)

    def codes(numerator: float, m: torch.Tensor) -> torch.Tensor:
        iscale = divide(numerator, high - m)
        # An infinite iscale gives only zeros in ggml, also where it meets 0 * Inf.
        return nearest((x - m) * iscale.masked_fill_(iscale.isinf(), 0.0), 0, nmax)

    def error(d: torch.Tensor, m: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        difference = d * q + m - x
        return ordered_sum(weights * (difference.abs() if absolute else difference * difference))

    m = torch.where(low > 0, 0.0, low)
    q = codes(nmax, m)
    d = torch.where(high <= m, 0.0, divide(1.0, divide(nmax, high - m)))
    best = error(d, m, q)
    for trial in range(n_trials):
        trial_q = codes(first + step * np.float32(trial) + np.float32(nmax), m)
        trial_d, trial_m, solvable = _fit_line(x, trial_q, weights, sum_w, sum_x)
        trial_error = error(trial_d, trial_m, trial_q)
        better = solvable & (trial_error < best)
        d, m = torch.where(better, trial_d, d), torch.where(better, trial_m, m)
        q, best = torch.where(better, trial_q, q), torch.where(better, trial_error, best)
    return d[:, None], m[:, None], q.T


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
