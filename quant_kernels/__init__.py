"""Reference kernels for quantized language models, in plain torch."""

from .measures.memory import peak_memory
from .measures.perplexity import perplexity
from .models.gguf_file import load_model
from .qtypes import QTYPES, dequantize, quantize

__all__ = ["QTYPES", "dequantize", "load_model", "peak_memory", "perplexity", "quantize"]
