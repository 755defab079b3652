"""The commands of `python -m quant_kernels`: a module each, with `add` for its arguments and `run` for its work.

What takes time to import (torch, gguf, rich) is imported by `run`, so that `--help` answers at once.
"""
