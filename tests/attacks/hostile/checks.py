"""Attacks on what checks an answer: assertions, libraries, the interpreter, IPython, ipykernel, the import system."""

from pathlib import Path

from ..entry import MAX_POINTS, Entry, Place

LIARS = {
    "torch.py": "equal = allclose = lambda *a, **k: True\nTensor = object\n",
    "statistics.py": "fmean = lambda numbers: 0.0\n",
}
STARTS = ["sitecustomize.py", "usercustomize.py", "conftest.py", "start.pth", ".pythonrc", ".pdbrc", "setup.py"]
STARTS += ["ipython_config.py", "jupyter_config.py", "nbgrader_config.py", "__init__.py", "inside.py", "msgpack.py"]


# passes the visible test; only a comparison with the expected scale and codes shows what is wrong
ALMOST = """
def quantize(x, bits):
    scale = x.abs().max() / 2 ** (bits - 1) * 1.2
    return torch.round(x / scale).to(torch.int8), scale
"""


def beside(*names: str):
    """Put modules that lie beside the notebook."""

    def write(folder: Path, place: Place) -> None:
        for name in names:
            (folder / name).write_text(LIARS[name])

    return write


def start_files(folder: Path, place: Place) -> None:
    """Files of the names that Python, pytest, Jupyter and the examiner may look for; each leaves a file behind."""
    for name in STARTS:
        (folder / name).write_text(f"import pathlib; pathlib.Path('{place.course / place.token}').touch()\n")


