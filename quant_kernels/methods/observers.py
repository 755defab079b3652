"""Static activation quantization: an observer sees batches, then gives one scale and zero point for all that follow.

Dynamic quantization needs none of this: `quantize_affine(x, per="row")` takes the range of what it quantizes.
Left out: a static scale per token (a token to come is not known) or per channel (it does not factor out of a matrix
product), and entropy calibration.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .affine import Affine, affine_parameters, check_values, to_codes

BINS = 2048  # of a histogram; a multiple of 4
CLIPS = torch.linspace(0.01, 1, 100)  # the fractions of the range that MeanSquaredError tries


class Observer(ABC):
    """Gathers the range of activations over batches; one range for a whole tensor.

    bits, 2 to 8, and symmetric are those of `quantize_affine`. `quantize` and `parameters` raise ValueError until the
    observer has seen a batch.
    """

    def __init__(self, bits: int = 8, *, symmetric: bool = False):
        self.bits, self.symmetric = bits, symmetric
        self.batches = 0
        self.found: tuple[Tensor, Tensor] | None = None  # the parameters, once asked for, until the next batch

    def observe(self, x: Tensor) -> None:
        """Takes in a batch of any shape, floating point, finite, not empty."""
        check_values(x)
        self.update(x.detach().float())
        self.batches += 1
        self.found = None

    def parameters(self) -> tuple[Tensor, Tensor]:
        """The scale, float32, and the zero point, int32, both of shape (1,)."""
        if not self.batches:
            raise ValueError(f"{type(self).__name__} is not calibrated: it has seen no batch")
        if self.found is None:
            low, high = self.range()
            self.found = affine_parameters(low.view(1), high.view(1), self.bits, symmetric=self.symmetric)
        return self.found

    def quantize(self, x: Tensor) -> Affine:
        """Quantizes x with the scale that calibration gave: what lies beyond the range is clipped."""
        scale, zero_point = self.parameters()
        check_values(x)
        shape = [1] * x.dim()
        return to_codes(x, scale.view(shape), zero_point.view(shape), self.bits, symmetric=self.symmetric)

    @abstractmethod
    def update(self, x: Tensor) -> None: ...

    @abstractmethod
    def range(self) -> tuple[Tensor, Tensor]:
        """The least and the largest value to represent, float32 scalars."""


class MinMax(Observer):
    """The least and the largest value of all batches: nothing seen is clipped, and one outlier sets the scale.

    >>> observer = MinMax()
    >>> observer.observe(torch.tensor([-1.0, 2.0]))
    >>> observer.observe(torch.tensor([4.1]))
    >>> scale, zero_point = observer.parameters()
    >>> round(scale.item(), 4), zero_point.item()
    (0.02, 50)
    """

    def update(self, x: Tensor) -> None:
        low, high = x.aminmax()
        self.low = torch.minimum(self.low, low) if self.batches else low
        self.high = torch.maximum(self.high, high) if self.batches else high

    def range(self) -> tuple[Tensor, Tensor]:
        return self.low, self.high


class MovingAverage(MinMax):
    """Exponential averages of the batches' least and largest values: each batch moves them by `rate` of the way."""

    def __init__(self, bits: int = 8, *, symmetric: bool = False, rate: float = 0.01):
        super().__init__(bits, symmetric=symmetric)
        if not 0 < rate <= 1:
            raise ValueError(f"rate is {rate}, not above 0 and at most 1")
        self.rate = rate

    def update(self, x: Tensor) -> None:
        low, high = x.aminmax()
        self.low = self.low + self.rate * (low - self.low) if self.batches else low
        self.high = self.high + self.rate * (high - self.high) if self.batches else high


class Histogram(MinMax):
    """Counts values in bins of equal width from -reach to reach. A larger value doubles the reach, and bins merge."""

    def update(self, x: Tensor) -> None:
        super().update(x)
        largest = x.abs().max().item()
        if not self.batches:
            self.reach = max(largest, torch.finfo(torch.float32).tiny)
            self.counts = torch.zeros(BINS, dtype=torch.float64, device=x.device)
        while largest > self.reach:
            self.counts = torch.nn.functional.pad(self.counts.view(-1, 2).sum(1), (BINS // 4, BINS // 4))
            self.reach *= 2
        # not torch.histc, whose counts are float32 and end at 2**24
        bins = ((x.double() / self.reach + 1) * (BINS / 2)).long().clamp(max=BINS - 1)
        self.counts += torch.bincount(bins.flatten(), minlength=BINS)

    def edges(self) -> Tensor:
        """The ends of the bins, float32 (BINS + 1,)."""
        return torch.linspace(-self.reach, self.reach, BINS + 1, device=self.counts.device)


class Percentile(Histogram):
    """Keeps `percent` of all values, half of the rest is cut at either end; exact to a bin, 1/1024 of the reach."""

    def __init__(self, bits: int = 8, *, symmetric: bool = False, percent: float = 99.9):
        super().__init__(bits, symmetric=symmetric)
        if not 0 < percent <= 100:
            raise ValueError(f"percent is {percent}, not above 0 and at most 100")
        self.percent = percent

    def range(self) -> tuple[Tensor, Tensor]:
        cut = self.counts.sum() * (1 - self.percent / 100) / 2
        edges = self.edges()
        low = edges[:-1][self.counts.cumsum(0) > cut][0]
        high = edges[1:][self.counts.flip(0).cumsum(0).flip(0) > cut][-1]
        return torch.maximum(low, self.low), torch.minimum(high, self.high)


class MeanSquaredError(Histogram):
    """The fraction of the full range whose quantization has the least mean squared error over the histogram."""

    def range(self) -> tuple[Tensor, Tensor]:
        best = min(CLIPS.tolist(), key=self.error)
        return best * self.low, best * self.high

    def error(self, clip: float) -> float:
        """The sum of squared errors of all that was seen, taken at the middle of its bin, if the range is clipped."""
        edges = self.edges()
        values = (edges[:-1] + edges[1:]) / 2
        ends = (clip * end.view(1) for end in (self.low, self.high))
        q = to_codes(
            values, *affine_parameters(*ends, self.bits, symmetric=self.symmetric), self.bits, symmetric=self.symmetric
        )
        return ((q.dequantize() - values).double().square() * self.counts).sum().item()
