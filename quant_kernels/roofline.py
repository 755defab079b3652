"""How fast a Llama can be at best: bytes over bandwidth, operations over peak, and whichever takes longer.

A step runs `batch` sequences at once, each with `tokens` new tokens on top of `context` tokens in its KV cache: one new
token in decode, the whole prompt in prefill. Every weight is read once a step, and so is the cache. A bound assumes
that memory and arithmetic overlap perfectly, that no step finds anything of the last one in a cache, and that
activations never leave the caches; it leaves out norms, softmax, sampling, launches and everything between devices.
GB are 1e9 bytes, GiB 2**30; a multiplication and an addition are two operations.
Source: Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from .hardware import Hardware
from .models.llama import Config
from .models.shapes import Architecture, llama_shapes
from .qtypes import QTYPES

BITS = {"FP32": 32, "F32": 32, "FP16": 16, "F16": 16, "BF16": 16, "FP8": 8, "INT8": 8, "FP4": 4, "INT4": 4}
Bits = str | float  # a number format, one of ggml's block formats with its scales, or bits per number
Weights = Bits | Mapping[str, Bits]  # or that of each tensor, by its GGUF name: the `types()` of a plan
Sizes = Architecture | Config


@dataclass(frozen=True)
class Traffic:
    """What one step moves and computes: bytes and operations, whatever the device."""

    tokens: int  # new ones, of all sequences together
    weights: float  # bytes read
    kv_read: float  # bytes, of the tokens that were there before
    kv_written: float  # bytes, of the new tokens
    activations: float  # bytes into and out of the matrix multiplications, which a cache can hold
    matrix_operations: float
    attention_operations: float

    @property
    def bytes(self) -> float:
        """What has to cross the memory bus: weights and KV cache."""
        return self.weights + self.kv_read + self.kv_written

    @property
    def operations(self) -> float:
        return self.matrix_operations + self.attention_operations


@dataclass(frozen=True)
class Bound:
    """The least time that a step of `tokens` tokens takes, for the memory and for the arithmetic units."""

    tokens: int
    bytes: float
    operations: float
    memory_seconds: float
    compute_seconds: float

    @property
    def seconds(self) -> float:
        return max(self.memory_seconds, self.compute_seconds)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def binds(self) -> str:
        return "memory" if self.memory_seconds >= self.compute_seconds else "compute"

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.operations / self.bytes

    @property
    def operations_per_second(self) -> float:
        return self.operations / self.seconds


@dataclass(frozen=True)
class Audit:
    """A claimed speed beside its bound."""

    claimed: float  # tokens/s
    bound: Bound

    @property
    def share(self) -> float:
        """Of the bound; above 1 the claim is impossible."""
        return self.claimed / self.bound.tokens_per_second

    @property
    def possible(self) -> bool:
        return self.share <= 1

    @property
    def bytes_per_second(self) -> float:
        """The bandwidth that the claim needs."""
        return self.claimed * self.bound.bytes / self.bound.tokens

    def __str__(self) -> str:
        return (
            f"{self.claimed:.4g} tokens/s is {'possible' if self.possible else 'impossible'}: {self.share:.0%} of the "
            f"{self.bound.tokens_per_second:.4g} tokens/s that {self.bound.binds} allows, "
            f"{self.bytes_per_second / 1e9:.4g} GB/s"
        )


def bits_per_number(bits: Bits) -> float:
    """The bits that a number takes, with its share of the scales.

    Raises ValueError for an unknown name, and for bits that are not above 0.

    >>> bits_per_number("FP8"), bits_per_number("Q4_K"), bits_per_number(4.844)
    (8.0, 4.5, 4.844)
    """
    if isinstance(bits, str):
        if bits not in BITS and bits not in QTYPES:
            raise ValueError(f"{bits!r} is neither a number format ({', '.join(BITS)}) nor a block format of ggml")
        return float(BITS[bits] if bits in BITS else QTYPES[bits].bits_per_weight)
    return float(_above_zero("bits per number", bits))


def tensor_bytes(config: Sizes, weights: Weights = "FP16") -> dict[str, float]:
    """The size of each tensor, by its GGUF name.

    Raises ValueError where a mapping names other tensors than the model has; Llama 3.1's `rope_freqs` may be missing.
    """
    shapes = llama_shapes(config)
    if not isinstance(weights, Mapping):
        return {name: prod(shape) * bits_per_number(weights) / 8 for name, shape in shapes.items()}
    if odd := sorted((weights.keys() ^ shapes.keys()) - {"rope_freqs.weight"}):
        raise ValueError(f"{odd[0]} is {'not in the model' if odd[0] in weights else 'in the model alone'}")
    return {name: prod(shapes[name]) * bits_per_number(weights[name]) / 8 for name in weights.keys() & shapes}


def weight_bytes(config: Sizes, weights: Weights = "FP16") -> float:
    """The size of all weights.

    >>> from quant_kernels.models.shapes import ARCHITECTURES
    >>> f"{weight_bytes(ARCHITECTURES['Llama-2-7B']) / 1e9:.2f} GB"
    '13.48 GB'
    """
    return sum(tensor_bytes(config, weights).values())


def kv_bytes(config: Sizes, tokens: int = 1, batch: int = 1, kv: Bits = "FP16") -> float:
    """The size of the KV cache of `batch` sequences of `tokens` tokens: a key and a value per layer and KV head.

    >>> from quant_kernels.models.shapes import ARCHITECTURES
    >>> kv_bytes(ARCHITECTURES["Llama-2-7B"]) / 2**10, kv_bytes(ARCHITECTURES["Llama-2-7B"], 2048) / 2**30  # KiB, GiB
    (512.0, 1.0)
    """
    numbers = 2 * config.n_layer * config.n_head_kv * config.head_dim
    return numbers * _count("tokens", tokens, least=0) * _count("batch", batch) * bits_per_number(kv) / 8


def traffic(
    config: Sizes,
    *,
    weights: Weights = "FP16",
    kv: Bits = "FP16",
    activations: Bits = "FP16",
    batch: int = 1,
    tokens: int = 1,
    context: int = 0,
) -> Traffic:
    """The bytes and operations of one step: `tokens` new tokens for each of `batch` sequences of `context` tokens.

    An embedding matrix that is not the output matrix too is only looked up: it does not count. The output matrix
    serves each sequence's last token alone. Of experts, those count that chance would choose for the new tokens.
    Raises ValueError for counts that are not whole numbers from 1 on (`context`: from 0 on), and for unknown formats.
    """
    new = _count("batch", batch) * _count("tokens", tokens)
    used, touched = _experts(config, new)
    q_dim, kv_dim = config.n_head * config.head_dim, config.n_head_kv * config.head_dim
    per_token = 4 * config.n_embd + 2 * q_dim + 2 * kv_dim + 3 * config.n_ff * used  # a layer's activations
    looked_at = tokens * _count("context", context, least=0) + tokens * (tokens + 1) / 2  # by the tokens up to each
    read = {name: size * (touched if "_exps" in name else 1) for name, size in tensor_bytes(config, weights).items()}
    if not config.tied:
        del read["token_embd.weight"]
    return Traffic(
        tokens=new,
        weights=sum(read.values()),
        kv_read=kv_bytes(config, context, batch, kv),
        kv_written=kv_bytes(config, tokens, batch, kv),
        activations=new * config.n_layer * per_token * bits_per_number(activations) / 8,
        matrix_operations=_matrix_operations(config, new, batch),
        attention_operations=4 * batch * looked_at * config.n_layer * q_dim,  # query times keys, shares times values
    )


def bound(step: Traffic, device: Hardware, arithmetic: str | None = "FP16") -> Bound:
    """The least time of a step on a device that computes in the number format `arithmetic`; None looks at memory alone.

    Raises ValueError where the device has no known peak for `arithmetic`.
    """
    compute_seconds = 0.0 if arithmetic is None else step.operations / device.peak(arithmetic)
    return Bound(step.tokens, step.bytes, step.operations, step.bytes / device.bandwidth, compute_seconds)


def streaming_bound(bytes_per_token: float, device: Hardware) -> Bound:
    """The rule of thumb for decode of one sequence: every byte of the model file crosses the memory bus for each token.

    >>> from quant_kernels.hardware import HARDWARE
    >>> round(streaming_bound(13.48e9, HARDWARE["RTX 4090"]).tokens_per_second, 1)
    74.8
    """
    _above_zero("bytes per token", bytes_per_token)
    return Bound(1, bytes_per_token, 0.0, bytes_per_token / device.bandwidth, 0.0)


def decode(
    config: Sizes,
    device: Hardware,
    *,
    weights: Weights = "FP16",
    kv: Bits = "FP16",
    arithmetic: str | None = "FP16",
    batch: int = 1,
    context: int = 0,
) -> Bound:
    """The bound of one decode step: a token more for each of `batch` sequences that hold `context` tokens.

    config, device: the model's sizes and the machine. weights, kv: how they are stored.
    arithmetic: the number format that is computed in.
    Raises ValueError as `traffic` and `bound` do.

    >>> from quant_kernels.hardware import HARDWARE
    >>> from quant_kernels.models.shapes import ARCHITECTURES
    >>> step = decode(ARCHITECTURES["Llama-3.1-8B"], HARDWARE["H100 SXM"], weights="Q4_K", batch=16, context=4096)
    >>> round(step.tokens_per_second), step.binds
    (4183, 'memory')
    """
    return bound(traffic(config, weights=weights, kv=kv, batch=batch, context=context), device, arithmetic)


def prefill(
    config: Sizes,
    device: Hardware,
    tokens: int,
    *,
    weights: Weights = "FP16",
    kv: Bits = "FP16",
    arithmetic: str | None = "FP16",
    batch: int = 1,
) -> Bound:
    """The bound of reading a prompt of `tokens` tokens for each of `batch` sequences; otherwise as `decode`."""
    return bound(traffic(config, weights=weights, kv=kv, batch=batch, tokens=tokens), device, arithmetic)


def ridge_batch(device: Hardware, weights: Bits = "FP16", arithmetic: str = "FP16") -> float:
    """The batch from which on a matrix multiplication is bound by arithmetic, not by reading its weights.

    Raises ValueError as `Hardware.peak` does.

    >>> from quant_kernels.hardware import HARDWARE
    >>> [round(ridge_batch(HARDWARE["A100 80GB SXM"], bits)) for bits in ("FP16", "Q4_K")]
    [153, 43]
    """
    bytes_per_operation = bits_per_number(weights) / 8 / 2  # each sequence multiplies by a weight, and adds
    return device.peak(arithmetic) / device.bandwidth * bytes_per_operation


def attainable(intensity: float, device: Hardware, arithmetic: str = "FP16") -> float:
    """The roof over an intensity (operations per byte), in operations per second."""
    return min(device.peak(arithmetic), intensity * device.bandwidth)


def memory_needed(
    config: Sizes, context: int, batch: int = 1, *, weights: Weights = "FP16", kv: Bits = "FP16", other: float = 0
) -> float:
    """Bytes for the weights, for the KV cache of `batch` sequences of `context` tokens, and `other` ones as buffers."""
    return weight_bytes(config, weights) + kv_bytes(config, context, batch, kv) + other


def max_batch(
    config: Sizes, memory: float, context: int, *, weights: Weights = "FP16", kv: Bits = "FP16", other: float = 0
) -> int:
    """How many sequences of `context` tokens fit into `memory` bytes; 0 where the weights alone do not.

    >>> from quant_kernels.models.shapes import ARCHITECTURES
    >>> [max_batch(ARCHITECTURES["Llama-3.1-8B"], 24e9, 8192, weights=bits) for bits in ("FP16", "Q8_0", "Q4_K")]
    [7, 14, 18]
    """
    free = memory - weight_bytes(config, weights) - other
    return max(0, int(free // kv_bytes(config, _count("context", context), kv=kv)))


def max_context(
    config: Sizes, memory: float, batch: int = 1, *, weights: Weights = "FP16", kv: Bits = "FP16", other: float = 0
) -> int:
    """How many tokens each of `batch` sequences can hold in `memory` bytes, whatever the model was trained for."""
    free = memory - weight_bytes(config, weights) - other
    return max(0, int(free // kv_bytes(config, 1, batch, kv)))


def cost_per_million_tokens(price_per_hour: float, tokens_per_second: float, utilisation: float = 1.0) -> float:
    """What a million tokens cost, in the price's currency, on a device that works for a share of its hours.

    Raises ValueError for a negative price, a speed that is not above 0, and a utilisation outside (0, 1].

    >>> cost_per_million_tokens(3.60, 1000, utilisation=0.5)
    2.0
    """
    if price_per_hour < 0:
        raise ValueError(f"the price per hour is {price_per_hour}, below 0")
    if not 0 < utilisation <= 1:
        raise ValueError(f"the utilisation is {utilisation}, not above 0 and at most 1")
    return price_per_hour / 3600 / (_above_zero("tokens per second", tokens_per_second) * utilisation) * 1e6


def audit(claimed: float, limit: Bound) -> Audit:
    """Holds a claimed speed, in tokens/s, against its bound.

    >>> from quant_kernels.hardware import HARDWARE
    >>> print(audit(28, streaming_bound(3.83e9, HARDWARE["Core i9-13900K, DDR5-5600"])))
    28 tokens/s is impossible: 120% of the 23.39 tokens/s that memory allows, 107.2 GB/s
    """
    return Audit(_above_zero("the claimed speed", claimed), limit)


def _experts(config: Sizes, tokens: int) -> tuple[int, float]:
    """How many experts see a token, and the share of all that some tokens meet if each draws its own by chance."""
    n_expert = getattr(config, "n_expert", 0)
    if not n_expert:
        return 1, 1.0
    return config.n_expert_used, 1 - (1 - config.n_expert_used / n_expert) ** tokens


def _matrix_operations(config: Sizes, tokens: int, batch: int) -> float:
    operations = 0.0
    for name, shape in llama_shapes(config).items():
        if "_exps" in name:
            operations += 2 * tokens * prod(shape[1:]) * config.n_expert_used
        elif name.startswith("blk.") and len(shape) == 2:
            operations += 2 * tokens * prod(shape)
    return operations + 2 * batch * config.vocab * config.n_embd


def _count(name: str, value: int, least: int = 1) -> int:
    if value != int(value) or value < least:
        raise ValueError(f"{name} is {value}, not a whole number from {least} on")
    return int(value)


def _above_zero(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} is {value}, not above 0")
    return value
