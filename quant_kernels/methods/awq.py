"""AWQ (Lin et al., arXiv 2306.00978): scales up the weights that read large activations before rounding them.

A scaled weight keeps the step of its group unless it becomes the group's largest, so that its error shrinks by the
scale; nothing is kept in fp16. Left out: the error of whole blocks (here it is that of the layers that share an
input), the inputs that already quantized layers would send, and packing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..models.llama import Llama
from .affine import fake_quantize
from .folding import CONSUMERS, find, fold, foldable, read_weights
from .hessian import Hessian, output_error
from .linears import calibrate

STEPS = 20  # of alpha, from 0 to 1
LEAST = 1e-4  # of the largest mean magnitude: a channel that calibration hardly saw is taken to have this much
CLIPS = [1 - i / 20 for i in range(11)]  # the fractions of a group's range that are tried
UNCLIPPED = ("attn_q", "attn_k")  # as in the paper's code: their product sets the attention


class Moments(Hessian):
    """What AWQ keeps of a layer's inputs: the mean of x^T x, (n, n), and of |x| per channel, (n,)."""

    def __init__(self, columns: int, device: torch.device | str | None = None):
        super().__init__(columns, device)
        self.total_magnitude = torch.zeros(columns, dtype=torch.float64, device=device)

    def add(self, x: Tensor) -> None:
        super().add(x)
        self.total_magnitude += x.detach().reshape(-1, x.shape[-1]).abs().double().sum(0)

    @property
    def magnitude(self) -> Tensor:
        return (self.total_magnitude / self.n_tokens).float()

    def divided(self, s: Tensor) -> "Moments":
        """The moments of x / s."""
        other = Moments(len(s), s.device)
        other.n_tokens = self.n_tokens
        other.total, other.total_magnitude = self.total / s / s[:, None], self.total_magnitude / s
        return other


@dataclass(frozen=True)
class Search:
    """What `search_scales` found: scales, (n,), the alpha behind them, and squared errors of the output, per token."""

    scales: Tensor
    alpha: float
    error: float
    rtn_error: float  # without scales: round to nearest


def search_scales(weight: Tensor, inputs: Tensor | Moments, bits: int = 4, group: int = 128) -> Search:
    """The scales s = mean |x| ** alpha, over a grid of alpha, with which quantizing W * s changes the output least.

    weight: W, (m, n), all matrices that read the input, one above the other. inputs: calibration tokens, (t, n), or
    their moments. Groups of `group` columns are quantized as by `quantize_affine`, asymmetrically. alpha = 0 is round
    to nearest, so that `error` is never above `rtn_error`. Scales are divided by the geometric mean of their largest
    and smallest. Raises ValueError for other shapes and for input that is empty or not finite.
    """
    moments = as_moments(weight, inputs)
    h = moments.mean
    tried = [(alpha / STEPS, scales_of(moments.magnitude, alpha / STEPS)) for alpha in range(STEPS + 1)]
    errors = [output_error(fake_quantize(weight * s, bits, per=group) / s - weight, h) for _, s in tried]
    best = min(range(len(errors)), key=errors.__getitem__)
    alpha, scales = tried[best]
    return Search(scales, alpha, errors[best], errors[0])


def scales_of(magnitude: Tensor, alpha: float) -> Tensor:
    relative = magnitude / magnitude.max() if magnitude.max() > 0 else torch.ones_like(magnitude)
    scales = relative.clamp(min=LEAST) ** alpha
    return scales / (scales.max() * scales.min()).sqrt()


def search_clips(weight: Tensor, inputs: Tensor | Moments, bits: int = 4, group: int = 128) -> Tensor:
    """The fraction of its range that each group keeps, (m, n / group), for the least error of that group's output.

    Arguments are those of `search_scales`. Groups are looked at one by one, as if the others were exact.
    """
    h = as_moments(weight, inputs).mean
    blocks = torch.stack([h[i : i + group, i : i + group] for i in range(0, len(h), group)])  # (G, g, g)
    errors = []
    for clip in CLIPS:
        delta = fake_quantize(weight, bits, per=group, clip=clip) - weight
        delta = delta.unflatten(-1, (-1, group)).transpose(0, 1)  # (G, m, g)
        errors.append(((delta @ blocks) * delta).sum(-1).T)  # (m, G)
    return torch.tensor(CLIPS, device=weight.device)[torch.stack(errors).argmin(0)]


def awq_llama(model: Llama, windows: Tensor, bits: int = 4, group: int = 128, *, clip: bool = False) -> Llama:
    """A copy of the model whose blocks have AWQ's weights, quantized and dequantized.

    windows: calibration token ids, (W, T). Scales are folded into the norms, ffn_up and, where each query head has a
    key head of its own, attn_v. With `clip` the range of each group is searched too, except in attn_q and attn_k.
    """
    moments = collect(model, windows)
    scales = {}
    for name in foldable(model):
        block, producer = name.rpartition(".")[::2]
        weight = read_weights(model.get_submodule(block), producer)
        scales[name] = search_scales(weight, moments[name], bits, group).scales
    scaled = fold(model, scales)
    for name, inputs in moments.items():
        inputs = inputs.divided(scales[name]) if name in scales else inputs
        for consumer in CONSUMERS[name.rpartition(".")[2]]:
            linear = getattr(find(scaled, name)[0], consumer)
            rounded = round_weight(linear.weight.detach(), inputs, bits, group, clip and consumer not in UNCLIPPED)
            linear.weight = nn.Parameter(rounded)
    return scaled


def round_weight(weight: Tensor, inputs: Moments, bits: int, group: int, clip: bool) -> Tensor:
    """The weight, quantized and dequantized; clipped where asked, unless its output's error as a whole grows by it."""
    plain = fake_quantize(weight, bits, per=group)
    if not clip:
        return plain
    clipped = fake_quantize(weight, bits, per=group, clip=search_clips(weight, inputs, bits, group))
    return min(plain, clipped, key=lambda rounded: output_error(rounded - weight, inputs.mean))


def collect(model: Llama, windows: Tensor) -> dict[str, Moments]:
    """The moments of what each producer of `folding.CONSUMERS` sends to the layers that read it."""
    producers = {consumers[0]: producer for producer, consumers in CONSUMERS.items()}
    found: dict[str, Moments] = {}

    def see(name: str, x: Tensor) -> None:
        block, _, layer = name.rpartition(".")
        if layer in producers:
            found.setdefault(f"{block}.{producers[layer]}", Moments(x.shape[-1], x.device)).add(x)

    calibrate(model, windows, see)
    return found


def as_moments(weight: Tensor, inputs: Tensor | Moments) -> Moments:
    if isinstance(inputs, Moments):
        return inputs
    moments = Moments(weight.shape[-1], weight.device)
    moments.add(inputs)
    return moments
