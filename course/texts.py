"""The texts of the course's measurements, which every installation carries: nothing is downloaded.

Models are evaluated on Python's own language reference, on which the course model is never trained, and calibrated on
numpy's docstrings.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

SHORTEST_DOCSTRING = 200  # characters


def evaluation_text() -> str:
    """Returns the topics of Python's `help()`, in alphabetical order: about 465,000 characters in Python 3.11."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def calibration_text() -> str:
    """Returns the longer docstrings of numpy's library of functions, module by module."""
    folder = Path(find_spec("numpy").origin).parent / "lib"
    modules = sorted(folder.glob("*.py"))
    return "\n\n\n".join(titled(*docstring) for path in modules for docstring in docstrings(path.read_bytes()))


def docstrings(source: bytes) -> Iterator[tuple[str, str]]:
    """Yields name and text of the longer docstrings in a module's source; the module's own has no name."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # code for Python 2, or a test of encodings
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and len(text) >= SHORTEST_DOCSTRING:
                yield "" if isinstance(node, ast.Module) else node.name, text


def titled(name: str, text: str) -> str:
    return f"{name}\n\n{text}" if name else text
