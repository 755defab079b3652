"""The tensors of a Llama of any size by name and shape, and the sizes of published ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """The sizes of a model of the Llama family; `n_expert_used` of its experts see each token."""

    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    vocab: int
    n_ctx: int
    tied: bool = False  # the output matrix is token_embd.weight
    n_expert: int = 0
    n_expert_used: int = 0
    rope_freqs: bool = False  # the file has Llama 3.1's factors of the rotary frequencies
    key_length: int = 0  # of a head, where that is not n_embd / n_head

    @property
    def head_dim(self) -> int:
        return self.key_length or self.n_embd // self.n_head

    @property
    def heads(self) -> dict[str, int]:
        """What `plan_mix` asks for beside the shapes."""
        return {"n_head": self.n_head, "n_head_kv": self.n_head_kv, "n_expert": self.n_expert}


# From the config.json that each model was published with.
ARCHITECTURES = {
    "LLaMA-7B": Architecture(32, 4096, 11008, 32, 32, 32000, 2048),
    "LLaMA-65B": Architecture(80, 8192, 22016, 64, 64, 32000, 2048),
    "Llama-2-7B": Architecture(32, 4096, 11008, 32, 32, 32000, 4096),
    "Llama-2-13B": Architecture(40, 5120, 13824, 40, 40, 32000, 4096),
    "Llama-2-70B": Architecture(80, 8192, 28672, 64, 8, 32000, 4096),
    "Llama-3-8B": Architecture(32, 4096, 14336, 32, 8, 128256, 8192),
    "Llama-3-70B": Architecture(80, 8192, 28672, 64, 8, 128256, 8192),
    "Llama-3.1-8B": Architecture(32, 4096, 14336, 32, 8, 128256, 131072, rope_freqs=True),
    "Llama-3.1-70B": Architecture(80, 8192, 28672, 64, 8, 128256, 131072, rope_freqs=True),
    "Llama-3.1-405B": Architecture(126, 16384, 53248, 128, 8, 128256, 131072, rope_freqs=True),
    "Llama-3.2-1B": Architecture(16, 2048, 8192, 32, 8, 128256, 131072, tied=True, rope_freqs=True),
    "Llama-3.2-3B": Architecture(28, 3072, 8192, 24, 8, 128256, 131072, tied=True, rope_freqs=True),
    "Mistral-7B": Architecture(32, 4096, 14336, 32, 8, 32000, 32768),
    "Mixtral-8x7B": Architecture(32, 4096, 14336, 32, 8, 32000, 32768, n_expert=8, n_expert_used=2),
    "TinyLlama-1.1B": Architecture(22, 2048, 5632, 32, 4, 32000, 2048),
    "SmolLM2-135M": Architecture(30, 576, 1536, 9, 3, 49152, 8192, tied=True),
    "SmolLM2-360M": Architecture(32, 960, 2560, 15, 5, 49152, 8192, tied=True),
    "SmolLM2-1.7B": Architecture(24, 2048, 8192, 32, 32, 49152, 8192, tied=True),
}


def llama_shapes(sizes) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor in the GGUF of a Llama, by name: (rows, columns), (columns,) of norms.

    sizes: an `Architecture`, or a loaded model's `config`. The matrices of experts are (experts, rows, columns).
    Raises AttributeError for an object without these sizes.

    >>> import math
    >>> shapes = llama_shapes(ARCHITECTURES["Llama-2-7B"])
    >>> shapes["blk.31.ffn_down.weight"], sum(map(math.prod, shapes.values()))
    ((4096, 11008), 6738415616)
    """
    width, vocab = sizes.n_embd, sizes.vocab
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocab, width), "output_norm.weight": (width,)}
    if not sizes.tied:
        shapes["output.weight"] = (vocab, width)
    if getattr(sizes, "rope_freqs", False):
        shapes["rope_freqs.weight"] = (sizes.head_dim // 2,)
    block = block_shapes(sizes)
    return shapes | {f"blk.{i}.{name}.weight": shape for i in range(sizes.n_layer) for name, shape in block.items()}


def block_shapes(sizes) -> dict[str, tuple[int, ...]]:
    width, ff, n_expert = sizes.n_embd, sizes.n_ff, getattr(sizes, "n_expert", 0)
    q_dim, kv_dim = sizes.n_head * sizes.head_dim, sizes.n_head_kv * sizes.head_dim
    attention = {
        "attn_norm": (width,),
        "attn_q": (q_dim, width),
        "attn_k": (kv_dim, width),
        "attn_v": (kv_dim, width),
        "attn_output": (width, q_dim),
        "ffn_norm": (width,),
    }
    feed_forward = {"ffn_gate": (ff, width), "ffn_up": (ff, width), "ffn_down": (width, ff)}
    if not n_expert:
        return attention | feed_forward
    experts = {f"{name}_exps": (n_expert, *shape) for name, shape in feed_forward.items()}
    return attention | {"ffn_gate_inp": (n_expert, width)} | experts
