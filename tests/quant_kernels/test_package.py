"""The public names, which are imported when they are asked for."""

import inspect
import subprocess
import sys

import pytest

import quant_kernels as qk


def test_every_public_name_is_there_and_listed():
    assert set(qk.__all__) <= set(dir(qk))
    for name in qk.__all__:
        assert getattr(qk, name) is not None


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="module 'quant_kernels' has no attribute 'requantize'"):
        _ = qk.requantize
    assert not hasattr(qk, "nothing")


def test_all_can_be_imported_at_once():
    code = "from quant_kernels import *; print(quantize.__name__, load_model.__name__, len(QTYPES) > 5)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "quantize load_model True\n"


def test_a_function_brings_only_what_it_needs():
    code = "import sys, quant_kernels as qk; print('torch' in sys.modules); qk.quantize; "
    code += "print(sorted({'gguf', 'tokenizers', 'rich', 'matplotlib', 'pandas'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "False\n[]\n"


@pytest.mark.parametrize("name", [name for name in qk.__all__ if callable(getattr(qk, name))])
def test_every_public_function_says_what_it_raises_and_has_an_example(name):
    text = inspect.getdoc(getattr(qk, name))
    assert "Raises " in text and ">>> " in text
