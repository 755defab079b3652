"""The functions of matmul.cpp, compiled on this machine when they are first asked for."""

import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from .compilation import cache_folder, compiler

SOURCE = Path(__file__).with_name("matmul.cpp")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared")
ARGUMENTS = [*[ctypes.c_void_p] * 3, *[ctypes.c_size_t] * 3, ctypes.c_int]


def function(name: str) -> Callable:
    """`Q4_K_integer`, `Q4_K_float` and so on: (data, x, y, rows, tokens, n, threads), tensors all contiguous."""
    native = getattr(library(), name)
    native.argtypes, native.restype = ARGUMENTS, None

    def call(*arguments: torch.Tensor | int) -> None:
        native(*(item.data_ptr() if isinstance(item, torch.Tensor) else item for item in arguments))

    return call


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled source. Raises RuntimeError with the compiler's message where it cannot be compiled."""
    program = compiler()
    path = cache_folder() / f"matmul-{digest(program)}.so"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        build(program, path)
    return ctypes.CDLL(str(path))


def digest(program: str) -> str:
    """Of all that the machine code depends on: the source, the flags, the compiler's version and the CPU's abilities.

    The last two are in the macros that a compiler defines by itself.
    """
    macros = run([program, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull])
    return hashlib.sha256(SOURCE.read_bytes() + repr((program, FLAGS)).encode() + macros.encode()).hexdigest()[:16]


def build(program: str, path: Path) -> None:
    """Compiles with OpenMP, or, as with Apple's clang, without: then one thread does all."""
    handle, partial = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(handle)
    try:
        try:
            run([program, *FLAGS, "-fopenmp", "-o", partial, str(SOURCE)])
        except RuntimeError:
            run([program, *FLAGS, "-o", partial, str(SOURCE)])
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)} failed with exit code {done.returncode}: {done.stderr.strip()[-2000:]}"
        )
    return done.stdout
