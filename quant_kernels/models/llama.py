"""A plain Llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU; float32, one forward pass.

Module names are the tensor names of GGUF (`blk.0.attn_q.weight`), so `named_parameters()` speaks the file's language.
Left out: KV cache, sampling, dropout, biases, experts, rope scaling other than Llama 3's per-frequency factors.
Shapes: B windows, T tokens, C = n_embd, H = n_head, K = n_head_kv, D = head_dim, V = vocab.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant_kernels.models.tokenizer import Tokenizer

EVERY_POSITION = slice(None)


@dataclass(frozen=True)
class Config:
    """The sizes of a Llama, under the names that llama.cpp prints."""

    n_layer: int
    n_head: int
    n_head_kv: int
    n_embd: int
    n_ff: int
    n_ctx: int  # tokens that the model was trained to see at once
    vocab: int
    head_dim: int
    rope_base: float = 10000.0
    rms_eps: float = 1e-5
    tied: bool = False  # the output matrix is token_embd.weight
    bos_id: int | None = None  # opens every text, if the file asks for it


class RMSNorm(nn.Module):
    """Divides each vector by its root mean square, then scales each channel."""

    def __init__(self, n_embd: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_embd))  # (C,)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight  # (B, T, C)


class Rope(nn.Module):
    """The angles of the rotary positions; `weight` divides the frequencies (`rope_freqs.weight` of Llama 3 files)."""

    def __init__(self, config: Config):
        super().__init__()
        self.base, self.head_dim = config.rope_base, config.head_dim
        self.weight = nn.Parameter(torch.ones(config.head_dim // 2))  # (D/2,)

    def forward(self, n_tokens: int) -> tuple[Tensor, Tensor]:
        exponents = torch.arange(0, self.head_dim, 2, device=self.weight.device) / self.head_dim  # (D/2,)
        frequencies = self.base**-exponents / self.weight
        angles = torch.arange(n_tokens, device=self.weight.device)[:, None] * frequencies  # (T, D/2)
        return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the pairs (0, 1), (2, 3), ... of each head by its position's angles.

    GGUF stores a Llama's attn_q and attn_k with their rows permuted for neighbouring pairs; checkpoints of
    transformers pair channel i with i + D/2 instead.
    """
    even, odd = x[..., 0::2], x[..., 1::2]  # (B, H, T, D/2) each
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)  # (B, H, T, D)


class Block(nn.Module):
    """One layer: attention, then the feed-forward network, each on the normed residual stream."""

    def __init__(self, config: Config):
        super().__init__()
        self.head_dim = config.head_dim
        q_dim, kv_dim = config.n_head * config.head_dim, config.n_head_kv * config.head_dim
        self.attn_norm = RMSNorm(config.n_embd, config.rms_eps)
        self.attn_q = nn.Linear(config.n_embd, q_dim, bias=False)
        self.attn_k = nn.Linear(config.n_embd, kv_dim, bias=False)
        self.attn_v = nn.Linear(config.n_embd, kv_dim, bias=False)
        self.attn_output = nn.Linear(q_dim, config.n_embd, bias=False)
        self.ffn_norm = RMSNorm(config.n_embd, config.rms_eps)
        self.ffn_gate = nn.Linear(config.n_embd, config.n_ff, bias=False)
        self.ffn_up = nn.Linear(config.n_embd, config.n_ff, bias=False)
        self.ffn_down = nn.Linear(config.n_ff, config.n_embd, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.attn_norm(x), cos, sin)  # (B, T, C)
        return x + self.feed_forward(self.ffn_norm(x))  # (B, T, C)

    def attention(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        heads = (-1, self.head_dim)
        q = self.attn_q(x).unflatten(-1, heads).transpose(1, 2)  # (B, H, T, D)
        k = self.attn_k(x).unflatten(-1, heads).transpose(1, 2)  # (B, K, T, D)
        v = self.attn_v(x).unflatten(-1, heads).transpose(1, 2)  # (B, K, T, D)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        return self.attn_output(self.attend(q, k, v).transpose(1, 2).flatten(-2))  # (B, T, C)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # query head h reads key head h // (H / K); the scale is 1 / sqrt(D)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)  # (B, H, T, D)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.ffn_down(F.silu(self.ffn_gate(x)) * self.ffn_up(x))  # (B, T, C)


class Llama(nn.Module):
    """A Llama-architecture language model.

    `metadata` holds the GGUF's key-value pairs, from which `tokenizer` is built when it is first asked for.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.metadata: dict[str, object] = {}
        self.token_embd = nn.Embedding(config.vocab, config.n_embd)
        self.rope_freqs = Rope(config)
        self.blk = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.output_norm = RMSNorm(config.n_embd, config.rms_eps)
        if not config.tied:
            self.output = nn.Linear(config.n_embd, config.vocab, bias=False)

    def forward(self, tokens: Tensor, positions: slice = EVERY_POSITION) -> Tensor:
        """Returns the logits of the next token at every position, or at those of a slice.

        tokens: (B, T) token ids, T at most n_ctx; the result is float32 (B, T, V), or as many of T as asked for.
        Raises ValueError for another shape, a longer T, or an id outside the vocabulary.
        """
        self._check(tokens)
        x = self.token_embd(tokens)  # (B, T, C)
        cos, sin = self.rope_freqs(tokens.shape[1])
        for block in self.blk:
            x = block(x, cos, sin)  # (B, T, C)
        matrix = self.token_embd.weight if self.config.tied else self.output.weight  # (V, C)
        return F.linear(self.output_norm(x[:, positions]), matrix)  # (B, T, V)

    def _check(self, tokens: Tensor) -> None:
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= self.config.n_ctx:
            raise ValueError(f"tokens have shape {tuple(tokens.shape)}, not (batch, 1 to {self.config.n_ctx})")
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.config.vocab:
            raise ValueError(
                f"token ids {int(tokens.min())} to {int(tokens.max())} are not all in 0 to {self.config.vocab - 1}"
            )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The file's own tokenizer; ValueError names one that is not supported."""
        return Tokenizer(self.metadata)

    def weights(self) -> dict[str, nn.Parameter]:
        """The weight matrices by their GGUF names: (rows, columns), one row per output channel."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.ndim == 2}

    @contextmanager
    def replaced(self, weights: Mapping[str, Tensor]) -> Iterator["Llama"]:
        """Puts other matrices in the place of the named ones until the `with` block ends.

        weights: GGUF name to a tensor of the same shape. Raises ValueError for an unknown name or another shape.
        """
        own = self.weights()
        for name, weight in weights.items():
            if name not in own:
                raise ValueError(f"the model has no weight matrix {name!r}")
            if weight.shape != own[name].shape:
                raise ValueError(f"{name} has shape {tuple(own[name].shape)}, its replacement {tuple(weight.shape)}")
        before = {name: own[name].data for name in weights}
        try:
            for name, weight in weights.items():
                own[name].data = weight.to(before[name])
            yield self
        finally:
            for name, weight in before.items():
                own[name].data = weight
