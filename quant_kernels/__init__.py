"""Reference kernels for quantized language models, in plain torch."""

from importlib import import_module

# Where each public name lives. It is imported when it is first asked for: torch alone takes a second.
_HOMES = {
    "QTYPES": "qtypes",
    "bits_per_byte": "measures.perplexity",
    "collect_imatrix": "measures.collect_imatrix",
    "compare": "measures.compare",
    "compiled": "compilation",
    "dequantize": "qtypes",
    "load_imatrix": "measures.imatrix",
    "load_model": "models.gguf_file",
    "matmul": "multiplication",
    "peak_memory": "measures.memory",
    "perplexity": "measures.perplexity",
    "perplexity_of_text": "measures.perplexity",
    "plan_mix": "models.plan_mix",
    "quantize": "qtypes",
    "quantize_file": "models.quantize_model",
    "quantize_model": "models.quantize_model",
    "record": "measures.compare",
    "save_gguf": "models.gguf_writer",
    "save_imatrix": "measures.imatrix",
    "word_perplexity": "measures.perplexity",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
