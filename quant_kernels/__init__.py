"""Reference kernels for quantized language models, in plain torch."""

from importlib import import_module

# Where each public name lives. It is imported when it is first asked for: torch alone takes a second.
_HOMES = {
    "QTYPES": "qtypes",
    "compiled": "compilation",
    "dequantize": "qtypes",
    "load_model": "models.gguf_file",
    "matmul": "multiplication",
    "peak_memory": "measures.memory",
    "perplexity": "measures.perplexity",
    "quantize": "qtypes",
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
