"""The inner steps of the kernels through torch.compile, for whoever asks: the same bytes, several times faster."""

import functools
import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

CACHE = Path("~/.cache/llm-quantization-course/compiled")
COMPILERS = ("g++", "clang++")
OPTIONS = {"assert_indirect_indexing": False}  # all indices into tables come from masked bits
VARIANTS = 64  # of one step: numbers of levels, with and without importance, numbers of threads

_active = False


@contextmanager
def compiled() -> Iterator[None]:
    """Within it the kernels of this package are compiled for this machine's CPU, and several times faster.

    `quantize` and `dequantize` give the same results to the last bit, `matmul` to rounding. The first use of a format
    takes up to a minute; what is compiled is kept for later processes in ~/.cache/llm-quantization-course (or in
    TORCHINDUCTOR_CACHE_DIR). Tensors on a GPU are worked on as without it.

    Raises RuntimeError where there is no C++ compiler, or none of Python's own headers, which compiled steps include.

    >>> with compiled():
    ...     pass  # quantize, dequantize, matmul
    """
    global _active
    compiler()
    headers()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder()))
    before, _active = _active, True
    try:
        with torch._dynamo.config.patch(recompile_limit=VARIANTS):
            yield
    finally:
        _active = before


def compiler() -> str:
    """The path of the C++ compiler: that of $CXX, or the first of COMPILERS that is there."""
    for name in (os.environ.get("CXX", ""), *COMPILERS):
        if path := shutil.which(name):
            return path
    raise RuntimeError(f"compiled() needs a C++ compiler, one of {', '.join(COMPILERS)}; none is in PATH")


def headers() -> Path:
    """The folder of Python.h."""
    folder = Path(sysconfig.get_path("include"))
    if not (folder / "Python.h").is_file():
        raise RuntimeError(
            f"compiled() needs Python's headers; {folder} has no Python.h (Debian's package: python3-dev)"
        )
    return folder


def cache_folder() -> Path:
    """Where what was compiled is kept."""
    return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or CACHE.expanduser())


@contextmanager
def eagerly() -> Iterator[None]:
    """Within it nothing is compiled after all: for steps so rare that a variant of their own would not pay."""
    global _active
    before, _active = _active, False
    try:
        yield
    finally:
        _active = before


def is_compiled() -> bool:
    """Whether `compiled` is in effect."""
    return _active


def compilable(dim: int) -> Callable[[Callable], Callable]:
    """Marks a step, a function of tensors and constants without data-dependent control flow, for `compiled`.

    What is compiled is good for any number of blocks, which is the size of the first tensor's dimension `dim`, and of
    that dimension of all tensors that have as many.
    """

    def mark(step: Callable) -> Callable:
        @functools.cache
        def machine_code() -> Callable:
            return torch.compile(step, dynamic=False, fullgraph=True, options=OPTIONS)

        @functools.wraps(step)
        def call(first: torch.Tensor, *others: object) -> object:
            n_blocks = first.shape[dim]
            if not _active or first.device.type != "cpu" or n_blocks < 2 or torch.compiler.is_compiling():
                return step(first, *others)
            for tensor in (first, *others):
                if isinstance(tensor, torch.Tensor) and tensor.dim() and tensor.shape[dim] == n_blocks:
                    torch._dynamo.maybe_mark_dynamic(tensor, dim % tensor.dim())
            return machine_code()(first, *others)

        return call

    return mark
