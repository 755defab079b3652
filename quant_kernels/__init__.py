"""Reference kernels for quantized language models, in plain torch."""

from .qtypes import QTYPES, dequantize, quantize

__all__ = ["QTYPES", "dequantize", "quantize"]
