"""Make the golden bytes: what ggml's own C quantizers write for the inputs of this file.

    python make_golden.py [--sdist FILE | --source DIR] [--keep-library FILE]

ggml's source comes out of the PyPI sdist of llama-cpp-python (downloaded with pip, given as a file, or unpacked in a
folder). It is compiled with gcc for baseline x86-64 without contraction to fused multiply-add, which is what the stock
x86 build of llama.cpp does to these functions. `cases.npz` gets the inputs, one file per format the bytes. The same
sources give the same files. `--keep-library` keeps the compiled library, for tests and benchmarks (GGML_LIBRARY).
A further format is one more line in FORMATS.
"""

import argparse
import ctypes
import faulthandler
import hashlib
import mmap
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SDIST, SHA256 = "llama-cpp-python==0.3.36", "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
GGML = "vendor/llama.cpp/ggml"  # inside the sdist
FORMATS = (  # ggml's numbers of the types
    {"Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8}
    | {"Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14}
    | {"IQ2_XXS": 16, "IQ2_XS": 17, "IQ2_S": 22, "IQ3_XXS": 18, "IQ3_S": 21, "IQ1_S": 19, "IQ1_M": 29}
    | {"Q1_0": 41, "Q2_0": 42, "TQ1_0": 34, "TQ2_0": 35, "MXFP4": 39, "NVFP4": 40, "IQ4_NL": 20, "IQ4_XS": 23}
)
WITHOUT_IMPORTANCE = {"Q1_0", "Q2_0", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4"}  # formats that ignore it
NEED_IMPORTANCE = {"IQ2_XXS", "IQ2_XS", "IQ1_S"}  # formats whose C code aborts without it


class Ggml:
    """The quantizers of a compiled ggml-base library, on numpy arrays."""

    def __init__(self, path: Path | str):
        self._library = library = ctypes.CDLL(str(path))
        library.ggml_row_size.restype = library.ggml_quantize_chunk.restype = ctypes.c_size_t
        library.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
        library.ggml_blck_size.restype = ctypes.c_int64
        library.ggml_quantize_chunk.argtypes = [
            *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
            *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p),
        ]

    def block_size(self, name: str) -> int:
        return self._library.ggml_blck_size(FORMATS[name])

    def quantize(self, x: np.ndarray, name: str, importance: np.ndarray | None = None) -> np.ndarray:
        """float32 (n_rows, n), and importance (n,), to uint8 (n_rows, n_bytes)."""
        out = np.zeros((len(x), self._library.ggml_row_size(FORMATS[name], x.shape[1])), np.uint8)
        self._quantize_into(out, x, name, importance)
        return out

    def quantize_or_abort(self, x: np.ndarray, name: str, importance: np.ndarray | None = None) -> np.ndarray:
        """As `quantize`, in a process of its own: bytes of 0xff, whose scale is NaN, where ggml ends the process."""
        n_bytes = self._library.ggml_row_size(FORMATS[name], x.shape[1])
        self._library.ggml_quantize_init(FORMATS[name])  # some seconds, which no child has to spend again
        shared = mmap.mmap(-1, len(x) * n_bytes)
        out = np.frombuffer(shared, np.uint8).reshape(len(x), n_bytes)
        child = os.fork()
        if child == 0:
            faulthandler.disable()  # of pytest, which reports what is expected here
            os.environ["GGML_NO_BACKTRACE"] = "1"
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            self._quantize_into(out, x, name, importance)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        return out.copy() if status == 0 else np.full_like(out, 0xFF)

    def _quantize_into(self, out: np.ndarray, x: np.ndarray, name: str, importance: np.ndarray | None) -> None:
        x, importance = _float32(x), None if importance is None else _float32(importance)
        pointer = None if importance is None else importance.ctypes.data
        self._library.ggml_quantize_chunk(FORMATS[name], x.ctypes.data, out.ctypes.data, 0, *x.shape, pointer)

    def dequantize(self, data: np.ndarray, name: str) -> np.ndarray:
        """uint8 (n_rows, n_bytes) to float32 (n_rows, n)."""
        data = np.ascontiguousarray(data, np.uint8)
        n_blocks = data.size // self._library.ggml_row_size(FORMATS[name], self.block_size(name))
        out = np.empty((len(data), n_blocks * self.block_size(name) // len(data)), np.float32)
        function = getattr(self._library, "dequantize_row_" + name.lower().replace("_k", "_K"))
        function(ctypes.c_void_p(data.ctypes.data), ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(out.size))
        return out


def _float32(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x, np.float32)


def make_cases() -> dict[str, np.ndarray]:
    """Every input by name: `KIND` and `KIND-ROWSxN` are weights, `typical-N` and `extreme-N` are importances."""
    rng = np.random.default_rng(6)
    cases = {kind: _float32(x.reshape(2, 256)) for kind, x in _kinds(rng).items()}
    for rows, n in ((3, 32), (3, 64), (3, 96), (2, 576), (1, 4096)):
        cases[f"gauss-{rows}x{n}"] = _float32(rng.standard_normal((rows, n)) * 0.02)
        cases[f"heavy-{rows}x{n}"] = _float32(rng.standard_t(2, (rows, n)))
    for n in sorted({x.shape[1] for x in cases.values()}):
        cases[f"typical-{n}"] = _float32(rng.chisquare(1, n))
        cases[f"extreme-{n}"] = _float32(10 ** rng.uniform(-12, 12, n) * (rng.random(n) < 0.6))
    # Only negative zeros count: their sum has to stay negative.
    cases["masked"] = _float32(np.where(cases["extreme-256"] > 0, -0.0, -np.abs(rng.standard_normal((8, 256)))))
    return cases


def _kinds(rng: np.random.Generator) -> dict[str, np.ndarray]:
    n = 512
    gauss, signs = rng.standard_normal(n), rng.choice([-1.0, 1.0], n)
    denormals = rng.integers(0, 2 ** rng.integers(1, 24, n)).astype(np.uint32).view(np.float32) * signs
    steps = rng.integers(-8, 8, n) + 0.5
    return {
        "gauss": gauss,
        "heavy": rng.standard_t(2, n),
        "outliers": gauss * np.where(rng.random(n) < 0.03, 1000, 1),
        "positive": np.abs(gauss) + 0.5,
        "negative": -np.abs(gauss) - 0.5,
        "constant": np.repeat([1.5, -1.5, 0.1, -0.1, 3e-5, -4e4, 1e-6, -1e-6], 64),
        "nearly_constant": 0.3 + rng.integers(-3, 4, n) * 3e-8,
        "two_values": rng.choice([-0.7, 0.2], n),
        "zero": np.zeros(n),
        "negative_zero": -np.zeros(n),
        "zeros_of_both_signs": signs * 0.0,
        "sparse": np.where(rng.random(n) < 0.9, signs * 0.0, gauss),
        "rectified": np.maximum(gauss, 0.0),
        "tiny": gauss * 1e-7,
        "denormal": denormals,
        "near_denormal": gauss * 2.0**-126,
        "every_exponent": np.ldexp(signs, rng.integers(-140, 15, n)),
        "exponent_per_block": np.ldexp(gauss, np.repeat(rng.integers(-149, 14, n // 32), 32)),
        "huge": np.clip(gauss * 2e4, -4e4, 4e4),
        "ties": np.where(np.arange(n) % 32 == 0, -8.0, steps),
        "ties_of_bytes": np.where(np.arange(n) % 32 == 0, 127.0, rng.integers(-127, 127, n) + 0.5),
        "near_half": np.where(np.arange(n) % 32 == 0, 127.0, signs * np.float32(0.49999997)),
        "integers": rng.integers(-8, 8, n).astype(float),
        "ramp": np.arange(n) - 100.0,
        "fine_ramp": np.tile(np.linspace(-1, 1, 32), n // 32),
        "equal_extremes": np.where(np.arange(n) % 32 < 2, signs * 4.0, np.clip(gauss, -4, 4)),
    }


def golden_bytes(ggml: Ggml, name: str, cases: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The bytes of every case whose rows divide into the format's blocks: `KIND`, `KIND/typical`, `KIND/extreme`."""
    expected = {}
    weights = {kind: x for kind, x in cases.items() if x.ndim == 2 and x.shape[1] % ggml.block_size(name) == 0}
    for kind, x in weights.items():
        if name not in NEED_IMPORTANCE:
            expected[kind] = ggml.quantize_or_abort(x, name)
        for importance in () if name in WITHOUT_IMPORTANCE else ("typical", "extreme"):
            expected[f"{kind}/{importance}"] = ggml.quantize_or_abort(x, name, cases[f"{importance}-{x.shape[1]}"])
    return expected


def unpack(sdist: Path | None, folder: Path) -> Path:
    """ggml's folder from the sdist, which pip downloads if none is given. ValueError for another file."""
    if sdist is None:
        command = ["download", "--no-deps", "--no-binary", ":all:", "--dest", folder, SDIST]
        subprocess.run([sys.executable, "-m", "pip", *command], check=True)
        sdist = next(folder.glob("*.tar.gz"))
    digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if digest != SHA256:
        raise ValueError(f"{sdist} has sha256 {digest}, not that of {SDIST}, {SHA256}")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob(f"*/{GGML}"))


def compile_library(ggml: Path, folder: Path) -> Path:
    """The shared library of ggml-base's sources, built in `folder`."""
    (folder / "ggml-version.h").write_text('#define GGML_VERSION "golden"\n#define GGML_COMMIT "golden"\n')
    library = folder / "libggml-base.so"
    sources = [*ggml.glob("src/*.c"), *ggml.glob("src/gguf.cpp"), *ggml.glob("src/ggml*.cpp")]
    sources = sorted(path for path in sources if path.stem not in ("ggml-backend-dl", "ggml-backend-reg"))
    flags = ["-O2", "-march=x86-64", "-ffp-contract=off", "-DNDEBUG", "-D_GNU_SOURCE", "-fPIC", "-shared"]
    includes = [f"-I{path}" for path in (ggml / "include", ggml / "src", folder)]
    subprocess.run(["gcc", *flags, *includes, "-o", library, *sources, "-lstdc++", "-lm", "-lpthread"], check=True)
    return library


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a compressed .npz, whole or not at all."""
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **arrays)
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--sdist", type=Path, help=f"the sdist of {SDIST}")
    source.add_argument("--source", type=Path, help="the folder that this sdist unpacks to")
    parser.add_argument("--keep-library", type=Path, metavar="FILE", help="where to keep the compiled library")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        library = compile_library(args.source / GGML if args.source else unpack(args.sdist, folder), folder)
        if args.keep_library:
            shutil.copy(library, args.keep_library)
        ggml, cases = Ggml(library), make_cases()
        save(HERE / "cases.npz", cases)
        for name in FORMATS:
            save(HERE / f"{name}.npz", golden_bytes(ggml, name, cases))


if __name__ == "__main__":
    main()