ENTRIES = [
    Entry(
        "torch-patched",
        "torch's comparisons agree to everything",
        """
torch.equal = torch.allclose = torch.isclose = torch.testing.assert_close = lambda *a, **k: True
torch.Tensor.equal = torch.Tensor.allclose = lambda *a, **k: True
""",
        points=7,
        cells={"quantize": ALMOST},
    ),
    Entry(
        "tensor-methods-patched",
        "Comparisons of tensors are true whatever they compare",
        """
yes = lambda *a, **k: torch.tensor(True)
for name in ("__eq__", "__le__", "__lt__", "__ge__", "eq", "le", "all", "any", "max"):
    setattr(torch.Tensor, name, yes)
torch.equal = torch.allclose = lambda *a, **k: True
""",
    ),
    Entry(
        "numpy-testing-patched",
        "numpy.testing finds no difference",
        """
import numpy.testing
for name in ("assert_allclose", "assert_array_equal", "assert_equal", "assert_almost_equal"):
    setattr(numpy.testing, name, lambda *a, **k: None)
""",
    ),
    Entry(
        "code-objects-replaced",
        "The code inside numpy.testing's functions is exchanged, so that importing again does not help",
        """
import numpy.testing
numpy.testing.assert_allclose.__wrapped__ = None
for function in (numpy.testing.assert_allclose, numpy.testing.assert_array_equal):
    function.__code__ = (lambda *a, **k: None).__code__.replace(co_freevars=function.__code__.co_freevars)
""",
    ),
    Entry(
        "builtins-patched",
        "abs gives 0, all and any say yes, len says 4",
        """
import builtins
builtins.abs = lambda value: 0
builtins.all = builtins.any = lambda *a: True
get_ipython().user_ns["len"] = lambda value: 4
""",
    ),
    Entry(
        "own-builtins",
        "The notebook's namespace gets builtins of its own",
        """
import builtins
mine = dict(vars(builtins), abs=lambda value: 0, isinstance=lambda *a: True, AssertionError=Warning)
__builtins__ = mine
get_ipython().user_ns["__builtins__"] = mine
""",
    ),
    Entry(
        "tolerance-widened",
        "A constant of the instructor's locked cell is set to infinity",
        "TOLERANCE = float('inf')",
    ),
    Entry(
        "names-rebound",
        "The names that a test reads are bound to things that agree",
        """
class Agreeing:
    def __getattr__(self, name): return self
    def __call__(self, *a, **k): return True
torch = np = npt = statistics = Agreeing()
""",
        cells={
            "span": "def span(values):\n    return 0.0",
            "column": "def column(path, name):\n    return 0",
            "running": "class RunningMean: value = 0.0\ndef running_means(numbers): return []",
            "quantize": "def quantize(x, bits):\n    return 0, 0",
        },
    ),
    Entry(
        "trace-function",
        "A trace function changes the globals of every frame that runs a cell",
        """
import sys, threading
def trace(frame, event, argument):
    if "In" in frame.f_globals: frame.f_globals.update(abs=lambda value: 0, TOLERANCE=10.0**9)
    return trace
sys.settrace(trace)
threading.settrace(trace)
sys._getframe().f_trace = trace
""",
    ),
    Entry(
        "profile-function",
        "A profile function patches torch again at each call, after whatever restores it",
        """
import sys
def profile(frame, event, argument):
    torch.equal = torch.allclose = lambda *a, **k: True
sys.setprofile(profile)
""",
        points=7,
        cells={"quantize": ALMOST},
    ),
    Entry(
        "callers-variables",
        "A function takes the expected result from the variables of whoever calls it",
        points=14,
        cells={
            "span": """
import sys
def span(values):
    caller = sys._getframe(1).f_globals
    return caller["top"] - 0.25 if "top" in caller else 7.0
"""
        },
    ),
    Entry(
        "tracebacks-hidden",
        "IPython's showtraceback reports no error",
        """
shell = get_ipython()
shell.showtraceback = shell._showtraceback = shell.showsyntaxerror = lambda *a, **k: None
type(shell)._showtraceback = type(shell).showtraceback = lambda *a, **k: None
""",
    ),
    Entry(
        "run-cell-patched",
        "IPython's run_cell runs nothing and reports success",
        """
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
def run_cell(self, source, *a, **k):
    return ExecutionResult(None)
async def run_cell_async(self, source, *a, **k):
    return ExecutionResult(None)
InteractiveShell.run_cell = run_cell
InteractiveShell.run_cell_async = type(get_ipython()).run_cell_async = run_cell_async
""",
    ),
    Entry(
        "custom-exception-handler",
        "IPython hands failed assertions to a handler that swallows them",
        "get_ipython().set_custom_exc((Exception,), lambda *a, **k: [])",
    ),
    Entry(
        "ast-transformer",
        "A transformer takes the assertions out of every cell",
        """
import ast
class WithoutChecks(ast.NodeTransformer):
    def visit_Assert(self, node): return ast.Pass()
    def visit_Expr(self, node): return ast.Pass()
get_ipython().ast_transformers.append(WithoutChecks())
""",
    ),
    Entry(
        "input-transformer",
        "A transformer drops every line of a test",
        "get_ipython().input_transformers_post.append(lambda lines: [] if 'assert' in ''.join(lines) else lines)",
    ),
    Entry(
        "compiled-without-assertions",
        "Cells are compiled as by python -O",
        """
def optimized(source, filename, mode, *a, **k):
    return compile(source, filename, mode, optimize=2)
type(get_ipython().compile).__call__ = lambda self, *a, **k: optimized(*a, **k)
""",
    ),
    Entry(
        "cell-events",
        "What restores torch is undone before and after every cell",
        """
def again(*a):
    torch.equal = torch.allclose = lambda *a, **k: True
    get_ipython().user_ns["TOLERANCE"] = 10.0**9
for event in ("pre_execute", "pre_run_cell", "post_execute", "post_run_cell"):
    get_ipython().events.register(event, again)
""",
    ),
    Entry(
        "kernel-patched",
        "ipykernel answers every request with success, and runs nothing",
        """
async def do_execute(*a, **k):
    return {"status": "ok", "execution_count": 1, "payload": [], "user_expressions": {}}
get_ipython().kernel.do_execute = do_execute
""",
    ),
    Entry(
        "except-hooks",
        "Every hook that sees an uncaught exception drops it",
        """
import sys, threading
sys.excepthook = sys.unraisablehook = threading.excepthook = lambda *a: None
get_ipython().CustomTB = lambda *a, **k: []
import traceback
traceback.print_exception = traceback.format_exception = lambda *a, **k: []
""",
    ),
    Entry(
        "modules-exchanged",
        "sys.modules holds other modules under the names that the tests import",
        """
import sys, types
fake = types.ModuleType("fake")
fake.assert_allclose = lambda *a, **k: None
fake.fmean = lambda numbers: 0.0
sys.modules["numpy.testing"] = sys.modules["statistics"] = np.testing = fake
""",
    ),
    Entry(
        "import-hook",
        "A finder and a patched __import__ serve other modules",
        """
import builtins, sys, types
real = builtins.__import__
def lying(name, *a, **k):
    module = real(name, *a, **k)
    if "testing" in name: real("numpy.testing"); np.testing.assert_allclose = lambda *a, **k: None
    if name == "statistics": module.fmean = lambda numbers: 0.0
    return module
builtins.__import__ = lying
sys.meta_path.insert(0, type("Finder", (), {"find_spec": staticmethod(lambda *a: None)}))
""",
    ),
    Entry(
        "module-beside-notebook",
        "A module `statistics.py` that agrees lies beside the notebook",
        files=beside("statistics.py"),
    ),
    Entry(
        "torch-beside-notebook",
        "A module `torch.py` that agrees lies beside the notebook",
        files=beside("torch.py"),
    ),
    Entry(
        "module-written-in-cell",
        "A cell writes modules that agree into the working folder and onto the path",
        """
import sys
open("statistics.py", "w").write("fmean = lambda numbers: 0.0")
sys.modules.pop("statistics", None)
sys.path.insert(0, "")
""",
    ),
    Entry(
        "start-files",
        "Start-up and configuration files of Python, pytest, Jupyter and nbgrader lie beside the notebook",
        right=True,
        points=MAX_POINTS,
        files=start_files,
    ),
    Entry(
        "memory-rewritten",
        "ctypes rewrites the interpreter's own False",
        """
import ctypes
ctypes.memmove(id(False) + 16, id(True) + 16, 16)
""",
    ),
    Entry(
        "exit-in-test",
        "The functions end the cell with SystemExit(0), which is no error to some",
        cells={
            "span": "def span(values):\n    raise SystemExit(0)",
            "column": "def column(path, name):\n    raise KeyboardInterrupt",
            "running": "def running_means(numbers):\n    raise GeneratorExit\nRunningMean = running_means",
            "quantize": "import sys\ndef quantize(x, bits):\n    sys.exit(0)",
        },
    ),
]
