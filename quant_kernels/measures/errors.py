"""How far an approximation is from what it stands for: one number each, computed in float64.

The reference comes first. Both tensors have one shape, which does not matter; all elements count alike.
"""

import math

import torch
from torch import Tensor


def mse(reference: Tensor, approximation: Tensor) -> float:
    """The mean squared error, in the square of the unit of the reference.

    >>> mse(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
    2.0
    """
    reference, approximation = _pair(reference, approximation)
    return (reference - approximation).square().mean().item()


def relative_rmse(reference: Tensor, approximation: Tensor) -> float:
    """The root mean square of the error, divided by that of the reference: 0.01 is 1 %.

    It is inf where all of the reference is 0 and the approximation is not.

    >>> relative_rmse(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]))
    0.1
    """
    reference, approximation = _pair(reference, approximation)
    noise, signal = (reference - approximation).norm().item(), reference.norm().item()
    return noise / signal if signal else math.inf if noise else 0.0


def sqnr(reference: Tensor, approximation: Tensor) -> float:
    """The signal to quantization noise ratio in decibels: 10 log10 of the ratio of mean squares; inf if exact.

    Each bit more is worth 20 log10(2) = 6.02 dB where the error is uniform within a step. Average mean squared errors,
    and not decibels.

    >>> sqnr(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]))
    20.0
    """
    relative = relative_rmse(reference, approximation)
    return -20 * math.log10(relative) if relative else math.inf


def cosine(reference: Tensor, approximation: Tensor) -> float:
    """The cosine of the angle between the two, as vectors of all elements: 1 says nothing of their lengths.

    Two zero vectors have cosine 1, a zero vector and another have 0.

    >>> cosine(torch.tensor([3.0, 4.0]), torch.tensor([6.0, 8.0]))
    1.0
    """
    reference, approximation = _pair(reference, approximation)
    lengths = (reference.norm() * approximation.norm()).item()
    if lengths == 0:
        return float(torch.equal(reference, approximation))
    return (reference * approximation).sum().item() / lengths


def max_error(reference: Tensor, approximation: Tensor) -> float:
    """The largest magnitude of an error, in the unit of the reference.

    >>> max_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]))
    0.5
    """
    reference, approximation = _pair(reference, approximation)
    return (reference - approximation).abs().max().item()


def _pair(reference: Tensor, approximation: Tensor) -> tuple[Tensor, Tensor]:
    if reference.shape != approximation.shape:
        raise ValueError(f"shapes differ: {tuple(reference.shape)} and {tuple(approximation.shape)}")
    if reference.numel() == 0:
        raise ValueError(f"tensors of shape {tuple(reference.shape)} have no error: they are empty")
    reference, approximation = reference.detach().double(), approximation.detach().double()
    for name, values in (("reference", reference), ("approximation", approximation)):
        if not values.isfinite().all():
            raise ValueError(f"the {name} has {int((~values.isfinite()).sum())} values that are not finite")
    return reference, approximation
